"""What commands have to do with a ledger: interrupted requests, run folders, audits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphunlearn.cli._text import note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.ledger import Ledger, LedgerEntry
    from graphunlearn.runs.run import Run

__all__ = ["audit_figures", "entry_of_run", "existing", "finished", "place_of", "told_path"]


def existing(file: Path) -> Ledger:
    """Return the ledger in a file.

    Raises:
        ValueError: There is none.
    """
    from graphunlearn.ledger import Ledger
    from graphunlearn.ledger.store import Store

    if not file.is_file():
        raise ArgumentError("ledger", "be an existing file", f"'{file}'")
    if not Store.is_made(file):
        raise ArgumentError("ledger", "have a first entry", f"'{file}', which is empty")
    return Ledger(file)


def finished(ledger: Ledger) -> LedgerEntry | None:
    """Enter the request under way if its folder was written before the interruption, and clear up beside that folder.

    Returns:
        The entry that was made.

    Raises:
        ValueError: The folder was changed since.
    """
    from graphunlearn.runs.run import Run

    pending = ledger.pending
    if pending is None or "out" not in pending.command:
        return None
    out = Path(pending.command["out"])
    _clear(out)
    if _token(out) != pending.token:
        return None
    try:
        run = Run.load(out)
        entry = ledger.finish(run.model, run.train)
    except ValueError as error:
        raise ValueError(f"{error}; a request under way wrote '{out}': move it away to do the request again") from None
    note(f"entered the request of {pending.time}, which was interrupted after '{out}' was written")
    return entry


def told_path(out: Path, ledger: Ledger) -> str:
    """Return how an entry tells of a folder: as seen from the ledger, so that both can be moved."""
    try:
        return Path(os.path.relpath(out.absolute(), ledger.path.absolute().parent)).as_posix()
    except ValueError:  # on another drive
        return str(out.absolute())


def place_of(told: str, file: Path) -> Path:
    """Return the folder that an entry of the ledger in ``file`` tells of."""
    return Path(os.path.relpath(file.absolute().parent / told))


def entry_of_run(ledger: Ledger, run: Run) -> int:
    """Return the number of the entry that tells of the run.

    Raises:
        ValueError: There is none.
    """
    after = ledger.fingerprints(run.model, run.train)
    for entry in reversed(ledger.entries()):
        if entry.kind == "forgotten" and (entry.model_after, entry.graph_after) == after:
            return entry.number
    raise ArgumentError("--ledger", "be the one that tells of the run", f"'{ledger.path}', which does not")


def audit_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a ledger keeps of the report on a run: figures and the verdict, and nothing on single ids."""
    from graphunlearn.data.io.plain import json_ready
    from graphunlearn.eval.report.verdict import REFERENCES, judge

    method = next(entry for entry in report["methods"] if entry["name"] not in REFERENCES)
    kept = ("value", "retrain_mean", "retrain_sd", "gap_closed")
    forgetting = {
        name: {key: entry[key] for key in kept if key in entry}
        for name, entry in (method["forgetting"] or {}).items()
        if isinstance(entry, Mapping)
    }
    figures = {name: method[name] for name in ("utility", "distance_to_retrain")} | {"forgetting": forgetting}
    verdict = judge(method).short
    plain: dict[str, Any] = json_ready(figures | {"verdict": verdict, "seeds": report["seeds"]})
    return plain


def _clear(out: Path) -> None:
    """Put back a folder that was about to be replaced, and remove one that was in the making."""
    for role in ("old", "new"):
        for left in out.parent.glob(f".{escape(out.name)}.{'?' * 8}.{role}"):
            if role == "old" and not out.exists():
                left.rename(out)
            else:
                shutil.rmtree(left)


def _token(out: Path) -> str | None:
    try:
        facts = json.loads((out / "unlearning.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts.get("token") if isinstance(facts, dict) else None
