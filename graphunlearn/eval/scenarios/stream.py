"""Streams: the request of a scenario, divided among those who ask, who leave one after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Generic

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import G, Scenario

__all__ = ["Stream", "arriving"]


@dataclass
class Stream(Generic[G]):
    """The data of a scenario together with its requests, in the order of their arrival.

    Args:
        scenario: The data; its ``request`` is the union of all requests of the stream.
        requests: The requests, each of one user or of one session.
    """

    scenario: Scenario[G]
    requests: list[ForgetRequest]

    def until(self, count: int) -> ForgetRequest:
        """Return the union of the first requests.

        Args:
            count: Number of requests, at least 1.
        """
        return reduce(or_, self.requests[:count])


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
        ValueError: ``count`` is below 1, or larger than the number of users or sessions that the request concerns.

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
    wanted = len(concerned) if count is None else count
    if not 1 <= wanted <= len(concerned):
        noun = "session" if sessions else "user"
        raise ArgumentError(
            "count", f"be between 1 and {len(concerned)}, every {noun} that the request concerns", count
        )
    generator = torch.Generator().manual_seed(32_452_843 + seed)
    chosen = concerned[torch.randperm(len(concerned), generator=generator)[:wanted]]
    total = torch.bincount(owner, minlength=graph.num_queries)
    requests = [_of_one(graph, int(one), (mask & (owner == one)).nonzero().flatten(), total) for one in chosen]
    notes = [*scenario.notes, f"{wanted} {'sessions' if sessions else 'users'} ask, one after another."]
    one = Scenario(**{**vars(scenario), "request": reduce(or_, requests), "notes": notes})
    return Stream(one, requests)


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
