"""Scenario of spam in click sessions: fake sessions that promote a few items are to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import (
    SHARES,
    Scenario,
    counted,
    cut_by_time,
    share_of,
    were,
    without_unseen_items,
)
from graphunlearn.eval.scenarios.injection import draw_targets, fresh_ids, generator_of

__all__ = ["spam_sessions"]

SHORTEST = 4
"""Fewest clicks of a fake session."""
BATCH = 256
"""Fake sessions drawn at a time, which bounds the memory at ``BATCH * num_items`` numbers."""


def spam_sessions(
    graph: SessionGraph,
    *,
    share: float = SHARES["spam-sessions"],
    targets: int = 10,
    seed: int = 0,
    test: SessionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[SessionGraph]:
    r"""Add fake sessions that promote a few items; the request is to forget these sessions.

    The targets are drawn from the items with 5 to 12 training clicks. Every fake session has exactly one click on a
    target, which is not its first click; the targets are assigned to the sessions in turn. Its other clicks are on
    other items, drawn one after another without repetition, with probabilities proportional to the numbers of training
    clicks.

    The length :math:`L` of a fake session is drawn from a Poisson-lognormal distribution, given :math:`L \ge 4`:

    .. math::
        L \sim \mathrm{Poisson}(\lambda), \qquad \log \lambda \sim \mathcal{N}(\mu, \sigma^2)

    where :math:`\mu` and :math:`\sigma` are the mean and the standard deviation of the logarithm of the length of the
    training sessions. Lengths are limited to that of the longest training session (but not below 4 clicks), and to the
    number of items that can be drawn.

    Fake sessions are added at the end of the training sessions, with the latest time of the training clicks, without a
    user, and with new raw ids (``"spam-0"``, ``"spam-1"`` and so on, with underscores in front if one of these is
    taken). Sessions are split by time before that.

    Args:
        graph: All sessions, or the training and validation sessions if ``test`` is given.
        share: Number of fake sessions as a share of the training sessions, in (0, 1); at least one is added.
        targets: Number of target items.
        seed: Seed of all draws.
        test: Held-out sessions with the item numbers of ``graph``; by default the last sessions of ``graph``.
        fractions: Shares of training, validation and test. If ``test`` is given, the last share is unused and the
            second one is taken from the end of ``graph``.

    Returns:
        The scenario ``"spam-sessions"``. Its ``targets`` are the target items, and ``real`` is the mask of the training
        sessions that are not fake.

    Raises:
        ValueError: The share is not in (0, 1), there are fewer possible targets, or fewer than 3 other items have
            clicks.

    Source: the spam of ERASE, arXiv 2603.08341. The parameters of the lengths, the places of the targets and the share
    are our choice.

    Example:
        >>> sessions = [[n % 10, 10 + n % 7, 17 + n % 3, 5, 9] for n in range(100)]
        >>> scenario = spam_sessions(SessionGraph.from_sequences(sessions), share=0.1, targets=2)
        >>> len(scenario.request), scenario.train.num_sessions, int(scenario.train.length[80:].min())
        (8, 88, 5)
    """
    train, validation, test = cut_by_time(graph, test, fractions)
    count, generator = share_of(train.num_sessions, share), generator_of(seed)
    clicks = train.degree.cpu()
    chosen = draw_targets(clicks, targets, generator, "click")
    weights = clicks.double()
    weights[chosen] = 0
    others = int((weights > 0).sum())
    if others < SHORTEST - 1:
        raise ArgumentError("graph", f"have at least {SHORTEST - 1} clicked items besides the targets", others)
    length = _lengths(train.length.cpu(), count, generator).clamp(max=others + 1)
    items = _clicks(weights, chosen[torch.arange(count) % len(chosen)], length, generator)
    taken = {name for part in (train, validation, test) for name in part.session_ids}
    validation, test, more = without_unseen_items(train, validation, test)
    added = f"{counted(count, 'fake session')} with {counted(len(chosen), 'target item')} {were(count)} added"
    real = torch.cat([torch.ones(train.num_sessions, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)])
    return Scenario(
        "spam-sessions",
        _with_sessions(train, items, length, fresh_ids("spam-", count, taken)),
        validation,
        test,
        ForgetRequest.internal("session", torch.arange(train.num_sessions, train.num_sessions + count)),
        notes=[f"{added}. The request is to forget them.", *more],
        targets=chosen,
        real=real,
    )


def _lengths(real: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw the lengths of fake sessions like those of the ``real`` ones, but at least ``SHORTEST`` ``[count]``."""
    log = real.double().log()
    mean, spread = log.mean(), log.std(correction=0)
    drawn = torch.zeros(count, dtype=torch.double)
    while bool((short := drawn < SHORTEST).any()):
        rate = (mean + spread * torch.randn(int(short.sum()), dtype=torch.double, generator=generator)).exp()
        drawn[short] = torch.poisson(rate, generator=generator)
    return drawn.clamp(max=max(int(real.max()), SHORTEST)).long()


def _clicks(weights: Tensor, targets: Tensor, length: Tensor, generator: torch.Generator) -> Tensor:
    """Return the clicks of fake sessions, one session after another ``[length.sum()]``."""
    sessions = []
    for target, size in zip(targets.split(BATCH), length.split(BATCH)):
        fillers = torch.multinomial(weights.expand(len(target), -1), int(size.max()) - 1, generator=generator)
        place = 1 + (torch.rand(len(target), dtype=torch.double, generator=generator) * (size - 1)).long()
        for row, item, at, last in zip(fillers, target, place.tolist(), size.tolist()):
            sessions.append(torch.cat([row[:at], item.view(1), row[at : last - 1]]))
    return torch.cat(sessions)


def _with_sessions(graph: SessionGraph, items: Tensor, length: Tensor, ids: list[str]) -> SessionGraph:
    """Return the graph with more sessions at its end, at the latest time of its clicks and without a user."""
    device = graph.device
    time, user = graph.time, graph.user
    return SessionGraph.from_sequences(
        torch.cat([graph.items, items.to(device)]),
        torch.cat([graph.click_ptr, graph.num_clicks + length.cumsum(0).to(device)]),
        item_ids=graph.item_ids,
        session_ids=[*graph.session_ids, *ids],
        time=None if time is None else torch.cat([time, time.max().expand(len(items))]),
        user=None if user is None else torch.cat([user, user.new_full((len(length),), -1)]),
        user_ids=None if user is None else graph.vocabulary("user").ids,
    )
