"""The importance of nodes for a removal of interactions, and the choice of the most important nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func.adjacency import Adjacency
from graphunlearn.utils.subgraph import _SPARSE_SHARE, _check_hops, _distinct, removed_share

if TYPE_CHECKING:
    from graphunlearn.data.request import ForgetRequest

__all__ = ["prune_by_importance", "spread_importance"]


def spread_importance(
    graph: InteractionGraph, request: ForgetRequest | Tensor, num_hops: int, *, min_degree_change: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Return the importance of the nodes near the removed interactions.

    The share of removed interactions is propagated from the endpoints of these interactions to their neighbourhood:

    .. math::
        w_0(v) = \frac{\text{removed interactions of } v}{\deg(v)}, \qquad
        w_{k+1}(v) = \frac{1}{\deg(v)} \sum_{n \in N(v)} w_k(n), \qquad
        w(v) = \sum_{k=0}^{L} w_k(v)

    All degrees are those of the graph before the removal. :math:`w_k(v)` is the expected removed share of the node at
    which a random walk of :math:`k` steps from :math:`v` ends. The sum over :math:`k` corresponds to the sum over
    layers in LightGCN.

    Args:
        graph: The graph before the removal.
        request: The removed interactions: a request, or a boolean mask ``[num_interactions]``.
        num_hops: Number of propagation layers :math:`L`; 0 gives the endpoints and their removed shares.
        min_degree_change: Endpoints that lose at most this share of their interactions are ignored.

    Returns:
        Sorted node numbers of all nodes within ``num_hops`` hops of an endpoint ``[num_reached]``, and the importance
        of these nodes, which is positive ``[num_reached]`` (float64).

    Raises:
        ValueError: The mask does not fit the graph, or an argument is out of range.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> spread_importance(graph, torch.tensor([True, False, False, False]), num_hops=1)
        (tensor([0, 3, 4]), tensor([1.0000, 1.5000, 0.2500], dtype=torch.float64))
    """
    _check_hops(num_hops)
    adjacency = graph.adjacency
    nodes, weight = removed_share(graph, request, min_degree_change=min_degree_change)
    reached, weights = [nodes], [weight]
    for _ in range(num_hops):
        outgoing = torch.repeat_interleave(weight, adjacency.degree[nodes])
        nodes, weight = _sum_by_node(adjacency.neighbors(nodes), outgoing, adjacency)
        weight = weight / adjacency.degree[nodes]
        reached.append(nodes)
        weights.append(weight)
    return _sum_by_node(torch.cat(reached), torch.cat(weights), adjacency)


def _sum_by_node(nodes: Tensor, values: Tensor, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
    """Return the distinct nodes, sorted, and for every node the sum of its ``values``, which are all positive."""
    if nodes.numel() < _SPARSE_SHARE * adjacency.num_nodes:
        distinct = _distinct(nodes.int(), adjacency.num_nodes).long()
        position = adjacency.positions(distinct, nodes)
        return distinct, values.new_zeros(distinct.numel()).index_add_(0, position, values)
    sums = values.new_zeros(adjacency.num_nodes).index_add_(0, nodes, values)
    distinct = sums.nonzero().view(-1)
    return distinct, sums[distinct]


def prune_by_importance(nodes: Tensor, importance: Tensor, quantile: float, *, keep: Tensor | None = None) -> Tensor:
    r"""Return the nodes without the least important ones.

    At most the share ``quantile`` of the nodes is dropped. Nodes that tie with the least important kept node are kept.

    Args:
        nodes: Node numbers ``[num_nodes]``, as from :func:`spread_importance`.
        importance: Importance of every node ``[num_nodes]``.
        quantile: Share of the nodes to drop, in [0, 1); 0 keeps all nodes.
        keep: Nodes that are always kept, such as the endpoints of the removed interactions
            (:func:`~graphunlearn.utils.removed_share`).

    Returns:
        The kept nodes, in the order of ``nodes`` ``[num_kept]``.

    Raises:
        ValueError: ``quantile`` is outside [0, 1), or the lengths differ.

    Example:
        >>> import torch
        >>> nodes, importance = torch.tensor([1, 4, 5, 8]), torch.tensor([0.1, 0.5, 0.3, 0.2])
        >>> prune_by_importance(nodes, importance, 0.5)
        tensor([4, 5])
        >>> prune_by_importance(nodes, importance, 0.5, keep=torch.tensor([1]))
        tensor([1, 4, 5])
    """
    if not 0 <= quantile < 1:
        raise ArgumentError("quantile", "be a share in [0, 1)", quantile)
    if nodes.dim() != 1 or nodes.shape != importance.shape:
        raise ArgumentError(
            "importance", "hold one value per node", f"{list(importance.shape)} for nodes of {list(nodes.shape)}"
        )
    if nodes.numel() == 0:
        return nodes
    dropped = min(int(quantile * nodes.numel()), nodes.numel() - 1)
    kept = importance >= importance.kthvalue(dropped + 1).values
    if keep is not None:
        kept |= torch.isin(nodes, keep.to(nodes.device))
    return nodes[kept]
