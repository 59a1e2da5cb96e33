"""Storage of a ledger: an append-only SQLite file, and a file beside it with the key of its digests."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from graphunlearn._version import __version__
from graphunlearn.errors import ArgumentError

__all__ = ["Store", "chained", "key_file", "now", "read_key"]

APPLICATION, FORMAT = 0x67756C67, 1  # identify ledgers among SQLite files, and their format
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
    "PRAGMA locking_mode = EXCLUSIVE",  # the lock is held from the first transaction on, until the file is closed
    "PRAGMA journal_mode = TRUNCATE",  # erased content does not stay in the journal
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
)
KEY_BYTES = 32


class Store:
    """An open ledger file with its entries and at most one pending request.

    All writes are transactions: they are on the disk when they end, and they are undone if they are interrupted.

    Args:
        path: The ledger file.
        connection: Connection to the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection

    @staticmethod
    def is_made(path: Path) -> bool:
        """Whether the file exists and has content; ``False`` if the creation of the ledger was interrupted.

        Args:
            path: The ledger file.

        Raises:
            ValueError: The file is not an SQLite file, or another process is writing to it.
        """
        if not path.is_file():
            return False
        with _told(path), closing(_connected(path)) as connection:
            return not _is_empty(connection)

    @classmethod
    @contextmanager
    def reading(cls, path: Path) -> Iterator[Store]:
        """Open a ledger for reading.

        Args:
            path: The ledger file.

        Raises:
            ValueError: The file does not exist, is not a ledger or is broken, or another process is writing to it.
            OSError: The file cannot be read.
        """
        if not path.is_file():
            raise ArgumentError("ledger", "be an existing file", f"'{path}'")
        with closing(_connected(path)) as connection:
            with _told(path):
                _check_format(path, connection)
            yield cls(path, connection)

    @classmethod
    @contextmanager
    def writing(cls, path: Path) -> Iterator[Store]:
        """Open a ledger for exclusive writing by this process; a missing ledger is created together with its key.

        Args:
            path: The ledger file.

        Raises:
            ValueError: The file is not a ledger or is broken, its folder does not exist, or another process has it
                open.
            OSError: The file cannot be written.
        """
        if path.is_dir():
            raise ArgumentError("ledger", "be a file", f"'{path}', which is a folder")
        if not path.absolute().parent.is_dir():
            raise ArgumentError("ledger", "be in a folder that exists", f"'{path}'")
        # readable only by its owner, because a pending request contains ids
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(_connected(path)) as connection:
            with _told(path):
                new = _is_empty(connection)
                if not new:
                    _check_format(path, connection)
                for statement in WRITING:
                    connection.execute(statement)
                connection.execute("BEGIN EXCLUSIVE")
                if new and _is_empty(connection):
                    _make(path, connection)
                connection.execute("COMMIT")
            try:
                yield cls(path, connection)
            finally:
                with suppress(sqlite3.Error):  # removes the empty journal file
                    connection.execute("PRAGMA locking_mode = NORMAL")
                    connection.execute("PRAGMA journal_mode = DELETE")

    def rows(self) -> list[tuple[int, str, str]]:
        """Return number, content and hash of all entries; the first one is the opening entry with number 0."""
        with _told(self.path):
            return self._connection.execute("SELECT number, content, hash FROM entry ORDER BY number").fetchall()

    def is_guarded(self) -> bool:
        """Whether the triggers that refuse changes of entries still exist."""
        with _told(self.path):
            found = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()
        return bool(found[0] == SCHEMA.count("CREATE TRIGGER"))

    def pending(self) -> dict[str, Any] | None:
        """Return the content of the pending request, or ``None``.

        Raises:
            ValueError: The content is not a JSON object.
        """
        with _told(self.path):
            row = self._connection.execute("SELECT content FROM pending").fetchone()
        try:
            facts = None if row is None else json.loads(row[0])
        except ValueError:
            facts = ()
        if facts is None or isinstance(facts, dict):
            return facts
        raise ArgumentError("ledger", "hold a request under way as JSON", f"'{self.path}' with something else")

    def begin(self, pending: Mapping[str, Any]) -> None:
        """Write the pending request, which replaces an earlier one.

        Args:
            pending: Content of the pending request, in JSON types.
        """
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO pending VALUES (1, ?)", (_text(pending),))

    def drop(self) -> None:
        """Erase the pending request."""
        with self._transaction():
            self._connection.execute("DELETE FROM pending")

    def append(self, content: Mapping[str, Any]) -> None:
        """Append an entry; the entry of a request also erases the pending request.

        Args:
            content: Fields of the entry, in JSON types; number, time and package version are added.
        """
        with self._transaction():
            _append(self._connection, content)
            if content["kind"] == "forgotten":
                self._connection.execute("DELETE FROM pending")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told(self.path):
            self._connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def chained(previous: str, content: str) -> str:
    """Return the hash of an entry: the SHA-256 of the previous hash and its content.

    Args:
        previous: Hash of the previous entry; empty for the first entry.
        content: The entry as the ledger stores it.

    Example:
        >>> chained(chained("", "one"), "two") == chained(chained("", "ONE"), "two")
        False
    """
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def now() -> str:
    """Return the current time in UTC in ISO 8601 format, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def key_file(path: Path) -> Path:
    """Return the path of the key of a ledger.

    Args:
        path: The ledger file.
    """
    return path.with_name(f"{path.name}.key")


def read_key(path: Path, check: str | None = None) -> bytes:
    """Return the key of a ledger.

    Args:
        path: The ledger file.
        check: Check value of the key from the ledger's opening entry; ``None`` skips the check.

    Returns:
        The key.

    Raises:
        ValueError: The key file is missing, or it does not hold the key of the ledger.
    """
    file = key_file(path)
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise ArgumentError(
            "ledger",
            "have its key beside it to take up requests",
            (
                f"'{path}' without '{file.name}'; it can be shown and verified, and a new ledger goes on "
                "from its last model"
            ),
        ) from None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or (check is not None and _check(key) != check):
        raise ArgumentError("ledger", "have its own key beside it", f"'{path}', of which '{file.name}' is not")
    return key


def _check(key: bytes) -> str:
    """Return the check value of a key, which does not reveal the key."""
    return hmac.new(key, b"graphunlearn ledger", hashlib.sha256).hexdigest()


def _make(path: Path, connection: sqlite3.Connection) -> None:
    """Create the key, the tables and the opening entry, inside an exclusive transaction."""
    file = key_file(path)
    if not file.exists():
        _write_key(file)
    key = read_key(path)
    for statement in SCHEMA.split(";\nCREATE"):
        connection.execute(statement if statement.lstrip().startswith("CREATE") else f"CREATE{statement}")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    _append(connection, {"kind": "opened", "key": _check(key)})


def _write_key(file: Path) -> None:
    part = file.with_name(f".{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES).hex().encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(file)
    if os.name != "nt":  # folders cannot be opened there
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _append(connection: sqlite3.Connection, content: Mapping[str, Any]) -> None:
    last = connection.execute("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1").fetchone() or (-1, "")
    text = _text({"number": last[0] + 1, "time": now(), "package": __version__, **content})
    connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (last[0] + 1, text, chained(last[1], text)))


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0)


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found[0] != APPLICATION:
        raise ArgumentError("ledger", "be a ledger", f"'{path}', which is something else")
    if found[1] != FORMAT:
        raise ArgumentError("ledger", f"be of format {FORMAT}, which this version reads", f"'{path}' of {found[1]}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Convert errors of SQLite to errors of this package with a one-sentence message."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise ArgumentError(
                "ledger", "not be in use by another process", f"'{path}'; try again when that one is done"
            ) from None
        if isinstance(error, sqlite3.OperationalError) and "decode" not in str(error):
            raise OSError(f"'{path}' could not be read or written: {error}") from error
        raise ArgumentError("ledger", "be a whole ledger", f"'{path}': {error}") from error
