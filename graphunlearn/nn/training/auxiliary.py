"""Auxiliary training losses of models: the contrastive losses of SGL and SimGCL, and a registry for other models."""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from functools import singledispatch
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Adjacency, spmm
from graphunlearn.nn.encoding import _check_size
from graphunlearn.nn.models.contrast import SGL, Contrastive, SimGCL
from graphunlearn.nn.training.objective import Samples

__all__ = ["auxiliary_loss", "info_nce"]


@singledispatch
def auxiliary_loss(
    model: nn.Module, graph: InteractionGraph, samples: Samples, *, seed: int, epoch: int, step: int
) -> Tensor | None:
    r"""Return the auxiliary loss of ``model``, which is added to the *mean* per-sample loss of a batch.

    For :class:`SGL` and :class:`SimGCL`, the auxiliary loss is the ``weight`` of the model times the sum of two means
    of :func:`info_nce`: over the distinct users of the batch and over its distinct items, without negatives. At most
    ``contrast`` users and ``contrast`` items are used, redrawn in every step. Random draws depend on
    ``(seed, epoch, step)`` alone; noise is drawn on the device of the model, all other draws are the same on every
    device.

    If your own model class has an auxiliary loss, register a function for it; every training then includes the loss.

    Args:
        model: The recommender.
        graph: The graph to propagate on.
        samples: The batch.
        seed: Seed of the training.
        epoch: Number of the epoch.
        step: Number of the batch within the epoch.

    Returns:
        The loss, a scalar, or ``None`` if the model has no auxiliary loss.

    Example:
        >>> import torch, torch_geometric, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]]), num_users=3, num_items=3)
        >>> samples = gu.BPR().samples(graph)
        >>> gu.nn.auxiliary_loss(SimGCL(6, 8, num_layers=2), graph, samples, seed=0, epoch=1, step=0).shape
        torch.Size([])
        >>> gu.nn.auxiliary_loss(torch_geometric.nn.LightGCN(6, 8, 2), graph, samples, seed=0, epoch=1, step=0) is None
        True
    """
    return None


@auxiliary_loss.register
def _(model: SGL, graph: InteractionGraph, samples: Samples, *, seed: int, epoch: int, step: int) -> Tensor | None:
    if not model.weight:
        return None
    _check_size(model.num_nodes, model, graph)
    first, second = (_propagate(model, matrices) for matrices in _views(model, graph, seed, epoch))
    return _contrast(model, first, second, samples, (seed, epoch, step))


@auxiliary_loss.register
def _(model: SimGCL, graph: InteractionGraph, samples: Samples, *, seed: int, epoch: int, step: int) -> Tensor | None:
    if not model.weight:
        return None
    _check_size(model.num_nodes, model, graph)
    table, matrix = model.embedding.weight, graph.adjacency.normalized(model.embedding.weight.dtype)
    generator = _generator(table.device, "noise", seed, epoch, step)
    layer, out = spmm(matrix, table).unsqueeze(1).expand(-1, 2, -1), model.alpha[0] * table.unsqueeze(1)
    for depth, weight in enumerate(model.alpha.tolist()[1:]):
        if depth:  # the two views are concatenated, so that one product propagates both
            layer = spmm(matrix, layer.flatten(1)).view(-1, 2, table.size(1))
        noise = torch.rand(layer.shape, generator=generator, dtype=table.dtype, device=table.device)
        noise.mul_(model.eps / noise.norm(dim=-1, keepdim=True).clamp(min=1e-12)).mul_(layer.detach().sign())
        layer = layer + noise
        out = torch.add(out, layer, alpha=weight)
    loss = _contrast(model, out[:, 0], out[:, 1], samples, (seed, epoch, step))
    if model.full_at:
        loss = loss * (table.detach().square().sum(1).mean() / model.full_at).clamp(max=1)
    return loss


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Return the InfoNCE loss of every node between its embeddings :math:`a_i` and :math:`b_i` in two views.

    .. math::
        -\log\frac{\exp(\cos(a_i, b_i) / \tau)}{\sum_j \exp(\cos(a_i, b_j) / \tau)}

    Args:
        first: Embeddings :math:`a` in the first view ``[num, dim]``.
        second: Embeddings :math:`b` in the second view ``[num, dim]``.
        temperature: The temperature :math:`\tau`.

    Returns:
        The losses ``[num]``.

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018.

    Example:
        >>> import torch
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor([0.3133, 0.3133])
    """
    first, second = F.normalize(first, dim=1) / temperature, F.normalize(second, dim=1)
    loss: Tensor = torch.logsumexp(first @ second.t(), dim=1) - (first * second).sum(1)
    return loss


def _contrast(model: Contrastive, first: Tensor, second: Tensor, samples: Samples, key: tuple[int, int, int]) -> Tensor:
    generator, losses = _generator("cpu", "nodes", *key), []
    for nodes in (samples.users.unique(), samples.size[0] + samples.items.unique()):
        if len(nodes) > model.contrast:
            chosen = torch.randperm(len(nodes), generator=generator)[: model.contrast]
            nodes = nodes[chosen.to(nodes.device)]
        if len(nodes):
            losses.append(info_nce(first[nodes], second[nodes], model.temperature).mean())
    loss: Tensor = model.weight * torch.stack(losses).sum() if losses else first.new_zeros(())
    return loss


def _propagate(model: SGL, matrices: list[Tensor]) -> Tensor:
    """Return the embeddings of LightGCN with a separate matrix for every layer ``[num_nodes, dim]``."""
    alpha, layer = model.alpha.tolist(), model.embedding.weight
    out: Tensor = alpha[0] * layer
    for weight, matrix in zip(alpha[1:], matrices, strict=True):
        layer = spmm(matrix, layer)
        out = torch.add(out, layer, alpha=weight)
    return out


# The views of the latest epoch, by adjacency. They are stored outside the model, so that they are neither copied nor
# saved with it.
_VIEWS: MutableMapping[Adjacency, tuple[tuple[object, ...], list[list[Tensor]]]] = WeakKeyDictionary()


def _views(model: SGL, graph: InteractionGraph, seed: int, epoch: int) -> list[list[Tensor]]:
    """Return both views of an epoch, each with one matrix per layer."""
    adjacency, dtype = graph.adjacency, model.embedding.weight.dtype
    key = (model.view, model.drop, model.num_layers, seed, epoch, dtype)
    known, views = _VIEWS.get(adjacency, (None, []))
    if known != key:
        generator = _generator("cpu", model.view, seed, epoch)
        with torch.inference_mode(False), torch.no_grad():
            draws, repeats = (model.num_layers, 1) if model.view == "random-walk" else (1, model.num_layers)
            views = [[_view(model, graph, generator) for _ in range(draws)] * repeats for _ in range(2)]
        _VIEWS[adjacency] = (key, views)
    return views


def _view(model: SGL, graph: InteractionGraph, generator: torch.Generator) -> Tensor:
    """Return the adjacency of one random subgraph, normalised by the degrees of the subgraph."""
    pairs = graph.pairs
    if model.view == "node-drop":
        kept = (torch.rand(graph.num_nodes, generator=generator) >= model.drop).to(pairs.device)
        mask = kept[pairs[0]] & kept[pairs[1] + graph.num_users]
    else:
        mask = (torch.rand(graph.num_interactions, generator=generator) >= model.drop).to(pairs.device)
    return graph.adjacency.select(mask).normalized(model.embedding.weight.dtype)


def _generator(device: torch.device | str, *key: str | int) -> torch.Generator:
    """Return a generator seeded by ``key``; different keys give different numbers."""
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "big")
    return torch.Generator(device).manual_seed(seed)
