"""The start of a correction: embeddings scaled by the share of interactions kept, or redrawn for emptied nodes."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.nn.origin import origin_of
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.fitting import reset_parameters
from graphunlearn.operators.shared.propagation import Rows

__all__ = ["fresh_seed", "kept_share", "warm_start"]

# By the retained pairs, since a correction and the model that it is compared with redraw the same embeddings.
_REDRAWN: MutableMapping[Tensor, tuple[Any, Tensor, dict[str, Rows]]] = WeakTensorKeyDictionary()
FEW = 5  # least number of embeddings to average, so that their random parts cancel


def kept_share(graph: InteractionGraph | SessionGraph, retained: InteractionGraph | SessionGraph) -> Tensor:
    """Return the share of interactions (or clicks) that every node keeps; 1 for nodes without any ``[num_rows]``."""
    before, after = graph.degree, retained.degree
    return torch.where(before > 0, after / before, 1.0)


def fresh_seed(seed: int) -> int:
    """Return the seed for redrawn embeddings, which is unlikely to be the seed of a trained model.

    With the seed of the trained model, a forgotten user would get the same initial embedding as in the original
    training.
    """
    return (seed * 0x9E3779B97F4A7C15 + 0x1F83D9ABFB41BD6B) % (1 << 63)


@torch.no_grad()
def warm_start(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    retained: InteractionGraph | SessionGraph,
    seed: int,
    *,
    scale: bool = True,
) -> int:
    r"""Change the embeddings of the touched nodes towards those of a retrained model, before any correction.

    Embeddings are scaled by :math:`e_v \leftarrow \frac{\deg_k(v)}{\deg(v)}\, e_v`. The retained risk has no curvature
    in the embedding of an emptied node, so no correction reaches it; it is redrawn from the initialisation of the
    model, as in retraining. Training also changes the embeddings of nodes without interactions, because such items are
    still drawn as negatives. If the graph has such nodes, their mean embedding is added to the redrawn embeddings. For
    sessions, the nodes are the items and the interactions are clicks.

    Args:
        model: The model; it is changed in place.
        graph: The graph before forgetting.
        retained: The retained graph.
        seed: Seed of the redrawn embeddings.
        scale: Whether to scale embeddings; embeddings of emptied nodes are redrawn in either case.

    Returns:
        The number of touched nodes.
    """
    share, emptied = kept_share(graph, retained), graph.emptied(retained)
    touched = (share < 1).nonzero().view(-1)
    tables = node_rows(model, graph)
    fresh = _redrawn(model, retained, emptied.nonzero().view(-1), tables, seed) if tables and emptied.any() else {}
    for name, nodes in tables.items():
        weight = model.get_parameter(name)
        if not weight.requires_grad:
            continue
        own = touched[(touched >= nodes.start) & (touched < nodes.stop)]
        if scale:
            weight[own - nodes.start] *= share[own].to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))
        if fresh:
            for side in graph.sides:
                inside = (fresh[name].nodes >= side.start) & (fresh[name].nodes < side.stop)
                new, rows = fresh[name].nodes[inside], fresh[name].values[inside]
                weight[new - nodes.start] = rows + _drift(weight, graph, nodes, side)
    return touched.numel()


def _redrawn(
    model: nn.Module, retained: InteractionGraph | SessionGraph, emptied: Tensor, tables: dict[str, slice], seed: int
) -> dict[str, Rows]:
    """Return the rows of emptied nodes in the tables of a model drawn anew; they are kept for these retained pairs."""
    shapes = tuple((name, p.shape, p.dtype, p.device) for name, p in model.named_parameters())
    key = origin_of(model), seed, shapes, tuple(_options(module) for module in model.modules())
    pairs = retained.pairs if retained.kind == "interactions" else None
    kept = None if pairs is None else _REDRAWN.get(pairs)
    if kept is None or kept[0] != key or not torch.equal(kept[1], emptied):
        other = copy.deepcopy(model)
        reset_parameters(other, fresh_seed(seed))
        found = {}
        for name, place in tables.items():
            nodes = emptied[(emptied >= place.start) & (emptied < place.stop)]
            found[name] = Rows(nodes, other.get_parameter(name).detach()[nodes - place.start])
        kept = key, emptied, found
        if pairs is not None:
            _REDRAWN[pairs] = kept
    return kept[2]


def _options(module: nn.Module) -> tuple[Any, ...]:
    """Return what the initial values of a module may depend on, besides the shapes of its parameters."""
    known = [(name, value) for name, value in vars(module).items() if not isinstance(value, nn.Module)]
    simple = (int, float, str, bool, type(None))
    return type(module), tuple((name, value) for name, value in known if isinstance(value, simple) or callable(value))


def _drift(weight: Tensor, graph: InteractionGraph | SessionGraph, nodes: slice, side: slice) -> Tensor:
    """Return the mean embedding of the users, or of the items, that have no interaction ``[dim]``."""
    start, stop = max(nodes.start, side.start), min(nodes.stop, side.stop)
    idle = (~graph.active[start:stop]).nonzero().view(-1) + start - nodes.start
    return weight[idle].mean(0) if len(idle) >= FEW else weight.new_zeros(weight.shape[1:])
