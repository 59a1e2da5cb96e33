r"""Solvers for :math:`(H + \delta I)\,x = b` with a symmetric :math:`H` known by its products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError
from graphunlearn.func.hessian import Product

__all__ = ["KrylovSpace", "Solution", "conjugate_gradients", "lanczos"]


@dataclass(frozen=True)
class Solution:
    r"""A solution with its honesty: ``residual`` is :math:`\|b - (H + \delta I)x\| / \|b\|`.

    Args:
        x: The solution ``[n]``.
        residual: Relative residual, recomputed from the definition where it comes from CG.
        iterations: Steps, of one product each.
        converged: Whether the residual is within the tolerance asked for.
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
) -> Solution:
    r"""Solve :math:`(H + \delta I)x = b` by preconditioned conjugate gradients.

    Args:
        product: :math:`v \mapsto Hv`.
        b: Right-hand side ``[n]``.
        damping: :math:`\delta \ge 0`, a number or one per coordinate ``[n]``.
        preconditioner: :math:`r \mapsto M^{-1} r`, symmetric positive definite.
        tol: Stop when :math:`\|r\| \le` ``tol`` :math:`\cdot \|b\|`.
        max_iter: At most this many steps, of one product each; the residual costs one more.
        x0: Starting point ``[n]``, zero by default.

    Returns:
        The :class:`Solution`; never raises for lack of convergence, which ``converged`` tells.

    Raises:
        FloatingPointError: ``b`` is not finite, or a product returned NaN or infinity.

    Source: Hestenes & Stiefel 1952; Saad, "Iterative Methods for Sparse Linear Systems", 2nd ed., alg. 9.1.

    Example:
        >>> import torch
        >>> conjugate_gradients(lambda v: 3 * v, torch.tensor([4.0, 8.0]), damping=1.0).x
        tensor([1., 2.])
    """
    norm = float(b.norm())
    if norm == 0:
        return Solution(torch.zeros_like(b), 0.0, 0, True)

    def damped(v: Tensor) -> Tensor:
        return product(v) + damping * v

    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - damped(x)
    z = r if preconditioner is None else preconditioner(r)
    p, rz = z.clone(), float(r @ z)
    iterations = 0
    while float(r.norm()) > tol * norm and iterations < max_iter:
        hp = damped(p)
        curvature = float(p @ hp)
        if not math.isfinite(curvature):
            raise FloatingPointError("a curvature product returned NaN or infinity")
        if curvature <= 0:  # a direction without curvature: nothing more can be gained along it
            break
        step = rz / curvature
        x.add_(p, alpha=step)
        r.sub_(hp, alpha=step)
        iterations += 1
        z = r if preconditioner is None else preconditioner(r)
        rz, previous = float(r @ z), rz
        p.mul_(rz / previous).add_(z)
    residual = float((b - damped(x)).norm()) / norm  # the one carried along keeps falling where rounding stalls x
    if not math.isfinite(residual):
        raise FloatingPointError("the right-hand side or a curvature product is NaN or infinite")
    return Solution(x, residual, iterations, residual <= tol)


@dataclass(frozen=True)
class KrylovSpace:
    r"""An orthonormal basis of :math:`\mathrm{span}\{b, Hb, \dots, H^{k-1}b\}` that solves for *every* damping at once.

    With :math:`V^\top H V = T` tridiagonal, :math:`x_\delta = \|b\|\, V (T + \delta I)^{-1} e_1`: the Krylov space does
    not depend on :math:`\delta`, so a whole damping curve costs one set of products.

    Args:
        basis: Rows :math:`V^\top` ``[k, n]``.
        diagonal: Of :math:`T` ``[k]`` (float64).
        off_diagonal: Of :math:`T` ``[k]`` (float64); the last one couples to the part that is left out.
        norm: :math:`\|b\|`.
    """

    basis: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    norm: float

    @property
    def exhausted(self) -> bool:
        """Whether another product would add nothing, to rounding."""
        scale = torch.cat([self.diagonal, self.off_diagonal]).abs().max()
        return float(self.off_diagonal[-1]) <= 1e-6 * float(scale)

    @property
    def tridiagonal(self) -> Tensor:
        """The projected matrix :math:`T` ``[k, k]`` (float64)."""
        inner = self.off_diagonal[:-1]
        return torch.diag(self.diagonal) + torch.diag(inner, 1) + torch.diag(inner, -1)

    def coefficients(self, damping: float, *, absolute: bool = False) -> Tensor:
        r"""Return :math:`\|b\|(T + \delta I)^{-1} e_1` ``[k]`` (float64), with :math:`|T|` for ``absolute``."""
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        damped = (values.abs() if absolute else values) + damping
        return self.norm * (vectors @ (vectors[0] / damped))

    def solve(self, damping: float, tol: float = 1e-3, *, absolute: bool = False) -> Solution:
        r"""Return the solution for one damping; without ``absolute`` it is what CG gives after ``k`` iterations.

        ``absolute`` solves :math:`(|H| + \delta I)x = b` with the absolute values of the eigenvalues: a descent
        direction where :math:`H` is indefinite (Dauphin et al., "Identifying and attacking the saddle point problem",
        NeurIPS 2014).
        """
        y = self.coefficients(damping, absolute=absolute)
        residual = self.residual(damping, absolute=absolute)
        x = y.to(self.basis.dtype).to(self.basis.device) @ self.basis
        return Solution(x, residual, len(y), residual <= tol)

    def residual(self, damping: float, *, absolute: bool = False) -> float:
        r"""Return the relative residual :math:`\beta_k |y_k| / \|b\|` of :meth:`solve`.

        :math:`|H|x` is not known, so with ``absolute`` it is :math:`\|x_k - x_{k-1}\| / \|x_k\|`, what the last product
        changed (1 for a single product), unless the space is exhausted and the solution exact.
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
        r"""Return :math:`\langle b, x_\delta\rangle - \frac12 x_\delta^\top H x_\delta`, without another product."""
        y = self.coefficients(damping, absolute=absolute)
        return float(self.norm * y[0] - 0.5 * y @ (self.tridiagonal @ y))


def lanczos(
    product: Product, b: Tensor, *, damping: float, tol: float = 1e-3, max_iter: int = 40, absolute: bool = False
) -> KrylovSpace:
    r"""Build the Krylov space of :math:`(H, b)` until the system with ``damping`` is solved to ``tol``.

    Larger dampings are then solved at least as well. Reorthogonalised fully: a few dozen vectors at most.

    Args:
        product: :math:`v \mapsto Hv`.
        b: Right-hand side ``[n]``, not zero.
        damping: The smallest damping that will be asked for.
        tol: Relative residual at which to stop.
        max_iter: At most this many products (and basis vectors).
        absolute: Whether the system to be solved is the one with :math:`|H|`.

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
    norm = float(b.norm())
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
        diagonal.append(float(basis[k] @ w))
        if not math.isfinite(diagonal[-1]):
            raise FloatingPointError("a curvature product returned NaN or infinity")
        w = w - diagonal[-1] * basis[k]
        if k:
            w = w - off_diagonal[-1] * basis[k - 1]
        w = w - (basis[: k + 1] @ w) @ basis[: k + 1]  # rounding lets the recurrence lose orthogonality
        off_diagonal.append(float(w.norm()))
        small = torch.tensor(diagonal, dtype=torch.float64), torch.tensor(off_diagonal, dtype=torch.float64)
        space = KrylovSpace(basis[: k + 1], *small, norm)
        exhausted = off_diagonal[-1] <= rounding * max(map(abs, diagonal + off_diagonal))
        if exhausted or k + 1 == max_iter or space.residual(damping, absolute=absolute) <= tol:
            break
        basis[k + 1] = w / off_diagonal[-1]
    return space
