"""What the rows of a ledger amount to: entries in a chain, a newest model, a request under way, the drift so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.drift import Drift
from graphunlearn.ledger.entry import LedgerEntry, PendingRequest, parsed
from graphunlearn.ledger.store import Store, chained, key_file, read_key
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.operators.base import UnlearningResult

__all__ = [
    "RETRAINING",
    "PendingError",
    "append",
    "as_result",
    "check_newest",
    "checked",
    "digest_of",
    "drift_of",
    "entries_of",
    "entry_of",
    "newest_of",
    "pending_of",
    "prints",
    "refusal",
]

RETRAINING = "retrain"
"""The method after which nothing is left of what others left uncorrected."""


def entries_of(store: Store) -> list[LedgerEntry]:
    """Return all entries but the one that the ledger was made with."""
    return [LedgerEntry.read(content, found) for _, content, found in _rows(store)[1:]]


def _rows(store: Store) -> list[tuple[int, str, str]]:
    rows = store.rows()
    if not rows:
        raise ArgumentError("ledger", "have a first entry", f"'{store.path}' without")
    return rows


def pending_of(store: Store) -> PendingRequest | None:
    """Return the request that is under way."""
    facts = store.pending()
    return None if facts is None else PendingRequest.of(facts)


def newest_of(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the entry that tells of the newest model."""
    return next((entry for entry in reversed(entries) if entry.kind != "audited"), None)


def append(store: Store, content: Mapping[str, Any]) -> LedgerEntry:
    """Add an entry and return it."""
    store.append(content)
    return entries_of(store)[-1]


def prints(store: Store, model: nn.Module, graph: InteractionGraph | SessionGraph) -> tuple[str, str]:
    """Return the fingerprint of a model and that of its graph, which is keyed.

    Raises:
        ValueError: The key is gone, or another.
    """
    return fingerprint(model), keyed(graph.fingerprint(), _key(store))


class PendingError(ArgumentError):
    """A ledger where another request is under way, and the file that it is in."""

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, path: Path | None = None) -> None:
        super().__init__(argument, expected, got, hint)
        self.path = path


def refusal(path: Path, pending: PendingRequest) -> PendingError:
    """Return what to say where another request is under way."""
    return PendingError(
        "ledger",
        "have no other request under way",
        f"'{path}' with one of {pending.time} that was interrupted",
        "give that one again to finish it",
        path=path,
    )


def digest_of(store: Store, request: ForgetRequest) -> str:
    """Return the digest of a request with the key of the ledger.

    Raises:
        ValueError: The key is gone, or another.
    """
    return request.digest(_key(store))


def _key(store: Store) -> bytes:
    return read_key(store.path, parsed(_rows(store)[0][1]).get("key"))


def entry_of(store: Store, digest: str, request: ForgetRequest, model: str, graph: str) -> LedgerEntry | None:
    """Return the entry of a request, if it is done and the ledger knows the model it is asked of.

    Positions of clicks are those of one graph, so that a request with clicks is the same for the same graph alone. A
    model that was trained anew on other data may have learned again what was forgotten before: from there on a request
    is a new one.
    """
    entries = entries_of(store)
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
    """Refuse to go on from any other model than the newest, or with another graph.

    Raises:
        ValueError: It is another.
    """
    if newest is None or (newest.model_after, newest.graph_after) == (model, graph):
        return
    where = "" if newest.out is None else f", put at '{newest.out}'"
    raise ArgumentError(
        "model",
        (f"be the newest that the ledger tells of, that of entry {newest.number}{where}, with its graph"),
        "another; to forget from an older one would bring back what was forgotten since",
    )


def checked(store: Store) -> list[LedgerEntry]:
    """Return all entries, if none was changed, left out or put in, and each goes on from the model before.

    Raises:
        ValueError: Something is wrong, or the key is another one.
    """
    path, rows, previous = store.path, _rows(store), ""
    for place, (number, content, found) in enumerate(rows):
        if number != place or parsed(content).get("number") != place:
            raise ArgumentError("ledger", "be without gaps", f"'{path}', which lacks entry {place}")
        if chained(previous, content) != found:
            raise ArgumentError("ledger", "be as it was written", f"'{path}', where entry {place} was changed")
        previous = found
    entries = entries_of(store)
    models = [entry for entry in entries if entry.kind != "audited"]
    for one, two in pairwise(models):
        if (one.model_after, one.graph_after) != (two.model_before, two.graph_before):
            raise ArgumentError(
                "ledger",
                "go on from every model",
                f"'{path}', where entry {two.number} starts from another than entry {one.number} left",
            )
    if key_file(path).exists():
        read_key(path, parsed(rows[0][1]).get("key"))
    if not store.is_guarded():
        raise ArgumentError("ledger", "refuse to have entries changed", f"'{path}', where that was taken out")
    return entries


def drift_of(store: Store) -> Drift | None:
    """Return the drift so far, since a model was last trained."""
    drift = None
    for entry in entries_of(store):
        if entry.kind == "retrained" or entry.method == RETRAINING:
            drift = None
        elif entry.drift is not None:
            drift = Drift(**entry.drift)
    return drift


def as_result(
    entry: LedgerEntry, model: nn.Module, graph: InteractionGraph | SessionGraph, request: ForgetRequest
) -> UnlearningResult:
    """Return what an entry tells of as a result, with the model and graph that came of it."""
    log: dict[str, Any] = {"ledger": {"entry": entry.number} | ({} if entry.drift is None else {"drift": entry.drift})}
    return UnlearningResult(model, graph, request, str(entry.method), entry.seconds or 0.0, 0.0, None, 0, log)
