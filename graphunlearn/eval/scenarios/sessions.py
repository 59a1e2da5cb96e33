"""Scenarios of sessions: forget single clicks, whole sessions, items in all sessions, or a request from a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.data.events import divide
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import (
    SHARES,
    Scenario,
    counted,
    cut_by_time,
    draw_share,
    were,
    without_unseen_items,
)

__all__ = ["remove_from_sessions", "requested_of_sessions", "session_clicks"]

SHORTEST = 4
"""Fewest clicks of a session in which a click is forgotten."""
_LEVELS = {"session": "sessions", "item": "items"}


def session_clicks(
    graph: SessionGraph,
    *,
    share: float = SHARES["session-clicks"],
    seed: int = 0,
    test: SessionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    collapse_repeats: bool = True,
) -> Scenario[SessionGraph]:
    r"""Forget one click in each of a random share of the training sessions.

    A session with :math:`L` clicks is eligible if :math:`L \ge 4` and its second half, the positions
    :math:`t \ge \lceil L/2 \rceil` counted from 0, has a click on an item that occurs only once in the session. The
    forgotten click is drawn from these clicks. Sessions are split by time: the last ones are test sessions, and those
    before them validation sessions.

    Args:
        graph: All sessions, or the training and validation sessions if ``test`` is given.
        share: Share of the eligible sessions, in (0, 1).
        seed: Seed of the choice of sessions and clicks.
        test: Held-out sessions with the item numbers of ``graph``; by default the last sessions of ``graph``.
        fractions: Shares of training, validation and test. If ``test`` is given, the last share is unused and the
            second one is taken from the end of ``graph``.
        collapse_repeats: Whether to count consecutive clicks on one item as one click.

    Returns:
        The scenario ``"session-clicks"``.

    Raises:
        ValueError: No session is eligible, or the share is not in (0, 1).

    Source of the request: the evaluation of SRU, arXiv 2312.14447. The minimum length, the single occurrence and the
    split are our choice.

    Example:
        >>> sessions = [[n % 5, 5, 6 + n % 3, 9, 9] for n in range(40)]
        >>> scenario = session_clicks(SessionGraph.from_sequences(sessions), share=0.25)
        >>> len(scenario.request), scenario.train.num_sessions, scenario.train.length[0].item()
        (8, 32, 4)
    """
    notes = []
    if collapse_repeats:
        parts = [graph] if test is None else [graph, test]
        collapsed = [part.collapse() for part in parts]
        dropped = sum(a.num_clicks - b.num_clicks for a, b in zip(parts, collapsed))
        graph, test = collapsed[0], None if test is None else collapsed[1]
        if dropped:
            repeats = f"{counted(dropped, 'click')} {were(dropped)}"
            notes.append(f"Consecutive clicks on one item count as one: {repeats} collapsed.")
    train, validation, test = cut_by_time(graph, test, fractions)
    validation, test, more = without_unseen_items(train, validation, test)
    clicks = _clicks_of_second_halves(train)
    sessions, count = torch.unique_consecutive(train.session[clicks], return_counts=True)
    if not sessions.numel():
        raise ArgumentError(
            "graph", f"hold sessions of at least {SHORTEST} clicks with an item of their own in the second half", "none"
        )
    chosen = draw_share(sessions.numel(), share, seed, leave=0).to(clicks.device)
    draw = torch.rand(chosen.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start = (count.cumsum(0) - count)[chosen]
    picked = clicks[start + (draw.to(clicks.device) * count[chosen]).long()]
    request = ForgetRequest.internal("click", torch.stack([train.session[picked], train.position[picked]]))
    notes.insert(0, f"The request is to forget one click in each of {counted(len(request), 'session')}.")
    return Scenario("session-clicks", train, validation, test, request, notes=[*notes, *more])


def remove_from_sessions(
    graph: SessionGraph,
    level: str,
    share: float | None,
    seed: int,
    test: SessionGraph | None,
    fractions: Sequence[float],
) -> Scenario[SessionGraph]:
    """Forget a random share of the sessions or of the items; see :func:`graphunlearn.eval.removal`."""
    if level not in _LEVELS:
        raise ArgumentError("level", f"be one of {', '.join(_LEVELS)} for sessions", f"{level!r}")
    name = _LEVELS[level]
    share = SHARES[name] if share is None else share
    train, validation, test = cut_by_time(graph, test, fractions)
    validation, test, notes = without_unseen_items(train, validation, test)
    there = (train.length > 1).nonzero().flatten() if level == "session" else torch.unique(train.x)
    chosen = there[draw_share(there.numel(), share, seed).to(there.device)]
    notes.insert(0, f"A random {share:.2%} of the {level}s were chosen to be forgotten.")
    request = ForgetRequest.internal("session" if level == "session" else "item", chosen)
    return Scenario(name, train, validation, test, request, notes=notes)


def requested_of_sessions(
    graph: SessionGraph, request: ForgetRequest, test: SessionGraph | None, fractions: Sequence[float]
) -> Scenario[SessionGraph]:
    """Forget a given request on sessions; see :func:`graphunlearn.eval.requested`."""
    request.mask(graph)  # raises an error for unknown ids before anything is trained
    divided = test is None
    train, validation, test = cut_by_time(graph, test, fractions)
    parts: list[ForgetRequest] = []
    held: list[ForgetRequest] = []
    for part in request.parts:
        if part.level == "item":
            parts.append(part)
            continue
        learned, rest = divide(_named(part, graph), train, (validation, test))
        parts += [learned] if learned is not None else []
        held += [rest] if rest is not None else []
    only_held = sum(map(len, held))
    if not parts:
        raise ArgumentError("request", "hold a click that is trained on", f"{only_held}, all of them held out")
    for part in held:
        validation = validation.without(part)
        test = test.without(part) if divided or part.level == "user" else test
    validation, test, notes = without_unseen_items(train, validation, test)
    if only_held:
        what = " and ".join(dict.fromkeys(f"{part.level}s" for part in held))
        notes.insert(
            0,
            f"{only_held} of the {what} to forget {were(only_held)} only in held-out data, and dropped: "
            f"the model was not trained on {'it' if only_held == 1 else 'them'}.",
        )
    return Scenario("file", train, validation, test, reduce(or_, parts), notes=notes)


def _clicks_of_second_halves(graph: SessionGraph) -> Tensor:
    """Return the clicks in second halves of long enough sessions, on items that occur once in their session."""
    once = torch.bincount(graph.alias, minlength=graph.x.numel())[graph.alias] == 1
    length = graph.length[graph.session]
    return (once & (length >= SHORTEST) & (2 * graph.position >= length)).nonzero().flatten()


def _named(part: ForgetRequest, graph: SessionGraph) -> ForgetRequest:
    """Return the request by raw ids, which are the same in all parts of ``graph``."""
    if part.raw:
        return part
    names = graph.vocabulary("user" if part.level == "user" else "session")
    index = [(names[e[0]], e[1]) if part.level == "click" else names[e] for e in part.index]
    return ForgetRequest(part.level, tuple(index))
