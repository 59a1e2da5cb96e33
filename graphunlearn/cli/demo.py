"""The demo: data with a known answer, forgotten and judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from graphunlearn.cli._methods import BENCHED, build_method
from graphunlearn.cli._reports import command, written
from graphunlearn.cli._sources import sizes
from graphunlearn.cli._text import Answer, Running, device_of, note, optional

if TYPE_CHECKING:
    pass

__all__ = ["Demo"]

DEMO_OUT = {"interactions": Path("runs/demo"), "sessions": Path("runs/demo-sessions")}


@dataclass(kw_only=True)
class Demo:
    """See it work, without any file, in less than a minute.

    Makes synthetic ratings of 1,000 users, flips 2% of the training labels, trains LightGCN on them, forgets the
    flipped ones with several methods, and compares all of them with three retrained models. With --kind sessions, makes
    synthetic sessions, trains SR-GNN on them, and forgets a click in each of a share of them.

    examples:
      graphunlearn demo
      graphunlearn demo --seed 1 --out runs/another
      graphunlearn demo --kind sessions
    """

    kind: Literal["interactions", "sessions"] = "interactions"
    """What to learn from: ratings of users and items, or clicks in sessions."""
    out: Annotated[Path | None, optional("DIR")] = None
    """Folder for report.json and report.html (default: runs/demo or runs/demo-sessions, replaced by a later demo)."""
    seed: int = 0
    """Seed of everything."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Run the demo and write the report."""
        from graphunlearn.eval import bench
        from graphunlearn.runs.folder import check_out

        out, overwrite = (DEMO_OUT[self.kind], True) if self.out is None else (self.out, self.running.overwrite)
        check_out(out, overwrite)
        scenario: dict[str, Any] = _ratings(self.seed) if self.kind == "interactions" else _sessions(self.seed)
        result = bench(
            **scenario,
            retrain_seeds=3,
            seed=self.seed,
            dataset="synthetic",
            device=str(device_of(self.running.device)),
            command=command(),
        )
        return written(result, out, overwrite)


def _ratings(seed: int) -> dict[str, Any]:
    """What is benched on ratings."""
    from graphunlearn.datasets import synthetic_interactions
    from graphunlearn.eval import flipped_labels
    from graphunlearn.nn import BCE

    graph = synthetic_interactions(seed=seed)
    note(f"synthetic: {sizes(graph)}")
    return {
        "scenario": lambda seed: flipped_labels(graph, seed=seed),
        "methods": [build_method(name, BCE()) for name in ("ifru", "unlink", "finetune", "ascent")],
        "objective": BCE(),
    }


def _sessions(seed: int) -> dict[str, Any]:
    """What is benched on sessions."""
    from graphunlearn.datasets import synthetic_sessions
    from graphunlearn.eval import session_clicks
    from graphunlearn.nn import CrossEntropy

    graph = synthetic_sessions(seed=seed)
    note(f"synthetic: {sizes(graph)}")
    return {
        "scenario": lambda seed: session_clicks(graph, seed=seed),
        "methods": [build_method(name, CrossEntropy()) for name in BENCHED["sessions"]],
        "model": "srgnn",
        "objective": CrossEntropy(),
    }
