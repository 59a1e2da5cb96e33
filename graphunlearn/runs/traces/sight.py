"""What a search looks for, what it has found, and streams that are watched while they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from graphunlearn.runs.traces.ids import Hits, WantedIds
from graphunlearn.runs.traces.rows import WantedPrints, WantedRows

__all__ = ["CHUNK", "Sight", "Watched"]

CHUNK = 1 << 20
"""Bytes that are searched at once."""


class Sight:
    """What to search for, and what was found so far.

    Args:
        ids: The ids.
        rows: The vectors of the original model.
        prints: The fingerprints of the original.

    Attributes:
        file: The file that is searched at the moment.
        step: Function that is told the number of bytes that were read.
        found: Hits by file and place.
        unread: Files that could not be searched, with the reason.
    """

    def __init__(self, ids: WantedIds, rows: WantedRows, prints: WantedPrints) -> None:
        self.ids, self.rows, self.prints = ids, rows, prints
        self.file = ""
        self.step: Callable[[int], Any] = lambda _: None
        self.found: dict[tuple[str, str], Hits] = {}
        self.unread: list[tuple[str, str]] = []

    def see(self, place: str, hits: Hits, inside: str = "") -> None:
        """Record hits in a place of the present file.

        Args:
            place: The kind of place.
            hits: The hits.
            inside: The member of the archive.
        """
        if hits:
            place = f"{place} in {inside}" if inside else place
            self.found.setdefault((self.file, place), Hits()).update(hits)

    def refuse(self, reason: str, inside: str = "") -> None:
        """Record that the present file, or a part of it, could not be searched."""
        self.unread.append((self.file, f"{inside}: {reason}" if inside else reason))

    def watch(self, stream: BinaryIO, inside: str, counted: bool) -> Watched:
        """Return a stream whose bytes are searched for vectors and fingerprints while they are read."""
        return Watched(stream, self, inside, counted)


class Watched:
    """A stream that is read once from its beginning to its end; what is read is searched for vectors and fingerprints.

    Args:
        stream: The stream.
        sight: What to search for.
        inside: The member of an archive that the stream is.
        counted: Whether the bytes count for the progress.
    """

    def __init__(self, stream: BinaryIO, sight: Sight, inside: str, counted: bool) -> None:
        self._stream, self._sight, self._inside, self._counted = stream, sight, inside, counted
        self._ahead, self._tail = b"", b""
        self._overlap = max(sight.rows.longest, 64) - 1

    def peek(self, size: int) -> bytes:
        """Return the first bytes without reading them."""
        while len(self._ahead) < size and (more := self._fetch(size - len(self._ahead))):
            self._ahead += more
        return self._ahead[:size]

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes: ``size`` of them, or fewer at the end; all of them if it is negative."""
        parts = [self._ahead if size < 0 else self._ahead[:size]]
        self._ahead = b"" if size < 0 else self._ahead[size:]
        have = len(parts[0])
        while (size < 0 or have < size) and (more := self._fetch(CHUNK if size < 0 else min(CHUNK, size - have))):
            parts.append(more)
            have += len(more)
        return b"".join(parts)

    def exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            ValueError: There are fewer.
        """
        data = self.read(size)
        if len(data) < size:
            raise ValueError("it is cut off")
        return data

    def readline(self) -> bytes:
        """Return the next line, with its end."""
        line = b""
        while b"\n" not in line and (more := self.read(4096)):
            line += more
        line, end, rest = line.partition(b"\n")
        self._ahead = rest + self._ahead
        return line + end

    def drain(self) -> None:
        """Read what is left."""
        while self.read(CHUNK):
            pass
        self._look(b"", True)

    def _fetch(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self._counted:
            self._sight.step(len(data))
        self._look(data, False)
        return data

    def _look(self, data: bytes, last: bool) -> None:
        """Search new bytes, and those before them in which something longer may have begun."""
        rows, prints = self._sight.rows, self._sight.prints
        data = self._tail + data
        stop = len(data) if last else max(0, len(data) - self._overlap)
        if len(data) < CHUNK and not last and len(data) < 8 * self._overlap:
            self._tail = data  # too little to be worth a search
            return
        for place, count in (
            ("row of the original model", rows.in_bytes(data, stop)),
            ("fingerprint of the original", prints.in_bytes(data, stop)),
        ):
            hits = Hits()
            hits.add(True, count)
            self._sight.see(place, hits, self._inside)
        self._tail = data[stop:]
