"""What rows of a table held before they were changed, so that they can be put back without a copy of the table."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Journal"]


class Journal:
    """The rows of tables that are about to change, each with what it holds.

    Example:
        >>> import torch
        >>> table, journal = torch.zeros(3, 2), Journal()
        >>> rows = torch.tensor([1])
        >>> journal.keep(table, rows)
        >>> table[rows] = 1.0
        >>> journal.undo()
        >>> table.sum()
        tensor(0.)
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(self, table: Tensor, rows: Tensor) -> None:
        """Keep what some rows hold.

        Args:
            table: The table ``[num_rows, ...]``.
            rows: The numbers of the rows, each once ``[num]``.
        """
        self._kept.append((table, rows, table.detach()[rows]))

    @torch.no_grad()
    def undo(self) -> None:
        """Put everything back, the latest first."""
        while self._kept:
            table, rows, values = self._kept.pop()
            table[rows] = values
