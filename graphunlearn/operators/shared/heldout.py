"""The part of the validation data that can still be used after a request."""

from __future__ import annotations

import weakref
from collections.abc import MutableMapping
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.nn.training.next_click import CrossEntropy

__all__ = ["validation_left"]

# What was left of which validation data for the events of every retained graph; a later request goes on from there.
_LEFT: MutableMapping[Tensor, tuple[weakref.ref[Any], Any]] = WeakTensorKeyDictionary()


def validation_left(validation: Any, graph: Any, retained: Any) -> Any:
    """Return ``validation`` without emptied users and items, for early stopping of a training on ``retained``.

    Those whom earlier requests emptied are left out too, if ``graph`` is the retained graph of an earlier call with the
    same validation data. Events of users and items that were never in a training graph stay.

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
    known = _LEFT.get(_events(graph))
    start = validation if known is None or known[0]() is not validation else known[1]
    left = start.without_emptied(graph, retained)
    _LEFT[_events(retained)] = (weakref.ref(validation), left)
    if left.kind == "sessions" and left is not validation and not len(CrossEntropy().samples(left)):
        return None
    return left


def _events(graph: Any) -> Tensor:
    """Return the tensor that a graph keeps its events in, by which it is recognised."""
    events: Tensor = graph.alias if graph.kind == "sessions" else graph.pairs
    return events
