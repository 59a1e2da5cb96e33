"""Helpers of the commands that use a ledger: interrupted requests, run folders, audits."""

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


def existing(file: Path, key: Path | None = None) -> Ledger:
    """Return the ledger in a file.

    Args:
        file: The file.
        key: Its key file, if it is not in the default place.

    Raises:
        ArgumentError: The file does not exist, or it has no entries yet.
    """
    from graphunlearn.ledger import Ledger
    from graphunlearn.ledger.keys import check_new, choose
    from graphunlearn.ledger.store import Store

    if not file.is_file():
        raise ArgumentError("ledger", "be an existing file", f"'{file}'")
    if not Store.is_made(file):
        choose(file, key)
        check_new(file)
        raise ArgumentError("ledger", "have a first entry", f"'{file}', which is empty")
    return Ledger(file, key=key)


def check_no_key(key: Path | None) -> None:
    """Check that no key is given without a ledger.

    Args:
        key: The key file.

    Raises:
        ArgumentError: There is one.
    """
    if key is not None:
        raise ArgumentError("--key", "go with '--ledger'", f"'{key}' without it")


def finished(ledger: Ledger) -> LedgerEntry | None:
    """Enter the pending request if its run folder was written before the interruption.

    Temporary folders that the interruption left beside the run folder are removed.

    Args:
        ledger: The ledger.

    Returns:
        The new entry, or ``None`` if no request is pending or its folder was not written.

    Raises:
        ValueError: The folder has been changed since it was written.
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
        raise ValueError(f"{error}; the pending request wrote '{out}': move it away to repeat the request") from None
    note(f"entered the request of {pending.time}, which was interrupted after '{out}' was written")
    return entry


def relative_to_ledger(out: Path, ledger: Ledger) -> str:
    """Return the path of a run folder relative to the ledger, so that both can be moved together.

    Args:
        out: The folder.
        ledger: The ledger.

    Returns:
        The path; absolute if the folder is on another drive.
    """
    try:
        return Path(os.path.relpath(out.absolute(), ledger.path.absolute().parent)).as_posix()
    except ValueError:
        return str(out.absolute())


def run_folder_of(path: str, file: Path) -> Path:
    """Return a run folder from the path in an entry; the reverse of :func:`relative_to_ledger`.

    Args:
        path: The path in the entry.
        file: The file of the ledger.
    """
    return Path(os.path.relpath(file.absolute().parent / path))


def entry_of_run(ledger: Ledger, run: Run) -> int:
    """Return the number of the newest entry whose request resulted in a run.

    Args:
        ledger: The ledger.
        run: The run.

    Raises:
        ArgumentError: There is no such entry.
    """
    after = ledger.fingerprints(run.model, run.train)
    for entry in reversed(ledger.entries()):
        if entry.kind == "forgotten" and (entry.model_after, entry.graph_after) == after:
            return entry.number
    raise ArgumentError("--ledger", "have an entry of the run", f"'{ledger.path}' without one")


def audit_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures and the verdict of a report, for a ledger; they contain no ids.

    Args:
        report: The report of an audit of one method.
    """
    from graphunlearn.data.io.plain import json_ready
    from graphunlearn.eval.report.verdict import REFERENCES, judge

    method = next(entry for entry in report["methods"] if entry["name"] not in REFERENCES)
    kept = ("value", "retrain_mean", "retrain_sd", "gap_closed")
    figures = {name: method[name] for name in ("utility", "distance_to_retrain")}
    figures["forgetting"] = {
        name: {key: entry[key] for key in kept if key in entry}
        for name, entry in (method["forgetting"] or {}).items()
        if isinstance(entry, Mapping)
    }
    figures |= {"verdict": judge(method).short, "seeds": report["seeds"]}
    plain: dict[str, Any] = json_ready(figures)
    return plain


def _clear(out: Path) -> None:
    """Restore a folder whose replacement was interrupted, and delete its unfinished successor."""
    for role in ("old", "new"):
        for left in out.parent.glob(f".{escape(out.name)}.{'?' * 8}.{role}"):
            if role == "old" and not out.exists():
                left.rename(out)
            else:
                shutil.rmtree(left)


def _token(out: Path) -> str | None:
    """Return the token of the request that a run folder was written for, if any."""
    try:
        facts = json.loads((out / "unlearning.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts.get("token") if isinstance(facts, dict) else None
