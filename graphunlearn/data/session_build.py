"""Nodes, edges and aliases of sessions, from their clicks."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphunlearn.data.vocabulary import Vocabulary

__all__ = ["build", "per_session"]

G = TypeVar("G", bound=Data)


def per_session(length: Tensor) -> Tensor:
    """Return the session of every click ``[num_clicks]`` from the number of clicks per session ``[num_sessions]``."""
    return torch.arange(length.numel(), device=length.device).repeat_interleave(length)


def build(
    kind: type[G],
    items: Tensor,
    length: Tensor,
    item_ids: Vocabulary,
    session_ids: Vocabulary | None = None,
    user_ids: Vocabulary | None = None,
    **values: Any,
) -> G:
    """Return the graph of sessions whose parts are known to be right.

    Args:
        kind: Class of the graph.
        items: Items of all clicks, by session ``[num_clicks]``.
        length: Clicks per session, at least 1 ``[num_sessions]``.
        item_ids: Raw ids of items.
        session_ids: Raw ids of sessions, if they have any.
        user_ids: Raw ids of users, if there are any.
        values: What the graph holds besides, where not none.
    """
    num_items, session = max(len(item_ids), 1), per_session(length)
    node, alias = torch.unique(session * num_items + items, return_inverse=True)
    within = session[1:] == session[:-1]
    edge = torch.unique(alias[:-1][within] * node.numel() + alias[1:][within])
    graph = kind()
    x, num_nodes = node % num_items, max(node.numel(), 1)
    edge_index = torch.stack([edge // num_nodes, edge % num_nodes])
    graph._store.update({"x": x, "edge_index": edge_index, "alias": alias, "session_of_node": node // num_items})
    vocabularies = {"item_vocabulary": item_ids, "session_vocabulary": session_ids, "user_vocabulary": user_ids}
    others = {"length": length, **values, **vocabularies}
    graph._store.update({name: value for name, value in others.items() if value is not None})
    return graph
