"""Acceptance of a correction on several ranks: the rules of one process, on all interactions of all ranks."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.risk import shard_risk
from graphunlearn.distributed.sums import Inner
from graphunlearn.nn.encoding import encode, score
from graphunlearn.nn.training.objective import Objective, Sampled
from graphunlearn.operators.shared.acceptance import FEWEST_NEGATIVES, RISE, STEEPER, Judged
from graphunlearn.operators.shared.levels import Levels, never_seen

__all__ = ["ShardAcceptance"]


class ShardAcceptance:
    """Compares corrected parts with the parts whose edges are deleted; see :class:`Acceptance` of one process.

    One process first looks at a sample of the interactions; here, every rank looks at all that it holds.

    Args:
        objective: The loss that the model was trained with.
        before: The part of the trained model.
        deleted: The part with emptied rows redrawn.
        graph: The part before forgetting.
        retained: The retained part.
        solves: Whether the method minimises the tilted risk.
    """

    def __init__(
        self,
        objective: Objective,
        before: nn.Module,
        deleted: nn.Module,
        graph: ShardGraph,
        retained: ShardGraph,
        *,
        solves: bool = False,
    ) -> None:
        if isinstance(objective, Sampled) and objective.negatives < FEWEST_NEGATIVES:
            objective = objective.with_negatives(FEWEST_NEGATIVES)
        self.objective, self.graph, self.retained, self.solves = objective, graph, retained, solves
        self.ranks, self.number = graph.ranks, retained.count()
        self.samples = objective.samples(retained)
        trained = shard_risk(before, graph, objective)
        self.inner = Inner(self.ranks, graph.num_users * trained.table.size(1))
        self.tilt = trained.gradient(trained.parameters)
        self.tilt.view_as(trained.table)[graph.emptied(retained)] = 0
        del trained
        self.unseen = None
        if isinstance(objective, Sampled):
            self.unseen = never_seen(graph, retained.pairs, seed=0)
        losses = self._losses(deleted)
        self.risk = self.ranks.number(float(losses.sum())) / self.number
        spread = self.ranks.number(float((losses - self.risk).square().sum())) / self.number
        self.error = (spread / self.number) ** 0.5
        self.deleted = self._figures(deleted, self.risk)

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
        risk = self.ranks.number(float(self._losses(model).sum())) / self.number
        tilted, steepness, levels = self._figures(model, risk)
        own_tilted, own_steepness, own_levels = self.deleted
        most = own_steepness * (1.0 if self.solves else STEEPER) * (1 + 1e-6)
        rises = tilted > own_tilted if self.solves else risk > self.risk
        reason = ""
        if not risk <= self.limit:
            reason = f"the mean loss of what remains is {risk:.4g}, above the limit of {self.limit:.4g}"
        elif not steepness <= most and rises:
            reason = f"the gradient of the tilted risk has norm {steepness:.3g}, above the limit of {most:.3g}"
        elif levels is not None and own_levels is not None:
            reason = levels.objection(own_levels)
        return Judged(risk, tilted, steepness, not reason, reason, levels)

    def _losses(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return self.objective(encode(model, self.retained), self.samples).double()

    def _figures(self, model: nn.Module, risk: float) -> tuple[float, float, Levels | None]:
        r"""Return :math:`\Phi` and the norm of its gradient, per retained interaction, and the levels."""
        new = shard_risk(model, self.retained, self.objective, self.samples)
        slope = new.gradient(new.parameters) - self.tilt
        steepness = self.inner.exactly(slope, slope) ** 0.5 / self.number
        tilted = risk - self.inner.exactly(self.tilt, new.parameters) / self.number
        return tilted, steepness, self._levels(model)

    @torch.no_grad()
    def _levels(self, model: nn.Module) -> Levels | None:
        if self.unseen is None:
            return None
        encoded, kept = encode(model, self.retained), self.retained.pairs
        missed = 1 - torch.sigmoid(score(encoded, kept)).double()
        some = self.unseen[1] != kept[1]
        raised = torch.sigmoid(score(encoded, self.unseen)).double()[some]
        means = []
        for values in (missed, raised):
            number = self.ranks.number(len(values))
            means.append(self.ranks.number(float(values.sum())) / max(number, 1.0))
        return Levels(*means)

    def figures(self) -> dict[str, float]:
        """Return the figures of the part whose edges are deleted, as the log of one process has them."""
        return {"risk": self.risk, "tilted": self.deleted[0], "gradient": self.deleted[1]}

    def levels(self, found: Judged) -> list[dict[str, float] | None]:
        """Return the levels of the deleted and of a corrected part, as the log of one process has them.

        Args:
            found: What is known about the corrected part.
        """
        return [None if levels is None else asdict(levels) for levels in (self.deleted[2], found.levels)]
