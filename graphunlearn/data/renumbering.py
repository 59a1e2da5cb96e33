"""Graphs without some of their users and items, whose nodes are numbered anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.schema import check_index
from graphunlearn.data.session import SessionGraph
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

__all__ = ["active_nodes", "emptied_nodes", "inactive_ids", "keep_nodes", "named_nodes", "new_numbers", "node_types"]

Graph: TypeAlias = InteractionGraph | SessionGraph
G = TypeVar("G", InteractionGraph, SessionGraph)


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
        kept: Numbers of the nodes that stay, in ascending order ``[num_new]``.
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


def keep_nodes(graph: G, kept: Mapping[str, Tensor]) -> G:
    """Return a graph of some of the users and items, numbered anew in the same order, with their raw ids.

    The events of the other users and items go as well. In a session, the neighbours of a click that goes become
    adjacent; a prefix whose target goes is dropped. Features of nodes and relations other than interactions stay with
    the nodes.

    Args:
        graph: The graph; it is not changed.
        kept: Numbers of the nodes that stay, in ascending order ``[num_new]``, by node type; a type that is missing
            stays as it is.

    Raises:
        ValueError: A number is out of range, or the numbers do not ascend.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
        >>> part = keep_nodes(graph, {"user": torch.tensor([1])})
        >>> part.pairs.tolist(), part.user_ids
        ([[0, 0], [0, 1]], ['1'])
    """
    nodes = {}
    for name in node_types(graph):
        size = len(graph.vocabulary(name))
        index = kept.get(name, torch.arange(size)).to(graph.device)
        nodes[name] = check_index("kept", index, size, f"numbers of {name}s")
        if bool((index[1:] <= index[:-1]).any()):
            raise ArgumentError("kept", f"hold numbers of {name}s in ascending order", "others")
    with torch.inference_mode(False):  # a graph made in inference mode must be usable outside it as well
        return _of_interactions(graph, nodes) if isinstance(graph, InteractionGraph) else _of_sessions(graph, nodes)


def _of_interactions(graph: InteractionGraph, kept: dict[str, Tensor]) -> InteractionGraph:
    stays = torch.ones(graph.num_interactions, dtype=torch.bool, device=graph.device)
    for name, nodes in kept.items():
        stays &= new_numbers(nodes, len(graph.vocabulary(name)))[graph.ends(name)] >= 0
    return graph.select(stays).subgraph(kept)


def _of_sessions(graph: SessionGraph, kept: dict[str, Tensor]) -> SessionGraph:
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


def _taken(vocabulary: Vocabulary, kept: Tensor) -> Vocabulary:
    return vocabulary if kept.numel() == len(vocabulary) else vocabulary.take(kept)
