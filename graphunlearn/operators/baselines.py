"""Baselines that belong in every table: change the graph only, fine-tune on the rest, gradient ascent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn.encode import encode
from graphunlearn.nn.fit import FitSettings, fit
from graphunlearn.nn.objective import Objective, default_objective
from graphunlearn.operators.base import Unlearner

__all__ = ["FineTune", "GradientAscent", "Unlink"]


@dataclass(kw_only=True)
class Unlink(Unlearner):
    """Keep the parameters and serve with the retained graph: what forgetting costs nothing gives."""

    name: ClassVar[str] = "unlink"

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        return {}


@dataclass(kw_only=True)
class FineTune(Unlearner):
    """Train on for a few epochs on the retained graph.

    Args:
        objective: The loss; the shared default where ``None``.
        epochs: Passes over the retained interactions.
        lr: Adam's learning rate.
        batch_size: Interactions per step.
        seed: Seed of the order of interactions.
    """

    name: ClassVar[str] = "finetune"
    objective: Objective | None = None
    epochs: int = 3
    lr: float = 0.01
    batch_size: int = 8192
    seed: int = 0

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        settings = FitSettings(epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, seed=self.seed)
        result = fit(model, retained, objective=self.objective, settings=settings)
        return {"epochs": len(result.history), "loss": [record["loss"] for record in result.history]}


@dataclass(kw_only=True)
class GradientAscent(Unlearner):
    r"""Climb the loss of the forgotten interactions: Adam on :math:`-\sum_{z \in D_r} \ell(z; \theta, G_k)`.

    It has no sense of where to stop, which is what makes it a baseline: the number of steps is fixed beforehand.

    Args:
        objective: The loss; the shared default where ``None``.
        steps: Number of ascent steps.
        lr: Adam's learning rate.
    """

    name: ClassVar[str] = "ascent"
    objective: Objective | None = None
    steps: int = 10
    lr: float = 0.01

    def __post_init__(self) -> None:
        if not self.steps >= 1:
            raise ValueError(f"'steps' must be a positive integer (got {self.steps!r})")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"'lr' must be positive and finite (got {self.lr!r})")

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        if objective.weight_decay:
            objective = replace(objective, weight_decay=0.0)  # climbing the penalty would blow the rows up
        samples = objective.samples(graph, mask=request.mask(graph))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=self.lr)
        losses = []
        for _ in range(self.steps):
            loss = objective(encode(model, retained), samples).mean()
            optimizer.zero_grad()
            (-loss).backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return {"loss": losses}
