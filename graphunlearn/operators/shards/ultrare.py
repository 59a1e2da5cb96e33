"""UltraRE: shards of similar users by optimal transport, and one learned weight per shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.shards.interactions import members_of, units_of
from graphunlearn.operators.shards.partition import transport_clusters
from graphunlearn.operators.shards.sharded import Aggregation, Sharded
from graphunlearn.operators.shared.checks import check_counts, check_positive

__all__ = ["UltraRE"]


@dataclass(kw_only=True)
class UltraRE(Sharded):
    """UltraRE: RecEraser with clusters of users by optimal transport and one weight per shard instead of attention.

    See :class:`~graphunlearn.operators.RecEraser`, from which it differs in the partition
    (:func:`~graphunlearn.operators.shards.partition.transport_clusters`) and in the default of ``aggregation``.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: ``"learned"``, ``"attention"`` or ``"mean"``.
        validation: Interactions for early stopping of every shard and of the weights.
        settings: Training settings; see :class:`~graphunlearn.operators.RecEraser`.
        epsilon: Weight of the entropy in the transport, relative to the mean cost.
        rounds: Largest number of rounds of clustering.

    Raises:
        ValueError: A setting is out of range, there are more shards than users, or the method is not prepared for the
            model and the graph.

    Source: Li et al., "UltraRE: Enhancing RecEraser for Recommendation Unlearning via Error Decomposition", NeurIPS
    2023, from its abstract and summaries.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = gu.nn.MatrixFactorization(graph.num_nodes, 4)
        >>> method = UltraRE(num_shards=3, settings=gu.nn.FitSettings(epochs=2))
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> len(result.log["retrained"])
        1
    """

    name: ClassVar[str] = "ultrare"
    num_shards: int = 10
    aggregation: Aggregation = "learned"
    epsilon: float = 0.05
    rounds: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(epsilon=self.epsilon)
        check_counts(rounds=self.rounds)

    @torch.no_grad()
    def _partition(self, model: nn.Module, graph: InteractionGraph, seed: int) -> Tensor:
        rows = encode(model, graph).queries[units_of(graph, "user").unique()]
        found = transport_clusters(rows, self.num_shards, seed=seed, epsilon=self.epsilon, rounds=self.rounds)
        return members_of(graph, "user", found)
