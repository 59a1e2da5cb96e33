"""The mean embedding of the neighbours of every node, and random walks to neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.func import csr

__all__ = ["neighbour_means", "random_walk"]


def neighbour_means(graph: InteractionGraph, rows: Tensor) -> Tensor:
    r"""Return the mean embedding of the neighbours of every node, :math:`D^{-1} A X`.

    Args:
        graph: The graph with adjacency :math:`A` and degrees :math:`D`.
        rows: The embeddings :math:`X` of users, then items ``[num_nodes, dim]``.

    Returns:
        The means ``[num_nodes, dim]``; zero for nodes without neighbours.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0], [0, 1]]))
        >>> neighbour_means(graph, torch.tensor([[1.0], [2.0], [4.0]]))
        tensor([[3.],
                [1.],
                [1.]])
    """
    adjacency = graph.adjacency
    share = adjacency.degree.clamp(min=1).to(rows.dtype).reciprocal()
    values = torch.repeat_interleave(share, adjacency.degree)
    return csr(adjacency.rowptr, adjacency.col, values, (graph.num_nodes, graph.num_nodes)) @ rows


def random_walk(graph: InteractionGraph, nodes: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return the ends of random walks that step to a random neighbour each time.

    Args:
        graph: The graph; items are numbered after users.
        nodes: The first node of every walk ``[num]``; each must have an interaction.
        steps: Number of steps.
        generator: Generator of the steps, on the CPU.

    Returns:
        The last nodes ``[num]``.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0], [0, 1]]))
        >>> random_walk(graph, torch.tensor([1, 2]), 1, torch.Generator())
        tensor([0, 0])
    """
    adjacency = graph.adjacency
    for _ in range(steps):
        place = (torch.rand(len(nodes), generator=generator).to(nodes.device) * adjacency.degree[nodes]).long()
        nodes = adjacency.col[adjacency.rowptr[nodes].long() + place].long()
    return nodes
