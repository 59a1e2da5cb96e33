"""``graphunlearn ledger``: the record of forget requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from graphunlearn.cli._fields import File, Printing, Running, optional
from graphunlearn.cli._ledgers import existing, finished, relative_to_ledger, run_folder_of
from graphunlearn.cli._text import Answer, columns, counted
from graphunlearn.cli.forget import Forget
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.ledger import Ledger, LedgerEntry, PendingRequest

__all__ = ["ShowLedger"]

Action = Literal["show", "verify", "resume", "drop", "retrained"]
HEADER = ("entry", "time", "what", "removed", "method", "seconds", "drift", "model")


@dataclass(kw_only=True)
class ShowLedger:
    """Show or verify the ledger that 'graphunlearn forget --ledger' writes, or continue an interrupted request.

    actions:
      show       list the entries: time, number of ids, method, and drift so far; entries contain no ids
      verify     check that no entry was changed, removed or inserted, that each starts from the model of the previous
                 one, and that the existing run folders hold the models of their entries
      resume     finish an interrupted request; its ids need not be given, since the ledger stores them until then
      drop       discard an interrupted request and erase its ids
      retrained  record the run of --run, which was retrained without the forgotten data, as the newest one

    Entries identify requests by digests. The key of the digests is a file of its own: that of --key, or a file in the
    folder GRAPHUNLEARN_KEYS (default: ~/.config/graphunlearn), or FILE.key beside the ledger, where earlier versions
    put it. With the key, one can check whether an id was forgotten; without it, the digests reveal nothing. Keep it
    apart from the ledger and its copies. A ledger whose key exists, but whose entries are lost, is refused. The number
    of removed interactions, the fingerprints of models and the names of run folders are not encrypted, and may reveal
    something to those who have the earlier data or model. To check with 'verify' that no entries at the end are
    missing, store the hash of the last entry elsewhere and give it with --holds.

    examples:
      graphunlearn ledger show runs/ledger.db
      graphunlearn ledger verify runs/ledger.db
      graphunlearn ledger resume runs/ledger.db
      graphunlearn ledger retrained runs/ledger.db --run runs/new
    """

    action: Annotated[Positional[Action], arg(metavar="{show,verify,resume,drop,retrained}")]
    """One of the actions above."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The ledger."""
    run_folder: Annotated[Path | None, arg(name="run", metavar="RUN", help_behavior_hint="")] = None
    """Run folder of the retrained model, for 'retrained'."""
    holds: Annotated[str | None, optional("HASH")] = None
    """Hash of an entry that the ledger must contain, for 'verify'."""
    key: File = None
    """Key file of the ledger, if it is not in its default place."""
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """Carry out the action."""
        for option, value, action in (("run", self.run_folder, "retrained"), ("holds", self.holds, "verify")):
            if value is not None and self.action != action:
                raise ArgumentError(f"--{option}", f"go with '{action}'", f"it with '{self.action}'")
        if self.action != "verify" or not self.file.is_file():
            existing(self.file, self.key)
        answer: Answer = getattr(self, f"_{self.action}")()
        return answer

    def _show(self) -> Answer:
        from graphunlearn.ledger import Ledger

        ledger = Ledger(self.file, key=self.key)
        entries, pending = ledger.entries(), ledger.pending
        data = {"entries": [entry.to_dict() for entry in entries], "pending": _pending_facts(pending)}
        lines = ["no entries yet"]
        if entries:
            lines = [columns([HEADER, *map(_row, entries)], right=(0, 3, 5, 6)), f"last hash: {entries[-1].hash}"]
            drift = next((entry.drift for entry in reversed(entries) if entry.kind != "audited"), None)
            if drift and drift["spent"] > drift["budget"]:
                lines.append("retrain now: the drift exceeds its budget")
        return Answer(data, "\n".join(lines + _pending_lines(pending, self.file)))

    def _verify(self) -> Answer:
        from graphunlearn.ledger import Ledger
        from graphunlearn.ledger.keys import check_new, choose
        from graphunlearn.ledger.store import Store

        data: dict[str, Any] = {"key": False}
        if not Store.is_made(self.file):  # the first request was interrupted, or the file was emptied
            choose(self.file, self.key)
            check_new(self.file)
            if self.holds is not None:
                raise ArgumentError("ledger", "hold the entry given with '--holds'", f"'{self.file}', which is empty")
            told = f"{self.file} has no entries: its creation was interrupted"
            return Answer(data | {"entries": 0, "pending": None}, told)
        ledger = Ledger(self.file, key=self.key)
        number, data["key"] = ledger.verify(), ledger.has_key
        entries, pending = ledger.entries(), ledger.pending
        if self.holds is not None and not any(entry.hash == self.holds for entry in entries):
            raise ArgumentError("ledger", "hold the entry given with '--holds'", f"'{self.file}' without it")
        newest = {run_folder_of(entry.out, self.file): entry for entry in entries if entry.out is not None}
        there = [folder for folder in newest if folder.exists()]
        for folder in there:
            _check_folder(folder, newest[folder], pending, ledger)
        checked, missing = [*map(str, there)], [str(folder) for folder in newest if folder not in there]
        data |= {"entries": number, "folders": checked, "folders_missing": missing, "pending": _pending_facts(pending)}
        lines = [f"{self.file} is complete and unchanged: {number} {'entry' if number == 1 else 'entries'}"]
        lines += [f"{folder} holds the model of its entry" for folder in checked]
        lines += [f"{folder} no longer exists" for folder in missing]
        lines += [] if data["key"] else ["the key is missing: models were compared, but graphs cannot be compared"]
        return Answer(data, "\n".join(lines + _pending_lines(pending, self.file)))

    def _resume(self) -> Answer:
        from graphunlearn.ledger import Ledger

        with Ledger(self.file, key=self.key) as ledger:
            pending = ledger.pending
            if pending is None:
                raise ArgumentError("ledger", "have a pending request to resume", f"'{self.file}' without one")
            if not pending.command:
                got = "one of a Python program, which must repeat its call of Ledger.unlearn"
                raise ArgumentError("ledger", "have a pending request of 'graphunlearn forget' to resume", got)
            entry = finished(ledger)
            if entry is not None:
                return Answer({"entry": entry.to_dict()}, f"entered as entry {entry.number} of {self.file}")
            given = pending.command
            command = Forget(
                source=Path(given["source"]),
                method=given["method"],
                option=(tuple(given["option"]),),
                seed=given["seed"],
                ledger=self.file,
                key=self.key,
                out=Path(given["out"]),
                running=Running(device=given["device"], overwrite=given["overwrite"], json=self.running.json),
            )
            return command.forget(lambda _: pending.request, ledger)

    def _drop(self) -> Answer:
        from graphunlearn.ledger import Ledger

        with Ledger(self.file, key=self.key) as ledger:
            entry = None if ledger.pending is None else finished(ledger)
            if entry is not None:
                got = f"one that is finished, as entry {entry.number}"
                raise ArgumentError("ledger", "have a pending request that is not finished", got)
            ledger.drop()
        return Answer({"dropped": True}, f"dropped the pending request, and erased it from {self.file}")

    def _retrained(self) -> Answer:
        from graphunlearn.ledger import Ledger
        from graphunlearn.runs.run import Run

        if self.run_folder is None:
            raise ArgumentError("--run", "name the run of the retrained model", "none")
        run, ledger = Run.load(self.run_folder), Ledger(self.file, key=self.key)
        entry = ledger.record_retrained(run.model, run.train, out=relative_to_ledger(self.run_folder, ledger))
        same = entry.graph_before == entry.graph_after
        what = "the data of the newest entry" if same else "other data than those of the newest entry"
        text = f"entry {entry.number} of {self.file}: retrained on {what}; the drift starts again from zero"
        return Answer(entry.to_dict(), text)


def _check_folder(folder: Path, entry: LedgerEntry, pending: PendingRequest | None, ledger: Ledger) -> None:
    """Check that a run folder holds the model and the graph of its newest entry.

    A folder that was already replaced by the pending request is not checked. The graph is not checked if the key of
    the ledger is missing, since the recorded fingerprint of the graph is keyed.

    Raises:
        ArgumentError: The folder holds another model or another graph.
    """
    from graphunlearn.nn.identity import fingerprint
    from graphunlearn.runs.run import Run

    run = Run.load(folder)
    if pending is not None and run.forgotten is not None and run.forgotten.token == pending.token:
        return
    prints = (
        ledger.fingerprints(run.model, run.train) if ledger.has_key else (fingerprint(run.model), entry.graph_after)
    )
    for name, found, wanted in zip(("model", "graph"), prints, (entry.model_after, entry.graph_after)):
        if found != wanted:
            raise ArgumentError(folder, f"hold the {name} of entry {entry.number}", "another")


def _row(entry: LedgerEntry) -> tuple[str, ...]:
    """Return the cells of an entry in the table."""
    from graphunlearn.eval.report.verdict import format_number, format_seconds

    time, model = entry.time.replace("T", " ").removesuffix("+00:00"), (entry.model_after or "")[:12]
    if entry.kind == "audited":
        return str(entry.number), time, f"audit of {entry.of}", "", "", "", "", ""
    if entry.kind == "retrained" or entry.request is None:
        return str(entry.number), time, entry.kind, "", "", "", "", model
    parts = entry.request.get("parts", [entry.request])
    what = ", ".join(counted(part["size"], f"{part['level']}s") for part in parts)
    removed = next(f"{entry.request[noun]:,}" for noun in ("interactions", "clicks") if noun in entry.request)
    drift = "" if entry.drift is None else format_number(entry.drift["spent"])
    return str(entry.number), time, what, removed, str(entry.method), format_seconds(entry.seconds), drift, model


def _pending_facts(pending: PendingRequest | None) -> dict[str, Any] | None:
    """Return the facts about the pending request that may be printed, which exclude its ids."""
    if pending is None:
        return None
    return {"time": pending.time, "method": pending.method, "out": pending.command.get("out")}


def _pending_lines(pending: PendingRequest | None, file: Path) -> list[str]:
    if pending is None:
        return []
    return [f"a request of {pending.time} was interrupted: 'graphunlearn ledger resume {file}' finishes it"]
