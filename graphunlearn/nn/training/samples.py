"""The samples of training objectives for interactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from graphunlearn.func import PairPattern
from graphunlearn.func.compressed import ranges

__all__ = ["Samples", "SelectedSamples"]

_MANY = 16  # share of the samples from which on a mask is faster than sorting
_AT_ONCE = 1 << 17  # items or negatives that are looked at at a time


@dataclass(frozen=True)
class Samples:
    """The training samples of an objective, one per interaction.

    Args:
        users: Internal user ids ``[num_samples]``.
        items: Internal item ids ``[num_samples]``.
        size: Number of users and number of items in the graph.
        negatives: Items that the interaction is ranked against ``[num_samples, num_negatives]``.
        target: The value that the score should predict, such as a label ``[num_samples]``.
        offset: A constant per score, such as a correction for popularity ``[num_samples, 1 + num_negatives]``.
    """

    users: Tensor
    items: Tensor
    size: tuple[int, int]
    negatives: Tensor | None = None
    target: Tensor | None = None
    offset: Tensor | None = None

    def __len__(self) -> int:
        return self.users.numel()

    def select(self, index: Tensor) -> Samples:
        """Return a subset of the samples, whose ids have 64 bits.

        Args:
            index: Boolean mask ``[num_samples]``, or positions.
        """
        index = index.to(self.users.device)
        negatives = None if self.negatives is None else self.negatives[index].long()
        optional = (None if value is None else value[index] for value in (self.target, self.offset))
        return Samples(self.users[index].long(), self.items[index].long(), self.size, negatives, *optional)

    def narrow(self, order: Tensor | None = None) -> Samples:
        """Return the samples with ids of 32 bits, for those that are kept; :meth:`select` gives 64 bits again.

        Args:
            order: Positions, if the samples are to be in another order ``[num_samples]``.
        """

        def taken(values: Tensor | None) -> Tensor | None:
            return values if order is None or values is None else values[order]

        ids = [None if x is None else x.int() for x in map(taken, (self.users, self.items, self.negatives))]
        assert ids[0] is not None
        assert ids[1] is not None
        return Samples(ids[0], ids[1], self.size, ids[2], taken(self.target), taken(self.offset))

    @cached_property
    def pattern(self) -> PairPattern:
        """All scored pairs in 32 bits, sample by sample: the interaction, then its negatives."""
        users, items = self.users.int(), self.items.int()
        if self.negatives is None:
            return PairPattern(users, items, self.size)
        rows = users.repeat_interleave(1 + self.negatives.size(1))
        return PairPattern(rows, torch.cat([items.unsqueeze(1), self.negatives.int()], 1).flatten(), self.size)

    @cached_property
    def missing(self) -> Tensor:
        """Which negatives equal the item of their sample, so that they stand for none ``[num_samples, n]``."""
        if self.negatives is None:
            return torch.zeros(len(self), 0, dtype=torch.bool, device=self.users.device)
        return self.negatives == self.items.unsqueeze(1)

    @cached_property
    def _complete(self) -> bool:
        """Whether no negative is missing."""
        return not bool(self.missing.any())

    def without_missing(self, values: Tensor) -> Tensor:
        """Return values with zeros in the places of missing negatives; the values themselves where none is missing.

        Args:
            values: One value per negative ``[num_samples, n]``.
        """
        whole = not values.is_cuda and self._complete  # a device would have to be waited for
        return values if whole else values.masked_fill(self.missing, 0.0)

    @cached_property
    def _fewer(self) -> WeakValueDictionary[int, Samples]:
        return WeakValueDictionary()

    def with_first(self, most: int) -> Samples:
        """Return the samples with their first negatives alone; as long as they are in use, they are made once.

        Args:
            most: Number of negatives per sample.
        """
        assert self.negatives is not None
        found = self._fewer.get(most)
        if found is None:
            self._fewer[most] = found = replace(self, negatives=self.negatives[:, :most].contiguous())
        return found

    @property
    def num_pairs(self) -> int:
        """Number of scored pairs: the interactions, and the negatives of each."""
        return len(self) * (1 if self.negatives is None else 1 + self.negatives.size(1))

    def parts(self, most: int) -> Iterator[tuple[slice, Samples]]:
        """Yield ranges of users with a part of their samples, one after another; the samples must be sorted by user.

        Args:
            most: Largest number of pairs of a part, unless a single sample has more.

        Returns:
            The users ``first`` to ``last``, and samples that number them from 0; one user may be in several parts.
        """
        step = max(1, most * len(self) // max(self.num_pairs, 1))
        for start in range(0, len(self), step):
            part = self.select(torch.arange(start, min(start + step, len(self))))
            first, last = int(part.users[0]), int(part.users[-1]) + 1
            yield slice(first, last), replace(part, users=part.users - first, size=(last - first, self.size[1]))

    def with_any(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the positions of the samples with one of some users, items or negatives, ascending.

        All items and negatives are looked at, a nanosecond each: an index of the samples of every item would take more
        memory than the samples. The samples must be sorted by user.

        Args:
            users: Internal user ids ``[num]``.
            items: Internal item ids ``[num]``.
        """
        users = users.contiguous().to(self.users.dtype)
        bounds = [torch.searchsorted(self.users, users, right=right) for right in (False, True)]
        found = [ranges(bounds[0], bounds[1] - bounds[0])]
        wanted = torch.zeros(self.size[1], dtype=torch.bool, device=self.users.device)
        wanted[items] = True
        columns = [self.items] if self.negatives is None else [self.items, self.negatives.flatten()]
        for ids in columns if len(items) else []:
            width = len(ids) // max(len(self), 1)
            for start in range(0, len(ids), _AT_ONCE):  # so that a part fits into the cache
                hit = wanted.index_select(0, ids[start : start + _AT_ONCE]).nonzero().view(-1)
                found.append((hit + start).div_(width, rounding_mode="floor"))
        every = torch.cat(found)
        if len(every) < len(self) // _MANY:
            return every.unique()
        mask = torch.zeros(len(self), dtype=torch.bool, device=self.users.device)
        mask[every] = True
        return mask.nonzero().view(-1)

    def by_user(self) -> Samples:
        """Return the samples sorted by user; sparse products are then faster, as they need no permutation."""
        return (
            self
            if bool((self.users[1:] >= self.users[:-1]).all())
            else self.select(self.users.int().argsort(stable=True))
        )

    def touching(self, users: Tensor, items: Tensor) -> Tensor:
        """Return a mask of the samples with a user, item or negative in the masks ``users`` or ``items``.

        Args:
            users: Mask of users ``[num_users]``.
            items: Mask of items ``[num_items]``.

        Returns:
            The mask ``[num_samples]``.
        """
        mask = users[self.users] | items[self.items]
        return mask if self.negatives is None else mask | items[self.negatives].any(-1)


@dataclass(frozen=True)
class SelectedSamples:
    """The samples of all interactions of a graph, of which only those selected are held.

    Args:
        num: Number of samples.
        select: A function of positions ``[num_selected]`` that returns the samples there.
    """

    num: int
    select: Callable[[Tensor], Samples]

    def __len__(self) -> int:
        return self.num
