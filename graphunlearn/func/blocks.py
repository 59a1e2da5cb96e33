"""Inner products of long vectors in float64, in blocks, so that no whole vector is held in it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

__all__ = ["in_blocks", "inner"]

_BLOCK = 1 << 20  # entries in float64 at a time


def in_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of two vectors in float64.

    Args:
        a: A vector ``[n]``.
        b: A vector ``[n]``.
    """
    yield from ((x.double(), y.double()) for x, y in zip(a.split(_BLOCK), b.split(_BLOCK), strict=True))


def inner(a: Tensor, b: Tensor) -> float:
    """Return the inner product of two vectors, summed in float64.

    Args:
        a: A vector ``[n]``.
        b: A vector ``[n]``.

    Example:
        >>> import torch
        >>> inner(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        11.0
    """
    return sum(float(x @ y) for x, y in in_blocks(a, b))
