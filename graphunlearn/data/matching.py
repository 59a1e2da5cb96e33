"""Where in a graph the interactions or clicks lie that one part of a request names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data.interaction import InteractionGraph
    from graphunlearn.data.session import SessionGraph

__all__ = ["matching_clicks", "matching_interactions"]


def matching_interactions(level: str, index: tuple[Any, ...], raw: bool, graph: InteractionGraph) -> Tensor:
    """Return the positions of the interactions named by raw or internal ids.

    Raises:
        ValueError: If the graph does not know an id or a pair, or has nothing of this level.
    """
    if level not in {"interaction", "user", "item"}:
        raise ArgumentError("level", "be 'interaction', 'user' or 'item' for a graph of users and items", f"{level!r}")
    adjacency = graph.adjacency
    if level != "interaction":
        nodes = _nodes(level, index, raw, graph) + (graph.num_users if level == "item" else 0)
        return adjacency.interaction[adjacency.entries(nodes)].long()
    users, items = (_nodes(side, ends, raw, graph) for side, ends in zip(("user", "item"), zip(*index)))
    order = adjacency.interaction[: graph.num_interactions].long()
    known = graph.pairs[0, order] * graph.num_items + graph.pairs[1, order]  # ascending
    wanted = users * graph.num_items + items
    position = torch.searchsorted(known, wanted).clamp(max=max(known.numel() - 1, 0))
    missing = known[position] != wanted if known.numel() else torch.ones_like(wanted, dtype=torch.bool)
    if missing.any():
        unknown = [index[i] for i in missing.nonzero().flatten().tolist()]
        raise ArgumentError(
            "index",
            "hold interactions of the graph",
            (
                f"{preview(unknown)}, which {'is' if len(unknown) == 1 else 'are'} not among its "
                f"{graph.num_interactions} interactions"
            ),
        )
    return order[position]


def matching_clicks(level: str, index: tuple[Any, ...], raw: bool, graph: SessionGraph) -> Tensor:
    """Return the positions of the clicks named by raw or internal ids.

    Raises:
        ValueError: If the graph does not know an id, a session is too short for a click, or there is nothing of this
            level.
    """
    if level == "interaction":
        raise ArgumentError("level", "be 'click', 'session', 'item' or 'user' for a graph of sessions", f"{level!r}")
    if level == "user" and graph.user is None:
        raise ArgumentError("level", "be 'click', 'session' or 'item' where sessions carry no user", "'user'")
    if level != "click":
        nodes = _nodes(level, index, raw, graph)
        owner = graph.items if level == "item" else graph.session
        if level == "user" and graph.user is not None:
            owner = graph.user[owner]
        return torch.isin(owner, nodes).nonzero().flatten()
    names, positions = zip(*index)
    sessions = _nodes("session", names, raw, graph)
    position = torch.tensor(positions, dtype=torch.long, device=graph.device)
    outside = (position < 0) | (position >= graph.length[sessions])
    if outside.any():
        at = int(outside.nonzero()[0])
        count = int(graph.length[sessions[at]])
        holds = f"has {count} clicks, at positions 0 to {count - 1}" if count > 1 else "has one click, at position 0"
        raise ArgumentError("index", "hold clicks of the graph", f"{index[at]}, while session {names[at]!r} {holds}")
    return graph.click_ptr[sessions] + position


def _nodes(side: str, ids: Iterable[Any], raw: bool, graph: InteractionGraph | SessionGraph) -> Tensor:
    ids = list(ids)
    vocabulary = graph.vocabulary(side)
    nodes = vocabulary.lookup(ids) if raw else torch.tensor(ids, dtype=torch.long)
    outside = (nodes < 0) | (nodes >= len(vocabulary))
    if outside.any():
        unknown = dict.fromkeys(ids[i] for i in outside.nonzero().flatten().tolist())
        kind = f"{side}s" if raw else f"internal {side} ids"
        raise ArgumentError("index", f"hold {kind} of the graph", f"{preview(unknown)}; {_holds(side, vocabulary)}")
    return nodes.to(graph.device)


def _holds(side: str, vocabulary: Vocabulary) -> str:
    if len(vocabulary) == 0:
        return f"the graph has no {side}s"
    shown = ", ".join(repr(vocabulary[i]) for i in range(min(3, len(vocabulary))))
    return f"the graph has {len(vocabulary)} {side}s, such as {shown}"
