"""Encoding of the prefixes of sessions."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.encoding import Encoded, encode

__all__ = ["encode_prefixes", "prefix_states"]

CHUNK = 1024  # prefixes encoded at a time: bounds the memory, and more at once is slower


@singledispatch
def encode_prefixes(model: nn.Module, graph: SessionGraph, ends: Tensor) -> Encoded:
    """Return what ``model`` makes of the sessions of ``graph`` up to chosen clicks, and of every item.

    The default encodes ``graph.prefixes(ends)``. Register a function for your own class where it gives the rows of
    all prefixes of a session at once.

    Args:
        model: A session recommender.
        graph: Whose sessions are cut.
        ends: Numbers of the last clicks, in any order ``[num]``.

    Returns:
        :class:`Encoded`: a row per prefix ``[num, dim]``, and the items' rows ``[num_items, dim]``.

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
    """Return the row of every prefix ``[num, dim]``; see :func:`encode_prefixes`, which gives the items' rows as well.

    Args:
        model: A session recommender.
        graph: Whose sessions are cut.
        ends: Numbers of the last clicks, in any order ``[num]``.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> prefix_states(gu.nn.GRU4Rec(graph.num_items, 8), graph, torch.tensor([0, 1, 3])).shape
        torch.Size([3, 8])
    """
    return encode_prefixes(model, graph, ends).queries
