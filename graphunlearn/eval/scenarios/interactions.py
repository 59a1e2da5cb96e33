"""Scenarios of users and items: flipped labels, random removals, and requests from a file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.events import divide
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import SHARES, G, Scenario, counted, draw_share, split_up, were
from graphunlearn.eval.scenarios.sessions import remove_from_sessions, requested_of_sessions

__all__ = ["flipped_labels", "removal", "requested"]

_LEVELS = {"user": "users", "item": "items", "interaction": "random-edges"}


def flipped_labels(
    graph: InteractionGraph,
    *,
    share: float = SHARES["flipped-labels"],
    threshold: float = 3.0,
    seed: int = 0,
) -> Scenario[InteractionGraph]:
    """Flip a share of the training labels; the request is to forget the flipped interactions.

    Ratings above ``threshold`` are positive, and the split is 60/20/20. Forgetting should undo the flips: the AUC of
    the flipped labels should fall to the AUC of models that were never trained on them.

    Args:
        graph: Interactions with ratings, or with labels.
        share: Share of the training labels to flip, in (0, 1).
        threshold: Ratings above it get label 1, all others label 0. It is unused if the graph has no ratings.
        seed: Seed of the split and of the choice of interactions.

    Returns:
        The scenario ``"flipped-labels"``.

    Raises:
        ValueError: The graph has neither ratings nor labels, or the share is not in (0, 1).

    Source: the evaluation of Zhang et al., "Recommendation Unlearning via Influence Function", arXiv 2307.02147.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = flipped_labels(synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8))
        >>> len(scenario.request) == round(0.02 * scenario.train.num_interactions)
        True
    """
    if graph.rating is None and graph.label is None:
        raise ArgumentError("graph", "carry ratings for the flipped-labels scenario", "none")
    labelled = graph if graph.rating is None else graph.binarize(threshold)
    train, validation, test = labelled.random_split([0.6, 0.2, 0.2], seed=seed)
    chosen = draw_share(train.num_interactions, share, seed)
    assert train.label is not None
    flipped = train.label.clone()
    flipped[chosen] = 1 - flipped[chosen]
    train = copy.copy(train)
    train[EDGE_TYPE].label = flipped
    flips = f"{len(chosen)} of {counted(train.num_interactions, 'training label')} {were(len(chosen))} flipped"
    notes = [f"{flips}. The request is to forget them."]
    request = ForgetRequest.internal("interaction", train.pairs[:, chosen])
    return Scenario("flipped-labels", train, validation, test, request, trained_labels=True, notes=notes)


def removal(
    graph: G,
    level: str,
    *,
    share: float | None = None,
    seed: int = 0,
    test: G | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[G]:
    """Forget a random share of the users, items or interactions, or of the sessions or the items of sessions.

    Interactions are split at random, sessions by time. Sessions with a single click are not chosen, since they give no
    training samples.

    Args:
        graph: All interactions or sessions, or the training and validation data if ``test`` is given.
        level: ``"user"``, ``"item"`` or ``"interaction"``; for sessions, ``"session"`` or ``"item"`` (in all
            sessions).
        share: Share to forget, in (0, 1); at least one is forgotten. The default is 5% for interactions and 2% for all
            other levels.
        seed: Seed of the choice and, for interactions, of the split.
        test: Held-out data with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test. If ``test`` is given, the last share is unused:
            interactions are split in the ratio of the first two shares; for sessions, the second share is taken from
            the end.

    Returns:
        The scenario ``"users"``, ``"items"``, ``"random-edges"`` or ``"sessions"``.

    Raises:
        ValueError: The level is unknown, the share is not in (0, 1), or nothing would be left.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = removal(synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8), "user")
        >>> scenario.name, len(scenario.request)
        ('users', 1)
    """
    if isinstance(graph, SessionGraph):
        return remove_from_sessions(graph, level, share, seed, test, fractions)
    if level not in _LEVELS:
        raise ArgumentError("level", f"be one of {', '.join(_LEVELS)}", f"{level!r}")
    name = _LEVELS[level]
    share = SHARES[name] if share is None else share
    train, validation, test = split_up(graph, test, fractions, seed)
    if level == "interaction":
        index: Tensor = train.pairs[:, draw_share(train.num_interactions, share, seed)]
    else:
        nodes = torch.unique(train.pairs[0 if level == "user" else 1])
        index = nodes[draw_share(len(nodes), share, seed)]
    request = ForgetRequest.internal(level, index)  # type: ignore[arg-type]
    notes = [f"A random {share:.2%} of the {level}s were chosen to be forgotten."]
    return Scenario(name, train, validation, test, request, notes=notes)


def requested(
    graph: G,
    request: ForgetRequest,
    *,
    seed: int = 0,
    test: G | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[G]:
    """Forget a given request, such as one that was read from a file.

    Pairs (for sessions: clicks, sessions or users) that occur only in the held-out data were not learned. They are
    dropped from the held-out data and from the request, and a note for the report counts them.

    Args:
        graph: All interactions or sessions, or the training and validation data if ``test`` is given.
        request: The forget request; :meth:`ForgetRequest.from_file` reads one from a file.
        seed: Seed of the split of interactions; sessions are split by time.
        test: Held-out data with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; see :func:`removal`.

    Returns:
        The scenario ``"file"``.

    Raises:
        ValueError: The data lack an entry of the request, or the training data contain no entry of it.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8)
        >>> scenario = requested(graph, gu.ForgetRequest("user", ["u1", "u2"]))
        >>> int((scenario.train.pairs[0] < 3).sum()) > int(scenario.request.mask(scenario.train).sum()) > 0
        True
    """
    if isinstance(graph, SessionGraph):
        return requested_of_sessions(graph, request, test, fractions)
    train, validation, test = split_up(graph, test, fractions, seed)
    parts, only_held = [], 0
    for part in request.parts:
        if part.level != "interaction":
            parts.append(part)
            continue
        learned, held = divide(part, train, (validation, test))
        parts += [learned] if learned is not None else []
        only_held += 0 if held is None else len(held)
        validation, test = (g.without(part) for g in (validation, test))
    if not parts:
        raise ArgumentError("request", "hold an interaction that is trained on", f"{only_held}, all of them held out")
    request = reduce(or_, parts)
    request.mask(train)  # raises an error for unknown ids before anything is trained
    notes = []
    if only_held:
        notes.append(
            f"{only_held} of the pairs to forget {were(only_held)} only in held-out data, and dropped: "
            f"the model was not trained on {'it' if only_held == 1 else 'them'}."
        )
    return Scenario("file", train, validation, test, request, notes=notes)
