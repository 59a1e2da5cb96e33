"""What is known of a deletion job and of a batch of jobs; neither names anybody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Literal

from graphunlearn.errors import ArgumentError

__all__ = ["LEVELS", "Batch", "Job", "JobLevel", "State", "due_date", "utc_now"]

State = Literal["PENDING", "RUNNING", "DONE", "FAILED", "WITHDRAWN"]
JobLevel = Literal["user", "item", "session", "interaction"]
LEVELS: tuple[JobLevel, ...] = ("user", "item", "session", "interaction")
"""Levels of jobs. Clicks are left out, because their positions change with every click that is forgotten."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A deletion job, without its ids.

    Args:
        number: Number of the job, from 1.
        level: What its ids name: ``"user"``, ``"item"``, ``"session"`` or ``"interaction"``.
        run: The run folder, relative to the ledger.
        due: Day by whose end, in UTC, the ids must be deleted, such as ``"2026-12-20"``.
        submitted: Time of the submission, in UTC.
        state: ``"PENDING"``, ``"RUNNING"``, ``"DONE"``, ``"FAILED"`` (it is tried again by the next run) or
            ``"WITHDRAWN"``.
        ids: Number of different ids that were submitted.
        duplicates: Number of repeated entries, which count once.
        withdrawn: Number of ids that were withdrawn.
        deleted: Number of ids that occurred in the data and were deleted.
        returned: Number of those that an earlier job had deleted already, so that they had come back.
        already_deleted: Number of ids without data that an earlier job, or an earlier job of the batch, deleted.
        not_found: Number of ids that occurred nowhere.
        batch: Number of the batch that the job was worked off in.
        finished: Time at which the job was done or withdrawn, in UTC.
        error: Why the job failed.
    """

    number: int
    level: JobLevel
    run: str
    due: str
    submitted: str
    state: State
    ids: int
    duplicates: int
    withdrawn: int = 0
    deleted: int = 0
    returned: int = 0
    already_deleted: int = 0
    not_found: int = 0
    batch: int | None = None
    finished: str | None = None
    error: str | None = None

    def late(self, now: datetime) -> bool:
        """Return whether the job was, or is at this time, not done by the end of its due day.

        Args:
            now: The time, in UTC.
        """
        if self.state == "WITHDRAWN":
            return False
        end = datetime.combine(date.fromisoformat(self.due) + timedelta(days=1), time(), timezone.utc)
        return (now if self.finished is None else datetime.fromisoformat(self.finished)) >= end

    def to_dict(self, now: datetime) -> dict[str, Any]:
        """Return the job in JSON types; counts have the names that services with deletion jobs use.

        Args:
            now: The time, in UTC, which tells whether an unfinished job is late.
        """
        return {
            "job": self.number,
            "state": self.state,
            "level": self.level,
            "run": self.run,
            "due": self.due,
            "late": self.late(now),
            "submitted": self.submitted,
            "finished": self.finished,
            "batch": self.batch,
            "numIds": self.ids,
            "duplicates": self.duplicates,
            "withdrawn": self.withdrawn,
            "numDeleted": self.deleted,
            "returned": self.returned,
            "alreadyDeleted": self.already_deleted,
            "notFound": self.not_found,
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All jobs of one run folder that were worked off as one request.

    Args:
        number: Number of the batch, from 1.
        run: The run folder, relative to the ledger.
        started: Time of the start, in UTC.
        jobs: Numbers of its jobs.
        finished: Time of the end, in UTC.
        entry: Number of the entry in the ledger; ``None`` if nothing had to be unlearned.
        method: Name of the method.
        retrained_because: Why the batch was a retraining; ``None`` if it was none.
        drift: The drift after the batch.
        interactions: Number of interactions or clicks that were deleted from the training data.
        seconds: Wall time of the method.
        error: Why the batch failed.
    """

    number: int
    run: str
    started: str
    jobs: tuple[int, ...] = ()
    finished: str | None = None
    entry: int | None = None
    method: str | None = None
    retrained_because: str | None = None
    drift: dict[str, Any] | None = None
    interactions: int = 0
    seconds: float | None = None
    error: str | None = None


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(timezone.utc)


def due_date(due: date | str, today: date) -> date:
    """Return a due date, after a check that it is not over.

    Args:
        due: The date, also as text such as ``"2026-12-20"``.
        today: The present day in UTC.

    Raises:
        ArgumentError: It is not a date, or it is before today.

    Example:
        >>> due_date("2026-12-20", date(2026, 12, 20))
        datetime.date(2026, 12, 20)
    """
    if isinstance(due, datetime):
        raise ArgumentError("due", "be a day, whose end in UTC is meant", f"a time, {due.isoformat()}")
    try:
        found = due if isinstance(due, date) else datetime.strptime(str(due).strip(), "%Y-%m-%d").date()
    except ValueError:
        raise ArgumentError("due", "be a day such as 2026-12-20", f"{due!r}") from None
    if found < today:
        raise ArgumentError("due", f"be today, {today.isoformat()} (UTC), or later", f"{found.isoformat()}")
    return found
