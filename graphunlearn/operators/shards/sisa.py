"""SISA: train one model per random shard, and retrain only the shards that hold forgotten data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.operators.shards.interactions import members_of
from graphunlearn.operators.shards.sharded import Sharded

__all__ = ["SISA"]


@dataclass(kw_only=True)
class SISA(Sharded):
    r"""Sharded, isolated, aggregated training: every session or user is used to train exactly one of several models.

    :meth:`prepare` assigns the sessions, or the users of interactions, at random to shards of equal size and trains a
    model of the class of the original on each shard, with the training settings of the original. A request retrains
    the shards that hold forgotten data from the same initialisation on their retained data. The result equals that of
    a :meth:`prepare` without the forgotten data, given the same assignment to shards; the other shards keep the early
    stopping of the time when they were trained, with the validation data given then. The served model combines the
    scores of all shards. It differs from the original and becomes less accurate with more shards. Forgetting is
    therefore measured relative to the ensemble before the request (``result.original``), not relative to the original.

    The log holds the seconds of each shard (``seconds_per_shard``), of all shards in sequence (``seconds_sum``), and
    of the shards in parallel (``seconds_slowest_shard``); the last two include the time that is not training. Shards
    are not divided into slices: a shard is retrained from its initialisation. A shard of interactions that is left
    without any has no weight, with a warning.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: ``"mean"``, the mean of the scores, for interactions of the shards that know the user;
            ``"learned"``, one weight per shard; or ``"attention"``, weights that also depend on the closeness of the
            session to the sessions of the shard, or on the user and the item. For sessions, they are fitted to
            validation clicks, and for interactions to the training data. See
            :class:`~graphunlearn.operators.shards.ensemble.SessionEnsemble` and
            :class:`~graphunlearn.operators.shards.interactions.Combiner`.
        validation: Data for early stopping of every shard and for learned weights.
        settings: Training settings of every shard; their seed and the original model determine the assignment to
            shards and the initialisation. ``None`` selects :func:`~graphunlearn.nn.default_settings`.

    Raises:
        ValueError: A setting is out of range, there are more shards than sessions or users, weights are to be learned
            without validation sessions, the method is not prepared for the model and the graph, or the model has shards
            that another method made.

    Source: Bourtoule et al., "Machine Unlearning", IEEE S&P 2021.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 1], [3, 0, 1], [1, 2, 3]])
        >>> model = gu.nn.GRU4Rec(graph.num_items, 4)
        >>> method = gu.SISA(num_shards=2, settings=gu.nn.FitSettings(epochs=2))
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest.internal("click", torch.tensor([[0], [1]])))
        >>> type(result.model).__name__, len(result.log["retrained"])
        ('SessionEnsemble', 1)
    """

    name: ClassVar[str] = "sisa"
    kinds: ClassVar[tuple[str, ...]] = ("interactions", "sessions")

    def _partition(self, model: nn.Module, graph: Any, seed: int) -> Tensor:
        count, _ = self._most(graph)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        members = torch.empty_like(order)
        members[order] = torch.arange(count) % self.num_shards
        members = members.to(graph.device)
        return members if graph.kind == "sessions" else members_of(graph, self._by(), members)
