"""Importance pruning as published: select the nodes to correct, and restrict both risks to their embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Adjacency, Product, csr
from graphunlearn.nn.encoding import LinearForm, linear_form
from graphunlearn.nn.risk import LinearRisk
from graphunlearn.nn.training.objective import Objective, Samples
from graphunlearn.operators.shared.right_hand_side import Problem
from graphunlearn.utils import prune_by_importance, removed_share, spread_importance

__all__ = ["error_in_full", "local_problem", "pruned_nodes", "write"]


def pruned_nodes(
    graph: InteractionGraph, removed: Tensor, num_hops: int, quantile: float, min_degree_change: float
) -> tuple[Tensor, dict[str, Any]]:
    """Return the nodes that are important enough to correct, and statistics of the nodes left out.

    Args:
        graph: The graph before forgetting.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        num_hops: Number of hops over which importance spreads from the endpoints.
        quantile: Quantile of importance below which nodes are pruned.
        min_degree_change: Endpoints that lose no more than this share of their interactions are ignored.

    Returns:
        The ids of the kept nodes ``[num_kept]``, and the log: the numbers of reached and kept nodes, the share of
        importance kept, the number of ignored endpoints and the largest degree change among them.
    """
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
def error_in_full(whole: Problem, part: Problem, step: Tensor, product: Product, rhs: Tensor, damping: float) -> float:
    r"""Return :math:`\|b - (H + \delta I)d\| / \|b\|` in all parameters, for a step :math:`d` found in a part of them.

    Args:
        whole: The problem over all parameters.
        part: The problem that the step was found in.
        step: The step :math:`d` in the parameters of ``part``.
        product: :math:`v \mapsto Hv` in the parameters of ``whole``.
        rhs: The right-hand side :math:`b` of ``whole``.
        damping: The damping :math:`\delta`.
    """
    x = torch.zeros_like(whole.start)
    if part.nodes is None:
        x = step
    else:
        assert whole.rows is not None
        x[torch.isin(whole.rows, part.nodes)] = step
    return float((rhs - product(x) - damping * x).norm() / rhs.norm())


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
    r"""Return the problem restricted to the embeddings of ``kept``, at the cost of one propagation of each graph.

    The risks sum over the samples that contain a kept user or item. Embeddings at the start are exact. Changes of the
    kept embeddings are propagated within the nodes of those samples only: paths that leave this set and return to it
    are ignored.

    Args:
        model: The trained model.
        started: The model that the correction starts from.
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        objective: The training loss.
        kept: Ids of the nodes whose embeddings are corrected ``[num_kept]``.

    Returns:
        The restricted :class:`~graphunlearn.operators.shared.right_hand_side.Problem`.
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
        return Samples(number[s.users], items[0], (num_users, len(nodes) - num_users), items[1], s.target, s.offset)

    old = risk(form, graph.adjacency, table.detach(), samples)
    new = risk(after, retained.adjacency, moved.detach(), samples_after)
    direct = partial(risk, form, graph.adjacency, table.detach(), samples.select(forgotten))
    dim = table.size(1)
    free = torch.isin(nodes, kept).to(table.dtype).repeat_interleave(dim)
    gone = graph.emptied(retained)[nodes].repeat_interleave(dim)
    return Problem(old, new, direct, old.parameters, new.parameters, gone, free, nodes)


def _principal(matrix: Tensor, adjacency: Adjacency, nodes: Tensor, number: Tensor) -> Tensor:
    """Return the principal submatrix over ``nodes`` of a matrix with the sparsity pattern of ``adjacency``."""
    entries = adjacency.entries(nodes)
    row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), adjacency.degree[nodes].long())
    col = adjacency.col[entries].long()
    inside = nodes[number[col]] == col
    row, col, values = row[inside], number[col[inside]], matrix.values()[entries[inside]]
    rowptr = torch.zeros(len(nodes) + 1, dtype=torch.int32, device=nodes.device)
    rowptr[1:] = torch.cumsum(torch.bincount(row, minlength=len(nodes)), 0)
    return csr(rowptr, col.int(), values, (len(nodes), len(nodes)))


@torch.no_grad()
def write(model: nn.Module, started: nn.Module, graph: InteractionGraph, problem: Problem, theta: Tensor) -> None:
    """Write the corrected parameters into the model.

    Args:
        model: The model to change.
        started: The model that the correction started from.
        graph: The graph before forgetting.
        problem: The problem; a restricted one holds the embeddings of some nodes alone.
        theta: The corrected parameters of the problem.
    """
    if problem.nodes is not None:
        model.load_state_dict(started.state_dict())
        form = linear_form(model, graph)
        assert form is not None
        table = model.get_parameter(form.parameter)
        table[problem.nodes] = theta.view(-1, table.size(1))
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p, part in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
        p.copy_(part.view_as(p))
