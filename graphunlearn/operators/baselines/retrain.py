"""Retraining from scratch, the reference, as an unlearning method."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn.origin import origin_of
from graphunlearn.nn.training.anew import train_anew
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitSettings, default_settings
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.shared.checks import naming_request
from graphunlearn.operators.shared.heldout import validation_left

__all__ = ["Retrain"]


@dataclass(kw_only=True)
class Retrain(Unlearner):
    """Redraw all parameters and train on the retained graph.

    A model that was imported with a training of its own is trained by that.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        validation: Interactions or sessions for early stopping, without those of users and items that are forgotten
            entirely, by this request or by one that was served before with the same validation data and gave the graph.
            If no session with two clicks is left, training runs for all epochs.
        settings: Training settings, including the seed; use those of the original. ``None`` selects
            :func:`~graphunlearn.nn.default_settings`.
    """

    name: ClassVar[str] = "retrain"
    judged: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("interactions", "sessions")
    objective: Criterion | None = None
    validation: InteractionGraph | SessionGraph | None = field(default=None, repr=False)
    settings: FitSettings | None = None

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        settings = self.settings or default_settings(retained)
        validation = validation_left(self.validation, graph, retained)
        with naming_request(self.objective):
            result = train_anew(model, retained, validation=validation, objective=self.objective, settings=settings)
        origin = origin_of(model)
        if origin is not None and origin.train is not None:
            return {"settings": {"seed": settings.seed}}
        facts = {"best_epoch": result.best_epoch, "epochs": len(result.history), "validation": result.best}
        return facts | {"settings": asdict(settings)}
