"""Forget requests: the interactions, users, items, clicks or sessions to forget."""

from __future__ import annotations

import difflib
import hashlib
import hmac
import json
import weakref
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data.io.files import read_ids
from graphunlearn.data.vocabulary import canonical_id, preview
from graphunlearn.errors import ArgumentError

__all__ = ["LEVELS", "ForgetRequest", "Level"]

Level = Literal["interaction", "user", "item", "click", "session", "mixed"]
LEVELS = ("interaction", "user", "item", "click", "session")
PAIRS = {"interaction": "user and item", "click": "session and position"}

# The latest request of every tensor of pairs, with the state of its graph and what was found, for which one call of an
# unlearning method asks several times.
_Found = tuple[weakref.ref["ForgetRequest"], tuple[Any, ...], Tensor]
_FOUND: MutableMapping[Tensor, _Found] = WeakTensorKeyDictionary()


class Events(Protocol):
    """The part of a graph's interface that a request uses."""

    @property
    def num_interactions(self) -> int:
        """Number of events."""

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""

    @property
    def unit(self) -> str:
        """Name of one event, ``"interaction"`` or ``"click"``."""

    def placed(self, part: ForgetRequest) -> ForgetRequest:
        """Return a request of one level with the positions of clicks checked against their items."""

    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the events that a request of one level names ``[num_matches]``."""


@dataclass(frozen=True, repr=False)
class ForgetRequest:
    r"""A request to forget interactions or clicks; ``|`` unites requests.

    Ids are raw ids, as in the file that the graph was read from: ``196``, ``"196"`` and ``numpy.int64(196)`` are the
    same id. For internal ids, use :meth:`internal`.

    For a graph of users and items, level ``"interaction"`` names single interactions; ``"user"`` and ``"item"`` name
    all interactions of the given users or items. For a :class:`~graphunlearn.SessionGraph`,

    - ``"click"`` names single clicks; the neighbours of a dropped click in the session become adjacent;
    - ``"session"`` names all clicks of the given sessions, which are dropped as a whole;
    - ``"item"`` names every click on the given items, in all sessions;
    - ``"user"`` names all sessions of the given users, if the sessions carry users.

    A session with one click left stays, although nothing can be learned from it; a session without clicks is dropped.
    See :meth:`~graphunlearn.SessionGraph.keep` for the details.

    Args:
        level: ``"interaction"``, ``"click"``, ``"session"``, ``"user"`` or ``"item"``.
        index: Raw ids; pairs of user and item at level ``"interaction"``; pairs of session and position at level
            ``"click"``, where positions are counted from 0 in the graph that the request is applied to. Repeated
            entries count once.
        raw: Whether the ids are raw ids. :meth:`internal` sets it to ``False``.

    Attributes:
        num_duplicates: Number of repeated entries that were dropped.
        items: The items of clicks by session and position, where they are known; see :meth:`naming`.

    Raises:
        ValueError: The level is unknown, an id is malformed, or ``index`` is empty.

    Example:
        >>> request = ForgetRequest("user", ["196", 186]) | ForgetRequest("interaction", [("22", "377")])
        >>> [part.level for part in request.parts]
        ['user', 'interaction']
    """

    level: Level
    index: tuple[Any, ...]
    raw: bool = True
    num_duplicates: int = field(default=0, init=False, compare=False)
    items: dict[tuple[str, int], str] = field(default_factory=dict, init=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        if self.level == "mixed" and all(isinstance(part, ForgetRequest) for part in self.index):
            return  # the result of `|`
        if self.level not in LEVELS:
            close = difflib.get_close_matches(str(self.level), LEVELS, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ArgumentError("level", f"be one of {preview(LEVELS, len(LEVELS))}", f"{self.level!r}{hint}")
        entries = [self._entry(value) for value in _as_list(self.index)]
        unique = tuple(dict.fromkeys(entries))
        if not unique:
            raise ArgumentError("index", f"name at least one {self.level} to forget", "none")
        object.__setattr__(self, "index", unique)
        object.__setattr__(self, "num_duplicates", len(entries) - len(unique))

    def _entry(self, value: Any) -> Any:
        if self.level not in PAIRS:
            return self._id(value)
        try:
            pair = [] if isinstance(value, str) else _as_list(value)
        except TypeError:
            pair = []
        if len(pair) != 2:
            raise ArgumentError("index", f"hold pairs of {PAIRS[self.level]} at level '{self.level}'", f"{value!r}")
        return self._id(pair[0]), (_position if self.level == "click" else self._id)(pair[1])

    def _id(self, value: Any) -> Any:
        try:
            return canonical_id(value) if self.raw else int(value)
        except (TypeError, ValueError):
            form = "text or whole numbers from 0" if self.raw else "whole numbers"
            raise ArgumentError("index", f"hold ids that are {form}", f"{value!r}") from None

    @classmethod
    def internal(cls, level: Level, index: Tensor) -> ForgetRequest:
        """Return a request that uses the node numbers of the graph instead of raw ids.

        Args:
            level: Any level except ``"mixed"``.
            index: Users, items or sessions ``[n]``, or pairs of user and item or of session and position ``[2, n]``;
                all are numbered from 0.

        Returns:
            The request, with ``raw=False``.

        Raises:
            ValueError: If ``index`` is empty, does not hold whole numbers, or has a shape that does not fit the level.

        Example:
            >>> import torch
            >>> ForgetRequest.internal("interaction", torch.tensor([[0, 1], [5, 2]]))
            ForgetRequest.internal('interaction', [(0, 5), (1, 2)])
        """
        index = torch.as_tensor(index)
        pairs = level in PAIRS
        wanted = "[2, n]" if pairs else "[n]"
        if index.dtype == torch.bool or index.is_floating_point():
            raise ArgumentError("index", "hold whole numbers", index.dtype)
        if index.dim() != (2 if pairs else 1) or (pairs and index.size(0) != 2):
            raise ArgumentError("index", f"have shape {wanted} at level '{level}'", list(index.shape))
        entries = [tuple(pair) for pair in index.t().tolist()] if pairs else index.tolist()
        return cls(level, tuple(entries), raw=False)

    @classmethod
    def from_file(cls, path: str | Path, level: Level = "interaction", **given: Any) -> ForgetRequest:
        """Read a request from a file with rows of ``user,item`` or ``session,position``, or with one id per line.

        Args:
            path: The file, in any format that a graph can be read from. A header is optional.
            level: The level of the request. For users, items and sessions, the file has one id per line; if its rows
                have several columns, they need a header, and the column of that level is read. At level ``"click"``, a
                column of items is read too, and positions are checked against it.
            **given: Names or numbers of columns, and ``sep``, ``header`` and ``max_size``, as for a graph.

        Returns:
            The request, by raw ids, which mean what they mean in the graph that the request is applied to.

        Raises:
            ValueError: The file is malformed (with its line number) or empty.
        """
        found = read_ids(path, level, **given)
        if level != "click" or len(found[0]) == 2:
            return cls(level, tuple(found))
        items: dict[tuple[str, int], str] = {}
        for session, position, item in found:
            if items.setdefault((session, position), item) != item:
                got = f"{items[session, position]!r} and {item!r} at position {position} of session {session!r}"
                raise ArgumentError(path, "name one item per click", got)
        return cls(level, tuple(items)).naming(items)

    @property
    def parts(self) -> tuple[ForgetRequest, ...]:
        """The requests of one level that this request consists of."""
        return self.index if self.level == "mixed" else (self,)

    def naming(self, items: Mapping[tuple[str, int], str]) -> ForgetRequest:
        """Return this request for clicks with the items that are meant.

        When the request is applied to a graph, positions are checked against the items: positions that count from 1
        are recognised, and others are refused.

        Args:
            items: Raw ids of items by session and position; clicks that the request does not hold are ignored.

        Example:
            >>> request = ForgetRequest("click", [("s", 1)]).naming({("s", 1): "b", ("t", 0): "a"})
            >>> request, request.items
            (ForgetRequest('click', [('s', 1)]), {('s', 1): 'b'})
        """
        request = ForgetRequest(self.level, self.index, self.raw)
        object.__setattr__(request, "num_duplicates", self.num_duplicates)
        request.items.update({click: items[click] for click in self.index if click in items} if items else {})
        return request

    def __len__(self) -> int:
        return sum(len(part.index) for part in self.parts)

    def __or__(self, other: ForgetRequest) -> ForgetRequest:
        if not isinstance(other, ForgetRequest):
            return NotImplemented
        merged: dict[tuple[Level, bool], ForgetRequest] = {}
        for part in (*self.parts, *other.parts):
            key = (part.level, part.raw)
            known = merged.get(key)
            if known is not None:
                part = ForgetRequest(part.level, known.index + part.index, part.raw).naming(known.items | part.items)
            merged[key] = part
        parts = tuple(merged.values())
        return parts[0] if len(parts) == 1 else ForgetRequest("mixed", parts)

    def mask(self, graph: Events) -> Tensor:
        """Return the forget set of this request in ``graph``.

        Args:
            graph: The graph that the request is applied to.

        Returns:
            Mask of the interactions or clicks to forget ``[num_interactions]``.

        Raises:
            ValueError: The graph does not accept the level or lacks an id, a pair or a click, or if the forget set
                is empty or the whole graph.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> ForgetRequest("item", ["0"]).mask(graph)
            tensor([ True,  True, False])
            >>> ForgetRequest("click", [("0", 2)]).mask(gu.SessionGraph.from_sequences([[4, 2, 4], [1, 2]]))
            tensor([False, False,  True, False, False])
        """
        found = self._found(graph)
        if found.dtype == torch.bool:
            return found.clone()
        return torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.device).index_fill_(0, found, True)

    def positions(self, graph: Events) -> Tensor:
        """Return the positions of the forget set of this request in ``graph``, where :meth:`mask` is true.

        For a small forget set, no mask is made.

        Args:
            graph: The graph that the request is applied to.

        Returns:
            Positions of the interactions or clicks to forget, ascending ``[num_forgotten]`` (int64).

        Raises:
            ValueError: See :meth:`mask`.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> ForgetRequest("user", ["1"]).positions(graph)
            tensor([1, 2])
        """
        found = self._found(graph)
        return found.nonzero().view(-1) if found.dtype == torch.bool else found.clone()

    def _found(self, graph: Events) -> Tensor:
        """Return the positions of a small forget set, ascending, or the mask of a large one; not to be changed."""
        pairs, state = getattr(graph, "pairs", None), _state(graph)
        if pairs is not None and state is not None:
            asked, since, known = _FOUND.get(pairs, (None, None, None))
            if known is not None and asked is not None and asked() is self and _same(since, state):
                return known
        parts = [graph.match(part.level, part.index, part.raw) for part in map(graph.placed, self.parts)]
        if 64 * sum(map(len, parts)) < graph.num_interactions:
            found = torch.unique(torch.cat(parts))
            count = len(found)
        else:
            found = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.device)
            for part in parts:
                found[part] = True
            count = int(torch.count_nonzero(found))
        if count == 0:
            raise ArgumentError("request", f"match {_a(graph.unit)} of the graph", f"{self!r}, which matches none")
        if count == graph.num_interactions:
            raise ArgumentError("request", f"leave some {graph.unit}s", f"all {count} of them")
        if pairs is not None and state is not None:
            _FOUND[pairs] = (weakref.ref(self), state, found)
        return found

    def describe(self, graph: Events) -> dict[str, Any]:
        """Return the level, the number of ids and the number of interactions or clicks, in JSON types.

        Args:
            graph: The graph that the request is applied to.

        Raises:
            ValueError: See :meth:`mask`.
        """
        summary: dict[str, Any] = {"level": self.level, "size": len(self)}
        summary[f"{graph.unit}s"] = len(self.positions(graph))
        if self.level == "mixed":
            summary["parts"] = [{"level": part.level, "size": len(part)} for part in self.parts]
        return summary

    def fingerprint(self) -> str:
        """Return the SHA-256 fingerprint of the request, which does not depend on the order of the entries."""
        return hashlib.sha256(self._canonical()).hexdigest()

    def digest(self, key: bytes) -> str:
        """Return the HMAC-SHA256 of the request, which does not depend on the order or repetition of entries.

        With a plain hash, anyone could guess ids one after another and find out which of them were forgotten. With an
        HMAC, this takes the key, and it becomes impossible once the key is deleted.

        Args:
            key: At least 16 unpredictable bytes, such as ``secrets.token_bytes(32)``.

        Returns:
            The digest in hexadecimal.

        Raises:
            ValueError: The key is shorter than 16 bytes.

        Example:
            >>> key = bytes(range(32))
            >>> ForgetRequest("user", [196, "22"]).digest(key) == ForgetRequest("user", ["22", "196", 22]).digest(key)
            True
        """
        if len(key) < 16:
            raise ArgumentError("key", "hold at least 16 bytes", len(key))
        return hmac.new(key, self._canonical(), hashlib.sha256).hexdigest()

    def _canonical(self) -> bytes:
        entries = [(part, map(list, part.index) if part.level in PAIRS else part.index) for part in self.parts]
        content = sorted([part.level, part.raw, sorted(index)] for part, index in entries)
        return json.dumps(content).encode()

    def __repr__(self) -> str:
        if self.level == "mixed":
            return " | ".join(map(repr, self.parts))
        shown = ", ".join(map(repr, self.index[:3])) + (f", ... {len(self) - 3} more" if len(self) > 3 else "")
        return f"ForgetRequest{'' if self.raw else '.internal'}({self.level!r}, [{shown}])"


def _state(graph: Any) -> tuple[Any, ...] | None:
    """Return what the mask of a request in a graph of interactions depends on; ``None`` if that is not known."""
    state = getattr(graph, "_state", None)
    return None if state is None else (*state, *(graph.vocabulary(side) for side in ("user", "item")))


def _same(one: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    """Return whether two states are equal, with the same vocabularies."""
    return one is not None and one[:-2] == other[:-2] and all(a is b for a, b in zip(one[-2:], other[-2:]))


def _as_list(values: Any) -> list[Any]:
    if isinstance(values, (Tensor, np.ndarray)):
        return list(values.tolist()) if values.ndim else [values.item()]
    return [values] if isinstance(values, (str, int, float, np.generic)) else list(values)


def _position(value: Any) -> int:
    try:
        return int(canonical_id(value))
    except ValueError:
        raise ArgumentError("index", "hold positions that are whole numbers from 0", f"{value!r}") from None


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
