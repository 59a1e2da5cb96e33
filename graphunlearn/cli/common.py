"""What the commands share: groups of options, reading data, and answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from tyro.conf import arg

from graphunlearn import datasets
from graphunlearn.cli.runs import ModelSpec
from graphunlearn.data import InteractionGraph
from graphunlearn.nn import BCE, BPR, FitSettings, Objective

__all__ = [
    *("Answer", "Data", "Learning", "Loaded", "Training"),
    *("columns", "device_of", "note", "optional", "several", "sizes"),
]


def optional(metavar: str, help: str | None = None) -> Any:
    """How an option that may be left out is shown: without the ``None`` that it then is."""
    return arg(metavar=metavar, help=help, help_behavior_hint="")


def several(metavar: str) -> Any:
    """How an option with several values is shown; given twice it adds up, or one would be forgotten to be forgotten."""
    return arg(metavar=metavar, help_behavior_hint="(can be repeated)")


class Answer(NamedTuple):
    """What a command has to say: for programs, and for people."""

    data: Any
    text: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """How models are trained."""

    epochs: int = FitSettings.epochs
    """At most this many passes over the interactions."""
    lr: float = FitSettings.lr
    """Learning rate."""
    batch_size: int = FitSettings.batch_size
    """Interactions per step."""
    patience: int = FitSettings.patience
    """Stop after this many epochs without a better result on the validation part."""

    def settings(self, seed: int) -> FitSettings:
        """Return the settings of the training loop."""
        return FitSettings(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, patience=self.patience, seed=seed
        )


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What is learned."""

    model: Literal["lightgcn", "mf", "sgl", "simgcl", "ngcf"] = "lightgcn"
    """LightGCN, matrix factorisation (no propagation), LightGCN with a contrastive loss (SGL, SimGCL), or NGCF."""
    dim: int = 32
    """Numbers per user and item."""
    layers: int = 2
    """Propagation layers (matrix factorisation has none)."""
    objective: Annotated[Literal["bpr", "bce"] | None, optional("{bpr,bce}")] = None
    """bpr ranks interactions above the rest, bce tells labels apart; bce where there are labels (or a threshold)."""
    weight_decay: Annotated[
        float | None,
        optional("FLOAT", f"L2 on the rows of a sample (bpr: {BPR.weight_decay:g}, bce: {BCE.weight_decay:g})."),
    ] = None
    negatives: int = BPR.negatives
    """Items that every interaction is ranked above (bpr)."""

    def spec(self) -> ModelSpec:
        """Return what builds the model."""
        return ModelSpec(self.model, self.dim, self.layers)

    def loss(self, labelled: bool) -> Objective:
        """Return the objective for data with or without labels."""
        name = self.objective or ("bce" if labelled else "bpr")
        if name == "bce":
            return BCE(weight_decay=BCE.weight_decay if self.weight_decay is None else self.weight_decay)
        decay = BPR.weight_decay if self.weight_decay is None else self.weight_decay
        return BPR(weight_decay=decay, negatives=self.negatives)


class Loaded(NamedTuple):
    """Data that was read: its name, all of it (or what to train on), and the test part where it comes divided."""

    name: str
    graph: InteractionGraph
    test: InteractionGraph | None


@dataclass(kw_only=True)
class Data:
    """What to learn from."""

    data: Annotated[str, arg(metavar="FILE")]
    """File of interactions (.csv, .tsv, .txt, .inter, .parquet, also .gz), or the name of a known data set."""
    test: Annotated[Path | None, optional("FILE")] = None
    """File of held-out interactions, instead of a random part of the data."""
    threshold: Annotated[float | None, optional("RATING")] = None
    """Largest rating that is still a no. bce learns yes or no, bpr only from what is above."""

    def read(self, objective: str | None = None) -> Loaded:
        """Read the data; with ``objective`` or a threshold, bring labels into the form that it learns from.

        Raises:
            ValueError: The file is malformed, or there are no ratings or labels where some are needed.
        """
        name, graph, test = self._read()
        if self.test is not None:
            test = InteractionGraph.from_file(self.test, like=graph)
        note(f"{name}: {sizes(graph)}" + ("" if test is None else f" and {test.num_interactions:,} to test on"))
        parts = [None if part is None else self._labelled(part, objective) for part in (graph, test)]
        assert parts[0] is not None
        return Loaded(name, parts[0], parts[1])

    def _read(self) -> Loaded:
        if Path(self.data).exists():
            path = Path(self.data)
            return Loaded(path.name.partition(".")[0] or path.name, InteractionGraph.from_file(path), None)
        names = [card.name for card in datasets.available()]
        if self.data not in names:
            raise ValueError(f"'--data' must be an existing file, or one of {', '.join(names)} (got '{self.data}')")
        found = datasets.load(self.data)
        return Loaded(self.data, *(found if isinstance(found, datasets.Split) else (found, None)))

    def _labelled(self, graph: InteractionGraph, objective: str | None) -> InteractionGraph:
        if self.threshold is not None:
            if graph.rating is None:
                raise ValueError(f"'--threshold' needs ratings (got {self.threshold}, for data without)")
            graph = graph.binarize(self.threshold)
        elif objective == "bce" and graph.label is None:
            raise ValueError("'--objective bce' needs labels (got data without; '--threshold' makes them of ratings)")
        if objective == "bpr" and graph.label is not None:
            graph = graph.select(graph.label > 0)
            if graph.num_interactions == 0:
                raise ValueError(f"'--threshold' must leave interactions to learn from (got {self.threshold})")
        return graph


def sizes(graph: InteractionGraph) -> str:
    """Return how large a graph is, in words."""
    return f"{graph.num_users:,} users, {graph.num_items:,} items, {graph.num_interactions:,} interactions"


def device_of(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        ValueError: There is none.
    """
    try:
        device = torch.device(name)
        torch.zeros(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(f"'--device' must be a device of this machine, such as cpu (got '{name}': {reason})") from None
    return device


def note(text: str) -> None:
    """Tell what is going on, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns; those in ``right`` are flush right.

    Example:
        >>> print(columns([["a", "1"], ["bcd", "22"]], right=[1]))
        a     1
        bcd  22
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n in right else cell.ljust(width) for n, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
