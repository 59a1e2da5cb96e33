r"""The right-hand side of IFRU's linear system, :func:`influence`, and the two risks that it is the difference of.

IFRU solves :math:`(H + \delta I)\,x = -\nabla\Phi(\theta_0)`. At the trained parameters :math:`\hat\theta`,
:math:`-\nabla\Phi` is the sum of both parts of :func:`influence`: :meth:`Problem.tilt` minus the gradient of the
retained risk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import Product
from graphunlearn.nn.encoding import LinearForm, num_hops
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of
from graphunlearn.nn.session_risk import SessionRisk
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import Objective, Sampled, Samples
from graphunlearn.operators.shared.ridge import CURVATURE_NEGATIVES
from graphunlearn.utils import affected_nodes

__all__ = [
    "Problem",
    "global_problem",
    "influence",
    "retained_samples",
    "row_parameters",
    "session_problem",
    "with_affordable",
]

_DRAWS, _MOST_NEGATIVES = 2_000_000, 64  # limits on negatives: draws in total, and negatives per interaction


@dataclass
class Problem:
    r"""The original risk :math:`R(\theta; D, G)` and the retained risk :math:`R(\theta; D_k, G_k)` of flat parameters.

    Args:
        old: The original risk.
        new: The retained risk.
        direct: Returns the risk of the forgotten samples alone, on the original graph.
        trained: The parameters of the trained model ``[num_parameters]``.
        start: The parameters to correct ``[num_parameters]``.
        gone: Mask of the parameters of emptied nodes, to which the trained gradient no longer applies.
        free: Mask of the parameters that may change; ``None`` means all.
        nodes: The nodes whose embeddings ``start`` holds; ``None`` if it holds all parameters of the model.
        rows: The node whose embedding holds each parameter, or -1 ``[num_parameters]``; ``None`` if ``nodes`` is given.
    """

    old: Risk
    new: Risk
    direct: Callable[[], Risk]
    trained: Tensor
    start: Tensor
    gone: Tensor | None
    free: Tensor | None
    nodes: Tensor | None = None
    rows: Tensor | None = None

    @cached_property
    def curved(self) -> Risk:
        """The retained risk that the curvature is computed from; it uses only a part of the negatives."""
        return self.new.with_negatives(CURVATURE_NEGATIVES)

    def restrict(self, v: Tensor) -> Tensor:
        """Return ``v`` with the entries of fixed parameters set to zero."""
        return v if self.free is None else v * self.free

    def product(self, theta: Tensor, curvature: str, *, propagation: bool = True) -> Product:
        r"""Return the curvature product :math:`v \mapsto Hv` of the retained risk at ``theta``, in the free parameters.

        Without ``propagation``, it is the curvature of the table in matrix factorisation.
        """
        risk = self.curved
        if not propagation:
            if not isinstance(risk, LinearRisk):
                raise ArgumentError("propagation", "be True where tables are not propagated linearly", False)
            risk = LinearRisk(risk.table, LinearForm(risk.form.parameter, (1.0,), None), risk.objective, risk.samples)
        product = risk.curvature(theta, "gauss-newton" if curvature == "gauss-newton" else "hessian")
        return lambda v: self.restrict(product(self.restrict(v)))

    def tilt(self, gradient: Tensor | None = None) -> Tensor:
        r"""Return the tilt :math:`\nabla R(\hat\theta; D, G)`, the gradient left by early stopping.

        Args:
            gradient: The gradient, if already computed.

        Returns:
            The tilt ``[num_parameters]``.
        """
        return self._of_the_rest(self.old.gradient(self.trained) if gradient is None else gradient)

    def direct_gradient(self) -> Tensor:
        """Return the gradient of the forgotten samples alone, at the trained model."""
        return self._of_the_rest(self.direct().gradient(self.trained))

    def _of_the_rest(self, gradient: Tensor) -> Tensor:
        """Set the entries of emptied nodes and of fixed parameters to zero; those of emptied nodes in place."""
        if self.gone is not None:
            gradient[self.gone] = 0
        return self.restrict(gradient)


def global_problem(
    model: nn.Module,
    started: nn.Module,
    graph: InteractionGraph,
    retained: InteractionGraph,
    removed: Tensor,
    objective: Objective,
    kept: Tensor | None,
    samples: Samples | None = None,
) -> Problem:
    """Return the problem over all parameters; if nodes were pruned, only the embeddings of ``kept`` are free."""
    samples = objective.samples(graph) if samples is None else samples
    old = risk_of(model, graph, objective, samples)
    new = risk_of(started, retained, objective, retained_samples(objective, samples, graph, retained, removed))
    direct = partial(risk_of, model, graph, objective, samples.select(removed))
    rows = row_parameters(model, graph)
    emptied = graph.emptied(retained)
    gone = torch.isin(rows, emptied.nonzero().view(-1)) if bool(emptied.any()) else None
    free = None if kept is None else (torch.isin(rows, kept) | (rows < 0)).to(old.parameters.dtype)
    return Problem(old, new, direct, old.parameters, new.parameters, gone, free, rows=rows)


def session_problem(
    model: nn.Module,
    started: nn.Module,
    graph: SessionGraph,
    retained: SessionGraph,
    removed: Tensor,
    objective: CrossEntropy,
    *,
    most: int,
    seed: int,
) -> Problem:
    """Return the problem over all parameters of a session model.

    Args:
        model: The trained model.
        started: The model that the correction starts from.
        graph: The sessions before forgetting.
        retained: The retained sessions.
        removed: Mask of the forgotten clicks ``[num_clicks]``.
        objective: The training loss.
        most: Largest number of samples of the curvature.
        seed: Seed of these samples.
    """
    old = SessionRisk(model, graph, objective, most=most, seed=seed)
    new = SessionRisk(started, retained, objective, most=most, seed=seed)
    forgotten = objective.samples(graph, mask=removed)
    direct = partial(SessionRisk, model, graph, objective, forgotten, most=most, seed=seed)
    rows, emptied = row_parameters(model, graph), graph.emptied(retained)
    gone = torch.isin(rows, emptied.nonzero().view(-1)) if bool(emptied.any()) else None
    return Problem(old, new, direct, old.parameters, new.parameters, gone, None, rows=rows)


def with_affordable(objective: Objective, num_interactions: int, most: int = _MOST_NEGATIVES) -> Objective:
    """Return a loss that draws negatives with more of them, at most two million in total but not fewer than it has.

    Args:
        objective: The loss.
        num_interactions: The number of interactions before forgetting.
        most: Largest number of negatives per interaction, unless the loss has more.
    """
    if not isinstance(objective, Sampled):
        return objective
    affordable = min(most, _DRAWS // max(num_interactions, 1))
    return objective.with_negatives(max(objective.negatives, affordable))


def retained_samples(
    objective: Objective, samples: Samples, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor
) -> Samples:
    """Return the retained samples; where draws are private, only users who lost interactions get new negatives.

    Args:
        objective: The loss.
        samples: The samples of the graph before forgetting.
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
    """
    if not objective.private:
        return objective.samples(retained)
    kept = samples.select(~removed)
    if kept.negatives is None:
        return kept
    touched = torch.zeros(graph.num_users, dtype=torch.bool, device=removed.device)
    touched[graph.pairs[0, removed]] = True
    mask = touched[retained.pairs[0]]
    redrawn = objective.samples(retained, mask=mask)
    assert redrawn.negatives is not None
    negatives = kept.negatives.clone()
    negatives[mask] = redrawn.negatives
    if kept.offset is None or redrawn.offset is None:
        return replace(kept, negatives=negatives)
    offset = kept.offset.clone()
    offset[mask] = redrawn.offset
    return replace(kept, negatives=negatives, offset=offset)


def influence(
    model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, int]:
    r"""Return the two parts of the right-hand side, summed only over the interactions that contribute.

    .. math::
        g_d = \sum_{z \in D_r}\nabla\ell(z; \hat\theta, G), \qquad
        g_s = \sum_{z \in D_c}[\nabla\ell(z; \hat\theta, G) - \nabla\ell(z; \hat\theta, G_k)]

    :math:`D_c` are the retained interactions with a user, item or negative within reach of a removed edge, and those
    whose negatives or offsets change because a removed item can now be drawn or becomes less popular.

    Args:
        model: The trained model.
        graph: The training graph of the model.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        objective: The training loss.

    Returns:
        Direct influence ``[num_parameters]``, spillover ``[num_parameters]``, and the size of :math:`D_c`.
    """
    before = objective.samples(graph)
    after = retained_samples(objective, before, graph, retained, removed)
    kept = before.select(~removed)
    reached = torch.zeros(graph.num_nodes, dtype=torch.bool, device=removed.device)
    reached[affected_nodes(graph, removed, num_hops(model, graph))] = True
    sides = reached.split([graph.num_users, graph.num_items])
    changed = kept.touching(*sides) | after.touching(*sides)
    for a, b in ((kept.negatives, after.negatives), (kept.offset, after.offset)):
        if a is not None and b is not None:
            changed |= (a != b).any(1)
    direct = risk_of(model, graph, objective, before.select(removed))
    old, new = (
        risk_of(model, side, objective, samples.select(changed)) for side, samples in ((graph, kept), (retained, after))
    )
    theta = direct.parameters
    return direct.gradient(theta), old.gradient(theta) - new.gradient(theta), int(changed.sum())


def row_parameters(model: nn.Module, graph: InteractionGraph | SessionGraph) -> Tensor:
    """Return the node whose embedding contains each flat trainable parameter, or -1 ``[num_parameters]``.

    Args:
        model: The recommender.
        graph: The graph of the recommender; for sessions, the nodes are the items.
    """
    tables, parts = node_rows(model, graph), []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        nodes = tables.get(name)
        index = torch.full((p.size(0) if p.dim() else 1,), -1, device=p.device)
        if nodes is not None:
            index = torch.arange(nodes.start, nodes.stop, device=p.device)
        parts.append(index.repeat_interleave(p.numel() // index.numel()))
    return torch.cat(parts)
