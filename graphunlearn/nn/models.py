"""Models that PyTorch Geometric does not bring."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric.nn import LightGCN

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.nn.contrast import SGL, SimGCL
from graphunlearn.nn.encode import LinearForm, _check_size, _computes_as, linear_form
from graphunlearn.nn.ngcf import NGCF
from graphunlearn.nn.sasrec import SASRec
from graphunlearn.nn.session_models import GRU4Rec
from graphunlearn.nn.srgnn import SRGNN

__all__ = ["MODELS", "MatrixFactorization", "build_model", "kind_of"]

Kind = Literal["interactions", "sessions"]


class MatrixFactorization(nn.Module):
    r"""Matrix factorisation: :math:`s_{ui} = \langle e_u, e_i \rangle`, the recommender without any propagation.

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Width of a row.

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
        """Draw the table anew."""
        nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, edge_label_index: Tensor) -> Tensor:
        """Return the scores ``[num_pairs]`` of homogeneous node pairs ``[2, num_pairs]`` (items after users)."""
        user, item = self.embedding(edge_label_index)
        scores: Tensor = (user * item).sum(-1)
        return scores


@linear_form.register
def _(model: MatrixFactorization, graph: InteractionGraph) -> LinearForm | None:
    if not _computes_as(model, MatrixFactorization):
        return None
    _check_size(model.num_nodes, model, graph)
    return LinearForm("embedding.weight", (1.0,), None)


class PositiveLightGCN(LightGCN):  # type: ignore[misc]
    """LightGCN that propagates over the interactions labelled 1 only; all of them are still trained on.

    Source: the public code of Zhang et al., arXiv 2307.02147, builds its graph from positive labels.
    """


_POSITIVE: MutableMapping[Tensor, tuple[tuple[int, Tensor], InteractionGraph]] = WeakTensorKeyDictionary()


@linear_form.register
def _(model: PositiveLightGCN, graph: InteractionGraph) -> LinearForm:
    _check_size(model.num_nodes, model, graph)
    label = graph.label
    if label is None:
        raise ValueError("'graph' must carry a 'label' for every interaction (got none)")
    state, known = (label._version, graph.pairs), _POSITIVE.get(label)
    if known is None or known[0][0] != state[0] or known[0][1] is not state[1]:
        known = _POSITIVE[label] = (state, graph.select(label == 1))
    weight = model.embedding.weight
    return LinearForm("embedding.weight", tuple(model.alpha.tolist()), known[1].adjacency.normalized(weight.dtype))


class _Entry(NamedTuple):
    make: Callable[..., nn.Module]
    kind: Kind = "interactions"
    layers: int = 2


_ENTRIES: dict[str, _Entry] = {
    "lightgcn": _Entry(LightGCN),
    "mf": _Entry(MatrixFactorization),
    "lightgcn-positives": _Entry(PositiveLightGCN),
    "sgl": _Entry(SGL),
    "simgcl": _Entry(SimGCL),
    "ngcf": _Entry(NGCF),
    "srgnn": _Entry(SRGNN, "sessions", 1),
    "gru4rec": _Entry(GRU4Rec, "sessions", 1),
    "sasrec": _Entry(SASRec, "sessions", 2),
}

MODELS = tuple(_ENTRIES)
"""Names that :func:`build_model` knows."""


def kind_of(name: str) -> Kind:
    """Return what the named model learns from: ``"interactions"`` of users and items, or ``"sessions"``.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> kind_of("lightgcn"), kind_of("srgnn")
        ('interactions', 'sessions')
    """
    if name not in _ENTRIES:
        raise ValueError(f"'model' must be one of {', '.join(MODELS)} (got {name!r})")
    return _ENTRIES[name].kind


def build_model(
    name: str, graph: InteractionGraph | SessionGraph, dim: int = 64, layers: int | None = None
) -> nn.Module:
    """Return an untrained recommender for ``graph``, on its device.

    Args:
        name: For interactions ``"lightgcn"`` (``torch_geometric.nn.LightGCN``), ``"mf"``
            (:class:`MatrixFactorization`), ``"sgl"`` (:class:`SGL`), ``"simgcl"`` (:class:`SimGCL`), ``"ngcf"``
            (:class:`NGCF`), or ``"lightgcn-positives"``, which propagates over positive labels only; for sessions
            ``"srgnn"`` (:class:`SRGNN`), ``"gru4rec"`` (:class:`GRU4Rec`), or ``"sasrec"`` (:class:`SASRec`).
        graph: Whose users and items, or items, get rows.
        dim: Width of a row.
        layers: Layers or steps; matrix factorisation has none. By default one of SR-GNN and GRU4Rec, two elsewhere.

    Raises:
        ValueError: The name is unknown, the model is made for the other kind of graph, or a size is not positive.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]))
        >>> build_model("lightgcn", graph, dim=8, layers=3)
        LightGCN(4, 8, num_layers=3)
    """
    kind: Kind = "sessions" if isinstance(graph, SessionGraph) else "interactions"
    known = [other for other, entry in _ENTRIES.items() if entry.kind == kind]
    if name not in known:
        wanted = "a SessionGraph" if kind == "sessions" else "an InteractionGraph"
        kinds = f" for {wanted}" if name in _ENTRIES else ""
        raise ValueError(f"'model' must be one of {', '.join(known)}{kinds} (got {name!r})")
    entry = _ENTRIES[name]
    layers = entry.layers if layers is None else layers
    for argument, value in (("dim", dim), ("layers", layers)):
        if value < 1:
            raise ValueError(f"'{argument}' must be at least 1 (got {value})")
    if isinstance(graph, SessionGraph):
        return entry.make(graph.num_items, dim, layers).to(graph.device)
    sizes = (graph.num_nodes, dim) if name == "mf" else (graph.num_nodes, dim, layers)
    return entry.make(*sizes).to(graph.pairs.device)
