"""Strength of the recommendation of promoted items to real users, or after prefixes of real sessions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.schema import as_mask
from graphunlearn.errors import ArgumentError
from graphunlearn.nn import Encoded

__all__ = ["last_prefixes", "session_target_figures", "target_figures"]


@torch.no_grad()
def target_figures(
    encoded: Encoded,
    graph: InteractionGraph,
    targets: Tensor,
    real_users: Tensor | None = None,
    k: int = 20,
    batch_size: int = 256,
    known: Sequence[InteractionGraph] = (),
) -> dict[str, float]:
    r"""Return how strongly a model recommends target items to real users who have not interacted with them.

    All figures are taken over the pairs of a real user and a target that are neither in ``graph`` nor in ``known``. A
    forgotten click on a target says what was injected, and a held-out one what the user likes: neither is a
    recommendation to a user who has nothing to do with the target. The rank of a target is
    its rank in the whole catalogue without the items that the user has interacted with; rank 1 is the best, and items
    with equal scores share the mean of their ranks. Exposure follows :func:`exposure`: a target with :math:`a` unseen
    items of higher scores and :math:`b` unseen items of the same score (including itself) counts as
    :math:`\min(1, \max(0, (k - a) / b))`.

    Args:
        encoded: Embeddings of users and items.
        graph: The retained graph.
        targets: Internal ids of the target items ``[num_targets]``.
        real_users: Mask of the real users ``[num_users]``, or their internal ids; by default all users.
        k: Length of the recommendation list for exposure.
        batch_size: Number of users scored at a time, which bounds the memory at ``batch_size * num_items`` scores.
        known: Further graphs whose pairs are not measured: the graph before forgetting, and held-out interactions.

    Returns:
        ``"probability"``, the mean of :math:`\sigma(s)` with the score :math:`s`; ``"median_rank"``; and
        ``"exposure@k"``. All are NaN if there is no such pair.

    Raises:
        ValueError: ``k`` or ``batch_size`` is not positive, an id is unknown, or an embedding is not finite.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> encoded = Encoded(torch.ones(2, 1), torch.tensor([[3.0], [2.0], [0.0]]))
        >>> target_figures(encoded, graph, torch.tensor([2]), k=1)
        {'probability': 0.5, 'median_rank': 2.0, 'exposure@1': 0.0}
    """
    device = encoded.queries.device
    _check(encoded, targets, k, batch_size)
    mask = torch.ones(graph.num_users, dtype=torch.bool, device=device)
    if real_users is not None:
        mask = as_mask(real_users.to(device), graph.num_users, device, "users")
    targets = targets.to(device)
    probability, ranks, shown = [], [], []
    for users in mask.nonzero().flatten().split(batch_size) if targets.numel() else ():
        scores = encoded.queries[users] @ encoded.items.t()
        scores[graph.seen(users)] = -torch.inf
        own = scores[:, targets]
        fresh = own > -torch.inf
        for other in known:
            row, item = other.seen(users)
            met = torch.zeros_like(scores, dtype=torch.bool)
            met[row, item] = True
            fresh &= ~met[:, targets]
        rank, share = _places(scores, own, k)
        probability.append(own[fresh].double().sigmoid())
        ranks.append(rank[fresh])
        shown.append(share[fresh])
    return _figures(probability, ranks, shown, k)


@torch.no_grad()
def session_target_figures(encoded: Encoded, targets: Tensor, k: int = 20, batch_size: int = 256) -> dict[str, float]:
    r"""Return how strongly a model recommends target items after prefixes of sessions.

    All figures are taken over all pairs of a prefix and a target, and ranks over the whole catalogue, since items of a
    session can be recommended again. Ranks and exposure are those of :func:`target_figures`.

    Args:
        encoded: Embeddings of the prefixes and of the items; see :func:`~graphunlearn.nn.encode_prefixes` and
            :func:`last_prefixes`.
        targets: Internal ids of the target items ``[num_targets]``.
        k: Length of the recommendation list for exposure.
        batch_size: Number of prefixes scored at a time, which bounds the memory at ``batch_size * num_items`` scores.

    Returns:
        ``"probability"``, the mean softmax probability of a target; ``"median_rank"``; and ``"exposure@k"``. All are
        NaN if there is no pair.

    Raises:
        ValueError: ``k`` or ``batch_size`` is not positive, an id is unknown, or an embedding is not finite.

    Example:
        >>> encoded = Encoded(torch.ones(4, 1), torch.zeros(10, 1))
        >>> session_target_figures(encoded, torch.tensor([2, 3]), k=5)
        {'probability': 0.1, 'median_rank': 5.5, 'exposure@5': 0.5}
    """
    _check(encoded, targets, k, batch_size)
    targets = targets.to(encoded.queries.device)
    probability, ranks, shown = [], [], []
    for queries in encoded.queries.split(batch_size) if targets.numel() else ():
        scores = queries @ encoded.items.t()
        rank, share = _places(scores, scores[:, targets], k)
        probability.append(scores.double().softmax(1)[:, targets].flatten())
        ranks.append(rank.flatten())
        shown.append(share.flatten())
    return _figures(probability, ranks, shown, k)


def last_prefixes(graph: SessionGraph, sessions: Tensor | None = None, most: int = 2000, seed: int = 0) -> Tensor:
    """Return where the last prefix of every session ends: at its last click that is followed by another click.

    Args:
        graph: The sessions; those with one click have no such prefix.
        sessions: Mask of the sessions to use ``[num_sessions]``, or their indices; by default all.
        most: Largest number of prefixes; of more sessions, a random choice is taken.
        seed: Seed of this choice.

    Returns:
        Positions of clicks in ascending order ``[num_prefixes]``, for :func:`~graphunlearn.nn.encode_prefixes`.

    Raises:
        ValueError: ``most`` is not positive, or an index is unknown.

    Example:
        >>> last_prefixes(SessionGraph.from_sequences([[0, 1, 2], [3], [1, 0]]))
        tensor([1, 4])
    """
    if most < 1:
        raise ArgumentError("most", "be at least 1", most)
    mask = graph.length > 1
    if sessions is not None:
        mask = mask & as_mask(sessions.to(graph.device), graph.num_sessions, graph.device, "sessions")
    ends = graph.click_ptr[1:][mask] - 2
    if len(ends) > most:
        chosen = torch.randperm(len(ends), generator=torch.Generator().manual_seed(seed))[:most].sort().values
        ends = ends[chosen.to(ends.device)]
    return ends


def _check(encoded: Encoded, targets: Tensor, k: int, batch_size: int) -> None:
    for name, value in (("k", k), ("batch_size", batch_size)):
        if value < 1:
            raise ArgumentError(name, "be at least 1", value)
    size = len(encoded.items)
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < size:
        raise ArgumentError("targets", f"lie between 0 and {size - 1}", f"{int(targets.min())} to {int(targets.max())}")
    if not (encoded.queries.isfinite().all() and encoded.items.isfinite().all()):
        raise ArgumentError("encoded", "be finite to be ranked", "NaN or infinite rows")


def _places(scores: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the rank of every entry of ``own`` in its row of ``scores``, and the probability that it is shown."""
    marks = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)  # exact for counts up to 2 ** 24
    ones = marks.new_ones(scores.size(1))

    def count(compare: Callable[..., Tensor]) -> Tensor:
        return torch.stack([compare(scores, value, out=marks) @ ones for value in own.split(1, 1)], 1).double()

    above = count(torch.gt)
    equal = count(torch.ge) - above
    return 1 + above + (equal - 1) / 2, ((k - above) / equal).clamp(0, 1)


def _figures(probability: list[Tensor], ranks: list[Tensor], shown: list[Tensor], k: int) -> dict[str, float]:
    if not sum(part.numel() for part in ranks):
        return dict.fromkeys(("probability", "median_rank", f"exposure@{k}"), math.nan)
    ordered = torch.cat(ranks).sort().values
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    return {
        "probability": float(torch.cat(probability).mean()),
        "median_rank": float(middle.mean()),
        f"exposure@{k}": float(torch.cat(shown).mean()),
    }
