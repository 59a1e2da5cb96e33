"""One request to forget after another, written down so that none is lost and none is applied twice."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.drift import BUDGET, Drift
from graphunlearn.ledger.entry import LedgerEntry, PendingError, PendingRequest, as_facts, entry_facts
from graphunlearn.ledger.store import Store, now
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators.base import Unlearner, UnlearningResult

__all__ = ["Ledger"]

Graph: TypeAlias = InteractionGraph | SessionGraph
Save: TypeAlias = Callable[[UnlearningResult], object]
RETRAINING = "retrain"
"""The method after which nothing is left of what others left uncorrected."""


class Ledger:
    r"""A record on disk of the requests that a model has forgotten, one after the other.

    Every request is written down before anything happens, and its entry after the new model is saved:

    1. the request, its ids included, and the fingerprints of model and graph;
    2. the method; then what the entry will say, with the new fingerprints;
    3. ``save(result)``, which is to write the new model and graph whole or not at all;
    4. the entry, and in the same transaction the ids are wiped.

    Should the process be killed anywhere, the same call finishes the request: with the old model it is done again, with
    the new one, where that had been saved, it is only entered. No other request is taken up before.

    An entry says when, how many, by which method and settings, and which model and graph were before and after (by
    fingerprints), but never who: of the request there is a digest, and the key to it is a file beside the ledger,
    ``NAME.key``; without that file digests can no longer be linked to ids, nor to graphs. The number of interactions
    and the fingerprints of models are not keyed: to those who have the data or model of before they may tell something.
    Every entry holds a hash that depends on all before it, and the file refuses to have one changed or deleted: that
    shows tampering with single entries, not last ones that are cut off nor a ledger written anew from the start, so
    note down the last hash elsewhere now and then.

    Forgetting in many small corrections drifts: what each leaves over adds up (:class:`~graphunlearn.operators.Drift`).
    When it has spent the budget, the ledger warns that it is time to retrain.

    Args:
        path: The file; it is made where there is none.
        budget: How much may be left over; ``None`` to measure nothing.

    Raises:
        ValueError: The file is something else, is broken, or is in use by another process.

    Example:
        >>> import pathlib, tempfile, torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=200, num_items=60, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> _ = gu.fit(model, graph, epochs=5)
        >>> ledger = gu.Ledger(pathlib.Path(tempfile.mkdtemp(), "ledger.db"))
        >>> for user in ("u3", "u4"):
        ...     result = ledger.unlearn(gu.IFRU(), model, graph, gu.ForgetRequest("user", [user]))
        ...     model, graph = result.model, result.graph
        >>> [(entry.number, entry.method, entry.request["size"]) for entry in ledger.entries()]
        [(1, 'ifru', 1), (2, 'ifru', 1)]
        >>> ledger.verify(model)
        2
    """

    def __init__(self, path: str | Path, *, budget: float | None = BUDGET) -> None:
        if budget is not None and not 0 < budget < math.inf:
            raise ArgumentError("budget", "be positive and finite, or None to measure no drift", budget)
        self.path, self.budget = Path(path), budget
        self._held: tuple[AbstractContextManager[Store], Store] | None = None
        if not Store.is_made(self.path):
            with Store.writing(self.path):
                pass
        self.entries()

    def __enter__(self) -> Ledger:
        """Keep every other process out until the block ends."""
        opened = Store.writing(self.path)
        self._held = opened, opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._held is not None
        opened, self._held = self._held[0], None
        opened.__exit__(kind, error, trace)

    @contextmanager
    def _open(self, write: bool = True) -> Iterator[Store]:
        if self._held is not None:
            yield self._held[1]
            return
        with (Store.writing if write else Store.reading)(self.path) as store:
            yield store

    def entries(self) -> list[LedgerEntry]:
        """Return all entries, the oldest first."""
        with self._open(write=False) as store:
            return store.entries()

    @property
    def pending(self) -> PendingRequest | None:
        """The request that was interrupted, if one was: give it to :meth:`unlearn` again, or :meth:`drop` it."""
        with self._open(write=False) as store:
            return store.request()

    def fingerprints(self, model: nn.Module, graph: Graph) -> tuple[str, str]:
        """Return what entries tell a model and its graph by; the graph's is keyed, for what was taken out of it is few.

        Raises:
            ValueError: The key is gone.
        """
        with self._open(write=False) as store:
            return _prints(store, model, graph)

    def find(self, request: ForgetRequest, model: nn.Module, graph: Graph) -> LedgerEntry | None:
        """Return the entry of a request that is done already.

        Args:
            request: What is to be forgotten.
            model: The model it is to be forgotten from; one of those that the ledger tells of.
            graph: Its graph. Positions of clicks mean something else in every graph, so that a request with clicks
                is another one where the graph is another.

        Returns:
            The entry; ``None`` where there is none, or the ledger knows nothing of the model.
        """
        with self._open(write=False) as store:
            digest, given = request.digest(store.key()), _prints(store, model, graph)
            return _entry_of(store.entries(), digest, request, *given)

    def unlearn(
        self,
        method: Unlearner,
        model: nn.Module,
        graph: Graph,
        request: ForgetRequest,
        *,
        save: Save | None = None,
        objective: Criterion | None = None,
        out: str | Path | None = None,
        asked: ForgetRequest | None = None,
        command: Mapping[str, Any] | None = None,
    ) -> UnlearningResult:
        """Forget a request and enter it; finish it where it was interrupted; do nothing where it is done.

        Args:
            method: The unlearning method.
            model: The newest model of the ledger, or any for the first request.
            graph: Its graph.
            request: What to forget.
            save: Writes the new model and graph to where they will be loaded from, whole or not at all. Without it the
                entry is made as soon as the method is done.
            objective: The loss the model was trained with, for the drift (default: the method's, or the shared one).
            out: Where ``save`` puts the model, for the entry.
            asked: What the ledger knows the request by, where ``request`` is only the part of it that the model
                learned from.
            command: Kept with the request until it is done, for whoever goes on with it; JSON-able.

        Returns:
            The :class:`UnlearningResult`; ``result.log["ledger"]`` holds the number of the entry and the drift. For a
            request that is done already, model and graph are those passed.

        Raises:
            ValueError: Another request was interrupted, the model is not the newest, the request is done and the
                model is an older one, or the method refuses.
        """
        asked = request if asked is None else asked
        with self._open() as store:
            digest, given = asked.digest(store.key()), _prints(store, model, graph)
            pending, entries = store.request(), _checked(store)
            newest = _newest(entries)
            if pending is not None and digest != pending.request.digest(store.key()):
                raise PendingError.of(self.path, pending)
            if pending is not None and pending.after == given:
                assert pending.entry is not None
                return _as_result(self._commit(store, pending.entry), model, graph, request)
            done = _entry_of(entries, digest, asked, *given)
            if done is not None and newest is not None:
                if (newest.model_after, newest.graph_after) != given:
                    raise ArgumentError("request", "not be done yet", f"one that entry {done.number} tells of")
                return _as_result(done, model, graph, request)
            _check_newest(newest, *given)
            facts = {
                "request": as_facts(asked),
                "digest": digest,
                "time": now(),
                "method": method.name,
                "model": given[0],
                "graph": given[1],
                "token": secrets.token_hex(16),
                "out": None if out is None else str(out),
                "command": dict(command or {}),
            }
            earlier = store.pending()
            store.begin(facts)
            try:
                result = method.unlearn(model, graph, request)
                entry = entry_facts(facts, method, graph, result, _prints(store, result.model, result.graph))
                if self.budget is not None and method.name != RETRAINING:
                    loss = objective or getattr(method, "objective", None) or default_objective(graph)
                    models = model if result.original is None else result.original, graph, result.model, result.graph
                    entry["drift"] = asdict(Drift.after(_drift(entries), *models, loss, self.budget))
                store.begin(facts | {"entry": entry})
            except BaseException:
                if pending is None or pending.entry is None:
                    store.drop()  # nothing has changed anywhere: there is nothing to go on with
                elif earlier is not None:
                    store.begin(earlier)  # what an earlier attempt came to may be saved already
                raise
            number = store.rows()[-1][0] + 1
            result.log["ledger"] = {"entry": number} | ({"drift": entry["drift"]} if "drift" in entry else {})
            if save is not None:
                save(result)
            self._commit(store, entry)
            return result

    def finish(self, model: nn.Module, graph: Graph) -> LedgerEntry:
        """Enter the request under way, whose model had been saved before the interruption.

        Args:
            model: That model.
            graph: Its graph.

        Raises:
            ValueError: There is no such request, or they are not what the method left.
        """
        with self._open() as store:
            pending = store.request()
            if pending is None or pending.entry is None:
                raise ArgumentError("ledger", "have a request to be entered", f"'{self.path}' without one")
            if _prints(store, model, graph) != pending.after:
                raise ArgumentError("model", "be what the request under way came to, with its graph", "another")
            return self._commit(store, pending.entry)

    def drop(self) -> None:
        """Wipe the request under way, as if it had never been asked; only where its new model is not in use.

        Raises:
            ValueError: There is none.
        """
        with self._open() as store:
            if store.pending() is None:
                raise ArgumentError("ledger", "have a request under way to drop", f"'{self.path}' without one")
            store.drop()

    def record_audit(self, number: int, figures: Mapping[str, Any]) -> LedgerEntry:
        """Add what an audit of a request found, in an entry of its own.

        Args:
            number: The entry of the request.
            figures: What was found; JSON-able.

        Raises:
            ValueError: There is no such entry of a request.
        """
        with self._open() as store:
            known = [entry.number for entry in store.entries() if entry.kind == "forgotten"]
            if number not in known:
                raise ArgumentError("number", f"be one of a request, {', '.join(map(str, known))}", number)
            return _append(store, {"kind": "audited", "of": number, "figures": dict(figures)})

    def record_retrained(self, model: nn.Module, graph: Graph, *, out: str | Path | None = None) -> LedgerEntry:
        """Go on from a model that was trained anew; the drift begins again.

        Args:
            model: The new model. That it never saw what is forgotten is not checked: see to it that ``graph`` is the
                newest one, with or without what has come since.
            graph: What it was trained on.
            out: Where it is, for the entry.

        Raises:
            ValueError: A request is under way.
        """
        with self._open() as store:
            pending, newest = store.request(), _newest(store.entries())
            if pending is not None:
                raise PendingError.of(self.path, pending)
            after = _prints(store, model, graph)
            content: dict[str, Any] = {"kind": "retrained", "model_after": after[0], "graph_after": after[1]}
            if newest is not None:
                content |= {"model_before": newest.model_after, "graph_before": newest.graph_after}
            return _append(store, content | ({} if out is None else {"out": str(out)}))

    def verify(self, model: nn.Module | None = None) -> int:
        """Check that no entry was changed, left out or put in, and that each starts from the model before it.

        Args:
            model: A model that is to be the newest.

        Returns:
            The number of entries.

        Raises:
            ValueError: Something is wrong; the first such entry is named.
        """
        with self._open(write=False) as store:
            entries = _checked(store)
        if model is not None:
            newest = _newest(entries)
            if newest is None:
                raise ArgumentError("ledger", "have a model to compare with", f"'{self.path}' without entries")
            if fingerprint(model) != newest.model_after:
                raise ArgumentError("model", f"be the newest, of entry {newest.number}", "another")
        return len(entries)

    def _commit(self, store: Store, entry: Mapping[str, Any]) -> LedgerEntry:
        added = _append(store, entry)
        if added.drift is not None and added.drift["spent"] > added.drift["budget"]:
            warnings.warn(
                f"retrain now: the drift is {added.drift['spent']:.2g} after {added.drift['requests']} "
                f"request{'s' if added.drift['requests'] > 1 else ''}, and its budget {added.drift['budget']:g}",
                stacklevel=3,
            )
        return added


def _append(store: Store, content: Mapping[str, Any]) -> LedgerEntry:
    store.append(content)
    return store.entries()[-1]


def _prints(store: Store, model: nn.Module, graph: Graph) -> tuple[str, str]:
    """Return the fingerprint of a model and that of its graph, which is keyed."""
    return fingerprint(model), keyed(graph.fingerprint(), store.key())


def _newest(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the entry that tells of the newest model."""
    return next((entry for entry in reversed(entries) if entry.kind != "audited"), None)


def _entry_of(
    entries: Sequence[LedgerEntry], digest: str, request: ForgetRequest, model: str, graph: str
) -> LedgerEntry | None:
    """Return the entry of a request, if it is done and the ledger knows the model it is asked of.

    Positions of clicks are those of one graph, so that a request with clicks is the same for the same graph alone. A
    model that was trained anew on other data may have learned again what was forgotten before: from there on a request
    is a new one.
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


def _check_newest(newest: LedgerEntry | None, model: str, graph: str) -> None:
    """Refuse to go on from any other model than the newest, or with another graph."""
    if newest is None or (newest.model_after, newest.graph_after) == (model, graph):
        return
    where = "" if newest.out is None else f", put at '{newest.out}'"
    raise ArgumentError(
        "model",
        f"be the newest that the ledger tells of, that of entry {newest.number}{where}, with its graph",
        "another; to forget from an older one would bring back what was forgotten since",
    )


def _checked(store: Store) -> list[LedgerEntry]:
    """Return all entries, if none was changed, left out or put in, and each goes on from the model before."""
    store.check_rows()
    entries = store.entries()
    models = [entry for entry in entries if entry.kind != "audited"]
    for one, two in pairwise(models):
        if (one.model_after, one.graph_after) != (two.model_before, two.graph_before):
            raise ArgumentError(
                "ledger",
                "go on from every model",
                f"'{store.path}', where entry {two.number} starts from another than entry {one.number} left",
            )
    store.check_guards()
    return entries


def _drift(entries: Sequence[LedgerEntry]) -> Drift | None:
    """Return the drift so far, since a model was last trained."""
    drift = None
    for entry in entries:
        if entry.kind == "retrained" or entry.method == RETRAINING:
            drift = None
        elif entry.drift is not None:
            drift = Drift(**entry.drift)
    return drift


def _as_result(entry: LedgerEntry, model: nn.Module, graph: Graph, request: ForgetRequest) -> UnlearningResult:
    """Return what an entry tells of as a result, with the model and graph that came of it."""
    log: dict[str, Any] = {"ledger": {"entry": entry.number} | ({} if entry.drift is None else {"drift": entry.drift})}
    return UnlearningResult(model, graph, request, str(entry.method), entry.seconds or 0.0, 0.0, None, 0, log)
