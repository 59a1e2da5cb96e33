"""Storage of deletion jobs: an SQLite file beside the ledger, from which ids vanish as soon as their job is done."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from graphunlearn.errors import ArgumentError
from graphunlearn.jobs.job import Batch, Job
from graphunlearn.ledger.store import BUSY, WRITING, told

__all__ = ["Id", "JobStore", "all_jobs", "chunked", "open_batch", "withdraw"]

Id: TypeAlias = "str | tuple[str, str]"
APPLICATION, FORMAT = 0x67756A62, 1  # identify the file among SQLite files, and the version of its format
SCHEMA = """
CREATE TABLE job (number INTEGER PRIMARY KEY, level TEXT, run TEXT, due TEXT, submitted TEXT, state TEXT, ids INTEGER,
duplicates INTEGER, withdrawn INTEGER DEFAULT 0, deleted INTEGER DEFAULT 0, returned INTEGER DEFAULT 0,
already_deleted INTEGER DEFAULT 0, not_found INTEGER DEFAULT 0, batch INTEGER, finished TEXT, error TEXT);
CREATE TABLE ids (number INTEGER PRIMARY KEY, job INTEGER, content BLOB);
CREATE TABLE batch (number INTEGER PRIMARY KEY, run TEXT, started TEXT, finished TEXT, content TEXT);
CREATE TABLE served (level TEXT, digest BLOB, batch INTEGER, PRIMARY KEY (level, digest)) WITHOUT ROWID
"""
CHUNK = 10_000
"""Ids per row."""
PADDING = bytes(4096)
"""One page of zeros before the ids of a row. SQLite overwrites pages that it frees, but not the copies that it makes of
the beginning of a row when it moves rows between pages; behind the padding, ids are in pages of their own only."""
COLUMNS = tuple(field.name for field in fields(Job))


class JobStore:
    """Jobs, batches, ids and digests in a file.

    Every change is one transaction, and another process waits for as long as one takes. Ids are deleted in the
    transaction that ends their job; afterwards, no byte of them is in the file.

    Args:
        path: The file; it is created at the first change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, ledger: Path) -> JobStore:
        """Return the jobs of a ledger, which are in the file ``NAME.jobs`` beside it.

        Args:
            ledger: The file of the ledger.
        """
        return cls(ledger.with_name(f"{ledger.name}.jobs"))

    # ---- transactions

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one consistent look at it.

        Raises:
            ValueError: The file is not one of jobs, or is damaged.
            OSError: The file cannot be read.
        """
        with self._told(), closing(self._connected()) as connection:
            connection.execute("BEGIN")
            self._check(connection)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction, which is undone if the block fails.

        Raises:
            ValueError: The file is not one of jobs, or is damaged.
            OSError: The file cannot be written.
        """
        # only the owner may read the file, because it holds ids
        with self._told():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(self._connected()) as connection:
                for statement in WRITING:
                    connection.execute(statement)
                connection.execute("BEGIN EXCLUSIVE")
                try:
                    if _is_empty(connection):
                        for statement in SCHEMA.split(";"):
                            connection.execute(statement)
                        connection.execute(f"PRAGMA application_id = {APPLICATION}")
                        connection.execute(f"PRAGMA user_version = {FORMAT}")
                    self._check(connection)
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise

    def exists(self) -> bool:
        """Return whether there are jobs; false also if the creation of the file was interrupted."""
        if not self.path.is_file():
            return False
        with self._told(), closing(self._connected()) as connection:
            return not _is_empty(connection)

    def _connected(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)

    def _check(self, connection: sqlite3.Connection) -> None:
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if found[0] != APPLICATION:
            raise ArgumentError("ledger", "have a file of jobs beside it", f"'{self.path}', another kind of file")
        if found[1] != FORMAT:
            got = f"'{self.path}' of {found[1]}"
            raise ArgumentError("ledger", f"have jobs of format {FORMAT}, which this version reads", got)

    def _told(self) -> AbstractContextManager[None]:
        """Convert errors of SQLite to errors that name the file."""
        return told(self.path, "have jobs that no other process holds", "have a whole file of jobs")

    # ---- jobs

    def add(self, job: Mapping[str, Any], chunks: Iterable[bytes]) -> int:
        """Add a job with its ids, and return its number.

        Args:
            job: The fields of the job without its number.
            chunks: Its ids; see :func:`chunked`.
        """
        with self.writing() as connection:
            number = int(connection.execute("SELECT coalesce(max(number), 0) + 1 FROM job").fetchone()[0])
            names = ", ".join(job)
            marks = ", ".join("?" * len(job))
            connection.execute(f"INSERT INTO job (number, {names}) VALUES (?, {marks})", (number, *job.values()))
            _put(connection, number, chunks)
        return number

    def jobs(self) -> list[Job]:
        """Return all jobs, from the first to the last."""
        if not self.exists():
            return []
        with self.reading() as connection:
            return all_jobs(connection)

    def batches(self) -> list[Batch]:
        """Return all batches, from the first to the last."""
        if not self.exists():
            return []
        with self.reading() as connection:
            return _batches(connection)

    def ids(self, number: int) -> list[Id]:
        """Return the ids of a job that is not finished.

        Args:
            number: The job.
        """
        with self.reading() as connection:
            return _ids(connection, number)

    # ---- batches

    def erasing(self) -> list[list[str]]:
        """Return the fingerprints of runs that an unfinished batch has written without emptied rows."""
        if not self.exists():
            return []
        with self.reading() as connection:
            rows = connection.execute("SELECT content FROM batch WHERE finished IS NULL").fetchall()
        noted = [json.loads(row[0]).get("erasing") for row in rows]
        return [facts["after"] for facts in noted if facts is not None]

    def known(self, level: str, digests: Sequence[bytes], batch: int) -> set[bytes]:
        """Return those of the digests whose ids other batches have deleted.

        Args:
            level: The level of the ids.
            digests: Digests of ids.
            batch: The batch that is worked off now.
        """
        found: set[bytes] = set()
        with self.reading() as connection:
            for at in range(0, len(digests), 500):
                some = digests[at : at + 500]
                query = f"SELECT digest FROM served WHERE level = ? AND batch != ? AND digest IN ({_marks(some)})"
                found.update(row[0] for row in connection.execute(query, (level, batch, *some)))
        return found

    def plan(
        self,
        batch: int,
        facts: Mapping[str, Any],
        counts: Mapping[int, Mapping[str, int]],
        digests: Iterable[tuple[str, bytes]],
        emptied: Mapping[str, Sequence[str]],
    ) -> None:
        """Store what a batch will do, before anything is changed: counts, and digests of the ids that it deletes.

        Args:
            batch: The batch.
            facts: What is to be kept of the batch, in JSON types.
            counts: Counts of each of its jobs.
            digests: Level and digest of every id that is deleted.
            emptied: Ids that may be without events afterwards, by node type; they are stored until the batch ends.
        """
        with self.writing() as connection:
            connection.execute("DELETE FROM served WHERE batch = ?", (batch,))
            connection.execute("DELETE FROM ids WHERE job = ?", (-batch,))
            pairs = [(name, value) for name, values in emptied.items() for value in values]
            _put(connection, -batch, (chunk for chunk, _ in chunked(pairs)))
            rows = ((level, digest, batch) for level, digest in digests)
            connection.executemany("INSERT OR IGNORE INTO served VALUES (?, ?, ?)", rows)
            for number, values in counts.items():
                _set(connection, number, values)
            _note(connection, batch, facts)

    def emptied(self, batch: int) -> dict[str, list[str]]:
        """Return the ids that may be without events after a batch, by node type.

        Args:
            batch: The batch.
        """
        found: dict[str, list[str]] = {}
        for pair in self.ids(-batch):
            found.setdefault(pair[0], []).append(pair[1])
        return found

    def finish(self, batch: int, time: str, facts: Mapping[str, Any]) -> None:
        """End a batch: its jobs are done, and their ids are erased.

        Args:
            batch: The batch.
            time: The present time.
            facts: What is to be kept of the batch, in JSON types.
        """
        with self.writing() as connection:
            own = "job = -? OR job IN (SELECT number FROM job WHERE batch = ?)"
            connection.execute(f"DELETE FROM ids WHERE {own}", (batch, batch))
            done = "UPDATE job SET state = 'DONE', finished = ?, error = NULL WHERE batch = ?"
            connection.execute(done, (time, batch))
            connection.execute("UPDATE batch SET finished = ? WHERE number = ?", (time, batch))
            _note(connection, batch, {**facts, "error": None})

    def fail(self, batch: int, time: str, error: str, *, free: bool) -> None:
        """Note that a batch failed.

        Args:
            batch: The batch.
            time: The present time.
            error: The reason, which must name nobody.
            free: Whether its jobs may be part of another batch; otherwise, this batch must be finished.
        """
        with self.writing() as connection:
            failed = "UPDATE job SET state = 'FAILED', error = ? WHERE batch = ?"
            connection.execute(failed, (error, batch))
            _note(connection, batch, {"error": error})
            if free:
                connection.execute("DELETE FROM served WHERE batch = ?", (batch,))
                connection.execute("DELETE FROM ids WHERE job = ?", (-batch,))
                zero = "deleted = 0, returned = 0, already_deleted = 0, not_found = 0, batch = NULL"
                connection.execute(f"UPDATE job SET {zero} WHERE batch = ?", (batch,))
                connection.execute("UPDATE batch SET finished = ? WHERE number = ?", (time, batch))

    def note(self, batch: int, facts: Mapping[str, Any]) -> None:
        """Add facts to a batch.

        Args:
            batch: The batch.
            facts: What is to be kept of it, in JSON types.
        """
        with self.writing() as connection:
            _note(connection, batch, facts)

    def facts(self, batch: int) -> dict[str, Any]:
        """Return what was stored of a batch, in JSON types.

        Args:
            batch: The batch.
        """
        with self.reading() as connection:
            found = connection.execute("SELECT content FROM batch WHERE number = ?", (batch,)).fetchone()
        facts: dict[str, Any] = json.loads(found[0])
        return facts


def open_batch(connection: sqlite3.Connection, jobs: Sequence[Job], time: str, facts: Mapping[str, Any]) -> int:
    """Make a batch of jobs, which become RUNNING, and return its number.

    Args:
        connection: The open file.
        jobs: The jobs, all of one run.
        time: The present time.
        facts: What is to be kept of the batch, in JSON types.
    """
    number = int(connection.execute("SELECT coalesce(max(number), 0) + 1 FROM batch").fetchone()[0])
    row = (number, jobs[0].run, time, json.dumps({**facts, "jobs": [job.number for job in jobs]}))
    connection.execute("INSERT INTO batch VALUES (?, ?, ?, NULL, ?)", row)
    for job in jobs:
        _set(connection, job.number, {"state": "RUNNING", "batch": number, "error": None})
    return number


def withdraw(connection: sqlite3.Connection, number: int, ids: Sequence[Id] | None, time: str) -> int:
    """Erase ids of a job that waits, and return how many; a job without ids left is WITHDRAWN.

    Args:
        connection: The open file.
        number: The job.
        ids: The ids; ``None`` for all of them.
        time: The present time.
    """
    held = _ids(connection, number)
    unwanted = set(held if ids is None else ids)
    kept = [value for value in held if value not in unwanted]
    connection.execute("DELETE FROM ids WHERE job = ?", (number,))
    _put(connection, number, (chunk for chunk, _ in chunked(kept)))
    gone = len(held) - len(kept)
    connection.execute("UPDATE job SET withdrawn = withdrawn + ? WHERE number = ?", (gone, number))
    if not kept:
        _set(connection, number, {"state": "WITHDRAWN", "finished": time, "error": None})
    return gone


def chunked(ids: Iterable[Id]) -> Iterator[tuple[bytes, int]]:
    """Yield ids as the rows of the file hold them, with the number of ids in each.

    Args:
        ids: Ids, or pairs of ids.
    """
    rest = iter(ids)
    while some := list(islice(rest, CHUNK)):
        yield PADDING + json.dumps(some, ensure_ascii=False).encode(), len(some)


def _put(connection: sqlite3.Connection, number: int, chunks: Iterable[bytes]) -> None:
    rows = ((number, chunk) for chunk in chunks)
    connection.executemany("INSERT INTO ids (job, content) VALUES (?, ?)", rows)


def _ids(connection: sqlite3.Connection, number: int) -> list[Id]:
    found: list[Id] = []
    for (content,) in connection.execute("SELECT content FROM ids WHERE job = ? ORDER BY number", (number,)):
        some = json.loads(content[len(PADDING) :])
        found += [value if isinstance(value, str) else (value[0], value[1]) for value in some]
    return found


def all_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Return all jobs, from the first to the last.

    Args:
        connection: The open file.
    """
    rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM job ORDER BY number")
    return [Job(**dict(zip(COLUMNS, row))) for row in rows]


def _batches(connection: sqlite3.Connection) -> list[Batch]:
    names, found = {field.name for field in fields(Batch)}, []
    for number, run, started, finished, content in connection.execute("SELECT * FROM batch ORDER BY number"):
        facts = {name: value for name, value in json.loads(content).items() if name in names}
        facts["jobs"] = tuple(facts["jobs"])
        found.append(Batch(number=number, run=run, started=started, finished=finished, **facts))
    return found


def _note(connection: sqlite3.Connection, batch: int, facts: Mapping[str, Any]) -> None:
    """Add facts to a batch."""
    found = connection.execute("SELECT content FROM batch WHERE number = ?", (batch,)).fetchone()
    content = json.dumps({**json.loads(found[0]), **facts}, allow_nan=False)
    connection.execute("UPDATE batch SET content = ? WHERE number = ?", (content, batch))


def _set(connection: sqlite3.Connection, number: int, values: Mapping[str, Any]) -> None:
    names = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"UPDATE job SET {names} WHERE number = ?", (*values.values(), number))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0)
