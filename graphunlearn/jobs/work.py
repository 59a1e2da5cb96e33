"""The work on one batch of deletion jobs, from wherever an interruption has left it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from graphunlearn.data import ForgetRequest
from graphunlearn.data.io.folders import clear_leftovers
from graphunlearn.data.renumbering import inactive_ids, node_types
from graphunlearn.errors import ArgumentError
from graphunlearn.jobs.plan import Wanted, emptied_ids, learned_part, plan, without_held_out
from graphunlearn.jobs.store import JobStore
from graphunlearn.ledger import Ledger, LedgerEntry
from graphunlearn.ledger.entry import PendingError, PendingRequest
from graphunlearn.ledger.places import relative_to_ledger, run_folder_of
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import CAU, IFRU, Retrain, Unlearner, UnlearningResult
from graphunlearn.operators.compacting import Compacted
from graphunlearn.runs.erasing import IMPORTED, about_left, erase
from graphunlearn.runs.run import Graph, Run

__all__ = ["Settings", "Work", "older"]


@dataclass(frozen=True)
class Settings:
    """How batches are worked off; see :meth:`graphunlearn.jobs.Jobs.run`.

    Args:
        method: Function that returns the method for a run and its folder.
        compact: Whether emptied users and items leave the run.
        renumbered: Function that receives which row became which.
        device: Device to compute on.
        tell: Function that receives sentences on the progress.
    """

    method: Callable[[Run, Path], Unlearner] | None
    compact: bool | None
    renumbered: Callable[[Compacted], object] | None
    device: str
    tell: Callable[[str], object] | None


class Work:
    """The work on a batch: what occurs in the data is planned, forgotten, entered, and leaves the rows of the model.

    Every step leaves a trace by which a repetition knows that it is done: the plan in the file of jobs, the pending
    request and the entry in the ledger, and the fingerprints of the run folder.

    Args:
        ledger: The ledger, which the caller has locked.
        store: The jobs.
        number: Number of the batch.
        clock: Function that returns the present time in UTC.
        settings: How the batch is worked off.
    """

    def __init__(
        self, ledger: Ledger, store: JobStore, number: int, clock: Callable[[], datetime], settings: Settings
    ) -> None:
        self.ledger, self.store, self.number, self.clock, self.settings = ledger, store, number, clock, settings
        self.batch = next(batch for batch in store.batches() if batch.number == number)
        self.facts = store.facts(number)
        self.token = self.facts["token"]
        self.folder = run_folder_of(self.batch.run, ledger.path)
        self.place = relative_to_ledger(self.folder, ledger.path)

    def run(self) -> None:
        """Work off the batch."""
        clear_leftovers(self.folder)
        pending = self.ledger.pending
        if pending is not None and pending.command.get("batch") != self.token:
            raise PendingError.of(self.ledger.path, pending)
        entry = self._entered()
        if entry is None:
            entry = self._forget(pending)
        if self._compacts():
            self._compact(entry)
        self.store.finish(self.number, self._now(), {} if entry is None else _facts_of(entry))

    def unchanged(self) -> bool:
        """Return whether the batch has changed nothing yet, so that its jobs may be part of another one."""
        pending = self.ledger.pending
        mine = pending is not None and pending.command.get("batch") == self.token
        return not mine and self._entered() is None and "written" not in self.facts

    def told(self, error: BaseException) -> str:
        """Return the sentence of an error, without what may name somebody.

        Args:
            error: The error.
        """
        text = " ".join(str(error).split()) or type(error).__name__
        ids = {
            part
            for job in self._wanted()
            for value in job.ids
            for part in ([value] if isinstance(value, str) else value)
        }
        quoted = {*re.findall(r"'([^']*)'", text), *re.findall(r'"([^"]*)"', text)}
        words = {*quoted, *re.split(r"[\s,;:()'\"]+", text)}
        return f"{type(error).__name__}, whose text names ids" if words & ids else text

    def _now(self) -> str:
        return self.clock().isoformat(timespec="seconds")

    def _tell(self, sentence: str) -> None:
        if self.settings.tell is not None:
            self.settings.tell(sentence)

    def _wanted(self) -> list[Wanted]:
        jobs = [job for job in self.store.jobs() if job.number in self.batch.jobs]
        return [Wanted(job.number, job.level, self.store.ids(job.number)) for job in jobs]

    def _entered(self) -> LedgerEntry | None:
        """Return the entry of the batch, if it was entered before an interruption."""
        digest, after = self.facts.get("digest"), self.facts.get("entries_before", 0)
        found = (entry for entry in self.ledger.entries() if entry.number > after and entry.digest == digest)
        return None if digest is None else next(found, None)

    def _forget(self, pending: PendingRequest | None) -> LedgerEntry | None:
        """Forget what occurs in the data, replace the run folder, and return the entry."""
        self._tell(f"reading {self.folder}")
        run = Run.load(self.folder, self.settings.device)
        if pending is not None and pending.after == self.ledger.fingerprints(run.model, run.train):
            return self.ledger.finish(run.model, run.train)  # the folder was written before the interruption
        asked = self._planned(run) if pending is None else pending.request
        if asked is None:
            return None
        after = without_held_out(run, asked)
        learned = learned_part(asked, run)
        if learned is None:
            self._tell("nothing of it is in the training data")
            self._check_newest(run)
            self._note({"written": True})
            new = replace(after, about=_about(after, asked), emptied=self._emptied(after.train), forgotten=None)
            new.save(self.folder, overwrite=True)
            return None
        method = self._method(after)
        self._tell(f"forgetting {_ids(len(asked))} with {method.name}")

        def keep(folder: Path) -> None:
            method.save(folder / f"{method.name}.safetensors")

        def save(result: UnlearningResult) -> None:
            goes_on = method.keeps is not None and method.asks_preparation(result.model)
            self._note({"written": True, "prepared": goes_on})
            now = self.ledger.pending
            about = _about(after, asked) | {"token": None if now is None else now.token}
            if isinstance(method, Retrain):
                about.pop(IMPORTED, None)  # the model is now trained as audits train
            new = replace(after, model=result.model, train=result.graph, about=about, forgotten=None)
            new = replace(new, emptied=self._emptied(new.train))
            self._tell(f"writing {self.folder}")
            new.save(self.folder, overwrite=True, also=keep if goes_on else None)

        given: dict[str, Any] = {"out": self.place, "objective": run.objective, "asked": asked, "save": save}
        command = {"batch": self.token, "out": str(self.folder.absolute())}
        try:
            self.ledger.unlearn(method, run.model, run.train, learned, command=command, **given)
        except ArgumentError as error:
            if error.argument == "model" and error.expected.startswith("be the newest"):
                raise older(self.folder, error) from None
            raise
        return self._entered()

    def _planned(self, run: Run) -> ForgetRequest | None:
        """Find what occurs in the data, store the counts, and return the request."""
        wanted = self._wanted()
        self._tell(f"looking for {_ids(sum(len(job.ids) for job in wanted))}")
        made = plan(run, wanted, self.ledger.keyed, lambda level, marks: self.store.known(level, marks, self.number))
        if "written" in self.facts:  # the held-out data may have been written before an interruption
            return made.request
        facts: dict[str, Any] = {}
        learned = None if made.request is None else learned_part(made.request, run)
        if made.request is not None and learned is not None:
            facts = {"digest": self.ledger.digest(made.request), "entries_before": len(self.ledger.entries())}
        counts = {job.job: self._counts(job, made.counts[job.job]) for job in wanted}
        emptied = emptied_ids(run, wanted, learned)
        facts["empties"] = any(emptied.values())
        self.store.plan(self.number, facts, counts, made.digests, emptied)
        self.facts |= facts
        return made.request

    def _counts(self, wanted: Wanted, counts: dict[str, int]) -> dict[str, int]:
        """Return the counts of a job; ids that turned out to be the same in the data are duplicates."""
        job = next(job for job in self.store.jobs() if job.number == wanted.job)
        ids = sum(counts[name] for name in ("deleted", "already_deleted", "not_found")) + job.withdrawn
        return counts | {"ids": ids, "duplicates": job.ids + job.duplicates - ids}

    def _method(self, run: Run) -> Unlearner:
        """Return the method of the batch, which is a retraining if the drift exceeds its budget."""
        drift, budget = self.ledger.drift, self.ledger.budget
        if drift is None or budget is None or drift.spent <= budget:
            if self.settings.method is not None:
                return self.settings.method(run, self.folder)
            return _filled(CAU() if run.spec.kind == "sessions" else IFRU(), run)
        requests = f"{drift.requests} request{'s' if drift.requests > 1 else ''}"
        reason = f"the drift is {drift.spent:.3g} after {requests}, and its budget {budget:g}"
        self._tell(f"retraining, since {reason}")
        self._note({"retrained_because": reason})
        return _filled(Retrain(), run)

    def _compacts(self) -> bool:
        """Return whether emptied users and items are to leave the run."""
        if not self.facts.get("empties") or self.settings.compact is False:
            return False
        if self.settings.compact is None and self.facts.get("prepared"):
            self._tell("the ids of emptied users and items stay in the run, since its preparation fits their rows")
            return False
        return True

    def _emptied(self, train: Graph) -> dict[str, list[str]]:
        """Return the ids that have no training events after the batch, by which ``erase`` and later jobs know them."""
        known = self.store.emptied(self.number)
        return {name: inactive_ids(train, name, known.get(name, [])) for name in node_types(train)}

    def _compact(self, entry: LedgerEntry | None) -> None:
        """Remove the rows and ids of emptied users and items from the run folder, and enter it.

        If another command has gone on from the entry of the batch since an interruption, the rows stay: the model that
        serves is another one, whose run folder tells who was emptied.
        """
        entries, noted = self.ledger.entries(), self.facts.get("erasing")
        if noted is not None:
            later = [[one.model_after, one.graph_after] for one in entries if one.number > noted["entries"]]
            if noted["after"] in later:  # it was entered before an interruption
                return
        if entry is not None and any(one.number > entry.number and one.kind != "audited" for one in entries):
            self._tell("the ids of emptied users and items stay in the run, since another command has gone on from it")
            return
        run = Run.load(self.folder, self.settings.device)
        prints = [*self.ledger.fingerprints(run.model, run.train)]
        if noted is not None and noted["after"] == prints:  # the folder was written before an interruption
            self.ledger.record_saved_erasure(run.model, run.train, noted["gone"], out=self.place)
            return
        emptied = self.store.emptied(self.number)
        erased = erase(replace(run, emptied=emptied))
        small = erased.compacted
        if not any(small.gone.values()):
            return
        parts = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in small.gone.items() if count]
        self._tell(f"removing {' and '.join(parts)}")

        def save() -> None:
            after = [*self.ledger.fingerprints(small.model, small.graph)]
            self._note({"erasing": {"after": after, "gone": small.gone, "entries": len(entries)}})
            if self.settings.renumbered is not None:
                self.settings.renumbered(small)
            about = erased.run.about | {name: run.about[name] for name in ("deleted",) if name in run.about}
            replace(erased.run, about=about).save(self.folder, overwrite=True)

        self.ledger.record_erased(run.model, run.train, small, save=save, out=self.place)

    def _note(self, facts: dict[str, Any]) -> None:
        """Store facts of the batch before the step that they announce."""
        self.store.note(self.number, facts)
        self.facts |= facts

    def _check_newest(self, run: Run) -> None:
        try:
            self.ledger.check_newest(fingerprint(run.model), run.train.fingerprint())
        except ArgumentError as error:
            raise (older(self.folder, error) if error.argument == "model" else error) from None


def older(folder: Path, error: ArgumentError) -> ArgumentError:
    """Return the error about a run folder that is not the newest of the ledger.

    Args:
        folder: The folder.
        error: The error about its model.
    """
    expected = f"hold {error.expected.removeprefix('be ')}"
    return ArgumentError("run", expected, f"'{folder}', with another", error.hint)


def _ids(count: int) -> str:
    return f"{count:,} id{'' if count == 1 else 's'}"


def _filled(method: Unlearner, run: Run) -> Unlearner:
    """Return a method with the loss, the validation data and the training settings of a run."""
    validation = run.early_stopping(run.train)
    return method.filled(objective=run.objective, validation=validation, settings=run.settings)


def _about(run: Run, request: ForgetRequest) -> dict[str, Any]:
    """Return what a run tells of itself: nothing of the course of its training, and how many ids jobs have deleted."""
    counts = dict(run.about.get("deleted", {}))
    for part in request.parts:
        counts[part.level] = counts.get(part.level, 0) + len(part)
    return about_left(run) | {"deleted": counts}


def _facts_of(entry: LedgerEntry) -> dict[str, Any]:
    """Return what is kept of the entry of a batch."""
    request = entry.request or {}
    removed = request.get("interactions", request.get("clicks", 0))
    facts = {"entry": entry.number, "method": entry.method, "drift": entry.drift, "seconds": entry.seconds}
    return facts | {"interactions": removed}
