"""Evaluation of a model with another layer-0 table than its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.calling import call_with
from graphunlearn.nn.tables import initial_table, table_names

__all__ = ["TableModel"]

T = TypeVar("T")


class TableModel:
    """A model that can be evaluated with another layer-0 table; the model itself is never changed.

    Args:
        model: The model.
        graph: The training graph of the model.

    Attributes:
        table: A copy of the layer-0 embeddings of the model ``[num_nodes, dim]``.

    Raises:
        ValueError: The initial embeddings of the model are not accessible.
    """

    def __init__(self, model: nn.Module, graph: InteractionGraph) -> None:
        self._names = table_names(model, graph)
        self._fixed = {name: p.detach() for name, p in model.named_parameters()}
        self._sizes = [len(self._fixed[name]) for name in self._names]
        self.model, self.table = model, initial_table(model, graph)

    def run(self, table: Tensor, function: Callable[[nn.Module], T]) -> T:
        """Return ``function(model)``, evaluated with ``table`` ``[num_nodes, dim]`` as the layer-0 embeddings.

        The value is differentiable in ``table`` alone.
        """
        values = {**self._fixed, **dict(zip(self._names, table.split(self._sizes)))}
        return call_with(self.model, values, function)
