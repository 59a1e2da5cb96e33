"""Deletion jobs: submitted with a due date, worked off in batches, and reported by counts."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from graphunlearn.data.vocabulary import canonical_id
from graphunlearn.errors import ArgumentError
from graphunlearn.jobs.job import LEVELS, Batch, Job, JobLevel, due_date, utc_now
from graphunlearn.jobs.store import Id, JobStore, all_jobs, chunked, open_batch, withdraw
from graphunlearn.jobs.work import Settings, Work, older
from graphunlearn.ledger import Ledger
from graphunlearn.ledger.entry import PendingError
from graphunlearn.ledger.places import relative_to_ledger
from graphunlearn.operators import Unlearner
from graphunlearn.operators.compacting import Compacted
from graphunlearn.runs.folder import FolderReader, whole
from graphunlearn.runs.run import GRAPHS, ModelSpec, Run

__all__ = ["Jobs"]

FAILURES = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, MemoryError)
LOOKS, PAUSE = 5, 0.05
"""Number of looks at a run folder that is not as it should be, and the seconds between them."""
WAITING = ("PENDING", "FAILED")


class Jobs:
    """Deletion jobs of the runs that a ledger records: a list of ids each, and the day by whose end they must be gone.

    A job is PENDING until :meth:`run` works it off, together with all other jobs that are due on the same run, as one
    request. The successor replaces the run folder, and the ledger records the request. Ids are stored until their job
    is DONE or WITHDRAWN. Afterwards the file, ``NAME.jobs`` beside the ledger, holds counts, and keyed digests by which
    an id is recognised that comes back; without the key of the ledger, the digests reveal nothing.

    Every step can be interrupted at any point: the next call of :meth:`run` goes on from there, and no job is lost or
    worked off twice.

    Args:
        ledger: The ledger, or its file, which is created if it does not exist.
        clock: Function that returns the present time in UTC.

    Raises:
        ValueError: The file is not a ledger.

    Example:
        >>> import pathlib, tempfile, graphunlearn as gu
        >>> from datetime import datetime, timezone
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
        >>> spec = gu.runs.ModelSpec("lightgcn", 8, 2)
        >>> train, validation, test = graph.random_split([0.8, 0.1, 0.1], seed=0)
        >>> run = gu.runs.Run(spec, spec.build(train), train, validation, test, gu.BPR(), gu.nn.FitSettings())
        >>> run.save(folder / "live")
        >>> jobs = gu.jobs.Jobs(folder / "ledger.db", clock=lambda: datetime(2026, 12, 19, tzinfo=timezone.utc))
        >>> jobs.submit(["u3", "u7", "nobody"], "2026-12-20", run=folder / "live").state
        'PENDING'
        >>> _ = jobs.run(method=lambda run, folder: gu.Unlink())
        >>> job = jobs.status()[0]
        >>> job.state, job.deleted, job.not_found
        ('DONE', 2, 1)
    """

    def __init__(self, ledger: Ledger | str | Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self.clock = clock
        self.store = JobStore.beside(self.ledger.path)

    # ---- what users of the service ask for

    def submit(
        self,
        ids: Iterable[Any],
        due: date | str,
        *,
        run: str | Path,
        level: JobLevel = "user",
        tell: Callable[[int], object] | None = None,
    ) -> Job:
        """Add a job.

        Args:
            ids: The raw ids to delete; pairs of user and item at level ``"interaction"``. They may be unknown.
            due: The day by whose end, in UTC, the ids must be deleted.
            run: The run folder that serves.
            level: What the ids name: ``"user"``, ``"item"``, ``"session"`` or ``"interaction"``.
            tell: Function that receives the number of ids so far, now and then.

        Returns:
            The job.

        Raises:
            ArgumentError: The due date is over, the run folder is not the newest of the ledger, its data cannot have
                the level, or there are no ids.
        """
        now = self.clock()
        day, folder = due_date(due, now.date()), Path(run)
        if level not in LEVELS:
            raise ArgumentError("level", f"be one of {', '.join(LEVELS)}", f"{level!r}")
        self._check_run(folder, level)
        counts = [0, 0]
        chunks = []
        for content, _ in chunked(_distinct(ids, level, counts)):
            chunks.append(content)
            if tell is not None:
                tell(counts[0])
        if not chunks:
            raise ArgumentError("ids", f"name at least one {level} to delete", "none")
        facts = {"level": level, "run": relative_to_ledger(folder, self.ledger.path), "due": day.isoformat()}
        facts |= {"submitted": _second(now), "state": "PENDING"}
        number = self.store.add(facts | {"ids": counts[0] - counts[1], "duplicates": counts[1]}, chunks)
        return self.job(number)

    def withdraw(self, number: int, ids: Iterable[Any] | None = None) -> tuple[Job, int]:
        """Withdraw a job, or some of its ids, and erase them.

        Args:
            number: The job.
            ids: The ids; by default all of them. Ids that the job does not hold are ignored.

        Returns:
            The job, and the number of ids that were withdrawn.

        Raises:
            ArgumentError: There is no such job, or it is running, done or withdrawn.
        """
        job = self.job(number)
        some = None if ids is None else list(_distinct(ids, job.level, [0, 0]))
        with self.store.writing() as connection:
            found = self._in(connection, number)
            if found.state not in WAITING or found.batch is not None:
                raise ArgumentError("job", "be one that waits", f"{number}, which is {found.state}")
            gone = withdraw(connection, number, some, _second(self.clock()))
        return self.job(number), gone

    def job(self, number: int) -> Job:
        """Return a job.

        Raises:
            ArgumentError: There is no such job.
        """
        found = {job.number: job for job in self.status()}
        if number not in found:
            known = f"be one of 1 to {len(found)}" if found else "be one that was submitted"
            raise ArgumentError("job", known, number)
        return found[number]

    def status(self) -> list[Job]:
        """Return all jobs, from the first to the last."""
        return self.store.jobs()

    def report(self) -> dict[str, Any]:
        """Return counts of all jobs, and what every batch did, in JSON types; nobody is named."""
        now, jobs = self.clock(), self.status()
        states = dict.fromkeys(("PENDING", "RUNNING", "DONE", "FAILED", "WITHDRAWN"), 0)
        totals: dict[str, int] = {}
        for job in jobs:
            states[job.state] += 1
            for name, value in job.to_dict(now).items():
                if type(value) is int and name not in ("job", "batch"):
                    totals[name] = totals.get(name, 0) + value
        open_jobs = [job for job in jobs if job.state not in ("DONE", "WITHDRAWN")]
        return {
            "time": _second(now),
            "jobs": len(jobs),
            "states": states,
            "late": sum(job.late(now) for job in jobs),
            "next_due": min((job.due for job in open_jobs), default=None),
            "totals": totals,
            "batches": [asdict(batch) for batch in self.store.batches()],
            "all_jobs": [job.to_dict(now) for job in jobs],
        }

    # ---- work

    def run(
        self,
        *,
        within: int = 1,
        everything: bool = False,
        method: Callable[[Run, Path], Unlearner] | None = None,
        compact: bool | None = None,
        renumbered: Callable[[Compacted], object] | None = None,
        device: str = "cpu",
        tell: Callable[[str], object] | None = None,
    ) -> list[Batch]:
        """Work off what is due, and what was interrupted; another process that works waits.

        All jobs of one run are one request. If the drift of the ledger exceeds its budget, the request is served by
        retraining with the loss and the settings of the run. A batch that fails leaves its jobs FAILED, with the
        reason; the next call tries again.

        Args:
            within: Days until the due date. By default, jobs that are due today or tomorrow are worked off, so that a
                job that waits for a daily call is done, at any hour of the day, with a day to spare.
            everything: Whether jobs are worked off whose due date is later.
            method: Function that returns the method for a run and its folder; by default IFRU, for sessions CAU.
            compact: Whether users and items without training events leave the model, the vocabulary and the held-out
                data. By default they do, unless the method goes on with a preparation, which fits the rows as they are.
                The run tells whose rows stay, so that ``erase`` or a later job removes them.
            renumbered: Function that receives which row became which before the smaller run is written; it may be
                called again after an interruption.
            device: Device to compute on.
            tell: Function that receives sentences on the progress.

        Returns:
            The batches; those that failed have an ``error``.

        Raises:
            ArgumentError: ``within`` is negative.
        """
        if within < 0:
            raise ArgumentError("within", "not be negative", within)
        worked: list[int] = []
        settings = Settings(method, compact, renumbered, device, tell)
        with self.ledger:
            pending = self.ledger.pending
            if pending is not None and "batch" not in pending.command:
                raise PendingError.of(self.ledger.path, pending)
            while (number := self._next(within, everything, worked)) is not None:
                worked.append(number)
                work = Work(self.ledger, self.store, number, self.clock, settings)
                try:
                    work.run()
                except FAILURES as error:
                    self.store.fail(number, _second(self.clock()), work.told(error), free=work.unchanged())
        return [batch for batch in self.store.batches() if batch.number in worked]

    def _next(self, within: int, everything: bool, worked: Sequence[int]) -> int | None:
        """Return the next batch to work off: one that was interrupted, or a new one; ``None`` if there is none."""
        if not self.store.exists():
            return None
        for batch in self.store.batches():
            if batch.finished is None and batch.number not in worked:
                return batch.number
        now = self.clock()
        last = (now.date() + timedelta(days=within)).isoformat()
        tried = {number for batch in self.store.batches() if batch.number in worked for number in batch.jobs}
        with self.store.writing() as connection:
            due: dict[str, list[Job]] = defaultdict(list)
            for job in sorted(all_jobs(connection), key=lambda job: (job.due, job.number)):
                waits = job.state in WAITING and job.batch is None and job.number not in tried
                if waits and (everything or job.due <= last):
                    due[job.run].append(job)
            if not due:
                return None
            jobs = sorted(next(iter(due.values())), key=lambda job: job.number)
            return open_batch(connection, jobs, _second(now), {"token": secrets.token_hex(16)})

    def _check_run(self, folder: Path, level: JobLevel) -> None:
        """Check that a run folder exists, is the newest of the ledger, and can have ids of the level."""
        for left in reversed(range(LOOKS)):  # another process may be replacing the folder just now
            try:
                kind = self._kind_of(folder)
                break
            except ArgumentError as error:
                if not left:
                    raise (older(folder, error) if error.argument == "model" else error) from None
                time.sleep(PAUSE)
        if level not in GRAPHS[kind].levels:
            known = ", ".join(name for name in LEVELS if name in GRAPHS[kind].levels)
            raise ArgumentError("level", f"be one that the data of the run have, {known}", f"{level!r}")

    def _kind_of(self, folder: Path) -> str:
        """Return the kind of the data of a run folder, after a check that it is the newest, unless it is worked on."""
        if not (folder / "run.json").is_file():
            raise ArgumentError("run", "be a run folder, as 'train' writes it", f"'{folder}', without a run.json")
        with whole("run", "be a whole run folder", folder):
            facts = FolderReader(folder).versioned("run")
            kind, prints = ModelSpec.read(facts["model"]).kind, facts["fingerprints"]
            model, train = prints["model"], prints["train"]
        if self.ledger.pending is None and all(batch.finished for batch in self.store.batches()):
            self.ledger.check_newest(model, train)
        return kind

    def _in(self, connection: Any, number: int) -> Job:
        return next(job for job in all_jobs(connection) if job.number == number)


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _distinct(ids: Iterable[Any], level: JobLevel, counts: list[int]) -> Iterator[Id]:
    """Yield different ids; ``counts`` becomes the number of all of them and of repeated ones."""
    seen: set[Id] = set()
    for value in ids:
        one = _pair(value) if level == "interaction" else _id(value)
        counts[0] += 1
        if one in seen:
            counts[1] += 1
        else:
            seen.add(one)
            yield one


def _id(value: Any) -> str:
    try:
        return canonical_id(value)
    except ValueError:
        raise ArgumentError("ids", "be text or whole numbers from 0", f"{value!r}") from None


def _pair(value: Any) -> tuple[str, str]:
    if isinstance(value, str) or len(value) != 2:
        raise ArgumentError("ids", "be pairs of user and item at level 'interaction'", f"{value!r}")
    return _id(value[0]), _id(value[1])
