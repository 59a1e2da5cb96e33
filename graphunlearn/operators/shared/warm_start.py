"""Where a correction starts: rows scaled by what is kept, emptied nodes drawn anew."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.fitting import reset_parameters

__all__ = ["fresh_seed", "kept_share", "warm_start"]

_FEW = 5  # rows that a mean is taken of, at least: what is random in them must cancel


def kept_share(graph: InteractionGraph, retained: InteractionGraph) -> Tensor:
    """Return the share of its interactions that every node keeps ``[num_nodes]``; 1 where it never had any."""
    before, after = graph.adjacency.degree, retained.adjacency.degree
    return torch.where(before > 0, after / before.clamp(min=1), 1.0)


def fresh_seed(seed: int) -> int:
    """Return the seed that rows are drawn anew with: never one that a model is likely to have been trained with.

    The trained model's own seed would give a forgotten user the very row that the others were trained against.
    """
    return (seed * 0x9E3779B97F4A7C15 + 0x1F83D9ABFB41BD6B) % (1 << 63)


@torch.no_grad()
def warm_start(
    model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, seed: int, *, scale: bool = True
) -> int:
    r"""Move the rows of the touched nodes to where retraining tends to have them, before any correction.

    :math:`e_v \leftarrow \frac{\deg_k(v)}{\deg(v)}\, e_v`; a node that keeps nothing has no curvature left to
    correct it by, and is drawn anew from the model's own initialisation, as retraining would. Training moves rows
    without interactions as well (an item is still drawn as a negative): where there are such nodes, their mean row is
    added.

    Args:
        model: Changed in place.
        graph: The graph before.
        retained: The graph after.
        seed: Seed of the new rows.
        scale: Whether to scale rows; emptied nodes are drawn anew in either case.

    Returns:
        The number of nodes touched.
    """
    share, emptied = kept_share(graph, retained), graph.emptied(retained)
    touched = (share < 1).nonzero().view(-1)
    tables = node_rows(model, graph)
    fresh: dict[str, Tensor] = {}
    if bool(emptied.any()) and tables:
        other = copy.deepcopy(model)
        reset_parameters(other, fresh_seed(seed))
        fresh = dict(other.named_parameters())
    for name, nodes in tables.items():
        weight = model.get_parameter(name)
        if not weight.requires_grad:
            continue
        own = touched[(touched >= nodes.start) & (touched < nodes.stop)]
        if scale:
            weight[own - nodes.start] *= share[own].to(weight.dtype).unsqueeze(1)
        if fresh:
            for side in (slice(0, graph.num_users), slice(graph.num_users, graph.num_nodes)):
                new = own[emptied[own] & (own >= side.start) & (own < side.stop)]
                weight[new - nodes.start] = fresh[name][new - nodes.start] + _drift(weight, graph, nodes, side)
    return touched.numel()


def _drift(weight: Tensor, graph: InteractionGraph, nodes: slice, side: slice) -> Tensor:
    """Return where training has moved the rows of users, or items, that never had an interaction ``[dim]``."""
    start, stop = max(nodes.start, side.start), min(nodes.stop, side.stop)
    idle = (graph.adjacency.degree[start:stop] == 0).nonzero().view(-1) + start - nodes.start
    return weight[idle].mean(0) if len(idle) >= _FEW else weight.new_zeros(weight.shape[1:])
