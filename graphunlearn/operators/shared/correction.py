r"""Newton corrections of the tilted risk :math:`\Phi`, and a choice of the damping that needs no labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import KrylovSpace, Product, Solution
from graphunlearn.func.blocks import inner
from graphunlearn.nn.risk import LinearRisk, risk_of
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.shared.ridge import ridge_of
from graphunlearn.operators.shared.right_hand_side import Problem

__all__ = ["Tilted", "adam_quadratic", "equivalent_ridge", "inverse_diagonal", "sampled_ridge"]

_HALVINGS = 6
_TRUST, RAISES = 0.5, 10  # required share of the predicted decrease; largest number of damping increases


@dataclass
class Tilted:
    r"""The tilted risk :math:`\Phi(\theta) = R(\theta; D_k, G_k) - \langle\nabla R(\hat\theta; D, G), \theta\rangle`.

    Retraining minimises the retained risk. It is assumed to stop early like the training of the original, with the
    same remaining gradient :math:`\nabla R(\hat\theta; D, G)`. The retrained model then satisfies
    :math:`\nabla\Phi = 0`.
    """

    problem: Problem
    tilt: Tensor

    def value(self, theta: Tensor) -> float:
        r"""Return :math:`\Phi(\theta)`."""
        return self.problem.new.value(theta) - inner(self.tilt, theta)

    def gradient(self, theta: Tensor) -> Tensor:
        r"""Return :math:`\nabla\Phi(\theta)` in the free parameters ``[num_parameters]``."""
        return self.problem.restrict(self.problem.new.gradient(theta)) - self.tilt

    def falling(self, theta: Tensor, step: Tensor, value: float) -> float:
        r"""Return the largest of 1, 1/2, 1/4, ... by which a step lowers :math:`\Phi` below ``value``; else 0."""
        lengths = (0.5**k for k in range(_HALVINGS + 1))
        return next((length for length in lengths if self.value(theta + length * step) < value), 0.0)

    def left(self, theta: Tensor, slope: Tensor) -> float:
        r"""Return :math:`\|\nabla\Phi(\theta)\|` as a multiple of the norm of an earlier gradient ``slope``."""
        return float(self.gradient(theta).norm() / slope.norm())

    def least_gradient(
        self, theta: Tensor, slope: Tensor, space: KrylovSpace, damping: float, absolute: bool
    ) -> tuple[float, float]:
        r"""Return the damping whose step from ``theta`` leaves the smallest :math:`\|\nabla\Phi\|`, and :meth:`left`.

        The damping is raised by factors of three until the norm no longer falls. Retraining ends where
        :math:`\nabla\Phi = 0`, so the norm tells without labels how far a step is from that. No step leaves 1.
        """
        best, chosen = math.inf, damping
        for _ in range(RAISES + 1):
            left = self.left(theta + space.solve(damping, absolute=absolute).x, slope)
            if left >= best:
                break
            best, chosen, damping = left, damping, 3 * damping
        return chosen, best

    def curve(self, theta: Tensor, space: KrylovSpace, dampings: list[float], absolute: bool) -> dict[str, list[float]]:
        r"""Return quality measures of the step from ``theta`` for every damping, without a retrained model.

        ``rho`` is the ratio of the true to the predicted decrease of :math:`\Phi`, ``residual`` is
        :math:`\|\nabla\Phi(\theta')\| / \|\nabla\Phi(\theta)\|`, and ``plain_residual`` is
        :math:`\|\nabla R(\theta'; D_k, G_k)\| / \|\nabla R(\theta; D_k, G_k)\|`.
        """
        before, slope = self.value(theta), self.gradient(theta)
        out: dict[str, list[float]] = {"damping": dampings, "rho": [], "residual": [], "plain_residual": []}
        for damping in dampings:
            moved = theta + space.solve(damping, absolute=absolute).x
            gradient = self.gradient(moved)
            decrease = space.predicted_decrease(damping, absolute=absolute)
            out["rho"].append((before - self.value(moved)) / decrease)
            out["residual"].append(float(gradient.norm() / slope.norm()))
            out["plain_residual"].append(float((gradient + self.tilt).norm() / (slope + self.tilt).norm()))
        return out

    def trusted(self, theta: Tensor, space: KrylovSpace, damping: float, absolute: bool) -> tuple[float, float]:
        r"""Return the smallest damping with a trusted step, and its ρ; ``damping`` is raised by factors of three.

        As in trust-region methods, a step is trusted if :math:`\Phi` falls by at least half of the decrease that the
        quadratic model predicts. If no step is trusted, the last damping, with the shortest step, is returned.
        """
        before, rho = self.value(theta), -math.inf
        for number in range(RAISES + 1):
            damping *= 3.0 if number else 1.0
            after = self.value(theta + space.solve(damping, absolute=absolute).x)
            rho = (before - after) / max(space.predicted_decrease(damping, absolute=absolute), 1e-30)
            if rho >= _TRUST:
                break
        return damping, rho


def equivalent_ridge(problem: Problem, tilt: Tensor) -> tuple[float, float]:
    r"""Return the ridge that is equivalent to early stopping, and the quality of this fit.

    A minimiser of :math:`R + \frac\delta2\|\theta\|^2` satisfies :math:`\nabla R(\hat\theta) = -\delta\hat\theta`.
    The least-squares :math:`\delta` along :math:`\hat\theta` is

    .. math::
        \delta^* = -\frac{\langle\nabla R(\hat\theta; D, G), \hat\theta\rangle}{\|\hat\theta\|^2},

    and the second number is the cosine between :math:`-\nabla R` and :math:`\hat\theta`. The computation uses no
    labels, no validation data and no retrained model.
    """
    return ridge_of(problem.restrict(problem.trained), tilt)


def sampled_ridge(model: nn.Module, graph: InteractionGraph, objective: Objective, most: int = 50_000) -> float:
    r"""Return an estimate of :math:`\delta^*` of the whole model from a part of its samples, without a gradient.

    A local problem cannot provide :math:`\delta^*`, because it lacks some of the samples that determine its embeddings.
    """
    mask = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.pairs.device)
    mask[:: max(1, graph.num_interactions // most)] = True
    risk = risk_of(model, graph, objective, objective.samples(graph, mask=mask))
    assert isinstance(risk, LinearRisk)
    slope = risk.radial_slope(risk.parameters) * graph.num_interactions / max(len(risk.samples), 1)
    return -slope / max(inner(risk.parameters, risk.parameters), 1e-30)


def inverse_diagonal(problem: Problem, theta: Tensor, damping: float) -> Product | None:
    """Return the product with the inverse of the damped diagonal of the curvature; ``None`` if it is not known."""
    if not isinstance(problem.curved, LinearRisk):
        return None
    inverse = 1 / (problem.curved.jacobi(theta) + max(damping, 1e-6))
    return lambda r: problem.restrict(inverse * r)


def adam_quadratic(product: Product, rhs: Tensor, damping: float, lr: float, steps: int) -> Solution:
    r"""Minimise :math:`\frac12 x^\top(H + \delta I)x - b^\top x` by a fixed number of Adam steps.

    This solver reproduces published code. It has no convergence test, so the residual is computed at the end. If the
    system is indefinite, the iterates diverge.
    """
    x = torch.zeros_like(rhs)
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        x.grad = product(x) + damping * x - rhs
        optimizer.step()
    residual = float((product(x) + damping * x - rhs).norm() / rhs.norm())
    return Solution(x, residual, steps, residual <= 1e-2)
