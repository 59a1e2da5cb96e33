"""Training from new parameters: by the training loop of this package, or by that of the model's author."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.origin import Origin, origin_of
from graphunlearn.nn.training.checkpoint import FitResult
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitSettings, fit, reset_parameters, seeded

__all__ = ["train_anew"]


def train_anew(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    *,
    validation: InteractionGraph | SessionGraph | None = None,
    objective: Criterion | None = None,
    settings: FitSettings,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> FitResult:
    """Redraw all parameters of a model and train it, in place.

    Args:
        model: The model. If its :class:`~graphunlearn.nn.origin.Origin` has a training of its own, that is used, with
            the seed of ``settings``.
        graph: The training graph.
        validation: Held-out data for early stopping, or ``None``.
        objective: The loss, for the training of this package.
        settings: Training settings, of which a training of its own uses the seed.
        checkpoint: See :func:`~graphunlearn.fit`.
        progress: See :func:`~graphunlearn.fit`.

    Returns:
        The result; without a history if the model was trained by a function of its own.

    Raises:
        ArgumentError: The model's own training returned another model.
        ValueError: See :func:`~graphunlearn.fit`.
    """
    origin = origin_of(model)
    if origin is None or origin.train is None:
        reset_parameters(model, settings.seed)
        given = {"validation": validation, "objective": objective, "checkpoint": checkpoint, "progress": progress}
        return fit(model, graph, settings=settings, fresh=True, **given)  # type: ignore[arg-type]
    start = time.perf_counter()
    model.load_state_dict(_trained(model, origin, graph, validation, settings.seed).state_dict())
    model.eval()
    return FitResult(None, None, 0, time.perf_counter() - start)


def _trained(
    model: nn.Module,
    origin: Origin,
    graph: InteractionGraph | SessionGraph,
    validation: InteractionGraph | SessionGraph | None,
    seed: int,
) -> nn.Module:
    """Return the model that the training of the model's author gives."""
    assert origin.train is not None
    with seeded(model, seed), torch.inference_mode(False), torch.enable_grad():
        made = origin.train(graph, seed, validation)
    if not isinstance(made, nn.Module):
        raise ArgumentError("retrain", "return a model", f"a {type(made).__name__}")
    own, new = ({name: list(value.shape) for name, value in m.state_dict().items()} for m in (model, made))
    wrong = next((name for name in sorted(own.keys() | new.keys()) if own.get(name) != new.get(name)), None)
    if wrong is not None:
        expected = f"return a model with the tensors of the original, of which '{wrong}' is {own.get(wrong)}"
        raise ArgumentError("retrain", expected, new.get(wrong))
    bad = [name for name, value in made.state_dict().items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise FloatingPointError(f"'retrain' must return a finite model (got NaN or infinity in {bad[0]}, seed {seed})")
    return made
