"""Tests of forgetting: what to train on, what to forget of it, and what to judge by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph

__all__ = ["SHARES", "Scenario", "flipped_labels", "removal", "requested"]

SHARES = {"flipped-labels": 0.02, "users": 0.02, "items": 0.02, "random-edges": 0.05, "adversarial-edges": 0.3}
"""The share that every scenario forgets, flips or injects where none is given."""
_LEVELS = {"user": "users", "item": "items", "interaction": "random-edges"}


@dataclass
class Scenario:
    """What to train on, what to forget, and what to judge by.

    Args:
        name: As on the command line.
        train: The training graph, with whatever was injected into it.
        validation: Decides when training stops.
        test: Judges; never looked at before.
        request: What to forget.
        trained_labels: Whether the labels of the forgotten interactions were injected, and forgetting is telling them.
        notes: Sentences for the report.
    """

    name: str
    train: InteractionGraph
    validation: InteractionGraph
    test: InteractionGraph
    request: ForgetRequest
    trained_labels: bool = False
    notes: list[str] = field(default_factory=list)


def flipped_labels(
    graph: InteractionGraph,
    *,
    share: float = SHARES["flipped-labels"],
    threshold: float = 3.0,
    seed: int = 0,
) -> Scenario:
    """Flip a share of the training labels; the flipped interactions are to be forgotten.

    Ratings above ``threshold`` are positive, the split is 60/20/20. Forgetting the flips should undo them: the AUC of
    the flipped labels falls to what models have that never saw them.

    Args:
        graph: Rated interactions.
        share: Share of the training labels to flip, in (0, 1).
        threshold: Ratings above it are positive.
        seed: Seed of the split and of the choice.

    Raises:
        ValueError: There are no ratings, or the share flips nothing or is not a share.

    Source: the evaluation of Zhang et al., "Recommendation Unlearning via Influence Function", arXiv 2307.02147.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = flipped_labels(synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8))
        >>> len(scenario.request) == round(0.02 * scenario.train.num_interactions)
        True
    """
    if graph.rating is None and graph.label is None:
        raise ValueError("'graph' must carry ratings for the flipped-labels scenario (got none)")
    labelled = graph if graph.rating is None else graph.binarize(threshold)
    train, validation, test = labelled.random_split([0.6, 0.2, 0.2], seed=seed)
    chosen = draw_share(train.num_interactions, share, seed)
    assert train.label is not None
    flipped = train.label.clone()
    flipped[chosen] = 1 - flipped[chosen]
    train = copy.copy(train)
    train[EDGE_TYPE].label = flipped
    notes = [f"{len(chosen)} of {train.num_interactions} training labels were flipped, and are what is forgotten."]
    request = ForgetRequest.internal("interaction", train.pairs[:, chosen])
    return Scenario("flipped-labels", train, validation, test, request, trained_labels=True, notes=notes)


def removal(
    graph: InteractionGraph,
    level: str,
    *,
    share: float | None = None,
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario:
    """Forget a random share of the users, items or interactions.

    Args:
        graph: All interactions, or those to train on where ``test`` is given.
        level: ``"user"``, ``"item"`` or ``"interaction"``.
        share: Share to forget, in (0, 1); at least one. By default 2% of the users or items, 5% of the interactions.
        seed: Seed of the split and of the choice.
        test: Held-out interactions in the numbering of ``graph``; a part of ``graph`` otherwise.
        fractions: Shares of training, validation and test; the last one is unused where ``test`` is given.

    Raises:
        ValueError: The level is unknown, the share is not a share, or it would leave nothing.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = removal(synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8), "user")
        >>> scenario.name, len(scenario.request)
        ('users', 1)
    """
    if level not in _LEVELS:
        raise ValueError(f"'level' must be one of {', '.join(_LEVELS)} (got {level!r})")
    name = _LEVELS[level]
    share = SHARES[name] if share is None else share
    train, validation, test, notes = split_up(graph, test, fractions, seed)
    if level == "interaction":
        index: Tensor = train.pairs[:, draw_share(train.num_interactions, share, seed)]
    else:
        nodes = torch.unique(train.pairs[0 if level == "user" else 1])
        index = nodes[draw_share(len(nodes), share, seed)]
    request = ForgetRequest.internal(level, index)  # type: ignore[arg-type]
    notes.insert(0, f"A random {share:.2%} of the {level}s were chosen to be forgotten.")
    return Scenario(name, train, validation, test, request, notes=notes)


def requested(
    graph: InteractionGraph,
    request: ForgetRequest,
    *,
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario:
    """Forget what is asked, such as the content of a file.

    Pairs that are only held out were not learned: they are dropped from the held-out parts, counted, and left out of
    the request.

    Args:
        graph: All interactions, or those to train on where ``test`` is given.
        request: What to forget; :meth:`ForgetRequest.from_file` reads one.
        seed: Seed of the split.
        test: Held-out interactions in the numbering of ``graph``; a part of ``graph`` otherwise.
        fractions: Shares of training, validation and test; the last one is unused where ``test`` is given.

    Raises:
        ValueError: The data do not know a user, an item or a pair, or nothing that is asked is trained on.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8)
        >>> scenario = requested(graph, gu.ForgetRequest("user", ["u1", "u2"]))
        >>> int((scenario.train.pairs[0] < 3).sum()) > int(scenario.request.mask(scenario.train).sum()) > 0
        True
    """
    train, validation, test, notes = split_up(graph, test, fractions, seed)
    learned, held = pair_codes(train), torch.cat([pair_codes(validation), pair_codes(test)])
    parts, only_held = [], 0
    for part in request.parts:
        if part.level != "interaction":
            parts.append(part)
            continue
        wanted = request_codes(part, train)
        unlearned = torch.isin(wanted, held) & ~torch.isin(wanted, learned)
        rest = [pair for pair, out in zip(part.index, unlearned.tolist()) if not out]
        parts += [ForgetRequest("interaction", tuple(rest), part.raw)] if rest else []
        only_held += len(wanted) - len(rest)
        validation, test = (g.select(~torch.isin(pair_codes(g), wanted)) for g in (validation, test))
    if not parts:
        raise ValueError(
            f"'request' must hold an interaction that is trained on (got {only_held}, all of them held out)"
        )
    request = reduce(or_, parts)
    request.mask(train)  # says what the data do not know before anything is trained
    if only_held:
        notes.insert(
            0, f"{only_held} of the pairs to forget were only held out, and were dropped: nothing learned them."
        )
    return Scenario("file", train, validation, test, request, notes=notes)


def split_up(
    graph: InteractionGraph, test: InteractionGraph | None, fractions: Sequence[float], seed: int
) -> tuple[InteractionGraph, InteractionGraph, InteractionGraph, list[str]]:
    """Return training, validation and test part, and what is to be said of them."""
    if test is None:
        train, validation, test = graph.random_split(list(fractions), seed=seed)
        return train, validation, test, []
    whole = fractions[0] + fractions[1]
    train, validation = graph.random_split([fractions[0] / whole, fractions[1] / whole], seed=seed)
    left = test.num_left_out
    return train, validation, test, [f"{left} test rows name a user or item that the data lack; left out."] * bool(left)


def draw_share(size: int, share: float, seed: int, leave: int = 1) -> Tensor:
    """Return the positions of a random share of ``size`` things, at least one; some are to be left."""
    if not 0 < share < 1:
        raise ValueError(f"'share' must be between 0 and 1 (got {share})")
    count = max(1, round(share * size))
    if count > size - leave:
        raise ValueError(f"'share' must leave some of what there is (got {share}, which takes all {size})")
    generator = torch.Generator().manual_seed(7_919 + seed)
    return torch.randperm(size, generator=generator)[:count].sort().values


def pair_codes(graph: InteractionGraph) -> Tensor:
    """Return one number per interaction, on the CPU."""
    return (graph.pairs[0] * graph.num_items + graph.pairs[1]).cpu()


def request_codes(part: ForgetRequest, graph: InteractionGraph) -> Tensor:
    """Return the same number for every pair of a request; -1 where the graph knows one of its ends not at all."""
    users, items = (
        graph.vocabulary(side).lookup(ids) if part.raw else torch.tensor(ids)
        for side, ids in zip(("user", "item"), zip(*part.index))
    )
    outside = (users < 0) | (users >= graph.num_users) | (items < 0) | (items >= graph.num_items)
    return torch.where(outside, -1, users * graph.num_items + items)
