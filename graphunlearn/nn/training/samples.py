"""The samples of training objectives for interactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphunlearn.func import PairPattern

__all__ = ["Samples", "SelectedSamples"]


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
        """Return a subset of the samples.

        Args:
            index: Boolean mask ``[num_samples]``, or positions.
        """
        index = index.to(self.users.device)
        values = (self.negatives, self.target, self.offset)
        optional = (None if value is None else value[index] for value in values)
        return Samples(self.users[index], self.items[index], self.size, *optional)

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
