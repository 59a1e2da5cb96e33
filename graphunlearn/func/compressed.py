"""Sparse tensors in CSR, and the ranges of their entries."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["csr", "ranges"]


def csr(rowptr: Tensor, col: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a sparse CSR tensor; the arguments are not checked.

    Args:
        rowptr: Row pointers ``[size[0] + 1]``.
        col: Column indices ``[nnz]``, with the dtype of ``rowptr``.
        values: Values ``[nnz]``.
        size: Numbers of rows and columns.

    Returns:
        The matrix ``[size[0], size[1]]``.

    Example:
        >>> import torch
        >>> csr(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([3.0, 4.0]), (2, 2)).to_dense()
        tensor([[0., 3.],
                [4., 0.]])
    """
    with warnings.catch_warnings():
        # PyTorch warns once per process that CSR is in beta and that invariants are not checked by default.
        warnings.filterwarnings("ignore", message=".*[Ss]parse (CSR|invariant).*", category=UserWarning)
        return torch.sparse_csr_tensor(rowptr, col, values, size, check_invariants=False)


def ranges(start: Tensor, count: Tensor) -> Tensor:
    """Return the numbers ``start, ..., start + count - 1`` of every range, one range after another.

    Args:
        start: The first numbers ``[num]``.
        count: How many numbers each range has ``[num]``.

    Example:
        >>> import torch
        >>> ranges(torch.tensor([5, 2]), torch.tensor([2, 3]))
        tensor([5, 6, 2, 3, 4])
    """
    if count.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=count.device)
    end = torch.cumsum(count, 0)
    shift, total = start + count - end, int(end[-1])
    return torch.arange(total, device=count.device).add_(torch.repeat_interleave(shift, count, output_size=total))
