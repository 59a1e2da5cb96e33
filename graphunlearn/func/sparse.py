"""Sparse products in CSR for propagation and for the scores of pairs.

All models and operators use three products, which are differentiable any number of times:

* :func:`spmm` multiplies a fixed symmetric sparse matrix by a dense matrix (propagation);
* :meth:`PairPattern.dots` computes the dot products of given pairs of rows (scores), a sampled dense–dense product;
* :meth:`PairPattern.matmul` is the transposed map, which sums one value per pair into rows.

The alternative, gathering two rows of width :math:`d` for each of :math:`S` pairs, moves :math:`2 S d` floats through
memory. On a CPU with a million pairs, it is 15–40 times slower.
"""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphunlearn.func.column_blocks import multiply
from graphunlearn.func.compressed import csr, ranges

__all__ = ["PairPattern", "spmm"]


class _Box:
    """A container of a tensor, which the transforms of ``torch.func`` do not look into."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix


class _SymmetricProduct(torch.autograd.Function):
    """``A @ x`` for a symmetric CSR matrix; its derivatives in both modes are the same product.

    The matrix is passed in a :class:`_Box`, because functional transforms wrap all tensor arguments and cannot wrap a
    CSR tensor.
    """

    @staticmethod
    def forward(box: _Box, x: Tensor) -> Tensor:
        return multiply(box.matrix, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[_Box, Tensor], output: Tensor) -> None:
        ctx.box = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _SymmetricProduct.apply(ctx.box, grad)

    @staticmethod
    def jvp(ctx: Any, _: None, x_t: Tensor) -> Tensor:
        return _SymmetricProduct.apply(ctx.box, x_t)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[None, int], box: _Box, x: Tensor) -> tuple[Tensor, int]:
        batched = x.movedim(in_dims[1], -1)
        out = _SymmetricProduct.apply(box, batched.flatten(1))
        return out.view(-1, *batched.shape[1:]), batched.dim() - 1


def spmm(matrix: Tensor, x: Tensor) -> Tensor:
    r"""Return :math:`A x` for a *symmetric* sparse CSR matrix, differentiable in ``x`` any number of times.

    Unlike ``torch.sparse.mm``, the product works under ``torch.func.jvp``, ``vjp``, ``grad`` and ``vmap`` as well as in
    a backward pass.

    Args:
        matrix: The symmetric CSR matrix :math:`A` ``[num_nodes, num_nodes]``; it is multiplied by :func:`multiply`.
        x: The dense matrix :math:`x` ``[num_nodes, dim]``.

    Returns:
        The product ``[num_nodes, dim]``.

    Example:
        >>> import torch
        >>> matrix = csr(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([2.0, 2.0]), (2, 2))
        >>> spmm(matrix, torch.tensor([[1.0], [3.0]]))
        tensor([[6.],
                [2.]])
    """
    return _SymmetricProduct.apply(_Box(matrix), x) if _differentiating() else multiply(matrix, x)


def _differentiating() -> bool:
    """Whether a derivative may be needed; otherwise autograd is avoided, since it costs more than a small product."""
    return torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(pattern: PairPattern, a: Tensor, b: Tensor) -> Tensor:
        return pattern._dots(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[PairPattern, Tensor, Tensor], output: Tensor) -> None:
        ctx.pattern, a, b = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        _, need_a, need_b = ctx.needs_input_grad
        return (
            None,
            ctx.pattern.matmul(grad, b) if need_a else None,
            ctx.pattern.transposed.matmul(grad, a) if need_b else None,
        )

    @staticmethod
    def jvp(ctx: Any, _: None, a_t: Tensor | None, b_t: Tensor | None) -> Tensor:
        a, b = ctx.saved_tensors
        parts = [ctx.pattern.dots(a_t, b)] if a_t is not None else []
        parts += [ctx.pattern.dots(a, b_t)] if b_t is not None else []
        return sum(parts[1:], parts[0])


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(pattern: PairPattern, values: Tensor, b: Tensor) -> Tensor:
        return pattern._matmul(values, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[PairPattern, Tensor, Tensor], output: Tensor) -> None:
        ctx.pattern, values, b = inputs
        ctx.save_for_backward(values, b)
        ctx.save_for_forward(values, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        values, b = ctx.saved_tensors
        _, need_values, need_b = ctx.needs_input_grad
        return (
            None,
            ctx.pattern.dots(grad, b) if need_values else None,
            ctx.pattern.transposed.matmul(values, grad) if need_b else None,
        )

    @staticmethod
    def jvp(ctx: Any, _: None, values_t: Tensor | None, b_t: Tensor | None) -> Tensor:
        values, b = ctx.saved_tensors
        parts = [ctx.pattern.matmul(values_t, b)] if values_t is not None else []
        parts += [ctx.pattern.matmul(values, b_t)] if b_t is not None else []
        return sum(parts[1:], parts[0])


class PairPattern:
    r"""Pairs of rows of two matrices :math:`a \in R^{m \times d}` and :math:`b \in R^{n \times d}`.

    For pairs :math:`(r_s, c_s)`, which may repeat,

    - ``dots(a, b)[s]`` is :math:`\langle a_{r_s}, b_{c_s} \rangle`,
    - ``matmul(y, b)`` is :math:`\sum_s y_s\, e_{r_s} b_{c_s}^\top`.

    Both are differentiable in their dense arguments any number of times, in reverse mode and in forward mode.

    Args:
        rows: The row :math:`r_s` of every pair ``[num_pairs]``.
        cols: The row :math:`c_s` of every pair ``[num_pairs]``.
        size: Numbers of rows :math:`m` and :math:`n`.

    Example:
        >>> import torch
        >>> pattern = PairPattern(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1]), (2, 2))
        >>> pattern.dots(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]))
        tensor([4., 6., 8.])
    """

    def __init__(self, rows: Tensor, cols: Tensor, size: tuple[int, int]) -> None:
        self.rows, self.cols, self.size = rows, cols, size
        self._transposed: PairPattern | None = None
        self._source: weakref.ref[PairPattern] | None = None  # weak: a cycle would outlive the step that needed it

    @cached_property
    def _order(self) -> Tensor | None:
        """The permutation that sorts the pairs by row; ``None`` if they are already sorted."""
        if bool((self.rows[1:] >= self.rows[:-1]).all()):
            return None
        return torch.argsort(self.rows.int(), stable=True).int()

    @property
    def _dense(self) -> bool:
        """Whether there are so many pairs per cell that dense products are faster, and take little more memory."""
        return 2 * self.rows.numel() > self.size[0] * self.size[1]

    @cached_property
    def _cell(self) -> Tensor:
        """The cell of every pair, row by row."""
        return self.rows.long() * self.size[1] + self.cols

    @cached_property
    def _rowptr(self) -> Tensor:
        rowptr = torch.zeros(self.size[0] + 1, dtype=torch.int32, device=self.rows.device)
        torch.cumsum(torch.bincount(self.rows, minlength=self.size[0]), 0, out=rowptr[1:])
        return rowptr

    @cached_property
    def _col(self) -> Tensor:
        return self.cols.int() if self._order is None else self.cols.int().index_select(0, self._order)

    @cached_property
    def _rank(self) -> Tensor:
        assert self._order is not None
        rank = torch.empty_like(self._order)
        rank[self._order] = torch.arange(self._order.numel(), dtype=rank.dtype, device=rank.device)
        return rank

    @property
    def transposed(self) -> PairPattern:
        """The same pairs with rows and columns exchanged."""
        source = None if self._source is None else self._source()
        if source is not None:
            return source
        if self._transposed is None:
            self._transposed = PairPattern(self.cols, self.rows, (self.size[1], self.size[0]))
            self._transposed._source = weakref.ref(self)
        return self._transposed

    def positions(self, rows: Tensor) -> Tensor:
        """Return the positions of the pairs in the given rows; the running time is proportional to their number.

        Args:
            rows: Row numbers ``[num]``.

        Returns:
            Positions of pairs, row by row ``[num_found]``.
        """
        start = self._rowptr[rows].long()
        index = ranges(start, self._rowptr[rows + 1].long() - start)
        return index if self._order is None else self._order.index_select(0, index).long()

    def matrix(self, values: Tensor) -> Tensor:
        """Return the CSR matrix with one entry per pair; repeated pairs give repeated entries.

        Args:
            values: The values of the entries ``[num_pairs]``.

        Returns:
            The matrix ``[size[0], size[1]]``.
        """
        if self._order is not None:
            values = values.index_select(0, self._order)  # several times as fast as indexing
        return csr(self._rowptr, self._col, values, self.size)

    def _sums(self, values: Tensor) -> Tensor | None:
        """Return :meth:`matrix` as a dense matrix where that is faster; ``None`` where it is not."""
        if not self._dense or values.is_cuda:  # on CUDA, the order of the sums would change from run to run
            return None
        sums = torch.bincount(self._cell, values, minlength=self.size[0] * self.size[1])
        return sums.view(self.size).to(values.dtype)  # as it is, unless there are no pairs or values are half precise

    def _matmul(self, values: Tensor, b: Tensor) -> Tensor:
        sums = self._sums(values)
        return (self.matrix(values) if sums is None else sums) @ b

    def _dots(self, a: Tensor, b: Tensor) -> Tensor:
        if self._dense:
            return (a @ b.t()).flatten().index_select(0, self._cell)
        zeros = csr(self._rowptr, self._col, a.new_zeros(self._col.numel()), self.size)
        dots = torch.sparse.sampled_addmm(zeros, a, b.t(), beta=0.0).values()
        return dots if self._order is None else dots.index_select(0, self._rank)

    def dots(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the dot product of the two rows of every pair.

        Args:
            a: The matrix :math:`a` ``[size[0], dim]``.
            b: The matrix :math:`b` ``[size[1], dim]``.

        Returns:
            The dot products ``[num_pairs]``.
        """
        return _Dots.apply(self, a, b) if _differentiating() else self._dots(a, b)

    def matmul(self, values: Tensor, b: Tensor) -> Tensor:
        """Return the product of :meth:`matrix` and a dense matrix.

        Args:
            values: One value per pair ``[num_pairs]``.
            b: The matrix :math:`b` ``[size[1], dim]``.

        Returns:
            The product ``[size[0], dim]``.
        """
        return _Matmul.apply(self, values, b) if _differentiating() else self._matmul(values, b)

    def both(self, values: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products of :meth:`matrix` with one matrix, and of its transpose with another.

        Args:
            values: One value per pair ``[num_pairs]``.
            a: The matrix :math:`a` ``[size[0], dim]``, which the transpose is multiplied by.
            b: The matrix :math:`b` ``[size[1], dim]``.

        Returns:
            The products ``[size[0], dim]`` and ``[size[1], dim]``.

        Example:
            >>> import torch
            >>> pattern = PairPattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
            >>> left, right = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
            >>> pattern.both(torch.tensor([1.0, 10.0]), left, right)
            (tensor([[ 4.],
                    [30.]]), tensor([[20.],
                    [ 1.]]))
        """
        sums = None if _differentiating() else self._sums(values)
        if sums is None:
            return self.matmul(values, b), self.transposed.matmul(values, a)
        return sums @ b, sums.t() @ a
