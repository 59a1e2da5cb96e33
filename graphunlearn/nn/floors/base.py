"""What all floors share: the contract, and the positive interactions of users as rows."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.events import Kind
from graphunlearn.errors import ArgumentError

__all__ = ["Floor"]


@dataclass(kw_only=True)
class Floor(ABC):
    """A recommender that counts or solves instead of training; a trained model should beat it, and it forgets exactly.

    Attributes:
        name: Name of the floor in tables and reports.
        kinds: Kinds of graph that it can be fitted to.
        graph: The training graph, once the floor has been fitted.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    graph: Any = field(init=False, repr=False, compare=False)

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

    @torch.no_grad()
    def forget(self, request: ForgetRequest) -> Any:
        """Return what fitting the retained data returns.

        Args:
            request: What to forget, at levels that the training graph serves.

        Returns:
            A new floor, whose ``graph`` is the retained graph; this one stays as it is.

        Raises:
            ValueError: The floor has not been fitted, the request does not fit the graph, or nothing would be left.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=20, interactions_per_user=5)
            >>> request = gu.ForgetRequest("user", ["u3"])
            >>> floor = gu.nn.floors.ItemKNN()
            >>> forgotten, again = floor.fit(graph).forget(request), floor.fit(graph.split(request)[0])
            >>> torch.equal(forgotten.weights.to_dense(), again.weights.to_dense())
            True
        """
        self._check_fitted()
        forgotten = request.mask(self.graph)
        return self._forget(copy.copy(self), self.graph.keep(~forgotten), forgotten)

    def _forget(self, other: Any, retained: Any, forgotten: Tensor) -> Any:
        """Fit a copy of this floor to the retained graph; the default counts anew, whatever is forgotten."""
        return other.fit(retained)

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
