"""Recommending the items with the most interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data.events import Kind
from graphunlearn.nn.encoding import encode
from graphunlearn.nn.floors.base import Floor, positives

__all__ = ["PopularItems", "Popularity"]


@dataclass(kw_only=True)
class Popularity(Floor):
    """Score items by their number of positive training interactions, or of training clicks.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=3)
        >>> Popularity().fit(graph).scores(graph, torch.tensor([1]))
        tensor([[2., 1., 0.]])
    """

    name: ClassVar[str] = "popularity"
    kinds: ClassVar[tuple[Kind, ...]] = ("interactions", "sessions")

    def fit(self, graph: Any) -> Popularity:
        """Count the interactions or clicks of every item.

        Args:
            graph: The training graph.

        Returns:
            The floor itself.
        """
        self.graph, self.counts = graph, popularity(graph)
        return self

    def scores(self, graph: Any, queries: Tensor) -> Tensor:
        """Return the same scores for every query.

        Args:
            graph: Unused.
            queries: Users or prefixes ``[num]``.

        Returns:
            The counts of all items in a new tensor ``[num, num_items]``.
        """
        self._check_fitted()
        return self.counts.repeat(queries.numel(), 1)


def popularity(graph: Any) -> Tensor:
    """Return the number of positive interactions, or of clicks, of every item.

    Args:
        graph: The training graph.

    Returns:
        The counts as floats ``[num_items]``.
    """
    items = graph.items if graph.kind == "sessions" else positives(graph).pairs[1]
    return torch.bincount(items, minlength=graph.num_items).to(torch.get_default_dtype())


class PopularItems(nn.Module):
    """Popularity as a model that ``encode`` knows: users are 1 and items their counts, so that a score is a count.

    Args:
        graph: The training graph.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=3)
        >>> gu.encode(PopularItems(graph), graph).items.flatten()
        tensor([2., 1., 0.])
    """

    counts: Tensor

    def __init__(self, graph: Any) -> None:
        super().__init__()
        self.register_buffer("counts", popularity(graph))


@encode.register(PopularItems)
def _(model: PopularItems, graph: Any) -> tuple[Tensor, Tensor]:
    queries = graph.num_sessions if graph.kind == "sessions" else graph.num_users
    return model.counts.new_ones(queries, 1), model.counts.unsqueeze(1)
