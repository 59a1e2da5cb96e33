"""Graphs with the events of another graph added, and the users and items that only that one has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, SIDES
from graphunlearn.data.session import SessionGraph
from graphunlearn.data.vocabulary import Vocabulary, canonical_ids, preview
from graphunlearn.errors import ArgumentError

__all__ = ["grown", "numbered_in"]

G = TypeVar("G", InteractionGraph, SessionGraph)


def grown(graph: G, new: G) -> G:
    """Return a graph with the events of two graphs, in which the users and items of the first keep their numbers.

    Users and items are matched by raw id, which mean what they mean in ``graph``; those that only ``new`` has get the
    next numbers, in their order. A pair of user and item that both graphs hold counts once, with the values of ``new``.

    Args:
        graph: The graph.
        new: The graph to add, with numbers of its own.

    Returns:
        A new graph of the same class. Neither of the two graphs is changed.

    Raises:
        ValueError: The graphs are of different kinds, one has ratings, times, labels or users that the other lacks,
            a graph of interactions holds more than its interactions, or both graphs hold a session of the same id.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), user_ids=["ann", "bob"])
        >>> new = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), user_ids=["eve", "bob"], item_ids=["x"])
        >>> both = grown(graph, new)
        >>> both.user_ids, both.item_ids, both.pairs.tolist()
        (['ann', 'bob', 'eve'], ['0', 'x'], [[0, 1, 2, 1], [0, 0, 1, 1]])
    """
    if new.kind != graph.kind:
        raise ArgumentError("new", f"be a graph of {graph.kind}, as 'graph' is", f"one of {new.kind}")
    join: Any = _with_interactions if graph.kind == "interactions" else _with_sessions
    joined: G = join(graph, new)
    return joined


def numbered_in(part: G, graph: G) -> G:
    """Return the events of a graph with the numbers of another graph, which holds all of its users and items.

    Args:
        part: The graph, such as held-out data.
        graph: The graph whose users and items are taken, such as the result of :func:`grown`.

    Returns:
        A graph of the same class and events.

    Raises:
        ValueError: ``graph`` lacks a user or an item of ``part``.

    Example:
        >>> import torch
        >>> part = InteractionGraph.from_edges(torch.tensor([[0], [0]]), item_ids=["b"])
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0], [0, 1]]), item_ids=["a", "b"])
        >>> numbered_in(part, graph).pairs.tolist()
        [[0], [1]]
    """
    move: Any = _interactions_in if part.kind == "interactions" else _sessions_in
    moved: G = move(part, graph)
    return moved


def _interactions_in(part: InteractionGraph, graph: InteractionGraph) -> InteractionGraph:
    _check_bare("part", part)
    known = {side: graph.vocabulary(side) for side in SIDES}
    pairs = torch.stack([_index(part, side, known[side])[ends] for side, ends in zip(SIDES, part.pairs)])
    return type(part)._from_parts(pairs, known["user"], known["item"], part._values())


def _sessions_in(part: SessionGraph, graph: SessionGraph) -> SessionGraph:
    known = graph.vocabulary("item")
    index = _index(part, "item", known)
    users = None if part.user is None else part.vocabulary("user")
    target = part.target
    values = {"time": part.time, "user": part.user, "num_left_out": part.num_left_out or None}
    if target is not None:
        values["target"] = torch.where(target < 0, target, index[target.clamp(min=0)])
    return type(part)._build(index[part.items], part.length, known, part.vocabulary("session"), users, **values)


def _with_interactions(graph: InteractionGraph, new: InteractionGraph) -> InteractionGraph:
    _check_bare("graph", graph)
    _check_bare("new", new)
    old, added = graph._values(), new._values()
    for name in ATTRIBUTES:
        _check_both(f"{name}s", name in old, name in added)
    both = {side: _extended(graph.vocabulary(side), new.vocabulary(side)) for side in SIDES}
    theirs = torch.stack([both[side][1][ends.cpu()] for side, ends in zip(SIDES, new.pairs)]).to(graph.device)
    values = {name: torch.cat([old[name], added[name].to(graph.device)]) for name in old}
    return type(graph)._from_parts(torch.cat([graph.pairs, theirs], 1), both["user"][0], both["item"][0], values)


def _with_sessions(graph: SessionGraph, new: SessionGraph) -> SessionGraph:
    for name, graphs in {"times": (graph.time, new.time), "users": (graph.user, new.user)}.items():
        _check_both(name, *(value is not None for value in graphs))
    if graph.target is not None or new.target is not None:
        raise ArgumentError("graph", "be a graph of sessions", "one of prefixes")
    both = _sessions(graph.vocabulary("session"), new.vocabulary("session"))
    items, numbers = _extended(graph.vocabulary("item"), new.vocabulary("item"))
    device = graph.device
    clicks = torch.cat([graph.items, numbers[new.items.cpu()].to(device)])
    values: dict[str, Tensor | None] = {}
    if graph.time is not None and new.time is not None:
        values["time"] = torch.cat([graph.time, new.time.to(device)])
    users = None
    if graph.user is not None and new.user is not None:
        users, numbers = _extended(graph.vocabulary("user"), new.vocabulary("user"))
        theirs = torch.cat([numbers, numbers.new_tensor([-1])])[new.user.cpu()]  # -1 takes the last
        values["user"] = torch.cat([graph.user, theirs.to(device)])
    length = torch.cat([graph.length, new.length.to(device)])
    return type(graph)._build(clicks, length, items, both, users, **values)


def _extended(known: Vocabulary, new: Vocabulary) -> tuple[Vocabulary, Tensor]:
    """Return a vocabulary with the ids that it lacks at its end, and the number of every new id in it."""
    ids = canonical_ids(new.ids, known.numeric)  # by the rule of the known ids, which a new one may end
    missing = (known.lookup(new.ids) < 0).tolist()
    if any(missing):
        known = Vocabulary([*known.ids, *dict.fromkeys(name for name, lacks in zip(ids, missing) if lacks)])
    place = {name: number for number, name in enumerate(known.ids)}
    return known, torch.tensor([place[name] for name in ids], dtype=torch.long)


def _index(graph: InteractionGraph | SessionGraph, side: str, known: Vocabulary) -> Tensor:
    """Return the number in ``known`` of every user or item of a graph."""
    own = graph.vocabulary(side)
    index = known.lookup(own.ids)
    missing = (index < 0).nonzero().flatten().tolist()
    if missing:
        names = preview([own[at] for at in missing])
        raise ArgumentError("graph", f"have the {side}s of 'part'", f"one without {names}")
    return index.to(graph.device)


def _sessions(known: Vocabulary, new: Vocabulary) -> Vocabulary:
    """Return the ids of the sessions of two graphs; numbers go on where neither has ids."""
    if known.is_range and new.is_range:
        return Vocabulary(len(known) + len(new))
    held = set(known.ids)
    twice = [name for name in new.ids if name in held]
    if twice:
        hint = "give a session that goes on an id of its own"
        raise ArgumentError("new", "hold sessions that 'graph' does not hold", preview(twice), hint)
    return Vocabulary([*known.ids, *new.ids])


def _check_both(what: str, ours: bool, theirs: bool) -> None:
    if ours != theirs:
        raise ArgumentError("new", f"have {what if ours else f'no {what}'}, like 'graph'", "none" if ours else what)


def _check_bare(argument: str, graph: InteractionGraph) -> None:
    """Raise ArgumentError if a graph holds more than its interactions, for which a new user would have no value."""
    more = [str(kind) for kind in graph.edge_types if kind != EDGE_TYPE]
    for side in graph.node_types:
        store: Mapping[str, object] = graph[side]
        more += [f"{side} {name}" for name in store if name not in ("num_nodes", "vocabulary")]
    more += [str(name) for name in graph[EDGE_TYPE] if name not in ("edge_index", *ATTRIBUTES)]
    if more:
        raise ArgumentError(argument, "hold nothing but interactions of users and items", preview(more))
