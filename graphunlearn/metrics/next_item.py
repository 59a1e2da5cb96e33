"""Metrics of next-item ranking: ranks in the full catalogue, computed in batches, and metrics of these ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphunlearn.data.schema import check_sizes
from graphunlearn.errors import ArgumentError

__all__ = ["next_item_metrics", "score_ranks", "target_ranks"]


@torch.no_grad()
def target_ranks(queries: Tensor, items: Tensor, targets: Tensor, batch_size: int = 1024) -> Tensor:
    r"""Return the rank of one item per query in the whole catalogue, 1 for the best.

    .. math::
        r = 1 + \#\{j : s_j > s_t\} + \tfrac12\,\#\{j \neq t : s_j = s_t\}

    Tied items share the mean of their ranks, so a model that gives all items the same score gains nothing.

    Args:
        queries: Embeddings of the queries, one per prediction ``[num, dim]``.
        items: Embeddings of all items ``[num_items, dim]``.
        targets: The item whose rank is returned, one per query ``[num]``.
        batch_size: Queries scored at a time; memory is bounded by ``batch_size * num_items`` scores.

    Returns:
        Ranks ``[num]`` (float64).

    Raises:
        ValueError: ``batch_size`` is not positive, or an embedding is not finite (the rank of a NaN is undefined).

    Example:
        >>> import torch
        >>> items = torch.tensor([[3.0], [1.0], [1.0]])
        >>> target_ranks(torch.ones(3, 1), items, torch.tensor([0, 1, 2]))
        tensor([1.0000, 2.5000, 2.5000], dtype=torch.float64)
    """
    check_sizes(batch_size=batch_size)
    for name, rows in (("queries", queries), ("items", items)):
        if not rows.isfinite().all():
            raise ArgumentError(name, "be finite to be ranked", "NaN or infinite rows")
    return _ranks(lambda part: queries[part] @ items.t(), targets, batch_size)


@torch.no_grad()
def score_ranks(scores: Callable[[slice], Tensor], targets: Tensor, batch_size: int = 256) -> Tensor:
    """Return the rank of one item per query for a recommender that has no embeddings; see :func:`target_ranks`.

    Args:
        scores: Function of a slice of the queries that returns their scores for all items ``[batch, num_items]``.
        targets: The item whose rank is returned, one per query ``[num]``.
        batch_size: Queries scored at a time.

    Returns:
        Ranks ``[num]`` (float64).

    Raises:
        ValueError: ``batch_size`` is not positive, or a score is not finite.

    Example:
        >>> import torch
        >>> score_ranks(lambda part: torch.tensor([[3.0, 1.0, 1.0]] * 3)[part], torch.tensor([0, 1, 2]))
        tensor([1.0000, 2.5000, 2.5000], dtype=torch.float64)
    """
    check_sizes(batch_size=batch_size)

    def checked(part: slice) -> Tensor:
        found = scores(part)
        if not found.isfinite().all():
            raise ArgumentError("scores", "return finite scores", "NaN or infinite ones")
        return found

    return _ranks(checked, targets, batch_size)


def _ranks(scores: Callable[[slice], Tensor], targets: Tensor, batch_size: int) -> Tensor:
    ranks = [torch.zeros(0, dtype=torch.double, device=targets.device)]
    for first in range(0, targets.numel(), batch_size):
        part = slice(first, first + batch_size)
        found = scores(part)
        own = found.gather(1, targets[part].unsqueeze(1))
        above, alike = (found > own).sum(1), (found == own).sum(1)
        ranks.append(1 + above.double() + (alike - 1).double() / 2)
    return torch.cat(ranks)


def next_item_metrics(ranks: Tensor, ks: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    r"""Return the metrics of one relevant item per prediction, averaged over the predictions.

    .. math::
        \text{recall} = [r \le k], \quad \text{mrr} = \frac{[r \le k]}{r}, \quad
        \text{ndcg} = \frac{[r \le k]}{\log_2(r + 1)}, \quad \text{hit\_rate} = \text{recall}

    Args:
        ranks: From :func:`target_ranks` ``[num]``.
        ks: Lengths of the recommendation list.

    Returns:
        ``{"recall@5": ..., "mrr@5": ..., "ndcg@5": ..., "hit_rate@5": ..., ...}``; NaN where nothing was predicted.

    Raises:
        ValueError: ``ks`` holds no positive length.

    Example:
        >>> import torch
        >>> next_item_metrics(torch.tensor([1.0, 3.0, 9.0, 4.0]), ks=(3,))
        {'recall@3': 0.5, 'mrr@3': 0.3333333333333333, 'ndcg@3': 0.375, 'hit_rate@3': 0.5}
    """
    if not ks or min(ks) < 1:
        raise ArgumentError("ks", "hold positive list lengths", tuple(ks))
    ranks, out = ranks.double(), {}
    for k in ks:
        found = (ranks <= k).double()
        recall = float(found.mean()) if ranks.numel() else math.nan
        out[f"recall@{k}"] = recall
        out[f"mrr@{k}"] = float((found / ranks).mean()) if ranks.numel() else math.nan
        out[f"ndcg@{k}"] = float((found / (ranks + 1).log2()).mean()) if ranks.numel() else math.nan
        out[f"hit_rate@{k}"] = recall
    return out
