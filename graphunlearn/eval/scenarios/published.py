"""The requests of the CURE4Rec benchmark: the most active, the least active, or random users."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import Scenario, counted, share_of, split_up, were
from graphunlearn.eval.scenarios.injection import generator_of

__all__ = ["cure4rec"]


def cure4rec(
    graph: InteractionGraph,
    test: InteractionGraph,
    group: Literal["core", "random", "edge"],
    *,
    share: float = 0.05,
    users: Iterable[Any] | None = None,
    seed: int = 42,
    validation: float = 0.1,
) -> Scenario[InteractionGraph]:
    """Forget users as the CURE4Rec benchmark does.

    Users are counted by their interactions in ``graph``: ``"core"`` takes those with the most, ``"edge"`` those with
    the fewest (ties by the smaller number), and ``"random"`` draws among all with interactions. The number of users is
    the share rounded down. The published code stops training early by the test interactions; here a random part of
    ``graph`` is held out for that. Measure with ``graph`` without the request masked, and with ``"ndcg_full@20"`` and
    ``"recall@20"`` of :class:`~graphunlearn.metrics.Ranker`, which are printed as NDCG@20 and HR@20 there.

    Args:
        graph: The training interactions of the benchmark.
        test: Its test interactions, with the node numbers of ``graph``.
        group: ``"core"``, ``"random"`` or ``"edge"``.
        share: Share of the users to forget, in (0, 1).
        users: Raw ids of the users to forget instead, such as those of the files of the benchmark; users without
            interactions in ``graph`` are ignored.
        seed: Seed of the random users and of the held-out part.
        validation: Share of ``graph`` that is held out.

    Returns:
        The scenario ``"cure4rec-core"``, ``"cure4rec-random"`` or ``"cure4rec-edge"``.

    Raises:
        ValueError: The group is unknown, a share is not in (0, 1), or no user would be chosen or left.

    Source: CURE4Rec, arXiv 2408.14393, and its public code.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]]))
        >>> cure4rec(graph, graph, "core", share=0.4).request
        ForgetRequest.internal('user', [0])
    """
    if group not in ("core", "random", "edge"):
        raise ArgumentError("group", "be one of core, random, edge", f"{group!r}")
    train, held, test = split_up(graph, test, [1 - validation, validation, 0.0], seed)
    count = torch.bincount(graph.pairs[0].cpu(), minlength=graph.num_users)
    active = count.nonzero().flatten()
    if users is not None:
        try:
            found = graph.vocabulary("user").lookup(users).unique()
        except ArgumentError as error:
            raise error.renamed("users") from None
        chosen = found[torch.isin(found, active)]
    else:
        share_of(len(active), share)  # checks the share
        if group == "random":
            active = active[torch.randperm(len(active), generator=generator_of(seed))]
        else:
            active = active[count[active].argsort(descending=group == "core", stable=True)]
        chosen = active[: max(1, math.floor(share * len(active) + 1e-9))]
    chosen = chosen[torch.isin(chosen, train.pairs[0].cpu())].sort().values
    if not 0 < len(chosen) < len(count.nonzero()):
        raise ArgumentError("users", "hold some of the users with training interactions, not all", f"{len(chosen)}")
    what = counted(len(chosen), "user")
    notes = [f"{what} {were(len(chosen))} chosen to be forgotten: the group {group!r} of CURE4Rec."]
    request = ForgetRequest.internal("user", chosen)
    return Scenario(f"cure4rec-{group}", train, held, test, request, notes=notes)
