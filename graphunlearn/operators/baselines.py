"""Baselines that belong in every table: change the graph only, fine-tune on the rest, gradient ascent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn.criterion import Criterion
from graphunlearn.nn.fit import default_settings, fit
from graphunlearn.nn.objective import default_objective
from graphunlearn.operators.ascent import ascend
from graphunlearn.operators.base import Unlearner

__all__ = ["FineTune", "GradientAscent", "Unlink"]

BOTH = ("interactions", "sessions")


@dataclass(kw_only=True)
class Unlink(Unlearner):
    """Keep the parameters and serve with the retained graph: what forgetting costs nothing gives."""

    name: ClassVar[str] = "unlink"
    kinds: ClassVar[tuple[str, ...]] = BOTH

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        return {}


@dataclass(kw_only=True)
class FineTune(Unlearner):
    """Train on for a few epochs on the retained graph.

    Args:
        objective: The loss; the shared default where ``None``.
        epochs: Passes over the retained interactions, or the prefixes of the retained sessions.
        lr: Adam's learning rate; by default that of :func:`~graphunlearn.default_settings`.
        batch_size: Interactions, or prefixes, per step; by default likewise.
        seed: Seed of the order of interactions or sessions.
    """

    name: ClassVar[str] = "finetune"
    kinds: ClassVar[tuple[str, ...]] = BOTH
    objective: Criterion | None = None
    epochs: int = 3
    lr: float | None = None
    batch_size: int | None = None
    seed: int = 0

    def _unlearn(
        self,
        model: nn.Module,
        graph: InteractionGraph | SessionGraph,
        retained: InteractionGraph | SessionGraph,
        request: ForgetRequest,
    ) -> dict[str, Any]:
        given: dict[str, Any] = {"lr": self.lr, "batch_size": self.batch_size}
        chosen = {name: value for name, value in given.items() if value is not None}
        settings = replace(default_settings(retained), epochs=self.epochs, seed=self.seed, **chosen)
        result = fit(model, retained, objective=self.objective, settings=settings)
        return {"epochs": len(result.history), "loss": [record["loss"] for record in result.history]}


@dataclass(kw_only=True)
class GradientAscent(Unlearner):
    r"""Climb the mean loss of what is forgotten: Adam on :math:`-\frac{1}{|D_r|} \sum_{z \in D_r} \ell(z; \theta)`.

    These are the forgotten interactions, on the graph that remains, or the forgotten clicks, each after the clicks that
    came before it; the first click of a session follows nothing and has no loss. It has no sense of where to stop,
    which is what makes it a baseline: the number of steps is fixed beforehand.

    Args:
        objective: The loss; the shared default where ``None``.
        steps: Number of ascent steps.
        lr: Adam's learning rate; by default .01 for interactions and .001 for sessions.
    """

    name: ClassVar[str] = "ascent"
    kinds: ClassVar[tuple[str, ...]] = BOTH
    objective: Criterion | None = None
    steps: int = 10
    lr: float | None = None

    def __post_init__(self) -> None:
        if not self.steps >= 1:
            raise ValueError(f"'steps' must be a positive integer (got {self.steps!r})")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"'lr' must be positive and finite (got {self.lr!r})")

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        lr = (0.001 if isinstance(graph, SessionGraph) else 0.01) if self.lr is None else self.lr
        return {"loss": ascend(model, graph, retained, request, objective, steps=self.steps, lr=lr)}
