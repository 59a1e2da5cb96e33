"""Graphs of click sessions as one PyTorch Geometric object."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphunlearn.data.events import Kind
from graphunlearn.data.io.sessions import SessionConversions
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.schema import as_mask, check_index
from graphunlearn.data.splits import divided
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SessionGraph"]

DERIVED = {"batch", "click_ptr", "device", "item_ids", "items", "num_clicks", "num_interactions", "num_items"}
DERIVED |= {"num_left_out", "num_sessions", "position", "session", "session_ids"}


class SessionGraph(SessionConversions, Data):
    r"""Sessions of clicks: one graph of items per session, joined into one disjoint graph.

    A session :math:`(c_1, \dots, c_n)` has one node per distinct item, and one edge :math:`u \to v` if some click on
    the item of :math:`u` is directly followed by a click on the item of :math:`v` (a self loop if an item is clicked
    twice in a row). Nodes are sorted by session and item, edges by source and target. The graph stores

    - ``x``: item of every node ``[num_nodes]``,
    - ``edge_index``: transitions, each once per session ``[2, num_edges]``,
    - ``alias``: node of every click ``[num_clicks]``, which keeps the order of the clicks,
    - ``batch``: session of every node ``[num_nodes]``,
    - ``length``: number of clicks of every session, at least 1 ``[num_sessions]``,
    - ``time``: time of every click ``[num_clicks]``, or ``None``,
    - ``user``: user of every session, -1 where unknown ``[num_sessions]``, or ``None``,
    - ``target``: in graphs of prefixes only, the item clicked next, or -1 ``[num_sessions]``,

    and equals PyTorch Geometric's :class:`~torch_geometric.data.Batch` of the graphs of the single sessions. All
    methods of :class:`~torch_geometric.data.Data` work. Forgetting never changes item numbers or the number of items,
    so embedding tables keep their shape. Sessions are renumbered and keep their raw ids.

    Example:
        >>> graph = SessionGraph.from_sequences([[4, 2, 4, 4], [2]], session_ids=["a", "b"])
        >>> graph.x, graph.alias, graph.batch
        (tensor([2, 4, 2]), tensor([1, 0, 1, 1, 2]), tensor([0, 0, 1]))
        >>> graph.edge_index
        tensor([[0, 1, 1],
                [1, 0, 1]])
    """

    kind: ClassVar[Kind] = "sessions"
    unit: ClassVar[str] = "click"
    query: ClassVar[str] = "session"
    levels: ClassVar[tuple[str, ...]] = ("click", "session", "item", "user")
    alias: Tensor
    length: Tensor

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return the raw ids of the items, sessions or users.

        Args:
            kind: ``"item"``, ``"session"`` or ``"user"``.
        """
        found = self._store.get(f"{kind}_vocabulary")
        if isinstance(found, list):  # in a batch: items and users are shared, sessions are concatenated
            if kind == "session":
                bare = all(part.is_range for part in found)
                return Vocabulary(self.num_sessions if bare else [text for part in found for text in part.ids])
            if any(part != found[0] for part in found):
                raise ValueError(f"graphs of a batch must share their {kind}s to have raw ids (got different ones)")
            return found[0]
        if found is not None:
            return found
        return Vocabulary(self.num_sessions if kind == "session" else 0)

    @property
    def session_ids(self) -> list[str]:
        """Raw id of every session; in graphs of prefixes, the numbers of the prefixes."""
        return self.vocabulary("session").ids

    @property
    def num_items(self) -> int:
        """Number of items, with or without clicks."""
        return len(self.vocabulary("item"))

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return self.length.numel()

    @property
    def num_clicks(self) -> int:
        """Number of clicks."""
        return self.alias.numel()

    @property
    def num_interactions(self) -> int:
        """Number of clicks, under the name that :class:`InteractionGraph` uses for its events."""
        return self.num_clicks

    @property
    def num_left_out(self) -> int:
        """Number of clicks that were dropped because their items were unknown, or unseen in training."""
        return int(torch.as_tensor(self._store.get("num_left_out", 0)).sum())

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.alias.device

    @property
    def batch(self) -> Tensor:
        """Session of every node ``[num_nodes]``."""
        return self._store.session_of_node  # PyTorch Geometric's batches number graphs in 'batch', which may differ

    @property
    def items(self) -> Tensor:
        """Item of every click ``[num_clicks]``."""
        return self.x[self.alias]

    @property
    def click_ptr(self) -> Tensor:
        """Position of the first click of every session, then the number of clicks ``[num_sessions + 1]``."""
        return torch.cat([self.length.new_zeros(1), self.length.cumsum(0)])

    @property
    def session(self) -> Tensor:
        """Session of every click ``[num_clicks]``."""
        return torch.arange(self.num_sessions, device=self.device).repeat_interleave(self.length)

    @property
    def position(self) -> Tensor:
        """Position of every click in its session, from 0 ``[num_clicks]``."""
        return torch.arange(self.num_clicks, device=self.device) - self.click_ptr[self.session]

    @property
    def user(self) -> Tensor | None:
        """User of every session, -1 where unknown ``[num_sessions]``, or ``None``."""
        return self._store.get("user")

    @property
    def target(self) -> Tensor | None:
        """In a graph of prefixes, the item clicked next, or -1 ``[num_sessions]``; ``None`` in other graphs."""
        return self._store.get("target")

    def fingerprint(self) -> str:
        """Return the SHA-256 fingerprint of items, raw ids, clicks and their attributes, in their order."""
        digest = hashlib.sha256(f"{self.num_items} {self.num_sessions}".encode())
        for kind in ("item", "session", "user"):
            digest.update(self.vocabulary(kind).fingerprint.encode())
        for name in ("items", "length", "time", "user", "target"):
            value = getattr(self, name)
            if value is not None:
                value = value.double() + 0.0 if value.is_floating_point() else value.long()
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def validate(self, raise_on_error: bool = True) -> bool:
        """Return whether nodes, edges and aliases are those of the clicks; raise ValueError if asked to."""
        names = ("x", "edge_index", "alias", "session_of_node")
        whole = super().validate(raise_on_error)
        if whole:
            again = self._of_clicks(self.items, self.length)
            whole = all(torch.equal(self._store[name], again._store[name]) for name in names)
            if not whole and raise_on_error:
                raise ValueError("the graph must have the nodes and edges of its clicks (got others)")
        return whole

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "alias":
            return self.x.numel()
        return self.num_sessions if key == "session_of_node" else super().__inc__(key, value, *args, **kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in DERIVED:
            raise AttributeError(f"'{key}' is read-only: it follows from the clicks of the graph")
        super().__setattr__(key, value)

    def _of_clicks(self, items: Tensor, length: Tensor, *vocabularies: Vocabulary | None, **values: Any) -> Self:
        """Return a graph of other clicks, not a batch even if this graph is a batch."""
        plain: type[Self] = next(cls for cls in type(self).__mro__ if not issubclass(cls, Batch))
        return plain._build(items, length, self.vocabulary("item"), *vocabularies, **values)

    @classmethod
    def _build(
        cls,
        items: Tensor,
        length: Tensor,
        item_ids: Vocabulary,
        session_ids: Vocabulary | None = None,
        user_ids: Vocabulary | None = None,
        **values: Any,
    ) -> Self:
        """Return the graph of sessions, without checking the arguments.

        Args:
            items: Items of all clicks, by session ``[num_clicks]``.
            length: Clicks per session; sessions without clicks are dropped ``[num_sessions]``.
            item_ids: Raw ids of items.
            session_ids: Raw ids of sessions, if they have any.
            user_ids: Raw ids of users, if there are any.
            values: Further attributes of the graph; those that are ``None`` are not stored.
        """
        left = length > 0
        if not left.all():
            length = length[left]
            session_ids = None if session_ids is None else session_ids.take(left)
            for name in ("user", "target"):
                values[name] = None if values.get(name) is None else values[name][left]
        num_items = max(len(item_ids), 1)
        session = torch.arange(length.numel(), device=length.device).repeat_interleave(length)
        node, alias = torch.unique(session * num_items + items, return_inverse=True)
        within = session[1:] == session[:-1]
        edge = torch.unique(alias[:-1][within] * node.numel() + alias[1:][within])
        graph = cls()
        x, num_nodes = node % num_items, max(node.numel(), 1)
        edge_index = torch.stack([edge // num_nodes, edge % num_nodes])
        graph._store.update({"x": x, "edge_index": edge_index, "alias": alias, "session_of_node": node // num_items})
        vocabularies = {"item_vocabulary": item_ids, "session_vocabulary": session_ids, "user_vocabulary": user_ids}
        others = {"length": length, **values, **vocabularies}
        graph._store.update({name: value for name, value in others.items() if value is not None})
        return graph

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of ``"sessions"``, ``"items"`` and ``"clicks"``."""
        return {"sessions": self.num_sessions, "items": self.num_items, "clicks": self.num_clicks}

    @property
    def num_rows(self) -> int:
        """Number of rows of an embedding table: items."""
        return self.num_items

    @property
    def sides(self) -> tuple[slice, ...]:
        """Rows of the items."""
        return (slice(0, self.num_items),)

    @property
    def degree(self) -> Tensor:
        """Number of clicks on every item ``[num_items]``."""
        return torch.bincount(self.items, minlength=self.num_items)

    def ends(self, level: str) -> Tensor:
        """Return the item, session or user of every click ``[num_clicks]``; user -1 means unknown."""
        if level != "user":
            return self.items if level == "item" else self.session
        if self.user is None:
            raise ArgumentError("level", "be 'click', 'session' or 'item' where sessions carry no user", "'user'")
        return self.user[self.session]

    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the clicks that a request of one level names ``[num_matches]``.

        Raises:
            ValueError: The graph lacks an id or does not accept the level, or a session is too short for a click.
        """
        if level not in self.levels:
            expected = "be 'click', 'session', 'item' or 'user' for a graph of sessions"
            raise ArgumentError("level", expected, f"{level!r}")
        if level != "click":
            return torch.isin(self.ends(level), self._nodes(level, index, raw)).nonzero().flatten()
        names, positions = zip(*index)
        sessions = self._nodes("session", names, raw)
        position = torch.tensor(positions, dtype=torch.long, device=self.device)
        outside = (position < 0) | (position >= self.length[sessions])
        if outside.any():
            at = int(outside.nonzero()[0])
            count = int(self.length[sessions[at]])
            clicks = f"{count} clicks, at positions 0 to {count - 1}" if count > 1 else "one click, at position 0"
            got = f"{index[at]}, while session {names[at]!r} has {clicks}"
            raise ArgumentError("index", "hold clicks of the graph", got)
        return self.click_ptr[sessions] + position

    def holds(self, part: ForgetRequest) -> Tensor:
        """Return a mask of the entries whose session or item is in the graph, or whose user has a session."""
        if part.level == "click":
            return self._lookup("session", [session for session, _ in part.index], part.raw)[1]
        nodes, known = self._lookup(part.level, part.index, part.raw)
        if part.level == "user" and self.user is not None:
            known &= torch.isin(nodes, self.user.cpu())
        return known

    def without_emptied(self, graph: SessionGraph, retained: SessionGraph) -> Self:
        """Return this graph without the users and items that forgetting left without training clicks.

        The sessions of such users (matched by raw id) and the clicks on such items are dropped; the neighbours of a
        dropped click become adjacent. A prefix whose target is such an item is dropped.

        Args:
            graph: The training sessions before forgetting.
            retained: The retained training sessions.
        """
        heldout = self
        if self.user is not None and graph.user is not None and retained.user is not None:
            left = torch.unique(graph.user[~torch.isin(graph.user, retained.user)]).tolist()
            names = graph.vocabulary("user")
            found = self.vocabulary("user").lookup(names[number] for number in left if number >= 0)
            gone = torch.isin(self.user, found[found >= 0].to(self.device))
            heldout = self.select(~gone) if bool(gone.any()) else self
        emptied = graph.emptied(retained)
        if heldout.target is not None:
            gone = (heldout.target >= 0) & emptied[heldout.target]
            heldout = heldout.select(~gone) if bool(gone.any()) else heldout
        gone = emptied[heldout.items]
        return heldout.keep(~gone) if bool(gone.any()) else heldout

    def select(self, index: Tensor) -> Self:
        """Return the graph with a subset of the sessions; items and their numbers stay the same.

        Args:
            index: Boolean mask ``[num_sessions]``, or the indices to keep; the order of the sessions stays the same.

        Raises:
            ValueError: The mask has another length or an index is out of range.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1], [2, 2, 3], [1]])
            >>> part = graph.select(torch.tensor([1, 2]))
            >>> part.items, part.length, part.session_ids, part.num_items
            (tensor([2, 2, 3, 1]), tensor([3, 1]), ['1', '2'], 4)
        """
        keep = as_mask(index, self.num_sessions, self.device, "sessions")
        return self.keep(keep.repeat_interleave(self.length, output_size=self.num_clicks))

    @torch.inference_mode(False)  # a graph made in inference mode must be usable outside it as well
    def keep(self, mask: Tensor) -> Self:
        r"""Return the sessions with only the clicks where ``mask`` ``[num_clicks]`` is true.

        Dropping the click :math:`c_k` from a session :math:`(c_1, \dots, c_n)` gives

        .. math::
            (c_1, \dots, c_{k-1}, c_{k+1}, \dots, c_n).

        The neighbours become adjacent: :math:`c_{k-1} \to c_{k+1}` is a transition (a self loop if both are clicks on
        the same item; repeats are not collapsed). The item stays a node if it is clicked elsewhere in the session.
        Later clicks move up by one position. A session with one click left stays, although it has neither a transition
        nor a click to predict. A session without clicks is dropped and later sessions are renumbered with their raw
        ids.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1, 2], [3, 1], [1]])
            >>> part = graph.keep(graph.items != 1)
            >>> part.items, part.length, part.session_ids
            (tensor([0, 2, 3]), tensor([2, 1]), ['0', '1'])
        """
        count = torch.bincount(self.session[mask], minlength=self.num_sessions)
        users = None if self.user is None else self.vocabulary("user")
        time = None if self.time is None else self.time[mask]
        values = {"time": time, "user": self.user, "target": self.target, "num_left_out": self.num_left_out or None}
        return self._of_clicks(self.items[mask], count, self.vocabulary("session"), users, **values)

    @torch.inference_mode(False)
    def prefixes(self, ends: Tensor | None = None) -> Self:
        """Return one prefix per click in ``ends``: the clicks of its session up to and including that click.

        Prefixes carry no times, users or raw ids of sessions, since training builds hundreds of them per step.

        Args:
            ends: Positions of clicks, in any order, repeats allowed ``[n]`` (default: all clicks with a successor).

        Returns:
            A graph of ``n`` sessions with ``target`` ``[n]``, the item of the next click, or -1 if there is none.

        Raises:
            ValueError: If ``ends`` holds positions that are no clicks of the graph.

        Example:
            >>> import torch
            >>> part = SessionGraph.from_sequences([[0, 1, 2], [3]]).prefixes(torch.tensor([1, 3]))
            >>> part.items, part.length, part.target
            (tensor([0, 1, 3]), tensor([2, 1]), tensor([ 2, -1]))
        """
        ptr = self.click_ptr
        if ends is None:
            last = torch.zeros(self.num_clicks, dtype=torch.bool, device=self.device)
            last[ptr[1:] - 1] = True
            ends = (~last).nonzero().flatten()
        ends = check_index("ends", torch.as_tensor(ends, device=self.device), self.num_clicks, "a list of clicks")
        session = torch.searchsorted(ptr, ends, right=True) - 1
        length = ends - ptr[session] + 1
        shift = ends - length.cumsum(0) + 1  # position in the graph minus position in the prefixes
        click = shift.repeat_interleave(length)
        click += torch.arange(click.numel(), device=self.device)
        is_last = ends + 1 == ptr[session + 1]
        target = self.x[self.alias[ends + ~is_last]].masked_fill(is_last, -1)
        return self._of_clicks(self.x[self.alias[click]], length, target=target)

    def collapse(self) -> Self:
        """Return the graph with every run of consecutive clicks on one item reduced to its first click.

        Example:
            >>> SessionGraph.from_sequences([[0, 0, 1, 0], [0, 0]]).collapse().items
            tensor([0, 1, 0, 0])
        """
        items, session = self.items, self.session
        keep = torch.ones(self.num_clicks, dtype=torch.bool, device=self.device)
        keep[1:] = (items[1:] != items[:-1]) | (session[1:] != session[:-1])
        return self.keep(keep)

    def without_unseen(self, train: SessionGraph) -> Self:
        """Return the graph without the clicks on items that have no click in ``train``; their neighbours are joined.

        A model trained on ``train`` has not learned these items. The dropped clicks are added to :attr:`num_left_out`.

        Raises:
            ValueError: The items of ``train`` differ from those of this graph.

        Example:
            >>> train, test = SessionGraph.from_sequences([[0, 1], [0, 2, 1]]).time_split([0.5, 0.5])
            >>> part = test.without_unseen(train)
            >>> part.items, part.num_left_out
            (tensor([0, 1]), 1)
        """
        if train.vocabulary("item") != self.vocabulary("item"):
            raise ArgumentError("train", f"have the same {self.num_items} items", f"others, {train.num_items}")
        seen = torch.zeros(self.num_items, dtype=torch.bool, device=self.device)
        seen[train.x.to(self.device)] = True
        graph = self.keep(keep := seen[self.items])
        graph._store.num_left_out = self.num_left_out + int((~keep).sum())
        return graph

    def time_split(self, fractions: Sequence[float]) -> tuple[Self, ...]:
        """Split whole sessions by time into disjoint graphs, one per fraction, the latest sessions last.

        Sessions are sorted by the time of their last click; without times, and for equal times, they keep their order.
        Items keep their numbers in all parts; see :meth:`without_unseen`.

        Args:
            fractions: Share of the sessions in every part; the shares add up to 1.

        Raises:
            ValueError: The fractions are not positive or do not add up to 1.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1], [2], [1]], time=torch.tensor([5, 9, 7, 8]))
            >>> [part.session_ids for part in graph.time_split([0.67, 0.33])]
            [['1', '2'], ['0']]
        """
        num, _, time = self._units()
        order = time if time is not None else torch.arange(num)
        return tuple(self.select(part.to(self.device)) for part in divided("time", fractions, num, time=order))

    def _units(self) -> tuple[int, Tensor | None, Tensor | None]:
        return self.num_sessions, self.user, None if self.time is None else self.time[self.click_ptr[1:] - 1]

    def subgraph(self, subset: Tensor) -> Self:
        """Return the graph of the clicks on the nodes in ``subset`` (a mask or indices ``[n]``); see :meth:`keep`."""
        return self.keep(as_mask(subset, self.x.numel(), self.device, "nodes")[self.alias])
