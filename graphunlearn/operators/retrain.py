"""Retraining from scratch: the reference, and an unlearner like any other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn.fit import FitSettings, fit, reset_parameters
from graphunlearn.nn.objective import Objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.start import emptied_nodes

__all__ = ["Retrain", "without_emptied_nodes"]


@dataclass(kw_only=True)
class Retrain(Unlearner):
    """Draw the parameters anew and train on the retained graph.

    Args:
        objective: The loss; the shared default where ``None``.
        validation: Interactions for early stopping; rows of users and items that are forgotten entirely are left out.
        settings: How to train, seed included. Use those of the original.
    """

    name: ClassVar[str] = "retrain"
    objective: Objective | None = None
    validation: InteractionGraph | None = field(default=None, repr=False)
    settings: FitSettings = field(default_factory=FitSettings)

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        reset_parameters(model, self.settings.seed)
        validation = None if self.validation is None else without_emptied_nodes(self.validation, graph, retained)
        result = fit(model, retained, validation=validation, objective=self.objective, settings=self.settings)
        return {"best_epoch": result.best_epoch, "epochs": len(result.history), "settings": asdict(self.settings)}


def without_emptied_nodes(
    heldout: InteractionGraph, graph: InteractionGraph, retained: InteractionGraph
) -> InteractionGraph:
    """Return ``heldout`` without the rows of users and items that forgetting left without any interaction."""
    emptied = emptied_nodes(graph, retained)
    return heldout.select(~(emptied[heldout.pairs[0]] | emptied[heldout.pairs[1] + graph.num_users]))
