"""Steps of IFRU, and the solution of its system in few embeddings, which are chosen by their residual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from graphunlearn.func import Product, Solution
from graphunlearn.operators.shared.correction import Tilted, inverse_diagonal

__all__ = ["RowSolution", "Step", "solve_on_rows", "step_on_rows"]

_ROUNDS = 3  # where the budget is short, every round but the last adds half of what is left of it
_EARLY, _LAST = 0.5, 0.2  # share of the residual outside that a round, and the last round, reaches inside


@dataclass(frozen=True)
class RowSolution:
    r"""An approximate solution of :math:`(H + \delta I)x = b` that is zero outside the chosen embeddings.

    Args:
        x: The solution ``[num_parameters]``.
        product: :math:`(H + \delta I)x` in all parameters ``[num_parameters]``.
        nodes: The nodes with the chosen embeddings, sorted ``[num_chosen]``.
        iterations: Number of steps of conjugate gradients in all rounds.
        rounds: Number of rounds.
    """

    x: Tensor
    product: Tensor
    nodes: Tensor
    iterations: int
    rounds: int

    def decrease(self, rhs: Tensor, damping: float, length: float = 1.0) -> float:
        r"""Return the decrease :math:`t\langle b, x\rangle - \frac{t^2}2 x^\top H x` of the undamped model.

        Args:
            rhs: The right-hand side :math:`b`.
            damping: The damping :math:`\delta`.
            length: The length :math:`t` of the step.
        """
        x = self.x.double()
        bend = self.product.double() @ x - damping * x.square().sum()
        return float(length * (rhs.double() @ x) - 0.5 * length**2 * bend)


def solve_on_rows(
    product: Product,
    rhs: Tensor,
    rows: Tensor,
    most: int,
    *,
    damping: float,
    preconditioner: Product | None = None,
    tol: float = 0.05,
    max_iter: int = 40,
) -> RowSolution:
    r"""Solve :math:`(H + \delta I)x = b` in at most ``most`` embeddings.

    The first embeddings are those with the largest right-hand side. The system is solved in them, with the exact
    principal submatrix of :math:`H + \delta I`. Embeddings whose residual in the *full* system is above
    :math:`\tau\|b\| / \sqrt N` are added, the largest first, and the system is solved again from the solution so far;
    :math:`N` is the number of embeddings and :math:`\tau` the tolerance. If no embedding is left above this bound, the
    full system is solved to about :math:`\tau`. Every round stops once the residual in the chosen embeddings is small
    against the residual elsewhere.

    Conjugate gradients on a principal submatrix, started from the solution so far, never raise the quadratic model
    :math:`\frac12 x^\top(H + \delta I)x - \langle b, x\rangle`. The model therefore falls in every round, whatever
    is left out.

    Args:
        product: :math:`v \mapsto Hv` in all parameters.
        rhs: The right-hand side :math:`b` ``[num_parameters]``, not zero.
        rows: The node whose embedding holds each parameter; -1 for shared parameters, which may always change
            ``[num_parameters]``.
        most: Largest number of embeddings that may change.
        damping: The damping :math:`\delta`.
        preconditioner: :math:`r \mapsto M^{-1}r` with a diagonal positive :math:`M`.
        tol: The tolerance :math:`\tau`.
        max_iter: Largest number of steps of conjugate gradients in all rounds.

    Returns:
        The :class:`RowSolution`.

    Source: the rule is that of forward push (Andersen, Chung & Lang, "Local graph partitioning using PageRank
    vectors", FOCS 2006), with conjugate gradients in place of single steps.

    Example:
        >>> import torch
        >>> found = solve_on_rows(lambda v: 3 * v, torch.tensor([4.0, 8.0]), torch.tensor([0, 1]), 1, damping=1.0)
        >>> found.x, found.nodes
        (tensor([0., 2.]), tensor([1]))
    """
    owner = rows + 1  # 0 stands for shared parameters
    num_nodes, norm = int(owner.max()), float(rhs.norm())
    chosen = torch.zeros(num_nodes + 1, dtype=torch.bool, device=rhs.device)
    chosen[0] = True
    x, residual = torch.zeros_like(rhs), rhs
    bound = tol * norm / max(num_nodes, 1) ** 0.5
    iterations, rounds = 0, 0
    while rounds < _ROUNDS and iterations < max_iter:
        left = min(most, num_nodes) - int(chosen[1:].sum())
        added = _largest(residual, owner, chosen, bound, left, whole=rounds == _ROUNDS - 1)
        if rounds and len(added) == 0:
            break
        chosen[added] = True
        rounds += 1
        last = rounds == _ROUNDS or int(chosen[1:].sum()) >= min(most, num_nodes)
        change, residual, steps = _solve_inside(
            product,
            residual,
            chosen[owner].to(rhs.dtype),
            damping=damping,
            preconditioner=preconditioner,
            target=tol * norm,
            share=_LAST if last else _EARLY,
            max_iter=max_iter - iterations,
        )
        x, iterations = x + change, iterations + steps
    return RowSolution(x, product(x) + damping * x, chosen[1:].nonzero().view(-1), iterations, rounds)


@dataclass(frozen=True)
class Step:
    """A step of IFRU, the decrease that the undamped quadratic model predicts for it, and its log."""

    x: Tensor
    predicted: float
    log: dict[str, float]
    converged: bool

    @classmethod
    def of(cls, solution: Solution, predicted: float) -> Step:
        log = {"iterations": solution.iterations, "residual": solution.residual}
        return cls(solution.x, predicted, log, solution.converged)


def step_on_rows(
    tilted: Tilted,
    product: Product,
    theta: Tensor,
    rhs: Tensor,
    damping: float,
    most: int,
    value: float,
    *,
    tol: float,
    max_iter: int,
    line_search: bool,
) -> tuple[Step, Tensor]:
    r"""Return a step in at most ``most`` embeddings that lowers :math:`\Phi`, and the nodes of these embeddings.

    Args:
        tilted: The tilted risk :math:`\Phi`.
        product: :math:`v \mapsto Hv` in all parameters.
        theta: The parameters at the start ``[num_parameters]``.
        rhs: The right-hand side ``[num_parameters]``.
        damping: The damping :math:`\delta`.
        most: Largest number of embeddings that may change.
        value: :math:`\Phi` at the start.
        tol: The tolerance of :func:`solve_on_rows`.
        max_iter: Its largest number of steps.
        line_search: Whether to shorten the step until :math:`\Phi` falls.
    """
    rows = tilted.problem.rows
    assert rows is not None
    inverse = inverse_diagonal(tilted.problem, theta, damping)
    found = solve_on_rows(product, rhs, rows, most, damping=damping, preconditioner=inverse, tol=tol, max_iter=max_iter)
    length = tilted.falling(theta, found.x, value) if line_search else 1.0
    error = float((rhs - length * found.product).norm() / rhs.norm())
    log = {"iterations": found.iterations, "residual": error, "rounds": found.rounds, "length": length}
    return Step(length * found.x, found.decrease(rhs, damping, length), log, True), found.nodes


def _solve_inside(
    product: Product,
    residual: Tensor,
    mask: Tensor,
    *,
    damping: float,
    preconditioner: Product | None,
    target: float,
    share: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, int]:
    """Reduce ``residual`` by conjugate gradients in the parameters of ``mask``, and carry the full residual along.

    The iteration stops at the residual ``target``, or at a share of the residual outside of ``mask``, where solving
    more accurately would not lower the full residual much. Returns the step, the full residual and the iterations.
    """

    def inverse(r: Tensor) -> Tensor:
        return mask * r if preconditioner is None else mask * preconditioner(r)

    x, r = torch.zeros_like(residual), residual
    z = inverse(r)
    p, rz = z, float(r @ z)
    iterations = 0
    while iterations < max_iter:
        inside = float((mask * r).norm())
        if inside <= max(target, share * float(((1 - mask) * r).norm())):
            break
        hp = product(p) + damping * p
        curvature = float(p @ hp)
        if not math.isfinite(curvature):
            raise FloatingPointError("a curvature product returned NaN or infinity")
        if curvature <= 0:  # the matrix is not positive definite along p, so the step length is not defined
            break
        length = rz / curvature
        x, r = x + length * p, r - length * hp
        iterations += 1
        z = inverse(r)
        rz, previous = float(r @ z), rz
        p = z + (rz / previous) * p
    return x, r, iterations


def _largest(residual: Tensor, owner: Tensor, chosen: Tensor, bound: float, room: int, *, whole: bool) -> Tensor:
    """Return the owners not chosen with a residual above ``bound``; if ``room`` is short, the largest.

    Unless ``whole``, the largest fill only half of a room that is short.
    """
    squares = torch.zeros(len(chosen), dtype=torch.float64, device=residual.device)
    squares.index_add_(0, owner, residual.double().square())
    squares[chosen] = 0
    above = int((squares > bound**2).sum())
    most = above if above <= room else room if whole else (room + 1) // 2
    return squares.topk(most).indices
