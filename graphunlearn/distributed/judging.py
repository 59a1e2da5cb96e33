"""Acceptance of a correction on several ranks: the rules of one process, on the same sample of interactions."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.distributed.fitting import places
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.sums import Inner, fetched, shared
from graphunlearn.nn.encoding import encode, score
from graphunlearn.nn.training.objective import Objective, Sampled
from graphunlearn.operators.shared.acceptance import (
    FEWEST_NEGATIVES,
    MORE,
    RISE,
    SAMPLED,
    Judged,
    lowest,
    objection,
    subset,
    undecided,
)
from graphunlearn.operators.shared.levels import Levels, never_seen

__all__ = ["ShardAcceptance"]


class ShardAcceptance:
    """Compares corrected parts with the parts whose edges are deleted, as ``Acceptance`` of one process does.

    The interactions that are looked at are those of one process: every rank looks at those of its users.

    Args:
        objective: The loss that the model was trained with.
        before: The part of the trained model.
        deleted: The part with emptied rows redrawn.
        graph: The part before forgetting.
        retained: The retained part.
        removed: Mask of the forgotten interactions of this rank ``[num_interactions]``.
        solves: Whether the method minimises the tilted risk; ``None`` judges without the tilted risk.
        seed: Seed of the sample.
    """

    def __init__(
        self,
        objective: Objective,
        before: nn.Module,
        deleted: nn.Module,
        graph: ShardGraph,
        retained: ShardGraph,
        removed: Tensor,
        *,
        solves: bool | None = False,
        seed: int = 0,
    ) -> None:
        if isinstance(objective, Sampled) and objective.negatives < FEWEST_NEGATIVES:
            objective = objective.with_negatives(FEWEST_NEGATIVES)
        self.objective, self.before, self.start = objective, before, deleted
        self.graph, self.retained, self.removed, self.solves = graph, retained, removed, solves
        self.ranks, self.item_rows, self.number = graph.ranks, graph.item_rows, retained.count()
        self.inner = Inner.of(graph, next(before.parameters()).size(1))
        touched = graph.degree != retained.degree
        self.affected = touched[retained.pairs[0]] | touched[retained.pairs[1] + graph.num_users]
        self.seed, self.times = seed, 1
        self._look()

    def _some(self, graph: ShardGraph, mask: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """Return at most so many interactions of a mask over all ranks, and how many each stands for."""
        number = int(self.ranks.number(int(mask.sum())))
        if number <= most:
            return mask, 1.0
        drawn = torch.zeros(number, dtype=torch.bool)
        drawn[subset(number, most, generator)] = True
        some = torch.zeros_like(mask)
        some[mask] = drawn[places(graph.position[mask].cpu(), number, self.ranks)].to(mask.device)
        return some, number / most

    def _look(self) -> None:
        """Choose :attr:`times` as many samples as are looked at first, and measure the deleted model on them."""
        retained, generator = self.retained, torch.Generator().manual_seed(self.seed)
        weight = torch.zeros(retained.num_interactions, dtype=torch.float64, device=retained.device)
        chosen = torch.zeros_like(self.affected)
        for mask, most in zip((self.affected, ~self.affected), SAMPLED["interactions"]):
            some, each = self._some(retained, mask, self.times * most, generator)
            chosen |= some
            weight[some] = each
        self.chosen, self.weight = chosen, weight[chosen]
        self.looked_at = int(self.ranks.number(int(chosen.sum())))
        self.whole = self.looked_at == self.number
        self.samples = self.objective.samples(self.retained, mask=chosen)
        self.losses = self._losses(self.start)
        self.risk = self._mean(self.losses)
        self.error = math.sqrt(self._mean((self.losses - self.risk).square()) / self.number)
        self.tilt = self._tilt()
        self.pairs = self.retained.pairs[:, chosen]
        self.unseen = never_seen(self.graph, self.pairs, seed=0) if isinstance(self.objective, Sampled) else None
        self.slope = self._slope(self.start)
        self.deleted = self._figures(self.start, self.risk, self.slope)

    @property
    def limit(self) -> float:
        """The largest accepted mean loss of what remains."""
        return self.risk + RISE * abs(self.risk) + 2 * self.error

    def judge(self, model: nn.Module) -> Judged:
        """Return whether a corrected part is accepted, with the figures of all ranks.

        Args:
            model: The corrected part.
        """
        bad = sum(int((~torch.isfinite(p)).sum()) for p in model.parameters())
        if self.ranks.number(bad):
            return Judged(None, None, None, False, "a parameter holds NaN or infinity")
        losses = self._losses(model)
        risk = self._mean(losses)
        found = self._figures(model, risk, self._slope(model))
        margin = self._margin(losses)
        if not self.whole and undecided(found, self.deleted, self.limit, margin, self.solves, self.times):
            self.times *= MORE
            self._look()
            return self.judge(model)
        reason = objection(found, self.deleted, self.limit, self.solves)
        return replace(found, accepted=not reason, reason=reason)

    def _mean(self, values: Tensor) -> float:
        """Return the mean over all retained interactions that the chosen ones stand for."""
        return self.ranks.number(float((values * self.weight).sum())) / self.number

    def _margin(self, losses: Tensor) -> float:
        """Return two standard errors of the change of the mean loss, as the chosen interactions tell it."""
        if self.whole or self.looked_at < 2:
            return 0.0
        change = (losses - self.losses) * self.weight / self.number
        center = self.ranks.number(float(change.sum())) / self.looked_at
        square = self.ranks.number(float((change - center).square().sum())) / (self.looked_at - 1)
        return 2 * math.sqrt(square * self.looked_at)

    def _losses(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return self.objective(*fetched(self.item_rows, encode(model, self.retained), self.samples)).double()

    def _gradient(self, model: nn.Module, graph: ShardGraph, mask: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of the weighted loss of the interactions of all ranks in a mask, flattened."""
        (table,) = model.parameters()
        with torch.enable_grad():
            samples = self.objective.samples(graph, mask=mask)
            losses = self.objective(*fetched(self.item_rows, encode(model, graph), samples))
            return torch.autograd.grad((losses * weight.to(losses.dtype)).sum(), table)[0].flatten()

    def _tilt(self) -> Tensor:
        r"""Return :math:`\nabla R(\hat\theta; D, G)`, zero in the rows of emptied nodes."""
        gone, each = self._some(
            self.graph, self.removed, self.times * sum(SAMPLED["interactions"]), torch.Generator().manual_seed(0)
        )
        mask, weight = gone.clone(), torch.zeros(len(gone), dtype=torch.float64, device=gone.device)
        weight[gone] = each
        kept = (~self.removed).nonzero().view(-1)[self.chosen]
        mask[kept], weight[kept] = True, self.weight
        tilt = self._gradient(self.before, self.graph, mask, weight[mask])
        tilt.view(self.graph.num_rows, -1)[self.graph.own_rows(self.graph.emptied(self.retained))] = 0
        return tilt

    def _slope(self, model: nn.Module) -> Tensor:
        r"""Return :math:`\nabla\Phi` per retained interaction, flattened."""
        return (self._gradient(model, self.retained, self.chosen, self.weight) - self.tilt) / self.number

    def _figures(self, model: nn.Module, risk: float, slope: Tensor) -> Judged:
        r"""Return the figures of a part, with those of the step from the part whose edges are deleted."""
        theta = next(model.parameters()).detach().flatten()
        step = theta - next(self.start.parameters()).detach().flatten()
        along = lowest(self.inner.exactly(self.slope, step), self.inner.exactly(slope, step))
        tilted = risk - self.inner.exactly(self.tilt, theta) / self.number
        steepness = math.sqrt(self.inner.exactly(slope, slope))
        return Judged(risk, tilted, steepness, True, "", self._levels(model), *along)

    @torch.no_grad()
    def _levels(self, model: nn.Module) -> Levels | None:
        if self.unseen is None:
            return None
        encoded = shared(self.item_rows, encode(model, self.retained))
        p = [torch.sigmoid(score(encoded, pairs)).double() for pairs in (self.pairs, self.unseen)]
        some, means = self.weight * (self.unseen[1] != self.pairs[1]), []
        for weight, values in ((self.weight, 1 - p[0]), (some, p[1])):
            number = self.ranks.number(float(weight.sum()))
            means.append(self.ranks.number(float((weight * values).sum())) / max(number, 1.0))
        return Levels(*means)

    def record(self, first: Judged) -> dict[str, Any]:
        """Return what is recorded of the part whose edges are deleted, and of the part that was judged first.

        Args:
            first: The figures of that part.
        """
        deleted = self.deleted
        return {
            "deleted": {"risk": self.risk, "tilted": deleted.tilted, "gradient": deleted.gradient},
            "limit": self.limit,
            "levels": [None if found is None else asdict(found) for found in (deleted.levels, first.levels)],
            "samples": self.looked_at,
            "of": self.number,
        }
