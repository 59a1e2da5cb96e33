"""``bench``, ``demo`` and ``audit``: methods against retrained models."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm
from tyro.conf import Positional, arg

from graphunlearn.cli.common import Answer, Data, Learning, Training, device_of, note, optional, sizes
from graphunlearn.cli.folders import check_out, replaced
from graphunlearn.cli.methods import build_method, rebuild_method
from graphunlearn.cli.runs import Forgotten, Run
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import Audit, Scenario, audit, bench, flipped_labels, removal
from graphunlearn.eval.audit import damping_figure
from graphunlearn.eval.report import complete
from graphunlearn.nn import BCE
from graphunlearn.operators import Retrain

__all__ = ["Bench", "Demo", "RunAudit"]

DEMO_OUT = Path("runs/demo")


@dataclass(kw_only=True)
class Bench(Data):
    """Run unlearning methods on data where one knows what should be forgotten, against retrained models.

    flipped-labels trains on labels of which some are wrong, and asks to forget those; users, items and interactions
    forget a random share. The report says how close every method comes to retraining, two-sided, and at what cost.

    examples:
      graphunlearn bench flipped-labels --data ratings.csv --out runs/flips
      graphunlearn bench users --data ratings.csv --share 0.05 --methods ifru unlink --out runs/users
      graphunlearn bench interactions --data train.txt --test test.txt --data-seeds 3 --retrain-seeds 5 --out runs/three
    """

    scenario: Annotated[
        Positional[Literal["flipped-labels", "users", "items", "interactions"]], arg(metavar="SCENARIO")
    ]
    """flipped-labels, users, items or interactions."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder for report.json and report.html."""
    methods: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("ifru", "unlink", "finetune", "ascent")
    """Any of ifru, ifru-published, unlink, finetune and ascent; retrained models are always in the table."""
    share: float = 0.02
    """Share to forget (flipped-labels: of the training labels to flip)."""
    positives_only: bool = False
    """flipped-labels: propagate over positive labels only, as the public code of IFRU does; all are trained on."""
    data_seeds: int = 1
    """Number of splits and requests."""
    original_seeds: int = 1
    """Number of original models per split."""
    retrain_seeds: int = 5
    """Number of retrained models per split; at least 2, to know how far two of them are apart."""
    learning: Annotated[Learning, arg(name="")] = field(default_factory=Learning)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)
    seed: int = 0
    """First data seed; all others follow from it."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace an earlier report."""
    json: bool = False
    """Print the report as JSON."""

    def run(self) -> Answer:
        """Run the bench and write the report."""
        check_out(self.out, self.overwrite)
        device = str(device_of(self.device))
        if not self.methods or Retrain.name in self.methods:
            named = " ".join(self.methods) or "none"
            raise ValueError(f"'--methods' must name methods other than retrain (got {named})")
        if self.scenario == "flipped-labels":
            name, scenario, labelled = self._flipped()
        else:
            name, graph, test = self.read(self.learning.objective)
            labelled = graph.label is not None
            scenario = _removal(graph, self.scenario[:-1], self.share, test)
        objective = self.learning.loss(labelled)
        methods = [build_method(method, objective) for method in dict.fromkeys(self.methods)]
        result = bench(
            scenario,
            methods,
            model="lightgcn-positives" if self.positives_only else self.learning.model,
            dim=self.learning.dim,
            layers=self.learning.layers,
            objective=objective,
            settings=self.training.settings(self.seed),
            data_seeds=self.data_seeds,
            original_seeds=self.original_seeds,
            retrain_seeds=self.retrain_seeds,
            seed=self.seed,
            dataset=name,
            device=device,
            command=_command(),
        )
        return _written(result, self.out, self.overwrite)

    def _flipped(self) -> tuple[str, Callable[[int], Scenario], bool]:
        if self.test is not None:
            raise ValueError("'--test' must be left out for flipped-labels, which splits the data 60/20/20 (got one)")
        if self.learning.objective == "bpr":
            raise ValueError("'--objective' must be bce for flipped-labels (got bpr, which does not learn from labels)")
        if self.positives_only and self.learning.model != "lightgcn":
            raise ValueError(f"'--positives-only' must go with --model lightgcn (got {self.learning.model})")
        threshold = 3.0 if self.threshold is None else self.threshold
        name, graph, _ = self._read()
        note(f"{name}: {sizes(graph)}")
        keywords: dict[str, Any] = {"share": self.share, "threshold": threshold}
        return name, lambda seed: flipped_labels(graph, seed=seed, **keywords), True


@dataclass(kw_only=True)
class Demo:
    """See it work, without any file, in less than a minute.

    Makes synthetic ratings of 1,000 users, flips 2% of the training labels, trains LightGCN on them, forgets the
    flipped ones with several methods, and compares all of them with three retrained models.

    examples:
      graphunlearn demo
      graphunlearn demo --seed 1 --out runs/another
    """

    out: Annotated[Path | None, optional("DIR")] = None
    """Folder for report.json and report.html (default: runs/demo, which a later demo replaces)."""
    seed: int = 0
    """Seed of everything."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace an earlier report."""
    json: bool = False
    """Print the report as JSON."""

    def run(self) -> Answer:
        """Run the demo and write the report."""
        out, overwrite = (DEMO_OUT, True) if self.out is None else (self.out, self.overwrite)
        check_out(out, overwrite)
        device = str(device_of(self.device))
        graph = synthetic_interactions(seed=self.seed)
        note(f"synthetic: {sizes(graph)}")
        result = bench(
            lambda seed: flipped_labels(graph, seed=seed),
            [build_method(name, BCE()) for name in ("ifru", "unlink", "finetune", "ascent")],
            objective=BCE(),
            retrain_seeds=3,
            seed=self.seed,
            dataset="synthetic",
            device=device,
            command=_command(),
        )
        return _written(result, out, overwrite)


@dataclass(kw_only=True)
class RunAudit:
    """Audit what was forgotten in a run folder against models retrained without it.

    The retrained models are trained as the original was, with other seeds. The report is written into the run folder,
    or into another one with --out.

    examples:
      graphunlearn audit runs/b
      graphunlearn audit runs/b --retrain-seeds 5 --out runs/b-audit
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder, as 'forget' writes it."""
    retrain_seeds: int = 3
    """Number of retrained models; at least 2, to know how far two of them are apart."""
    out: Annotated[Path | None, optional("DIR")] = None
    """Folder for report.json and report.html (default: RUN)."""
    seed: Annotated[int | None, optional("INT")] = None
    """Seed of the first retrained model (default: the original's plus 1)."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace an earlier report."""
    json: bool = False
    """Print the report as JSON."""

    def run(self) -> Answer:
        """Retrain, compare and write the report."""
        if self.out is not None:
            check_out(self.out, self.overwrite)
        elif (self.source / "report.json").exists() and not self.overwrite:
            raise ValueError(f"'{self.source}' must be without a report (got one; '--overwrite' replaces it)")
        if self.retrain_seeds < 1:
            raise ValueError(f"'--retrain-seeds' must be at least 1 (got {self.retrain_seeds})")
        run = Run.load(self.source, device_of(self.device))
        if run.forgotten is None:
            raise ValueError(
                f"'run' must be a folder that 'forget' wrote, with the original still in it (got '{self.source}')"
            )
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
                validation=run.validation,
                objective=run.objective,
                settings=replace(run.settings, seed=seeds[0]),
                retrain_seeds=self.retrain_seeds,
                on_step=step,
            )
        about = {
            "dataset": run.dataset,
            "model": asdict(run.spec) | {"objective": repr(run.objective), "settings": repr(run.settings)},
            "scenario": "request",
            "seeds": {"original": run.settings.seed, "retrain": list(seeds)},
            "command": _command(),
        }
        judged = Audit.mean([judged], about)
        judged.plots |= _damping(run, before)
        if self.out is not None:
            return _written(judged, self.out, self.overwrite)
        judged.write(self.source)
        return _answer(judged, self.source)


def _removal(graph: Any, level: str, share: float, test: Any) -> Callable[[int], Scenario]:
    return lambda seed: removal(graph, level, share=share, seed=seed, test=test)


def _damping(run: Run, before: Forgotten) -> dict[str, Any]:
    """The figure of how the damping was chosen, where it was."""
    method = rebuild_method(before.result.method, run.objective, before.options)
    methods = [] if method is None else [method]
    return damping_figure(before.original, before.graph, before.result.request, methods)


def _written(result: Audit, out: Path, overwrite: bool) -> Answer:
    with replaced(out, overwrite) as folder:
        result.write(folder)
    return _answer(result, out)


def _answer(result: Audit, out: Path) -> Answer:
    return Answer(complete(result.report), f"{result}\n\nwrote {out / 'report.json'} and {out / 'report.html'}")


def _command() -> str:
    """What was typed, for the report; of absolute paths only the last part, since a report names no folders."""
    words = ["graphunlearn", *sys.argv[1:]]
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)
