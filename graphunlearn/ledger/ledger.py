"""A ledger of successive forget requests: none is lost, and none is applied twice."""

from __future__ import annotations

import hmac
import math
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.chain import (
    RETRAINING,
    append,
    as_result,
    check_newest,
    checked_entries,
    drift_of,
    entry_of,
    newest_of,
    prints_of,
)
from graphunlearn.ledger.drift import BUDGET, Drift
from graphunlearn.ledger.entry import LedgerEntry, PendingError, PendingRequest, as_facts, entry_facts
from graphunlearn.ledger.keys import check_new, choose
from graphunlearn.ledger.records import Records
from graphunlearn.ledger.store import Store, now
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators.base import Unlearner, UnlearningResult

__all__ = ["Ledger"]

Graph: TypeAlias = InteractionGraph | SessionGraph
Save: TypeAlias = Callable[[UnlearningResult], object]


class Ledger(Records):
    r"""A record on disk of the requests that a model has forgotten, one after the other.

    A request is processed in four steps:

    1. The request, with its ids and the fingerprints of the model and graph, is stored as pending.
    2. The method runs. The content of the future entry, with the new fingerprints, is stored as well.
    3. ``save(result)`` writes the new model and graph; it must be atomic.
    4. One transaction adds the entry and erases the ids.

    One process at a time works on requests, others wait until it is done or has ended, and all can read. A program
    that shares a ledger with others loads the newest model in a block ``with ledger:``, so that nothing comes between.

    If the process is killed at any point, repeating the call finishes the request. Given the old model, the call
    repeats the method; given the new model, if it was saved, the call only adds the entry. Until then, the ledger
    accepts no other request.

    An entry records the time, the number of ids, the method with its settings, and the fingerprints of the model and
    graph before and after, but no ids. It contains a digest of the request, whose key is in a file of its own, apart
    from the ledger. Without this file, neither digests nor graphs can be linked to ids any more. Two facts are not
    keyed: the number of interactions and the fingerprints of models. They may reveal something to those who hold the
    earlier data or model. A ledger whose key exists, but whose entries are lost, is refused.

    Every entry contains a hash that depends on all previous entries, and the file prevents changes and deletions of
    entries. This reveals changes of single entries. It reveals neither the removal of the last entries nor a ledger
    that was rewritten from the start; to detect these, store the last hash elsewhere from time to time.

    Every correction leaves an uncorrected part, and these parts add up to the drift
    (:class:`~graphunlearn.ledger.Drift`). If the drift exceeds the budget, the ledger warns that the model should be
    retrained.

    Args:
        path: The file; it is created if it does not exist.
        budget: Drift above which the ledger warns; ``None`` measures no drift.
        key: The file of the key, which is created with a new ledger; by default a file in the folder
            ``GRAPHUNLEARN_KEYS`` or ``~/.config/graphunlearn``, or ``NAME.key`` beside the ledger if it exists.
        wait: Seconds to wait while another process works on a request; ``None`` waits until that one is done.

    Raises:
        ValueError: The file is not a ledger, has lost its entries or is damaged.

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

    def __init__(
        self,
        path: str | Path,
        *,
        budget: float | None = BUDGET,
        key: str | Path | None = None,
        wait: float | None = None,
    ) -> None:
        if budget is not None and not 0 < budget < math.inf:
            raise ArgumentError("budget", "be positive and finite, or None to measure no drift", budget)
        if wait is not None and not 0 <= wait < math.inf:
            raise ArgumentError("wait", "be finite and not negative, or None to wait for as long as it takes", wait)
        self.path, self.budget, self.wait = Path(path), budget, wait
        choose(self.path, None if key is None else Path(key))
        self._held: tuple[AbstractContextManager[Store], Store] | None = None
        if not Store.is_made(self.path):
            try:
                check_new(self.path)
            except ArgumentError:
                if not Store.is_made(self.path):  # otherwise, another process has just made it
                    raise
            with Store.writing(self.path, wait):
                pass
        with self._open(write=False) as store:
            store.entries()
            store.settle()

    def __enter__(self) -> Ledger:
        """Keep other processes from working on requests until the block ends; wait for one that does."""
        opened = Store.writing(self.path, self.wait)
        self._held = opened, opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        assert self._held is not None
        opened, self._held = self._held[0], None
        opened.__exit__(*error)

    @contextmanager
    def _open(self, write: bool = True) -> Iterator[Store]:
        """Open the store, unless a ``with`` block has opened it already."""
        if self._held is not None:
            yield self._held[1]
            return
        with Store.writing(self.path, self.wait) if write else Store.reading(self.path) as store:
            yield store

    def entries(self) -> list[LedgerEntry]:
        """Return all entries, from the oldest to the newest."""
        with self._open(write=False) as store:
            return store.entries()

    @property
    def pending(self) -> PendingRequest | None:
        """The interrupted request, or ``None``; :meth:`unlearn` finishes it, and :meth:`drop` discards it."""
        with self._open(write=False) as store:
            return store.request()

    @property
    def has_key(self) -> bool:
        """Whether the key of the digests is there."""
        with self._open(write=False) as store:
            return store.has_key()

    def fingerprints(self, model: nn.Module, graph: Graph) -> tuple[str, str]:
        """Return the fingerprint of a model and the keyed fingerprint of its graph, as entries contain them.

        The fingerprint of the graph is keyed because the few removed interactions could otherwise be guessed from it.

        Raises:
            ValueError: The key is missing.
        """
        with self._open(write=False) as store:
            return prints_of(store, model, graph)

    def digest(self, request: ForgetRequest) -> str:
        """Return the keyed digest of a request, as its entry contains it."""
        with self._open(write=False) as store:
            return request.digest(store.key())

    def keyed(self, texts: Iterable[str]) -> list[bytes]:
        """Return the HMAC-SHA256 of every text, such as an id, which reveals nothing to those without the key."""
        with self._open(write=False) as store:
            key = store.key()
        return [hmac.digest(key, text.encode(), "sha256") for text in texts]

    @property
    def drift(self) -> Drift | None:
        """The drift since the model was last trained; ``None`` if nothing has been forgotten or measured since."""
        return drift_of(self.entries())

    def check_newest(self, model: str, graph: str) -> None:
        """Check that a model is the newest of the ledger, as any model is without an entry.

        Args:
            model: The fingerprint of the model.
            graph: The fingerprint of its graph, without the key.

        Raises:
            ValueError: The model or the graph is not the newest, or the key is missing.
        """
        with self._open(write=False) as store:
            check_newest(newest_of(store.entries()), model, keyed(graph, store.key()))

    def find(self, request: ForgetRequest, model: nn.Module, graph: Graph) -> LedgerEntry | None:
        """Return the entry of a finished request.

        Args:
            request: The request.
            model: The model to forget it from; the ledger must contain its fingerprint.
            graph: The graph of the model. Clicks are identified by positions in a graph, so a request with clicks on
                another graph is another request.

        Returns:
            The entry; ``None`` if the request is not finished or the ledger does not contain the model.
        """
        with self._open(write=False) as store:
            digest, given = request.digest(store.key()), prints_of(store, model, graph)
            return entry_of(store.entries(), digest, request, *given)

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
        """Forget a request and add its entry.

        If the request was interrupted, the call finishes it. If it is finished already, the call changes nothing.

        Args:
            method: The unlearning method.
            model: The newest model of the ledger; any model for the first request.
            graph: The graph of the model.
            request: The request to forget.
            save: A function that writes the new model and graph atomically to the place that they will be loaded from.
                Without it, the entry is added as soon as the method has finished.
            objective: The loss that the model was trained with, for the drift; by default that of the method, or else
                the shared default.
            out: The path that ``save`` writes the model to; it is recorded in the entry.
            asked: The request that the ledger records; needed if ``request`` is only the part of it that the model was
                trained on.
            command: JSON-serialisable data that is stored with the pending request, for resuming it.

        Returns:
            The :class:`UnlearningResult`; ``result.log["ledger"]`` contains the number of the entry and the drift. For
            a finished request, model and graph are those passed.

        Raises:
            ValueError: Another request is pending, the model is not the newest, the request is finished and the model
                is an older one, or the method does not accept the arguments.
        """
        asked = request if asked is None else asked
        with self._open() as store:
            digest, given = asked.digest(store.key()), prints_of(store, model, graph)
            pending, entries = store.request(), checked_entries(store)
            newest = newest_of(entries)
            if pending is not None and digest != pending.request.digest(store.key()):
                raise PendingError.of(self.path, pending)
            if pending is not None and pending.after == given:
                assert pending.entry is not None
                return as_result(self._commit(store, pending.entry), model, graph, request)
            done = entry_of(entries, digest, asked, *given)
            if done is not None and newest is not None:
                if (newest.model_after, newest.graph_after) != given:
                    raise ArgumentError("request", "not be done yet", f"one that is finished, as entry {done.number}")
                return as_result(done, model, graph, request)
            check_newest(newest, *given)
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
                entry = entry_facts(facts, method, graph, result, prints_of(store, result.model, result.graph))
                if self.budget is not None and method.name != RETRAINING:
                    loss = objective or getattr(method, "objective", None) or default_objective(graph)
                    models = model if result.original is None else result.original, graph, result.model, result.graph
                    entry["drift"] = asdict(Drift.after(drift_of(entries), *models, loss, self.budget))
                store.begin(facts | {"entry": entry})
            except BaseException:
                if pending is None or pending.entry is None:
                    store.drop()  # no new model was saved, so there is nothing to resume
                elif earlier is not None:
                    store.begin(earlier)  # an earlier attempt may have saved its model
                raise
            number = store.rows()[-1][0] + 1
            result.log["ledger"] = {"entry": number} | ({"drift": entry["drift"]} if "drift" in entry else {})
            if save is not None:
                save(result)
            self._commit(store, entry)
            return result

    def finish(self, model: nn.Module, graph: Graph) -> LedgerEntry:
        """Add the entry of the pending request, whose new model was saved before the interruption.

        Args:
            model: The saved model.
            graph: Its graph.

        Raises:
            ValueError: There is no such request, or the model and graph are not those that the method returned.
        """
        with self._open() as store:
            pending = store.request()
            if pending is None or pending.entry is None:
                raise ArgumentError(
                    "ledger", "have a pending request whose method has finished", f"'{self.path}' without one"
                )
            if prints_of(store, model, graph) != pending.after:
                raise ArgumentError("model", "be the result of the pending request, with its graph", "another")
            return self._commit(store, pending.entry)

    def drop(self) -> None:
        """Discard the pending request; call it only if the new model is not in use.

        Raises:
            ValueError: There is no pending request.
        """
        with self._open() as store:
            if store.pending() is None:
                raise ArgumentError("ledger", "have a pending request to drop", f"'{self.path}' without one")
            store.drop()

    def verify(self, model: nn.Module | None = None) -> int:
        """Check that no entry was changed, removed or inserted, and that each starts from the model of the previous.

        Args:
            model: A model that must be the newest one; ``None`` checks the entries only.

        Returns:
            The number of entries.

        Raises:
            ValueError: A check failed; the message names the first such entry.
        """
        with self._open(write=False) as store:
            entries = checked_entries(store)
        if model is not None:
            newest = newest_of(entries)
            if newest is None:
                raise ArgumentError("ledger", "have a model to compare with", f"'{self.path}' without entries")
            if fingerprint(model) != newest.model_after:
                raise ArgumentError("model", f"be the newest, of entry {newest.number}", "another")
        return len(entries)

    def _commit(self, store: Store, entry: Mapping[str, Any]) -> LedgerEntry:
        """Add the entry of a finished request, and warn if the drift exceeds the budget."""
        added = append(store, entry)
        if added.drift is not None and added.drift["spent"] > added.drift["budget"]:
            with suppress(UserWarning):  # where warnings are errors: the request is served, and must not seem to fail
                warnings.warn(
                    f"retrain now: the drift is {added.drift['spent']:.2g} after {added.drift['requests']} "
                    f"request{'s' if added.drift['requests'] > 1 else ''}, and its budget {added.drift['budget']:g}",
                    stacklevel=3,
                )
        return added
