"""Models with linear or no propagation of the embedding table."""

from __future__ import annotations

from collections.abc import MutableMapping

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric.nn import LightGCN

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import LinearForm, _check_size, _computes_as, linear_form

__all__ = ["MatrixFactorization", "PositiveLightGCN"]

_POSITIVE: MutableMapping[Tensor, tuple[tuple[int, Tensor], InteractionGraph]] = WeakTensorKeyDictionary()


class MatrixFactorization(nn.Module):
    r"""Matrix factorisation, a recommender without propagation: :math:`s_{ui} = \langle e_u, e_i \rangle`.

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Dimension of the embeddings.

    Source: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", Computer 2009.

    Example:
        >>> import torch
        >>> MatrixFactorization(5, 8)(torch.tensor([[0, 1], [3, 4]])).shape
        torch.Size([2])
    """

    def __init__(self, num_nodes: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_nodes, self.embedding_dim = num_nodes, embedding_dim
        self.embedding = nn.Embedding(num_nodes, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise the table."""
        nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, edge_label_index: Tensor) -> Tensor:
        """Return the scores of node pairs.

        Args:
            edge_label_index: Node ids of users and items, with items numbered after users ``[2, num_pairs]``.

        Returns:
            The scores ``[num_pairs]``.
        """
        user, item = self.embedding(edge_label_index)
        scores: Tensor = (user * item).sum(-1)
        return scores


@linear_form.register
def _(model: MatrixFactorization, graph: InteractionGraph) -> LinearForm | None:
    if not _computes_as(model, MatrixFactorization):
        return None
    _check_size(model.num_nodes, model, graph)
    return LinearForm("embedding.weight", (1.0,), None)


class PositiveLightGCN(LightGCN):
    """LightGCN that propagates only over the interactions with label 1, but is trained on all interactions.

    Source: the public code of Zhang et al., arXiv 2307.02147, which builds its graph from positive labels.
    """


@linear_form.register
def _(model: PositiveLightGCN, graph: InteractionGraph) -> LinearForm:
    _check_size(model.num_nodes, model, graph)
    label = graph.label
    if label is None:
        raise ArgumentError("graph", "carry a 'label' for every interaction", "none")
    state, known = (label._version, graph.pairs), _POSITIVE.get(label)
    if known is None or known[0][0] != state[0] or known[0][1] is not state[1]:
        known = _POSITIVE[label] = (state, graph.select(label == 1))
    weight = model.embedding.weight
    return LinearForm("embedding.weight", tuple(model.alpha.tolist()), known[1].adjacency.normalized(weight.dtype))
