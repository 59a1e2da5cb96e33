"""``graphunlearn train``: trains a model and writes a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from graphunlearn.cli._fields import Out, optional
from graphunlearn.cli._quality import quality
from graphunlearn.cli._requests import first_option
from graphunlearn.cli._resume import resumable
from graphunlearn.cli._sources import Learner, cut, tell_shared
from graphunlearn.cli._text import Answer, columns, device_of, note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn

    from graphunlearn.runs.run import Graph

__all__ = ["Train"]

SplitBy = Literal["random", "time", "loo", "user"]


@dataclass(kw_only=True)
class Train(Learner):
    """Train a recommender, and write it to a run folder together with its data.

    The data are interactions of users and items or, if --model is srgnn, gru4rec, sasrec, narm, bert4rec or gcegnn,
    clicks in sessions. Interactions are split at random, sessions by time. Training stops when the validation metric no
    longer improves.
    The folder is written completely or not at all. If the command is interrupted, the same command continues the
    training.

    examples:
      graphunlearn train --data ratings.csv --out runs/a
      graphunlearn train --data ratings.csv --threshold 3 --out runs/a     # learn which ratings are above 3
      graphunlearn train --data log.csv --user-column who --item-column what --split-by time --out runs/a
      graphunlearn train --data train.txt --test test.txt --model sgl --dim 64 --layers 3 --out runs/a
      graphunlearn train --data clicks.csv --model gru4rec --out runs/g    # clicks.csv: session,item,time
      graphunlearn train --data clicks.csv --last-sessions 20000 --model srgnn --out runs/g
    """

    out: Out
    """Folder to write."""
    split: Annotated[tuple[float, float, float], arg(metavar="SHARE SHARE SHARE")] = (0.8, 0.1, 0.1)
    """Shares of training, validation and test part; with --test the last one is unused."""
    split_by: Annotated[SplitBy | None, optional("{random,time,loo,user}")] = None
    """How to split: at random, the latest last, the last one of every user (loo; --split is unused), or within every
    user by time (default: random, for sessions time)."""
    seed: int = 0
    """Seed of the random split, of the initial parameters and of the order of the training samples."""
    floors: bool = False
    """Also measure what needs no training: the most popular items, item-kNN and EASE, or for sessions the most popular
    items, Markov and session-kNN."""

    def run(self) -> Answer:
        """Train and write the folder."""
        from graphunlearn.eval.report.verdict import format_number, format_seconds, label
        from graphunlearn.nn import fit, reset_parameters
        from graphunlearn.nn.floors import floor_metrics
        from graphunlearn.runs.folder import check_out
        from graphunlearn.runs.run import Run

        check_out(self.out, self.running.overwrite)
        self.check_kind()
        settings, device = self.training.settings(self.learning.kind, self.seed), device_of(self.running.device)
        name, graph, test = self.read(self.learning.objective, self.collapse_repeats)
        test = None if test is None else test.to(device)
        graphs: tuple[Graph, Graph, Graph] = cut(graph.to(device), test, self.split, self.seed, self.split_by)
        _check_parts(*graphs)
        if self.test is not None:
            tell_shared(graphs[2], {"training part": graphs[0], "validation part": graphs[1]})
        labelled = graph.kind == "interactions" and graph.label is not None
        objective, spec = self.learning.loss(labelled), self.learning.spec()
        train = graphs[0]
        model = spec.build(train)
        reset_parameters(model, settings.seed)
        identity = [spec.facts(), repr(objective), asdict(settings), *(part.fingerprint() for part in graphs)]
        with resumable(self.out, "training", identity) as checkpoint:
            seen = graphs[1].without_unseen(train)
            with _blaming(self.threshold):
                result = fit(
                    model,
                    train,
                    validation=seen,
                    objective=objective,
                    settings=settings,
                    checkpoint=checkpoint,
                    fresh=True,
                )
            summary = asdict(result) | {"epochs": len(result.history)}
            del summary["history"]
            about: dict[str, Any] = {"dataset": name, "split": self.split, "threshold": self.threshold, "fit": summary}
            if self.split_by is not None:
                about["split_by"] = self.split_by
            if spec.kind == "sessions":
                about |= {"last_sessions": self.last_sessions, "collapse_repeats": self.collapse_repeats}
            run = Run(spec, model, *graphs, objective, settings, about)
            run.save(self.out, self.running.overwrite)
        scores = _utility(model, train, graphs[2])
        data = {"out": str(self.out), "dataset": run.dataset, "model": spec.facts(), "objective": repr(objective)}
        data |= {"fit": summary, "test": scores}
        table = ""
        if self.floors:
            held_out = {"validation": graphs[1].without_unseen(train), "test": graphs[2].without_unseen(train)}
            data["validation"] = _utility(model, train, graphs[1])
            data["floors"] = floor_metrics(train, held_out)
            table = f"{_table(spec.name, data)}\n"
        shown = ", ".join(f"{label(metric)} {format_number(value)}" for metric, value in scores.items())
        text = (
            f"trained {spec.name} in {format_seconds(result.seconds)}, best epoch {result.best_epoch} of "
            f"{summary['epochs']}\non the test part: {shown}\n{table}wrote {self.out}\n"
            f"next: graphunlearn forget {self.out} {first_option(train)} --out {self.out.with_name('forgotten')}"
        )
        return Answer(data, text)


@contextmanager
def _blaming(threshold: float | None) -> Iterator[None]:
    """Name the option in place of the graph if a block cannot train on the labels that a threshold makes."""
    try:
        yield
    except ArgumentError as error:
        if threshold is None or error.argument != "graph":
            raise
        got = f"{threshold:g}, which gives {error.got}"
        raise ArgumentError(
            "--threshold", "be at least the lowest rating, so that some interactions have label 0", got
        ) from error


def _table(model: str, data: dict[str, Any]) -> str:
    """Return the quality of the model and of the floors on validation and test data as a table."""
    from graphunlearn.eval.report.verdict import format_number, label

    rows: dict[str, Any] = {model: data, **data["floors"]}
    names, parts = list(data["test"]), ("validation", "test")
    lines = [["", *(f"{label(name)}, {part}" for part in parts for name in names)]]
    refused = []
    for row, found in rows.items():
        if "refused" in found:
            refused.append(f"{row} was not measured: {found['refused']}")
            continue
        figures = [found[part].get(name) for part in parts for name in names]
        lines.append([row, *("–" if value is None else format_number(value) for value in figures)])
    return "\n".join([columns(lines, range(1, len(lines[0]))), *refused])


def _check_parts(train: Any, validation: Any, test: Any) -> None:
    """Print how many held-out clicks are not measured because their items have no training clicks.

    Raises:
        ValueError: No session of a part has two clicks without them.
    """
    from graphunlearn.eval.scenarios.cases import without_unseen_items

    if train.kind == "sessions":
        *held_out, sentences = without_unseen_items(train, validation, test, 0)
        for sentence in sentences:
            note(sentence)
        for name, part in zip(("training", "validation", "test"), (train, *held_out)):
            if part.num_clicks == part.num_sessions:
                got = f"{part.num_sessions} of one click" if part.num_sessions else "none"
                wanted = "hold a session of two clicks or more, on items that are trained on"
                raise ValueError(f"the {name} part must {wanted} (got {got})")


def _utility(model: nn.Module, train: Graph, test: Graph) -> dict[str, float]:
    """Return the metrics of the test data that the command prints; see :func:`graphunlearn.cli._quality.quality`."""
    scores = quality(model, train, test, ks=(20,))[0]
    shown = ("auroc", "recall@20", "ndcg@20") if train.kind == "interactions" else ("recall@20", "mrr@20", "ndcg@20")
    return {name: scores[name] for name in shown if name in scores}
