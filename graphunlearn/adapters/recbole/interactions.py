"""RecBole's recommenders of users and items: LightGCN, NGCF, SGL and BPR, computed here and written back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import LightGCN

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import spmm
from graphunlearn.nn import BPR, SGL, Encoded, MatrixFactorization, encode, num_hops
from graphunlearn.nn.encoding import _check_size
from graphunlearn.operators.base import _evaluating

__all__ = ["MODELS", "PropagatedNGCF", "graph_of", "objective_of", "refreshed", "settled", "to_native", "write_back"]

VIEWS: dict[str, Any] = {"ED": "edge-drop", "ND": "node-drop", "RW": "random-walk"}
SLOPE = 0.2  # of the leaky ReLU that RecBole's NGCF has
CACHES = ("restore_user_e", "restore_item_e")
TOLERANCE = 1e-4  # of rows, beside their largest entry: single precision, summed in another order


class PropagatedNGCF(nn.Module):
    r"""NGCF as RecBole computes it: layers have biases, and normalised rows are what the next layer propagates.

    .. math::
        E^{(l)} = \mathrm{normalise}\,\mathrm{LeakyReLU}\big((\hat A + I) E^{(l-1)} W_1 + b_1
            + (\hat A E^{(l-1)} \odot E^{(l-1)}) W_2 + b_2\big), \qquad Z = [E^{(0)}, \dots, E^{(L)}]

    Dropout of messages and nodes is part of RecBole's training, not of what the model computes, and is left out here.

    Args:
        num_nodes: Number of users plus items; users come first.
        sizes: Width of the table, then of every layer.

    Source: RecBole 1.2.1, ``recbole.model.general_recommender.NGCF``, after Wang et al., SIGIR 2019.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
        >>> gu.encode(PropagatedNGCF(4, [8, 6]), graph).queries.shape
        torch.Size([2, 14])
    """

    def __init__(self, num_nodes: int, sizes: list[int]) -> None:
        super().__init__()
        self.num_nodes = num_nodes
        self.embedding = nn.Embedding(num_nodes, sizes[0])
        pairs = list(pairwise(sizes))
        self.sums = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.products = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as RecBole does: Xavier normal, biases zero."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the rows of all nodes ``[num_nodes, sum(sizes)]`` over a normalised adjacency in CSR."""
        rows = self.embedding.weight
        out = [rows]
        for by_sum, by_product in zip(self.sums, self.products):
            near = spmm(matrix, rows)
            rows = F.normalize(F.leaky_relu(by_sum(rows + near) + by_product(near * rows), SLOPE), dim=1)
            out.append(rows)
        return torch.cat(out, dim=1)


@encode.register
def _(model: PropagatedNGCF, graph: InteractionGraph) -> Encoded:
    _check_size(model.num_nodes, model, graph)
    rows = model(graph.adjacency.normalized(model.embedding.weight.dtype))
    return Encoded(*rows.split([graph.num_users, graph.num_items]))  # RecBole penalises the final rows as well


@num_hops.register
def _(model: PropagatedNGCF, graph: InteractionGraph) -> int:
    return len(model.sums)


def graph_of(dataset: Any, device: torch.device | str = "cpu") -> InteractionGraph:
    """Return the interactions of a RecBole dataset with their raw ids; node ``n`` is RecBole's id ``n + 1``.

    RecBole's id 0 pads, and is no user and no item. A pair that is there twice counts once.
    """
    users, items = dataset.uid_field, dataset.iid_field
    pairs = torch.stack([torch.as_tensor(dataset.inter_feat[field]).long() - 1 for field in (users, items)])
    return InteractionGraph.from_edges(
        pairs.to(device),
        dataset.user_num - 1,
        dataset.item_num - 1,
        user_ids=tokens(dataset, users),
        item_ids=tokens(dataset, items),
    )


def tokens(dataset: Any, field: str) -> list[str]:
    """Return the raw ids of a field, RecBole's padding left out."""
    return [str(token) for token in dataset.field2id_token[field][1:]]


def to_native(model: Any, num_nodes: int) -> nn.Module:
    """Return a module of this package that computes what a RecBole model does, with a copy of its parameters.

    Raises:
        ValueError: The model has other rows than there are nodes.
    """
    rows = [len(table.weight) - 1 for table in (model.user_embedding, model.item_embedding)]
    if sum(rows) != num_nodes:
        raise ArgumentError(
            "model",
            f"be one of the training data passed, of {num_nodes} users and items",
            f"one of {' + '.join(map(str, rows))}",
        )
    native: nn.Module = MODELS[type(model).__name__](model, num_nodes)
    native.to(next(model.parameters()).device)
    with torch.no_grad():
        for mine, theirs in _pairs(native, model):
            mine.copy_(torch.cat([table[1:] for table in theirs]) if len(theirs) > 1 else theirs[0])
    return native.eval()


@torch.no_grad()
def write_back(native: nn.Module, model: nn.Module) -> None:
    """Write the parameters of ``native`` into a RecBole model: the reverse of :func:`to_native`."""
    for mine, theirs in _pairs(native, model):
        if len(theirs) == 1:
            theirs[0].copy_(mine)
            continue
        for table, rows in zip(theirs, mine.split([len(table) - 1 for table in theirs])):
            table[1:] = rows


@torch.no_grad()
def settled(native: nn.Module, model: Any, graph: InteractionGraph, retained: InteractionGraph) -> nn.Module:
    """Return ``native`` with emptied users where RecBole's training takes them, if a method has moved them at all.

    SGL contrasts every user with every other one, and so moves all users without interactions to nearly one row.
    RecBole's padding row is such a user, and tells which.
    """
    if not (isinstance(native, SGL) and native.weight):
        return native
    padding, table = model.user_embedding.weight[0], model.user_embedding.weight[1:]
    moved = (native.embedding.weight[: graph.num_users] != table).any(1)
    emptied = (graph.emptied(retained)[: graph.num_users] & moved).nonzero().flatten()
    after = copy.deepcopy(native)
    after.embedding.weight[emptied] = padding
    return after


def _pairs(native: Any, model: Any) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield every parameter of ``native`` with RecBole's: two padded tables for the first, one of a kind after that."""
    yield native.embedding.weight, (model.user_embedding.weight, model.item_embedding.weight)
    if isinstance(native, PropagatedNGCF):
        mine: Any
        for by_sum, by_product, layer in zip(native.sums, native.products, model.GNNlayers):
            for mine, theirs in ((by_sum, layer.linear), (by_product, layer.interActTransform)):
                yield mine.weight, (theirs.weight,)
                yield mine.bias, (theirs.bias,)


def _sgl(model: Any, num_nodes: int) -> nn.Module:
    return SGL(
        num_nodes,
        model.embed_dim,
        model.n_layers,
        view=VIEWS[model.type],
        drop=model.drop_ratio,
        temperature=model.ssl_tau,
        weight=model.ssl_weight,
    )


MODELS: dict[str, Callable[[Any, int], nn.Module]] = {
    "LightGCN": lambda model, nodes: LightGCN(nodes, model.latent_dim, model.n_layers),
    "BPR": lambda model, nodes: MatrixFactorization(nodes, model.embedding_size),
    "SGL": _sgl,
    "NGCF": lambda model, nodes: PropagatedNGCF(nodes, model.hidden_size_list),
}
"""RecBole's models of users and items, by class name, and what makes their like here."""


def rows_of(model: Any) -> tuple[Tensor, Tensor]:
    """Return the rows that a RecBole model gives users and items, padding included."""
    with torch.no_grad():
        if type(model).__name__ == "BPR":
            return model.user_embedding.weight, model.item_embedding.weight
        users, items = model(model.train_graph) if type(model).__name__ == "SGL" else model()
        return users, items


def check_same(model: nn.Module, native: nn.Module, graph: InteractionGraph) -> None:
    """Refuse a model whose class computes something else than RecBole's class of that name does.

    Raises:
        ValueError: Rows differ.
    """
    with torch.no_grad(), _evaluating(model):
        mine, theirs = encode(native, graph), rows_of(model)
    for name, own, other in zip(("user", "item"), (mine.queries, mine.items), theirs):
        same = own.shape == other[1:].shape
        gap = float((own - other[1:]).abs().max() / other.abs().max().clamp(min=1e-12)) if same else torch.inf
        if not gap <= TOLERANCE:
            twice = ", are pairs there twice, which SGL counts (rm_dup_inter)" if type(model).__name__ == "SGL" else ""
            raise ArgumentError(
                "model",
                f"compute what RecBole's {type(model).__name__} does on the training data passed",
                f"{name} rows that differ by {gap:.2g} of the largest entry",
                f"was it trained on other data{twice}, or is it a subclass? Register your own class with "
                "graphunlearn.encode.register",
            )


def refreshed(model: Any, dataset: Any) -> Any:
    """Return a copy of a RecBole model that propagates over ``dataset``, with nothing cached of what it was before."""
    memo: dict[int, Any] = {}
    for name in CACHES:  # may hold a graph of operations, which cannot be copied
        cached = getattr(model, name, None)
        if cached is not None:
            memo[id(cached)] = None
    after = copy.deepcopy(model, memo)
    for name in CACHES:
        if hasattr(after, name):
            setattr(after, name, None)
    name = type(model).__name__
    if name in ("LightGCN", "NGCF"):
        after.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        after.norm_adj_matrix = after.get_norm_adj_mat().to(after.device)
    elif name == "SGL":
        after._user, after._item = (dataset.inter_feat[field] for field in (dataset.uid_field, dataset.iid_field))
        after.train_graph = after.csr2tensor(after.create_adjust_matrix(is_sub=False))
        for view in ("sub_graph1", "sub_graph2"):  # drawn from what was forgotten; `train()` draws them anew
            after.__dict__.pop(view, None)
    return after


def objective_of(model: Any, batch_size: int) -> BPR:
    r"""Return the loss that RecBole trained a model with, as one per interaction.

    RecBole's penalty is :math:`\lambda (\|E_u\|_F + \|E_i\|_F + \|E_j\|_F) / B` of the rows in a batch of :math:`B`,
    where it is not squared (``require_pow``). Its gradient is that of :math:`\frac{\lambda'}{2}\|e\|^2` per sample with
    :math:`\lambda' = \lambda / \|E\|_F`, which is taken at the trained rows; SGL, whose ranking loss is a sum and not a
    mean, divides by :math:`B` once more.
    """
    decay = float(getattr(model, "reg_weight", 0.0) or 0.0)
    if decay and not getattr(model, "require_pow", False):
        with torch.no_grad():
            squared = (
                model.user_embedding.weight.square().sum(1).mean() + model.item_embedding.weight.square().sum(1).mean()
            )
        layers = len(getattr(model, "GNNlayers", ()))  # NGCF's penalty is of its rows, whose layers have length 1
        decay /= max((float(squared / 2) + layers) * batch_size, 1e-12) ** 0.5
    if type(model).__name__ == "SGL":
        decay /= batch_size
    return BPR(weight_decay=decay)
