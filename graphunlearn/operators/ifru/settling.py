r"""Further steps of IFRU in the embeddings that lost a part of their interactions, until their gradient vanishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.func import conjugate_gradients
from graphunlearn.operators.ifru.prepared import Stopping
from graphunlearn.operators.shared.correction import Tilted, inverse_diagonal
from graphunlearn.operators.shared.refit import neighbours_of_emptied
from graphunlearn.operators.shared.right_hand_side import Problem
from graphunlearn.operators.shared.warm_start import kept_share

__all__ = ["kept_tilt", "partly_kept", "settled"]

_MOST = 20  # largest number of steps
_LENGTHS = (1.0, 0.5, 0.25)  # of a step, of which the first that lowers the norm of the gradient is taken
_ROUGH = 0.2  # relative residual of their systems: the next step corrects what is left


def kept_tilt(
    problem: Problem, tilt: Tensor, graph: InteractionGraph, retained: InteractionGraph, nodes: Tensor
) -> Tensor:
    """Return the tilt, scaled in the embeddings of some nodes by the share of interactions that they keep.

    A gradient is a sum over interactions. For emptied nodes, whose share is 0, the tilt is zero as well.

    Args:
        problem: The problem over all parameters.
        tilt: The tilt ``[num_parameters]``.
        graph: The graph before forgetting.
        retained: The retained graph.
        nodes: The nodes ``[num]``.
    """
    assert problem.rows is not None
    share = kept_share(graph, retained).to(tilt.dtype)
    return torch.where(torch.isin(problem.rows, nodes), tilt * share[problem.rows], tilt)


def partly_kept(graph: InteractionGraph, retained: InteractionGraph, removed: Tensor, refits: bool) -> Tensor:
    """Return the nodes that lose a part of their interactions, ascending ``[num]``.

    Args:
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        refits: Whether to leave out neighbours of emptied nodes, because they are fitted to what remains.
    """
    partly = (graph.degree != retained.degree) & ~graph.emptied(retained)
    if refits:
        partly[neighbours_of_emptied(graph, retained, removed)] = False
    return partly.nonzero().view(-1)


@torch.no_grad()
def settled(
    tilted: Tilted,
    theta: Tensor,
    nodes: Tensor,
    damping: float,
    tol: float,
    max_iter: int,
    rule: Stopping | None,
) -> tuple[Tensor, dict[str, Any]]:
    r"""Minimise :math:`F(\theta) = \Phi(\theta) + \frac\delta2\|\theta - \theta_0\|^2` over some embeddings.

    The step of IFRU is the first Gauss–Newton step on :math:`F` from :math:`\theta_0`. Where a node loses a large share
    of its interactions, the loss is not quadratic along it. Further Gauss–Newton steps are made in the embeddings of
    the given nodes alone: in all embeddings, they follow negative curvature of the Hessian, which the Gauss–Newton
    product lacks. A step that does not lower the norm of the gradient is halved up to twice; if that does not help, it
    is not taken, and the steps end.

    Args:
        tilted: The tilted risk, with :math:`\theta_0` as the start of its problem.
        theta: The parameters after the first step ``[num_parameters]``.
        nodes: The nodes whose embeddings may change ``[num]``.
        damping: The damping :math:`\delta`.
        tol: Share of the first gradient at which the steps end.
        max_iter: Largest number of products per step.
        rule: The rule that says which step is so small that it is the last one; ``None`` for none.

    Returns:
        The parameters ``[num_parameters]``, and a log: the numbers of nodes, steps and products, the norms of the
        gradient in these embeddings after the first step and at the end, and why the steps ended (``"stopped"``):
        ``"gradient"``, ``"noise"``, ``"not lower"`` or ``"limit"``.
    """
    whole = tilted.problem
    assert whole.rows is not None
    free = torch.isin(whole.rows, nodes).to(theta.dtype)
    problem = replace(whole, free=free if whole.free is None else free * whole.free)
    part = Tilted(problem, problem.restrict(tilted.tilt))

    def gradient(at: Tensor) -> Tensor:
        return part.gradient(at) + damping * problem.restrict(at - problem.start)

    slope = gradient(theta)
    first = norm = float(slope.norm())
    steps = products = 0
    stopped = "gradient"
    while norm > tol * first:
        if steps == _MOST:
            stopped = "limit"
            break
        solution = conjugate_gradients(
            problem.product(theta, "gauss-newton"),
            -slope,
            damping=damping,
            preconditioner=inverse_diagonal(problem, theta, damping),
            tol=_ROUGH,
            max_iter=max_iter,
        )
        products += solution.iterations
        for length in _LENGTHS:
            step = length * solution.x
            slope = gradient(theta + step)
            if float(slope.norm()) < norm:
                break
        else:
            stopped = "not lower"
            break
        theta, norm, steps = theta + step, float(slope.norm()), steps + 1
        if rule is not None and rule.enough(step):
            stopped = "noise"
            break
    log = {"rows": len(nodes), "steps": steps, "iterations": products, "gradient": [first, norm]}
    return theta, log | {"stopped": stopped}
