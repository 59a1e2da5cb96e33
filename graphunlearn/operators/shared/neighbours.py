"""Means over neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.func import csr

__all__ = ["neighbour_means"]


def neighbour_means(graph: InteractionGraph, rows: Tensor) -> Tensor:
    r"""Return the mean of the neighbours' rows, :math:`D^{-1} A x` ``[num_nodes, dim]``; zero for isolated nodes."""
    adjacency = graph.adjacency
    share = adjacency.degree.clamp(min=1).to(rows.dtype).reciprocal()
    values = torch.repeat_interleave(share, adjacency.degree)
    return csr(adjacency.rowptr, adjacency.col, values, (graph.num_nodes, graph.num_nodes)) @ rows
