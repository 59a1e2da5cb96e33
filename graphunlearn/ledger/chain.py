"""What a chain of entries says: whether it is whole, which model is the newest, and how far it has drifted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from graphunlearn.data import ForgetRequest
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.drift import Drift
from graphunlearn.ledger.entry import LedgerEntry
from graphunlearn.ledger.store import Store
from graphunlearn.operators.base import UnlearningResult

__all__ = ["RETRAINING", "as_result", "check_newest", "checked_entries", "drift_of"]

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
