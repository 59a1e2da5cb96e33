"""Sessions of clicks as one PyTorch Geometric object."""

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
from graphunlearn.data.schema import as_mask, check_ends, cuts_of
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SessionGraph"]

DERIVED = {"batch", "click_ptr", "device", "item_ids", "items", "num_clicks", "num_interactions", "num_items"}
DERIVED |= {"num_left_out", "num_sessions", "position", "session", "session_ids"}


class SessionGraph(SessionConversions, Data):
    r"""Sessions of clicks, each the graph of its items, all of them as one disjoint graph.

    A session :math:`(c_1, \dots, c_n)` has one node for every distinct item in it, and one edge :math:`u \to v` where a
    click on the item of :math:`u` is somewhere followed by one on that of :math:`v` (a self loop where an item is
    clicked twice in a row). Nodes lie by session, then by item; edges by source, then by target. It holds

    - ``x``: item of every node ``[num_nodes]``,
    - ``edge_index``: transitions, each once per session ``[2, num_edges]``,
    - ``alias``: node of every click ``[num_clicks]``, so that no order is lost,
    - ``batch``: session of every node ``[num_nodes]``,
    - ``length``: number of clicks of every session, at least 1 ``[num_sessions]``,
    - ``time``: time of every click ``[num_clicks]``, or none,
    - ``user``: user of every session, -1 where unknown ``[num_sessions]``, or none,
    - ``target``: on graphs of prefixes alone, the item clicked next, or -1 ``[num_sessions]``,

    and equals PyTorch Geometric's :class:`~torch_geometric.data.Batch` of the graphs of the single sessions. All of
    :class:`~torch_geometric.data.Data` works. Items keep their numbers and their count never shrinks, so that embedding
    tables keep their shape whatever is forgotten; sessions are numbered anew, and their raw ids go with them.

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
        """Return the raw ids of ``"item"``, ``"session"`` or ``"user"``, with a fast lookup."""
        found = self._store.get(f"{kind}_vocabulary")
        if isinstance(found, list):  # of a batch: items and users are shared, sessions follow one another
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
        """Raw id of every session; of graphs of prefixes just their numbers."""
        return self.vocabulary("session").ids

    @property
    def num_items(self) -> int:
        """Number of items, clicked or not."""
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
        """Number of clicks, by the name it has in graphs of users and items."""
        return self.num_clicks

    @property
    def num_left_out(self) -> int:
        """How many clicks were left out because their items were unknown, or unseen in training."""
        return int(torch.as_tensor(self._store.get("num_left_out", 0)).sum())

    @property
    def device(self) -> torch.device:
        """Where the graph lies."""
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
        """Where every session begins among the clicks, and where the last one ends ``[num_sessions + 1]``."""
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
        """User of every session, -1 where unknown ``[num_sessions]``, or none."""
        return self._store.get("user")

    @property
    def target(self) -> Tensor | None:
        """On a graph of prefixes, the item clicked next, or -1 ``[num_sessions]``."""
        return self._store.get("target")

    def fingerprint(self) -> str:
        """Return a SHA-256 of the content: items, raw ids, clicks and their values, all in their order."""
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
        """Check that nodes, edges and aliases are those of the clicks."""
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
        """Return a graph of other clicks, which is no batch even where this one is."""
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
        """Return the graph of sessions whose parts are known to be right.

        Args:
            items: Items of all clicks, by session ``[num_clicks]``.
            length: Clicks per session, at least 1 ``[num_sessions]``.
            item_ids: Raw ids of items.
            session_ids: Raw ids of sessions, if they have any.
            user_ids: Raw ids of users, if there are any.
            values: What the graph holds besides, where not none.
        """
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
        """Number of sessions, items and clicks, by these names."""
        return {"sessions": self.num_sessions, "items": self.num_items, "clicks": self.num_clicks}

    @property
    def num_rows(self) -> int:
        """Number of items."""
        return self.num_items

    @property
    def active(self) -> Tensor:
        """Which items are clicked ``[num_items]``."""
        return torch.bincount(self.x, minlength=self.num_items) > 0

    def ends(self, level: str) -> Tensor:
        """Return the item, session or user of every click ``[num_clicks]``; a user of -1 is unknown."""
        if level != "user":
            return self.items if level == "item" else self.session
        if self.user is None:
            raise ArgumentError("level", "be 'click', 'session' or 'item' where sessions carry no user", "'user'")
        return self.user[self.session]

    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the clicks that one part of a request names ``[num_matches]``.

        Raises:
            ValueError: The graph does not know an id, a session is too short for a click, or does not serve the level.
        """
        if level not in self.levels:
            raise ArgumentError(
                "level", "be 'click', 'session', 'item' or 'user' for a graph of sessions", f"{level!r}"
            )
        if level != "click":
            return torch.isin(self.ends(level), self._nodes(level, index, raw)).nonzero().flatten()
        names, positions = zip(*index)
        sessions = self._nodes("session", names, raw)
        position = torch.tensor(positions, dtype=torch.long, device=self.device)
        outside = (position < 0) | (position >= self.length[sessions])
        if outside.any():
            at = int(outside.nonzero()[0])
            count = int(self.length[sessions[at]])
            holds = (
                f"has {count} clicks, at positions 0 to {count - 1}" if count > 1 else "has one click, at position 0"
            )
            raise ArgumentError(
                "index", "hold clicks of the graph", f"{index[at]}, while session {names[at]!r} {holds}"
            )
        return self.click_ptr[sessions] + position

    def holds(self, part: ForgetRequest) -> Tensor:
        """Return which sessions (of clicks, theirs) are here, which users have one, or which items are known."""
        if part.level == "click":
            return self._known("session", [session for session, _ in part.index], part.raw)
        known = self._known(part.level, part.index, part.raw)
        if part.level == "user" and self.user is not None:
            nodes = self.vocabulary("user").lookup(part.index) if part.raw else torch.tensor(part.index)
            known &= torch.isin(nodes, self.user.cpu())
        return known

    def without_emptied(self, graph: SessionGraph, retained: SessionGraph) -> Self:
        """Return this graph without what it has of users and items that have nothing left in ``retained``.

        Sessions of such users are dropped, who are the same where their raw ids are, and so are clicks on such items:
        their neighbours join. A prefix that such a click follows is dropped.

        Args:
            graph: The training sessions before forgetting.
            retained: The training sessions after it.
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
        """Return the graph of some of the sessions: same items and numbers, fewer sessions.

        Args:
            index: Boolean mask ``[num_sessions]``, or the indices to keep; they stay in the order of the graph.

        Raises:
            ValueError: If the mask has another length or an index is out of range.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1], [2, 2, 3], [1]])
            >>> part = graph.select(torch.tensor([1, 2]))
            >>> part.items, part.length, part.session_ids, part.num_items
            (tensor([2, 2, 3, 1]), tensor([3, 1]), ['1', '2'], 4)
        """
        keep = as_mask(index, self.num_sessions, self.device, "sessions")
        return self.keep(keep.repeat_interleave(self.length, output_size=self.num_clicks))

    @torch.inference_mode(False)  # what is cut in inference mode is for use outside it as well
    def keep(self, mask: Tensor) -> Self:
        r"""Return the sessions with only the clicks where ``mask`` ``[num_clicks]`` is true.

        Of a session :math:`(c_1, \dots, c_n)` without its click :math:`c_k`, there remains

        .. math::
            (c_1, \dots, c_{k-1}, c_{k+1}, \dots, c_n):

        the click is dropped and its neighbours join, so that :math:`c_{k-1} \to c_{k+1}` is now a transition (a self
        loop where both are clicks on one item: joined repeats are not collapsed), while an item that is clicked
        elsewhere in the session stays a node of it. Later clicks move up one position. A session with one click left
        stays, though there is nothing to learn from it: neither a transition nor a click to predict. A session
        with no click left is dropped, and the sessions after it move up; raw ids go with their sessions.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1, 2], [3, 1], [1]])
            >>> part = graph.keep(graph.items != 1)
            >>> part.items, part.length, part.session_ids
            (tensor([0, 2, 3]), tensor([2, 1]), ['0', '1'])
        """
        count = torch.bincount(self.session[mask], minlength=self.num_sessions)
        left = count > 0
        sessions = self.vocabulary("session")
        return self._of_clicks(
            self.items[mask],
            count[left],
            sessions if left.all() else sessions.take(left),
            None if self.user is None else self.vocabulary("user"),
            time=None if self.time is None else self.time[mask],
            user=None if self.user is None else self.user[left],
            target=None if self.target is None else self.target[left],
            num_left_out=self.num_left_out or None,
        )

    @torch.inference_mode(False)
    def prefixes(self, ends: Tensor | None = None) -> Self:
        """Return one session per click in ``ends``: its session up to and including it; ``target`` is the next click.

        Training needs hundreds of these per step: they carry no times, users and raw ids of sessions.

        Args:
            ends: Clicks, in any order, some maybe repeated ``[n]`` (default: all that have a successor).

        Returns:
            A graph of ``n`` sessions with ``target`` ``[n]``, the item of the next click, -1 where there is none.

        Raises:
            ValueError: If ``ends`` holds no clicks of the graph.

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
        ends = check_ends(ends, self.num_clicks, self.device)
        session = torch.searchsorted(ptr, ends, right=True) - 1
        length = ends - ptr[session] + 1
        shift = ends - length.cumsum(0) + 1  # from a click of the prefixes to that of the graph
        click = shift.repeat_interleave(length)
        click += torch.arange(click.numel(), device=self.device)
        is_last = ends + 1 == ptr[session + 1]
        target = self.x[self.alias[ends + ~is_last]].masked_fill(is_last, -1)
        return self._of_clicks(self.x[self.alias[click]], length, target=target)

    def collapse(self) -> Self:
        """Return the graph without the clicks on the item of the click before; of a run, the first stays.

        Example:
            >>> SessionGraph.from_sequences([[0, 0, 1, 0], [0, 0]]).collapse().items
            tensor([0, 1, 0, 0])
        """
        items, session = self.items, self.session
        keep = torch.ones(self.num_clicks, dtype=torch.bool, device=self.device)
        keep[1:] = (items[1:] != items[:-1]) | (session[1:] != session[:-1])
        return self.keep(keep)

    def without_unseen(self, train: SessionGraph) -> Self:
        """Return the graph without the clicks on items that ``train`` holds no click on; their neighbours join.

        No model can have learnt these items. What is left out adds to :attr:`num_left_out`.

        Raises:
            ValueError: If ``train`` has other items.

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
        keep = seen[self.items]
        graph = self.keep(keep)
        graph._store.num_left_out = self.num_left_out + int((~keep).sum())
        return graph

    def time_split(self, fractions: Sequence[float]) -> tuple[Self, ...]:
        """Return disjoint graphs of whole sessions, one per fraction, the later ones last.

        Sessions are ordered by the time of their last click, and where there are no times, or equal ones, as they lie.
        Items keep their numbers in all parts; see :meth:`without_unseen`.

        Args:
            fractions: Share of the sessions in every part; they add up to 1.

        Raises:
            ValueError: If the fractions are not positive or do not add up to 1.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1], [2], [1]], time=torch.tensor([5, 9, 7, 8]))
            >>> [part.session_ids for part in graph.time_split([0.67, 0.33])]
            [['1', '2'], ['0']]
        """
        cuts = cuts_of(fractions, self.num_sessions)
        order = torch.arange(self.num_sessions, device=self.device)
        if self.time is not None:
            order = torch.argsort(self.time[self.click_ptr[1:] - 1], stable=True)
        return tuple(self.select(part) for part in order.tensor_split(cuts))

    def subgraph(self, subset: Tensor) -> Self:
        """Return the graph of the clicks on some nodes (a mask or indices ``[n]``); their neighbours join."""
        return self.keep(as_mask(subset, self.x.numel(), self.device, "nodes")[self.alias])
