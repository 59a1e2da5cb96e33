"""Conversion of session graphs from and to sequences, tables, files and networkx graphs."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphunlearn.data.events import EventGraph
from graphunlearn.data.io import files as io
from graphunlearn.data.io.columns import CLICKS, Column
from graphunlearn.data.io.exchange import to_session_network
from graphunlearn.data.io.frame import categories, numbered
from graphunlearn.data.io.left_out import tell_left_out
from graphunlearn.data.io.tables import read_table
from graphunlearn.data.places import placed
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.schema import check_attribute, check_nodes, check_sequences, check_users, warn
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    import networkx
    from typing_extensions import Self

__all__ = ["Clicks", "SessionConversions", "arrange"]

Array = np.ndarray[Any, Any]


class Clicks(NamedTuple):
    """Clicks sorted by session and, within a session, by order; sessions are in order of first appearance.

    Args:
        session: Session of every click ``[num_clicks]``.
        item: Item of every click ``[num_clicks]``.
        time: Time of every click ``[num_clicks]``, or ``None``.
        user: User of every session, -1 where unknown ``[num_sessions]``, or ``None``.
        vocabularies: Raw ids of ``"session"``, ``"item"`` and, if there are users, ``"user"``.
    """

    session: Tensor
    item: Tensor
    time: Tensor | None
    user: Tensor | None
    vocabularies: dict[str, Vocabulary]


def arrange(frame: pd.DataFrame, source: str) -> Clicks:
    """Return the clicks of a clean table, sorted by session and, within it, by position, time or row.

    Args:
        frame: The table, as :func:`~graphunlearn.data.io.frame.tidy` returns it.
        source: Name of the table in warnings.
    """
    session = frame["session"].cat.codes.to_numpy(dtype=np.int64)
    inner = [name for name in ("position", "time") if name in frame]
    order = np.lexsort([*(frame[name].to_numpy() for name in reversed(inner)), session])  # the last key counts most
    if (np.diff(order) < 0).any():
        by = " and ".join(["session", *inner[:1]])
        warn(f"{source}: the clicks were not in order, and were sorted by {by}")
    if "position" in frame and _from_one(frame["position"].to_numpy()[order], session[order]):
        warn(f"{source}: positions begin at 1 in this file, and at 0 in the graph and in requests for clicks")
    roles = [role for role in CLICKS.ids if role in frame]
    vocabularies = {role: Vocabulary(frame[role].cat.categories) for role in roles}
    item = frame["item"].cat.codes.to_numpy(dtype=np.int64)
    user = None
    if "user" in frame and len(vocabularies["user"]):
        user = _users(frame["user"].cat.codes.to_numpy(dtype=np.int64), session, len(vocabularies["session"]), source)
    time = torch.tensor(frame["time"].to_numpy()[order]) if "time" in frame else None
    return Clicks(torch.from_numpy(session[order]), torch.from_numpy(item[order]), time, user, vocabularies)


def _from_one(position: Array, session: Array) -> bool:
    """Whether the positions of every session are 1, 2, 3, ..., given clicks that are sorted."""
    first = np.diff(session, prepend=-1) != 0
    start = np.flatnonzero(first)[np.cumsum(first) - 1]
    return bool((position == np.arange(len(position)) - start + 1).all())


def _users(user: Array, session: Array, num_sessions: int, source: str) -> Tensor:
    """Return the user of every session; -1 if no click has a user or its clicks have several users."""
    known = user >= 0
    users = np.full(num_sessions, -1)
    users[session[known]] = user[known]
    several = np.unique(session[known & (users[session] != user)])
    if several.size:
        warn(f"{source}: {several.size} sessions have clicks of several users; their user counts as unknown")
    users[several] = -1
    return torch.from_numpy(users)


class SessionConversions(EventGraph):
    """The conversions of :class:`~graphunlearn.SessionGraph`."""

    @classmethod
    @abstractmethod
    def _build(cls, items: Tensor, length: Tensor, item_ids: Vocabulary, *vocabularies: Any, **values: Any) -> Self:
        """Return the graph of sessions, without checking the arguments."""

    @abstractmethod
    def collapse(self) -> Self:
        """Return the graph with every run of consecutive clicks on one item reduced to its first click."""

    def placed(self, part: ForgetRequest) -> ForgetRequest:
        """Return a request with the positions of clicks checked against the items that it names; see ``places``."""
        return placed(self, part)

    def shared(self, other: EventGraph) -> int:
        """Return how many sessions have an id that another graph has too."""
        return len(set(self.vocabulary("session").ids) & set(other.vocabulary("session").ids))

    @classmethod
    def from_sequences(
        cls,
        items: Tensor | Sequence[Sequence[int]],
        ptr: Tensor | None = None,
        *,
        num_items: int | None = None,
        item_ids: Iterable[Any] | None = None,
        session_ids: Iterable[Any] | None = None,
        time: Tensor | None = None,
        user: Tensor | None = None,
        user_ids: Iterable[Any] | None = None,
    ) -> Self:
        """Make a graph from sessions that are given as sequences of item numbers.

        Args:
            items: Items of all clicks, numbered from 0, session after session ``[num_clicks]``; without ``ptr``, one
                sequence of items per session.
            ptr: Position of the first click of every session, then the number of clicks ``[num_sessions + 1]``.
            num_items: Number of items (default: the number of raw ids, or the largest item plus one).
            item_ids: Raw id of every item (default: its number).
            session_ids: Raw id of every session (default: its number).
            time: Times of the clicks ``[num_clicks]``.
            user: Users of the sessions, numbered from 0, -1 where unknown ``[num_sessions]``.
            user_ids: Raw id of every user (default: its number).

        Returns:
            The graph; it owns its tensors.

        Raises:
            ValueError: A session has no click, or if types, ranges or lengths do not fit.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.SessionGraph.from_sequences(torch.tensor([5, 3, 5, 1]), torch.tensor([0, 3, 4]))
            >>> graph.num_sessions, graph.num_clicks, graph.num_items, graph.num_nodes
            (2, 4, 6, 3)
        """
        with torch.inference_mode(False):
            clicks, length = check_sequences(items, ptr)
            if time is not None:
                time = check_attribute("time", time, clicks.numel(), clicks.device, "click")
            users = None
            if user is not None:
                user = check_users(user, length.numel(), clicks.device)
                users = check_nodes("user", user[user >= 0], None, user_ids, "user")
            elif user_ids is not None:
                raise ArgumentError("user", "hold the user of every session where there are 'user_ids'", "none")
            known = check_nodes("item", clicks, num_items, item_ids, "items")
            sessions = check_nodes("session", clicks[:0], length.numel(), session_ids)
            return cls._build(clicks, length, known, sessions, users, time=time, user=user)

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, *, collapse_repeats: bool = False, like: EventGraph | None = None, **columns: Column
    ) -> Self:
        """Make a graph from a table with one click per row.

        Every row counts as a click, including repeated rows. Sessions are numbered in order of first appearance. The
        clicks of a session are sorted by position or, without positions, by time; otherwise they keep the order of the
        rows.

        Args:
            frame: The table.
            collapse_repeats: Whether to drop clicks on the same item as the previous click; positions then count the
                remaining clicks.
            like: A graph whose items, with their numbers, the new graph uses. Clicks on other items are left out before
                repeats are collapsed, and counted in ``num_left_out``; their neighbours become adjacent, as in
                :meth:`SessionGraph.split`.
            **columns: Names or positions of the columns ``session``, ``item``, ``time`` (dates become seconds since
                1970), ``position`` (any increasing numbers) and ``user`` (values may be missing; the user of a session
                with clicks of several users is unknown). By default, columns are found by their names.

        Returns:
            The graph; without ``like``, items are numbered in order of first appearance.

        Raises:
            ValueError: A column does not exist, or an id, time or position is missing or malformed.

        Example:
            >>> import pandas as pd, graphunlearn as gu
            >>> frame = pd.DataFrame({"SessionId": [7, 7, 9], "ItemId": ["a", "b", "a"], "Time": [1.5, 2.0, 1.0]})
            >>> graph = gu.SessionGraph.from_frame(frame)
            >>> graph.session_ids, graph.item_ids, graph.items, graph.time
            (['7', '9'], ['a', 'b'], tensor([0, 1, 0]), tensor([1.5000, 2.0000, 1.0000], dtype=torch.float64))
        """
        clean = read_table(frame, "frame", columns, CLICKS, numeric=numbered(like, CLICKS.ids))
        return cls._from_clicks(arrange(clean, "'frame'"), collapse_repeats, like)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        collapse_repeats: bool = False,
        like: EventGraph | None = None,
        **given: Any,
    ) -> Self:
        """Make a graph from a file with one click per row.

        Columns are found by their names (``session_id``, ``ItemId``, ``Time``, ``timestamp``, ``eventdate``,
        ``position``, ``timeframe``, ...); without a header, the columns are session, item and time, or session, time
        and item where dates show it. Rows are treated as in :meth:`from_frame`.

        Args:
            path: The file; see :func:`~graphunlearn.data.io.files.read_clicks` for the formats.
            collapse_repeats: Whether to drop clicks on the same item as the previous click; positions then count the
                remaining clicks.
            like: A graph whose items, with their numbers, the new graph uses, as for a test file. Ids mean what they
                mean in that graph. Clicks on other items are left out and counted in ``num_left_out``.
            **given: Names or numbers of the columns ``session``, ``item``, ``time``, ``position`` and ``user``, and the
                arguments of :class:`~graphunlearn.data.io.options.Reading`: ``sep``, ``decimal``, ``header`` and
                ``max_size``.

        Returns:
            The graph; without ``like``, items are numbered in order of first appearance.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file cannot be read as such a table; the message names the line.
        """
        clicks = arrange(io.read_clicks(path, numeric=numbered(like, CLICKS.ids), **given), f"'{path}'")
        return cls._from_clicks(clicks, collapse_repeats, like)

    @classmethod
    def _from_clicks(cls, clicks: Clicks, collapse_repeats: bool, like: EventGraph | None) -> Self:
        ids, item, session, time, left_out = clicks.vocabularies, clicks.item, clicks.session, clicks.time, 0
        items = ids["item"] if like is None else like.vocabulary("item")
        if like is not None:
            item = items.lookup(ids["item"].ids)[item]
            known = item >= 0
            left_out = int((~known).sum())
            tell_left_out(left_out, known.numel(), clicks=True)
            item, session, time = item[known], session[known], None if time is None else time[known]
        count = torch.bincount(session, minlength=len(ids["session"]))
        users = None if clicks.user is None else ids["user"]
        values = {"time": time, "user": clicks.user, "num_left_out": left_out or None}
        graph = cls._build(item, count, items, ids["session"], users, **values)
        return graph.collapse() if collapse_repeats else graph

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per click: raw ids (as categories), position, and time and user if present.

        Example:
            >>> import graphunlearn as gu
            >>> gu.SessionGraph.from_sequences([[1, 0], [1]], session_ids=["a", "b"]).to_frame().values.tolist()
            [['a', '1', 0], ['a', '0', 1], ['b', '1', 0]]
        """
        columns = {kind: categories(self.ends(kind), self.vocabulary(kind)) for kind in ("session", "item")}
        columns["position"] = self.position.cpu().numpy()
        if self.time is not None:
            columns["time"] = self.time.cpu().numpy()
        if self.user is not None:
            columns["user"] = categories(self.ends("user"), self.vocabulary("user"))
        return pd.DataFrame(columns)

    def to_networkx(self) -> networkx.DiGraph:
        """Return a networkx graph with one node ``(session, item)`` of raw ids per node.

        Nodes have the attributes ``session``, ``item`` and ``positions``, the positions of their clicks. The ``weight``
        of an edge is the number of times that its transition occurs.

        Example:
            >>> import graphunlearn as gu
            >>> network = gu.SessionGraph.from_sequences([[1, 0, 1, 0]], item_ids=["x", "y"]).to_networkx()
            >>> network.nodes["0", "y"]["positions"], network.edges(data="weight")
            ([0, 2], OutEdgeDataView([(('0', 'x'), ('0', 'y'), 1), (('0', 'y'), ('0', 'x'), 2)]))
        """
        return to_session_network(self)
