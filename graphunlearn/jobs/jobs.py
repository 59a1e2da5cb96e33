"""Deletion jobs: submitted with a due date, worked off in batches, and reported by counts."""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from graphunlearn.data import ForgetRequest
from graphunlearn.data.io.folders import clear_leftovers
from graphunlearn.data.vocabulary import canonical_id
from graphunlearn.errors import ArgumentError
from graphunlearn.jobs.job import LEVELS, Batch, Job, JobLevel, due_date, utc_now
from graphunlearn.jobs.plan import Wanted, learned_part, plan, without_held_out
from graphunlearn.jobs.store import Id, JobStore, all_jobs, chunked, open_batch, withdraw
from graphunlearn.ledger import Ledger, LedgerEntry
from graphunlearn.ledger.entry import PendingError, PendingRequest
from graphunlearn.ledger.places import relative_to_ledger, run_folder_of
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import CAU, IFRU, Retrain, Unlearner, UnlearningResult
from graphunlearn.runs.folder import FolderReader, whole
from graphunlearn.runs.run import GRAPHS, ModelSpec, Run

__all__ = ["Jobs"]

MakeMethod: TypeAlias = Callable[[Run, Path], Unlearner]
FAILURES = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, MemoryError)
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
        self.store = JobStore(self.ledger.path.with_name(f"{self.ledger.path.name}.jobs"))

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
        method: MakeMethod | None = None,
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
        with self.ledger:
            pending = self.ledger.pending
            if pending is not None and "batch" not in pending.command:
                raise PendingError.of(self.ledger.path, pending)
            while (number := self._next(within, everything, worked)) is not None:
                worked.append(number)
                work = _Work(self, number, method or _default, device, tell or (lambda _: None))
                try:
                    work.run()
                except FAILURES as error:
                    pending = self.ledger.pending
                    mine = pending is not None and pending.command.get("batch") == work.token
                    self.store.fail(number, _second(self.clock()), work.told(error), free=not mine)
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
        if not (folder / "run.json").is_file():
            raise ArgumentError("run", "be a run folder, as 'train' writes it", f"'{folder}', without a run.json")
        for attempt in range(2):  # a request may have been finished between the two looks
            busy = self.ledger.pending is not None
            with whole("run", "be a whole run folder", folder):
                facts = FolderReader(folder).versioned("run")
                kind, prints = ModelSpec(**facts["model"]).kind, facts["fingerprints"]
                model, train = prints["model"], prints["train"]
            try:
                if not busy:
                    self.ledger.check_newest(model, train)
                break
            except ArgumentError as error:
                if error.argument != "model":
                    raise
                if attempt:
                    raise _older(folder, error) from None
        if level not in GRAPHS[kind].levels:
            known = ", ".join(name for name in GRAPHS[kind].levels if name in LEVELS)
            raise ArgumentError("level", f"be one that the data of the run have, {known}", f"{level!r}")

    def _in(self, connection: Any, number: int) -> Job:
        return next(job for job in all_jobs(connection) if job.number == number)


class _Work:
    """The work on one batch."""

    def __init__(self, jobs: Jobs, number: int, make: MakeMethod, device: str, tell: Callable[[str], object]) -> None:
        self.jobs, self.number, self.make, self.device, self.tell = jobs, number, make, device, tell
        self.store, self.ledger = jobs.store, jobs.ledger
        self.batch = next(batch for batch in self.store.batches() if batch.number == number)
        self.facts = self.store.facts(number)
        self.token = self.facts["token"]
        self.folder = run_folder_of(self.batch.run, self.ledger.path)

    def run(self) -> None:
        """Work off the batch, from wherever an interruption has left it."""
        clear_leftovers(self.folder)
        pending = self.ledger.pending
        if pending is not None and pending.command.get("batch") != self.token:
            raise PendingError.of(self.ledger.path, pending)
        entry = self._entered()
        if entry is None:
            entry = self._forget(pending)
        facts = {} if entry is None else _facts_of(entry)
        self.store.finish(self.number, _second(self.jobs.clock()), facts)

    def told(self, error: BaseException) -> str:
        """Return the sentence of an error, without what may name somebody."""
        text = " ".join(str(error).split()) or type(error).__name__
        ids = {
            part
            for job in self._wanted()
            for value in job.ids
            for part in ([value] if isinstance(value, str) else value)
        }
        words = {*re.findall(r"'([^']*)'", text), *re.findall(r'"([^"]*)"', text), *re.split(r"[\s,;:()'\"]+", text)}
        return f"{type(error).__name__}, whose text names ids" if words & ids else text

    def _wanted(self) -> list[Wanted]:
        jobs = [self.jobs.job(number) for number in self.batch.jobs]
        return [Wanted(job.number, job.level, self.store.ids(job.number)) for job in jobs]

    def _entered(self) -> LedgerEntry | None:
        """Return the entry of the batch, if it was entered before an interruption."""
        digest, after = self.facts.get("digest"), self.facts.get("entries_before", 0)
        found = (entry for entry in self.ledger.entries() if entry.number > after and entry.digest == digest)
        return None if digest is None else next(found, None)

    def _forget(self, pending: PendingRequest | None) -> LedgerEntry | None:
        """Forget what occurs in the data, replace the run folder, and return the entry."""
        self.tell(f"reading {self.folder}")
        run = Run.load(self.folder, self.device)
        asked = self._planned(run) if pending is None else pending.request
        if asked is None:
            return None
        if pending is not None and pending.after == self.ledger.fingerprints(run.model, run.train):
            return self.ledger.finish(run.model, run.train)  # the folder was written before the interruption
        after = without_held_out(run, asked)
        learned = learned_part(asked, run)
        if learned is None and pending is None:
            self.tell("nothing of it is in the training data")
            try:
                self.ledger.check_newest(fingerprint(run.model), run.train.fingerprint())
            except ArgumentError as error:
                raise (_older(self.folder, error) if error.argument == "model" else error) from None
            after.save(self.folder, overwrite=True)
            return None
        method = self._method(after)
        self.tell(f"forgetting {len(asked):,} ids with {method.name}")

        def keep(folder: Path) -> None:
            method.save(folder / f"{method.name}.safetensors")

        def save(result: UnlearningResult) -> None:
            now = self.ledger.pending
            about = after.about | {"token": None if now is None else now.token, "deleted": _added(after, asked)}
            new = replace(after, model=result.model, train=result.graph, about=about, forgotten=None)
            goes_on = method.keeps is not None and method.asks_preparation(result.model)
            self.tell(f"writing {self.folder}")
            new.save(self.folder, overwrite=True, also=keep if goes_on else None)

        place = relative_to_ledger(self.folder, self.ledger.path)
        given: dict[str, Any] = {"out": place, "objective": run.objective, "asked": asked}
        command = {"batch": self.token, "out": str(self.folder.absolute())}
        try:
            self.ledger.unlearn(method, run.model, run.train, learned or asked, save=save, command=command, **given)
        except ArgumentError as error:
            if error.argument == "model" and error.expected.startswith("be the newest"):
                raise _older(self.folder, error) from None
            raise
        return self._entered()

    def _planned(self, run: Run) -> ForgetRequest | None:
        """Find what occurs in the data, store the counts, and return the request."""
        wanted = self._wanted()
        self.tell(f"looking for {sum(len(job.ids) for job in wanted):,} ids")
        made = plan(run, wanted, self.ledger.keyed, lambda level, marks: self.store.known(level, marks, self.number))
        if self.facts.get("learned") is False:  # an interruption may have come after the held-out data were written
            return made.request
        facts: dict[str, Any] = {"learned": False}
        if made.request is not None and learned_part(made.request, run) is not None:
            digest, entries = self.ledger.digest(made.request), len(self.ledger.entries())
            facts = {"learned": True, "digest": digest, "entries_before": entries}
        counts = {job.job: self._counts(job, made.counts[job.job]) for job in wanted}
        self.store.plan(self.number, facts, counts, made.digests)
        self.facts |= facts
        return made.request

    def _counts(self, wanted: Wanted, counts: dict[str, int]) -> dict[str, int]:
        """Return the counts of a job; ids that turned out to be the same in the data are duplicates."""
        job = self.jobs.job(wanted.job)
        ids = sum(counts[name] for name in ("deleted", "already_deleted", "not_found")) + job.withdrawn
        return counts | {"ids": ids, "duplicates": job.ids + job.duplicates - ids}

    def _method(self, run: Run) -> Unlearner:
        """Return the method of the batch, which is a retraining if the drift exceeds its budget."""
        drift, budget = self.ledger.drift, self.ledger.budget
        if drift is None or budget is None or drift.spent <= budget:
            return self.make(run, self.folder)
        reason = f"the drift is {drift.spent:.3g} after {drift.requests} requests, and its budget {budget:g}"
        self.tell(f"retraining, since {reason}")
        self.store.note(self.number, {"retrained_because": reason})
        return _filled(Retrain(), run)


def _default(run: Run, folder: Path) -> Unlearner:
    """Return the default method for a run."""
    return _filled(CAU() if run.spec.kind == "sessions" else IFRU(), run)


def _filled(method: Unlearner, run: Run) -> Unlearner:
    """Return a method with the loss, the validation data and the training settings of a run."""
    validation = run.validation.without_unseen(run.train)
    return method.filled(objective=run.objective, validation=validation, settings=run.settings)


def _added(run: Run, request: ForgetRequest) -> dict[str, int]:
    """Return how many ids of each level jobs have deleted from a run so far."""
    counts = dict(run.about.get("deleted", {}))
    for part in request.parts:
        counts[part.level] = counts.get(part.level, 0) + len(part)
    return counts


def _facts_of(entry: LedgerEntry) -> dict[str, Any]:
    """Return what is kept of the entry of a batch."""
    request = entry.request or {}
    removed = request.get("interactions", request.get("clicks", 0))
    facts = {"entry": entry.number, "method": entry.method, "drift": entry.drift, "seconds": entry.seconds}
    return facts | {"interactions": removed}


def _older(folder: Path, error: ArgumentError) -> ArgumentError:
    """Return the error about a run folder that is not the newest of the ledger."""
    expected = f"hold {error.expected.removeprefix('be ')}"
    return ArgumentError("run", expected, f"'{folder}', with another", error.hint)


def _second(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


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
