"""The parts of a scenario, and how data are split into training, validation and test."""

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
    "share_of",
    "split_up",
    "were",
    "without_unseen_items",
]

SHARES = {
    **{"flipped-labels": 0.02, "users": 0.02, "items": 0.02, "random-edges": 0.05, "adversarial-edges": 0.3},
    **{"core-users": 0.05, "edge-users": 0.05, "sensitive": 0.1},
    **{"session-clicks": 0.1, "sessions": 0.02, "spam-sessions": 0.02},
}
"""Default share that every scenario forgets, flips or injects."""
G = TypeVar("G", InteractionGraph, SessionGraph)


@dataclass
class Scenario(Generic[G]):
    """Training, validation and test data together with a forget request.

    Args:
        name: Name of the scenario, as on the command line.
        train: The training graph, of interactions or of sessions, including injected interactions.
        validation: Held-out data for early stopping.
        test: Held-out data for the audit, which nothing else uses.
        request: The forget request.
        trained_labels: Whether the labels of the forgotten interactions were flipped, so that forgetting is measured
            by how well a model predicts the flipped labels.
        notes: Notes for the report.
        targets: Items that injected data promote ``[num_targets]``; ``None`` if no data were injected for a target.
        real: Mask of the users with training interactions that are not injected ``[num_users]``, or of the training
            sessions that are not injected ``[num_sessions]``; ``None`` without ``targets``. The effect of an injection
            is measured on them; see :func:`target_figures`.
        category: Items of the category that users forget ``[num_items_of_category]``; ``None`` in scenarios without a
            category.
    """

    name: str
    train: G
    validation: G
    test: G
    request: ForgetRequest
    trained_labels: bool = False
    notes: list[str] = field(default_factory=list)
    targets: Tensor | None = None
    real: Tensor | None = None
    category: Tensor | None = None


def split_up(
    graph: InteractionGraph, test: InteractionGraph | None, fractions: Sequence[float], seed: int
) -> tuple[InteractionGraph, InteractionGraph, InteractionGraph]:
    """Split interactions at random into training, validation and test parts.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        test: The test part, which is returned as it is; ``None`` to split it off ``graph``.
        fractions: Shares of training, validation and test; with ``test``, only the ratio of the first two counts, and
            the second may be 0, so that all of ``graph`` are the training part.
        seed: Seed of the split.

    Returns:
        Training, validation and test interactions.
    """
    if test is None:
        train, validation, test = graph.random_split(list(fractions), seed=seed)
        return train, validation, test
    if fractions[1] == 0:
        return graph, graph.select(graph.pairs[0, :0]), test
    whole = fractions[0] + fractions[1]
    train, validation = graph.random_split([fractions[0] / whole, fractions[1] / whole], seed=seed)
    return train, validation, test


def cut_by_time(
    graph: SessionGraph, test: SessionGraph | None, fractions: Sequence[float]
) -> tuple[SessionGraph, SessionGraph, SessionGraph]:
    """Split sessions by time into training, validation and test sessions.

    Args:
        graph: All sessions, or the training and validation sessions if ``test`` is given.
        test: The test sessions, which are returned as they are; ``None`` to take the last sessions of ``graph``.
        fractions: Shares of training, validation and test. With ``test``, the last share is unused and the second one
            is taken from the end of ``graph``; it may be 0, so that all of ``graph`` are the training part.

    Returns:
        Training, validation and test sessions.
    """
    if test is None:
        train, validation, test = graph.time_split(list(fractions))
    elif fractions[1] == 0:
        train, validation = graph, graph.select(graph.items[:0])
    else:
        train, validation = graph.time_split([1 - fractions[1], fractions[1]])
    return train, validation, test


def without_unseen_items(
    train: SessionGraph, validation: SessionGraph, test: SessionGraph, left_out: int | None = None
) -> tuple[SessionGraph, SessionGraph, list[str]]:
    """Return the held-out sessions without clicks on items that have no training clicks, and notes for the report.

    Args:
        train: The training sessions.
        validation: The validation sessions.
        test: The test sessions.
        left_out: Number of test clicks that were dropped on reading for the same reason. With ``None``, there is no
            note on the test sessions, since the audit counts those clicks.

    Returns:
        The validation sessions, the test sessions, and the notes.
    """
    notes = []
    parts = [("validation click", validation, 0)] + ([] if left_out is None else [("test click", test, left_out)])
    for name, part, before in parts:
        unseen = int((~torch.isin(part.items, train.x)).sum()) + before
        if unseen:
            clicks = counted(unseen, name)
            notes.append(f"{clicks} on items without training clicks {were(unseen)} left out; neighbours are joined.")
    return validation.without_unseen(train), test.without_unseen(train), notes


def draw_share(size: int, share: float, seed: int, leave: int = 1) -> Tensor:
    """Draw a random share of the positions 0 to ``size - 1``, at least one position.

    Args:
        size: Number of positions.
        share: Share to draw, in (0, 1).
        seed: Seed of the draw.
        leave: Number of positions that must not be drawn.

    Returns:
        The drawn positions in ascending order ``[num_drawn]``.

    Raises:
        ValueError: The share is not in (0, 1), or fewer than ``leave`` positions would remain.
    """
    count = share_of(size, share, leave)
    generator = torch.Generator().manual_seed(7_919 + seed)
    return torch.randperm(size, generator=generator)[:count].sort().values


def share_of(size: int, share: float, leave: int = 1) -> int:
    """Return how many of ``size`` positions a share is, at least 1; see :func:`draw_share`.

    Example:
        >>> share_of(30, 0.1), share_of(30, 0.001)
        (3, 1)
    """
    if not 0 < share < 1:
        raise ArgumentError("share", "be between 0 and 1", share)
    count = max(1, round(share * size))
    if count > size - leave:
        raise ArgumentError("share", "leave some of what there is", f"{share}, which takes all {size}")
    return count


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1.

    Example:
        >>> counted(1, "click"), counted(2_000, "click")
        ('1 click', '2000 clicks')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def were(count: int) -> str:
    """Return ``"was"`` for a count of 1 and ``"were"`` otherwise.

    Example:
        >>> were(1), were(2)
        ('was', 'were')
    """
    return "was" if count == 1 else "were"
