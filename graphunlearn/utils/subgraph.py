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
from graphunlearn.func.adjacency import Adjacency

if TYPE_CHECKING:
    from graphunlearn.data.request import ForgetRequest

__all__ = ["affected_interactions", "affected_nodes", "k_hop_ball", "k_hop_subgraph", "node_map", "removed_share"]

# Found nodes are sorted if they are fewer than this share of all nodes; otherwise they are marked in a mask over all.
_SPARSE_SHARE = 1 / 4


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
    reached, _, _ = _search(graph, graph.adjacency, nodes, num_hops)
    return torch.cat(reached).long()


def _search(
    graph: InteractionGraph, adjacency: Adjacency, nodes: Tensor | Sequence[int], num_hops: int
) -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor, Tensor]], int | None]:
    """Return the users and the items of a ball, and what the search has read of one side.

    Neighbours of users are items and conversely, so that what is found from one side is merged into the other alone.
    If the start nodes are all users or all items, all nodes at the rim are on one side; the rows of the other side, all
    of which are read, hold the interactions of the ball and no others.

    Returns:
        Sorted node numbers of the users and of the items (int32); rows read, with the CSR positions of their entries;
        the side of these rows, 0 for users and 1 for items, or ``None`` if the ball has interactions outside of them.
    """
    _check_hops(num_hops)
    start = _check_nodes(graph, nodes).int()
    if start.numel() > 1:
        start = torch.unique_consecutive(_ascending(start))
    split = int(torch.searchsorted(start, graph.num_users)) if start.numel() else 0
    none, last = start[:0], 0
    reached = [start[:split], start[split:]]
    frontier = reached.copy()
    read: tuple[list[tuple[Tensor, Tensor]], ...] = ([(none, none)], [(none, none)])
    for hop in range(num_hops):
        expanded, frontier = frontier, [none, none]
        for side, rows in enumerate(expanded):
            if rows.numel():
                last, other = side, 1 - side
                entries, inner = adjacency.entries(rows), reached[other]
                found = torch.cat([inner, adjacency.col.index_select(0, entries)])
                reached[other] = _distinct(found, adjacency.num_nodes)
                read[side].append((rows, entries))
                if hop + 1 < num_hops:
                    frontier[other] = _without(reached[other], inner)
    return (reached[0], reached[1]), read[last], None if 0 < split < start.numel() else last


def _ascending(values: Tensor) -> Tensor:
    """Return the integers sorted, on a CPU in place: NumPy has vector instructions for it, up to 30 times as fast."""
    if values.device.type != "cpu":
        return values.sort().values
    values.numpy().sort()
    return values


def _ranked(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return distinct integers sorted, and the positions that sort them (int64)."""
    if values.device.type != "cpu" or values.numel() < 128:
        values, order = values.sort()
        return values.long(), order
    place = torch.arange(len(values), device=values.device)
    packed = _ascending(values.long().bitwise_left_shift_(32).add_(place))
    return packed >> 32, packed & 0xFFFFFFFF


def _distinct(nodes: Tensor, num_nodes: int) -> Tensor:
    """Return the distinct nodes, sorted; ``nodes`` may be overwritten."""
    if nodes.numel() < _SPARSE_SHARE * num_nodes:
        return torch.unique_consecutive(_ascending(nodes))
    mark = torch.zeros(num_nodes, dtype=torch.bool, device=nodes.device)
    mark[nodes.long()] = True
    return mark.nonzero().view(-1).to(nodes.dtype)


def _without(nodes: Tensor, inner: Tensor) -> Tensor:
    """Return the distinct ``nodes`` without ``inner``, which are some of them, sorted."""
    if not inner.numel():
        return nodes
    node, count = torch.unique_consecutive(_ascending(torch.cat([nodes, inner])), return_counts=True)
    return node[count == 1]


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
    adjacency, size = graph.adjacency, graph.num_interactions
    reached, read, side = _search(graph, adjacency, nodes, num_hops)
    whole = side is not None
    if side is None:  # the rows of one side are read, of which fewer entries lead out of the ball
        side = int(adjacency.degree[reached[1]].sum() < adjacency.degree[reached[0]].sum())
        read = [(reached[side], adjacency.entries(reached[side]))]
    rows, entries = read[-1] if len(read) <= 2 else map(torch.cat, zip(*read))
    count = adjacency.degree.index_select(0, rows)
    inner = torch.repeat_interleave(adjacency.positions(reached[side], rows), count, output_size=len(entries))
    found, others = adjacency.col.index_select(0, entries), reached[1 - side]
    outer = adjacency.positions(others, found)
    if not whole:
        inside = (others.index_select(0, outer.clamp(0, len(others) - 1)) == found).nonzero().view(-1)
        inner, outer, entries = (values.index_select(0, inside) for values in (inner, outer, entries))
    index, order = _ranked(adjacency.interaction.index_select(0, entries))
    ends = [inner.index_select(0, order), outer.index_select(0, order)]

    users, items = reached[0], reached[1] - graph.num_users
    values = graph[EDGE_TYPE].items()
    carried = {key: value.index_select(0, index) for key, value in values if is_per_interaction(key, value, size)}
    return InteractionGraph._assembled(
        {
            "user": {"vocabulary": graph.vocabulary("user").part(users), "n_id": users.long()},
            "item": {"vocabulary": graph.vocabulary("item").part(items), "n_id": items.long()},
        },
        {"edge_index": torch.stack(ends[::-1] if side else ends).long(), **carried, "e_id": index},
    )


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
    removed = _removal(graph, request).nonzero().view(-1) if isinstance(request, Tensor) else request.positions(graph)
    user, item = (end.index_select(0, removed) for end in graph.pairs)
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
    nodes = affected_nodes(graph, request, num_hops, min_degree_change=min_degree_change)
    affected = torch.zeros_like(removed)
    adjacency = graph.adjacency
    affected.index_fill_(0, adjacency.interaction.index_select(0, adjacency.entries(nodes)).long(), True)
    return affected & ~removed
