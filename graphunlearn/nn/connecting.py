"""What a model keeps of its training graph."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from torch import nn

__all__ = ["connect", "is_connected"]


@singledispatch
def connect(model: nn.Module, graph: Any) -> None:
    """Replace in place what a model keeps of its training graph, such as counts, by that of ``graph``.

    Most models keep nothing, and nothing happens. :func:`~graphunlearn.fit` calls this with the training graph, and
    :meth:`Unlearner.unlearn <graphunlearn.Unlearner.unlearn>` with the retained graph, since what is kept would be a
    trace of what is forgotten. Register a function for your own model class if it keeps something.

    Args:
        model: The model.
        graph: The graph.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> model = gu.nn.GCEGNN(3, 8)
        >>> connect(model, graph)
        >>> model.neighbours[0, 0], model.strength[0, 0]
        (tensor(1), tensor(1.))
    """


def is_connected(model: nn.Module) -> bool:
    """Return whether a model keeps something of its training graph, which :func:`connect` replaces."""
    return connect.dispatch(type(model)) is not connect.dispatch(object)
