"""``graphunlearn job``: deletion jobs with a due date, for a daily call."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from graphunlearn.cli._fields import File, Int, Printing, Settings, optional
from graphunlearn.cli._id_map import check_table, table_of, write_table
from graphunlearn.cli._ledgers import existing, finished
from graphunlearn.cli._methods import DEFAULT, check_method, parse_options, serving
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import request_options
from graphunlearn.cli._text import Answer, columns, counted, device_of, listed, note
from graphunlearn.cli._wording import reading
from graphunlearn.cli.prepare import method_for
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.jobs import Batch, Job, Jobs
    from graphunlearn.operators import Unlearner
    from graphunlearn.operators.compacting import Compacted
    from graphunlearn.runs.run import Run

__all__ = ["DeletionJob"]

Action = Literal["submit", "run", "status", "report", "withdraw"]
Level = Literal["user", "item", "session", "interaction"]
HEADER = ("job", "state", "level", "ids", "due", "deleted", "returned", "already", "not found", "withdrawn", "run")
GOES_WITH: dict[str, tuple[str, ...]] = {
    "ids": ("submit", "withdraw"),
    "due": ("submit",),
    "run_folder": ("submit",),
    "level": ("submit",),
    "within": ("run",),
    "everything": ("run",),
    "method": ("run",),
    "option": ("run",),
    "seed": ("run",),
    "compact": ("run",),
    "no_compact": ("run",),
    "id_map": ("run",),
}
"""The actions that an option goes with."""
PROGRESS = 1_000_000
"""Number of ids after which the progress of reading is told."""


@dataclass(kw_only=True)
class DeletionJob:
    """Collect deletion requests with a due date, and work off what is due in one request, as a daily call does.

    actions:
      submit    add a job: the ids of a file, the day by whose end (UTC) they must be deleted, and the run that serves
      run       work off all jobs that are due today or tomorrow; the new run replaces the run folder of the jobs
      status    list the jobs: PENDING, RUNNING, DONE, FAILED or WITHDRAWN, and counts
      report    show counts of all jobs and what every batch did
      withdraw  withdraw a job, or with --ids some of its ids

    The jobs are beside the ledger, in LEDGER.jobs. Ids are stored until their job is done or withdrawn; afterwards,
    there are counts, and keyed digests by which ids are recognised that come back. Ids that occur nowhere are counted.
    If 'run' is interrupted, the next 'run' goes on from there. It retrains if the drift of the ledger exceeds its
    budget. The rows and ids of emptied users and items leave the run, so that the others are numbered anew; --id-map
    writes how. Exit status 2 says that a job failed; the next 'run' tries it again.

    examples:
      graphunlearn job submit --ids users.csv --due 2026-12-20 --run runs/live --ledger runs/ledger.db
      graphunlearn job run --ledger runs/ledger.db                    # every day, by cron
      graphunlearn job run --ledger runs/ledger.db --all              # now, whatever the due date
      graphunlearn job status runs/ledger.db
      graphunlearn job report runs/ledger.db --json
      graphunlearn job withdraw runs/ledger.db 3
      graphunlearn job withdraw runs/ledger.db 3 --ids some.csv
    """

    action: Annotated[Positional[Action], arg(metavar="{submit,run,status,report,withdraw}")]
    """One of the actions above."""
    file: Annotated[Positional[Path | None], arg(metavar="[LEDGER]", help_behavior_hint="")] = None
    """The ledger; --ledger names it as well."""
    number: Annotated[Positional[int | None], arg(metavar="[JOB]", help_behavior_hint="")] = None
    """Number of the job, for 'withdraw'."""
    ledger: File = None
    """The ledger; 'submit' creates it if it does not exist."""
    key: File = None
    """Key file of the ledger (default: a file in GRAPHUNLEARN_KEYS, or ~/.config/graphunlearn)."""
    ids: File = None
    """File with the ids to delete or to withdraw, one per line or in a column that is known by its name; at level
    interaction, a user and an item per line."""
    due: Annotated[str | None, optional("DATE")] = None
    """Day by whose end, in UTC, the ids must be deleted, such as 2026-12-20."""
    run_folder: Annotated[Path | None, arg(name="run", metavar="RUN", help_behavior_hint="")] = None
    """Run folder that serves."""
    level: Annotated[Level | None, optional("LEVEL")] = None
    """What the ids name: user, item, session or interaction (default: user)."""
    within: Int = None
    """Days until the due date of the jobs that 'run' works off (default: 1, those that are due today or tomorrow)."""
    everything: Annotated[bool, arg(name="all")] = False
    """Work off all jobs that wait."""
    method: Annotated[str | None, optional("NAME")] = None
    """Method, as for 'graphunlearn forget' (default: ifru, for sessions cau)."""
    option: Settings = ()
    """Options of the method, such as damping=0.3."""
    seed: Int = None
    """Seed of the method."""
    compact: bool = False
    """Remove the rows and ids of emptied users and items also where the run has a preparation, which then goes too
    (without a preparation, they are always removed)."""
    no_compact: bool = False
    """Keep these rows and ids, so that rows are not numbered anew, until 'erase' or a later job removes them."""
    id_map: File = None
    """Table of type, id, old_row and new_row of those who stay to write, .csv or .parquet, for systems that serve by
    row numbers; it is only written if rows are numbered anew, and replaces an earlier one."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    reading: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """Carry out the action."""
        for name, actions in GOES_WITH.items():
            if getattr(self, name) not in (None, (), False) and self.action not in actions:
                option = {"run_folder": "--run", "everything": "--all"}.get(name, f"--{name.replace('_', '-')}")
                goes = listed([f"'{action}'" for action in actions], "or")
                raise ArgumentError(option, f"go with {goes}", f"it with '{self.action}'")
        if self.file is not None and self.ledger is not None:
            raise ArgumentError("--ledger", "be left out where the ledger is named already", f"'{self.ledger}'")
        if self.number is not None and self.action != "withdraw":
            raise ArgumentError("JOB", "go with 'withdraw'", f"it with '{self.action}'")
        answer: Answer = getattr(self, f"_{self.action}")()
        return answer

    def _named(self) -> Path:
        """Return the file of the ledger."""
        file = self.ledger or self.file
        if file is None:
            raise ArgumentError("--ledger", "name the ledger", "none")
        return file

    def _jobs(self) -> Jobs:
        """Return the jobs of a ledger that exists."""
        from graphunlearn.jobs import Jobs

        return Jobs(existing(self._named(), self.key))

    def _read(self, level: Level) -> list[Any]:
        """Return the ids of the file."""
        from graphunlearn.data.io.files import read_ids

        if self.ids is None:
            raise ArgumentError("--ids", "name a file with the ids", "none")
        with reading("--ids"):
            return read_ids(self.ids, level, **request_options(self.reading, level))

    def _submit(self) -> Answer:
        from graphunlearn.jobs import Jobs
        from graphunlearn.jobs.job import due_date, utc_now
        from graphunlearn.ledger import Ledger

        level = self.level or "user"
        for option, value in (("--due", self.due), ("--run", self.run_folder)):
            if value is None:
                what = "the day by whose end the ids must be deleted" if option == "--due" else "the run folder"
                raise ArgumentError(option, f"name {what}", "none")
        assert self.due is not None
        assert self.run_folder is not None
        due_date(self.due, utc_now().date())  # before any file is read or made
        ids = self._read(level)
        told = [0]

        def tell(count: int) -> None:
            if count >= told[0] + PROGRESS:
                told[0] = count
                note(f"{count:,} of {len(ids):,} ids")

        file = self._named()
        try:
            job = Jobs(Ledger(file, key=self.key)).submit(ids, self.due, run=self.run_folder, level=level, tell=tell)
        except ArgumentError as error:
            raise (error.renamed("--run") if error.argument == "run" else error) from error
        text = (
            f"job {job.number}: {counted(job.ids, f'{level}s')} of {self.run_folder}, to be deleted by the end of "
            f"{job.due} (UTC){_repeated(job)}\nnext: graphunlearn job run --ledger {file}, every day"
        )
        return Answer(job.to_dict(utc_now()), text)

    def _run(self) -> Answer:
        from graphunlearn.ledger.places import run_folder_of
        from graphunlearn.runs.erasing import id_map

        jobs = self._jobs()
        words = list(chain(*self.option))
        if self.method is not None:
            parse_options(self.method, words)
        device_of(self.device)
        if self.compact and self.no_compact:
            raise ArgumentError("--compact", "be left out with --no-compact", "both")
        if self.id_map is not None:
            check_table(self.id_map, [run_folder_of(job.run, jobs.ledger.path) for job in jobs.status()])

        def renumbered(small: Compacted) -> None:
            if self.id_map is not None:
                write_table(self.id_map, table_of(id_map(small), self.id_map.suffix))

        def make(run: Run, folder: Path) -> Unlearner:
            name = self.method or DEFAULT[run.spec.kind]
            check_method(name, run.spec, offered=serving())
            return method_for(run, folder, name, words, self.seed)

        with jobs.ledger:
            finished(jobs.ledger)
        done = jobs.run(
            within=1 if self.within is None else self.within,
            everything=self.everything,
            method=make,
            compact=True if self.compact else False if self.no_compact else None,
            renumbered=renumbered,
            device=self.device,
            tell=note,
        )
        by_number = {job.number: job for job in jobs.status()}
        lines = [_batch_line(batch, by_number) for batch in done]
        failed = [batch for batch in done if batch.error is not None]
        if failed:
            for line in lines:
                note(line)
            numbers = listed([str(number) for batch in failed for number in batch.jobs], "and")
            raise ValueError(f"job {numbers} failed: {failed[0].error}; the next 'job run' tries again")
        report = jobs.report()
        if not done:
            due = report["next_due"]
            lines = ["nothing is due" + ("" if due is None else f"; the next job is due on {due}")]
        data = {"batches": [batch for batch in report["batches"] if batch["number"] in {one.number for one in done}]}
        worked = [by_number[number].to_dict(jobs.clock()) for batch in done for number in batch.jobs]
        return Answer(data | {"jobs": worked, "next_due": report["next_due"]}, "\n".join(lines))

    def _status(self) -> Answer:
        jobs = self._jobs()
        found, now = jobs.status(), jobs.clock()
        data = [job.to_dict(now) for job in found]
        if not found:
            return Answer(data, "no jobs yet")
        lines = [columns([HEADER, *map(_row, found)], right=(0, 3, 5, 6, 7, 8, 9))]
        lines += [f"job {job.number} is late: it was due on {job.due}" for job in found if job.late(now)]
        lines += [f"job {job.number} failed: {job.error}" for job in found if job.state == "FAILED"]
        return Answer(data, "\n".join(lines))

    def _report(self) -> Answer:
        jobs = self._jobs()
        report, by_number = jobs.report(), {job.number: job for job in jobs.status()}
        states = [f"{count} {state}" for state, count in report["states"].items() if count]
        totals = report["totals"]
        lines = [f"{counted(report['jobs'], 'jobs')}{': ' if states else ''}{', '.join(states)}"]
        if totals:
            names = ("numDeleted", "returned", "alreadyDeleted", "notFound", "duplicates", "withdrawn")
            lines.append(", ".join(f"{name} {totals[name]:,}" for name in names))
        lines += [f"{counted(report['late'], 'jobs')} late"] if report["late"] else []
        lines += [] if report["next_due"] is None else [f"the next job is due on {report['next_due']}"]
        lines += [_batch_line(batch, by_number) for batch in jobs.store.batches()]
        return Answer(report, "\n".join(lines))

    def _withdraw(self) -> Answer:
        if self.number is None:
            raise ArgumentError("JOB", "be the number of a job", "none")
        jobs = self._jobs()
        level = jobs.job(self.number).level
        job, gone = jobs.withdraw(self.number, None if self.ids is None else self._read(level))
        left = job.ids - job.withdrawn
        state = "the job is withdrawn" if job.state == "WITHDRAWN" else f"{counted(left, f'{level}s')} left"
        return Answer(job.to_dict(jobs.clock()), f"job {job.number}: {counted(gone, f'{level}s')} withdrawn; {state}")


def _repeated(job: Job) -> str:
    if not job.duplicates:
        return ""
    return f"; {job.duplicates:,} repeated {'entry counts' if job.duplicates == 1 else 'entries count'} once"


def _row(job: Job) -> tuple[str, ...]:
    """Return the cells of a job in the table."""
    numbers = (job.deleted, job.returned, job.already_deleted, job.not_found, job.withdrawn)
    cells = [f"{value:,}" for value in numbers]
    return (str(job.number), job.state, job.level, f"{job.ids:,}", job.due, *cells, job.run)


def _batch_line(batch: Batch, jobs: dict[int, Job]) -> str:
    """Return the line that says what a batch did."""
    from graphunlearn.eval.report.verdict import format_number

    numbers = listed([str(number) for number in batch.jobs], "and")
    head = f"batch {batch.number}, job {numbers} on {batch.run}: "
    if batch.error is not None:
        return f"{head}failed: {batch.error}"
    if batch.finished is None:
        return f"{head}interrupted, or running"
    own = [jobs[number] for number in batch.jobs]
    sums = {
        "deleted": sum(job.deleted for job in own),
        "returned": sum(job.returned for job in own),
        "already deleted": sum(job.already_deleted for job in own),
        "not found": sum(job.not_found for job in own),
    }
    line = head + ", ".join(f"{count:,} {name}" for name, count in sums.items() if count or name == "deleted")
    if batch.entry is None:
        return f"{line}; nothing had to be unlearned"
    line += f"; {batch.interactions:,} events forgotten with {batch.method}, entry {batch.entry}"
    if batch.retrained_because is not None:
        return f"{line}, since {batch.retrained_because}"
    drift = batch.drift
    return line if drift is None else f"{line}, drift {format_number(drift['spent'])} of {drift['budget']:g}"
