"""Storage of a ledger: an append-only SQLite file; the key of its digests is kept elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from graphunlearn._version import __version__
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.entry import LedgerEntry, PendingRequest, parsed
from graphunlearn.ledger.keys import check_of, key_file, read_key, settle, write_key
from graphunlearn.ledger.lease import lease

__all__ = ["Store", "chained", "now", "told"]

APPLICATION, FORMAT = 0x67756C67, 1  # identify a ledger among SQLite files, and the version of its format
SCHEMA = """
CREATE TABLE entry (number INTEGER PRIMARY KEY, content TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE pending (number INTEGER PRIMARY KEY CHECK (number = 1), content TEXT NOT NULL);
CREATE TRIGGER entry_in_order BEFORE INSERT ON entry
WHEN NEW.number IS NOT (SELECT coalesce(max(number) + 1, 0) FROM entry)
BEGIN SELECT RAISE(ABORT, 'an entry follows the last one'); END;
CREATE TRIGGER entry_stays BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'an entry is never changed'); END;
CREATE TRIGGER entry_is_kept BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'an entry is never deleted'); END
"""
WRITING = (
    "PRAGMA journal_mode = DELETE",  # the journal, which may hold ids, is gone after each transaction
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
)
BUSY = 30.0
"""Seconds to wait for the transactions of other processes."""


class Store:
    """An open ledger, which holds entries and at most one pending request.

    Every change is one transaction: it is on the disk when the method returns, and an interrupted one is undone.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection

    @staticmethod
    def is_made(path: Path) -> bool:
        """Return whether ``path`` holds a ledger or another SQLite database; false if its creation was interrupted.

        Raises:
            ValueError: The file is not an SQLite file.
        """
        if not path.is_file():
            return False
        with told(path), closing(_connected(path)) as connection:
            return not _is_empty(connection)

    @classmethod
    @contextmanager
    def reading(cls, path: Path) -> Iterator[Store]:
        """Open a ledger for reading.

        Raises:
            ValueError: The ledger does not exist or is damaged.
            OSError: The file cannot be read.
        """
        if not path.is_file():
            raise ArgumentError("ledger", "be an existing file", f"'{path}'")
        with closing(_connected(path)) as connection:
            with told(path):
                _check_format(path, connection)
            yield cls(path, connection)

    @classmethod
    @contextmanager
    def writing(cls, path: Path, wait: float | None = None) -> Iterator[Store]:
        """Open a ledger as its only writer; a ledger that does not exist is created, with its key.

        Other processes that write wait until the block ends. Those that read do so meanwhile, since the file is locked
        for the time of a transaction only.

        Args:
            path: The file.
            wait: Seconds to wait for another writer; ``None`` waits until that one is done.

        Raises:
            ValueError: The file is not a ledger or is damaged, or another process writes to it for longer than
                ``wait``.
            OSError: The file cannot be written.
        """
        if path.is_dir():
            raise ArgumentError("ledger", "be a file", f"'{path}', which is a folder")
        if not path.absolute().parent.is_dir():
            raise ArgumentError("ledger", "be in a folder that exists", f"'{path}'")
        with lease(path, wait):
            # only the owner may read the file, because it holds the ids of a pending request
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(_connected(path)) as connection:
                store = cls(path, connection)
                with told(path):
                    new = _is_empty(connection)
                    if not new:
                        _check_format(path, connection)
                    for statement in WRITING:
                        connection.execute(statement)
                if new:
                    with store._transaction():
                        _make(path, connection)
                yield store

    def rows(self) -> list[tuple[int, str, str]]:
        """Return the number, content and hash of all entries; entry 0 was written when the ledger was created.

        Raises:
            ValueError: Entry 0 is missing.
        """
        with told(self.path):
            rows = self._connection.execute("SELECT number, content, hash FROM entry ORDER BY number").fetchall()
        if not rows:
            raise ArgumentError("ledger", "have a first entry", f"'{self.path}' without")
        return rows

    def entries(self) -> list[LedgerEntry]:
        """Return all entries except entry 0."""
        return [LedgerEntry.read(content, found) for _, content, found in self.rows()[1:]]

    def key(self) -> bytes:
        """Return the key of the digests.

        Raises:
            ValueError: The key is missing, or belongs to another ledger.
        """
        return read_key(self.path, self._check())

    def has_key(self) -> bool:
        """Return whether the key of the digests is there.

        Raises:
            ValueError: The key belongs to another ledger.
        """
        if key_file(self.path).exists():
            return bool(self.key())
        try:
            return bool(self.key())
        except ArgumentError:
            return False

    def settle(self) -> None:
        """Put the key of a new ledger in its place."""
        settle(self.path, self._check())

    def _check(self) -> str | None:
        check: str | None = parsed(self.rows()[0][1]).get("key")
        return check

    def check_rows(self) -> None:
        """Check the numbers and the hashes of all entries.

        Raises:
            ValueError: An entry was changed, removed or inserted; the message names the first such entry.
        """
        previous = ""
        for place, (number, content, found) in enumerate(self.rows()):
            if number != place or parsed(content).get("number") != place:
                raise ArgumentError("ledger", "be without gaps", f"'{self.path}', which lacks entry {place}")
            if chained(previous, content) != found:
                raise ArgumentError("ledger", "be as it was written", f"'{self.path}', where entry {place} was changed")
            previous = found

    def check_guards(self) -> None:
        """Check that the key belongs to the ledger, and that the triggers that prevent changes of entries exist.

        Raises:
            ValueError: The key belongs to another ledger, or a trigger is missing. A missing key is not an error here.
        """
        if key_file(self.path).exists():
            self.key()
        with told(self.path):
            found = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()
        if found[0] != SCHEMA.count("CREATE TRIGGER"):
            raise ArgumentError("ledger", "have its triggers against changes of entries", f"'{self.path}' without them")

    def request(self) -> PendingRequest | None:
        """Return the pending request; ``None`` if there is none."""
        facts = self.pending()
        return None if facts is None else PendingRequest.of(facts)

    def pending(self) -> dict[str, Any] | None:
        """Return the pending request in JSON types, as it is stored; ``None`` if there is none."""
        with told(self.path):
            row = self._connection.execute("SELECT content FROM pending").fetchone()
        try:
            facts = None if row is None else json.loads(row[0])
        except ValueError:
            facts = ()
        if facts is None or isinstance(facts, dict):
            return facts
        raise ArgumentError("ledger", "hold a pending request as JSON", f"'{self.path}' with another content")

    def begin(self, pending: Mapping[str, Any]) -> None:
        """Store a pending request; it replaces an earlier one."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO pending VALUES (1, ?)", (_text(pending),))

    def drop(self) -> None:
        """Erase the pending request."""
        with self._transaction():
            self._connection.execute("DELETE FROM pending")

    def append(self, content: Mapping[str, Any]) -> None:
        """Add an entry; if it is that of a finished request, erase the pending request in the same transaction."""
        with self._transaction():
            _append(self._connection, content)
            if content["kind"] == "forgotten":
                self._connection.execute("DELETE FROM pending")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with told(self.path):
            self._connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def chained(previous: str, content: str) -> str:
    """Return the hash of an entry, which covers its content and the hash of the previous entry.

    Args:
        previous: Hash of the previous entry; empty for entry 0.
        content: Content of the entry, as stored.

    Returns:
        The SHA-256 hash, in hexadecimal.

    Example:
        >>> chained(chained("", "one"), "two") == chained(chained("", "ONE"), "two")
        False
    """
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def now() -> str:
    """Return the present time in UTC, in ISO 8601 format to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _make(path: Path, connection: sqlite3.Connection) -> None:
    """Create the key, the tables and entry 0, inside an exclusive transaction."""
    key = write_key(path)
    for statement in SCHEMA.split(";\nCREATE"):
        connection.execute(statement if statement.lstrip().startswith("CREATE") else f"CREATE{statement}")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    _append(connection, {"kind": "opened", "key": check_of(key)})


def _append(connection: sqlite3.Connection, content: Mapping[str, Any]) -> None:
    """Add an entry with the next number, the time and the hash."""
    last = connection.execute("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1").fetchone() or (-1, "")
    text = _text({"number": last[0] + 1, "time": now(), "package": __version__, **content})
    connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (last[0] + 1, text, chained(last[1], text)))


def _text(content: Mapping[str, Any]) -> str:
    """Return the JSON text that is stored and hashed."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0)


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    """Raise an error if the file is not a ledger of this format."""
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found[0] != APPLICATION:
        raise ArgumentError("ledger", "be a ledger", f"'{path}', another kind of file")
    if found[1] != FORMAT:
        raise ArgumentError("ledger", f"be of format {FORMAT}, which this version reads", f"'{path}' of {found[1]}")


@contextmanager
def told(
    path: Path, free: str = "not be in use by another process", sound: str = "be a whole ledger"
) -> Iterator[None]:
    """Convert errors of SQLite to errors that name the ledger.

    Args:
        path: The file.
        free: What the ledger must do where another process holds the file.
        sound: What it must do where the file is damaged.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            hint = "try again when that one is done"
            raise ArgumentError("ledger", free, f"'{path}'", hint) from None
        if isinstance(error, sqlite3.OperationalError) and "decode" not in str(error):
            raise OSError(f"'{path}' could not be read or written: {error}") from error
        raise ArgumentError("ledger", sound, f"'{path}': {error}") from error
