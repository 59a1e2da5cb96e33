"""``demo`` and ``audit``: methods against retrained models."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm
from tyro.conf import Positional, arg

from graphunlearn.cli.bench import Bench
from graphunlearn.cli.common import Answer, Running, device_of, note, optional
from graphunlearn.cli.folders import check_out
from graphunlearn.cli.ledgers import audit_figures, entry_of_run, existing
from graphunlearn.cli.methods import BENCHED, build_method, rebuild_method
from graphunlearn.cli.reports import Caching, answer, command, written
from graphunlearn.cli.runs import Forgotten, Run, watched
from graphunlearn.cli.sources import sizes
from graphunlearn.datasets import synthetic_interactions, synthetic_sessions
from graphunlearn.eval import Audit, audit, bench, flipped_labels, session_clicks
from graphunlearn.eval.audit import damping_figure
from graphunlearn.nn import BCE, CrossEntropy

__all__ = ["Bench", "Demo", "RunAudit"]

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
    graph = synthetic_interactions(seed=seed)
    note(f"synthetic: {sizes(graph)}")
    return {
        "scenario": lambda seed: flipped_labels(graph, seed=seed),
        "methods": [build_method(name, BCE()) for name in ("ifru", "unlink", "finetune", "ascent")],
        "objective": BCE(),
    }


def _sessions(seed: int) -> dict[str, Any]:
    """What is benched on sessions."""
    graph = synthetic_sessions(seed=seed)
    note(f"synthetic: {sizes(graph)}")
    return {
        "scenario": lambda seed: session_clicks(graph, seed=seed),
        "methods": [build_method(name, CrossEntropy()) for name in BENCHED["sessions"]],
        "model": "srgnn",
        "objective": CrossEntropy(),
    }


@dataclass(kw_only=True)
class RunAudit:
    """Audit what was forgotten in a run folder, of either kind, against models retrained without it.

    The retrained models are trained as the original was, with other seeds. The report is written into the run folder,
    or into another one with --out.

    examples:
      graphunlearn audit runs/b
      graphunlearn audit runs/b --retrain-seeds 5 --out runs/b-audit
      graphunlearn audit runs/b --ledger runs/ledger.db
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder, as 'forget' writes it."""
    retrain_seeds: int = 3
    """Number of retrained models; at least 2, to know how far two of them are apart."""
    out: Annotated[Path | None, optional("DIR")] = None
    """Folder for report.json and report.html (default: RUN)."""
    caching: Annotated[Caching, arg(name="")] = field(default_factory=Caching)
    seed: Annotated[int | None, optional("INT")] = None
    """Seed of the first retrained model (default: the original's plus 1)."""
    ledger: Annotated[Path | None, optional("FILE")] = None
    """Ledger that tells of the run, to enter the figures in."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Retrain, compare and write the report."""
        if self.out is not None:
            check_out(self.out, self.running.overwrite)
        elif (self.source / "report.json").exists() and not self.running.overwrite:
            raise ValueError(f"'{self.source}' must be without a report (got one; '--overwrite' replaces it)")
        if self.retrain_seeds < 2:
            raise ValueError(f"'--retrain-seeds' must be at least 2 (got {self.retrain_seeds})")
        run = Run.load(self.source, device_of(self.running.device))
        if run.forgotten is None:
            raise ValueError(
                f"'run' must be a folder that 'forget' wrote, with the original still in it (got '{self.source}')"
            )
        number = None if self.ledger is None else entry_of_run(existing(self.ledger), run)
        seeds = range(run.settings.seed + 1 if self.seed is None else self.seed, sys.maxsize)[: self.retrain_seeds]
        if run.settings.seed in seeds:
            raise ValueError(f"'--seed' must keep clear of the original's, {run.settings.seed} (got {self.seed})")
        before, result = run.forgotten, run.forgotten.result
        with tqdm(total=self.retrain_seeds + 1, desc="audit", unit="model", disable=None, leave=False) as bar:

            def step(what: str) -> None:
                bar.set_postfix_str(what)
                bar.update()

            judged = audit(
                before.original,
                before.graph,
                result.request,
                [result],
                test=run.test,
                validation=watched(run.validation, before.graph),
                objective=run.objective,
                settings=replace(run.settings, seed=seeds[0]),
                retrain_seeds=self.retrain_seeds,
                cache=self.caching.folder(),
                on_step=step,
            )
        about = {
            "dataset": run.dataset,
            "model": asdict(run.spec) | {"objective": repr(run.objective), "settings": repr(run.settings)},
            "scenario": "request",
            "seeds": {"original": run.settings.seed, "retrain": list(seeds)},
            "command": command(),
        }
        judged = Audit.mean([judged], about)
        judged.plots |= _damping(run, before)
        if self.out is not None:
            told = written(judged, self.out, self.running.overwrite)
        else:
            judged.write(self.source)
            told = answer(judged, self.source)
        if self.ledger is not None and number is not None:  # the report is kept, should another process have it open
            existing(self.ledger).record_audit(number, audit_figures(judged.report))
        return told


def _damping(run: Run, before: Forgotten) -> dict[str, Any]:
    """The figure of how the damping was chosen, where it was."""
    method = rebuild_method(before.result.method, run.objective, before.options)
    methods = [] if method is None else [method]
    return damping_figure(before.original, before.graph, before.result.request, methods)
