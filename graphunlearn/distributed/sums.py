r"""Sums over ranks through which gradients flow, and inner products of vectors of which a rank holds a part.

A quantity of items is *complete* if every rank holds the same value of it, and *partial* if the value is the sum over
the ranks. :func:`shared` turns complete rows into rows that every rank uses for its own samples: the gradients of these
uses are partial, and are summed on the way back. :func:`summed` turns partial values into complete ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphunlearn.distributed.ranks import Ranks
from graphunlearn.nn.encoding import Encoded

__all__ = ["Inner", "shared", "summed"]


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ranks: Ranks, x: Tensor) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _Summed.apply(ctx.ranks, grad)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ranks: Ranks, x: Tensor) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _Shared.apply(ctx.ranks, grad)


def summed(ranks: Ranks, x: Tensor) -> Tensor:
    """Return the sum over all ranks, differentiable any number of times.

    Args:
        ranks: The ranks.
        x: A tensor of the same shape on all ranks.
    """
    found: Tensor = _Summed.apply(ranks, x)
    return found


def shared(ranks: Ranks, encoded: Encoded) -> Encoded:
    """Return the embeddings with items that every rank may use for its own samples; gradients are summed over ranks.

    Args:
        ranks: The ranks.
        encoded: The embeddings of the users of this rank and of all items.
    """
    base = None if encoded.item_base is None else _Shared.apply(ranks, encoded.item_base)
    return encoded._replace(items=_Shared.apply(ranks, encoded.items), item_base=base)


class Inner:
    r"""The inner product of vectors whose first entries are those of the users of each rank, and the others of items.

    .. math::
        \langle a, b\rangle = \sum_r \langle a^{(r)}_u, b^{(r)}_u\rangle + \langle a_i, b_i\rangle

    The entries of items count once, as rank 0 holds them, so that all ranks see the same number.

    Args:
        ranks: The ranks.
        cut: Number of entries of the users of this rank.

    Example:
        >>> import torch
        >>> Inner(Ranks(), 1)(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        11.0
    """

    def __init__(self, ranks: Ranks, cut: int) -> None:
        self.ranks, self.cut = ranks, cut

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
