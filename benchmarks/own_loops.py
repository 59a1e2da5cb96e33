"""Models of other libraries' layers, trained by a loop of their own: what an operator meets outside this package."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

import graphunlearn as gu
from graphunlearn.adapters import BipartiteRecommender

DIM = 16
BATCH = 2048
"""Batch size of both loops, which the in-batch loss depends on."""


class _Table(nn.Embedding):
    """An embedding table with small initial values."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.1)


class TwoTower(nn.Module):
    """Two towers without a graph: an embedding and two layers for users, and the same for items."""

    def __init__(self, num_users: int, num_items: int, dim: int = DIM) -> None:
        super().__init__()
        self.user, self.item = _Table(num_users, dim), _Table(num_items, dim)
        self.user_tower, self.item_tower = (
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)) for _ in range(2)
        )

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for module in self.modules():
            if isinstance(module, (_Table, nn.Linear)):
                module.reset_parameters()

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all users and of all items."""
        return self.user_tower(self.user.weight), self.item_tower(self.item.weight)


@gu.encode.register
def _(model: TwoTower, graph: gu.InteractionGraph) -> gu.Encoded:
    return gu.Encoded(*model(), model.user.weight, model.item.weight)


def to_hetero_sage(graph: Any) -> nn.Module:
    """Return a GraphSAGE of two layers, made heterogeneous by ``to_hetero``."""
    from torch_geometric.nn import GraphSAGE, to_hetero

    encoder = to_hetero(GraphSAGE((-1, -1), DIM, num_layers=2), BipartiteRecommender.metadata)
    return BipartiteRecommender(encoder, graph.num_users, graph.num_items, DIM, hetero=True)


MODELS: dict[str, Callable[[Any], nn.Module]] = {
    "two-tower": lambda graph: TwoTower(graph.num_users, graph.num_items),
    "to-hetero": to_hetero_sage,
}
EPOCHS = {"two-tower": 15, "to-hetero": 20}
LOSSES: dict[str, Callable[[], Any]] = {
    "own-bce": lambda: gu.SampledBCE(negatives=2, weight_decay=0.0),
    "in-batch": lambda: gu.InBatchSoftmax(batch_size=BATCH, weight_decay=0.0),
}
"""The losses of the loops, as an operator is told them."""


def train(name: str, graph: gu.InteractionGraph, seed: int, cache: Path) -> nn.Module:
    """Return a model trained without early stopping by a loop that is not that of this package.

    The two towers learn with the other items of the batch as negatives, corrected for their popularity; the other model
    with two random items per interaction, which may be items of the user. ``cache`` is a folder of trained models.
    """
    torch.manual_seed(seed)
    model, source = MODELS[name](graph), Path(__file__).read_bytes()
    key = hashlib.sha256(repr((name, graph.fingerprint(), seed)).encode() + source).hexdigest()
    path = cache / f"own-{key}.safetensors"
    if path.exists():
        load_model(model, path)
        return model.eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    users, items = graph.pairs
    popularity = graph.degree[graph.num_users :].clamp(min=1).log()
    for _ in range(EPOCHS[name]):
        for batch in torch.randperm(len(users)).split(BATCH):
            z = gu.encode(model, graph)
            u, i = z.queries[users[batch]], items[batch]
            if name == "two-tower":
                loss = F.cross_entropy(u @ z.items[i].t() - popularity[i], torch.arange(len(batch)))
            else:
                wrong = torch.randint(graph.num_items, (2, len(batch)))
                scores = [(u * z.items[j]).sum(1) for j in (i, *wrong)]
                loss = torch.stack([F.softplus(-scores[0]), *map(F.softplus, scores[1:])]).sum(0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if not all(math.isfinite(float(p.detach().sum())) for p in model.parameters()):
        raise FloatingPointError(f"the training of {name} diverged")
    cache.mkdir(parents=True, exist_ok=True)
    save_model(model, str(path))
    return model.eval()
