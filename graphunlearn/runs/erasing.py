"""Runs without the rows, ids and numbers of the users and items that requests have emptied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data.renumbering import active_nodes, keep_nodes, node_types
from graphunlearn.errors import ArgumentError
from graphunlearn.operators.compacting import Compacted
from graphunlearn.runs.run import Run

__all__ = ["ERASED", "IMPORTED", "Erased", "about_left", "erase", "id_map"]

ERASED = "erased"
"""Entry of :attr:`~graphunlearn.runs.run.Run.about` that tells that the data before a request are gone on purpose."""
ABOUT = ("dataset", "split", "split_by", "threshold", "last_sessions", "collapse_repeats")
"""Entries of ``about`` that do not depend on the data that were forgotten. The course of the training does: whoever
guesses what was forgotten could train again with it and compare."""
IMPORTED = "imported"
"""The entry that tells that another program trained the model, which audits take into account. Its figures of the loss
depend on the data."""
HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Erased:
    """A run without emptied users and items, and what went.

    Args:
        run: The run, without the model and the data before unlearning.
        compacted: The smaller model and training graph, and which number became which.
        held_out: Number of interactions or clicks that left the validation and the test data, by part.
        inactive: Number of users and items that stay although they have no training events, by node type.
    """

    run: Run
    compacted: Compacted
    held_out: dict[str, int]
    inactive: dict[str, int]


def erase(run: Run, *, inactive: bool = False) -> Erased:
    """Remove what requests have emptied from all parts of a run.

    Users and items that the request of the run, or an earlier request in the series, left without training events lose
    their rows in the model, their ids, and their events in the validation and test data; the other events that the
    request names leave these as well. The original model and data, the request, and what training told of its course
    are left out.

    Args:
        run: The run; it is not changed.
        inactive: Whether all users and items without training events go, whatever emptied them.

    Returns:
        The run of those who stay.

    Raises:
        ValueError: The run does not tell what was emptied, or the model cannot be made smaller; see
            :func:`~graphunlearn.compact`.
    """
    if run.emptied is None and not inactive:
        expected, got = "be one that 'forget' wrote, with its request", "one without"
        raise ArgumentError("run", expected, got, "without it, all users and items without training events can go")
    gone = {name: _gone(run, name, inactive) for name in node_types(run.train)}
    small = Compacted.of(run.model, run.train, {name: (~mask).nonzero().flatten() for name, mask in gone.items()})
    ids = {name: _ids(run.train, name, mask) for name, mask in gone.items()}
    parts, left = {}, {}
    for name in HELD_OUT:
        graph = getattr(run, name)
        parts[name] = _without_named(graph, run)
        parts[name] = keep_nodes(
            parts[name], {kind: _others(graph, kind, ids.get(kind, [])) for kind in node_types(graph)}
        )
        left[name] = graph.num_interactions - parts[name].num_interactions
    about = about_left(run)
    made = Run(run.spec, small.model, small.graph, **parts, objective=run.objective, settings=run.settings, about=about)
    idle = {name: int((~active_nodes(small.graph, name)).sum()) for name in gone}
    return Erased(made, small, left, idle)


def about_left(run: Run) -> dict[str, Any]:
    """Return what a run may tell of itself when its earlier data are gone: nothing that was computed from these.

    Args:
        run: The run.
    """
    about = {name: value for name, value in run.about.items() if name in ABOUT} | {ERASED: True}
    if IMPORTED in run.about:
        about[IMPORTED] = {name: value for name, value in run.about[IMPORTED].items() if name != "loss"}
    return about


def id_map(compacted: Compacted) -> dict[str, list[Any]]:
    """Return the columns of a table of those who stay, for systems that serve by row numbers.

    Args:
        compacted: The smaller model and training graph.

    Returns:
        The columns ``type`` (``"user"`` or ``"item"``), ``id``, ``old_row`` and ``new_row``; rows are counted from 0,
        separately for users and items.
    """
    columns: dict[str, list[Any]] = {"type": [], "id": [], "old_row": [], "new_row": []}
    for name, kept in compacted.kept.items():
        columns["type"] += [name] * kept.numel()
        columns["id"] += compacted.graph.vocabulary(name).ids
        columns["old_row"] += kept.tolist()
        columns["new_row"] += range(kept.numel())
    return columns


def _gone(run: Run, name: str, inactive: bool) -> Tensor:
    """Return a mask of the users or items to remove."""
    active = active_nodes(run.train, name)
    if inactive:
        return ~active
    gone = torch.zeros_like(active)
    nodes = run.train.vocabulary(name).lookup((run.emptied or {}).get(name, ()))
    gone[nodes[nodes >= 0].to(gone.device)] = True
    return gone & ~active


def _ids(graph: Any, name: str, mask: Tensor) -> list[str]:
    vocabulary = graph.vocabulary(name)
    return [vocabulary[n] for n in mask.nonzero().flatten().tolist()]


def _others(graph: Any, name: str, ids: list[str]) -> Tensor:
    """Return the numbers of all users or items but some, which are given by raw ids: users of sessions may differ."""
    vocabulary = graph.vocabulary(name)
    stays = torch.ones(len(vocabulary), dtype=torch.bool)
    nodes = vocabulary.lookup(ids)
    stays[nodes[nodes >= 0]] = False
    return stays.nonzero().flatten()


def _without_named(graph: Any, run: Run) -> Any:
    """Return held-out data without the events that the request names; clicks are named by positions in training."""
    parts = () if run.forgotten is None else run.forgotten.result.request.parts
    for part in parts:
        if part.level != "click" and (part.level in node_types(graph) or part.level in ("interaction", "session")):
            graph = graph.without(part)
    return graph
