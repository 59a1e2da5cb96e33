"""How a model that this package did not make is built, and trained, anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

__all__ = ["Origin", "give_origin", "origin_of"]

_NAME = "_graphunlearn_origin"  # an attribute of the model, so that copies of the model have it as well


@dataclass(frozen=True)
class Origin:
    """How a model is built anew, so that it can be retrained.

    Args:
        build: Function that returns an untrained model of the same class and sizes; its draws are seeded from outside.
        train: Function ``train(graph, seed, validation)`` that returns a trained model; ``None`` to train with
            :func:`~graphunlearn.fit`.
        identity: Text that differs if the functions do.
        on_graph: Function that returns an untrained model for a graph with other users and items; ``None`` if there is
            none.
    """

    build: Callable[[], nn.Module]
    train: Callable[[Any, int, Any], nn.Module] | None = None
    identity: str = ""
    on_graph: Callable[[Any], nn.Module] | None = None

    def resized(self, graph: Any) -> Origin:
        """Return how the model is built anew for a graph with other users and items.

        Args:
            graph: The graph.
        """
        return self if self.on_graph is None else replace(self, build=partial(self.on_graph, graph))

    def __deepcopy__(self, memo: Any) -> Origin:
        return self


def give_origin(model: nn.Module, origin: Origin) -> None:
    """Record how a model is built anew; the class and the ``state_dict`` stay untouched.

    Args:
        model: The model.
        origin: How it is built.
    """
    setattr(model, _NAME, origin)


def origin_of(model: nn.Module) -> Origin | None:
    """Return how a model is built anew; ``None`` if its own ``reset_parameters`` methods do it.

    Args:
        model: The model.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> give_origin(model, Origin(lambda: nn.Linear(2, 1)))
        >>> origin_of(model).build(), origin_of(nn.Linear(2, 1))
        (Linear(in_features=2, out_features=1, bias=True), None)
    """
    return getattr(model, _NAME, None)
