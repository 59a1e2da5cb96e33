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
        stored: Names of the attributes that a file holds.
        graph: The training graph, once the floor has been fitted.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    stored: ClassVar[tuple[str, ...]] = ()
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
    def recommend(
        self, k: int = 10, users: Tensor | None = None, *, candidates: Tensor | None = None, batch_size: int = 256
    ) -> tuple[Tensor, Tensor]:
        """Return the ``k`` best items for users of the training graph, without the items that they have in it.

        Args:
            k: Number of items per user.
            users: Internal user ids ``[num]``; all by default.
            candidates: Mask of the items that may be returned ``[num_items]``; all by default.
            batch_size: Users scored at a time.

        Returns:
            Internal item ids and scores ``[num, k]``, best first; places without an item are ``-1``, with a score of
            minus infinity.

        Raises:
            ValueError: The floor has not been fitted, or not to users and items, or ``k`` is not between 1 and the
                number of items.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=3)
            >>> gu.nn.floors.Popularity().fit(graph).recommend(k=2)[0]
            tensor([[ 1,  2],
                    [ 2, -1]])
        """
        self._check_fitted()
        graph = self.graph
        if graph.kind != "interactions":
            raise ArgumentError("floor", "be fitted to users and items", "sessions", "call its method scores")
        if not 1 <= k <= graph.num_items:
            raise ArgumentError("k", f"be between 1 and the number of items, {graph.num_items}", k)
        users = torch.arange(graph.num_users, device=graph.device) if users is None else users
        found, values = [], []
        for batch in users.split(batch_size):
            scores = self.scores(graph, batch)
            seen = torch.zeros_like(scores, dtype=torch.bool)
            seen[graph.seen(batch)] = True
            if candidates is not None:
                seen[:, ~candidates] = True
            best, items = scores.masked_fill_(seen, -torch.inf).topk(k)
            found.append(items.masked_fill(seen.gather(1, items), -1))
            values.append(best)
        return torch.cat(found), torch.cat(values)

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

    def tensors(self) -> dict[str, Tensor]:
        """Return what fitting computed, by name, for a file; :meth:`restore` takes it back.

        Raises:
            ValueError: The floor has not been fitted, or is counted anew instead of being stored.
        """
        self._check_fitted()
        if not self.stored:
            raise ArgumentError("floor", "be one that is stored", self.name, "fit it again")
        return {name: getattr(self, name) for name in self.stored}

    def restore(self, graph: Any, tensors: dict[str, Tensor]) -> Any:
        """Take back what :meth:`tensors` returned.

        Args:
            graph: The graph that the floor was fitted to.
            tensors: The tensors by name.

        Returns:
            The floor itself.

        Raises:
            KeyError: A tensor is missing.
        """
        self._check(graph)
        self.graph = graph
        for name in self.stored:
            setattr(self, name, tensors[name].to(graph.device))
        return self

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
