"""The training risk over all ranks: every rank adds the samples of its users."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from graphunlearn.distributed.adjacency import ShardMatrix
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.items import Items
from graphunlearn.distributed.model import form_of
from graphunlearn.distributed.sums import shared
from graphunlearn.nn.encoding import Encoded, LinearForm
from graphunlearn.nn.risk import LinearRisk, Risk
from graphunlearn.nn.training.objective import Objective, Samples

__all__ = ["ShardRisk", "shard_risk"]


class ShardRisk(LinearRisk):
    r"""The risk :math:`\sum_r R(\theta; D^{(r)}, G)` of one linearly propagated table.

    The parameters of a rank are the rows of its table, and so are gradients and products. Values are the same on all
    ranks, and so are rows of items that all ranks hold. Beyond the products with the adjacency, a gradient and a
    curvature product take one sum of the rows of items over the ranks, and a gradient by autograd two. Where rows of
    items are divided, each of them also takes the rows of all items once, for its samples.

    Args:
        table: The table of this rank ``[num_rows, dim]``.
        form: The linear propagation of the table over all ranks.
        objective: The loss.
        samples: The samples of this rank.
        item_rows: The rows of items that this rank holds.
    """

    def __init__(
        self, table: Tensor, form: LinearForm, objective: Objective, samples: Samples, item_rows: Items
    ) -> None:
        super().__init__(table, form, objective, samples)
        self.item_rows, self.ranks = item_rows, item_rows.ranks

    def encode(self, theta: Tensor) -> Encoded:
        table = theta.view_as(self.table)
        sizes = [self.samples.size[0], self.item_rows.held]
        own = Encoded(*self.form.propagate(table).split(sizes), *table.split(sizes))
        return shared(self.item_rows, own)

    def _propagated(self, table: Tensor) -> Tensor:
        users, items = self.form.propagate(table).split([self.samples.size[0], self.item_rows.held])
        return torch.cat([users, self.item_rows.whole(items)]) if self.item_rows.divided else torch.cat([users, items])

    def value(self, theta: Tensor) -> float:
        return self.ranks.number(super().value(theta))

    def _penalty(self, theta: Tensor) -> Tensor:
        if not self.item_rows.divided:
            return super()._penalty(theta)
        squares = theta.view_as(self.table).square().sum(1)
        users, items = squares.split([self.samples.size[0], self.item_rows.held])
        whole = torch.cat([users, self.item_rows.whole(items)])
        return (Risk._l2(self, theta).squeeze(1) * whole).double().sum()

    def _l2(self, theta: Tensor) -> Tensor:
        users, items = self.objective.row_counts(self.samples).split(list(self.samples.size))
        counts = torch.cat([users, self.item_rows.summed(items)])
        return self.objective.weight_decay * counts.to(theta.dtype).unsqueeze(1)

    def _summed(self, items: Tensor) -> Tensor:
        return self.item_rows.summed_(items.contiguous())

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
    return ShardRisk(model.get_parameter(form.parameter), form, objective, samples, graph.item_rows)
