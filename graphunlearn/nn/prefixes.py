"""Encoding of prefixes of sessions."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.encoding import Encoded, encode

__all__ = ["encode_prefixes", "prefix_states"]

CHUNK = 1024  # prefixes encoded at a time; bounds the memory, and larger chunks are slower


@singledispatch
def encode_prefixes(model: nn.Module, graph: SessionGraph, ends: Tensor) -> Encoded:
    """Return the embeddings of prefixes of sessions, and the embeddings of all items.

    By default, ``graph.prefixes(ends)`` is encoded. If your own model class can compute the embeddings of all prefixes
    of a session at once, register a function for it.

    Args:
        model: A session recommender.
        graph: The graph of the sessions.
        ends: Indices of the last clicks of the prefixes, in any order ``[num]``.

    Returns:
        The embeddings of the prefixes ``[num, dim]`` and of the items ``[num_items, dim]``.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> rows = encode_prefixes(gu.nn.SRGNN(graph.num_items, 8), graph, torch.tensor([0, 1, 3]))
        >>> rows.queries.shape, rows.items.shape
        (torch.Size([3, 8]), torch.Size([3, 8]))
    """
    parts = [encode(model, graph.prefixes(part)) for part in ends.split(CHUNK)]
    return Encoded(torch.cat([part.queries for part in parts]), parts[0].items)


def prefix_states(model: nn.Module, graph: SessionGraph, ends: Tensor) -> Tensor:
    """Return the embeddings of prefixes; :func:`encode_prefixes` returns those of the items as well.

    Args:
        model: A session recommender.
        graph: The graph of the sessions.
        ends: Indices of the last clicks of the prefixes, in any order ``[num]``.

    Returns:
        The embeddings ``[num, dim]``.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> prefix_states(gu.nn.GRU4Rec(graph.num_items, 8), graph, torch.tensor([0, 1, 3])).shape
        torch.Size([3, 8])
    """
    return encode_prefixes(model, graph, ends).queries
