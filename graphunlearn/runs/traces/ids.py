"""Recognition of forgotten ids in text and in values, and of the names that tell ids from figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from html import unescape
from typing import Any

import numpy as np
import numpy.typing as npt

from graphunlearn.data.io.columns import NAMES, plain
from graphunlearn.data.vocabulary import EXACT, canonical_ids

__all__ = ["FIGURE", "LEVELS", "Hits", "WantedIds", "role_of"]

LEVELS = ("user", "item", "session")
FIGURE = "figure"
DISTINCT_DIGITS, DISTINCT_TEXT = 6, 3
"""Numbers with fewer digits, and texts with fewer characters, occur by chance in text that holds figures."""
RAW_LENGTH, RUN = 6, 16
"""Ids of fewer bytes are found in raw bytes only inside a run of that many printable characters."""

_ROLES = {name: role for role in LEVELS for name in NAMES[role].split()}
_FIGURES = {name for role in ("rating", "time", "label", "position") for name in NAMES[role].split()}
_FIGURES |= {"row", "oldrow", "newrow", "rank", "number", "total", "size", "seed", "epoch", "k"}
_ESCAPES = re.compile(
    r"((?:\\u[0-9a-fA-F]{4})+)|((?:%[2-9a-fA-F][0-9a-fA-F])+)|(&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,31});)"
    r"|\\[nrt\"/\\]"
)
"""Escapes of JSON, of addresses and of HTML in text."""
_TOKEN = re.compile(r"\w+")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d|(?<!\d)\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?!\d)")
_ASCII = re.compile(rb"[0-9A-Za-z_]+")
_BYTES_UTF16 = re.compile(rb"(?:[\x20-\x7e]\x00){2,}")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f\ufffd]+")


def role_of(name: object) -> str | None:
    """Return what the values of a column, a field or a tensor are, by its name.

    Args:
        name: The name.

    Returns:
        ``"user"``, ``"item"`` or ``"session"`` for ids, ``"figure"`` for what is no id, or ``None`` if the name does
        not tell.

    Example:
        >>> role_of("User_ID"), role_of("sessions"), role_of("rating"), role_of("who")
        ('user', 'session', 'figure', None)
    """
    name = plain(str(name))
    for known in (name, name.removesuffix("s")):
        if known in _ROLES:
            return _ROLES[known]
    if name in _FIGURES or name.startswith(("num", "count")):
        return FIGURE
    return next((level for level in LEVELS if name in (f"{level}vocabulary", f"{level}hash")), None)


class Hits(Counter[str]):
    """Counts of occurrences: ``"certain"`` for ids, ``"possible"`` for numbers that may as well be figures."""

    def add(self, certain: bool, count: int = 1) -> None:
        """Count occurrences.

        Args:
            certain: Whether they are ids for certain.
            count: Their number.
        """
        if count:
            self["certain" if certain else "possible"] += count


class WantedIds:
    """The ids to search for.

    Args:
        ids: Raw ids; if all are whole numbers without leading zeros, ``1``, ``"1"`` and ``1.0`` are one id.
        level: What the ids name: ``"user"``, ``"item"`` or ``"session"``. Values whose name says that they are
            something else are no hits if the id is a number.

    Raises:
        IdError: A value is not a valid id.

    Example:
        >>> WantedIds(["u3", "u5"], "user").in_text("u3,u31,u5;xu3 u3")
        Hits({'certain': 3})
        >>> WantedIds([7], "user").in_text("7 of 17, 0.7, 7.0, 2026-07-07")
        Hits({'certain': 2})
    """

    def __init__(self, ids: Iterable[Any], level: str) -> None:
        self.level, self.ids = level, set(canonical_ids(ids))
        self.numbers = {text for text in self.ids if text.isascii() and text.isdecimal()}
        self.texts = self.ids - self.numbers
        counts = sorted(int(text) for text in self.numbers if text == str(int(text)) and int(text) < 2**64)
        self.values: npt.NDArray[np.uint64] = np.array(counts, dtype=np.uint64)
        self._anchors: dict[str, list[tuple[int, str]]] = {}
        self._bare = set()  # ids without a letter or digit
        for text in self.texts:
            tokens = [(len(m[0]), m.start(), m[0]) for m in _TOKEN.finditer(text)]
            if tokens:
                _, start, token = max(tokens)
                self._anchors.setdefault(token, []).append((start, text))
            else:
                self._bare.add(text)
        self._wide = {text for text in self.texts if not text.isascii()}
        self._tokens = self._anchors.keys() | self.numbers
        plain = not self._bare and not self._wide
        self._bytes = {token.encode() for token in self._tokens} if plain else None
        word = f"{level}s?(?:[ _-]?ids?)?"
        self._named = re.compile(rf"(?<![^\W_]){word}[\s:=#'\"\[(]*(?:\d+[\s,;'\"]+)*$", re.IGNORECASE)

    @staticmethod
    def distinct(text: str) -> bool:
        """Return whether an id is so long that figures and words do not equal it by chance.

        Args:
            text: The id.
        """
        return len(text) >= (DISTINCT_DIGITS if text.isdecimal() else DISTINCT_TEXT)

    def may_occur(self, text: str) -> bool:
        """Return whether a text holds a token of an id; where it is false, no id occurs.

        Args:
            text: The text.
        """
        if self._bare or not self._tokens.isdisjoint(_TOKEN.findall(text)):
            return True
        return any(not self._tokens.isdisjoint(_TOKEN.findall(other)) for other in _readings(text))

    def occurrences(self, text: str) -> list[tuple[str, int]]:
        """Return all whole tokens of a text that are ids, with their positions.

        A token ends where a character that is no letter, digit or underscore follows. A number is no token inside a
        decimal number, a date or a time of day; ``7.0`` is the number 7.

        Args:
            text: The text.
        """
        found: list[tuple[str, int]] = []
        tokens = {*_TOKEN.findall(text)}
        if not self._bare and self._tokens.isdisjoint(tokens):
            return found
        if tokens & self._anchors.keys():
            for match in _TOKEN.finditer(text):
                for before, name in self._anchors.get(match[0], ()):
                    start = match.start() - before
                    if start >= 0 and text.startswith(name, start) and _is_token(text, start, start + len(name)):
                        found.append((name, start))
        for name in self._bare:
            found += [(name, match.start()) for match in re.finditer(re.escape(name), text)]
        if tokens & self.numbers:
            masked = _MOMENT.sub(lambda match: "x" * len(match[0]), text)
            for match in _TOKEN.finditer(masked):
                if match[0] in self.numbers and _is_number(masked, match.start(), match.end()):
                    found.append((match[0], match.start()))
        return found

    def in_text(self, text: str, *, prose: bool = False) -> Hits:
        """Return how often ids occur in a text as whole tokens, plainly or with escapes of JSON, addresses and HTML.

        Args:
            text: The text.
            prose: Whether the text may hold figures. A short number then counts only if the text names the level
                before it, as in ``"--users 7 9"``.
        """
        hits = self._in_plain(text, prose)
        for other in _readings(text):
            hits = Hits(hits | self._in_plain(other, prose))
        return hits

    def _in_plain(self, text: str, prose: bool) -> Hits:
        hits = Hits()
        for name, start in self.occurrences(text):
            figure = prose and not self.distinct(name)
            hits.add(not figure or bool(self._named.search(text[max(0, start - 400) : start])))
        return hits

    def counts(self, role: str | None) -> bool:
        """Return whether short numbers with a name of this role are ids that are searched for."""
        return role in (None, self.level)

    def in_value(self, value: str, role: str | None) -> Hits:
        """Return how often ids occur in a text cell.

        Args:
            value: The text.
            role: Role of the name of the cell; see :func:`role_of`.
        """
        hits, text = Hits(), value.strip()
        whole = text.removesuffix(".0") if text.endswith(".0") else text
        if text in self.texts or whole in self.numbers:
            hits.add(text in self.texts or self.counts(role))
            return hits
        return self.in_text(value, prose=True)

    def in_numbers(self, values: npt.NDArray[Any], role: str | None, *, table: bool = True) -> Hits:
        """Return how many numbers of an array equal an id.

        Args:
            values: The array, of integers or floats.
            role: Role of the name of the array.
            table: Whether an array without a known role holds ids.
        """
        hits = Hits()
        if not len(self.values) or not values.size or values.dtype.kind not in "iuf":
            return hits
        if values.dtype.kind == "f":
            values = values[(values >= 0) & (values < EXACT)]
            values = values[values == np.floor(values)]
        else:
            values = values[values >= 0]
        found = values[np.isin(values.astype(np.uint64), self.values)]
        large = int((found >= 10 ** (DISTINCT_DIGITS - 1)).sum())
        if role == self.level or (role is None and table):
            hits.add(True, len(found))
        else:
            hits.add(role is None, large)
            hits.add(False, len(found) - large)
        return hits

    def in_bytes(self, data: bytes) -> Hits:
        """Return how often ids occur in raw bytes as UTF-8 or UTF-16.

        Ids of fewer than six characters count only in runs of at least 16 printable characters, since they occur in
        other bytes by chance.

        Args:
            data: The bytes.
        """
        hits = Hits()
        if self._bytes is None or not self._bytes.isdisjoint(_ASCII.findall(data)):
            hits.add(True, self._in_runs(data.decode("utf-8", "replace")))
        for run in _BYTES_UTF16.finditer(data):
            hits.add(True, self._in_runs(run[0][::2].decode("ascii")))
        for name in self._wide:
            for encoding in ("utf-16-le", "utf-16-be"):
                hits.add(True, data.count(name.encode(encoding)))
        return hits

    def _in_runs(self, text: str) -> int:
        found = self.occurrences(text)
        short = [(name, start) for name, start in found if len(name.encode()) < RAW_LENGTH]
        count = len(found) - len(short)
        for name, start in short:
            around = text[max(0, start - RUN) : start + len(name) + RUN]
            at = start - max(0, start - RUN)
            count += any(
                run.start() <= at and at + len(name) <= run.end() and run.end() - run.start() >= RUN
                for run in _PRINTABLE.finditer(around)
            )
        return count

    def in_remains(self, data: bytes) -> Hits:
        """Return how often ids occur in the remains of deleted rows, whose texts follow each other without a break.

        Args:
            data: The bytes of unused space in a database.
        """
        hits, text = Hits(), data.decode("utf-8", "replace")
        tokens = self.occurrences(text)
        hits.add(True, len(tokens))
        known = {start for _, start in tokens}
        for length in {len(name) for name in self.ids if len(name) > 1}:
            for run in re.finditer(rf"[^\x00-\x1f\ufffd]{{{length},}}", text):
                for start in range(run.start(), run.end() - length + 1):
                    if start not in known and text[start : start + length] in self.ids:
                        hits.add(length >= RAW_LENGTH)
        return hits


def _readings(text: str) -> set[str]:
    """Return a text with the characters that its escapes stand for, if it has any."""
    if not ("\\" in text or "%" in text or "&" in text or "+" in text):
        return set()
    return {_ESCAPES.sub(_character, part) for part in (text, text.replace("+", " "))} - {text}  # as in addresses


def _character(match: re.Match[str]) -> str:
    """Return what an escape stands for."""
    unicode, address, entity = match.groups()
    if unicode:
        return bytes.fromhex(unicode.replace("\\u", "")).decode("utf-16-be", "replace")
    if address:
        return bytes.fromhex(address.replace("%", "")).decode("utf-8", "replace")
    return unescape(entity) if entity else " "


def _is_token(text: str, start: int, end: int) -> bool:
    """Return whether no letter or digit adjoins a letter or digit at the ends of a part of a text."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (_word(before) and _word(text[start])) and not (_word(after) and _word(text[end - 1]))


def _word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_number(text: str, start: int, end: int) -> bool:
    """Return whether a run of digits is a whole number, and no part of a decimal number."""
    if re.search(r"\d\.$|\d[eE][+-]$", text[max(0, start - 3) : start]):
        return False
    after = re.match(r"\.(\d+)", text[end : end + 20])
    return after is None or not after[1].strip("0")
