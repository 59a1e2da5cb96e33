"""Ranking metrics of recommenders: full-catalogue metrics in batches of users, and the AUROC."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError

__all__ = ["Ranker", "auroc", "rank_metrics"]

METRICS = {"recall": "LinkPredRecall", "ndcg": "LinkPredNDCG", "mrr": "LinkPredMRR", "hit_rate": "LinkPredHitRatio"}
"""The default metrics, with their classes in ``torch_geometric.metrics``."""
KNOWN = (*METRICS, "ndcg_full")


class Ranker:
    r"""Rank the whole catalogue, without items already seen, for every user of a test graph.

    Let :math:`T_u` be the test positives of user :math:`u` and :math:`r_1 < r_2 < \dots` their ranks among the
    :math:`k` best unseen items. The metrics are averages over the users with :math:`T_u \neq \emptyset`:

    .. math::
        \text{recall} = \frac{\#r}{|T_u|}, \quad
        \text{ndcg} = \frac{\sum_j 1/\log_2(r_j + 1)}{\sum_{j \le \min(k, |T_u|)} 1/\log_2(j + 1)}, \quad
        \text{mrr} = \frac{1}{r_1}, \quad \text{hit\_rate} = [\#r > 0]

    The metric ``"ndcg_full"`` is the ndcg with the ideal of all test positives, the sum over :math:`j \le |T_u|`, as
    in CURE4Rec (arXiv 2408.14393). With more than :math:`k` test positives, it stays below 1.

    Values that depend on the two graphs alone are computed once, so calling a ranker every epoch is cheap. Users are
    scored ``batch_size`` at a time; the full user × item matrix is never formed.

    Args:
        seen: The graph whose interactions are masked. Pass the *retained* graph after unlearning: masking by the
            original graph would hide a forgotten item that the model still recommends.
        test: The graph whose interactions are the test positives; if it has labels, those with label 1.
        ks: Lengths of the recommendation list.
        metrics: Any of ``"recall"``, ``"ndcg"``, ``"mrr"``, ``"hit_rate"`` and ``"ndcg_full"``.
        batch_size: Users scored at a time; memory is bounded by ``batch_size * num_items`` scores.

    Raises:
        ValueError: The graphs differ in size, or ``ks``, ``metrics`` or ``batch_size`` is out of range.

    Example:
        >>> import torch, graphunlearn as gu
        >>> seen = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> test = gu.InteractionGraph.from_edges(torch.tensor([[0], [2]]), num_users=2, num_items=3)
        >>> ranker = Ranker(seen, test, ks=(1,), metrics=("recall",))
        >>> ranker(torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [1.0], [2.0]]))
        {'recall@1': 1.0}
        >>> ranker.counts
        {'num_users': 1, 'num_users_left_out': 0, 'num_pairs': 1, 'num_pairs_left_out': 0}
    """

    def __init__(
        self,
        seen: InteractionGraph,
        test: InteractionGraph,
        ks: Sequence[int] = (10, 20),
        metrics: Sequence[str] = tuple(METRICS),
        batch_size: int = 256,
    ) -> None:
        size, other = (test.num_users, test.num_items), (seen.num_users, seen.num_items)
        if size != other:
            raise ArgumentError("test", f"have the users and items of 'seen', {other}", size)
        if not ks or min(ks) < 1:
            raise ArgumentError("ks", "hold positive list lengths", tuple(ks))
        if not metrics or not set(metrics) <= set(KNOWN):
            raise ArgumentError("metrics", f"be among {', '.join(KNOWN)}", tuple(metrics))
        if batch_size < 1:
            raise ArgumentError("batch_size", "be a positive integer", batch_size)
        from torch_geometric import metrics as library  # a second to import, and only ranking needs it

        from graphunlearn.metrics.full_ideal import FullIdealNDCG

        self.size, self._device = size, test.device
        self._depth = min(max(ks), size[1])
        classes = {name: getattr(library, of) for name, of in METRICS.items()} | {"ndcg_full": FullIdealNDCG}
        self._metrics = library.LinkPredMetricCollection(
            {f"{name}@{k}": classes[name](k=k) for k in ks for name in metrics}
        )

        user, item = test.pairs if test.label is None else test.pairs[:, test.label == 1]
        positives = torch.unique(user * size[1] + item)  # sorted by user
        known = torch.isin(positives, seen.pairs[0] * size[1] + seen.pairs[1])
        users, row = torch.unique(positives[~known] // size[1], return_inverse=True)
        found = positives[~known] % size[1]
        self.counts = {
            "num_users": users.numel(),
            "num_users_left_out": torch.unique(positives // size[1]).numel() - users.numel(),
            "num_pairs": found.numel(),
            "num_pairs_left_out": int(known.sum()),
        }
        """Numbers of users and test positives evaluated, and of those left out because ``seen`` holds the pair."""
        per_batch = torch.bincount(row // batch_size).tolist()
        self._batches = [
            (batch, _masked(seen, batch), (batch_row, batch_found))
            for batch, batch_row, batch_found in zip(
                users.split(batch_size), (row % batch_size).split(per_batch), found.split(per_batch)
            )
            if batch.numel()
        ]

    @torch.no_grad()
    def __call__(self, users: Tensor, items: Tensor) -> dict[str, float]:
        """Return ``{"recall@10": ..., ...}`` for the embeddings of a model.

        Args:
            users: User embeddings ``[num_users, dim]``.
            items: Item embeddings ``[num_items, dim]``.

        Returns:
            The mean of every metric over the evaluated users; NaN without users.

        Raises:
            ValueError: The embeddings do not fit the graphs, or are not finite (a NaN would rank first).
        """
        if (users.size(0), items.size(0)) != self.size:
            got = f"{users.size(0)} and {items.size(0)}"
            raise ValueError(f"'users' and 'items' must have {self.size[0]} and {self.size[1]} rows (got {got})")
        if not (users.isfinite().all() and items.isfinite().all()):
            raise ValueError("'users' and 'items' must be finite to be ranked (got NaN or infinite embeddings)")
        return self._ranked(lambda batch: users[batch] @ items.t(), users.device)

    @torch.no_grad()
    def scored(self, scores: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the metrics of a recommender that has no embeddings, such as one of :mod:`graphunlearn.nn.floors`.

        Args:
            scores: Function of users ``[batch]`` that returns a new tensor of their scores for all items
                ``[batch, num_items]``.

        Returns:
            The mean of every metric over the evaluated users; NaN without users.

        Raises:
            ValueError: The scores have another shape, or are not finite.

        Example:
            >>> import torch, graphunlearn as gu
            >>> seen = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
            >>> test = gu.InteractionGraph.from_edges(torch.tensor([[0], [2]]), num_users=2, num_items=3)
            >>> ranker = Ranker(seen, test, ks=(1,), metrics=("recall",))
            >>> ranker.scored(lambda users: torch.tensor([3.0, 1.0, 2.0]).repeat(len(users), 1))
            {'recall@1': 1.0}
        """

        def checked(batch: Tensor) -> Tensor:
            found = scores(batch)
            if found.shape != (batch.numel(), self.size[1]) or not found.isfinite().all():
                expected = f"return finite scores of shape {[batch.numel(), self.size[1]]}"
                raise ArgumentError("scores", expected, f"{list(found.shape)}, finite: {bool(found.isfinite().all())}")
            return found

        return self._ranked(checked, self._device)

    def _ranked(self, scores: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Return the metrics of the scores that a function gives for the users of every batch."""
        self._metrics.to(device).reset()
        for batch, masked, positives in self._batches:
            found = scores(batch)
            found[masked] = -torch.inf
            self._metrics.update(found.topk(self._depth).indices, positives)
        if not self._batches:
            return dict.fromkeys(self._metrics, float("nan"))
        return {name: float(value) for name, value in self._metrics.compute().items()}


def _masked(seen: InteractionGraph, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interactions of the users in ``batch`` in ``seen``, as positions in ``batch`` and items."""
    count = seen.adjacency.degree[batch].long()
    row = torch.repeat_interleave(torch.arange(batch.numel(), device=batch.device), count)
    return row, seen.adjacency.neighbors(batch) - seen.num_users


def rank_metrics(
    users: Tensor,
    items: Tensor,
    seen: InteractionGraph,
    test: InteractionGraph,
    ks: Sequence[int] = (10, 20),
    metrics: Sequence[str] = tuple(METRICS),
    batch_size: int = 256,
) -> dict[str, float]:
    """Return the ranking metrics of one model, and the counts of evaluated users and pairs; see :class:`Ranker`.

    Args:
        users: User embeddings ``[num_users, dim]``.
        items: Item embeddings ``[num_items, dim]``.
        seen: The graph whose interactions are masked.
        test: The graph whose interactions are the test positives.
        ks: Lengths of the recommendation list.
        metrics: Any of ``"recall"``, ``"ndcg"``, ``"mrr"``, ``"hit_rate"`` and ``"ndcg_full"``.
        batch_size: Users scored at a time.

    Returns:
        The metrics and the counts.

    Example:
        >>> import torch, graphunlearn as gu
        >>> seen = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> test = gu.InteractionGraph.from_edges(torch.tensor([[0], [2]]), num_users=2, num_items=3)
        >>> result = rank_metrics(torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0]]), seen, test, ks=(1, 2))
        >>> result["recall@1"], result["recall@2"], result["num_users"]
        (0.0, 1.0, 1)
    """
    ranker = Ranker(seen, test, ks, metrics, batch_size)
    return ranker(users, items) | ranker.counts


def auroc(scores: Tensor, labels: Tensor) -> float:
    r"""Return the probability that a positive scores higher than a negative, ties counting one half.

    .. math::
        \frac{1}{|P||N|} \sum_{a \in P} \sum_{b \in N} [s_a > s_b] + \tfrac{1}{2} [s_a = s_b]

    Scores are compared without a sigmoid, which would turn large scores into ties.

    Args:
        scores: Any order-preserving scores ``[num_samples]``.
        labels: 1 or ``True`` for positives, 0 or ``False`` for negatives ``[num_samples]``.

    Returns:
        The AUROC; NaN if one of the classes is missing.

    Raises:
        ValueError: The shapes differ, or a score is NaN.

    Example:
        >>> auroc(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([1, 1, 0, 0]))
        0.875
    """
    if scores.shape != labels.shape or scores.dim() != 1:
        raise ArgumentError("labels", f"have the shape of 'scores', {list(scores.shape)}", list(labels.shape))
    if scores.isnan().any():
        raise ArgumentError("scores", "not hold NaN", "at least one")
    positive = labels == 1
    above, below = scores[positive].sort().values, scores[~positive].sort().values
    wins = torch.searchsorted(below, above).sum() + torch.searchsorted(below, above, right=True).sum()
    possible = 2 * above.numel() * below.numel()
    return int(wins) / possible if possible else float("nan")
