"""IFRU on several ranks: one damped Gauss-Newton step of the tilted risk, solved over all ranks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data.schema import warn
from graphunlearn.distributed.fitting import check_objective
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.model import TABLE
from graphunlearn.distributed.risk import shard_risk
from graphunlearn.distributed.starting import any_emptied, start_part
from graphunlearn.distributed.sums import Inner
from graphunlearn.errors import ArgumentError
from graphunlearn.func import Product, conjugate_gradients, lanczos
from graphunlearn.nn.training.objective import Objective, Sampled, default_objective
from graphunlearn.operators.ifru.method import IFRU
from graphunlearn.operators.shared.correction import RAISES, Tilted, inverse_diagonal
from graphunlearn.operators.shared.noise import SHARE
from graphunlearn.operators.shared.right_hand_side import Problem, retained_samples, with_affordable

__all__ = ["check_ifru", "ifru_objective", "ifru_part"]

ONLY: dict[str, tuple[Any, ...]] = {
    "curvature": ("gauss-newton",),
    "solver": ("auto", "cg"),
    "prune": (None,),
    "max_steps": (1,),
    "spillover": (True,),
    "propagation": (True,),
    "settle": (False,),
    "within_noise": (SHARE, 0),
}
"""The options of IFRU that have another value on one process alone; the system is always solved to ``tol``."""


def check_ifru(method: IFRU) -> None:
    """Check that all options of a method have a form on several ranks.

    Args:
        method: The method.

    Raises:
        ArgumentError: An option has none.
    """
    for name, values in ONLY.items():
        if getattr(method, name) not in values:
            expected = f"be {' or '.join(repr(value) for value in values)} on several ranks"
            raise ArgumentError(name, expected, repr(getattr(method, name)))


def ifru_objective(method: IFRU, graph: ShardGraph) -> Objective:
    """Return the loss of a method with as many negatives as one process draws for the whole graph.

    Args:
        method: The method.
        graph: The part of the graph.
    """
    objective = method.objective or default_objective(graph)
    check_objective(objective)
    if method.negatives and isinstance(objective, Sampled):
        return objective.with_negatives(method.negatives)
    return with_affordable(objective, graph.count())


def ifru_part(
    method: IFRU, model: nn.Module, before: nn.Module, graph: ShardGraph, retained: ShardGraph, removed: Tensor
) -> dict[str, Any]:
    """Correct the part of a model in place, as :class:`~graphunlearn.IFRU` without ``within_noise`` corrects a whole.

    Args:
        method: The method.
        model: The part to correct.
        before: The part of the trained model.
        graph: The part before forgetting.
        retained: The retained part.
        removed: Mask of the forgotten interactions of this rank ``[num_interactions]``.

    Returns:
        The log, the same on all ranks.
    """
    check_ifru(method)
    objective = ifru_objective(method, graph)
    log: dict[str, Any] = {"touched_rows": start_part(model, graph, retained, method.seed, scale=method.warm_start)}
    log["emptied_nodes"] = any_emptied(graph, retained)
    samples = objective.samples(graph)
    old = shard_risk(before, graph, objective, samples)
    kept = retained_samples(objective, samples, graph, retained, removed)
    new = shard_risk(model, retained, objective, kept)
    emptied = graph.own_rows(graph.emptied(retained))
    gone = emptied.repeat_interleave(old.table.size(1)) if log["emptied_nodes"] else None
    direct = partial(shard_risk, before, graph, objective, samples.select(removed))
    problem = Problem(old, new, direct, old.parameters, new.parameters.clone(), gone, None)
    inner = Inner.of(graph, old.table.size(1))
    tilted = Tilted(problem, problem.tilt())
    slope = tilted.gradient(problem.start)
    damping, more = _damping(method, problem, tilted.tilt, inner)
    product = problem.product(problem.start, method.curvature)
    if method._least_gradient and inner(slope, slope) > 0:
        damping, left = _least_gradient(method, tilted, product, slope, damping, inner)
        more |= {"damping_rule": "gradient", "gradient_left": left}
    log |= more | {"damping": damping, "curvature": method.curvature, "steps": []}
    if inner(slope, slope) == 0:
        return log
    solution = conjugate_gradients(
        product,
        -slope,
        damping=damping,
        preconditioner=inverse_diagonal(problem, problem.start, damping),
        tol=method.tol,
        max_iter=method.max_iter,
        dot=inner,
    )
    with torch.no_grad():
        table = model.get_parameter(TABLE)
        table.add_(solution.x.view_as(table))
    if not solution.converged and graph.ranks.first:
        warn(
            f"the influence system was solved to a relative residual of {solution.residual:.2g}, not {method.tol:g}, "
            f"in {solution.iterations} products; raise 'max_iter' or 'damping'"
        )
    log["steps"] = [{"iterations": solution.iterations, "residual": solution.residual}]
    return log | {"relative_error": solution.residual, "relative_error_estimated": False}


def _damping(method: IFRU, problem: Problem, tilt: Tensor, inner: Inner) -> tuple[float, dict[str, Any]]:
    """Return the damping, and how it was chosen."""
    if method.damping is not None:
        return method.damping, {"damping_rule": "given"}
    theta = problem.trained
    slope, square = -inner.exactly(tilt, theta), inner.exactly(theta, theta)
    ridge = slope / max(square, 1e-30)
    cosine = slope / max((inner.exactly(tilt, tilt) * square) ** 0.5, 1e-30)
    damping, rule = max(method.min_damping, ridge), "ridge"
    if not isinstance(problem.new.objective, Sampled) and cosine > 0:
        damping, rule = max(damping, ridge / cosine), "norms"
    return damping, {"damping_rule": rule, "ridge": ridge, "ridge_cosine": cosine}


def _least_gradient(
    method: IFRU, tilted: Tilted, product: Product, slope: Tensor, damping: float, inner: Inner
) -> tuple[float, float]:
    """Return the damping whose step leaves the smallest gradient, and what it leaves, as one process chooses it."""
    space = lanczos(product, -slope, damping=damping, tol=method.tol, max_iter=method.max_iter, dot=inner)
    best, chosen, before = math.inf, damping, inner(slope, slope)
    for _ in range(RAISES + 1):
        gradient = tilted.gradient(tilted.problem.start + space.solve(damping).x)
        left = math.sqrt(inner(gradient, gradient) / before)
        if left >= best:
            break
        best, chosen, damping = left, damping, 3 * damping
    return chosen, best
