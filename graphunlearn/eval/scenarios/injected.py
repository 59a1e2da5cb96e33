"""Scenarios of attacks and mistakes: fake users, fraudulent clicks and wrong interactions are to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import Scenario, counted, split_up, were
from graphunlearn.eval.scenarios.injection import (
    check_count,
    draw_targets,
    generator_of,
    popular_first,
    with_interactions,
    with_users,
)

__all__ = ["Attack", "click_fraud", "mislabelled_popular", "shilling"]

Attack = Literal["average", "bandwagon"]
ATTACKERS: dict[str, int] = {"average": 60, "bandwagon": 20}
"""Fake users per target, by kind of attack."""
FILLERS = 30
"""Interactions of a fake user besides the target."""
POPULAR, OF_POPULAR = 50, 10
"""Number of popular items among the fillers of a bandwagon attacker; the other fillers are random items."""
HEAD = 20
"""Number of popular items that the wrong interactions of ``mislabelled_popular`` are drawn from."""
PER_USER = 5
"""Wrong interactions per user of ``mislabelled_popular``."""


def shilling(
    graph: InteractionGraph,
    *,
    kind: Attack = "average",
    attackers: int | None = None,
    targets: int = 3,
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Add fake users who promote a few items; the request is to forget these users.

    The targets are drawn from the items with 5 to 12 training interactions. Every fake user has one target and 30
    fillers, which are other items with training interactions. In the *average* attack, the fillers are drawn one after
    another without repetition, with probabilities proportional to the numbers of training interactions. In the
    *bandwagon* attack, 10 fillers are drawn from the 50 most popular items and 20 from all remaining items, both
    uniformly without repetition.

    Fake users are added to the training graph at the end of the users. The held-out graphs get the same users, without
    interactions. If the users have raw ids, the fake users get new ones (``"fake-0"``, ``"fake-1"`` and so on, with
    underscores in front if one of these is taken). Injected interactions have label 1, and the highest rating and the
    latest time of the training data.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        kind: ``"average"`` or ``"bandwagon"``.
        attackers: Number of fake users per target; by default 60 for the average and 20 for the bandwagon attack.
        targets: Number of target items.
        seed: Seed of the split and of all draws.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario ``"shilling"``. Its ``targets`` are the target items, and ``real`` is the mask of the users with
        training interactions who are not fake.

    Raises:
        ValueError: The kind is unknown, a number is not positive, there are fewer possible targets, or too few items to
            fill the interactions of a fake user.

    Source: the average and the bandwagon attack of Burke et al., "Identifying Attack Models for Secure Recommendation"
    (2005). All numbers, and fillers by popularity, are our choice.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = shilling(synthetic_interactions(num_users=60, num_items=80, interactions_per_user=8), targets=2)
        >>> len(scenario.request), scenario.train.num_users, int(scenario.request.mask(scenario.train).sum())
        (120, 180, 3720)
    """
    if kind not in get_args(Attack):
        raise ArgumentError("kind", f"be one of {', '.join(get_args(Attack))}", f"{kind!r}")
    attackers = ATTACKERS[kind] if attackers is None else attackers
    if attackers < 1:
        raise ArgumentError("attackers", "be at least 1", attackers)
    train, validation, test = split_up(graph, test, fractions, seed)
    generator, counts = generator_of(seed), _popularity(train)
    chosen = draw_targets(counts, targets, generator)
    known = int((counts > 0).sum())
    if known <= FILLERS:
        raise ArgumentError("graph", f"have at least {FILLERS + 1} items with training interactions", known)
    fillers = _average if kind == "average" else _bandwagon
    items = torch.cat([fillers(counts, int(target), attackers, generator) for target in chosen])
    items = torch.cat([chosen.repeat_interleave(attackers).unsqueeze(1), items], 1)
    first, count = train.num_users, len(items)
    real = _active(train)
    train, validation, test = with_users(train, validation, test, count=count)
    fake = torch.arange(first, first + count)
    train = with_interactions(train, torch.stack([fake.repeat_interleave(items.size(1)), items.flatten()]))
    of = f"{attackers} for each of {counted(len(chosen), 'target item')}"
    notes = [f"{counted(count, 'fake user')} ({of}; {kind} attack) {were(count)} added. The request is to forget them."]
    return Scenario(
        "shilling",
        train,
        validation,
        test,
        ForgetRequest.internal("user", fake),
        notes=notes,
        targets=chosen,
        real=torch.cat([real, real.new_zeros(count)]),
    )


def click_fraud(
    graph: InteractionGraph,
    *,
    attackers: int = 60,
    targets: int = 3,
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Add interactions of real users with a few items; the request is to forget these interactions.

    The targets are drawn from the items with 5 to 12 training interactions. For every target, users are drawn among
    those who have training interactions, but none with the target in training, validation or test. Each of them gets
    an interaction with the target, with label 1, and the highest rating and the latest time of the training data.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        attackers: Number of users per target; a user can be drawn for several targets.
        targets: Number of target items.
        seed: Seed of the split and of all draws.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario ``"click-fraud"``. Its ``targets`` are the target items, and ``real`` is the mask of the users with
        training interactions.

    Raises:
        ValueError: A number is not positive, or there are fewer possible targets or users.

    Source: our choice.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = click_fraud(synthetic_interactions(num_users=90, num_items=80, interactions_per_user=8))
        >>> len(scenario.request), scenario.targets.shape
        (180, torch.Size([3]))
    """
    train, validation, test = split_up(graph, test, fractions, seed)
    generator, active = generator_of(seed), _active(train)
    chosen = draw_targets(_popularity(train), targets, generator)
    users = []
    for target in chosen.tolist():
        able = (active & ~_holders(target, train, validation, test)).nonzero().flatten()
        check_count("attackers", attackers, len(able), "users who lack a target")
        users.append(able[torch.randperm(len(able), generator=generator)[:attackers]].sort().values)
    pairs = torch.stack([torch.cat(users), chosen.repeat_interleave(attackers)])
    of = f"{attackers} for each of {counted(len(chosen), 'target item')}"
    added = f"{counted(pairs.size(1), 'interaction')} of real users ({of}) {were(pairs.size(1))} added"
    notes = [f"{added}. The request is to forget them."]
    return Scenario(
        "click-fraud",
        with_interactions(train, pairs),
        validation,
        test,
        ForgetRequest.internal("interaction", pairs),
        notes=notes,
        targets=chosen,
        real=active,
    )


def mislabelled_popular(
    graph: InteractionGraph,
    *,
    attackers: int = 100,
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Add wrong interactions with popular items to real users; the request is to forget these interactions.

    Users are drawn among those who have training interactions and lack at least 5 of the 20 most popular items in
    training, validation and test. Each of them gets interactions with 5 random ones of the popular items that they
    lack, with label 1, and the highest rating and the latest time of the training data. Ties in popularity are broken
    at random.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        attackers: Number of users who get wrong interactions.
        seed: Seed of the split and of all draws.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario ``"mislabelled-popular"``. Its ``targets`` are the items of the wrong interactions, and ``real`` is
        the mask of the users with training interactions.

    Raises:
        ValueError: The number is not positive, or there are fewer possible users.

    Source: our choice.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> graph = synthetic_interactions(num_users=60, num_items=80, interactions_per_user=8)
        >>> scenario = mislabelled_popular(graph, attackers=20)
        >>> len(scenario.request), int(scenario.request.mask(scenario.train).sum())
        (100, 100)
    """
    train, validation, test = split_up(graph, test, fractions, seed)
    generator, active = generator_of(seed), _active(train)
    popular = popular_first(_popularity(train), generator)[:HEAD]
    lacks = torch.stack([active & ~_holders(item, train, validation, test) for item in popular.tolist()], 1)
    able = (lacks.sum(1) >= PER_USER).nonzero().flatten()
    check_count("attackers", attackers, len(able), f"users who lack {PER_USER} of the {HEAD} most popular items")
    users = able[torch.randperm(len(able), generator=generator)[:attackers]].sort().values
    keys = torch.rand(attackers, len(popular), generator=generator).masked_fill(~lacks[users], -1)
    items = popular[keys.topk(PER_USER).indices]
    pairs = torch.stack([users.repeat_interleave(PER_USER), items.flatten()])
    of = f"{PER_USER} for each of {counted(attackers, 'real user')}"
    notes = [f"{pairs.size(1)} interactions with popular items ({of}) were added. The request is to forget them."]
    return Scenario(
        "mislabelled-popular",
        with_interactions(train, pairs),
        validation,
        test,
        ForgetRequest.internal("interaction", pairs),
        notes=notes,
        targets=items.unique(),
        real=active,
    )


def _average(counts: Tensor, target: int, attackers: int, generator: torch.Generator) -> Tensor:
    """Return the fillers of fake users, drawn by popularity without repetition ``[attackers, FILLERS]``."""
    weights = counts.double()
    weights[target] = 0
    return torch.multinomial(weights.expand(attackers, -1), FILLERS, generator=generator)


def _bandwagon(counts: Tensor, target: int, attackers: int, generator: torch.Generator) -> Tensor:
    """Return the fillers of fake users: popular items and random other items ``[attackers, FILLERS]``."""
    popular = popular_first(counts, generator)
    popular = popular[popular != target][:POPULAR]
    chosen = popular[torch.rand(attackers, len(popular), generator=generator).topk(OF_POPULAR).indices]
    keys = torch.rand(attackers, len(counts), generator=generator)
    keys[:, counts == 0] = -1
    keys[:, target] = -1
    keys.scatter_(1, chosen, -1)
    return torch.cat([chosen, keys.topk(FILLERS - OF_POPULAR).indices], 1)


def _popularity(train: InteractionGraph) -> Tensor:
    """Return the number of training interactions of every item, on the CPU ``[num_items]``."""
    return torch.bincount(train.pairs[1], minlength=train.num_items).cpu()


def _active(train: InteractionGraph) -> Tensor:
    """Return the mask of the users with training interactions, on the CPU ``[num_users]``."""
    return (torch.bincount(train.pairs[0], minlength=train.num_users) > 0).cpu()


def _holders(item: int, *graphs: InteractionGraph) -> Tensor:
    """Return the mask of the users with an interaction with ``item`` in a graph, on the CPU ``[num_users]``."""
    mask = torch.zeros(graphs[0].num_users, dtype=torch.bool)
    for graph in graphs:
        mask[graph.pairs[0, graph.pairs[1] == item].cpu()] = True
    return mask
