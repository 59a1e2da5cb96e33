"""What all floors share: the contract, and the positive interactions of users as rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.data.events import Kind
from graphunlearn.errors import ArgumentError

__all__ = ["Floor"]


@dataclass(kw_only=True)
class Floor(ABC):
    """A recommender without learned embeddings, which a trained model should beat.

    Attributes:
        name: Name of the floor in tables and reports.
        kinds: Kinds of graph that it can be fitted to.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]

    @abstractmethod
    def fit(self, graph: Any) -> Floor:
        """Count or solve what the scores need.

        Args:
            graph: The training graph; if it has labels, interactions with label 1 count.

        Returns:
            The floor itself.
        """

    @abstractmethod
    def scores(self, graph: Any, queries: Tensor) -> Tensor:
        """Return the scores of all items for some queries.

        Args:
            graph: The graph that holds what is known of the queries: the training graph, or the graph of the sessions.
            queries: Users, or the positions of the last clicks of prefixes ``[num]``.

        Returns:
            The scores in a new tensor ``[num, num_items]``.

        Raises:
            ValueError: The floor has not been fitted.
        """

    def _check_fitted(self) -> None:
        """Raise ArgumentError if the floor has not been fitted."""
        if not any(name not in self.__dataclass_fields__ for name in vars(self)):
            raise ArgumentError("floor", "be fitted first", f"{self!r} without a graph", "call its method fit")

    def _check(self, graph: Any) -> None:
        """Raise ArgumentError if the graph is of a kind that the floor cannot be fitted to."""
        if graph.kind not in self.kinds:
            expected = f"be a graph of {' or '.join(self.kinds)} for {type(self).__name__}"
            raise ArgumentError("graph", expected, type(graph).__name__)


def positives(graph: InteractionGraph) -> InteractionGraph:
    """Return the graph with its positive interactions: those of label 1, or all of them without labels.

    Args:
        graph: The interactions.
    """
    return graph if graph.label is None else graph.keep(graph.label == 1)


def rows_of(graph: InteractionGraph, users: Tensor, dtype: torch.dtype) -> Tensor:
    """Return which items some users have, as a dense matrix of zeros and ones.

    Args:
        graph: Positive interactions; see :func:`positives`.
        users: The users ``[num]``.
        dtype: Type of the result.

    Returns:
        The rows ``[num, num_items]``.
    """
    adjacency = graph.adjacency
    row = torch.repeat_interleave(torch.arange(users.numel(), device=users.device), adjacency.degree[users].long())
    out = torch.zeros(users.numel(), graph.num_items, dtype=dtype, device=users.device)
    out[row, adjacency.neighbors(users) - graph.num_users] = 1
    return out
