"""What of held-out data can still be used after a request."""

from __future__ import annotations

from typing import Any

from graphunlearn.nn.training.next_click import CrossEntropy

__all__ = ["validation_left"]


def validation_left(validation: Any, graph: Any, retained: Any) -> Any:
    """Return what stops the training on ``retained``: ``validation`` without emptied users and items.

    Args:
        validation: Held-out interactions or sessions; or ``None``.
        graph: The training graph before forgetting.
        retained: The training graph after it.

    Returns:
        The graph; ``None`` where there was none, or where no session of two clicks is left, and so nothing to predict.
    """
    if validation is None:
        return None
    left = validation.without_emptied(graph, retained)
    if left.kind == "sessions" and left is not validation and not len(CrossEntropy().samples(left)):
        return None
    return left
