"""Graphs without some of their users and items, whose nodes are numbered anew."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, SIDES, check_index, is_per_interaction
from graphunlearn.data.session import SessionGraph
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

__all__ = [
    "active_nodes",
    "canonical_order",
    "clicks_of",
    "emptied_nodes",
    "inactive_ids",
    "keep_nodes",
    "named_nodes",
    "new_numbers",
    "node_types",
    "with_sorted_events",
]

Graph: TypeAlias = InteractionGraph | SessionGraph
G = TypeVar("G", InteractionGraph, SessionGraph)
_DIGITS = re.compile(r"([0-9]+)")


def node_types(graph: Graph) -> tuple[str, ...]:
    """Return the kinds of nodes that are numbered in a vocabulary: users, if the graph has any, and items."""
    known = not isinstance(graph, SessionGraph) or graph.user is not None
    return ("user", "item") if known else ("item",)


def active_nodes(graph: Graph, node_type: str) -> Tensor:
    """Return a mask of the users or items with at least one event.

    Args:
        graph: The graph.
        node_type: ``"user"`` or ``"item"``.

    Returns:
        The mask ``[num_users]`` or ``[num_items]``.
    """
    if isinstance(graph, InteractionGraph):
        return graph.active[graph.sides[SIDES.index(node_type)]]
    ends = graph.ends(node_type)
    return torch.bincount(ends[ends >= 0], minlength=len(graph.vocabulary(node_type))) > 0


def emptied_nodes(graph: Graph, retained: Graph) -> dict[str, Tensor]:
    """Return the users and items that have events in a graph but none in the retained graph.

    Args:
        graph: The graph before forgetting.
        retained: The retained graph.

    Returns:
        Their numbers ``[num_emptied]``, by node type.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=3, num_items=2)
        >>> emptied_nodes(graph, graph.select(torch.tensor([1, 2])))
        {'user': tensor([0]), 'item': tensor([], dtype=torch.int64)}
    """
    return {
        name: (active_nodes(graph, name) & ~active_nodes(retained, name)).nonzero().flatten()
        for name in node_types(graph)
    }


def inactive_ids(graph: Graph, node_type: str, ids: Sequence[str]) -> list[str]:
    """Return those of some ids whose users or items are in the vocabulary of a graph and have no event in it.

    Args:
        graph: The graph.
        node_type: ``"user"`` or ``"item"``.
        ids: Raw ids.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0], [0]]), user_ids=["ann", "bob"])
        >>> inactive_ids(graph, "user", ["ann", "bob", "eve"])
        ['bob']
    """
    nodes = graph.vocabulary(node_type).lookup(ids) if ids else torch.zeros(0, dtype=torch.long)
    active = active_nodes(graph, node_type).cpu().tolist()
    return [name for name, node in zip(ids, nodes.tolist()) if node >= 0 and not active[node]]


def named_nodes(graph: Graph, request: ForgetRequest) -> dict[str, Tensor]:
    """Return the users and items that a request names, by themselves or in a pair.

    Args:
        graph: The graph.
        request: The request; ids that the graph lacks are left out.

    Returns:
        Their numbers on the CPU, with repeats ``[num_named]``, by node type.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in node_types(graph)}
    for part in request.parts:
        sides = {part.level: part.index}
        if part.level == "interaction":
            sides = dict(zip(("user", "item"), zip(*part.index)))
        for name, ids in sides.items():
            if name in found:
                size = len(graph.vocabulary(name))
                nodes = graph.vocabulary(name).lookup(ids) if part.raw else torch.tensor(ids, dtype=torch.long)
                found[name].append(nodes[(nodes >= 0) & (nodes < size)])
    return {name: torch.cat([torch.zeros(0, dtype=torch.long), *nodes]) for name, nodes in found.items()}


def new_numbers(kept: Tensor, size: int) -> Tensor:
    """Return the new number of every node, and -1 for those that go.

    Args:
        kept: Numbers of the nodes that stay, in their new order ``[num_new]``.
        size: Number of nodes before.

    Returns:
        The new numbers ``[size]``.

    Example:
        >>> new_numbers(torch.tensor([0, 2, 3]), 4)
        tensor([ 0, -1,  1,  2])
    """
    numbers = torch.full((size,), -1, dtype=torch.long, device=kept.device)
    numbers[kept] = torch.arange(kept.numel(), device=kept.device)
    return numbers


def canonical_order(vocabulary: Vocabulary, kept: Tensor | None = None) -> Tensor:
    """Return nodes in the order of their raw ids, which tells nothing of the order in which they were read.

    Digits within an id are compared as a number: ``"b9"`` is before ``"b10"``.

    Args:
        vocabulary: The raw ids of all nodes.
        kept: Numbers of the nodes to sort (default: all) ``[num]``.

    Returns:
        Their numbers in the new order ``[num]``.

    Example:
        >>> canonical_order(Vocabulary(["10", "9", "7"])), canonical_order(Vocabulary(["b10", "b9", "a"]))
        (tensor([2, 1, 0]), tensor([2, 1, 0]))
    """
    numbers = list(range(len(vocabulary))) if kept is None else kept.tolist()
    ids = vocabulary.ids
    numbers.sort(key=lambda n: (_natural(ids[n]), ids[n]))
    return torch.tensor(numbers, dtype=torch.long, device=None if kept is None else kept.device)


def _natural(text: str) -> list[tuple[int, str]]:
    """Return the parts of an id: text, and digits without leading zeros behind their number, in turn."""
    parts = _DIGITS.split(text)
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
    return [(len(part) if at % 2 else 0, part) for at, part in enumerate(parts)]


def keep_nodes(graph: G, kept: Mapping[str, Tensor]) -> G:
    """Return a graph of some of the users and items, numbered anew in a given order, with their raw ids.

    The events of the other users and items go as well. In a session, the neighbours of a click that goes become
    adjacent; a prefix whose target goes is dropped. Features of nodes and relations other than interactions stay with
    the nodes. Events keep their order; see :func:`with_sorted_events`.

    Args:
        graph: The graph; it is not changed.
        kept: Numbers of the nodes that stay, in their new order ``[num_new]``, by node type; a type that is missing
            stays as it is. In a graph of sessions, ``"session"`` orders and selects the sessions in the same way.

    Raises:
        ValueError: A number is out of range, or occurs twice.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
        >>> part = keep_nodes(graph, {"user": torch.tensor([1])})
        >>> part.pairs.tolist(), part.user_ids
        ([[0, 0], [0, 1]], ['1'])
    """
    nodes: dict[str, Tensor] = {}
    for name in (*node_types(graph), *(("session",) if graph.kind == "sessions" and "session" in kept else ())):
        size = len(graph.vocabulary(name))
        index = kept.get(name, torch.arange(size)).to(graph.device)
        nodes[name] = check_index("kept", index, size, f"numbers of {name}s")
        if index.unique().numel() != index.numel():
            raise ArgumentError("kept", f"hold different numbers of {name}s", "one of them twice")
    with torch.inference_mode(False):  # a graph made in inference mode must be usable outside it as well
        return _of_interactions(graph, nodes) if isinstance(graph, InteractionGraph) else _of_sessions(graph, nodes)


def clicks_of(graph: SessionGraph, sessions: Tensor) -> Tensor:
    """Return the positions of the clicks of some sessions, in the order of these sessions.

    Args:
        graph: The graph.
        sessions: Numbers of sessions ``[num]``.

    Returns:
        The positions ``[num_clicks]``.

    Example:
        >>> clicks_of(SessionGraph.from_sequences([[5, 7], [6]], num_items=8), torch.tensor([1, 0]))
        tensor([2, 0, 1])
    """
    length = graph.length[sessions]
    starts = graph.click_ptr[sessions] - (length.cumsum(0) - length)
    return starts.repeat_interleave(length) + torch.arange(int(length.sum()), device=graph.device)


def with_sorted_events(graph: G) -> G:
    """Return a graph whose events are in an order that tells nothing of the order in which they were read.

    Interactions are sorted by the numbers of the user and the item, sessions by their raw ids. The clicks of a session
    keep their order.

    Args:
        graph: The graph; it is not changed.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[1, 0, 0], [0, 1, 0]]))
        >>> with_sorted_events(graph).pairs.tolist()
        [[0, 0, 1], [0, 1, 0]]
    """
    if isinstance(graph, SessionGraph):
        return keep_nodes(graph, {"session": canonical_order(graph.vocabulary("session")).to(graph.device)})
    return _sorted_interactions(graph)


@torch.inference_mode(False)
def _sorted_interactions(graph: InteractionGraph) -> InteractionGraph:
    order = torch.arange(graph.num_interactions, device=graph.device)
    values = [getattr(graph, name) for name in reversed(ATTRIBUTES)]
    for value in (*(value for value in values if value is not None), graph.pairs[1], graph.pairs[0]):
        order = order[value[order].argsort(stable=True)]
    made, store = graph.select(order), graph[EDGE_TYPE]
    own = {key: value for key, value in store.items() if is_per_interaction(key, value, order.numel())}
    made[EDGE_TYPE].update({key: value[order] for key, value in own.items()})
    made[EDGE_TYPE].edge_index = store.edge_index[:, order]
    return made


def _of_interactions(graph: InteractionGraph, kept: dict[str, Tensor]) -> InteractionGraph:
    stays = torch.ones(graph.num_interactions, dtype=torch.bool, device=graph.device)
    for name, nodes in kept.items():
        stays &= new_numbers(nodes, len(graph.vocabulary(name)))[graph.ends(name)] >= 0
    return graph.select(stays).subgraph(kept)


def _of_sessions(graph: SessionGraph, kept: dict[str, Tensor]) -> SessionGraph:
    kept = dict(kept)
    if "session" in kept:
        graph = _in_order(graph, kept.pop("session"))
    numbers = {name: new_numbers(nodes, len(graph.vocabulary(name))) for name, nodes in kept.items()}
    stays = numbers["item"][graph.items] >= 0
    left = torch.ones(graph.num_sessions, dtype=torch.bool, device=graph.device)
    for name, ends in (("user", graph.user), ("item", graph.target)):
        if ends is not None:
            left &= (ends < 0) | (numbers[name][ends.clamp(min=0)] >= 0)
    part = graph.keep(stays & left[graph.session])
    values = {"time": part.time, "num_left_out": part.num_left_out or None}
    for key, name, ends in (("user", "user", part.user), ("target", "item", part.target)):
        if ends is not None:
            values[key] = numbers[name][ends.clamp(min=0)].masked_fill(ends < 0, -1)
    ids = {name: _taken(graph.vocabulary(name), nodes) for name, nodes in kept.items()}
    items = numbers["item"][part.items]
    return type(part)._build(items, part.length, ids["item"], part.vocabulary("session"), ids.get("user"), **values)


def _in_order(graph: SessionGraph, order: Tensor) -> SessionGraph:
    """Return the sessions with given numbers, in this order."""
    length, clicks = graph.length[order], clicks_of(graph, order)
    ends = {name: getattr(graph, name) for name in ("user", "target")}
    values: dict[str, Any] = {name: None if value is None else value[order] for name, value in ends.items()}
    values |= {"time": None if graph.time is None else graph.time[clicks], "num_left_out": graph.num_left_out or None}
    users = None if graph.user is None else graph.vocabulary("user")
    sessions = _taken(graph.vocabulary("session"), order)
    return type(graph)._build(graph.items[clicks], length, graph.vocabulary("item"), sessions, users, **values)


def _taken(vocabulary: Vocabulary, kept: Tensor) -> Vocabulary:
    same = kept.numel() == len(vocabulary) and bool((kept[1:] > kept[:-1]).all())
    return vocabulary if same else vocabulary.take(kept)
