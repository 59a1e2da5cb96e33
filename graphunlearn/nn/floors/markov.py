"""First-order transitions between items of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphunlearn.data import SessionGraph
from graphunlearn.data.events import Kind
from graphunlearn.nn.floors.base import Floor
from graphunlearn.nn.floors.neighbours import tie_breaker

__all__ = ["Markov"]


@dataclass(kw_only=True)
class Markov(Floor):
    """Score an item by how often a click on it directly followed a click on the last item.

    Items with equal counts are ordered by popularity.

    Source: Shani, Heckerman and Brafman, *An MDP-based recommender system*, JMLR 2005, of first order.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1], [0, 1, 2], [0, 2]])
        >>> Markov().fit(graph).scores(graph, torch.tensor([0])).round()
        tensor([[0., 2., 1.]])
    """

    name: ClassVar[str] = "markov"
    kinds: ClassVar[tuple[Kind, ...]] = ("sessions",)

    @torch.no_grad()
    def fit(self, graph: SessionGraph) -> Markov:
        """Count the transitions.

        Args:
            graph: The training sessions.

        Returns:
            The floor itself.

        Raises:
            ValueError: The graph is of users and items.
        """
        self._check(graph)
        self.graph = graph
        items, within = graph.items, graph.session[1:] == graph.session[:-1]
        codes, counts = torch.unique(items[:-1][within] * graph.num_items + items[1:][within], return_counts=True)
        last, self._next = codes // graph.num_items, codes % graph.num_items
        self._count = counts.to(torch.get_default_dtype())
        self._width = torch.bincount(last, minlength=graph.num_items)
        self._tie = tie_breaker(graph)
        return self

    @torch.no_grad()
    def scores(self, graph: SessionGraph, queries: Tensor) -> Tensor:
        """Return the counts of transitions from the last item of every prefix.

        Args:
            graph: The graph of the sessions that are to be continued.
            queries: Positions of the last clicks of the prefixes ``[num]``.

        Returns:
            The scores ``[num, num_items]``.
        """
        self._check_fitted()
        last = graph.items[queries]
        width, first = self._width[last], (self._width.cumsum(0) - self._width)[last]
        row = torch.repeat_interleave(torch.arange(last.numel(), device=last.device), width)
        within = torch.arange(row.numel(), device=last.device) - (width.cumsum(0) - width)[row]
        entry = first[row] + within
        out = self._tie.repeat(last.numel(), 1)
        out[row, self._next[entry]] += self._count[entry]
        return out
