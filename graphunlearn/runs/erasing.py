"""Runs without the rows, ids and numbers of the users and items that requests have emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data.renumbering import (
    active_nodes,
    canonical_order,
    keep_nodes,
    node_types,
    with_sorted_events,
)
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators.compacting import Compacted
from graphunlearn.runs.run import Run

__all__ = ["ERASED", "IMPORTED", "Erased", "about_left", "erase", "id_map", "left_by"]

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

    Users and items are numbered in the order of their raw ids, interactions are sorted by user and item, and sessions
    by raw id, because the order of the file tells where in it something is missing. The seed becomes a hash of the
    smaller model, because whoever knows the seed could train again with a guess added and compare.

    Args:
        run: The run; it is not changed.
        inactive: Whether all users and items without training events go, whatever emptied them.

    Returns:
        The run of those who stay.

    Raises:
        ValueError: The run does not tell what was emptied, or the model cannot be made smaller; see
            :func:`~graphunlearn.compact`.
    """
    if not inactive:
        _check_told(run)
    gone = {name: _gone(run, name, inactive) for name in node_types(run.train)}
    held = [getattr(run, name) for name in HELD_OUT]
    without = [_without(graph, run, gone) for graph in held]
    for name, ids in left_by(run.train, held, without).items():
        gone[name][run.train.vocabulary(name).lookup(ids)] = True
    kept = {name: _sorted(run.train, name, ~mask) for name, mask in gone.items()}
    if run.train.kind == "sessions":
        kept["session"] = canonical_order(run.train.vocabulary("session"))
    small = Compacted.of(run.model, run.train, kept)
    small = replace(small, graph=with_sorted_events(small.graph))
    parts = {name: with_sorted_events(_without(getattr(run, name), run, gone)) for name in HELD_OUT}
    left = {name: getattr(run, name).num_interactions - part.num_interactions for name, part in parts.items()}
    about = about_left(run)
    settings = replace(run.settings, seed=int(fingerprint(small.model)[:8], 16))
    made = Run(run.spec, small.model, small.graph, **parts, objective=run.objective, settings=settings, about=about)
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
    for name in compacted.gone:
        kept = compacted.kept[name]
        columns["type"] += [name] * kept.numel()
        columns["id"] += compacted.graph.vocabulary(name).ids
        columns["old_row"] += kept.tolist()
        columns["new_row"] += range(kept.numel())
    return columns


def left_by(train: Any, before: Sequence[Any], after: Sequence[Any]) -> dict[str, list[str]]:
    """Return the users and items that had held-out events alone, and have none any more.

    Args:
        train: The training graph.
        before: The held-out graphs.
        after: The held-out graphs without some events.

    Returns:
        Their raw ids, by node type; those that the training graph has no number for are left out.
    """
    found = {}
    for name in node_types(train):
        vocabulary = train.vocabulary(name)
        lost = torch.zeros(len(vocabulary), dtype=torch.bool)
        for graphs, value in ((before, True), (after, False)):
            for graph in graphs:
                if name in node_types(graph):
                    own = graph.vocabulary(name)
                    ids = (own[n] for n in active_nodes(graph, name).nonzero().flatten().tolist())
                    nodes = vocabulary.lookup(ids)
                    lost[nodes[nodes >= 0]] = value
        lost &= ~active_nodes(train, name).cpu()
        found[name] = [vocabulary[n] for n in lost.nonzero().flatten().tolist()]
    return found


def _check_told(run: Run) -> None:
    """Raise ArgumentError if a run does not tell whom requests have emptied."""
    if run.emptied is None:
        expected, got = "tell whom all requests of its series have emptied", "one without request.json, or after one"
    elif not run.emptied and run.forgotten is None:
        expected = "be one that 'forget' wrote, with its request"
        got = "one that is already erased" if ERASED in run.about else "one without"
    else:
        return
    raise ArgumentError("run", expected, got, "without it, all users and items without training events can go")


def _gone(run: Run, name: str, inactive: bool) -> Tensor:
    """Return a mask of the users or items to remove."""
    active = active_nodes(run.train, name)
    if inactive:
        return ~active
    gone = torch.zeros_like(active)
    nodes = run.train.vocabulary(name).lookup((run.emptied or {}).get(name, ()))
    gone[nodes[nodes >= 0].to(gone.device)] = True
    return gone & ~active


def _without(graph: Any, run: Run, gone: Mapping[str, Tensor]) -> Any:
    """Return held-out data without the events that the request names, and without the users and items that go."""
    part, kept = _without_named(graph, run), {}
    for name in node_types(part):
        ids, known = part.vocabulary(name), run.train.vocabulary(name) if name in gone else ()
        stays = active_nodes(part, name).cpu()
        if known:  # users of sessions may differ between the parts; those of this one alone stay if they have clicks
            nodes = ids.lookup(known[n] for n in range(len(known))) if ids != known else torch.arange(len(ids))
            stays[nodes[nodes >= 0]] = True
            nodes = nodes[gone[name].cpu()]
            stays[nodes[nodes >= 0]] = False
        kept[name] = _sorted(part, name, stays)
    return keep_nodes(part, kept)


def _sorted(graph: Any, name: str, mask: Tensor) -> Tensor:
    """Return the numbers of the users or items in a mask, in the order of their raw ids."""
    return canonical_order(graph.vocabulary(name), mask.nonzero().flatten())


def _without_named(graph: Any, run: Run) -> Any:
    """Return held-out data without the pairs and sessions that the request names; users and items go as a whole."""
    parts = () if run.forgotten is None else run.forgotten.result.request.parts
    for part in parts:
        if part.level in ("interaction", "session"):  # clicks are named by positions in training
            graph = graph.without(part)
    return graph
