"""The ways into a graph of sessions and out of it."""

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
from graphunlearn.data.io.columns import CLICKS, Column, find_columns
from graphunlearn.data.io.exchange import to_session_network
from graphunlearn.data.io.frame import tidy
from graphunlearn.data.io.left_out import tell_left_out
from graphunlearn.data.schema import check_attribute, check_nodes, check_sequences, check_users, warn
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    import networkx
    import pandas as pd
    from typing_extensions import Self

__all__ = ["Clicks", "SessionConversions", "arrange", "known_clicks"]

Array = np.ndarray[Any, Any]


class Clicks(NamedTuple):
    """Clicks by session, sessions in order of first appearance, and in order within each."""

    session: Tensor
    item: Tensor
    time: Tensor | None
    user: Tensor | None
    vocabularies: dict[str, Vocabulary]


def arrange(frame: pd.DataFrame, source: str) -> Clicks:
    """Return the clicks of a tidy table, sorted by session, and by position, time, or the order of the rows within."""
    session = frame["session"].cat.codes.to_numpy(dtype=np.int64)
    inner = [name for name in ("position", "time") if name in frame]
    order = np.lexsort([*(frame[name].to_numpy() for name in reversed(inner)), session])  # the last key counts most
    if (np.diff(order) < 0).any():
        by = " and ".join(["session", *inner[:1]])
        warn(f"{source}: the clicks were not in order, and were sorted by {by}")
    vocabularies = {
        role: Vocabulary(frame[role].cat.categories) for role in ("session", "item", "user") if role in frame
    }
    item = frame["item"].cat.codes.to_numpy(dtype=np.int64)
    user = None
    if "user" in frame and len(vocabularies["user"]):
        user = _users(frame["user"].cat.codes.to_numpy(dtype=np.int64), session, len(vocabularies["session"]), source)
    time = torch.tensor(frame["time"].to_numpy()[order]) if "time" in frame else None
    return Clicks(torch.from_numpy(session[order]), torch.from_numpy(item[order]), time, user, vocabularies)


def _users(user: Array, session: Array, num_sessions: int, source: str) -> Tensor:
    """The user of every session, -1 where no click has one, or some have different ones."""
    known = user >= 0
    users = np.full(num_sessions, -1)
    users[session[known]] = user[known]
    several = np.unique(session[known & (users[session] != user)])
    if several.size:
        warn(f"{source}: {several.size} sessions have clicks of several users; their user counts as unknown")
    users[several] = -1
    return torch.from_numpy(users)


def known_clicks(clicks: Clicks, items: Vocabulary) -> tuple[Clicks, int]:
    """Return the clicks on items of ``items``, by its numbers, and how many others were left out.

    Raises:
        ValueError: If it knows none of them.
    """
    item = items.lookup(clicks.vocabularies["item"].ids)[clicks.item]
    known = item >= 0
    left_out = int((~known).sum())
    tell_left_out(left_out, known.numel(), clicks=True)
    time = None if clicks.time is None else clicks.time[known]
    vocabularies = {**clicks.vocabularies, "item": items}
    return Clicks(clicks.session[known], item[known], time, clicks.user, vocabularies), left_out


class SessionConversions(EventGraph):
    """What :class:`~graphunlearn.SessionGraph` can be made from and turned into."""

    @classmethod
    @abstractmethod
    def _build(cls, items: Tensor, length: Tensor, item_ids: Vocabulary, *vocabularies: Any, **values: Any) -> Self:
        """Return the graph of sessions whose parts are known to be right."""

    @abstractmethod
    def collapse(self) -> Self:
        """Return the graph without the clicks on the item of the click before."""

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
        """Make a graph of sessions given as sequences of item numbers.

        Args:
            items: Items of the clicks, numbered from 0, session after session ``[num_clicks]``; without ``ptr`` one
                sequence per session.
            ptr: Where every session begins among them, and where the last one ends ``[num_sessions + 1]``.
            num_items: Number of items (default: as many as there are ids, or the largest number plus one).
            item_ids: Raw id of every item (default: its number).
            session_ids: Raw id of every session (default: its number).
            time: Times of the clicks ``[num_clicks]``.
            user: Users of the sessions, numbered from 0, -1 where unknown ``[num_sessions]``.
            user_ids: Raw id of every user (default: its number).

        Returns:
            The graph; it owns its tensors.

        Raises:
            ValueError: If a session has no click, or types, ranges or lengths do not fit.

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
            return cls._build(
                clicks,
                length,
                check_nodes("item", clicks, num_items, item_ids, "items"),
                check_nodes("session", clicks[:0], length.numel(), session_ids),
                users,
                time=time,
                user=user,
            )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        session: Column = None,
        item: Column = None,
        time: Column = None,
        position: Column = None,
        user: Column = None,
        collapse_repeats: bool = False,
        like: EventGraph | None = None,
    ) -> Self:
        """Make a graph of the clicks in the rows of a table.

        Every row is a click, repeated or not. Sessions are numbered in order of first appearance; their clicks are
        sorted by position, by time where there are none, or else stay in the order of the rows.

        Args:
            frame: The table.
            session: Name (or position) of the column of sessions (default: found by its name, as are the others).
            item: Likewise for items.
            time: Likewise for times, if there are any; dates become seconds since 1970.
            position: Likewise for places in the session, as any number that grows.
            user: Likewise for users, which may be missing; a session with clicks of several users counts as of none.
            collapse_repeats: Whether a click on the item of the one before is dropped; positions count what is left.
            like: A graph whose items are taken over, with their numbers. Clicks on others are left out before repeats
                are, and counted in ``num_left_out``; their neighbours join, as in :meth:`SessionGraph.split`.

        Returns:
            The graph; without ``like``, items are numbered in order of first appearance.

        Raises:
            ValueError: If a column is not there, or an id, time or position is missing or malformed.

        Example:
            >>> import pandas as pd, graphunlearn as gu
            >>> frame = pd.DataFrame({"SessionId": [7, 7, 9], "ItemId": ["a", "b", "a"], "Time": [1.5, 2.0, 1.0]})
            >>> graph = gu.SessionGraph.from_frame(frame)
            >>> graph.session_ids, graph.item_ids, graph.items, graph.time
            (['7', '9'], ['a', 'b'], tensor([0, 1, 0]), tensor([1.5000, 2.0000, 1.0000], dtype=torch.float64))
        """
        given = {"session": session, "item": item, "time": time, "position": position, "user": user}
        columns = find_columns([str(name) for name in frame.columns], given, "frame", CLICKS)
        if frame.empty:
            raise ArgumentError("frame", "hold at least one row", "none")
        table = frame.iloc[:, list(columns.values())].set_axis(list(columns), axis=1)
        clean = tidy(table, lambda row: f"'frame', row {row}", layout=CLICKS)
        return cls._from_clicks(arrange(clean, "'frame'"), collapse_repeats, like)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        session: Column = None,
        item: Column = None,
        time: Column = None,
        position: Column = None,
        user: Column = None,
        collapse_repeats: bool = False,
        like: EventGraph | None = None,
    ) -> Self:
        """Make a graph of the clicks in the rows of a file.

        Columns are found by their names (``session_id``, ``ItemId``, ``Time``, ``timestamp``, ``eventdate``,
        ``position``, ``timeframe``, ...); without a header, they are session, item and time. The rest is as for
        :meth:`from_frame`.

        Args:
            path: A ``.csv``, ``.tsv``, ``.txt``, ``.inter``, ``.dat``, ``.data`` (also ``.gz``) or ``.parquet`` file.
            session: Name or number of the column of sessions.
            item: Likewise for items.
            time: Likewise for times.
            position: Likewise for places in the session.
            user: Likewise for users.
            collapse_repeats: Whether a click on the item of the one before is dropped; positions count what is left.
            like: A graph whose items are taken over, as for a test file: clicks on others are left out, and counted in
                ``num_left_out``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not readable as such a table; the message names the line.
        """
        frame = io.read_clicks(path, session=session, item=item, time=time, position=position, user=user)
        return cls._from_clicks(arrange(frame, f"'{path}'"), collapse_repeats, like)

    @classmethod
    def _from_clicks(cls, clicks: Clicks, collapse_repeats: bool, like: EventGraph | None) -> Self:
        left_out = 0
        if like is not None:
            clicks, left_out = known_clicks(clicks, like.vocabulary("item"))
        ids = clicks.vocabularies
        count = torch.bincount(clicks.session, minlength=len(ids["session"]))
        left = count > 0
        graph = cls._build(
            clicks.item,
            count[left],
            ids["item"],
            ids["session"] if left.all() else ids["session"].take(left),
            None if clicks.user is None else ids["user"],
            time=clicks.time,
            user=None if clicks.user is None else clicks.user[left],
            num_left_out=left_out or None,
        )
        return graph.collapse() if collapse_repeats else graph

    def to_frame(self) -> pd.DataFrame:
        """Return a table of clicks: raw ids (as categories), position, and time and user where there are any.

        Example:
            >>> import graphunlearn as gu
            >>> gu.SessionGraph.from_sequences([[1, 0], [1]], session_ids=["a", "b"]).to_frame().values.tolist()
            [['a', '1', 0], ['a', '0', 1], ['b', '1', 0]]
        """
        import pandas as pd

        def named(numbers: Tensor, kind: str) -> Any:
            return pd.Categorical.from_codes(numbers.cpu().numpy(), categories=pd.Index(self.vocabulary(kind).ids))

        columns: dict[str, Any] = {"session": named(self.session, "session"), "item": named(self.items, "item")}
        columns["position"] = self.position.cpu().numpy()
        if self.time is not None:
            columns["time"] = self.time.cpu().numpy()
        if self.user is not None:
            columns["user"] = named(self.user[self.session], "user")
        return pd.DataFrame(columns)

    def to_networkx(self) -> networkx.DiGraph:
        """Return a networkx graph with a node ``(session, item)`` for every node, by raw ids.

        Nodes carry ``session``, ``item`` and the ``positions`` of their clicks; edges carry as ``weight`` how often one
        follows the other.

        Example:
            >>> import graphunlearn as gu
            >>> network = gu.SessionGraph.from_sequences([[1, 0, 1, 0]], item_ids=["x", "y"]).to_networkx()
            >>> network.nodes["0", "y"]["positions"], network.edges(data="weight")
            ([0, 2], OutEdgeDataView([(('0', 'x'), ('0', 'y'), 1), (('0', 'y'), ('0', 'x'), 2)]))
        """
        return to_session_network(self)
