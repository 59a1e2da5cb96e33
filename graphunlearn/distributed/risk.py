"""The training risk over all ranks: every rank adds the samples of its users."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from graphunlearn.distributed.graph import ShardGraph, ShardMatrix
from graphunlearn.distributed.model import form_of
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.distributed.sums import shared
from graphunlearn.nn.encoding import Encoded, LinearForm
from graphunlearn.nn.risk import LinearRisk
from graphunlearn.nn.training.objective import Objective, Samples

__all__ = ["ShardRisk", "shard_risk"]


class ShardRisk(LinearRisk):
    r"""The risk :math:`\sum_r R(\theta; D^{(r)}, G)` of one linearly propagated table.

    The parameters of a rank are the rows of its users and those of all items. Values are the same on all ranks, and so
    are the rows of items of gradients and products; their rows of users are those of this rank. Beyond the products
    with the adjacency, a gradient takes two sums of the rows of items over the ranks and a curvature product takes one.

    Args:
        table: The table of this rank ``[num_users + num_items, dim]``.
        form: The linear propagation of the table over all ranks.
        objective: The loss.
        samples: The samples of this rank.
        ranks: The ranks.
    """

    def __init__(self, table: Tensor, form: LinearForm, objective: Objective, samples: Samples, ranks: Ranks) -> None:
        super().__init__(table, form, objective, samples)
        self.ranks = ranks

    def encode(self, theta: Tensor) -> Encoded:
        return shared(self.ranks, super().encode(theta))

    def value(self, theta: Tensor) -> float:
        return self.ranks.number(super().value(theta))

    def _l2(self, theta: Tensor) -> Tensor:
        users, items = self.objective.row_counts(self.samples).split(list(self.samples.size))
        counts = torch.cat([users, self.ranks.total(items)])
        return self.objective.weight_decay * counts.to(theta.dtype).unsqueeze(1)

    def _summed(self, items: Tensor) -> Tensor:
        return self.ranks.total_(items.contiguous())

    def _squared(self) -> Tensor | None:
        if self.form.matrix is None:
            return None
        return cast(Tensor, cast(ShardMatrix, self.form.matrix).squared())


def shard_risk(model: nn.Module, graph: ShardGraph, objective: Objective, samples: Samples | None = None) -> ShardRisk:
    """Return the risk of the part of a model.

    Args:
        model: The part of the model.
        graph: The part of the graph.
        objective: The loss.
        samples: The samples of this rank; all its interactions by default.

    Raises:
        ArgumentError: The model does not propagate one table linearly.
    """
    form = form_of(model, graph)
    samples = objective.samples(graph) if samples is None else samples
    return ShardRisk(model.get_parameter(form.parameter), form, objective, samples, graph.ranks)
