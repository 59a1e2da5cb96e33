"""Differences in quality between groups of users."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.metrics.ranking import Ranker

__all__ = ["activity_gap"]


def activity_gap(
    users: Tensor,
    items: Tensor,
    seen: InteractionGraph,
    test: InteractionGraph,
    *,
    k: int = 20,
    metric: str = "ndcg_full",
    share: float = 0.05,
) -> float:
    r"""Return how much better the most active users are served than the others, the A-IGF of CURE4Rec.

    .. math:: \frac{1}{|A|} \sum_{u \in A} m_u - \frac{1}{|B|} \sum_{u \in B} m_u

    Here :math:`A` is the given share of the users with interactions in ``seen`` that have the most, at least one; ties
    are broken by the smaller number. :math:`B` are the others. The means are over those users of each group with test
    positives; see :class:`Ranker`.

    Args:
        users: User embeddings ``[num_users, dim]``.
        items: Item embeddings ``[num_items, dim]``.
        seen: The graph whose interactions are masked and counted.
        test: The graph whose interactions are the test positives.
        k: Length of the recommendation list.
        metric: One of the metrics of :class:`Ranker`.
        share: Share of the users in :math:`A`, in (0, 1).

    Returns:
        The difference; NaN if a group has no test positives.

    Raises:
        ValueError: The share is not in (0, 1), or a setting is refused by :class:`Ranker`.

    Source: CURE4Rec, arXiv 2408.14393.

    Example:
        >>> import graphunlearn as gu
        >>> pairs, later = torch.tensor([[0, 0, 1], [0, 1, 0]]), torch.tensor([[0, 1], [2, 3]])
        >>> seen = gu.InteractionGraph.from_edges(pairs, num_users=2, num_items=4)
        >>> test = gu.InteractionGraph.from_edges(later, num_users=2, num_items=4)
        >>> rows = torch.ones(2, 1), torch.tensor([[0.0], [0.0], [2.0], [1.0]])
        >>> activity_gap(*rows, seen, test, k=1, share=0.5)
        1.0
    """
    if not 0 < share < 1:
        raise ArgumentError("share", "be between 0 and 1", share)
    degree = seen.adjacency.degree[: seen.num_users]
    order = degree.argsort(descending=True, stable=True)[: int((degree > 0).sum())]
    most = torch.zeros_like(degree, dtype=torch.bool)
    most[order[: max(1, math.floor(share * len(order)))]] = True
    means = []
    for group in (most, ~most):
        part = test.select(group[test.pairs[0]])
        means.append(Ranker(seen, part, (k,), (metric,))(users, items)[f"{metric}@{k}"])
    return means[0] - means[1]
