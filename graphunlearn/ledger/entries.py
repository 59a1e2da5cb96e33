"""Questions to the entries of a ledger: which model is the newest, which request is finished, and what the drift is."""

from __future__ import annotations

from collections.abc import Sequence

from graphunlearn.data import ForgetRequest
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.drift import Drift
from graphunlearn.ledger.entry import LedgerEntry

__all__ = ["RETRAINING", "check_newest", "drift_of", "entry_of", "newest_of"]

RETRAINING = "retrain"
"""Name of the method that resets the drift, because it trains a new model."""


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
    anew = [place for place, entry in enumerate(entries) if entry.kind == "retrained"]
    for place in reversed(anew):
        after = {(entry.model_after, entry.graph_after) for entry in entries[place:]}
        if entries[place].graph_before != entries[place].graph_after and (model, graph) in after:
            entries = entries[place:]
            break
    for entry in entries if model in known else []:
        if entry.digest == digest and (not clicks or entry.graph_before == graph):
            return entry
    return None


def check_newest(newest: LedgerEntry | None, model: str, graph: str) -> None:
    """Raise an error if the model or the graph is not the newest."""
    if newest is None or (newest.model_after, newest.graph_after) == (model, graph):
        return
    where = "" if newest.out is None else f", saved to '{newest.out}'"
    wanted = f"be the newest model of the ledger, that of entry {newest.number}{where}, with its graph"
    hint = "an older model still contains what was forgotten since"
    raise ArgumentError("model", wanted, "another", hint)


def drift_of(entries: Sequence[LedgerEntry]) -> Drift | None:
    """Return the drift since a model was last trained; ``None`` if nothing has been forgotten since."""
    drift = None
    for entry in entries:
        if entry.kind == "retrained" or entry.method == RETRAINING:
            drift = None
        elif entry.drift is not None:
            drift = Drift(**entry.drift)
    return drift
