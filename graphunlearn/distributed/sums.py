r"""Sums over ranks through which gradients flow, and inner products of vectors of which a rank holds a part.

A quantity of items is *whole* if every rank holds the same value of it, and *partial* if the value is the sum over the
ranks. :func:`shared` turns own rows of items into whole ones that every rank uses for its own samples, and
:func:`fetched` into those that its samples use. The gradients of these uses are partial, and are summed on the way
back. :func:`summed` turns partial values into whole ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.items import DividedItems, Exchange, Items
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.nn.encoding import Encoded
from graphunlearn.nn.training.samples import Samples

__all__ = ["Inner", "fetched", "shared", "summed"]

Rows = Callable[[Tensor], Tensor]
"""A linear map of rows."""


class _Map(torch.autograd.Function):
    """A linear map of rows across ranks, whose transpose is another one; differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, there: Rows, back: Rows, x: Tensor) -> Tensor:
        ctx.maps = there, back
        return there(x.view_as(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        there, back = ctx.maps
        return None, None, _Map.apply(back, there, grad)


def _itself(x: Tensor) -> Tensor:
    return x


def summed(ranks: Ranks, x: Tensor) -> Tensor:
    """Return the sum over all ranks, differentiable any number of times.

    Args:
        ranks: The ranks.
        x: A tensor of the same shape on all ranks.
    """
    found: Tensor = _Map.apply(ranks.total, _itself, x)
    return found


def shared(rows: Items, encoded: Encoded) -> Encoded:
    """Return the embeddings with items that every rank may use for its own samples; gradients are summed over ranks.

    Args:
        rows: The rows of items that this rank holds.
        encoded: The embeddings of the users of this rank and of the items whose rows it holds.

    Returns:
        The embeddings of the users of this rank and of all items.
    """
    return _with_items(encoded, rows.whole, rows.summed)


def _with_items(encoded: Encoded, there: Rows, back: Rows) -> Encoded:
    """Return the embeddings with their rows of items mapped, whose gradients are mapped back."""
    base = None if encoded.item_base is None else _Map.apply(there, back, encoded.item_base)
    return encoded._replace(items=_Map.apply(there, back, encoded.items), item_base=base)


def fetched(rows: Items, encoded: Encoded, samples: Samples) -> tuple[Encoded, Samples]:
    """Return the embeddings that samples of this rank use, and the samples in their numbering.

    Args:
        rows: The rows of items that this rank holds.
        encoded: The embeddings of the users of this rank and of the items whose rows it holds.
        samples: The samples of this rank.

    Returns:
        The embeddings of the users and of the items of the samples, all items where every rank holds their rows; and
        the samples. Gradients are summed over the ranks.
    """
    if not isinstance(rows, DividedItems):
        return shared(rows, encoded), samples
    drawn = samples.items[:0] if samples.negatives is None else samples.negatives.flatten()
    wanted, place = torch.cat([samples.items, drawn]).unique(return_inverse=True)
    exchange = Exchange(rows, wanted)
    items, negatives = place.split([len(samples), len(drawn)])
    own = replace(
        samples,
        items=items,
        negatives=None if samples.negatives is None else negatives.view_as(samples.negatives),
        size=(samples.size[0], len(wanted)),
    )
    return _with_items(encoded, exchange.fetch, exchange.summed), own


class Inner:
    r"""The inner product of vectors whose first entries are those of the users of each rank, and the others of items.

    .. math::
        \langle a, b\rangle = \sum_r \langle a^{(r)}_u, b^{(r)}_u\rangle + \langle a_i, b_i\rangle

    Entries of items that all ranks hold count once, as rank 0 holds them, so that all ranks see the same number.

    Args:
        ranks: The ranks.
        cut: Number of entries of the users of this rank; ``None`` if no two ranks hold the same entry.

    Example:
        >>> import torch
        >>> Inner(Ranks(), 1)(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        11.0
    """

    def __init__(self, ranks: Ranks, cut: int | None) -> None:
        self.ranks, self.cut = ranks, cut

    @classmethod
    def of(cls, graph: ShardGraph, width: int) -> Inner:
        """Return the inner product of flattened tables.

        Args:
            graph: The part of the graph.
            width: Width of the table.
        """
        return cls(graph.ranks, None if graph.item_rows.divided else graph.num_users * width)

    def __call__(self, a: Tensor, b: Tensor) -> float:
        last = None if self.ranks.first else self.cut
        return self.ranks.number(float(a[:last] @ b[:last]))

    def exactly(self, a: Tensor, b: Tensor) -> float:
        """Return the inner product, added up in double precision.

        Args:
            a: A vector ``[num]``.
            b: A vector ``[num]``.
        """
        last = None if self.ranks.first else self.cut
        return self.ranks.number(float(a[:last].double() @ b[:last].double()))
