"""``graphunlearn import``: makes a run of a model that another program trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Suppress, arg

from graphunlearn.cli._fields import File, Out, optional
from graphunlearn.cli._imported import SIDES, Imported, renumbered
from graphunlearn.cli._quality import quality
from graphunlearn.cli._requests import first_option
from graphunlearn.cli._sources import Learner, Loaded, cut, sizes, tell_shared
from graphunlearn.cli._text import Answer, device_of, note
from graphunlearn.cli._wording import reading
from graphunlearn.cli.train import SplitBy
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.runs.run import Graph, Run

__all__ = ["Import"]

SHARES = (0.8, 0.1, 0.1)
"""The default shares of the parts where the data are split."""


@dataclass(kw_only=True)
class Import(Learner):
    """Make a run folder of a model that another program trained, with its weights and the data it was trained on.

    After that, forget, audit, bench --run, prepare, recommend, evaluate, export and ledger work on the folder. The
    model is a function or class of a module of yours, and its code is run: by this command, and by all others on the
    folder if GRAPHUNLEARN_TRUST_CODE names the module, as the last line of the output shows. The weights are a
    state_dict in a safetensors file, or a file of torch.save with tensors alone. Rows of tables belong to users and
    items in the order of --ids-users and --ids-items. All of --data counts as trained on, unless the data are split
    as the training has split them.

    examples:
      graphunlearn import --model towers:build --weights w.safetensors --data train.csv --objective bpr --out runs/a
      graphunlearn import --model mf --model-option dim=64 --weights w.pt --data d.csv --objective bpr --out runs/a
      graphunlearn import --model nets:GRU --kind sessions --weights w.pt --data a.csv --validation b.csv --out runs/g
      graphunlearn import --recbole saved/LightGCN-Nov-21-2026.pth --trust-pickle --out runs/r
    """

    data: Annotated[str, arg(metavar="FILE", help_behavior_hint="")] = ""
    """File of the interactions, or clicks in sessions, that the model was trained on, or the name of a known data set.
    """
    weights: File = None
    """File of the weights: .safetensors, or .pt or .pth with tensors alone."""
    validation: File = None
    """File of held-out interactions or sessions for early stopping of retrained models."""
    last_sessions: Suppress[int | None] = None
    split: Annotated[tuple[float, float, float] | None, arg(metavar="SHARE SHARE SHARE", help_behavior_hint="")] = None
    """Shares of training, validation and test part, if the training of the model has left out the last two in the same
    way; with --test the last one is unused (default: all data are the training part)."""
    split_by: Annotated[SplitBy | None, optional("{random,time,loo,user}")] = None
    """How to split; as for 'train'."""
    seed: int = 0
    """Seed of the split; the seeds of retrained models count up from it."""
    recbole: File = None
    """Checkpoint of RecBole, which has the model, the loss and the data; no other option of these is needed."""
    trust_pickle: bool = False
    """Read the checkpoint of RecBole, a pickle, which may run code; only for files that you made yourself."""
    out: Out
    """Folder to write."""
    learning: Annotated[Imported, arg(name="")] = field(default_factory=Imported)  # type: ignore[assignment]

    def run(self) -> Answer:
        """Read, check and write the folder."""
        from graphunlearn.runs.folder import check_out

        check_out(self.out, self.running.overwrite)
        device = device_of(self.running.device)
        if self.recbole is not None:
            run = self._from_recbole(self.recbole, str(device))
        else:
            if self.trust_pickle:
                raise ArgumentError("--trust-pickle", "go with --recbole", "it without")
            run = self._own(device)
        return self._answer(run)

    def _own(self, device: Any) -> Run:
        """Return the run of a model of the user's own."""
        from graphunlearn.runs.imported import built_with, check_graph_use, read_weights
        from graphunlearn.runs.run import Run

        self._check()
        assert self.weights is not None
        settings = self.training.settings(self.learning.kind, self.seed)
        spec, objective, weights = self.learning.spec(), self.learning.loss(), read_weights(self.weights)
        name, graph, test = self.read(self.learning.objective, self.collapse_repeats)
        graphs = self._parts(graph.to(device), None if test is None else test.to(device))
        if self.test is not None:
            tell_shared(graphs[2], {"training part": graphs[0], "validation part": graphs[1]})
        model = built_with(spec, graphs[0], weights)
        check_graph_use(spec, graphs[0], model)
        about: dict[str, Any] = {"dataset": name, "split": self.split, "threshold": self.threshold}
        if self.split_by is not None:
            about["split_by"] = self.split_by
        if spec.kind == "sessions":
            about["collapse_repeats"] = self.collapse_repeats
        about["imported"] = {"weights": self.weights.name}
        return Run(spec, model, *graphs, objective, settings, about)

    def _check(self) -> None:
        """Check the options that no file is needed for."""
        self.learning.check()
        for option, value in {"--weights": self.weights, "--data": self.data or None}.items():
            if value is None:
                raise ArgumentError(option, "name a file", "none")
        for option in ("threshold", "collapse_repeats"):
            kind = "sessions" if option == "collapse_repeats" else "interactions"
            if getattr(self, option) not in (None, False) and self.learning.kind != kind:
                name = f"--{option.replace('_', '-')}"
                raise ArgumentError(name, f"go with {kind}", f"it with {self.learning.kind}")
        if self.validation is not None and (self.split is not None or self.split_by is not None):
            raise ArgumentError("--validation", "be left out where the data are split", "it")

    def from_file(self, path: Path, cls: Any) -> Any:
        """Return the data in a file, with nodes numbered as the rows of the model."""
        return self.learning.read(path, cls, self.file, self.given())

    def as_published(self) -> Loaded:
        """Read the data without changes, except for the numbers of a known data set."""
        name, graph, test = super().as_published()
        if Path(self.data).is_file():
            return Loaded(name, graph, test)
        ids = self.learning.ids(self.file)
        rows = [ids.get(side, graph.vocabulary(side).ids) for side in SIDES[self.learning.kind]]
        graph = renumbered(Path(self.data), type(graph), rows, {}, graph)
        return Loaded(name, graph, None if test is None else type(graph).from_frame(test.to_frame(), like=graph))

    def _parts(self, graph: Any, test: Any) -> tuple[Graph, Graph, Graph]:
        """Return training, validation and test data; a part that is not given is empty."""
        if self.split is not None or self.split_by is not None:
            return cut(graph, test, self.split or SHARES, self.seed, self.split_by)
        validation, none = None, graph.select(graph.pairs[0, :0] if graph.kind == "interactions" else graph.items[:0])
        if self.validation is not None:
            with reading("--validation", self.learning.model):
                validation = type(graph).from_file(self.validation, like=graph, **self.given()).to(graph.device)
            if graph.kind == "interactions":
                validation = self._labelled(validation, self.learning.objective)
            elif self.collapse_repeats:
                validation = validation.collapse()
        return graph, none if validation is None else validation, none if test is None else test

    def _from_recbole(self, path: Path, device: str) -> Run:
        """Return the run of a checkpoint of RecBole."""
        from graphunlearn.adapters.recbole import run_of_checkpoint

        learned = [(name.replace("_", "-"), value) for name, value in vars(self.learning).items() if name != "rows"]
        for name, value in [("data", self.data), ("weights", self.weights), ("test", self.test), *learned]:
            if value not in (None, (), ""):
                option = f"--{name.removesuffix('-given')}"
                raise ArgumentError(option, "be left out with --recbole, whose checkpoint has it", value)
        settings = self.training.settings("interactions", self.seed)
        return run_of_checkpoint(path, trust_pickle=self.trust_pickle, settings=settings, device=device)

    def _answer(self, run: Run) -> Answer:
        """Write the run, and return what was imported and how well the loss fits."""
        from graphunlearn.data.schema import warn
        from graphunlearn.eval.report.verdict import format_number, label
        from graphunlearn.nn import Objective
        from graphunlearn.operators.shared.own_loss import losses_apart, name_of_loss
        from graphunlearn.runs.code import TRUST, names_of

        data: dict[str, Any] = {"out": str(self.out), "dataset": run.dataset, "model": run.spec.facts()}
        data["objective"] = repr(run.objective)
        lines = [f"imported {run.spec.name}: {sizes(run.train)}"]
        if isinstance(run.objective, Objective):
            given, better = losses_apart(run.model, run.train, run.objective)
            fits = {name_of_loss(fit.objective): fit.residual for fit in better}
            data["loss"] = {"verdict": given.verdict, "residual": given.residual, "better": fits}
            of = f"{format_number(given.residual)} of the gradient of shuffled pairs"
            lines.append(f"loss {name_of_loss(run.objective)}: {given.verdict}, {of}")
            if better:
                names = ", ".join(f"{name} ({value:.0%})" for name, value in fits.items())
                warn(f"the model was plainly trained with another loss; losses that fit: {names}")
            elif given.verdict == "far from stationary":
                warn("the model fits no loss on these data: check them, and the order of the ids of its rows")
            run.about["imported"]["loss"] = {"verdict": given.verdict, "residual": given.residual}
        left = run.test.without_unseen(run.train) if run.test.num_interactions else run.test
        if left.num_interactions > (left.num_sessions if left.kind == "sessions" else 0):
            scores = quality(run.model, run.train, run.test, ks=(20,))[0]
            shown = ("auroc", "recall@20", "mrr@20", "ndcg@20")
            data["test"] = {name: scores[name] for name in shown if name in scores}
            told = ", ".join(f"{label(name)} {format_number(value)}" for name, value in data["test"].items())
            lines.append(f"on the test part: {told}")
        else:
            note("there is no test part to measure on, as 'evaluate' and 'audit' do: '--test' or '--split' gives one")
        if run.train.kind == "sessions" and not bool((run.validation.length > 1).any()):
            note("there are no validation sessions, which 'cau' needs: '--validation' or '--split' gives some")
        run.save(self.out, self.running.overwrite)
        code = run.spec.code
        modules = [] if code is None else names_of([code.build, code.encode, code.retrain])
        modules = [name for name in modules if name.partition(".")[0] != "graphunlearn"]
        setting = f"{TRUST}={','.join(modules)} " if modules else ""
        out = self.out.with_name("forgotten")
        request = f"{self.out} {first_option(run.train)} --out {out}"
        lines += [f"wrote {self.out}", f"next: {setting}graphunlearn forget {request}"]
        return Answer(data | {"trust": modules}, "\n".join(lines))
