"""The entries of tensors that a mask keeps."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Kept"]

# Up to so many dropped entries, or one in so many, the stretches between them are copied whole.
_FEW, _RARE = 256, 4096


class Kept:
    """The positions that a mask keeps, for all tensors with these positions.

    If the mask drops only few positions, the stretches between them are copied, which takes a third to a tenth of the
    time of gathering all entries that are kept.

    Args:
        mask: Boolean mask of the positions to keep ``[size]``.

    Example:
        >>> import torch
        >>> Kept(torch.tensor([True, False, True])).of(torch.tensor([4, 5, 6]))
        tensor([4, 6])
    """

    def __init__(self, mask: Tensor) -> None:
        self.size, self.count = mask.numel(), int(torch.count_nonzero(mask))
        self._mask: Tensor | None = mask

    @classmethod
    def without(cls, dropped: Tensor, size: int) -> Kept:
        """Return the positions that are kept if some are dropped, without a mask of all positions.

        Args:
            dropped: The positions that are dropped, ascending ``[num]``.
            size: Number of all positions.

        Example:
            >>> Kept.without(torch.tensor([1]), 3).of(torch.tensor([4, 5, 6]))
            tensor([4, 6])
        """
        kept = cls.__new__(cls)
        kept.size, kept.count, kept._mask = size, size - len(dropped), None
        kept.dropped = dropped
        return kept

    @property
    def few(self) -> bool:
        """Whether only few positions are dropped."""
        return self.size - self.count <= max(_FEW, self.size // _RARE)

    @cached_property
    def mask(self) -> Tensor:
        """The mask of the positions that are kept ``[size]``."""
        if self._mask is not None:
            return self._mask
        mask = torch.ones(self.size, dtype=torch.bool, device=self.dropped.device)
        mask[self.dropped] = False
        return mask

    @cached_property
    def dropped(self) -> Tensor:
        """The positions that are dropped, ascending ``[size - count]``."""
        return (~self.mask).nonzero().view(-1)

    @cached_property
    def _positions(self) -> Tensor:
        return self.mask.nonzero().view(-1)

    @cached_property
    def _stretches(self) -> list[tuple[int, int]]:
        cuts = [-1, *self.dropped.tolist(), self.size]
        return [(before + 1, after - before - 1) for before, after in pairwise(cuts)]

    def of(self, values: Tensor, dim: int = 0) -> Tensor:
        """Return a new tensor with the kept entries, in their order.

        Args:
            values: A tensor with ``size`` entries along ``dim``.
            dim: The dimension.
        """
        if not self.few:
            return values.index_select(dim, self._positions)
        return torch.cat([values.narrow(dim, start, length) for start, length in self._stretches], dim)
