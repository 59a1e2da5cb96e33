"""The common interface of interaction graphs and session graphs: graphs of events that can be forgotten."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from graphunlearn.data.io.storage import Stored
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.splits import By, divided
from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EventGraph", "Kind", "divide", "part_sizes"]

Kind = Literal["interactions", "sessions"]


class EventGraph(Stored):
    """A graph of events: interactions of users with items, or clicks in sessions.

    This class is a mixin of :class:`~graphunlearn.InteractionGraph` and :class:`~graphunlearn.SessionGraph`. A forget
    set is a mask over the events. Code that uses only this interface works for both kinds of graphs.

    Attributes:
        kind: ``"interactions"`` or ``"sessions"``.
        unit: Name of one event, ``"interaction"`` or ``"click"``.
        query: Name of the entities that items are recommended to, ``"user"`` or ``"session"``.
        levels: Levels of forget requests that the graph accepts.
    """

    kind: ClassVar[Kind]
    unit: ClassVar[str]
    query: ClassVar[str]
    levels: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def num_interactions(self) -> int:
        """Number of events."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the tensors."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Numbers of users or sessions, of items and of events, by their plural names."""

    @property
    def num_queries(self) -> int:
        """Number of users or sessions, whichever items are recommended to."""
        return self.sizes[f"{self.query}s"]

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Number of rows of an embedding table: users and items, or only items for a graph of sessions."""

    @property
    def num_item_rows(self) -> int:
        """Number of rows of items in an embedding table, which is the number of items unless processes divide them."""
        return self.sizes["items"]

    @property
    @abstractmethod
    def sides(self) -> tuple[slice, ...]:
        """Rows of the users and rows of the items; only the latter for a graph of sessions."""

    @property
    @abstractmethod
    def degree(self) -> Tensor:
        """Number of events of every user and item (only items for sessions) ``[num_rows]``."""

    @property
    def active(self) -> Tensor:
        """Mask of the users and items (only items for sessions) with at least one event ``[num_rows]``."""
        return self.degree > 0

    @abstractmethod
    def vocabulary(self, kind: str) -> Vocabulary:
        """Return the raw ids of one kind of entities.

        Args:
            kind: ``"user"``, ``"item"`` or, for sessions, ``"session"``.
        """

    @property
    def item_ids(self) -> list[str]:
        """Raw id of every item."""
        return self.vocabulary("item").ids

    @abstractmethod
    def ends(self, level: str) -> Tensor:
        """Return the user, item or session of every event ``[num_interactions]``.

        Args:
            level: ``"user"``, ``"item"`` or, for sessions, ``"session"``.

        Raises:
            ValueError: The graph has no entities of this level.
        """

    def seen(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items that must not be recommended to ``queries`` again; none unless a subclass overrides this.

        Args:
            queries: Users or sessions ``[num]``.

        Returns:
            For every such item, the position of its user in ``queries`` ``[num_seen]`` and the item ``[num_seen]``.
        """
        return queries[:0], queries[:0]

    def without_unseen(self, train: Self) -> Self:
        """Return the graph without events on items that ``train`` does not hold, if these cannot be evaluated.

        That is so for sessions. Interactions are returned as they are, because rankings count and skip such pairs.

        Args:
            train: The training graph.
        """
        return self

    @abstractmethod
    def keep(self, mask: Tensor) -> Self:
        """Return the graph with a subset of the events.

        Args:
            mask: Boolean mask of the events to keep ``[num_interactions]``.
        """

    @abstractmethod
    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the events that a request of one level names.

        Args:
            level: One of :attr:`levels`.
            index: Ids, or pairs of ids.
            raw: Whether the ids are raw ids rather than node numbers.

        Returns:
            Positions of the events ``[num_matches]``.

        Raises:
            ValueError: The graph does not contain an id, a pair or a click, or does not accept the level.
        """

    @abstractmethod
    def holds(self, part: ForgetRequest) -> Tensor:
        """Return which entries of a request of one level the graph contains.

        Args:
            part: A request of one level.

        Returns:
            A mask on the CPU ``[len(part)]``.
        """

    @abstractmethod
    def without_emptied(self, graph: Self, retained: Self) -> Self:
        """Return this graph without the events of users and items that forgetting left without training events.

        Such held-out events must neither be used for measurements nor for early stopping.

        Args:
            graph: The training graph before forgetting.
            retained: The retained training graph.

        Returns:
            This graph, usually of held-out data, with a subset of its events.
        """

    def emptied(self, retained: Self) -> Tensor:
        """Return which users and items (only items for sessions) have events in this graph but none in ``retained``.

        Args:
            retained: The retained graph.

        Returns:
            A mask ``[num_rows]``, users first.
        """
        return self.active & ~retained.active

    def placed(self, part: ForgetRequest) -> ForgetRequest:
        """Return a request of one level with the positions of clicks checked against the items that it names.

        Args:
            part: The request.

        Raises:
            ValueError: Other items are at these positions.
        """
        return part

    def split(self, *requests: ForgetRequest) -> tuple[Self, Self]:
        """Split the graph into the retained graph and the graph of the forget set.

        Args:
            requests: One or more requests; their forget sets are united.

        Returns:
            The graph of the retained events and the graph of the forgotten events; see :meth:`keep`.

        Raises:
            ValueError: A request does not fit the graph, or nothing would be left.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> retain, forget = graph.split(gu.ForgetRequest("user", ["0"]))
            >>> retain.num_interactions, forget.num_interactions
            (2, 1)
        """
        if not requests:
            raise ArgumentError("requests", "hold at least one request", "none")
        forget = reduce(or_, requests).mask(self)
        return self.keep(~forget), self.keep(forget)

    def split_by(self, by: By, fractions: Sequence[float], seed: int = 0) -> tuple[Self, ...]:
        """Split the interactions, or whole sessions, into disjoint graphs.

        :func:`~graphunlearn.data.splits.divided` defines the parts.

        Args:
            by: ``"random"``, ``"time"``, ``"loo"`` (the last one of every user, and the one before) or ``"user"``
                (those of every user, by time).
            fractions: Share of every part; the shares add up to 1. ``"loo"`` uses their number alone.
            seed: Seed of what is drawn.

        Returns:
            One graph per fraction, all with the numbers of this graph.

        Raises:
            ValueError: ``by`` is unknown or needs times or users that are not there, or the fractions do not fit.

        Example:
            >>> import torch, graphunlearn as gu
            >>> pairs, time = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 0]]), torch.tensor([5, 9, 7, 1])
            >>> graph = gu.InteractionGraph.from_edges(pairs, time=time)
            >>> [part.pairs.t().tolist() for part in graph.split_by("loo", [0.8, 0.1, 0.1])]
            [[[0, 0], [1, 0]], [[0, 2]], [[0, 1]]]
        """
        num, user, time = self._units()
        parts = divided(by, fractions, num, user=user, time=time, seed=seed)
        return tuple(self.select(part.to(self.device)) for part in parts)

    @abstractmethod
    def _units(self) -> tuple[int, Tensor | None, Tensor | None]:
        """Return the number of what is split, and the user and the time of every one."""

    @abstractmethod
    def select(self, index: Tensor) -> Self:
        """Return the graph with some of its interactions, or of its sessions.

        Args:
            index: Their positions, or a mask.
        """

    @abstractmethod
    def shared(self, other: Self) -> int:
        """Return how many interactions are in another graph too, or how many sessions have an id that is there too.

        Args:
            other: A graph with the same users and items; of sessions, any.
        """

    def without(self, part: ForgetRequest) -> Self:
        """Return the graph without the events that a request of one level names.

        Args:
            part: A request of one level. Entries that the graph does not contain are ignored.

        Returns:
            A graph with fewer events, or this graph if no event is named.
        """
        held = self.holds(part).tolist()
        mask = torch.zeros(self.num_interactions, dtype=torch.bool, device=self.device)
        index = tuple(entry for entry, here in zip(part.index, held) if here)
        if index:
            mask[self.match(part.level, index, part.raw)] = True
        return self.keep(~mask) if bool(mask.any()) else self

    def _nodes(self, side: str, ids: Iterable[Any], raw: bool) -> Tensor:
        """Return the node of every id ``[num_ids]``; raise ArgumentError if the graph lacks one."""
        ids = list(ids)
        nodes, known = self._lookup(side, ids, raw)
        if not known.all():
            unknown = dict.fromkeys(ids[i] for i in (~known).nonzero().flatten().tolist())
            kind = f"{side}s" if raw else f"internal {side} ids"
            described = _described(side, self.vocabulary(side))
            raise ArgumentError("index", f"hold {kind} of the graph", f"{preview(unknown)}; {described}")
        return nodes.to(self.device)

    def _lookup(self, side: str, ids: Iterable[Any], raw: bool) -> tuple[Tensor, Tensor]:
        """Return the node of every id, and a mask of the ids that the graph contains, both on the CPU ``[num_ids]``."""
        vocabulary = self.vocabulary(side)
        nodes = vocabulary.lookup(ids) if raw else torch.tensor(list(ids), dtype=torch.long)
        return nodes, (nodes >= 0) & (nodes < len(vocabulary))


def divide(
    part: ForgetRequest, train: EventGraph, heldout: Sequence[EventGraph]
) -> tuple[ForgetRequest | None, ForgetRequest | None]:
    """Divide a request of one level into entries of the training data and entries that occur only in held-out data.

    Args:
        part: The request. If it holds internal ids, all graphs must share their numbering.
        train: The graph that the model was trained on.
        heldout: Graphs of held-out data.

    Returns:
        A request with the entries that ``train`` contains or that no graph contains, and a request with the entries
        that only ``heldout`` contains. A request without entries is ``None``.

    Example:
        >>> import graphunlearn as gu
        >>> sessions = gu.SessionGraph.from_sequences([[0, 1], [1, 2]], session_ids=["a", "b"])
        >>> train, test = sessions.time_split([0.5, 0.5])
        >>> divide(ForgetRequest("session", ["a", "b"]), train, [test])
        (ForgetRequest('session', ['a']), ForgetRequest('session', ['b']))
    """
    elsewhere = torch.zeros(len(part), dtype=torch.bool)
    for graph in heldout:
        elsewhere |= graph.holds(part)
    elsewhere &= ~train.holds(part)
    parts = [tuple(e for e, out in zip(part.index, elsewhere.tolist()) if out is held) for held in (False, True)]
    learned, held = (
        ForgetRequest(part.level, index, part.raw).naming(part.items) if index else None for index in parts
    )
    return learned, held


def part_sizes(parts: Mapping[str, EventGraph]) -> dict[str, int]:
    """Return the sizes of the parts of a data set under the names that reports use.

    Args:
        parts: Graphs by name; one of the names is ``"train"``.

    Returns:
        For interactions, the number of interactions per part and the number of users; for sessions, the numbers of
        sessions and clicks per part. Both include the number of items.
    """
    train = parts["train"]
    if train.kind == "interactions":
        sizes = {name: part.num_interactions for name, part in parts.items()} | {"users": train.sizes["users"]}
    else:
        sizes = {f"{name}_{what}": part.sizes[what] for what in ("sessions", "clicks") for name, part in parts.items()}
    return sizes | {"items": train.sizes["items"]}


def _described(side: str, vocabulary: Vocabulary) -> str:
    if len(vocabulary) == 0:
        return f"the graph has no {side}s"
    shown = ", ".join(repr(vocabulary[i]) for i in range(min(3, len(vocabulary))))
    return f"the graph has {len(vocabulary)} {side}s, such as {shown}"
