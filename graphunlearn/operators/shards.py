"""SISA: train a model per shard of the sessions; forget by retraining the shards that hold what is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.operators.sharding import Sharded

__all__ = ["SISA"]


@dataclass(kw_only=True)
class SISA(Sharded):
    r"""Sharded, isolated, aggregated: every session is learned by one of several models alone.

    :meth:`prepare` parts the sessions into shards of equal size at random and trains a model of the original's class on
    each, as the original was trained. A request is served by training the shards that hold a forgotten click again,
    from the same initialisation, on what they keep: what comes out is exactly what :meth:`prepare` would have given
    without the forgotten clicks, with the same division into shards, and, for shards that are not trained again, with
    what validation held then. The served model adds up the scores of all shards. It is another model than the original,
    and less accurate the more shards there are; what was forgotten is measured from it (``result.original``), not from
    the original.

    The log says how long each shard took (``seconds_per_shard``), one after the other (``seconds_sum``), and how long
    it would take side by side (``seconds_slowest_shard``); what is not training counts in both. There are no slices: a
    shard is trained from its start.

    Args:
        objective: The loss; the shared default where ``None``.
        num_shards: Number of shards.
        aggregation: ``"mean"`` of the scores; ``"learned"``, one weight per shard, fitted to validation clicks; or
            ``"attention"``, weights that also follow from how close the session is to those of the shard; see
            :class:`~graphunlearn.operators.shard_ensemble.ShardEnsemble`.
        validation: Sessions for early stopping of every shard, and for learned weights.
        settings: How every shard is trained; its seed, with the original, decides on shards and initialisation. Where
            ``None`` :func:`~graphunlearn.default_settings`.

    Raises:
        ValueError: A setting is out of range, weights are to be learned without validation sessions, or the method is
            not prepared for the model and the graph.

    Source: Bourtoule et al., "Machine Unlearning", IEEE S&P 2021.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 1], [3, 0, 1], [1, 2, 3]])
        >>> model, method = gu.GRU4Rec(graph.num_items, 4), gu.SISA(num_shards=2, settings=gu.FitSettings(epochs=2))
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest.internal("click", torch.tensor([[0], [1]])))
        >>> type(result.model).__name__, len(result.log["retrained"])
        ('ShardEnsemble', 1)
    """

    name: ClassVar[str] = "sisa"

    def _partition(self, model: nn.Module, graph: SessionGraph, seed: int) -> Tensor:
        order = torch.randperm(graph.num_sessions, generator=torch.Generator().manual_seed(seed))
        members = torch.empty_like(order)
        members[order] = torch.arange(graph.num_sessions) % self.num_shards
        return members.to(graph.device)
