"""The part of the validation data that can still be used after a request."""

from __future__ import annotations

from typing import Any

from graphunlearn.nn.training.next_click import CrossEntropy

__all__ = ["validation_left"]


def validation_left(validation: Any, graph: Any, retained: Any) -> Any:
    """Return ``validation`` without emptied users and items, for early stopping of a training on ``retained``.

    Args:
        validation: Held-out interactions or sessions, or ``None``.
        graph: The training graph before forgetting.
        retained: The retained graph.

    Returns:
        The remaining validation graph; ``None`` if ``validation`` is ``None``, or if no session with two clicks is left
        and there is no click to predict.
    """
    if validation is None:
        return None
    left = validation.without_emptied(graph, retained)
    if left.kind == "sessions" and left is not validation and not len(CrossEntropy().samples(left)):
        return None
    return left
