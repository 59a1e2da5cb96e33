r"""The level of the scores of a model, which losses of differences between scores do not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encoding import Encoded, score
from graphunlearn.nn.training.negatives import draw_negatives

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LEVEL", "Levels"]

LEVEL = 1.2
"""Largest accepted ratio of a mean to that of deleting the edges."""
SLACK = 0.005
"""Difference of means that is accepted in any case: near 0, a ratio says nothing."""


@dataclass(frozen=True)
class Levels:
    r"""Mean probabilities :math:`p = \sigma(s)` of pairs that a correction should hardly move.

    Args:
        missed: The mean of :math:`1 - p` over retained interactions.
        raised: The mean of :math:`p` over pairs that were never seen.
    """

    missed: float
    raised: float

    @classmethod
    @torch.no_grad()
    def of(cls, encoded: Encoded, kept: Tensor, weight: Tensor, unseen: Tensor) -> Self:
        """Return the levels of a model.

        Args:
            encoded: The embeddings on the retained graph.
            kept: Retained interactions ``[2, num]``.
            weight: How many interactions each of them stands for ``[num]``.
            unseen: Pairs that were never seen ``[2, num]``, one for each of them; one that equals the interaction
                stands for none.
        """
        p = [torch.sigmoid(score(encoded, pairs)).double() for pairs in (kept, unseen)]
        some = weight * (unseen[1] != kept[1])
        means = [(w * x).sum() / w.sum().clamp(min=1) for w, x in ((weight, 1 - p[0]), (some, p[1]))]
        return cls(float(means[0]), float(means[1]))

    def objection(self, deleted: Levels) -> str:
        """Return why a model with these levels is not accepted, or an empty text.

        Args:
            deleted: The levels of the model with its edges deleted.
        """
        for own, other, what in (
            (self.missed, deleted.missed, "1 - p of what remains"),
            (self.raised, deleted.raised, "p of pairs that were never seen"),
        ):
            if not abs(own - other) <= max(SLACK, (LEVEL - 1) * other):
                return f"the mean of {what} changes from {other:.3g} to {own:.3g}, by more than {LEVEL - 1:.0%}"
        return ""


def never_seen(graph: InteractionGraph, kept: Tensor, seed: int) -> Tensor:
    """Return one pair that is not in the graph for every interaction, with the same user ``[2, num]``.

    A user who holds all items has no such pair, and the interaction itself stands in its place.

    Args:
        graph: The graph before forgetting, so that what is forgotten does not count as never seen.
        kept: Interactions ``[2, num]``.
        seed: Seed of the items.
    """
    return torch.stack([kept[0], draw_negatives(graph, kept[0], kept[1], 1, seed)[:, 0]])
