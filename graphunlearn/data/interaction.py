"""User–item graphs as PyTorch Geometric objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphunlearn.func.sparse import Adjacency

EDGE_TYPE = ("user", "interacts", "item")
ATTRIBUTES = ("rating", "time", "label")


class InteractionGraph(HeteroData):
    """A bipartite user–item graph. (Skeleton: to be completed.)"""

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        num_users: int | None = None,
        num_items: int | None = None,
        *,
        user_ids: Sequence[Any] | None = None,
        item_ids: Sequence[Any] | None = None,
        **edge_attrs: Tensor,
    ) -> InteractionGraph:
        graph = cls()
        graph["user"].num_nodes = num_users
        graph["item"].num_nodes = num_items
        store = graph[EDGE_TYPE]
        store.edge_index = edge_index
        for key, value in edge_attrs.items():
            store[key] = value
        return graph

    @property
    def num_users(self) -> int:
        return self["user"].num_nodes

    @property
    def num_items(self) -> int:
        return self["item"].num_nodes

    @property
    def pairs(self) -> Tensor:
        return self[EDGE_TYPE].edge_index

    @property
    def num_interactions(self) -> int:
        return self.pairs.size(1)

    @property
    def label(self) -> Tensor | None:
        return self[EDGE_TYPE].get("label")

    @property
    def rating(self) -> Tensor | None:
        return self[EDGE_TYPE].get("rating")

    @property
    def adjacency(self) -> Adjacency:
        cache = self.__dict__.setdefault("_cache", {})
        if "adjacency" not in cache:
            cache["adjacency"] = Adjacency.from_pairs(self.pairs, self.num_users, self.num_items)
        return cache["adjacency"]

    def select(self, mask: Tensor) -> InteractionGraph:
        attrs = {k: v[mask] for k, v in self[EDGE_TYPE].items() if k != "edge_index"}
        return InteractionGraph.from_edges(self.pairs[:, mask], self.num_users, self.num_items, **attrs)

    def random_split(self, fractions: Sequence[float], seed: int = 0) -> tuple[InteractionGraph, ...]:
        gen = torch.Generator().manual_seed(seed)
        perm = torch.randperm(self.num_interactions, generator=gen)
        cuts = [round(sum(fractions[: k + 1]) * len(perm)) for k in range(len(fractions))]
        out, start = [], 0
        for c in cuts:
            mask = torch.zeros(len(perm), dtype=torch.bool)
            mask[perm[start:c]] = True
            out.append(self.select(mask))
            start = c
        return tuple(out)
