"""What is measured on several ranks: lists for users, ranking metrics, and distances to retrained models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.items import DividedItems
from graphunlearn.distributed.sums import shared
from graphunlearn.errors import ArgumentError
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn.encoding import SCORES, best_items, encode, finite_encoding, score

__all__ = ["audit", "measure", "recommend"]


def recommend(
    model: nn.Module, graph: ShardGraph, k: int = 10, users: Sequence[str] | None = None
) -> tuple[Tensor, Tensor] | None:
    """Return the best items for users of all ranks, as :func:`~graphunlearn.recommend` does; only rank 0 gets them.

    Args:
        model: The part of the model.
        graph: The part of the graph, whose interactions are excluded; after unlearning, the retained part.
        k: Number of items per user.
        users: Raw ids, the same on all ranks; by default all users in the order of their numbers.

    Returns:
        Items and scores ``[num_users, k]``; a place without an item is ``-1``.

    Raises:
        ArgumentError: No rank holds a user.
        RankError: Another rank failed or was given other users.
    """
    ranks = graph.ranks
    with ranks.guard():
        ranks.same(users=users, k=k)
        if users is None:
            own, order = torch.arange(graph.num_users, device=graph.device), None
        else:
            numbers = graph.vocabulary("user").lookup(users)
            here = numbers >= 0
            known = ranks.total(here.int())
            if not bool((known > 0).all()):
                raise ArgumentError("users", "hold users of the graph", users[int((known == 0).nonzero()[0])])
            own, order = numbers[here].to(graph.device), here.nonzero().view(-1)
        learned = graph.active[graph.num_users :]
        best = best_of_parts if graph.item_rows.divided else best_items
        items, scores = best(model.eval(), graph, k, own, learned)
        found = ranks.gather(items), ranks.gather(scores)
        places = None if order is None else ranks.gather(order)
        if found[0] is None or found[1] is None:
            return None
        if places is None:
            return found[0], found[1]
        back = places.argsort().to(graph.device)
        return found[0][back], found[1][back]


@torch.no_grad()
def best_of_parts(
    model: nn.Module, graph: ShardGraph, k: int, users: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what :func:`~graphunlearn.nn.encoding.best_items` does where every rank holds the rows of a part of items.

    The ranks send their rows one after another; a rank keeps the best items of its users among those seen so far, and
    never holds more than the rows of two parts.

    Args:
        model: The part of the model.
        graph: The part of the graph, whose interactions are excluded.
        k: Number of items per user.
        users: Users of this rank ``[num]``.
        candidates: Mask of the items that may be returned ``[num_items]``.

    Returns:
        Items and scores ``[num, k]``, best first; a place without an item is ``-1`` with a score of minus infinity.

    Raises:
        ArgumentError: ``k`` is not between 1 and the number of items, or an embedding is not finite.
    """
    if not 1 <= k <= graph.num_items:
        raise ArgumentError("k", f"be between 1 and the number of items, {graph.num_items}", k)
    encoded, rows = finite_encoding(model, graph), cast(DividedItems, graph.item_rows)
    squares = [graph.ranks.number(float(part.double().square().sum())) for part in encoded[:2]]
    safe = (squares[0] * squares[1]) ** 0.5 < torch.finfo(encoded.items.dtype).max  # otherwise products may overflow
    dtype = encoded.items.dtype if safe else torch.double
    found = torch.full((len(users), k), -1, dtype=torch.long, device=users.device)
    values = torch.full((len(users), k), -torch.inf, dtype=dtype, device=users.device)
    for rank in range(graph.ranks.world):
        part, first = rows.part(encoded.items, rank).to(dtype), rows.bounds[rank]
        size, left_out = max(1, min(1024, SCORES // max(len(part), 1))), ~candidates[first : first + len(part)]
        for start in range(0, len(users) if len(part) else 0, size):
            place = slice(start, start + size)
            batch = users[place]
            scores = encoded.queries[batch].to(dtype) @ part.t()
            if not safe:
                scores.nan_to_num_()
            user, item = graph.seen(batch)
            here = (item >= first) & (item < first + len(part))
            scores[user[here], item[here] - first] = -torch.inf
            scores.masked_fill_(left_out, -torch.inf)
            best, chosen = scores.topk(min(k, len(part)))
            both = torch.cat([values[place], best], 1), torch.cat([found[place], chosen + first], 1)
            values[place], order = both[0].topk(k)
            found[place] = both[1].gather(1, order)
    return found.masked_fill(values == -torch.inf, -1), values


@torch.no_grad()
def measure(model: nn.Module, graph: ShardGraph, held_out: ShardGraph, ks: Sequence[int] = (20,)) -> dict[str, float]:
    """Return ranking metrics over the users of all ranks, after the AUROC of the labels if there are both kinds.

    Args:
        model: The part of the model.
        graph: The part of the training graph, whose interactions are not ranked.
        held_out: The part of the held-out data.
        ks: Lengths of the list.

    Returns:
        The metrics, the same on all ranks; NaN without users.

    Raises:
        RankError: Another rank failed.
    """
    ranks = graph.ranks
    with ranks.guard():
        encoded = shared(graph.item_rows, encode(model, graph))
        ranker = Ranker(graph, held_out, ks)
        own = ranker.counts["num_users"]
        users = ranks.number(own)
        scores = ranker(encoded.queries, encoded.items)
        nothing = float("nan")
        means = {name: ranks.number(value * own if own else 0.0) for name, value in scores.items()}
        means = {name: value / users if users else nothing for name, value in means.items()}
        label = held_out.label
        if label is not None and 0 < ranks.number(float(label.sum())) < held_out.count():
            found = [ranks.gather(x) for x in (score(encoded, held_out.pairs), label)]
            value = 0.0 if found[0] is None or found[1] is None else auroc(found[0], found[1])
            means = {"auroc": ranks.number(value)} | means
        return means


@torch.no_grad()
def audit(
    graph: ShardGraph,
    retained: ShardGraph,
    test: ShardGraph,
    models: dict[str, nn.Module],
    retrained: Sequence[nn.Module],
    ks: Sequence[int] = (20,),
) -> dict[str, Any]:
    r"""Compare parts of models with parts of retrained models, on the forgotten and on the test pairs of all ranks.

    Distances are the mean over retrained models and over pairs of :math:`|p - p_r|` with :math:`p = \sigma(s)`, as in
    an audit of one process. Attacks, figures and the report have no form on several ranks.

    Args:
        graph: The part before forgetting.
        retained: The retained part, on which all models propagate but the one named ``"original"``.
        test: The part of the test data.
        models: Parts of models by name, such as ``{"original": model, "ifru": result.model}``.
        retrained: Parts of retrained models.
        ks: Lengths of the list of the ranking metrics.

    Returns:
        For every model, the distances on ``"forgotten"`` and ``"test"`` pairs and its ``"utility"``; and the
        ``"floor"``, the distance between retrained models, ``None`` for fewer than two.

    Raises:
        ArgumentError: There is no retrained model.
        RankError: Another rank failed.
    """
    if not retrained:
        raise ArgumentError("retrained", "hold a retrained model", "none")
    ranks = graph.ranks
    with ranks.guard():
        left = torch.isin(graph.position, retained.position)
        emptied = graph.emptied(retained)
        kept = ~(emptied[test.pairs[0]] | emptied[test.pairs[1] + graph.num_users])
        test = test.select(kept)
        pairs = {"forgotten": graph.pairs[:, ~left], "test": test.pairs}
        number = {name: ranks.number(found.size(1)) for name, found in pairs.items()}

        def probabilities(model: nn.Module, over: ShardGraph) -> dict[str, Tensor]:
            encoded = shared(over.item_rows, encode(model, over))
            return {name: torch.sigmoid(score(encoded, found)) for name, found in pairs.items()}

        def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
            sums = {name: ranks.number(float((a[name] - b[name]).abs().double().sum())) for name in pairs}
            return {name: value / number[name] if number[name] else float("nan") for name, value in sums.items()}

        def mean(found: list[dict[str, float]]) -> dict[str, float]:
            return {name: sum(each[name] for each in found) / len(found) for name in pairs}

        references = [probabilities(model.eval(), retained) for model in retrained]
        answer: dict[str, Any] = {}
        for name, model in models.items():
            over = graph if name == "original" else retained
            own = probabilities(model.eval(), over)
            answer[name] = mean([apart(own, other) for other in references])
            answer[name]["utility"] = measure(model, over, test, ks)
        between = [apart(a, b) for a, b in combinations(references, 2)]
        answer["floor"] = mean(between) if between else None
        return answer
