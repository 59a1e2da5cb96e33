"""How often items follow and accompany one another in sessions, looked up pair by pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphunlearn.data import SessionGraph

__all__ = ["ClickCounts"]


@dataclass(frozen=True)
class ClickCounts:
    """Counts over the sessions of a graph; pairs that never occur take no memory.

    Args:
        popularity: Clicks per item ``[num_items]``.
        followed: Codes of pairs ``(item, next item)``, ascending, and how often each occurs.
        together: The same of unordered pairs of items within ``window`` clicks of one session.

    Example:
        >>> import graphunlearn as gu
        >>> counts = ClickCounts.of(gu.SessionGraph.from_sequences([[0, 1, 2], [0, 1]]), window=2)
        >>> counts.transitions(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]))
        tensor([2., 0., 1.])
        >>> counts.company(torch.tensor([2, 1]), torch.tensor([0, 0]))
        tensor([1., 2.])
    """

    popularity: Tensor
    followed: tuple[Tensor, Tensor]
    together: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, graph: SessionGraph, window: int = 10) -> ClickCounts:
        """Count the sessions of ``graph``; the cost is ``window`` times the number of clicks.

        Args:
            graph: The sessions.
            window: How many clicks apart two items may be to count as company.
        """
        items, session, size = graph.items, graph.session, graph.num_items
        followed, pairs = items.new_empty(0), []
        for distance in range(1, min(window, int(graph.length.max()) - 1) + 1):
            same = session[distance:] == session[:-distance]
            early, late = items[:-distance][same], items[distance:][same]
            if distance == 1:
                followed = early * size + late
            pairs.append(torch.minimum(early, late) * size + torch.maximum(early, late))
        company = torch.cat(pairs) if pairs else items.new_empty(0)
        popularity = torch.bincount(items, minlength=size).to(torch.get_default_dtype())
        return cls(popularity, _counted(followed), _counted(company))

    def transitions(self, item: Tensor, after: Tensor) -> Tensor:
        """Return how often ``after`` directly follows ``item`` ``[num]``."""
        return _look_up(self.followed, item * self.popularity.numel() + after)

    def company(self, item: Tensor, other: Tensor) -> Tensor:
        """Return how often the two items are in the same session, within the window ``[num]``."""
        return _look_up(
            self.together, torch.minimum(item, other) * self.popularity.numel() + torch.maximum(item, other)
        )


def _counted(codes: Tensor) -> tuple[Tensor, Tensor]:
    known, count = torch.unique(codes, return_counts=True)
    return known, count.to(torch.get_default_dtype())


def _look_up(table: tuple[Tensor, Tensor], codes: Tensor) -> Tensor:
    known, count = table
    if not known.numel():
        return codes.new_zeros(codes.shape, dtype=count.dtype)
    place = torch.searchsorted(known, codes).clamp(max=known.numel() - 1)
    return torch.where(known[place] == codes, count[place], 0.0)
