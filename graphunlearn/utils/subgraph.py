"""K-hop neighbourhoods, and the nodes and interactions that a removal of interactions affects.

The functions read only the rows of the visited nodes in ``graph.adjacency`` (CSR), so that the running time depends on
the size of the neighbourhood rather than on the size of the graph. Node numbers are those of the adjacency: users
first, then items.
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

# For fewer nodes than this share of the graph, sorting them is faster than a mask over all nodes.
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
    r"""Return all nodes within ``num_hops`` hops of the given nodes, including these nodes.

    This is a breadth-first search that expands one frontier per hop. The row of every node is read at most once, so the
    running time is proportional to the number of interactions of the nodes within ``num_hops - 1`` hops.

    Args:
        graph: The graph.
        nodes: Node numbers to start from, repeats allowed ``[num_start]``.
        num_hops: Radius of the ball; 0 returns the start nodes.

    Returns:
        Sorted node numbers on the device of the graph ``[num_found]`` (int64).

    Raises:
        ValueError: A node is not in the graph, or ``num_hops`` is not an integer from 0.

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
    r"""Return the subgraph induced by :func:`k_hop_ball`: its nodes, renumbered, and all interactions between them.

    :func:`torch_geometric.utils.k_hop_subgraph` gives the same interactions on the graph with both directions of every
    interaction; here each appears once, from user to item, in the order of ``graph.pairs``. If the start nodes are all
    users or all items, these are exactly the interactions on walks of ``num_hops`` steps from the start nodes.

    Args:
        graph: The graph.
        nodes: Node numbers to start from ``[num_start]``.
        num_hops: Radius of the ball.

    Returns:
        A graph with the raw ids of its nodes and all attributes of its interactions. ``sub["user"].n_id`` and
        ``sub["item"].n_id`` hold the numbers of its users and items in ``graph``, and
        ``sub["user", "interacts", "item"].e_id`` holds the positions of its interactions in ``graph.pairs``. See also
        :func:`node_map`.

    Raises:
        ValueError: A node is not in the graph, or ``num_hops`` is not an integer from 0.

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

    # Only the rows of users or those of items are read, whichever have fewer entries.
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
    """Return the position of every value in ``sorted_values``, or -1 if it does not occur ``[num_values]``."""
    if sorted_values.numel() == 0:
        return torch.full_like(values, -1)
    position = torch.searchsorted(sorted_values, values).clamp_(max=sorted_values.numel() - 1)
    return torch.where(sorted_values[position] == values, position, -1)


def node_map(graph: InteractionGraph, subgraph: InteractionGraph) -> Tensor:
    """Return the node numbers in ``graph`` of all nodes of a :func:`k_hop_subgraph`, users first.

    Args:
        graph: The original graph.
        subgraph: A result of :func:`k_hop_subgraph` on ``graph``.

    Returns:
        Sorted node numbers ``[subgraph.num_nodes]``; node ``k`` of the subgraph is node ``node_map[k]`` of the graph.

    Raises:
        ValueError: ``subgraph`` is not a result of :func:`k_hop_subgraph`.

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
    r"""Return the endpoints of the removed interactions, and the share of its interactions that each endpoint loses.

    Args:
        graph: The graph before the removal.
        request: The removed interactions: a request, or a boolean mask ``[num_interactions]``.
        min_degree_change: Endpoints that lose at most this share are left out.

    Returns:
        Sorted node numbers ``[num_endpoints]``, and shares in (0, 1] ``[num_endpoints]`` (float64).

    Raises:
        ValueError: The mask does not fit the graph, or ``min_degree_change`` is outside [0, 1).

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
    r"""Return the nodes whose propagated embedding changes if interactions are removed from the graph.

    The propagated embeddings are :math:`z = \sum_{l=0}^{L} \alpha_l P^l e` with :math:`P = D^{-1/2} A D^{-1/2}`, where
    the table :math:`e` is the same before and after the removal. Removing an interaction changes the degrees of its two
    endpoints, and thereby all entries of :math:`P` in their rows and columns. After :math:`L` layers, :math:`z_v` can
    change only if :math:`v` is within :math:`L` hops of an endpoint; all other embeddings stay bit for bit the same.
    Conversely, if no interaction is stored twice, the embeddings of all these nodes change for almost all
    :math:`\alpha` and :math:`e`. It does not matter whether hops are counted before or after the removal, because a
    shortest path to the nearest endpoint contains no removed interaction.

    Args:
        graph: The graph before the removal.
        request: The removed interactions: a request, or a boolean mask ``[num_interactions]``.
        num_hops: Number of propagation layers :math:`L`; with 0 (matrix factorisation), no embedding changes.
        min_degree_change: Endpoints that lose at most this share of their interactions are ignored. With a value above
            0, the result is an approximation.

    Returns:
        Sorted node numbers ``[num_affected]`` (int64).

    Raises:
        ValueError: The mask does not fit the graph, or an argument is out of range.

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
    r"""Return the retained interactions whose score changes if interactions are removed from the graph.

    These are the retained interactions of the users and items in :func:`affected_nodes`.

    Args:
        graph: The graph before the removal.
        request: The removed interactions: a request, or a boolean mask ``[num_interactions]``.
        num_hops: Number of propagation layers; with 0, no score changes.
        min_degree_change: As in :func:`affected_nodes`.

    Returns:
        Boolean mask of the interactions of ``graph`` ``[num_interactions]``.

    Raises:
        ValueError: The mask does not fit the graph, or an argument is out of range.

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
