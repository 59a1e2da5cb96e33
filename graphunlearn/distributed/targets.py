"""Targets of Calibrate on several ranks: a regression on never-seen pairs, of which each rank describes its own."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from graphunlearn.distributed.adjacency import ShardAdjacency
from graphunlearn.distributed.fitting import places
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.sums import shared
from graphunlearn.nn.encoding import Encoded, score
from graphunlearn.nn.training.negatives import draw_negatives

__all__ = ["shard_targets", "shard_unseen"]


@torch.no_grad()
def shard_targets(
    graph: ShardGraph, encoded: Encoded, pairs: Tensor, *, seed: int = 0, num_pairs: int = 16384
) -> Tensor:
    """Predict the scores of pairs as :func:`~graphunlearn.operators.calibrate.neighbourhood_targets` does.

    Args:
        graph: The retained part.
        encoded: The encoding of the part.
        pairs: The pairs of this rank ``[2, num]``.
        seed: Seed of the pairs that the regression is fitted to.
        num_pairs: Number of those pairs on all ranks.

    Returns:
        The predicted scores ``[num]``.
    """
    ranks, adjacency = graph.ranks, cast(ShardAdjacency, graph.adjacency)
    rows = torch.cat([encoded.queries, encoded.items])
    share = adjacency.degree.clamp(min=1).to(rows.dtype).reciprocal()
    means = adjacency.matrix(torch.repeat_interleave(share, adjacency.local.degree))
    mean = means @ rows
    tables = [_whole(graph, found) for found in (mean, means @ mean)]
    norm = tables[0].norm(dim=1)
    degree = torch.log1p(adjacency.degree.to(rows.dtype))

    def describe(pairs: Tensor) -> Tensor:
        u, i = pairs[0], pairs[1] + graph.num_users
        dots = [(a[u] * b[i]).sum(1) for a in tables for b in tables]
        return torch.stack([*dots, norm[u], norm[i], degree[u], degree[i]], 1)

    unseen = shard_unseen(graph, num_pairs, seed)
    known, number = describe(unseen), ranks.number(unseen.size(1))
    center = (ranks.total(known.double().sum(0)) / number).to(rows.dtype)
    squares = ranks.total((known - center).double().square().sum(0))
    scale = (squares / max(number - 1, 1)).sqrt().to(rows.dtype).clamp(min=1e-6)

    def design(features: Tensor) -> Tensor:
        x = ((features - center) / scale).clamp(-4, 4).double()
        a, b = torch.triu_indices(x.size(1), x.size(1), device=x.device)
        return torch.cat([torch.ones_like(x[:, :1]), x, x[:, a] * x[:, b], x[:, :4] ** 3], 1)

    x, y = design(known), score(shared(graph.item_rows, encoded), unseen).double()
    normal = ranks.total(x.t() @ x) / number + 1e-3 * torch.eye(x.size(1), dtype=x.dtype, device=x.device)
    return (design(describe(pairs)) @ torch.linalg.solve(normal, ranks.total(x.t() @ y) / number)).to(rows.dtype)


def _whole(graph: ShardGraph, rows: Tensor) -> Tensor:
    """Return rows of the users of this rank and of all items from those of its table."""
    users, items = rows[: graph.num_users], rows[graph.num_users :]
    return torch.cat([users, graph.item_rows.whole(items)]) if graph.item_rows.divided else rows


def shard_unseen(graph: ShardGraph, num: int, seed: int) -> Tensor:
    """Return those pairs of :func:`~graphunlearn.operators.calibrate.unseen_pairs` whose users this rank holds.

    Args:
        graph: The retained part.
        num: Number of pairs drawn on all ranks.
        seed: Seed of the draw.

    Returns:
        The pairs ``[2, at most num]``.
    """
    ranks, generator, total = graph.ranks, torch.Generator().manual_seed(seed), graph.count()
    chosen = torch.randint(total, (num,), generator=generator)
    place, order = places(graph.position.cpu(), total, ranks).sort()
    at = torch.searchsorted(place, chosen).clamp(max=max(len(place) - 1, 0))
    own = place[at] == chosen if len(place) else torch.zeros(num, dtype=torch.bool)
    pairs = torch.zeros(2, num, dtype=torch.long, device=graph.device)
    pairs[:, own] = graph.pairs[:, order[at[own]]]
    half = num // 2
    first = own.clone()
    first[half:] = False
    users, items = pairs[:, first]
    items_drawn = torch.zeros(num, dtype=torch.long, device=graph.device)
    items_drawn[first] = draw_negatives(graph, users, items, 1, seed).view(-1)
    walked = _walk(graph, ranks.total(pairs[1, half:]), generator)
    items_drawn[half:] = walked
    drawn = torch.stack([pairs[0, own], items_drawn[own]])
    held = graph.pairs[0] * graph.num_items + graph.pairs[1]
    return drawn[:, ~torch.isin(drawn[0] * graph.num_items + drawn[1], held)]


def _walk(graph: ShardGraph, items: Tensor, generator: torch.Generator) -> Tensor:
    """Return the items two random steps away from items, the same on all ranks ``[num]``."""
    ranks, adjacency, first = graph.ranks, cast(ShardAdjacency, graph.adjacency), graph.first_user
    # the neighbours of an item are ordered by user, so that those of rank 0 come first, then those of rank 1
    count = torch.zeros(ranks.world, len(items), dtype=torch.long, device=items.device)
    count[ranks.rank] = adjacency.local.degree[items + graph.num_users].long()
    ranks.total_(count)
    place = (torch.rand(len(items), generator=generator).to(items.device) * count.sum(0)).long()
    place -= count[: ranks.rank].sum(0)
    own = (place >= 0) & (place < count[ranks.rank])
    users = torch.zeros_like(items)
    start = adjacency.rowptr[items[own] + graph.num_users].long()
    users[own] = adjacency.col[start + place[own]].long() + first
    ranks.total_(users)
    draw = torch.rand(len(items), generator=generator).to(items.device)
    own = (users >= first) & (users < first + graph.num_users)
    local = users[own] - first
    found = torch.zeros_like(items)
    place = (draw[own] * adjacency.local.degree[local]).long()
    found[own] = adjacency.col[adjacency.rowptr[local].long() + place].long() - graph.num_users
    return ranks.total_(found)
