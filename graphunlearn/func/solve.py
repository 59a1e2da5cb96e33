r"""Iterative solvers of :math:`(H + \delta I)\,x = b`, which use a symmetric :math:`H` only through products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError
from graphunlearn.func.hessian import Product

__all__ = ["KrylovSpace", "Solution", "conjugate_gradients", "lanczos", "largest_eigenvalue", "lissa"]

_ROUNDINGS = 8  # rounding errors of one product, in units of the machine precision times the norm of the product


Dot = Callable[[Tensor, Tensor], float]
"""An inner product of two flat vectors."""


def _dot(a: Tensor, b: Tensor) -> float:
    return float(a @ b)


def _length(v: Tensor, dot: Dot | None) -> float:
    return float(v.norm()) if dot is None else math.sqrt(dot(v, v))


@dataclass(frozen=True)
class Solution:
    r"""An approximate solution of :math:`(H + \delta I)x = b` and its accuracy.

    Args:
        x: The solution ``[n]``.
        residual: The relative residual :math:`\|b - (H + \delta I)x\| / \|b\|`.
        iterations: Number of steps, of one product each.
        converged: Whether the residual is at most the tolerance, or small enough by the rule of the caller.
    """

    x: Tensor
    residual: float
    iterations: int
    converged: bool


def conjugate_gradients(
    product: Product,
    b: Tensor,
    *,
    damping: float | Tensor = 0.0,
    preconditioner: Product | None = None,
    tol: float = 1e-3,
    max_iter: int = 100,
    x0: Tensor | None = None,
    dot: Dot | None = None,
    enough: Callable[[Tensor], bool] | None = None,
) -> Solution:
    r"""Solve :math:`(H + \delta I)x = b` by preconditioned conjugate gradients.

    Args:
        product: :math:`v \mapsto Hv`.
        b: Right-hand side ``[n]``.
        damping: The damping :math:`\delta \ge 0`: one number, or one per coordinate ``[n]``.
        preconditioner: :math:`r \mapsto M^{-1} r` with a symmetric positive definite :math:`M`.
        tol: Largest relative residual at which the iteration stops.
        max_iter: Largest number of steps, of one product each. The residual is carried along; one more product computes
            it from its definition where rounding errors may have moved it by a tenth of the tolerance.
        x0: Starting point ``[n]``; zero by default.
        dot: Inner product of two vectors, such as one of vectors whose entries several processes hold.
        enough: Whether the iteration may stop at a residual above the tolerance, called with :math:`M^{-1}r`, the
            estimate of what the solution lacks; the solution then counts as converged.

    Returns:
        The :class:`Solution`. If the iteration does not converge, ``converged`` is false and no error is raised.

    Raises:
        FloatingPointError: ``b`` is not finite, or a product returned NaN or infinity.

    Source: Hestenes & Stiefel 1952; Saad, "Iterative Methods for Sparse Linear Systems", 2nd ed., alg. 9.1.

    Example:
        >>> import torch
        >>> conjugate_gradients(lambda v: 3 * v, torch.tensor([4.0, 8.0]), damping=1.0).x
        tensor([1., 2.])
    """
    inner = _dot if dot is None else dot
    norm = _length(b, dot)
    if norm == 0:
        return Solution(torch.zeros_like(b), 0.0, 0, True)

    def damped(v: Tensor) -> Tensor:
        return product(v) + damping * v

    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - damped(x)
    z = r if preconditioner is None else preconditioner(r)
    p, rz = z.clone(), inner(r, z)
    iterations, rounding = 0, 0.0
    settled = False
    while _length(r, dot) > tol * norm and iterations < max_iter:
        settled = enough is not None and enough(z)
        if settled:
            break
        hp = damped(p)
        curvature = inner(p, hp)
        if not math.isfinite(curvature):
            raise FloatingPointError("a curvature product returned NaN or infinity")
        if curvature <= 0:  # the matrix is not positive definite along p, so the step length is not defined
            break
        step = rz / curvature
        x.add_(p, alpha=step)
        r.sub_(hp, alpha=step)
        rounding += abs(step) * _length(hp, dot)
        iterations += 1
        z = r if preconditioner is None else preconditioner(r)
        rz, previous = inner(r, z), rz
        p.mul_(rz / previous).add_(z)
    # The recursive residual r can keep falling after rounding errors have stopped the improvement of x.
    trusted = _ROUNDINGS * torch.finfo(b.dtype).eps * rounding <= 0.1 * tol * norm
    residual = _length(r if trusted else b - damped(x), dot) / norm
    if not math.isfinite(residual):
        raise FloatingPointError("the right-hand side or a curvature product is NaN or infinite")
    return Solution(x, residual, iterations, settled or residual <= tol)


@dataclass(frozen=True)
class KrylovSpace:
    r"""An orthonormal basis of the Krylov space :math:`\mathrm{span}\{b, Hb, \dots, H^{k-1}b\}`.

    With the tridiagonal matrix :math:`T = V^\top H V`, the solution for the damping :math:`\delta` is
    :math:`x_\delta = \|b\|\, V (T + \delta I)^{-1} e_1`. The Krylov space does not depend on :math:`\delta`, so the
    solutions for all dampings take the products only once.

    Args:
        basis: The rows of :math:`V^\top` ``[k, n]``.
        diagonal: The diagonal of :math:`T` ``[k]`` (float64).
        off_diagonal: The entries of :math:`T` beside the diagonal ``[k]`` (float64). The last one is the coupling to
            the next basis vector, which is not in the basis.
        norm: The norm :math:`\|b\|`.
    """

    basis: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    norm: float

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant up to rounding errors, so that further products would not enlarge it."""
        scale = torch.cat([self.diagonal, self.off_diagonal]).abs().max()
        return float(self.off_diagonal[-1]) <= 1e-6 * float(scale)

    @property
    def tridiagonal(self) -> Tensor:
        """The projected matrix :math:`T` ``[k, k]`` (float64)."""
        inner = self.off_diagonal[:-1]
        return torch.diag(self.diagonal) + torch.diag(inner, 1) + torch.diag(inner, -1)

    def coefficients(self, damping: float, *, absolute: bool = False) -> Tensor:
        r"""Return the coordinates :math:`\|b\|(T + \delta I)^{-1} e_1` of the solution in the basis.

        Args:
            damping: The damping :math:`\delta`.
            absolute: Whether to replace :math:`T` by :math:`|T|`, which has the absolute values of the eigenvalues.

        Returns:
            The coordinates ``[k]`` (float64).
        """
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        damped = (values.abs() if absolute else values) + damping
        return self.norm * (vectors @ (vectors[0] / damped))

    def solve(self, damping: float, tol: float = 1e-3, *, absolute: bool = False) -> Solution:
        r"""Return the solution for one damping.

        Without ``absolute``, it equals the result of conjugate gradients after :math:`k` steps.

        Args:
            damping: The damping :math:`\delta`.
            tol: Largest relative residual at which the solution counts as converged.
            absolute: Whether to solve :math:`(|H| + \delta I)x = b` instead, with the absolute values of the
                eigenvalues. The solution is then a descent direction even if :math:`H` is indefinite.

        Returns:
            The :class:`Solution`.

        Source: for ``absolute``, Dauphin et al., "Identifying and attacking the saddle point problem", NeurIPS 2014.
        """
        y = self.coefficients(damping, absolute=absolute)
        residual = self.residual(damping, absolute=absolute)
        x = y.to(self.basis.dtype).to(self.basis.device) @ self.basis
        return Solution(x, residual, len(y), residual <= tol)

    def residual(self, damping: float, *, absolute: bool = False) -> float:
        r"""Return the relative residual :math:`\beta_k |y_k| / \|b\|` of :meth:`solve`.

        With ``absolute``, this residual is not known, because there are no products with :math:`|H|`. The result is
        then the relative change :math:`\|x_k - x_{k-1}\| / \|x_k\|` of the solution by the last product, or 1 after a
        single product. If the space is exhausted, the solution is exact and the formula above holds.

        Args:
            damping: The damping :math:`\delta`.
            absolute: As in :meth:`solve`.
        """
        y = self.coefficients(damping, absolute=absolute)
        if not absolute or self.exhausted:
            return float(self.off_diagonal[-1] * y[-1].abs()) / self.norm
        if len(y) == 1:
            return 1.0
        before = KrylovSpace(self.basis[:-1], self.diagonal[:-1], self.off_diagonal[:-1], self.norm)
        y[:-1] -= before.coefficients(damping, absolute=True)
        return float(y.norm() / self.coefficients(damping, absolute=True).norm())

    def predicted_decrease(self, damping: float, *, absolute: bool = False) -> float:
        r"""Return :math:`\langle b, x_\delta\rangle - \frac12 x_\delta^\top H x_\delta`, without a further product.

        Args:
            damping: The damping :math:`\delta`.
            absolute: As in :meth:`solve`.
        """
        y = self.coefficients(damping, absolute=absolute)
        return float(self.norm * y[0] - 0.5 * y @ (self.tridiagonal @ y))


def lanczos(
    product: Product,
    b: Tensor,
    *,
    damping: float,
    tol: float = 1e-3,
    max_iter: int = 40,
    absolute: bool = False,
    dot: Dot | None = None,
) -> KrylovSpace:
    r"""Return the Krylov space of :math:`(H, b)` in which the system with ``damping`` is solved to ``tol``.

    For larger dampings, the residual is at most as large. Every new basis vector is orthogonalised against all earlier
    ones, so the method is meant for a few dozen vectors.

    Args:
        product: :math:`v \mapsto Hv`.
        b: Right-hand side ``[n]``, not zero.
        damping: The smallest damping for which a solution is needed.
        tol: Largest relative residual at which the iteration stops.
        max_iter: Largest number of products, which is also the largest number of basis vectors.
        absolute: Whether the residual is that of the system with :math:`|H|`; see :meth:`KrylovSpace.solve`.
        dot: Inner product of two vectors, such as one of vectors whose entries several processes hold.

    Returns:
        The Krylov space.

    Raises:
        ValueError: ``b`` is zero.
        FloatingPointError: A product returned NaN or infinity.

    Source: Lanczos 1950; Frommer & Maass, "Fast CG-based methods for Tikhonov–Phillips regularization", 1999.

    Example:
        >>> import torch
        >>> space = lanczos(lambda v: torch.tensor([1.0, 3.0]) * v, torch.tensor([2.0, 4.0]), damping=1.0, tol=1e-6)
        >>> [[round(float(x), 3) for x in space.solve(damping).x] for damping in (1.0, 5.0)]
        [[1.0, 1.0], [0.333, 0.5]]
    """
    inner = _dot if dot is None else dot
    norm = _length(b, dot)
    if norm == 0:
        raise ArgumentError("b", "not be zero", "a zero right-hand side")
    max_iter = min(max_iter, b.numel())
    basis = b.new_empty(max_iter, b.numel())
    basis[0] = b / norm
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    rounding = 8 * torch.finfo(b.dtype).eps
    for k in range(max_iter):
        w = product(basis[k])
        diagonal.append(inner(basis[k], w))
        if not math.isfinite(diagonal[-1]):
            raise FloatingPointError("a curvature product returned NaN or infinity")
        w = w - diagonal[-1] * basis[k]
        if k:
            w = w - off_diagonal[-1] * basis[k - 1]
        known = basis[: k + 1]  # with rounding errors, the recurrence alone loses orthogonality
        along = known @ w if dot is None else w.new_tensor([dot(v, w) for v in known])
        w = w - along @ known
        off_diagonal.append(_length(w, dot))
        small = torch.tensor(diagonal, dtype=torch.float64), torch.tensor(off_diagonal, dtype=torch.float64)
        space = KrylovSpace(basis[: k + 1], *small, norm)
        exhausted = off_diagonal[-1] <= rounding * max(map(abs, diagonal + off_diagonal))
        if exhausted or k + 1 == max_iter or space.residual(damping, absolute=absolute) <= tol:
            break
        basis[k + 1] = w / off_diagonal[-1]
    return space


def largest_eigenvalue(product: Product, like: Tensor, *, steps: int = 10, seed: int = 0) -> float:
    r"""Estimate the largest absolute eigenvalue of a symmetric :math:`H` by power iteration, from below.

    Args:
        product: :math:`v \mapsto Hv`.
        like: A vector of the size, type and device of :math:`v` ``[n]``.
        steps: Number of products.
        seed: Seed of the first vector.

    Returns:
        The estimate :math:`\|Hv\| / \|v\|` for the last vector.

    Example:
        >>> import torch
        >>> round(largest_eigenvalue(lambda v: torch.tensor([1.0, 3.0]) * v, torch.zeros(2)), 3)
        3.0
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(like.numel(), generator=generator, dtype=torch.float64).to(like)
    value = 0.0
    for _ in range(steps):
        v = product(v / v.norm())
        value = float(v.norm())
        if value == 0:
            break
    return value


def lissa(product: Product, b: Tensor, scale: float, *, damping: float = 0.0, iterations: int = 100) -> Solution:
    r"""Solve :math:`(H + \delta I)x = b` by the fixed-point iteration :math:`h \leftarrow b + h - (H + \delta I)h / s`.

    The solution is :math:`h / s`. The iteration converges if all eigenvalues of :math:`H + \delta I` are positive and
    below :math:`2s`; an error along the eigenvalue :math:`\lambda` shrinks by :math:`|1 - \lambda / s|` per product.

    Args:
        product: :math:`v \mapsto Hv`.
        b: Right-hand side ``[n]``.
        scale: The scale :math:`s`.
        damping: The damping :math:`\delta`.
        iterations: Number of iterations, of one product each; the residual takes one more.

    Returns:
        The :class:`Solution`; it counts as converged at a residual of .01.

    Source: Agarwal, Bullins & Hazan, "Second-Order Stochastic Optimization for Machine Learning in Linear Time", JMLR
    2017, without sampling.

    Example:
        >>> import torch
        >>> lissa(lambda v: 3 * v, torch.tensor([4.0, 8.0]), 4.0, damping=1.0).x
        tensor([1., 2.])
    """
    h = b.clone()
    for _ in range(iterations):
        h = b + h - (product(h) + damping * h) / scale
    x, norm = h / scale, float(b.norm())
    residual = float((b - product(x) - damping * x).norm()) / norm if norm else 0.0
    return Solution(x, residual, iterations, residual <= 1e-2)
