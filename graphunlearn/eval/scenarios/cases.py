"""What a test of forgetting consists of, and how data are cut into its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError

__all__ = [
    "SHARES",
    "G",
    "Scenario",
    "counted",
    "cut_by_time",
    "draw_share",
    "split_up",
    "were",
    "without_unseen_items",
]

SHARES = {
    **{"flipped-labels": 0.02, "users": 0.02, "items": 0.02, "random-edges": 0.05, "adversarial-edges": 0.3},
    **{"session-clicks": 0.1, "sessions": 0.02},
}
"""The share that every scenario forgets, flips or injects where none is given."""
G = TypeVar("G", InteractionGraph, SessionGraph)


@dataclass
class Scenario(Generic[G]):
    """What to train on, what to forget, and what to judge by.

    Args:
        name: As on the command line.
        train: The training graph, of interactions or of sessions, with whatever was injected into it.
        validation: Decides when training stops.
        test: Judges; never looked at before.
        request: What to forget.
        trained_labels: Whether the labels of the forgotten interactions were injected, and forgetting is telling them.
        notes: Sentences for the report.
    """

    name: str
    train: G
    validation: G
    test: G
    request: ForgetRequest
    trained_labels: bool = False
    notes: list[str] = field(default_factory=list)


def split_up(
    graph: InteractionGraph, test: InteractionGraph | None, fractions: Sequence[float], seed: int
) -> tuple[InteractionGraph, InteractionGraph, InteractionGraph]:
    """Return training, validation and test part at random; the test part as given, where it is."""
    if test is None:
        train, validation, test = graph.random_split(list(fractions), seed=seed)
        return train, validation, test
    whole = fractions[0] + fractions[1]
    train, validation = graph.random_split([fractions[0] / whole, fractions[1] / whole], seed=seed)
    return train, validation, test


def cut_by_time(
    graph: SessionGraph, test: SessionGraph | None, fractions: Sequence[float]
) -> tuple[SessionGraph, SessionGraph, SessionGraph]:
    """Return training, validation and test sessions, the later ones last; the test sessions as given, where they are.

    The second fraction is then taken from the end of ``graph``.
    """
    if test is None:
        train, validation, test = graph.time_split(list(fractions))
    else:
        train, validation = graph.time_split([1 - fractions[1], fractions[1]])
    return train, validation, test


def without_unseen_items(
    train: SessionGraph, validation: SessionGraph, test: SessionGraph, left_out: int | None = None
) -> tuple[SessionGraph, SessionGraph, list[str]]:
    """Return the held-out sessions without clicks of items that training never saw, and what is to be said of that.

    ``left_out`` test clicks were left out when they were read, for the same reason. Where it is ``None``, nothing is
    said of the test sessions: what judges by them counts those clicks.
    """
    notes = []
    parts = [("validation click", validation, 0)] + ([] if left_out is None else [("test click", test, left_out)])
    for name, part, before in parts:
        unseen = int((~torch.isin(part.items, train.x)).sum()) + before
        if unseen:
            clicks = counted(unseen, name)
            notes.append(f"{clicks} of items that training never saw {were(unseen)} left out; neighbours join.")
    return validation.without_unseen(train), test.without_unseen(train), notes


def draw_share(size: int, share: float, seed: int, leave: int = 1) -> Tensor:
    """Return the positions of a random share of ``size`` things, at least one; some are to be left."""
    if not 0 < share < 1:
        raise ArgumentError("share", "be between 0 and 1", share)
    count = max(1, round(share * size))
    if count > size - leave:
        raise ArgumentError("share", "leave some of what there is", f"{share}, which takes all {size}")
    generator = torch.Generator().manual_seed(7_919 + seed)
    return torch.randperm(size, generator=generator)[:count].sort().values


def counted(count: int, noun: str) -> str:
    """Return how many there are of something.

    Example:
        >>> counted(1, "click"), counted(2_000, "click")
        ('1 click', '2000 clicks')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def were(count: int) -> str:
    """Return the verb for so many.

    Example:
        >>> were(1), were(2)
        ('was', 'were')
    """
    return "was" if count == 1 else "were"
