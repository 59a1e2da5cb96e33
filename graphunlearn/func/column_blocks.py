"""Products of large sparse matrices with dense ones, one block of columns after another.

A product reads a row of the dense matrix for every entry. Where these rows do not fit in the cache, each costs the
latency of the memory. Blocks of columns whose rows fit are several times as fast.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from graphunlearn.func.compressed import csr, ranges

__all__ = ["ColumnBlocks", "Factors", "factors_of", "keep_factors", "multiply"]

BLOCK = 3 << 20
"""Bytes of the rows of the dense matrix that a block reads; twice as many or fewer are not divided."""
_PER_ROW = 1  # entries of a row in a block, on average: a block costs as much as reading and writing the product
_WHOLE = 2  # products of a matrix as it is, before it is divided, which takes about as long as three
_CHUNK = 1 << 21  # entries that are counted at a time


class _Block(NamedTuple):
    """A block of columns, in the rows from its first to its last entry."""

    rows: slice
    columns: slice
    matrix: Tensor


class Factors(NamedTuple):
    r"""Factors of the values of a matrix, :math:`A_{ij} = r_i c_j` for every entry.

    Args:
        rows: The factor of every row ``[m]``.
        columns: The factor of every column ``[n]``.
    """

    rows: Tensor
    columns: Tensor


class ColumnBlocks:
    r"""A CSR matrix as a sum of blocks of columns, :math:`A x = \sum_b A_b x_b`.

    Args:
        blocks: The blocks.
        num_rows: Number of rows.
        width: Number of columns of a block.
        factors: Factors of the values that the blocks do not hold; their values are then 1.

    Example:
        >>> import torch
        >>> from graphunlearn.func import csr
        >>> matrix = csr(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1]), torch.ones(3), (2, 3))
        >>> ColumnBlocks.of(matrix, width=2) @ torch.tensor([[1.0], [2.0], [3.0]])
        tensor([[4.],
                [2.]])
    """

    def __init__(self, blocks: list[_Block], num_rows: int, width: int, factors: Factors | None = None) -> None:
        self.blocks, self.num_rows, self.width, self.factors = blocks, num_rows, width, factors

    @classmethod
    def of(cls, matrix: Tensor, width: int, factors: Factors | None = None) -> ColumnBlocks | None:
        """Return a matrix divided into blocks, or nothing if the blocks of the entries of a row are not ascending.

        Args:
            matrix: The CSR matrix.
            width: Number of columns of a block.
            factors: Factors of its values, if they are known. The blocks then share one tensor of ones instead of
                holding values of their own.
        """
        rowptr, col, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
        (num_rows, num_columns), num_blocks = matrix.shape, -(-matrix.size(1) // width)
        counts = _counts(rowptr, col, width, num_blocks)
        if counts is None:
            return None
        ones = None if factors is None else values.new_ones(int(counts.sum(0).max()) if counts.numel() else 0)
        start, blocks = rowptr[:-1].clone(), []
        for block, count in enumerate(counts.t()):
            count = count.contiguous()
            rows = count.nonzero().view(-1)
            if len(rows):
                own = slice(int(rows[0]), int(rows[-1]) + 1)
                index = ranges(start[own], count[own])
                pointer = rowptr.new_zeros(own.stop - own.start + 1)
                torch.cumsum(count[own], 0, dtype=pointer.dtype, out=pointer[1:])
                columns = slice(block * width, min((block + 1) * width, num_columns))
                local = col.index_select(0, index).sub_(columns.start)
                size = own.stop - own.start, columns.stop - columns.start
                part = values.index_select(0, index) if ones is None else ones[: len(index)]
                blocks.append(_Block(own, columns, csr(pointer, local, part, size)))
            start += count
        return cls(blocks, num_rows, width, factors)

    def __matmul__(self, x: Tensor) -> Tensor:
        out, x = x.new_zeros(self.num_rows, x.size(1)), x.contiguous()
        for rows, columns, matrix in self.blocks:
            part = x[columns]
            out[rows].addmm_(matrix, part if self.factors is None else part * self.factors.columns[columns, None])
        return out if self.factors is None else out.mul_(self.factors.rows[:, None])


def _counts(rowptr: Tensor, col: Tensor, width: int, num_blocks: int) -> Tensor | None:
    """Return the number of entries of every row in every block, or nothing if blocks within a row are not ascending."""
    counts = torch.empty(len(rowptr) - 1, num_blocks, dtype=rowptr.dtype, device=rowptr.device)
    first = torch.searchsorted(rowptr, torch.arange(0, len(col), _CHUNK, dtype=rowptr.dtype, device=rowptr.device))
    for start, stop in pairwise([0, *first.tolist(), len(counts)]):
        if start == stop:
            continue
        entries = slice(int(rowptr[start]), int(rowptr[stop]))
        row = torch.arange(stop - start, device=col.device).mul_(num_blocks)
        key = row.repeat_interleave(rowptr[start : stop + 1].diff(), output_size=entries.stop - entries.start)
        key += col[entries].div(width, rounding_mode="floor")
        if not bool((key[1:] >= key[:-1]).all()):
            return None
        counts[start:stop] = key.bincount(minlength=(stop - start) * num_blocks).view(-1, num_blocks)
    return counts


class _State(NamedTuple):
    """What is known of a matrix.

    Args:
        version: The version of its values; what is known of other values does not count.
        whole: How often it was multiplied as it is.
        blocks: Its blocks; ``None`` before it is divided, and if it cannot be.
    """

    version: int
    whole: int
    blocks: ColumnBlocks | None


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""The state of every large matrix."""
_factors: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""The version of the values of a matrix, and their factors."""


def keep_factors(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    r"""Keep factors of the values of a matrix, :math:`A_{ij} = r_i c_j`, so that its blocks need no values.

    The factors are kept as long as the matrix, and do not count once the version of its values changes. They are not
    checked. None are kept for a matrix that was made in inference mode, whose values have no version.

    Args:
        matrix: The CSR matrix ``[m, n]``.
        rows: The factor of every row; infinite where a row has no entry, or any number ``[m]``.
        columns: The factor of every column ``[n]``, likewise.

    Returns:
        The matrix.

    Example:
        >>> import torch
        >>> from graphunlearn.func import csr
        >>> rows, columns = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
        >>> matrix = csr(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([4.0, 6.0]), (2, 2))
        >>> keep_factors(matrix, rows, columns) is matrix
        True
    """
    if not matrix.is_inference():
        zero = rows.new_zeros(())
        finite = [torch.where(x.isfinite(), x, zero) for x in ((rows,) if columns is rows else (rows, columns))]
        _factors[matrix] = matrix._version, Factors(finite[0], finite[-1])
    return matrix


def factors_of(matrix: Tensor) -> Factors | None:
    """Return the factors of the values of a matrix, if they were kept and the values have not changed since.

    Args:
        matrix: The CSR matrix.
    """
    version, factors = _factors.get(matrix, (None, None))
    return factors if factors is not None and version == _version(matrix) else None


def _version(matrix: Tensor) -> int:
    """Return the version of the values of a matrix; tensors made in inference mode have none."""
    return -1 if matrix.is_inference() else matrix._version


def multiply(matrix: Any, x: Tensor) -> Tensor:
    """Return the product of a CSR matrix and a dense one; that of a large matrix is computed by blocks, on a CPU.

    A matrix is divided at its third product. The blocks are kept as long as the matrix and take as much memory as it
    does; where :func:`keep_factors` was called, they hold no values. Tensors that the matrix was made of must not
    change afterwards; its own values may. The product of another object is the one that it defines.

    Args:
        matrix: The CSR matrix ``[m, n]``.
        x: The dense matrix ``[n, k]``.

    Returns:
        The product ``[m, k]``.

    Example:
        >>> import torch
        >>> from graphunlearn.func import csr
        >>> matrix = csr(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([2.0, 2.0]), (2, 2))
        >>> multiply(matrix, torch.tensor([[1.0], [3.0]]))
        tensor([[6.],
                [2.]])
    """
    blocks = _blocks(matrix, x) if _divisible(matrix, x) else None
    found: Tensor = matrix @ x if blocks is None else blocks @ x
    return found


def _divisible(matrix: Any, x: Tensor) -> bool:
    """Return whether a product can be computed by blocks; if not, PyTorch computes it or says what is wrong."""
    return (
        isinstance(matrix, Tensor)
        and matrix.layout is torch.sparse_csr
        and not matrix.requires_grad
        and (x.layout, x.device.type, x.dtype, x.dim()) == (torch.strided, "cpu", matrix.dtype, 2)
        and (matrix.dim(), x.size(0)) == (2, matrix.size(1))
    )


def _blocks(matrix: Tensor, x: Tensor) -> ColumnBlocks | None:
    """Return the blocks of a matrix where they make a product with a dense matrix faster."""
    read, most = x.numel() * x.element_size(), matrix._nnz() // (_PER_ROW * max(matrix.size(0), 1))
    if read <= 2 * BLOCK or most < 2:
        return None
    width = -(-x.size(0) // min(-(-read // BLOCK), most))
    version = _version(matrix)
    known: _State = _known.get(matrix, _State(version, 0, None))
    if known.version != version:
        known = _State(version, 0, None)
    if known.whole < _WHOLE:
        known = known._replace(whole=known.whole + 1)
    elif known.whole == _WHOLE or (known.blocks is not None and known.blocks.width > 2 * width):
        # divided now, or divided before for a dense matrix with much shorter rows
        with torch.inference_mode(False), torch.no_grad():
            blocks = ColumnBlocks.of(matrix, width, factors_of(matrix))
            known = _State(version, _WHOLE + 1, blocks)
    _known[matrix] = known
    return known.blocks
