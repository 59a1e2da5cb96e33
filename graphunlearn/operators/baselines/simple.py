"""Simple baselines: delete the edges, also redraw embeddings of emptied nodes, or fine-tune on the retained graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitSettings, default_settings, fit
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.shared.checks import naming_request
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["FineTune", "Unlink", "UnlinkRedraw"]

BOTH = ("interactions", "sessions")


@dataclass(kw_only=True)
class Unlink(Unlearner):
    """Keep the parameters and recommend with the retained graph: the baseline that does no computation."""

    name: ClassVar[str] = "unlink"
    judged: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = BOTH

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        return {}


@dataclass(kw_only=True)
class UnlinkRedraw(Unlearner):
    """Recommend with the retained graph, and redraw the embeddings of users and items without remaining interactions.

    The redrawn embeddings come from the initialisation of the model; see
    :func:`~graphunlearn.operators.shared.warm_start.warm_start`. All other parameters are kept, so the embeddings of
    other nodes keep what they learned from the forgotten interactions.

    Args:
        seed: Seed of the redrawn embeddings.
    """

    name: ClassVar[str] = "unlink-redraw"
    judged: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = BOTH
    seed: int = 0

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        warm_start(model, graph, retained, self.seed, scale=False)
        return {"emptied_nodes": int(graph.emptied(retained).sum())}


@dataclass(kw_only=True)
class FineTune(Unlearner):
    """Continue training on the retained graph for a few epochs.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        epochs: Epochs over the retained interactions, or over the prefixes of the retained sessions.
        lr: Learning rate of Adam; ``None`` selects that of :func:`~graphunlearn.nn.default_settings`.
        batch_size: Interactions or prefixes per step; ``None`` selects that of
            :func:`~graphunlearn.nn.default_settings`.
        seed: Seed of the order of interactions or sessions.
    """

    name: ClassVar[str] = "finetune"
    kinds: ClassVar[tuple[str, ...]] = BOTH
    on_rejection: Rejection = "keep"  # it is here to be compared
    objective: Criterion | None = None
    epochs: int = 3
    lr: float | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given: dict[str, Any] = {"lr": self.lr, "batch_size": self.batch_size}
        FitSettings(epochs=self.epochs, **{name: value for name, value in given.items() if value is not None})

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
        with naming_request(self.objective):
            result = fit(model, retained, objective=self.objective, settings=settings)
        return {"epochs": len(result.history), "loss": [record["loss"] for record in result.history]}
