"""What graphs of interactions and graphs of sessions have in common: events that can be forgotten."""

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
from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EventGraph", "Kind", "divide", "part_sizes"]

Kind = Literal["interactions", "sessions"]


class EventGraph(Stored):
    """A graph of events: interactions of users with items, or clicks in sessions.

    A mixin of :class:`~graphunlearn.InteractionGraph` and :class:`~graphunlearn.SessionGraph`. Forgetting is a mask
    over the events; what code needs to know of a kind of graph is here, so that it need not ask which one it has.

    Attributes:
        kind: ``"interactions"`` or ``"sessions"``.
        unit: What one event is called, ``"interaction"`` or ``"click"``.
        query: What is recommended to, ``"user"`` or ``"session"``.
        levels: The levels of request that such a graph serves.
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
        """How many there are of everything, by its name in the plural."""

    @property
    def num_queries(self) -> int:
        """Number of users, or of sessions."""
        return self.sizes[f"{self.query}s"]

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Number of rows of an embedding table: users and items, or items alone where sessions have no rows."""

    @property
    @abstractmethod
    def active(self) -> Tensor:
        """Which users and items (of sessions, which items) have an event ``[num_rows]``."""

    @abstractmethod
    def vocabulary(self, kind: str) -> Vocabulary:
        """Return the raw ids of one kind of node."""

    @property
    def item_ids(self) -> list[str]:
        """Raw id of every item."""
        return self.vocabulary("item").ids

    @abstractmethod
    def ends(self, level: str) -> Tensor:
        """Return the user, item or session of every event ``[num_interactions]``.

        Raises:
            ValueError: The graph has none of this level.
        """

    def seen(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items that are not recommended to ``queries`` ``[num]`` again: none, unless a graph says so.

        Returns:
            Positions in ``queries``, and items ``[num_seen]`` each.
        """
        return queries[:0], queries[:0]

    @abstractmethod
    def keep(self, mask: Tensor) -> Self:
        """Return the graph of the events where ``mask`` ``[num_interactions]`` is true."""

    @abstractmethod
    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the events that one part of a request names ``[num_matches]``.

        Args:
            level: One of :attr:`levels`.
            index: Ids, or pairs of ids.
            raw: Whether they are raw ids.

        Raises:
            ValueError: The graph does not know an id, a pair or a click, or does not serve the level.
        """

    @abstractmethod
    def holds(self, part: ForgetRequest) -> Tensor:
        """Return which entries of a request of one level the graph has something of ``[len(part)]``."""

    @abstractmethod
    def without_emptied(self, graph: Self, retained: Self) -> Self:
        """Return this graph without the events of users and items that have none left in ``retained``.

        Nothing is to be measured on such events, nor is training to be stopped by them.

        Args:
            graph: The training graph before forgetting.
            retained: The training graph after it.
        """

    def emptied(self, retained: Self) -> Tensor:
        """Return which users and items (of sessions, which items) have events here and none in ``retained``.

        Returns:
            A mask ``[num_rows]``, users first.
        """
        return self.active & ~retained.active

    def split(self, *requests: ForgetRequest) -> tuple[Self, Self]:
        """Return the graph without the events that the requests name, and the graph of these events alone.

        Args:
            requests: One request or several.

        Returns:
            The retained and the forgotten events; see :meth:`keep`.

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

    def without(self, part: ForgetRequest) -> Self:
        """Return the graph without the events that a request of one level names; what is not here is passed over."""
        held = self.holds(part).tolist()
        mask = torch.zeros(self.num_interactions, dtype=torch.bool, device=self.device)
        index = tuple(entry for entry, here in zip(part.index, held) if here)
        if index:
            mask[self.match(part.level, index, part.raw)] = True
        return self.keep(~mask) if bool(mask.any()) else self

    def _nodes(self, side: str, ids: Iterable[Any], raw: bool) -> Tensor:
        ids = list(ids)
        vocabulary = self.vocabulary(side)
        nodes = vocabulary.lookup(ids) if raw else torch.tensor(ids, dtype=torch.long)
        outside = (nodes < 0) | (nodes >= len(vocabulary))
        if outside.any():
            unknown = dict.fromkeys(ids[i] for i in outside.nonzero().flatten().tolist())
            kind = f"{side}s" if raw else f"internal {side} ids"
            raise ArgumentError(
                "index", f"hold {kind} of the graph", f"{preview(unknown)}; {_described(side, vocabulary)}"
            )
        return nodes.to(self.device)

    def _known(self, side: str, ids: Iterable[Any], raw: bool) -> Tensor:
        """Return which ids the graph knows, on the CPU ``[num_ids]``."""
        ids = list(ids)
        if raw:
            return self.vocabulary(side).lookup(ids) >= 0
        nodes = torch.tensor(ids, dtype=torch.long)
        return (nodes >= 0) & (nodes < len(self.vocabulary(side)))


def divide(
    part: ForgetRequest, train: EventGraph, heldout: Sequence[EventGraph]
) -> tuple[ForgetRequest | None, ForgetRequest | None]:
    """Divide a request of one level into what a model learned from and what was only held out.

    Args:
        part: The request; its numbers, if it is an internal one, are those of all the graphs.
        train: What the model was trained on.
        heldout: What it was not trained on.

    Returns:
        The entries that ``train`` holds, with those that no graph holds, and the entries that only ``heldout`` holds;
        ``None`` where there are none.

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
    learned, held = (ForgetRequest(part.level, index, part.raw) if index else None for index in parts)
    return learned, held


def part_sizes(parts: Mapping[str, EventGraph]) -> dict[str, int]:
    """Return how large the parts of a data set are, as reports name it; ``"train"`` is one of the parts."""
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
