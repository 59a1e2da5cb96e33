"""What a chain of entries says: whether it is whole, which model is the newest, and how far it has drifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from graphunlearn.data import ForgetRequest
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.drift import Drift
from graphunlearn.ledger.entry import LedgerEntry
from graphunlearn.ledger.store import Store
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.operators.base import UnlearningResult

__all__ = [
    "RETRAINING",
    "append",
    "append_model",
    "as_result",
    "check_newest",
    "checked_entries",
    "drift_of",
    "entry_of",
    "follow",
    "newest_of",
    "prints_of",
]

RETRAINING = "retrain"
"""Name of the method that resets the drift, because it trains a new model."""


def check_newest(newest: LedgerEntry | None, model: str, graph: str) -> None:
    """Raise an error if the model or the graph is not the newest."""
    if newest is None or (newest.model_after, newest.graph_after) == (model, graph):
        return
    where = "" if newest.out is None else f", saved to '{newest.out}'"
    wanted = f"be the newest model of the ledger, that of entry {newest.number}{where}, with its graph"
    hint = "an older model still contains what was forgotten since"
    raise ArgumentError("model", wanted, "another", hint)


def checked_entries(store: Store) -> list[LedgerEntry]:
    """Return all entries; raise an error if one was changed or does not start from the model of the previous one."""
    store.check_rows()
    entries = store.entries()
    models = [entry for entry in entries if entry.kind != "audited"]
    for one, two in pairwise(models):
        if (one.model_after, one.graph_after) != (two.model_before, two.graph_before):
            got = f"'{store.path}', where entry {two.number} does not start from the model of entry {one.number}"
            raise ArgumentError("ledger", "continue from every model", got)
    store.check_guards()
    return entries


def drift_of(entries: Sequence[LedgerEntry]) -> Drift | None:
    """Return the drift since a model was last trained; ``None`` if nothing has been forgotten since."""
    drift = None
    for entry in entries:
        if entry.kind == "retrained" or entry.method == RETRAINING:
            drift = None
        elif entry.drift is not None:
            drift = Drift(**entry.drift)
    return drift


def as_result(entry: LedgerEntry, model: nn.Module, graph: Any, request: ForgetRequest) -> UnlearningResult:
    """Return the result that an entry describes, with the given model and graph."""
    log: dict[str, Any] = {"ledger": {"entry": entry.number} | ({} if entry.drift is None else {"drift": entry.drift})}
    if entry.accepted is not None:
        kept = (entry.settings or {}).get("on_rejection") == "keep"
        outcome = "corrected" if entry.accepted else "kept" if kept else "unlink-redraw"
        log["acceptance"] = {"accepted": entry.accepted, "outcome": outcome}
    return UnlearningResult(model, graph, request, str(entry.method), entry.seconds or 0.0, 0.0, None, 0, log)


def newest_of(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the entry of the newest model; ``None`` if there is none."""
    return next((entry for entry in reversed(entries) if entry.kind != "audited"), None)


def entry_of(
    entries: Sequence[LedgerEntry], digest: str, request: ForgetRequest, model: str, graph: str
) -> LedgerEntry | None:
    """Return the entry of a request; ``None`` if it is not finished or the ledger does not contain the model.

    Clicks are identified by positions in a graph, so a request with clicks only matches an entry of the same graph. A
    model that was retrained on other data may have learned the forgotten data again; only entries since then count.
    """
    known = {known for entry in entries for known in (entry.model_before, entry.model_after)}
    clicks = any(part.level == "click" for part in request.parts)
    anew = [place for place, entry in enumerate(entries) if entry.kind in ("retrained", "extended")]
    for place in reversed(anew):
        after = {(entry.model_after, entry.graph_after) for entry in entries[place:]}
        if entries[place].graph_before != entries[place].graph_after and (model, graph) in after:
            entries = entries[place:]
            break
    for entry in entries if model in known else []:
        if entry.digest == digest and (not clicks or entry.graph_before == graph):
            return entry
    return None


def append(store: Store, content: Mapping[str, Any]) -> LedgerEntry:
    """Add an entry, and return it."""
    store.append(content)
    return store.entries()[-1]


def append_model(
    store: Store,
    content: Mapping[str, Any],
    after: tuple[str, str],
    before: tuple[str, str] | None,
    out: str | Path | None,
) -> LedgerEntry:
    """Add an entry of a new model that no request made, and return it.

    Args:
        store: The ledger.
        content: The kind of the entry and what it tells.
        after: Fingerprints of the new model and of its graph.
        before: Fingerprints of the newest model and of its graph, if there is one.
        out: The path of the new model.
    """
    facts = dict(content) | ({} if before is None else {"model_before": before[0], "graph_before": before[1]})
    facts |= {"model_after": after[0], "graph_after": after[1]}
    return append(store, facts | ({} if out is None else {"out": str(out)}))


def follow(
    store: Store,
    content: Mapping[str, Any],
    after: tuple[str, str],
    before: tuple[str, str],
    save: Callable[[], object] | None,
    out: str | Path | None,
) -> LedgerEntry:
    """Add an entry of a model that was made of the newest one; if it is the newest already, it is saved alone.

    Args:
        store: The ledger.
        content: The kind of the entry and what it tells.
        after: Fingerprints of the new model and of its graph.
        before: Fingerprints of the model that it was made of, and of its graph.
        save: A function that writes the new model; it is called before the entry is added.
        out: The path of the new model.

    Raises:
        ArgumentError: The model that it was made of is not the newest.
    """
    newest = newest_of(checked_entries(store))
    done = newest is not None and (newest.kind, newest.model_after, newest.graph_after) == (content["kind"], *after)
    if not done:
        check_newest(newest, *before)
    if save is not None:
        save()
    return newest if done and newest is not None else append_model(store, content, after, before, out)


def prints_of(store: Store, model: nn.Module, graph: Any) -> tuple[str, str]:
    """Return the fingerprint of a model and the keyed fingerprint of its graph."""
    return fingerprint(model), keyed(graph.fingerprint(), store.key())
