"""``graphunlearn audit``: compares an unlearned model with retrained models."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Annotated

from tyro.conf import arg

from graphunlearn.cli._fields import File, Folder, Int, RunFolder, Running
from graphunlearn.cli._ledgers import audit_figures, check_no_key, entry_of_run, existing
from graphunlearn.cli._methods import rebuild_method
from graphunlearn.cli._reports import Caching, answer, check_retrain_seeds, command, written
from graphunlearn.cli._text import Answer, device_of
from graphunlearn.errors import ArgumentError

__all__ = ["RunAudit"]


@dataclass(kw_only=True)
class RunAudit:
    """Compare the unlearned model of a run folder with models that are retrained without the forgotten data.

    The retrained models are trained like the original, with other seeds. The report is written into the run folder,
    or into another one with --out.

    examples:
      graphunlearn audit runs/b
      graphunlearn audit runs/b --retrain-seeds 3 --out runs/b-audit
      graphunlearn audit runs/b --ledger runs/ledger.db
    """

    source: RunFolder
    """Run folder, as 'forget' writes it."""
    retrain_seeds: int = 5
    """Number of retrained models, each at the cost of one training; at least 2, to measure how much two of them differ,
    at least 3 for a verdict, and at least 4 to judge each of them by the others."""
    out: Folder = None
    """Folder for report.json and report.html (default: RUN)."""
    shadow: int = 0
    """Number of further models to train with and without the forgotten data, for the membership attacks."""
    caching: Annotated[Caching, arg(name="")] = field(default_factory=Caching)
    seed: Int = None
    """Seed of the first retrained model (default: the original's plus 1)."""
    ledger: File = None
    """Ledger that has the entry of the run; an entry with the figures is added."""
    key: File = None
    """Key file of the ledger, if it is not in its default place ('graphunlearn ledger --help')."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Retrain, compare and write the report."""
        from tqdm import tqdm

        from graphunlearn.eval import Audit, audit
        from graphunlearn.eval.auditing import own_figures
        from graphunlearn.runs.folder import check_out
        from graphunlearn.runs.purging import purged_on
        from graphunlearn.runs.run import Run

        if self.out is not None:
            check_out(self.out, self.running.overwrite)
        elif (self.source / "report.json").exists() and not self.running.overwrite:
            raise ArgumentError(self.source, "be without a report", "one", "'--overwrite' replaces it")
        check_retrain_seeds(self.retrain_seeds)
        if self.ledger is None:
            check_no_key(self.key)
        run = Run.load(self.source, device_of(self.running.device))
        if run.forgotten is None:
            expected = "be a folder that 'forget' wrote, with the original still in it"
            day = purged_on(self.source)
            raise ArgumentError("run", expected, f"'{self.source}'{f', purged on {day}' if day else ''}")
        number = None if self.ledger is None else entry_of_run(existing(self.ledger, self.key), run)
        seeds = range(run.settings.seed + 1 if self.seed is None else self.seed, sys.maxsize)[: self.retrain_seeds]
        if run.settings.seed in seeds:
            raise ArgumentError(
                "--seed", f"not give a retrained model the seed of the original, {run.settings.seed}", self.seed
            )
        if self.shadow < 0:
            raise ArgumentError("--shadow", "be at least 0", self.shadow)
        before, result = run.forgotten, run.forgotten.result
        if before.graph.split(result.request)[0].fingerprint() != run.train.fingerprint():
            expected = "hold the training graph that remains after the request"
            raise ArgumentError("run", expected, f"'{self.source}', where one of the files was changed")
        steps = self.retrain_seeds + 1 + self.shadow
        with tqdm(total=steps, desc="audit", unit="model", disable=None, leave=False) as bar:

            def step(what: str) -> None:
                bar.set_postfix_str(what)
                bar.update()

            judged = audit(
                before.original,
                before.graph,
                result.request,
                [result],
                test=run.test,
                validation=run.early_stopping(before.graph),
                objective=run.objective,
                settings=replace(run.settings, seed=seeds[0]),
                retrain_seeds=self.retrain_seeds,
                shadow=self.shadow,
                cache=self.caching.folder(),
                on_step=step,
            )
        about = {
            "dataset": run.dataset,
            "model": run.spec.facts() | {"objective": repr(run.objective), "settings": repr(run.settings)},
            "scenario": "request",
            "seeds": {"original": run.settings.seed, "retrain": list(seeds)},
            "command": command(),
        }
        judged = Audit.mean([judged], about)
        method = rebuild_method(result.method, run.objective, before.options)
        methods = [] if method is None else [method]
        judged.plots |= own_figures(before.original, before.graph, result.request, methods)
        if self.out is not None:
            told = written(judged, self.out, self.running.overwrite)
        else:
            judged.write(self.source)
            told = answer(judged, self.source)
        if self.ledger is not None and number is not None:  # after the report, which is kept if the ledger is locked
            existing(self.ledger, self.key).record_audit(number, audit_figures(judged.report))
        return told
