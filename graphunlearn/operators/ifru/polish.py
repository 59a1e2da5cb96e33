"""A short run of the trainer from the corrected parameters."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.training.fitting import FitSettings, default_settings, fit
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.shared.checks import naming_request

__all__ = ["polish"]


def polish(
    model: nn.Module,
    retained: InteractionGraph,
    objective: Objective | None,
    settings: FitSettings | None,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    r"""Train a corrected model on the retained graph for a few epochs, without validation data.

    Args:
        model: The corrected model; it is changed in place.
        retained: The retained graph.
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        settings: Training settings, of which the learning rate and the batch size are used; ``None`` selects
            :func:`~graphunlearn.nn.default_settings`.
        epochs: Epochs over the retained interactions.
        seed: Seed of the order of interactions.

    Returns:
        The log: the numbers of ``"epochs"`` and of optimizer ``"steps"``, and the mean ``"loss"`` of every epoch.

    Raises:
        ValueError: The retained graph has nothing to train on.
    """
    objective = objective or default_objective(retained)
    settings = replace(settings or default_settings(retained), epochs=epochs, seed=seed)
    with naming_request(objective):
        result = fit(model, retained, objective=objective, settings=settings, progress=False)
        steps = math.ceil(len(objective.samples(retained)) / settings.batch_size)
    return {"epochs": epochs, "steps": epochs * steps, "loss": [record["loss"] for record in result.history]}
