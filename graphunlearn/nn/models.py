"""Models that PyTorch Geometric does not bring."""

from __future__ import annotations

from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encode import LinearForm, _check_size, linear_form

__all__ = ["MatrixFactorization"]


class MatrixFactorization(nn.Module):
    r"""Matrix factorisation: :math:`s_{ui} = \langle e_u, e_i \rangle`, the recommender without any propagation.

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Width of a row.

    Source: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", Computer 2009.

    Example:
        >>> MatrixFactorization(5, 8)(torch.tensor([[0, 1], [3, 4]])).shape
        torch.Size([2])
    """

    def __init__(self, num_nodes: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_nodes, self.embedding_dim = num_nodes, embedding_dim
        self.embedding = nn.Embedding(num_nodes, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, edge_label_index: Tensor) -> Tensor:
        """Return the scores ``[num_pairs]`` of homogeneous node pairs ``[2, num_pairs]`` (items after users)."""
        return (self.embedding(edge_label_index[0]) * self.embedding(edge_label_index[1])).sum(-1)


@linear_form.register
def _(model: MatrixFactorization, graph: InteractionGraph) -> LinearForm:
    _check_size(model.num_nodes, model, graph)
    return LinearForm("embedding.weight", (1.0,), None)
