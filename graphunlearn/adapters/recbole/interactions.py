"""RecBole's LightGCN, NGCF, SGL and BPR as models of this package, and back."""

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
from graphunlearn.operators.shared.evaluating import evaluating

__all__ = ["MODELS", "PropagatedNGCF", "graph_of", "objective_of", "refreshed", "settled", "to_native", "write_back"]

VIEWS: dict[str, Any] = {"ED": "edge-drop", "ND": "node-drop", "RW": "random-walk"}
SLOPE = 0.2  # negative slope of the leaky ReLU in RecBole's NGCF
CACHES = ("restore_user_e", "restore_item_e")
TOLERANCE = 1e-4  # largest difference relative to the largest entry; sums differ in single precision


class PropagatedNGCF(nn.Module):
    r"""NGCF as RecBole computes it: layers have biases, and each propagates the normalised output of the last one.

    .. math::
        E^{(l)} = \mathrm{normalise}\,\mathrm{LeakyReLU}\big((\hat A + I) E^{(l-1)} W_1 + b_1
            + (\hat A E^{(l-1)} \odot E^{(l-1)}) W_2 + b_2\big), \qquad Z = [E^{(0)}, \dots, E^{(L)}]

    RecBole's dropout of messages and nodes applies only during training and is left out here.

    Args:
        num_nodes: Number of users plus items; users come first.
        sizes: Width of the embedding table, followed by the width of every layer.

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
        """Initialise all parameters as RecBole does: Xavier normal for matrices, zero for biases."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the embeddings of all nodes.

        Args:
            matrix: Normalised adjacency in CSR ``[num_nodes, num_nodes]``.

        Returns:
            Embeddings of all layers, including the table, concatenated ``[num_nodes, sum(sizes)]``.
        """
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
    return Encoded(*rows.split([graph.num_users, graph.num_items]))  # RecBole also penalises the final embeddings


@num_hops.register
def _(model: PropagatedNGCF, graph: InteractionGraph) -> int:
    return len(model.sums)


def graph_of(dataset: Any, device: torch.device | str = "cpu") -> InteractionGraph:
    """Return the interactions of a RecBole data set as a graph with RecBole's tokens as raw ids.

    Node ``n`` has RecBole's id ``n + 1``, since RecBole uses the id 0 for padding. A repeated pair counts once.

    Args:
        dataset: The RecBole data set.
        device: Device of the graph.
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
    """Return the tokens of a field of a RecBole data set, without the padding token.

    Args:
        dataset: The RecBole data set.
        field: Name of the field, such as ``dataset.uid_field``.
    """
    return [str(token) for token in dataset.field2id_token[field][1:]]


def to_native(model: Any, num_nodes: int) -> nn.Module:
    """Return a module that computes the same as a RecBole model, with a copy of its parameters.

    Args:
        model: A RecBole model of one of the classes in :data:`MODELS`.
        num_nodes: Number of users plus items, without padding.

    Returns:
        The module, in evaluation mode and on the device of ``model``.

    Raises:
        ValueError: The number of users and items of the model is not ``num_nodes``.
    """
    rows = [len(table.weight) - 1 for table in (model.user_embedding, model.item_embedding)]
    if sum(rows) != num_nodes:
        expected = f"be one of the training data passed, of {num_nodes} users and items"
        raise ArgumentError("model", expected, f"one of {' + '.join(map(str, rows))}")
    native: nn.Module = MODELS[type(model).__name__](model, num_nodes)
    native.to(next(model.parameters()).device)
    with torch.no_grad():
        for mine, theirs in _pairs(native, model):
            mine.copy_(torch.cat([table[1:] for table in theirs]) if len(theirs) > 1 else theirs[0])
    return native.eval()


@torch.no_grad()
def write_back(native: nn.Module, model: nn.Module) -> None:
    """Write the parameters of ``native`` into a RecBole model, which is the reverse of :func:`to_native`.

    Args:
        native: A module from :func:`to_native`.
        model: A RecBole model of the same class and sizes; changed in place, except for its padding embeddings.
    """
    for mine, theirs in _pairs(native, model):
        if len(theirs) == 1:
            theirs[0].copy_(mine)
            continue
        for table, rows in zip(theirs, mine.split([len(table) - 1 for table in theirs])):
            table[1:] = rows


@torch.no_grad()
def settled(native: nn.Module, model: Any, graph: InteractionGraph, retained: InteractionGraph) -> nn.Module:
    """Return ``native`` with the embeddings of emptied users that RecBole's training would give them.

    This only concerns SGL with a contrastive loss. SGL contrasts every user with all others, which gives all users
    without interactions nearly the same embedding. RecBole trains its padding embedding like that of such a user, so
    emptied users get its value. Emptied users whose embedding the method did not change keep it.

    Args:
        native: The unlearned module.
        model: The original RecBole model.
        graph: The training graph before forgetting.
        retained: The retained graph.

    Returns:
        ``native`` itself for all other models, otherwise a copy of it.
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
    """Yield every parameter of ``native`` with its RecBole parameters: two padded tables first, then single ones."""
    yield native.embedding.weight, (model.user_embedding.weight, model.item_embedding.weight)
    if isinstance(native, PropagatedNGCF):
        mine: Any
        for by_sum, by_product, layer in zip(native.sums, native.products, model.GNNlayers):
            for mine, theirs in ((by_sum, layer.linear), (by_product, layer.interActTransform)):
                yield mine.weight, (theirs.weight,)
                yield mine.bias, (theirs.bias,)


def _sgl(model: Any, num_nodes: int) -> nn.Module:
    contrast = {"drop": model.drop_ratio, "temperature": model.ssl_tau, "weight": model.ssl_weight}
    return SGL(num_nodes, model.embed_dim, model.n_layers, view=VIEWS[model.type], **contrast)


MODELS: dict[str, Callable[[Any, int], nn.Module]] = {
    "LightGCN": lambda model, nodes: LightGCN(nodes, model.latent_dim, model.n_layers),
    "BPR": lambda model, nodes: MatrixFactorization(nodes, model.embedding_size),
    "SGL": _sgl,
    "NGCF": lambda model, nodes: PropagatedNGCF(nodes, model.hidden_size_list),
}
"""RecBole's models of users and items by class name, with functions that make the same model of this package."""


def rows_of(model: Any) -> tuple[Tensor, Tensor]:
    """Return the embeddings of a RecBole model for users and items, including the padding embeddings.

    Args:
        model: The RecBole model.

    Returns:
        Embeddings of users ``[num_users + 1, dim]`` and of items ``[num_items + 1, dim]``.
    """
    with torch.no_grad():
        if type(model).__name__ == "BPR":
            return model.user_embedding.weight, model.item_embedding.weight
        users, items = model(model.train_graph) if type(model).__name__ == "SGL" else model()
        return users, items


def check_same(model: nn.Module, native: nn.Module, graph: InteractionGraph) -> None:
    """Check that a RecBole model and its counterpart in this package give the same embeddings.

    The check fails for subclasses that compute something else, and for models that were trained on other data.

    Args:
        model: The RecBole model.
        native: The module from :func:`to_native`.
        graph: The training graph.

    Raises:
        ValueError: The embeddings differ.
    """
    with torch.no_grad(), evaluating(model):
        mine, theirs = encode(native, graph), rows_of(model)
    for name, own, other in zip(("user", "item"), (mine.queries, mine.items), theirs):
        same = own.shape == other[1:].shape
        gap = float((own - other[1:]).abs().max() / other.abs().max().clamp(min=1e-12)) if same else torch.inf
        if not gap <= TOLERANCE:
            twice = ", are pairs repeated, which SGL counts (rm_dup_inter)" if type(model).__name__ == "SGL" else ""
            expected = f"compute what RecBole's {type(model).__name__} does on the training data passed"
            got = f"{name} embeddings that differ by {gap:.2g} of the largest entry"
            hint = f"was it trained on other data{twice}, or is it a subclass?"
            way_out = "Register your own class with graphunlearn.encode.register"
            raise ArgumentError("model", expected, got, f"{hint} {way_out}")


def clear_caches(model: Any) -> None:
    """Delete the embeddings that a RecBole model has cached for its evaluation.

    Args:
        model: The RecBole model; changed in place.
    """
    for name in CACHES:
        if hasattr(model, name):
            setattr(model, name, None)


def refreshed(model: Any, dataset: Any) -> Any:
    """Return a copy of a RecBole model that propagates over ``dataset``, without cached embeddings.

    Args:
        model: The RecBole model, which is not changed.
        dataset: RecBole data set of the retained training data.
    """
    cached = [getattr(model, name, None) for name in CACHES]  # tensors with gradients cannot be copied
    after = copy.deepcopy(model, {id(rows): None for rows in cached if rows is not None})
    clear_caches(after)
    name = type(model).__name__
    if name in ("LightGCN", "NGCF"):
        after.interaction_matrix = dataset.inter_matrix(form="coo").astype(np.float32)
        after.norm_adj_matrix = after.get_norm_adj_mat().to(after.device)
    elif name == "SGL":
        after._user, after._item = (dataset.inter_feat[field] for field in (dataset.uid_field, dataset.iid_field))
        after.train_graph = after.csr2tensor(after.create_adjust_matrix(is_sub=False))
        for view in ("sub_graph1", "sub_graph2"):  # contain forgotten interactions; `train()` draws new views
            after.__dict__.pop(view, None)
    return after


def objective_of(model: Any, batch_size: int) -> BPR:
    r"""Return the loss that RecBole trained a model with, as a loss per interaction.

    Unless the penalty is squared (``require_pow``), RecBole's penalty is
    :math:`\lambda (\|E_u\|_F + \|E_i\|_F + \|E_j\|_F) / B` over the embeddings in a batch of size :math:`B`. Its
    gradient equals that of :math:`\frac{\lambda'}{2}\|e\|^2` per sample with :math:`\lambda' = \lambda / \|E\|_F`,
    which is evaluated at the trained embeddings. For SGL, whose ranking loss is a sum rather than a mean,
    :math:`\lambda'` is divided by :math:`B` once more.

    Args:
        model: The trained RecBole model.
        batch_size: Batch size :math:`B` of the training.
    """
    decay = float(getattr(model, "reg_weight", 0.0) or 0.0)
    if decay and not getattr(model, "require_pow", False):
        with torch.no_grad():
            tables = (model.user_embedding.weight, model.item_embedding.weight)
            squared = sum(table.square().sum(1).mean() for table in tables)
        layers = len(getattr(model, "GNNlayers", ()))  # NGCF penalises its final embeddings; each layer has norm 1
        decay /= max((float(squared / 2) + layers) * batch_size, 1e-12) ** 0.5
    if type(model).__name__ == "SGL":
        decay /= batch_size
    return BPR(weight_decay=decay)
