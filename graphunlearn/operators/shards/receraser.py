"""RecEraser: balanced shards of similar users, items or interactions, and embeddings combined by attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.shards.interactions import By, members_of, units_of
from graphunlearn.operators.shards.partition import balanced_kmeans
from graphunlearn.operators.shards.sharded import Aggregation, Sharded
from graphunlearn.operators.shared.checks import check, check_choices, check_counts

__all__ = ["RecEraser"]


@dataclass(kw_only=True)
class RecEraser(Sharded):
    r"""RecEraser: shards of similar interactions, and the embeddings of all shards combined by attention.

    :meth:`prepare` partitions the interactions by their users, their items or both, with balanced k-means on the
    embeddings of the original (:func:`~graphunlearn.operators.shards.partition.balanced_kmeans`), and trains a model
    on every shard and then the attention (:class:`~graphunlearn.operators.shards.interactions.Combiner`) on all
    interactions. A request retrains the shards that hold forgotten interactions, and the attention, on what is
    retained. Given the partition, the result equals that of training without the forgotten interactions. The partition
    itself was computed with them and is not changed. See :class:`~graphunlearn.SISA` for the log and other details.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: ``"attention"``, ``"learned"`` or ``"mean"``.
        validation: Interactions for early stopping of every shard and of the attention.
        settings: Training settings of every shard and of the attention, which is trained for 50 epochs at most; their
            seed and the original determine the shards and the initialisation. ``None`` selects
            :func:`~graphunlearn.nn.default_settings`.
        by: What the interactions are partitioned by: ``"user"``, ``"item"`` or ``"interaction"``.
        capacity: Largest size of a shard, relative to the mean size, at least 1.
        rounds: Largest number of rounds of k-means.

    Raises:
        ValueError: A setting is out of range, there are more shards than users, items or pairs, or the method is not
            prepared for the model and the graph.

    Source: Chen et al., "Recommendation Unlearning", WWW 2022, and its public code.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = gu.nn.MatrixFactorization(graph.num_nodes, 4)
        >>> method = RecEraser(num_shards=3, settings=gu.nn.FitSettings(epochs=2))
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> type(result.model).__name__, len(result.log["retrained"])
        ('InteractionEnsemble', 1)
    """

    name: ClassVar[str] = "receraser"
    num_shards: int = 10
    aggregation: Aggregation = "attention"
    by: By = "user"
    capacity: float = 1.2
    rounds: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(get_args(By), by=self.by)
        check("be at least 1", lambda value: value >= 1, capacity=self.capacity)
        check_counts(rounds=self.rounds)

    def _by(self) -> By:
        return self.by

    @torch.no_grad()
    def _partition(self, model: nn.Module, graph: InteractionGraph, seed: int) -> Tensor:
        encoded, units = encode(model, graph), units_of(graph, self.by).unique()
        if self.by == "interaction":
            rows = [encoded.queries[units // graph.num_items], encoded.items[units % graph.num_items]]
        else:
            rows = [(encoded.queries if self.by == "user" else encoded.items)[units]]
        found = balanced_kmeans(rows, self.num_shards, seed=seed, capacity=self.capacity, rounds=self.rounds)
        return members_of(graph, self.by, found)
