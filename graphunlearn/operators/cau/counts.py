"""Counts of items and pairs of items in sessions, and features of predictions that are computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphunlearn.data import SessionGraph
from graphunlearn.nn.training.next_click import PrefixSamples
from graphunlearn.operators.cau.samples import prefix_items

__all__ = ["ClickCounts", "click_features"]

WINDOW = 10  # largest distance in clicks at which two items count as occurring together
Table = tuple[Tensor, Tensor]  # ascending codes of pairs, and their counts


@dataclass(frozen=True)
class ClickCounts:
    """Counts of items and item pairs in the sessions of a graph, stored sparsely.

    Args:
        popularity: Number of clicks of every item ``[num_items]``.
        followed: Tables of pairs ``(item, next item)``; the count of a pair is the sum of its entries.
        together: Tables of the unordered pairs of items within a window of clicks of one session.

    Example:
        >>> import graphunlearn as gu
        >>> counts = ClickCounts.of(gu.SessionGraph.from_sequences([[0, 1, 2], [0, 1]]), window=2)
        >>> counts.transitions(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]))
        tensor([2., 0., 1.])
        >>> counts.company(torch.tensor([2, 1]), torch.tensor([0, 0]))
        tensor([1., 2.])
    """

    popularity: Tensor
    followed: tuple[Table, ...]
    together: tuple[Table, ...]

    @classmethod
    def of(cls, graph: SessionGraph, mask: Tensor | None = None, *, window: int = WINDOW) -> ClickCounts:
        """Count the items and item pairs in the sessions of ``graph``.

        The cost is proportional to ``window`` times the number of clicks.

        Args:
            graph: The sessions.
            mask: Mask of the clicks to count; the neighbours of any other click are then adjacent ``[num_clicks]``.
            window: Largest distance in clicks at which two items count as occurring together.

        Returns:
            The :class:`ClickCounts`.
        """
        items, session, size = graph.items, graph.session, graph.num_items
        if mask is not None:
            items, session = items[mask], session[mask]
        followed, pairs = items.new_empty(0), []
        for distance in range(1, window + 1):
            same = session[distance:] == session[:-distance]
            early, late = items[:-distance][same], items[distance:][same]
            if not early.numel():
                break
            if distance == 1:
                followed = early * size + late
            pairs.append(torch.minimum(early, late) * size + torch.maximum(early, late))
        company = torch.cat(pairs) if pairs else items.new_empty(0)
        popularity = torch.bincount(items, minlength=size).to(torch.get_default_dtype())
        return cls(popularity, (_counted(followed),), (_counted(company),))

    def changed(self, lost: ClickCounts, gained: ClickCounts) -> ClickCounts:
        """Return the counts after some sessions are replaced.

        Args:
            lost: The counts in the sessions as they were.
            gained: The counts in the sessions that take their place.

        Returns:
            The :class:`ClickCounts`.
        """
        return ClickCounts(
            self.popularity - lost.popularity + gained.popularity,
            (*self.followed, *_negative(lost.followed), *gained.followed),
            (*self.together, *_negative(lost.together), *gained.together),
        )

    def transitions(self, item: Tensor, after: Tensor) -> Tensor:
        """Return how often ``after`` directly follows ``item`` ``[num]``."""
        return _look_up(self.followed, item * self.popularity.numel() + after)

    def company(self, item: Tensor, other: Tensor) -> Tensor:
        """Return how often ``item`` and ``other`` occur within the window in one session ``[num]``."""
        return _look_up(
            self.together, torch.minimum(item, other) * self.popularity.numel() + torch.maximum(item, other)
        )


def _counted(codes: Tensor) -> Table:
    known, count = torch.unique(codes, return_counts=True)
    return known, count.to(torch.get_default_dtype())


def _negative(tables: tuple[Table, ...]) -> list[Table]:
    return [(codes, -count) for codes, count in tables]


def _look_up(tables: tuple[Table, ...], codes: Tensor) -> Tensor:
    total = codes.new_zeros(codes.shape, dtype=tables[0][1].dtype)
    for known, count in tables:
        if known.numel():
            place = torch.searchsorted(known, codes).clamp_(max=known.numel() - 1)
            total += torch.where(known[place] == codes, count[place], 0.0)
    return total


def click_features(counts: ClickCounts, graph: SessionGraph, predictions: PrefixSamples) -> Tensor:
    """Return features of each prediction that are computed from the click counts.

    The features are logarithms of counts: the popularity of the item and of the last click, the transitions between
    the two, the co-occurrences of the item with the prefix, and the numbers of clicks of the session before and after
    the item. They also include indicators of zero counts, and products of features.

    Args:
        counts: The counts, from :meth:`ClickCounts.of`.
        graph: The graph that holds the prefixes.
        predictions: The predictions.

    Returns:
        The features ``[num, 23]``, in float64.
    """
    items, length = prefix_items(graph, predictions)
    target, last = predictions.target, graph.x[graph.alias[predictions.ends]]
    row = torch.repeat_interleave(torch.arange(len(predictions), device=items.device), length)
    company, popular = counts.company(items, target[row]), counts.popularity[items]
    zero = company.new_zeros(len(predictions))
    total = zero.index_add(0, row, company)
    share = zero.index_add(0, row, company / (popular + 5))
    again = zero.index_add(0, row, (items == target[row]).to(zero.dtype)).clamp(max=1)
    forward, backward = counts.transitions(last, target), counts.transitions(target, last)
    near, of_last, own = counts.company(last, target), counts.popularity[last], counts.popularity[target]
    a, b, c, d = (x.log1p() for x in (own, forward, total, of_last))
    rates = [(share + 1e-3).log(), ((forward + 0.3) / (of_last + 5)).log(), ((near + 0.3) / (of_last + 5)).log()]
    columns = [a, b, backward.log1p(), near.log1p(), c, *rates, d, length.to(zero.dtype).log1p()]
    behind = (graph.click_ptr[predictions.session + 1] - predictions.ends - 2).clamp(min=0).to(zero.dtype)
    columns += [behind.log1p(), (behind == 0).to(zero.dtype), 1 / (own + 1)]
    columns += [(forward == 0).to(zero.dtype), (total == 0).to(zero.dtype), again]
    columns += [a * a, b * b, c * c, d * d, a * c, b * d, c * d]
    return torch.stack(columns, 1).double()
