r"""The rows of items that a rank holds: all of them, or a contiguous part.

An array with a row for every item is *partial* if its value is the sum over the ranks of what each holds, and *whole*
if every rank holds the value. The *own* rows are those of the table of a rank, with their gradients and the state of
their optimiser. Numbers of items are those of the whole graph everywhere, and so are arrays with one number per item,
such as degrees; only rows are divided.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graphunlearn.distributed.ranks import Ranks

__all__ = ["DividedItems", "Exchange", "Items"]


class Items:
    """The rows of items where every rank holds all of them.

    Args:
        ranks: The ranks.
        number: Number of items.

    Example:
        >>> import torch
        >>> Items(Ranks(), 2).summed(torch.ones(2, 1)).tolist()
        [[1.0], [1.0]]
    """

    divided = False

    def __init__(self, ranks: Ranks, number: int) -> None:
        self.ranks, self.number = ranks, number
        self.first, self.last = 0, number

    def __deepcopy__(self, memo: dict[int, Any]) -> Items:
        return self

    @property
    def held(self) -> int:
        """Number of own rows."""
        return self.last - self.first

    def own(self, x: Tensor) -> Tensor:
        """Return the own rows of a whole array.

        Args:
            x: A value per item ``[num_items, ...]``.
        """
        return x[self.first : self.last]

    def whole(self, x: Tensor) -> Tensor:
        """Return the whole array.

        Args:
            x: The own rows ``[num_held, ...]``.
        """
        return x

    def summed(self, x: Tensor) -> Tensor:
        """Return the own rows of the sum over all ranks.

        Args:
            x: A partial array, which is not changed ``[num_items, ...]``.
        """
        return self.summed_(x.clone(memory_format=torch.contiguous_format))

    def summed_(self, x: Tensor) -> Tensor:
        """Return the own rows of the sum over all ranks, in the memory of the argument.

        Args:
            x: A contiguous partial array, which is overwritten ``[num_items, ...]``.
        """
        return self.ranks.total_(x)


class DividedItems(Items):
    """The rows of items where every rank holds a contiguous part.

    A whole array is sent part by part, and a sum of partial arrays part by part to the rank that holds the part: a rank
    sends :math:`(W - 1)/W` of the array for either on average.

    Args:
        ranks: The ranks.
        bounds: The first item of every rank, and the number of items ``[world + 1]``.
    """

    divided = True

    def __init__(self, ranks: Ranks, bounds: tuple[int, ...]) -> None:
        super().__init__(ranks, bounds[-1])
        self.bounds = bounds
        self.first, self.last = bounds[ranks.rank], bounds[ranks.rank + 1]

    def part(self, x: Tensor, rank: int) -> Tensor:
        """Return the rows that another rank holds.

        Args:
            x: The own rows ``[num_held, ...]``.
            rank: The rank.
        """
        if rank == self.ranks.rank:
            return self.ranks.send_to_all(x.contiguous(), rank)
        number = self.bounds[rank + 1] - self.bounds[rank]
        return self.ranks.send_to_all(x.new_empty(number, *x.shape[1:]), rank)

    def whole(self, x: Tensor) -> Tensor:
        out = x.new_empty(self.number, *x.shape[1:])
        self.own(out).copy_(x)
        for rank in range(self.ranks.world):
            self.ranks.send_to_all(out[self.bounds[rank] : self.bounds[rank + 1]], rank)
        return out

    def summed_(self, x: Tensor) -> Tensor:
        for rank, (first, last) in enumerate(pairwise(self.bounds)):
            self.ranks.sum_at(x[first:last], rank)
        return self.own(x)


class Exchange:
    r"""Fetches the rows of items that a rank needs from the ranks that hold them, and adds up what belongs to them.

    All ranks must make one at the same time, each with the items that it needs, and call the same methods. With
    :math:`m` wanted rows that other ranks hold, a sum sends :math:`m` rows, and all fetches together send as many.

    Args:
        items: Who holds which rows.
        wanted: The items whose rows this rank needs, ascending, without repetition ``[num_wanted]``.
    """

    def __init__(self, items: DividedItems, wanted: Tensor) -> None:
        self.ranks, self.held = items.ranks, items.held
        cuts = torch.tensor(items.bounds, device=wanted.device)
        takes = torch.searchsorted(wanted, cuts).diff()
        one = [1] * self.ranks.world
        self.takes: list[int] = takes.tolist()
        self.gives: list[int] = self.ranks.swap(takes, one, one).tolist()
        self.asked = self.ranks.swap(wanted, self.takes, self.gives) - items.first

    def fetch(self, x: Tensor) -> Tensor:
        """Return the wanted rows ``[num_wanted, ...]``.

        Args:
            x: The own rows ``[num_held, ...]``.
        """
        return self.ranks.swap(x.index_select(0, self.asked), self.gives, self.takes)

    def summed(self, x: Tensor) -> Tensor:
        """Return the sums of rows over all ranks at the ranks that hold them; zero for items that no rank wants.

        Args:
            x: Partial rows of the wanted items ``[num_wanted, ...]``.

        Returns:
            The own rows of the sums ``[num_held, ...]``.
        """
        received = self.ranks.swap(x.contiguous(), self.takes, self.gives)
        del x  # if the caller does not hold it either, the sums can take its memory
        out = received.new_zeros(self.held, *received.shape[1:])
        return out.index_add_(0, self.asked, received)
