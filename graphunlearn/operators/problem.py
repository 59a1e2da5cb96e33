r"""The two risks an influence correction stands between, on the whole graph or on an important part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Adjacency, Product, csr
from graphunlearn.nn.encode import LinearForm, linear_form, num_hops
from graphunlearn.nn.objective import Objective, Samples
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of
from graphunlearn.operators.start import emptied_nodes, node_rows
from graphunlearn.utils import affected_nodes, prune_by_importance, removed_share, spread_importance

__all__ = ["Problem", "global_problem", "influence", "local_problem", "pruned_nodes"]

_CURVATURE_NEGATIVES = 16


@dataclass
class Problem:
    r"""Before and after: :math:`R(\theta; D, G)` and :math:`R(\theta; D_k, G_k)` over the same flat parameters.

    Args:
        old: The risk that the model was trained on.
        new: The risk of what remains.
        direct: Gives the risk of the forgotten samples alone, on the old graph.
        trained: The parameters of the trained model ``[num_parameters]``.
        start: The parameters to correct ``[num_parameters]``.
        gone: Parameters of nodes that were emptied: the trained gradient says nothing about them any more.
        free: Parameters that may move; all where ``None``.
        nodes: The nodes whose rows ``start`` holds; all parameters of the model where ``None``.
    """

    old: Risk
    new: Risk
    direct: Callable[[], Risk]
    trained: Tensor
    start: Tensor
    gone: Tensor | None
    free: Tensor | None
    nodes: Tensor | None = None

    @cached_property
    def curved(self) -> Risk:
        """The remaining risk whose curvature is taken: a part of the negatives is precise enough for that."""
        return self.new.with_negatives(_CURVATURE_NEGATIVES)

    def restrict(self, v: Tensor) -> Tensor:
        """Return ``v`` with the parameters that may not move set to zero."""
        return v if self.free is None else v * self.free

    def product(self, theta: Tensor, curvature: str, *, propagation: bool = True) -> Product:
        r"""Return :math:`v \mapsto Hv` of the remaining risk at ``theta``, in the free parameters.

        Without ``propagation`` it is the curvature that the table would have in matrix factorisation.
        """
        risk = self.curved
        if not propagation:
            if not isinstance(risk, LinearRisk):
                raise ValueError(
                    "'propagation' can be left out for linearly propagated tables only (got another model)"
                )
            risk = LinearRisk(risk.table, LinearForm(risk.form.parameter, (1.0,), None), risk.objective, risk.samples)
        product = risk.curvature(theta, "gauss-newton" if curvature == "gauss-newton" else "hessian")
        return lambda v: self.restrict(product(self.restrict(v)))

    def tilt(self, gradient: Tensor | None = None) -> Tensor:
        r"""Return :math:`\nabla R(\hat\theta; D, G)`, what early stopping left over; ``gradient`` where it is known."""
        return self._of_the_rest(self.old.gradient(self.trained) if gradient is None else gradient)

    def direct_gradient(self) -> Tensor:
        """Return the gradient of the forgotten samples alone, at the trained model."""
        return self._of_the_rest(self.direct().gradient(self.trained))

    def _of_the_rest(self, gradient: Tensor) -> Tensor:
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
    """Return the problem over all parameters, with only the rows of ``kept`` free where nodes were pruned."""
    samples = objective.samples(graph) if samples is None else samples
    old = risk_of(model, graph, objective, samples)
    new = risk_of(started, retained, objective, _retained_samples(objective, samples, graph, retained, removed))
    direct = partial(_forgotten_risk, model, graph, objective, samples, removed)
    rows = _row_parameters(model, graph)
    emptied = emptied_nodes(graph, retained)
    gone = torch.isin(rows, emptied.nonzero().view(-1)) if bool(emptied.any()) else None
    free = None if kept is None else (torch.isin(rows, kept) | (rows < 0)).to(old.parameters.dtype)
    return Problem(old, new, direct, old.parameters, new.parameters, gone, free)


def _forgotten_risk(
    model: nn.Module, graph: InteractionGraph, objective: Objective, samples: Samples, removed: Tensor
) -> Risk:
    return risk_of(model, graph, objective, samples.select(removed))


def _retained_samples(
    objective: Objective, samples: Samples, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor
) -> Samples:
    """Return what is supervised after the removal; only users who lost something can have other samples than before."""
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
    return replace(kept, negatives=negatives)


def influence(
    model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, int]:
    r"""Return the two parts of the right-hand side, summed over the interactions that have a part in them.

    .. math::
        g_d = \sum_{z \in D_r}\nabla\ell(z; \hat\theta, G), \qquad
        g_s = \sum_{z \in D_c}[\nabla\ell(z; \hat\theta, G) - \nabla\ell(z; \hat\theta, G_k)]

    :math:`D_c` are the remaining interactions with a user, item or negative within reach of a removed edge, and those
    of users whose negatives are drawn anew because a removed item is now among them.

    Args:
        model: The trained model.
        graph: Its training graph.
        retained: The graph without what is forgotten.
        removed: What is forgotten ``[num_interactions]``.
        objective: The loss.

    Returns:
        Direct influence ``[num_parameters]``, spillover ``[num_parameters]``, and the size of :math:`D_c`.
    """
    before = objective.samples(graph)
    after = _retained_samples(objective, before, graph, retained, removed)
    kept = before.select(~removed)
    reached = torch.zeros(graph.num_nodes, dtype=torch.bool, device=removed.device)
    reached[affected_nodes(graph, removed, num_hops(model, graph))] = True
    sides = reached.split([graph.num_users, graph.num_items])
    changed = kept.touching(*sides) | after.touching(*sides)
    if kept.negatives is not None and after.negatives is not None:
        changed |= (kept.negatives != after.negatives).any(1)
    direct = _forgotten_risk(model, graph, objective, before, removed)
    old, new = (
        risk_of(model, side, objective, samples.select(changed)) for side, samples in ((graph, kept), (retained, after))
    )
    theta = direct.parameters
    return direct.gradient(theta), old.gradient(theta) - new.gradient(theta), int(changed.sum())


def _row_parameters(model: nn.Module, graph: InteractionGraph) -> Tensor:
    """Return for every flat trainable parameter the node whose row it is in, or -1 ``[num_parameters]``."""
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


def pruned_nodes(
    graph: InteractionGraph, removed: Tensor, num_hops: int, quantile: float, min_degree_change: float
) -> tuple[Tensor, dict[str, Any]]:
    """Return the nodes important enough to be corrected, and the price of leaving out the others."""
    endpoints, _ = removed_share(graph, removed, min_degree_change=min_degree_change)
    nodes, importance = spread_importance(graph, removed, num_hops, min_degree_change=min_degree_change)
    kept = prune_by_importance(nodes, importance, quantile, keep=endpoints)
    share = float(importance[torch.isin(nodes, kept)].sum() / importance.sum()) if len(nodes) else 1.0
    all_endpoints, all_shares = removed_share(graph, removed)
    below = all_shares[~torch.isin(all_endpoints, endpoints)]
    return kept, {
        "nodes_reached": len(nodes),
        "nodes_kept": len(kept),
        "importance_kept": share,
        "endpoints_ignored": len(below),
        "largest_degree_change_ignored": float(below.max()) if len(below) else 0.0,
    }


@torch.no_grad()
def local_problem(
    model: nn.Module,
    started: nn.Module,
    graph: InteractionGraph,
    retained: InteractionGraph,
    removed: Tensor,
    objective: Objective,
    kept: Tensor,
) -> Problem:
    r"""Return the problem over the rows of ``kept`` alone; it solves for little, after one propagation of each graph.

    Only samples with a kept user or item are summed, embeddings are exact, and what the free rows do to them is
    propagated within the nodes of those samples: paths that leave them and come back are ignored.
    """
    form, after = linear_form(model, graph), linear_form(started, retained)
    assert form is not None
    assert after is not None
    table, moved = model.get_parameter(form.parameter), started.get_parameter(form.parameter)
    parts = []
    for side, inside, own in ((graph, removed, graph.adjacency), (retained, None, retained.adjacency)):
        mask = torch.zeros(side.num_interactions, dtype=torch.bool, device=removed.device)
        mask[own.interaction[own.entries(kept)].long()] = True
        parts.append((objective.samples(side, mask=mask), inside[mask] if inside is not None else None))
    (samples, forgotten), (samples_after, _) = parts
    assert forgotten is not None
    used = [kept]
    for s in (samples, samples_after):
        used += [s.users, s.items + graph.num_users]
        used += [] if s.negatives is None else [s.negatives.flatten() + graph.num_users]
    nodes = torch.unique(torch.cat(used))
    number = torch.zeros(graph.num_nodes, dtype=torch.long, device=nodes.device)
    num_users = int((nodes < graph.num_users).sum())
    number[nodes] = torch.arange(len(nodes), device=nodes.device)

    def risk(form: LinearForm, adjacency: Adjacency, whole: Tensor, samples: Samples) -> LinearRisk:
        matrix = None if form.matrix is None else _principal(form.matrix, adjacency, nodes, number)
        inner = LinearForm(form.parameter, form.alpha, matrix)
        offset = form.propagate(whole)[nodes] - inner.propagate(whole[nodes])
        return LinearRisk(whole[nodes], inner, objective, renumbered(samples), offset)

    def renumbered(s: Samples) -> Samples:
        items = [None if x is None else number[x + graph.num_users] - num_users for x in (s.items, s.negatives)]
        assert items[0] is not None
        return Samples(number[s.users], items[0], (num_users, len(nodes) - num_users), items[1], s.target)

    old = risk(form, graph.adjacency, table.detach(), samples)
    new = risk(after, retained.adjacency, moved.detach(), samples_after)
    direct = partial(risk, form, graph.adjacency, table.detach(), samples.select(forgotten))
    dim = table.size(1)
    free = torch.isin(nodes, kept).to(table.dtype).repeat_interleave(dim)
    gone = emptied_nodes(graph, retained)[nodes].repeat_interleave(dim)
    return Problem(old, new, direct, old.parameters, new.parameters, gone, free, nodes)


def _principal(matrix: Tensor, adjacency: Adjacency, nodes: Tensor, number: Tensor) -> Tensor:
    """Return the rows and columns ``nodes`` of a matrix with the sparsity of ``adjacency``."""
    entries = adjacency.entries(nodes)
    row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), adjacency.degree[nodes].long())
    col = adjacency.col[entries].long()
    inside = nodes[number[col]] == col
    row, col, values = row[inside], number[col[inside]], matrix.values()[entries[inside]]
    rowptr = torch.zeros(len(nodes) + 1, dtype=torch.int32, device=nodes.device)
    rowptr[1:] = torch.cumsum(torch.bincount(row, minlength=len(nodes)), 0)
    return csr(rowptr, col.int(), values, (len(nodes), len(nodes)))
