"""Recommended, lowest-scored and never-seen pairs, computed in batches rather than over all pairs at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn import Encoded

__all__ = ["exposure", "lowest_ranked", "never_seen_pairs"]


@torch.no_grad()
def exposure(encoded: Encoded, seen: InteractionGraph, pairs: Tensor, k: int = 20, batch_size: int = 256) -> float:
    r"""Return the share of ``pairs`` whose item is among the ``k`` best unseen items of its user.

    Items with equal scores share the remaining places. If :math:`a` unseen items score higher than the item of a pair
    and :math:`b` unseen items (including that item) score the same, the pair counts as
    :math:`\min(1, \max(0, (k - a) / b))`: the probability that the item is in the list if ties are broken at random.

    Args:
        encoded: Embeddings of users and items.
        seen: The retained graph, whose interactions are not recommended again.
        pairs: Users and items ``[2, num_pairs]``; no pair is in ``seen``.
        k: Length of the recommendation list.
        batch_size: Number of users scored at a time, which bounds the memory at ``batch_size * num_items`` scores.

    Returns:
        The share, or NaN if there are no pairs.

    Raises:
        ValueError: ``k`` is not positive.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0], [0]]), num_users=1, num_items=3)
        >>> encoded = Encoded(torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]]))
        >>> exposure(encoded, graph, torch.tensor([[0, 0], [1, 2]]), k=1)
        0.5
    """
    if k < 1:
        raise ArgumentError("k", "be at least 1", k)
    if not pairs.size(1):
        return float("nan")
    k = min(k, seen.num_items)
    users, row = pairs[0].unique(return_inverse=True)
    order = row.argsort()
    row, item = row[order], pairs[1][order]
    shown = torch.zeros((), dtype=torch.float64, device=pairs.device)
    for start, batch, here in _batches(users, row, batch_size):
        scores = encoded.queries[batch] @ encoded.items.t()
        own = torch.repeat_interleave(
            torch.arange(len(batch), device=batch.device), seen.adjacency.degree[batch].long()
        )
        scores[own, seen.adjacency.neighbors(batch) - seen.num_users] = -torch.inf
        last = scores.topk(k).values[:, -1:]  # the score on the last place of the list
        share = (k - (scores > last).sum(1)) / (scores == last).sum(1)
        value, mine = scores[row[here] - start, item[here]], row[here] - start
        shown += torch.where(value == last[mine, 0], share[mine].double(), (value > last[mine, 0]).double()).sum()
    return float(shown) / pairs.size(1)


@torch.no_grad()
def lowest_ranked(
    encoded: Encoded, side: str, nodes: Tensor, allowed: Tensor, held: Sequence[InteractionGraph], batch_size: int = 256
) -> Tensor:
    """Return the lowest-scored pair of every given user, or of every given item.

    Args:
        encoded: Embeddings of users and items.
        side: ``"user"`` for the lowest-scored item of every user, ``"item"`` for the lowest-scored user of every item.
        nodes: Distinct internal ids of users or items ``[num]``.
        allowed: Mask of the items (or users) that may be chosen.
        held: Graphs whose pairs are never chosen.
        batch_size: Number of nodes scored at a time, which bounds the memory.

    Returns:
        Users and items ``[2, at most num]`` in the order of ``nodes``. A node without a possible pair is left out.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0], [2]]), num_users=1, num_items=3)
        >>> encoded = Encoded(torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]]))
        >>> lowest_ranked(encoded, "user", torch.tensor([0]), torch.ones(3, dtype=torch.bool), [graph])
        tensor([[0],
                [1]])
    """
    own, others = (encoded.queries, encoded.items) if side == "user" else (encoded.items, encoded.queries)
    user, item = torch.cat([graph.pairs for graph in held], 1)
    row, column = (user, item) if side == "user" else (item, user)
    position = torch.full((len(own),), -1, device=nodes.device)
    position[nodes] = torch.arange(len(nodes), device=nodes.device)
    row = position[row]
    order = row.argsort()[int((row < 0).sum()) :]
    row, column = row[order], column[order]
    chosen = torch.full_like(nodes, -1)
    for start, batch, here in _batches(nodes, row, batch_size):
        scores = own[batch] @ others.t()
        scores[:, ~allowed] = torch.inf
        scores[row[here] - start, column[here]] = torch.inf
        lowest, other = scores.min(1)
        chosen[start : start + len(batch)] = other.masked_fill(lowest == torch.inf, -1)
    found = chosen >= 0
    pair = (nodes[found], chosen[found])
    return torch.stack(pair if side == "user" else pair[::-1])


def never_seen_pairs(users: Tensor, graphs: Sequence[InteractionGraph], seed: int = 0) -> Tensor:
    """Draw one never-seen pair per entry of ``users``: its item is uniform over the items that the user has not seen.

    If ``users`` are the users of the forgotten pairs, both samples have the same users, so that effects of single users
    on the scores cancel in :func:`membership_auroc`. Draws are independent, so a pair can occur twice. For a larger
    sample, repeat the users. The cost grows with the number of interactions and draws, not with the number of pairs.

    Args:
        users: Internal user ids ``[num]``, repeats allowed.
        graphs: Graphs of equal size, such as training, validation and test, whose pairs are never drawn.
        seed: Seed of the draw.

    Returns:
        Pairs ``[2, at most num]`` in the order of ``users``. Entries of users who have seen every item are left out.

    Raises:
        ValueError: There is no graph, or the graphs differ in size.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1], [0, 1, 2]]), num_users=2, num_items=3)
        >>> never_seen_pairs(torch.tensor([0, 0]), [graph])
        tensor([[0, 0],
                [2, 2]])
    """
    sizes = {(graph.num_users, graph.num_items) for graph in graphs}
    if len(sizes) != 1:
        raise ArgumentError("graphs", "be one or more graphs of equal size", f"sizes {sorted(sizes)}")
    num_users, num_items = sizes.pop()
    user, item = torch.cat([graph.pairs for graph in graphs], dim=1)
    known = torch.unique(user * num_items + item)
    user, item = known // num_items, known % num_items
    count = torch.bincount(user, minlength=num_users)
    start = count.cumsum(0) - count
    users = users[count[users] < num_items]
    # the r-th unseen item is r + #{j: c_j - j <= r} for the user's sorted seen items c_0 < c_1 < ...: one binary search
    unseen_before = item - (torch.arange(known.numel(), device=known.device) - start[user])
    draw = torch.rand(users.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        users.device
    )
    rank = (draw * (num_items - count[users])).long()
    stride = num_items + 1
    seen_before = torch.searchsorted(user * stride + unseen_before, users * stride + rank, right=True) - start[users]
    return torch.stack([users, rank + seen_before])


def _batches(nodes: Tensor, row: Tensor, size: int) -> list[tuple[int, Tensor, slice]]:
    """Return the batches of ``nodes``: start of the batch, its nodes, and their slice of the sorted ``row``."""
    starts = torch.arange(0, len(nodes) + size, size, device=row.device)
    bounds = torch.searchsorted(row, starts).tolist()
    return [(n * size, batch, slice(*bounds[n : n + 2])) for n, batch in enumerate(nodes.split(size))]
