"""Search in JSON, tables in text, other text, and raw bytes."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphunlearn.data.io.columns import SEPARATORS, fields, plain
from graphunlearn.runs.traces.ids import FIGURE, LEVELS, Hits, role_of
from graphunlearn.runs.traces.sight import CHUNK, Sight, Watched

__all__ = ["documents", "json_hits", "raw_bytes"]

PARSED = 1 << 26
"""The largest JSON in bytes that is read as such, which takes twenty times the memory; larger JSON is read as text."""
LISTS = {"id", "ids", "index", "indices", "rawids"}
"""Fields of JSON that hold ids of any level."""
ODD = "graphunlearn.latin-1"
"""Handler of bytes that are no UTF-8: each is read as a character of Latin-1."""
BREAKS, KEPT = ",;\t", 4096
"""Where lines longer than a chunk are cut, and how many characters are searched twice if there is no such place."""
_START = re.compile(r"^\w+")
MARKUP = {".html", ".htm", ".svg", ".xml"}
LINES = {".jsonl", ".ndjson"}


def documents(
    stream: Watched, head: bytes, name: str, inside: str, sight: Sight, path: Path | None, content: Any
) -> bool:
    """Search JSON, text or raw bytes; every content is one of them. See :func:`packed`."""
    suffix, encoding, large = Path(name).suffix.lower(), _encoding(head), False
    if encoding is None:
        raw_bytes(stream, inside, sight)
        return True
    start = head.decode(encoding, "replace").lstrip("\ufeff \t\r\n")[:1]
    if start in ("{", "[") and suffix not in MARKUP:
        data = stream.read(PARSED + 1)
        if len(data) <= PARSED and _json(data.decode(encoding, ODD), suffix, inside, sight):
            return True
        stream = _Again(data, stream)  # type: ignore[assignment]
        large = len(data) > PARSED
    _lines(stream, encoding, suffix in MARKUP or large, inside, sight)
    return True


def _json(text: str, suffix: str, inside: str, sight: Sight) -> bool:
    """Search JSON or JSON lines; return whether the text is either."""
    text = text.removeprefix("\ufeff")
    try:
        sight.see("JSON", json_hits(json.loads(text), sight, table=suffix in LINES), inside)
        return True
    except (ValueError, RecursionError):
        pass
    hits = Hits()
    try:
        for line in text.splitlines():
            if line.strip():
                hits.update(json_hits(json.loads(line), sight, table=True))
    except (ValueError, RecursionError):
        return False
    sight.see("JSON lines", hits, inside)
    return True


def json_hits(value: Any, sight: Sight, *, role: str | None = None, named: bool = False, table: bool = False) -> Hits:
    """Return how often ids occur in JSON data.

    A text counts if it equals an id or contains it as a token. A short number counts for certain if the field around it
    has a name of an id of the right level (``user``, ``user_ids``, ``ids`` beside ``"level": "user"``), or if no field
    is around it; in other fields, it is a possible hit.

    Args:
        value: The data.
        sight: What to search for.
        role: Role of the field around the data; see :func:`~graphunlearn.runs.traces.ids.role_of`.
        named: Whether a field is around the data.
        table: Whether the data are a row of a table, in which fields of unknown names hold ids.
    """
    hits, numbers = Hits(), []
    stack: list[tuple[Any, str | None, bool]] = [(value, role, not named or table)]
    while stack:
        entry, role, trusted = stack.pop()
        if isinstance(entry, dict):
            level = entry.get("level", entry.get("type"))
            for key, inner in entry.items():
                hits.update(_of_key(str(key), role, sight))
                kind = role_of(key)
                if plain(key) in LISTS:
                    stack.append((inner, level if level in LEVELS else None, True))
                    continue
                if kind is not None and plain(key).endswith("s") and _is_number(inner):
                    kind = FIGURE  # "users": 50 is a count
                stack.append((inner, kind, table))
        elif isinstance(entry, list):
            stack += [(inner, role, trusted) for inner in entry]
        elif isinstance(entry, str):
            hits.update(_of_text(entry, role, sight))
        elif _is_number(entry) and 0 <= entry < 2**64 and entry == int(entry):
            numbers.append((int(entry), role, trusted))
    for kind, trust in {(role, trusted) for _, role, trusted in numbers}:
        values = [number for number, *of in numbers if of == [kind, trust]]
        hits.update(sight.ids.in_numbers(np.array(values, dtype=np.uint64), kind, table=trust))
    return hits


def _of_key(key: str, role: str | None, sight: Sight) -> Hits:
    """Return the hits of the name of a field: that of an id, as in ``{"u3": 0.5}``."""
    hits = Hits()
    if key in sight.ids.numbers:
        hits.add(role == sight.ids.level or sight.ids.distinct(key))
        return hits
    return sight.ids.in_value(key, role)


def _of_text(text: str, role: str | None, sight: Sight) -> Hits:
    """Return the hits of a text in JSON, which may be JSON itself."""
    if text[:1] in ("{", "[") and len(text) > 2:
        try:
            return json_hits(json.loads(text), sight, role=role, named=role is not None)
        except (ValueError, RecursionError):
            pass
    return sight.ids.in_value(text, role)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value and abs(value) < 2**64


def _lines(stream: Watched, encoding: str, prose: bool, inside: str, sight: Sight) -> None:
    """Search text by lines: as a table if the first line names columns of ids, and by tokens otherwise."""
    ids, separator, first = sight.ids, "", True
    roles: list[tuple[str, str | None]] = []
    typed: int | None = None  # the column that says what the ids of a row name
    for block in _blocks(stream, encoding):
        if first:
            separator, roles = _columns(block.partition("\n")[0])
            typed = next((at for at, (name, _) in enumerate(roles) if plain(name) == "type"), None)
            first = False
        if not roles:
            sight.see("text", ids.in_text(block, prose=prose), inside)
            continue
        if not ids.may_occur(block):
            continue
        lines = block.splitlines()
        plain_rows = '"' not in block and typed is None
        rows = [line.split(separator) for line in lines] if plain_rows else []
        if rows and all(len(row) == len(roles) for row in rows):
            for (name, role), column in zip(roles, zip(*rows)):
                for cell, count in Counter(filter(ids.may_occur, column)).items():
                    found = _in_cell(cell, role, sight)
                    sight.see(f"column {name}", Hits({kind: number * count for kind, number in found.items()}), inside)
            continue
        for line in filter(ids.may_occur, lines):
            cells = fields(line, separator)
            if len(cells) != len(roles):
                sight.see("text", ids.in_text(line), inside)
                continue
            for cell, (name, role) in zip(cells, roles):
                if typed is not None and role is None and plain(name) in LISTS:
                    role = cells[typed] if cells[typed] in LEVELS else None
                sight.see(f"column {name}", _in_cell(cell, role, sight), inside)


def _in_cell(cell: str, role: str | None, sight: Sight) -> Hits:
    if cell[:1] in ("{", "["):
        return _of_text(cell, role, sight)
    hits = sight.ids.in_value(cell, role)
    if hits["possible"] and role in (None, sight.ids.level):
        return sight.ids.in_text(cell)  # several ids in one cell, as "7 9"
    return hits


def _columns(line: str) -> tuple[str, list[tuple[str, str | None]]]:
    """Return the separator of a table, and the name and the role of every column; none without a header of ids."""
    for separator in SEPARATORS:
        names = fields(line.lstrip("\ufeff"), separator)
        roles = [(name, role_of(name)) for name in names]
        if separator == " " and any(role is None for _, role in roles):
            break  # a sentence
        known = any(role in LEVELS or plain(name) in LISTS for name, role in roles)
        if known and (len(names) > 1 or separator == " "):
            return separator, roles
    return "", []


def _blocks(stream: Watched, encoding: str) -> Iterator[str]:
    """Yield a text in blocks that end at the end of a line, or else at a blank."""
    decode, rest = codecs.getincrementaldecoder(encoding)(ODD).decode, ""
    while data := stream.read(CHUNK):
        rest += decode(data)
        cut = rest.rfind("\n") + 1
        if not cut and len(rest) > CHUNK:  # a long line
            cut = max(map(rest.rfind, BREAKS)) + 1 or rest.rfind(" ") + 1
            if not cut:
                tail, end = rest[-KEPT:], len(rest)
                while end and (rest[end - 1].isalnum() or rest[end - 1] == "_"):  # the word may go on
                    end -= 1
                yield rest[:end]
                rest = _START.sub("", tail) or tail  # once more, since an id may have begun in it
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest := rest + decode(b"", True):
        yield rest


def _latin(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that cannot be decoded as Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(ODD, _latin)


def _encoding(head: bytes) -> str | None:
    """Return the encoding of a text by its first bytes, or ``None`` if they are no text."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\x00" not in head:
        odd = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
        return "utf-8" if odd * 50 <= len(head) else None
    even, uneven = head[::2].count(0), head[1::2].count(0)
    for encoding, high, low in (("utf-16-le", uneven, even), ("utf-16-be", even, uneven)):
        if len(head) >= 4 and not low and high * 4 > len(head):
            text = head.decode(encoding, "replace")
            odd = sum(character < " " and character not in "\t\n\r\f" for character in text)
            return encoding if odd * 50 <= len(text) else None
    return None


def raw_bytes(stream: Watched, inside: str, sight: Sight) -> None:
    """Search bytes of an unknown format.

    Args:
        stream: The bytes.
        inside: The member of the archive that they are.
        sight: What to search for.
    """
    overlap = 4 * max(64, *(len(text) for text in sight.ids.ids))
    tail = b""
    while data := stream.read(CHUNK):
        hits, known = sight.ids.in_bytes(tail + data), sight.ids.in_bytes(tail)
        sight.see("raw bytes", Hits(hits - known), inside)
        tail = (tail + data)[-overlap:]


class _Again:
    """A stream whose first bytes were read already."""

    def __init__(self, data: bytes, rest: Watched) -> None:
        self._data, self._rest = data, rest

    def read(self, size: int) -> bytes:
        if self._data:
            data, self._data = self._data[:size], self._data[size:]
            return data
        return self._rest.read(size)
