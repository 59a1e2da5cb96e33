r"""Neighbourhoods, and what a removal reaches.

Everything is read off the rows of ``graph.adjacency`` (CSR), so the cost follows the size of the answer and not that of
the graph. Node ids are homogeneous: users first, then items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphunlearn.data.interaction import EDGE_TYPE, InteractionGraph
from graphunlearn.data.schema import is_per_interaction
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data.request import ForgetRequest

__all__ = ["affected_interactions", "affected_nodes", "k_hop_ball", "k_hop_subgraph", "node_map", "removed_share"]

# Below this share of all nodes, sorting the few found is cheaper than passing once over a mark per node.
_SPARSE_SHARE = 1 / 16


def _check_hops(num_hops: int) -> None:
    if isinstance(num_hops, bool) or not isinstance(num_hops, int) or num_hops < 0:
        raise ArgumentError("num_hops", "be a non-negative integer", f"{num_hops!r}")


def _check_nodes(graph: InteractionGraph, nodes: Tensor | Sequence[int]) -> Tensor:
    index = torch.as_tensor(nodes)
    if index.numel() == 0:
        return index.new_empty(0, dtype=torch.long).to(graph.pairs.device)
    if index.dim() > 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ArgumentError("nodes", "be a list of integer node ids", f"{index.dtype} of shape {list(index.shape)}")
    low, high = (int(x) for x in torch.aminmax(index))
    if low < 0 or high >= graph.num_nodes:
        wrong = low if low < 0 else high
        raise ArgumentError("nodes", f"lie in [0, {graph.num_nodes}), the nodes of the graph", wrong)
    return index.view(-1).to(graph.pairs.device, torch.long)


def k_hop_ball(graph: InteractionGraph, nodes: Tensor | Sequence[int], num_hops: int) -> Tensor:
    r"""Return all nodes at most ``num_hops`` interactions away from ``nodes``, which are included.

    Breadth-first search by whole frontiers: every node's row is read once, so the cost is the number of interactions
    of the nodes within ``num_hops - 1``.

    Args:
        graph: The graph.
        nodes: Homogeneous node ids to start from ``[num_start]``; repeated ones count once.
        num_hops: Radius of the ball; 0 returns the start nodes.

    Returns:
        Sorted node ids (int64) on the device of the graph.

    Raises:
        ValueError: If a node is not in the graph, or ``num_hops`` is not a non-negative integer.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> k_hop_ball(graph, [0], num_hops=1)  # user 0 and the items 0 and 1, which are nodes 3 and 4
        tensor([0, 3, 4])
        >>> k_hop_ball(graph, [0], num_hops=2)
        tensor([0, 1, 3, 4])
    """
    _check_hops(num_hops)
    ball: Tensor = torch.unique(_check_nodes(graph, nodes))
    frontier, adjacency = ball, graph.adjacency
    for hop in range(num_hops):
        found = adjacency.neighbors(frontier)
        if found.numel() + ball.numel() < _SPARSE_SHARE * adjacency.num_nodes:
            inner, ball = ball, torch.unique(torch.cat([ball, found]))
            if hop + 1 < num_hops:
                frontier = ball[~torch.isin(ball, inner)]
        else:
            mark = torch.zeros(adjacency.num_nodes, dtype=torch.bool, device=found.device)
            mark[found] = True
            mark[ball] = False
            frontier = mark.nonzero().view(-1)
            mark[ball] = True
            ball = mark.nonzero().view(-1)
    return ball


def k_hop_subgraph(graph: InteractionGraph, nodes: Tensor | Sequence[int], num_hops: int) -> InteractionGraph:
    r"""Return the subgraph induced on :func:`k_hop_ball`: its nodes, renumbered, and all interactions among them.

    The interactions are those of :func:`torch_geometric.utils.k_hop_subgraph` on the graph with both directions of
    every interaction; each appears once here, from user to item, in the order of ``graph.pairs``. Where all start nodes
    are users, or all are items, they are also exactly the interactions that walks of ``num_hops`` steps can use.

    Args:
        graph: The graph.
        nodes: Homogeneous node ids to start from ``[num_start]``.
        num_hops: Radius of the ball.

    Returns:
        A graph with the raw ids of its nodes and all values of its interactions. ``sub["user"].n_id`` and
        ``sub["item"].n_id`` hold the numbers of its users and items in ``graph``, and
        ``sub["user", "interacts", "item"].e_id`` the positions of its interactions in ``graph.pairs``. See also
        :func:`node_map`.

    Raises:
        ValueError: If a node is not in the graph, or ``num_hops`` is not a non-negative integer.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> sub = k_hop_subgraph(graph, [1], num_hops=1)
        >>> sub.pairs, sub["user"].n_id, sub["item"].n_id
        (tensor([[0],
                [0]]), tensor([1]), tensor([1]))
    """
    ball = k_hop_ball(graph, nodes, num_hops)
    adjacency = graph.adjacency
    users, items = ball[ball < graph.num_users], ball[ball >= graph.num_users]

    # Read the side whose rows hold less: around users (or items) alone it is the inner one, with no row cut off.
    by_user = int(adjacency.degree[users].sum()) <= int(adjacency.degree[items].sum())
    inner, outer = (users, items) if by_user else (items, users)
    entries = adjacency.entries(inner)
    row = torch.repeat_interleave(adjacency.degree[inner].long())
    column = _position(outer, adjacency.col[entries].long())
    inside = column >= 0
    index, order = adjacency.interaction[entries[inside]].long().sort()
    row, column = row[inside][order], column[inside][order]

    items = items - graph.num_users
    sub = InteractionGraph._from_parts(
        torch.stack([row, column] if by_user else [column, row]),
        graph.vocabulary("user").take(users),
        graph.vocabulary("item").take(items),
        {
            key: value[index]
            for key, value in graph[EDGE_TYPE].items()
            if is_per_interaction(key, value, graph.num_interactions)
        },
    )
    sub["user"].n_id, sub["item"].n_id, sub[EDGE_TYPE].e_id = users, items, index
    return sub


def _position(sorted_values: Tensor, values: Tensor) -> Tensor:
    """Return where each of ``values`` stands in ``sorted_values``, or -1."""
    if sorted_values.numel() == 0:
        return torch.full_like(values, -1)
    position = torch.searchsorted(sorted_values, values).clamp_(max=sorted_values.numel() - 1)
    return torch.where(sorted_values[position] == values, position, -1)


def node_map(graph: InteractionGraph, subgraph: InteractionGraph) -> Tensor:
    """Return the homogeneous ids in ``graph`` of all nodes of its :func:`k_hop_subgraph`, users first.

    Args:
        graph: The graph that the subgraph was taken from.
        subgraph: A result of :func:`k_hop_subgraph`.

    Returns:
        Sorted node ids ``[subgraph.num_nodes]``: row ``k`` of a model on the subgraph stands for node ``node_map[k]``.

    Raises:
        ValueError: If ``subgraph`` does not know its original ids.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> node_map(graph, k_hop_subgraph(graph, [1], num_hops=1))
        tensor([1, 4])
    """
    if "n_id" not in subgraph["user"] or "n_id" not in subgraph["item"]:
        raise ArgumentError("subgraph", "carry original ids, as the result of 'k_hop_subgraph' does", "none")
    return torch.cat([subgraph["user"].n_id, subgraph["item"].n_id + graph.num_users])


def _removal(graph: InteractionGraph, request: ForgetRequest | Tensor) -> Tensor:
    """Return the mask of removed interactions ``[num_interactions]``."""
    if not isinstance(request, Tensor):
        return request.mask(graph)
    if request.dtype != torch.bool or request.shape != (graph.num_interactions,):
        raise ArgumentError(
            "request",
            f"be a ForgetRequest or a boolean mask of the {graph.num_interactions} interactions",
            f"{request.dtype} of shape {list(request.shape)}",
        )
    return request.to(graph.pairs.device)


def removed_share(
    graph: InteractionGraph, request: ForgetRequest | Tensor, *, min_degree_change: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Return the endpoints of the removed interactions, and the share of its interactions that each of them loses.

    Args:
        graph: The graph before the removal.
        request: What is removed: a request, or a boolean mask ``[num_interactions]``.
        min_degree_change: Endpoints that lose no more than this share are left out. (default: ``0.0``, keep all)

    Returns:
        Sorted node ids ``[num_endpoints]``, and shares in (0, 1] ``[num_endpoints]`` (float64).

    Raises:
        ValueError: If the mask does not fit the graph, or ``min_degree_change`` is outside [0, 1).

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> removed_share(graph, torch.tensor([True, False, False, False]))
        (tensor([0, 3]), tensor([0.5000, 1.0000], dtype=torch.float64))
    """
    if not 0 <= min_degree_change < 1:
        raise ArgumentError("min_degree_change", "be a share in [0, 1)", min_degree_change)
    user, item = graph.pairs[:, _removal(graph, request).nonzero().view(-1)]
    nodes, count = torch.unique(torch.cat([user, item + graph.num_users]), return_counts=True)
    share = count.double() / graph.adjacency.degree[nodes]
    keep = share > min_degree_change
    return nodes[keep], share[keep]


def affected_nodes(
    graph: InteractionGraph, request: ForgetRequest | Tensor, num_hops: int, *, min_degree_change: float = 0.0
) -> Tensor:
    r"""Return the nodes whose propagated embedding changes when interactions are removed from the graph.

    For :math:`z = \sum_{l=0}^{L} \alpha_l P^l e` with :math:`P = D^{-1/2} A D^{-1/2}` and the same :math:`e` before
    and after. Removing an interaction changes the degrees of its two endpoints, hence every entry of :math:`P` in
    their rows and columns, hence the rows of the endpoints and of their neighbours. After :math:`L` layers :math:`z_v`
    can differ for the nodes within :math:`L` hops of an endpoint, and for no other: there it stays the same bit for
    bit. The set is tight: where no interaction is stored twice, for almost all :math:`\alpha` and :math:`e` every one
    of them does differ. Distances are the same in the graph before and after, since a shortest path *to* the endpoints
    never uses a removed interaction.

    Args:
        graph: The graph before the removal.
        request: What is removed: a request, or a boolean mask ``[num_interactions]``.
        num_hops: Number of propagation layers :math:`L`; without any (0, matrix factorisation) nothing changes.
        min_degree_change: Start only from endpoints that lose more than this share of their interactions. Above 0 the
            answer is an approximation. (default: ``0.0``)

    Returns:
        Sorted node ids (int64).

    Raises:
        ValueError: If the mask does not fit the graph, or an argument is out of range.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> affected_nodes(graph, torch.tensor([True, False, False, False]), num_hops=1)
        tensor([0, 3, 4])
    """
    _check_hops(num_hops)
    endpoints, _ = removed_share(graph, request, min_degree_change=min_degree_change)
    return k_hop_ball(graph, endpoints, num_hops) if num_hops else endpoints[:0]


def affected_interactions(
    graph: InteractionGraph, request: ForgetRequest | Tensor, num_hops: int, *, min_degree_change: float = 0.0
) -> Tensor:
    r"""Return which remaining interactions change their score when others are removed from the graph.

    Those whose user or item is in :func:`affected_nodes`. The removed interactions themselves are never marked: they
    are not part of what remains.

    Args:
        graph: The graph before the removal.
        request: What is removed: a request, or a boolean mask ``[num_interactions]``.
        num_hops: Number of propagation layers; 0 marks nothing.
        min_degree_change: As in :func:`affected_nodes`. (default: ``0.0``)

    Returns:
        Boolean mask over ``graph.pairs`` ``[num_interactions]``.

    Raises:
        ValueError: If the mask does not fit the graph, or an argument is out of range.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), num_users=3, num_items=3)
        >>> affected_interactions(graph, torch.tensor([True, False, False, False]), num_hops=1)
        tensor([False,  True,  True, False])
    """
    removed = _removal(graph, request)
    nodes = affected_nodes(graph, removed, num_hops, min_degree_change=min_degree_change)
    affected = torch.zeros_like(removed)
    affected[graph.adjacency.interaction[graph.adjacency.entries(nodes)].long()] = True
    return affected & ~removed
