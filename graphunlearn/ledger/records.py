"""Entries of a ledger for what is not a request: audits, and models that were retrained, erased or extended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.renumbering import keep_nodes
from graphunlearn.errors import ArgumentError
from graphunlearn.ledger.chain import append, append_model, checked_entries, follow, newest_of, prints_of
from graphunlearn.ledger.entry import LedgerEntry, PendingError
from graphunlearn.ledger.store import Store
from graphunlearn.nn.renumbering import keep_rows
from graphunlearn.operators.compacting import Compacted

__all__ = ["Records"]

Graph: TypeAlias = InteractionGraph | SessionGraph


class Records:
    """The methods of :class:`~graphunlearn.Ledger` that add such entries."""

    path: Path
    _open: Callable[..., AbstractContextManager[Store]]

    def record_audit(self, number: int, figures: Mapping[str, Any]) -> LedgerEntry:
        """Add an entry with the results of an audit of a request.

        Args:
            number: Number of the entry of the request.
            figures: The results; JSON-serialisable.

        Returns:
            The new entry.

        Raises:
            ValueError: No entry of a request has this number.
        """
        with self._open() as store:
            known = [entry.number for entry in store.entries() if entry.kind == "forgotten"]
            if number not in known:
                raise ArgumentError("number", f"be one of a request, {', '.join(map(str, known))}", number)
            return append(store, {"kind": "audited", "of": number, "figures": dict(figures)})

    def record_retrained(self, model: nn.Module, graph: Graph, *, out: str | Path | None = None) -> LedgerEntry:
        """Record a retrained model as the newest one; the drift starts again from zero.

        Args:
            model: The retrained model. The ledger does not check that it was trained without the forgotten data, so
                ``graph`` should be the newest graph, possibly with data added since.
            graph: The training graph of the model.
            out: The path of the model; it is recorded in the entry.

        Returns:
            The new entry.

        Raises:
            ValueError: A request is pending.
        """
        with self._open() as store:
            _check_none_pending(store)
            before = _prints_of_newest(newest_of(store.entries()))
            return append_model(store, {"kind": "retrained"}, prints_of(store, model, graph), before, out)

    def record_erased(
        self,
        model: nn.Module,
        graph: Graph,
        compacted: Compacted,
        *,
        save: Callable[[], object] | None = None,
        out: str | Path | None = None,
    ) -> LedgerEntry:
        """Record the newest model without the rows of emptied users and items; requests and drift go on from it.

        The entry holds the numbers of users and items that went, and no ids. If it is the newest already, the call
        changes nothing.

        Args:
            model: The newest model of the ledger.
            graph: Its graph.
            compacted: What :func:`~graphunlearn.compact` made of them.
            save: A function that writes the smaller model and graph atomically; it is called before the entry is added.
            out: The path that ``save`` writes to; it is recorded in the entry.

        Returns:
            The entry.

        Raises:
            ValueError: A request is pending, the model is not the newest, or ``compacted`` is not made of it.
        """
        with self._open() as store:
            _check_none_pending(store)
            before, after = prints_of(store, model, graph), prints_of(store, compacted.model, compacted.graph)
            small = keep_rows(model, graph, compacted.kept), keep_nodes(graph, compacted.kept)
            if prints_of(store, *small) != after or small[1].num_interactions != graph.num_interactions:
                raise ArgumentError("compacted", "be made of the model and the graph", "another")
            return follow(store, {"kind": "erased", "erased": dict(compacted.gone)}, after, before, save, out)

    def record_saved_erasure(
        self, model: nn.Module, graph: Graph, gone: Mapping[str, int], *, out: str | Path | None = None
    ) -> LedgerEntry:
        """Record an erased model that was saved before :meth:`record_erased` was interrupted.

        Args:
            model: The saved model, which the caller has recognised as made of the newest one.
            graph: Its graph.
            gone: Numbers of users and items that went.
            out: The path that they were saved to.
        """
        with self._open() as store:
            newest, after = newest_of(checked_entries(store)), prints_of(store, model, graph)
            if newest is not None and (newest.model_after, newest.graph_after) == after:
                return newest
            content = {"kind": "erased", "erased": dict(gone)}
            return append_model(store, content, after, _prints_of_newest(newest), out)

    def record_extended(
        self,
        model: nn.Module,
        graph: Graph,
        extended: nn.Module,
        larger: Graph,
        *,
        save: Callable[[], object] | None = None,
        out: str | Path | None = None,
    ) -> LedgerEntry:
        """Record the newest model after training went on from it on more data; requests and drift go on from it.

        The entry holds the numbers of users, items and interactions that were added. If it is the newest already, the
        call changes nothing.

        Args:
            model: The newest model of the ledger.
            graph: Its graph.
            extended: The model that was trained on; see :func:`~graphunlearn.extend`.
            larger: Its graph.
            save: A function that writes the new model and graph atomically; it is called before the entry is added.
            out: The path that ``save`` writes to; it is recorded in the entry.

        Returns:
            The entry.

        Raises:
            ValueError: A request is pending, or the model is not the newest.
        """
        with self._open() as store:
            _check_none_pending(store)
            before, after = prints_of(store, model, graph), prints_of(store, extended, larger)
            sizes = {name: size - graph.sizes[name] for name, size in larger.sizes.items()}
            return follow(store, {"kind": "extended", "added": sizes}, after, before, save, out)


def _check_none_pending(store: Store) -> None:
    """Raise an error if a request is pending."""
    pending = store.request()
    if pending is not None:
        raise PendingError.of(store.path, pending)


def _prints_of_newest(newest: LedgerEntry | None) -> tuple[str, str] | None:
    """Return the fingerprints of the newest model and of its graph."""
    return None if newest is None else (str(newest.model_after), str(newest.graph_after))
