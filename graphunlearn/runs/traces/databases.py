"""Search in SQLite databases: rows, unused space, and the journals beside them."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from graphunlearn.runs.traces.documents import json_hits
from graphunlearn.runs.traces.ids import FIGURE, Hits, role_of
from graphunlearn.runs.traces.sight import CHUNK, Sight, Watched

__all__ = ["database"]

MAGIC = b"SQLite format 3\x00"
WAL = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
TREES = {2: 12, 5: 12, 10: 8, 13: 8}
"""Kinds of pages of a tree, with the size of their headers."""
BATCH = 10_000


def database(
    stream: Watched, head: bytes, name: str, inside: str, sight: Sight, path: Path | None, content: Any
) -> bool:
    """Search a database or its journal; return whether the content is one. See :func:`packed`."""
    if head.startswith((*WAL, JOURNAL)) or name.endswith(("-wal", "-journal")):
        if (
            _remains(iter(lambda: stream.read(CHUNK), b""), "journal of a database", inside, sight)
            and sight.ids.numbers
        ):
            sight.refuse("a journal of a database holds numbers in binary form, which are not searched", inside)
        return True
    if not head.startswith(MAGIC):
        return False
    if path is None:
        if _remains(iter(lambda: stream.read(CHUNK), b""), "database", inside, sight) and sight.ids.numbers:
            sight.refuse("a database in an archive holds numbers in binary form, which are not searched", inside)
        return True
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            for table, kind in connection.execute("SELECT name, type FROM sqlite_master").fetchall():
                sight.see("names of tables", sight.ids.in_text(table, prose=True))
                if kind == "table":
                    _table(connection, table, sight)
    except sqlite3.Error as error:
        sight.refuse(f"no whole database: {error}")
    _remains(_unused(stream, path), "unused space of a database", inside, sight)
    return True


def _table(connection: sqlite3.Connection, table: str, sight: Sight) -> None:
    """Search all rows of a table."""
    quoted = table.replace('"', '""')
    try:
        about = connection.execute(f'PRAGMA table_info("{quoted}")').fetchall()
        cursor = connection.execute(f'SELECT * FROM "{quoted}"')
    except sqlite3.Error as error:  # a virtual table whose module is not there
        sight.refuse(f"table '{table}': {error}")
        return
    keys = [row[1] for row in about if row[5] and row[2].upper() == "INTEGER"]
    numbered = keys[0] if len(keys) == 1 and role_of(keys[0]) is None else None  # rows that are merely numbered
    names = [column[0] for column in cursor.description]
    roles = [FIGURE if name == numbered else role_of(name) for name in names]
    while rows := cursor.fetchmany(BATCH):
        for name, role, values in zip(names, roles, zip(*rows)):
            sight.see(f"column {table}.{name}", _values(values, role, sight))


def _values(values: tuple[Any, ...], role: str | None, sight: Sight) -> Hits:
    hits = Hits()
    whole = [value for value in values if isinstance(value, int) and value >= 0]
    hits.update(sight.ids.in_numbers(np.array(whole, dtype=np.uint64), role))
    real = [value for value in values if isinstance(value, float)]
    hits.update(sight.ids.in_numbers(np.array(real, dtype=np.float64), role, table=False))
    for value in values:
        if isinstance(value, str):
            found = json_hits(value, sight, role=role) if value[:1] in ("{", "[") else sight.ids.in_value(value, role)
            hits.update(found)
        elif isinstance(value, bytes):
            hits.update(sight.ids.in_bytes(value))
    return hits


def _unused(stream: Watched, path: Path) -> Iterator[bytes]:
    """Yield the bytes of a database that no row uses: free pages, and the gaps and free blocks of the others."""
    header = stream.peek(100)
    size = int.from_bytes(header[16:18], "big")
    size = 65_536 if size == 1 else size
    if size < 512 or size & (size - 1):
        return
    free, number = _free(path, size, header), 0
    while page := stream.read(size):
        number += 1
        if number in free:
            yield page
        else:
            yield from _gaps(page, 100 if number == 1 else 0)


def _free(path: Path, size: int, header: bytes) -> set[int]:
    """Return the numbers of all free pages, which are in a chain of lists."""
    trunk, free = int.from_bytes(header[32:36], "big"), set[int]()
    with path.open("rb") as file:
        while trunk and trunk not in free:
            free.add(trunk)
            file.seek((trunk - 1) * size)
            page = file.read(size)
            if len(page) < size:
                break
            trunk, count = struct.unpack_from(">II", page)
            free.update(struct.unpack_from(f">{min(count, size // 4 - 2)}I", page, 8))
    return free


def _gaps(page: bytes, start: int) -> Iterator[bytes]:
    """Yield what no row uses of a page of a tree. Pages of other kinds hold the ends of long rows alone."""
    kind = page[start] if len(page) > start else 0
    if kind not in TREES or len(page) < start + 12:
        return
    block, cells, content = struct.unpack_from(">HHH", page, start + 1)
    yield page[start + TREES[kind] + 2 * cells : content or 65_536]
    seen = set()
    while block and block not in seen and block + 4 <= len(page):
        seen.add(block)
        following, length = struct.unpack_from(">HH", page, block)
        yield page[block + 4 : block + length]
        block = following


def _remains(parts: Iterator[bytes], place: str, inside: str, sight: Sight) -> bool:
    """Search the remains of rows; return whether there are any."""
    some = False
    for part in parts:
        if part.strip(b"\x00"):
            some = True
            sight.see(place, sight.ids.in_remains(part), inside)
    return some
