"""The adjacency of the part of a rank, whose products are those of the whole graph."""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from graphunlearn.distributed.items import DividedItems, Exchange, Items
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.func import Adjacency, csr, keep_factors, multiply

__all__ = ["DividedMatrix", "ShardAdjacency", "ShardMatrix"]


class ShardMatrix:
    r"""A matrix with the pattern of the adjacency of the whole graph, of which a rank holds the entries of its users.

    A product takes the rows of the users of this rank and those of all items, and returns the same rows of the product:

    .. math::
        y_u = \hat A_{ui} x_i, \qquad y_i = \sum_r \hat A^{(r)}_{iu} x^{(r)}_u

    Args:
        users: The rows of the users ``[num_users, num_items]``.
        items: The rows of the items ``[num_items, num_users]``.
        ranks: The ranks, over which the rows of the items are summed.
    """

    def __init__(self, users: Tensor, items: Tensor, ranks: Ranks) -> None:
        self.users, self.items, self.ranks = users, items, ranks

    def __matmul__(self, x: Tensor) -> Tensor:
        num_users = self.users.size(0)
        waiting = self.ranks.total_later(multiply(self.items, x[:num_users]))
        users = multiply(self.users, x[num_users:])  # while the sum is under way
        return torch.cat([users, waiting()])

    def squared(self) -> ShardMatrix:
        """Return the matrix with squared entries."""
        return ShardMatrix(_squared(self.users), _squared(self.items), self.ranks)

    def row_squares(self) -> Tensor:
        """Return the sum of the squared entries of every row ``[num_users + num_items]`` (float64)."""
        squares = []
        for m in (self.users, self.items):
            ends = torch.cat([m.values().new_zeros(1).double(), m.values().double().square().cumsum(0)])
            squares.append(ends[m.crow_indices().long()].diff())
        return torch.cat([squares[0], self._total(squares[1])])

    def _total(self, rows: Tensor) -> Tensor:
        return self.ranks.total(rows)


def _squared(m: Tensor) -> Tensor:
    return csr(m.crow_indices(), m.col_indices(), m.values().square(), (m.size(0), m.size(1)))


class DividedMatrix(ShardMatrix):
    """The same matrix where every rank holds the rows of a part of the items, and products take and return these.

    Args:
        users: The rows of the users, with a column for every item of their interactions ``[num_users, num_wanted]``.
        items: The rows of these items ``[num_wanted, num_users]``.
        exchange: What fetches and adds up the rows of these items.
    """

    def __init__(self, users: Tensor, items: Tensor, exchange: Exchange) -> None:
        super().__init__(users, items, exchange.ranks)
        self.exchange = exchange

    def __matmul__(self, x: Tensor) -> Tensor:
        num_users = self.users.size(0)
        users = multiply(self.users, self.exchange.fetch(x[num_users:]))  # one after the other, for the sake of memory
        return torch.cat([users, self.exchange.summed(multiply(self.items, x[:num_users]))])

    def squared(self) -> DividedMatrix:
        return DividedMatrix(_squared(self.users), _squared(self.items), self.exchange)

    def _total(self, rows: Tensor) -> Tensor:
        return self.exchange.summed(rows)


class ShardAdjacency(Adjacency):
    """The adjacency of the part of a rank; degrees and the normalised matrix are those of the whole graph.

    Args:
        local: The adjacency of the interactions of this rank.
        num_users: The number of users of this rank.
        item_rows: The rows of items that this rank holds.
    """

    def __init__(self, local: Adjacency, num_users: int, item_rows: Items) -> None:
        super().__init__(local.rowptr, local.col, local.interaction)
        self.local, self.num_users, self.item_rows, self.ranks = local, num_users, item_rows, item_rows.ranks

    @cached_property
    def degree(self) -> Tensor:
        own = self.local.degree
        return torch.cat([own[: self.num_users], self.ranks.total(own[self.num_users :])])

    def entries(self, nodes: Tensor) -> Tensor:
        return self.local.entries(nodes)

    def matrix(self, values: Tensor) -> ShardMatrix:
        """Return a matrix with the pattern of the adjacency.

        Args:
            values: The values of the entries of this rank ``[2 * num_interactions]``.
        """
        users, half = self.num_users, self.col.numel() // 2
        items = self.num_nodes - users
        columns, starts = self.col[:half] - users, self.rowptr[users:] - half
        if self.item_rows.divided:
            wanted, columns = self._wanted
            items, starts = len(wanted), torch.cat([starts[wanted], starts[-1:]])
        own = csr(self.rowptr[: users + 1], columns, values[:half], (users, items))
        back = csr(starts, self.col[half:], values[half:], (items, users))
        if self.item_rows.divided:
            return DividedMatrix(own, back, self._exchange)
        return ShardMatrix(own, back, self.ranks)

    @cached_property
    def _wanted(self) -> tuple[Tensor, Tensor]:
        """The items of the interactions of this rank, and for every entry of its users which of them it is."""
        wanted = (self.local.degree[self.num_users :] > 0).nonzero().view(-1)
        place = self.col.new_zeros(self.num_nodes - self.num_users)
        place[wanted] = torch.arange(len(wanted), dtype=place.dtype, device=place.device)
        return wanted, place[self.col[: self.col.numel() // 2] - self.num_users]

    @cached_property
    def _exchange(self) -> Exchange:
        return Exchange(cast(DividedItems, self.item_rows), self._wanted[0])

    def _normalize(self, dtype: torch.dtype) -> Tensor:
        scale = self.degree.to(dtype).rsqrt()
        found = self.matrix(torch.repeat_interleave(scale, self.local.degree) * scale[self.col])
        users, items = scale.split([self.num_users, self.num_nodes - self.num_users])
        if self.item_rows.divided:
            items = items[self._wanted[0]]
        keep_factors(found.users, users, items)
        keep_factors(found.items, items, users)
        return cast(Tensor, found)  # a linear form only multiplies with it
