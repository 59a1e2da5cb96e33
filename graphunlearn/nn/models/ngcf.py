"""NGCF: a recommender with non-linear propagation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.data.schema import check_sizes
from graphunlearn.func import spmm
from graphunlearn.nn.encoding import Encoded, _check_size, encode, num_hops

__all__ = ["NGCF"]

SLOPE = 0.2  # of the leaky ReLU, as in the authors' code


class BiInteraction(nn.Module):
    r"""One layer of NGCF: :math:`\mathrm{LeakyReLU}((\hat A E + E) W_1 + (\hat A E \odot E) W_2)`.

    Args:
        dim: Dimension of the embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sum = nn.Linear(dim, dim, bias=False)
        self.product = nn.Linear(dim, dim, bias=False)

    def forward(self, rows: Tensor, matrix: Tensor) -> Tensor:
        """Return the embeddings of the next layer.

        Args:
            rows: The embeddings of this layer ``[num_nodes, dim]``.
            matrix: The normalised adjacency in CSR ``[num_nodes, num_nodes]``.

        Returns:
            The embeddings ``[num_nodes, dim]``.
        """
        near = spmm(matrix, rows)
        return F.leaky_relu(self.sum(near + rows) + self.product(near * rows), SLOPE)


class NGCF(nn.Module):
    r"""Neural graph collaborative filtering, with weights, a bi-interaction term and a leaky ReLU in every layer.

    .. math::
        E^{(l)} = \mathrm{LeakyReLU}\big((\hat A + I) E^{(l-1)} W_1^{(l)}
            + (\hat A E^{(l-1)} \odot E^{(l-1)}) W_2^{(l)}\big), \qquad
        Z = \Big[E^{(0)}, \tfrac{E^{(1)}}{\|E^{(1)}\|}, \dots, \tfrac{E^{(L)}}{\|E^{(L)}\|}\Big]

    with :math:`\hat A = D^{-1/2} A D^{-1/2}`, where norms are taken row by row. A score is the dot product of two rows
    of :math:`Z`. Unlike in the paper, there is no dropout, so that embeddings depend on the parameters and the graph
    only. Early stopping regularises instead.

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Dimension of the table and of every layer.
        num_layers: Number of layers :math:`L`; the embeddings have dimension ``(num_layers + 1) * embedding_dim``.

    Raises:
        ValueError: ``num_layers`` is less than 1.

    Source: Wang et al., "Neural Graph Collaborative Filtering", SIGIR 2019.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
        >>> gu.encode(NGCF(4, 8, num_layers=2), graph).queries.shape
        torch.Size([2, 24])
    """

    def __init__(self, num_nodes: int, embedding_dim: int, num_layers: int) -> None:
        check_sizes(num_layers=num_layers)
        super().__init__()
        self.num_nodes, self.embedding_dim = num_nodes, embedding_dim
        self.embedding = nn.Embedding(num_nodes, embedding_dim)
        self.layers = nn.ModuleList(BiInteraction(embedding_dim) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter)

    def forward(self, matrix: Tensor) -> Tensor:
        r"""Return :math:`Z` ``[num_nodes, (num_layers + 1) * embedding_dim]``.

        Args:
            matrix: The normalised adjacency in CSR, ``graph.adjacency.normalized()``.
        """
        rows = self.embedding.weight
        out = [rows]
        for layer in self.layers:
            rows = layer(rows, matrix)
            out.append(F.normalize(rows, dim=1))
        return torch.cat(out, dim=1)


@encode.register
def _(model: NGCF, graph: InteractionGraph) -> Encoded:
    _check_size(model.num_nodes, model, graph)
    table, sizes = model.embedding.weight, [graph.num_users, graph.num_items]
    users, items = model(graph.adjacency.normalized(table.dtype)).split(sizes)
    return Encoded(users, items, *table.split(sizes))


@num_hops.register
def _(model: NGCF, graph: InteractionGraph) -> int:
    return len(model.layers)
