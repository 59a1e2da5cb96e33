"""Helpers of the commands that use a ledger: interrupted requests, run folders, audits."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    from graphunlearn.data.io.folders import clear_leftovers
    from graphunlearn.runs.code import CodeError
    from graphunlearn.runs.run import Run

    pending = ledger.pending
    if pending is None or "out" not in pending.command:
        return None
    out = Path(pending.command["out"])
    clear_leftovers(out)
    if _token(out) != pending.token:
        return None
    try:
        run = Run.load(out)
        entry = ledger.finish(run.model, run.train)
    except CodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{error}; the pending request wrote '{out}': move it away to repeat the request") from None
    note(f"entered the request of {pending.time}, which was interrupted after '{out}' was written")
    return entry


def not_entered(error: ArgumentError, run: Run) -> ArgumentError:
    """Return the error of a ledger about a run, with a hint if 'erase' wrote the run and may not have entered it.

    Args:
        error: The error.
        run: The run.
    """
    from graphunlearn.runs.erasing import ERASED

    if error.argument != "model" or not error.expected.startswith("be the newest") or ERASED not in run.about:
        return error
    hint = "if 'erase' wrote this run, the same 'erase' with '--ledger' enters it"
    return ArgumentError("model", error.expected, error.got, hint)


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


def _token(out: Path) -> str | None:
    """Return the token of the request that a run folder was written for, if any."""
    for name in ("unlearning.json", "run.json"):  # a deletion job writes no unlearning.json
        try:
            facts = json.loads((out / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict):
            token = facts.get("token") if name == "unlearning.json" else facts.get("about", {}).get("token")
            return token if isinstance(token, str) else None
    return None
