"""``graphunlearn extend``: adds new data to a run, and goes on training from its model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from graphunlearn.cli._fields import File, Int, Out, RunFolder, Running, optional
from graphunlearn.cli._ledgers import check_no_key, existing, finished
from graphunlearn.cli._quality import quality
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import first_option
from graphunlearn.cli._resume import resumable
from graphunlearn.cli._sources import cut, read_as_trained, sizes
from graphunlearn.cli._text import Answer, counted, device_of, listed, note
from graphunlearn.cli.train import SplitBy
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.ledger import Ledger
    from graphunlearn.nn import Extended
    from graphunlearn.runs.run import Graph, Run

__all__ = ["Extend"]

PARTS = ("training", "validation", "test")


@dataclass(kw_only=True)
class Extend:
    """Add new data to a run, with their new users and items, and go on training from its model.

    Users and items keep their rows; new ones follow after them. The new data are split like those of 'train', and each
    part joins that of the run. Training starts from the model of the run, with its settings, and keeps the best epoch
    on the validation data. What was forgotten stays forgotten, unless it is in the new data again, which is counted.
    A preparation of a method is for the model before, and is made again with 'prepare'.

    examples:
      graphunlearn extend runs/b --data december.csv --out runs/c
      graphunlearn extend runs/b --data december.csv --split-by time --epochs 20 --out runs/c
      graphunlearn extend runs/b --data december.csv --ledger runs/ledger.db --out runs/c
    """

    source: RunFolder
    """Run folder, as 'train', 'forget' or 'erase' writes it."""
    data: Annotated[Path, arg(metavar="FILE")]
    """File of the new interactions, or of clicks in new sessions."""
    out: Out
    """Folder to write."""
    split: Annotated[tuple[float, float, float], arg(metavar="SHARE SHARE SHARE")] = (0.8, 0.1, 0.1)
    """Shares of training, validation and test part of the new data."""
    split_by: Annotated[SplitBy | None, optional("{random,time,loo,user}")] = None
    """How to split the new data; see 'train' (default: as the run was split)."""
    epochs: Int = None
    """Most epochs (default: as the run was trained)."""
    ledger: File = None
    """Ledger whose newest model is that of RUN; an entry is added, and requests go on from the new run."""
    key: File = None
    """Key file of the ledger (default: a file in GRAPHUNLEARN_KEYS, or ~/.config/graphunlearn)."""
    seed: int = 0
    """Seed of the split, of new embeddings and of the order of the training samples."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Add the data, train, and write the folder."""
        from graphunlearn.runs.folder import check_out
        from graphunlearn.runs.run import Run

        if self.out.resolve() == self.source.resolve():
            raise ArgumentError("--out", "be another folder than the run", f"'{self.out}'")
        check_out(self.out, self.running.overwrite)
        if self.ledger is None:
            check_no_key(self.key)
            return self._extend(Run.load(self.source, device_of(self.running.device)), None)
        with existing(self.ledger, self.key) as ledger:
            finished(ledger)
            return self._extend(Run.load(self.source, device_of(self.running.device)), ledger)

    def _extend(self, run: Run, ledger: Ledger | None) -> Answer:
        from graphunlearn.ledger.places import relative_to_ledger
        from graphunlearn.nn import extend, fit
        from graphunlearn.nn.identity import fingerprint

        if ledger is not None:
            ledger.check_newest(fingerprint(run.model), run.train.fingerprint())
        new = self._read(run)
        by = self.split_by or run.about.get("split_by")
        parts = cut(new, None, self.split, self.seed, by)
        for name, part in zip(("validation part", "test part"), (run.validation, run.test)):
            _tell_known(parts[0], part, name)
        extended = extend(run.model, run.train, parts[0], run.validation, run.test, *parts[1:], seed=self.seed)
        validation, test = _joined(extended)
        returned = _returned(run, extended.graph)
        if returned:
            was, learned = ("was", "is") if sum(returned.values()) == 1 else ("were", "are")
            note(f"{_counts(returned)} {was} forgotten, and {learned} learned again from the new data")
        settings = replace(run.settings, seed=self.seed, epochs=self.epochs or run.settings.epochs)
        seen = replace(run, validation=validation).early_stopping(extended.graph)
        identity = [asdict(settings), *(part.fingerprint() for part in (extended.graph, validation))]
        with resumable(self.out, "extending", identity, work="training") as checkpoint:
            result = fit(
                extended.model,
                extended.graph,
                validation=seen,
                objective=run.objective,
                settings=settings,
                checkpoint=checkpoint,
            )
            summary = asdict(result) | {"epochs": len(result.history)}
            del summary["history"]
            about = {name: value for name, value in run.about.items() if name != "erased"}
            about |= {"fit": summary, "extended": [*run.about.get("extended", []), extended.added]}
            after = replace(run, model=extended.model, train=extended.graph, validation=validation, test=test)
            after = replace(
                after, emptied=_still_emptied(run, extended.graph), settings=settings, about=about, forgotten=None
            )
            save = partial(after.save, self.out, self.running.overwrite)
            entry = None
            if ledger is None or self.ledger is None:
                save()
            else:
                models = run.model, run.train, after.model, after.train
                entry = ledger.record_extended(*models, save=save, out=relative_to_ledger(self.out, self.ledger))
        data: dict[str, Any] = {"out": str(self.out), "added": extended.added, "returned": returned, "fit": summary}
        data |= {"test": quality(after.model, after.train, test, ks=(20,))[0]}
        data |= {} if entry is None else {"entry": entry.number}
        return Answer(data, self._text(data, after))

    def _text(self, data: dict[str, Any], after: Run) -> str:
        from graphunlearn.eval.report.verdict import format_number, format_seconds, label

        fitted = data["fit"]
        shown = [name for name in ("auroc", "recall@20", "ndcg@20", "mrr@20") if name in data["test"]]
        figures = ", ".join(f"{label(name)} {format_number(data['test'][name])}" for name in shown)
        lines = [
            f"added {_counts(data['added'])}; trained on in {format_seconds(fitted['seconds'])}, best epoch "
            f"{fitted['best_epoch']} of {fitted['epochs']}",
            f"on the test part: {figures}",
            f"wrote {self.out}",
        ]
        if "entry" in data:
            lines.append(f"entry {data['entry']} of {self.ledger}; the drift goes on")
        place = self.out.with_name("forgotten")
        lines.append(f"next: graphunlearn forget {self.out} {first_option(after.train)} --out {place}")
        return "\n".join(lines)

    def _read(self, run: Run) -> Graph:
        """Return the new data with the values that the data of the run have.

        Raises:
            ArgumentError: The new data lack some of them.
        """
        from graphunlearn.data.schema import ATTRIBUTES

        new: Any = read_as_trained(run, self.data, "--data", self.file)
        note(f"{self.data.name}: {sizes(new)}")
        names = ATTRIBUTES if new.kind == "interactions" else ("time", "user")
        for name in names:
            ours, theirs = getattr(run.train, name) is not None, getattr(new, name) is not None
            if ours and not theirs:
                raise ArgumentError("--data", f"have a {name} in every row, as the data of the run have", "none")
            if theirs and not ours:
                new = _without(new, name)
                note(f"the {name}s of the new data are not used, because the data of the run have none")
        checked: Graph = new
        return checked


def _without(graph: Any, name: str) -> Any:
    """Return a graph without one of the values of its interactions, or of its clicks or sessions."""
    from graphunlearn.data import SessionGraph
    from graphunlearn.data.interaction import EDGE_TYPE

    if graph.kind == "interactions":
        made = copy.copy(graph)
        del made[EDGE_TYPE][name]
        return made
    users = {"user": graph.user, "user_ids": graph.vocabulary("user").ids} if graph.user is not None else {}
    values = {"time": graph.time} | users
    values = {key: value for key, value in values.items() if not key.startswith(name)}
    ids = {"item_ids": graph.item_ids, "session_ids": graph.session_ids}
    return SessionGraph.from_sequences(graph.items, graph.click_ptr, **ids, **values)


def _joined(extended: Extended) -> tuple[Any, Any]:
    """Return the validation and the test data of the run with those of the new data."""
    from graphunlearn.data.growing import grown

    validation, test, more_validation, more_test = extended.parts
    return grown(validation, more_validation), grown(test, more_test)


def _tell_known(new: Graph, part: Graph, name: str) -> None:
    """Print how many new interactions are in a held-out part of the run already, where their ids are the same."""
    if new.kind != "interactions":
        return
    known = {(user, item) for user, item in zip(part.to_frame()["user"], part.to_frame()["item"])}
    frame = new.to_frame()
    count = sum(pair in known for pair in zip(frame["user"], frame["item"]))
    if count:
        note(f"of the new training interactions, {count:,} {'is' if count == 1 else 'are'} in the {name} of the run")


def _returned(run: Run, graph: Graph) -> dict[str, int]:
    """Return how many of the users and items that were forgotten have interactions again, by node type."""
    stay = _still_emptied(run, graph) or {}
    counts = {f"{name}s": len(ids) - len(stay[name]) for name, ids in (run.emptied or {}).items()}
    return {name: count for name, count in counts.items() if count}


def _still_emptied(run: Run, graph: Graph) -> dict[str, list[str]] | None:
    """Return those whom requests have emptied and who have no interactions in a later graph; ``None`` if not known."""
    from graphunlearn.data.renumbering import inactive_ids

    return None if run.emptied is None else {name: inactive_ids(graph, name, ids) for name, ids in run.emptied.items()}


def _counts(counts: Mapping[str, int]) -> str:
    return listed([counted(count, name) for name, count in counts.items()], "and")
