"""The largest entries of every row of a dense matrix."""

from __future__ import annotations

from torch import Tensor

__all__ = ["GROUP", "largest"]

GROUP = 64
"""Number of columns of which the largest entry is found first."""


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""Return the ``k`` largest entries of every row and their columns, as ``values.topk(k)`` does.

    The columns are divided into groups, if their number is a multiple of :data:`GROUP` and well above ``k``. The ``k``
    largest entries are in the ``k`` groups with the largest maxima: if an entry of another group were larger than one
    of those, so would be the maximum of its group. Maxima are found several times as fast as ranks. Where entries are
    equal, which of them are returned may differ from ``topk``.

    Args:
        values: The matrix ``[rows, columns]``, without NaN.
        k: Number of entries per row, at most ``columns``.

    Returns:
        The entries and their columns ``[rows, k]``, in descending order.

    Example:
        >>> import torch
        >>> largest(torch.tensor([[1.0, 3.0, 2.0]]), 2)
        (tensor([[3., 2.]]), tensor([[1, 2]]))
    """
    groups, rest = divmod(values.size(1), GROUP)
    if rest or 2 * k >= groups:
        found = values.topk(k)
        return found.values, found.indices
    grouped = values.view(-1, groups, GROUP)
    chosen = grouped.amax(2).topk(k).indices
    candidates = grouped.gather(1, chosen.unsqueeze(2).expand(-1, -1, GROUP)).flatten(1)
    best, place = candidates.topk(k)
    group = chosen.gather(1, place.div(GROUP, rounding_mode="floor"))
    return best, group * GROUP + place % GROUP
