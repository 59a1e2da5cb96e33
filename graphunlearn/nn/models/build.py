"""Construction of models from their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn
from torch_geometric.nn import LightGCN

from graphunlearn.data import EventGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.schema import check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.models.bert4rec import BERT4Rec
from graphunlearn.nn.models.contrast import SGL, SimGCL
from graphunlearn.nn.models.factorization import MatrixFactorization, PositiveLightGCN
from graphunlearn.nn.models.gcegnn import GCEGNN
from graphunlearn.nn.models.narm import NARM
from graphunlearn.nn.models.ngcf import NGCF
from graphunlearn.nn.models.sasrec import SASRec
from graphunlearn.nn.models.session import GRU4Rec
from graphunlearn.nn.models.srgnn import SRGNN

__all__ = ["MODELS", "build_model", "kind_of"]


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
    "narm": _Entry(NARM, "sessions", 1),
    "bert4rec": _Entry(BERT4Rec, "sessions", 2),
    "gcegnn": _Entry(GCEGNN, "sessions", 1),
}
MODELS = tuple(_ENTRIES)
"""The model names that :func:`build_model` accepts."""


def kind_of(name: str) -> Kind:
    """Return the kind of graph that a model is trained on.

    Args:
        name: The name of the model.

    Returns:
        ``"interactions"`` or ``"sessions"``.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> kind_of("lightgcn"), kind_of("srgnn")
        ('interactions', 'sessions')
    """
    if name not in _ENTRIES:
        raise ArgumentError("model", f"be one of {', '.join(MODELS)}", f"{name!r}")
    return _ENTRIES[name].kind


def build_model(name: str, graph: EventGraph, dim: int = 64, layers: int | None = None) -> nn.Module:
    """Return an untrained recommender for ``graph`` on the device of the graph.

    Args:
        name: For interactions ``"lightgcn"`` (``torch_geometric.nn.LightGCN``), ``"mf"``
            (:class:`MatrixFactorization`), ``"sgl"`` (:class:`SGL`), ``"simgcl"`` (:class:`SimGCL`), ``"ngcf"``
            (:class:`NGCF`), or ``"lightgcn-positives"``, which propagates over positive labels only; for sessions
            ``"srgnn"`` (:class:`SRGNN`), ``"gru4rec"`` (:class:`GRU4Rec`), ``"sasrec"`` (:class:`SASRec`), ``"narm"``
            (:class:`NARM`), ``"bert4rec"`` (:class:`BERT4Rec`), or ``"gcegnn"`` (:class:`GCEGNN`).
        graph: The graph whose users and items (or only items, for sessions) have embeddings.
        dim: Dimension of the embeddings.
        layers: Number of layers or steps; matrix factorisation has none. The default is one for SR-GNN, GRU4Rec,
            NARM and GCE-GNN, and two for the others.

    Returns:
        The model.

    Raises:
        ValueError: The name is unknown, the model is made for the other kind of graph, or a size is not positive.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]))
        >>> build_model("lightgcn", graph, dim=8, layers=3)
        LightGCN(4, 8, num_layers=3)
    """
    known = [other for other, entry in _ENTRIES.items() if entry.kind == graph.kind]
    if name not in known:
        wanted = "a SessionGraph" if graph.kind == "sessions" else "an InteractionGraph"
        kinds = f" for {wanted}" if name in _ENTRIES else ""
        raise ArgumentError("model", f"be one of {', '.join(known)}{kinds}", f"{name!r}")
    entry = _ENTRIES[name]
    layers = entry.layers if layers is None else layers
    check_sizes(dim=dim, layers=layers)
    rows = graph.num_rows
    return entry.make(*((rows, dim) if name == "mf" else (rows, dim, layers))).to(graph.device)
