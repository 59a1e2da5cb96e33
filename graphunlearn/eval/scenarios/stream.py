"""Streams: the request of a scenario, divided among those who ask, who leave one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Generic

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest
from graphunlearn.data.schema import check, check_sizes, is_whole
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import G, Scenario

__all__ = ["Stream", "arriving", "united"]


@dataclass
class Stream(Generic[G]):
    """The data of a scenario together with its requests, in the order of their arrival.

    Args:
        scenario: The data; its ``request`` is the union of all requests of the stream.
        requests: The requests, each of one user or of one session. No two ask for the same interactions or clicks.

    Raises:
        ValueError: There is no request, one matches nothing or asks for what an earlier one forgot, or they leave
            nothing; or, for sessions, a request names numbers of sessions or positions of clicks that earlier requests
            change.
    """

    scenario: Scenario[G]
    requests: list[ForgetRequest]

    def __post_init__(self) -> None:
        if not self.requests:
            raise ArgumentError("requests", "hold at least one request", "none")
        graph: Any = self.scenario.train
        gone = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.device)
        changed = torch.zeros(graph.num_queries, dtype=torch.bool, device=graph.device)
        for number, request in enumerate(self.requests, 1):
            mask = request.mask(graph)
            if bool((mask & gone).any()):
                again = f"request {number}, which asks again for {int((mask & gone).sum())} of them"
                raise ArgumentError("requests", f"ask once for every {graph.unit}", again)
            if graph.kind == "sessions":
                self._check_stable(number, request, changed[graph.session[mask]])
                changed[graph.session[mask]] = True
            gone |= mask
        if bool(gone.all()):
            raise ArgumentError("requests", f"leave some {graph.unit}s", f"{len(self.requests)} that leave none")

    @staticmethod
    def _check_stable(number: int, request: ForgetRequest, changed: Tensor) -> None:
        """Raise an error if a request for sessions means something else once earlier requests have been served."""
        if not all(part.raw for part in request.parts if part.level in ("session", "click")):
            got = f"request {number} by numbers, which change when a session is dropped"
            raise ArgumentError("requests", "name sessions by raw ids", got)
        if any(part.level == "click" for part in request.parts) and bool(changed.any()):
            got = f"request {number}, whose positions change with an earlier request of the session"
            raise ArgumentError("requests", "name the clicks of a session at once", got)

    def until(self, count: int) -> ForgetRequest:
        """Return the union of the first requests.

        Args:
            count: Number of requests, at least 1.

        Raises:
            ValueError: ``count`` is not a whole number from 1 to the number of requests.
        """
        check_sizes(count=count)
        most = len(self.requests)
        check(f"be at most {most}, the number of requests", lambda value: value <= most, count=count)
        return united(self.requests[:count])


def united(requests: Sequence[ForgetRequest]) -> ForgetRequest:
    """Return the union of many requests, in time linear in their size.

    Args:
        requests: The requests, at least one.

    Example:
        >>> united([ForgetRequest("user", ["1"]), ForgetRequest("user", ["2"]), ForgetRequest("user", ["3"])])
        ForgetRequest('user', ['1', '2', '3'])
    """
    levels: dict[Any, list[ForgetRequest]] = {}
    for request in requests:
        for part in request.parts:
            levels.setdefault((part.level, part.raw), []).append(part)
    merged = []
    for (level, raw), parts in levels.items():
        items = {click: item for part in parts for click, item in part.items.items()}
        merged.append(ForgetRequest(level, tuple(entry for part in parts for entry in part.index), raw).naming(items))
    return reduce(or_, merged)


def arriving(scenario: Scenario[G], *, count: int | None = None, seed: int = 0) -> Stream[G]:
    """Divide the request of a scenario among those who ask: users, or sessions, in a random order.

    Everybody asks once, for all of their own interactions or clicks that the scenario forgets. Those who forget
    everything they have ask at level ``"user"`` or ``"session"``, others at level ``"interaction"`` or ``"click"``.

    Args:
        scenario: The scenario, such as :func:`sensitive` or :func:`spam_sessions`.
        count: Number of requests; those who are not drawn forget nothing. By default all who are concerned ask.
        seed: Seed of the order, and of the draw.

    Returns:
        The stream.

    Raises:
        ValueError: ``count`` is no whole number, below 1, or larger than the number of users or sessions that the
            request concerns.

    Source: the order of requests follows ERASE, arXiv 2603.08341.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> from graphunlearn.eval import sensitive
        >>> graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12)
        >>> stream = arriving(sensitive(graph, graph.item_ids[:15], share=0.5), count=3)
        >>> len(stream.requests), len({user for r in stream.requests for user, _ in r.index})
        (3, 3)
    """
    graph: Any = scenario.train
    mask = scenario.request.mask(graph).cpu()
    sessions = graph.kind == "sessions"
    owner = (graph.session if sessions else graph.pairs[0]).cpu()
    concerned = owner[mask].unique()
    wanted, noun = len(concerned) if count is None else count, "session" if sessions else "user"
    expected = f"be between 1 and {len(concerned)}, every {noun} that the request concerns"
    check(expected, lambda number: is_whole(number) and 1 <= number <= len(concerned), count=wanted)
    generator = torch.Generator().manual_seed(32_452_843 + seed)
    chosen = concerned[torch.randperm(len(concerned), generator=generator)[:wanted]]
    total = torch.bincount(owner, minlength=graph.num_queries)
    rows = mask.nonzero().flatten()
    rows = rows[owner[rows].argsort(stable=True)]
    own = dict(zip(concerned.tolist(), rows.split(torch.bincount(owner[rows])[concerned].tolist()), strict=True))
    requests = [_of_one(graph, one, own[one], total) for one in chosen.tolist()]
    asked = f"{wanted} {noun}s ask, one after another." if wanted > 1 else f"1 {noun} asks."
    notes = [*scenario.notes, asked]
    return Stream(Scenario(**{**vars(scenario), "request": united(requests), "notes": notes}), requests)


def _of_one(graph: Any, owner: int, rows: Tensor, total: Tensor) -> ForgetRequest:
    """Return the request of one user or session, by raw ids, since sessions are renumbered where one is dropped."""
    query = graph.query
    name = graph.vocabulary(query)[owner]
    if len(rows) == int(total[owner]):
        return ForgetRequest(query, (name,))
    if query == "session":
        return ForgetRequest("click", tuple((name, int(at)) for at in graph.position[rows]))
    items = graph.vocabulary("item")
    return ForgetRequest("interaction", tuple((name, items[int(item)]) for item in graph.pairs[1, rows]))
