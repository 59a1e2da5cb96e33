"""``graphunlearn demo``: forgetting on synthetic data, compared with retrained models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from graphunlearn.cli._fields import Folder, Running
from graphunlearn.cli._methods import BENCHED, build_method
from graphunlearn.cli._reports import command, written
from graphunlearn.cli._sources import sizes
from graphunlearn.cli._text import Answer, device_of, note

__all__ = ["Demo"]

DEMO_OUT = {"interactions": Path("runs/demo"), "sessions": Path("runs/demo-sessions")}


@dataclass(kw_only=True)
class Demo:
    """Run all steps on synthetic data, in less than a minute.

    The demo makes synthetic ratings of 1,000 users, flips 2% of the training labels, trains LightGCN on them, forgets
    the flipped ones with several methods, and compares all of them with three retrained models. With --kind sessions,
    it makes synthetic sessions, trains SR-GNN on them, and forgets a click in each of a share of them.

    examples:
      graphunlearn demo
      graphunlearn demo --seed 1 --out runs/another
      graphunlearn demo --kind sessions
    """

    kind: Literal["interactions", "sessions"] = "interactions"
    """Kind of the data: ratings of users and items, or clicks in sessions."""
    out: Folder = None
    """Folder for report.json and report.html (default: runs/demo or runs/demo-sessions, replaced by a later demo)."""
    seed: int = 0
    """Seed of the data, the models and the methods."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Run the demo and write the report."""
        from graphunlearn import datasets, nn
        from graphunlearn.eval import bench, flipped_labels, session_clicks
        from graphunlearn.runs.folder import check_out

        out, overwrite = (DEMO_OUT[self.kind], True) if self.out is None else (self.out, self.running.overwrite)
        check_out(out, overwrite)
        kinds: dict[str, Any] = {
            "interactions": (datasets.synthetic_interactions, flipped_labels, "lightgcn", nn.BCE()),
            "sessions": (datasets.synthetic_sessions, session_clicks, "srgnn", nn.CrossEntropy()),
        }
        synthetic, make, model, objective = kinds[self.kind]
        graph = synthetic(seed=self.seed)
        note(f"synthetic: {sizes(graph)}")
        result = bench(
            lambda seed: make(graph, seed=seed),
            [build_method(name, objective) for name in BENCHED[self.kind]],
            model=model,
            objective=objective,
            retrain_seeds=3,
            seed=self.seed,
            dataset="synthetic",
            device=str(device_of(self.running.device)),
            command=command(),
        )
        return written(result, out, overwrite)
