"""What a ledger holds: entries, and a request that is under way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal

from graphunlearn.data import ForgetRequest
from graphunlearn.errors import ArgumentError
from graphunlearn.operators.base import Unlearner, UnlearningResult

__all__ = ["LedgerEntry", "PendingError", "PendingRequest", "as_facts", "entry_facts", "parsed", "settings_of"]


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What a ledger says of one request; it names nobody.

    Args:
        number: Its place in the ledger, from 1.
        time: When it was written, in UTC.
        kind: ``"forgotten"`` for a request, ``"audited"`` for what an audit of one found, ``"retrained"`` for a model
            that was trained anew.
        package: Version of this package.
        hash: SHA-256 of the entry and of the hash before it.
        digest: Keyed digest of the request (:meth:`~graphunlearn.ForgetRequest.digest`).
        request: Level, number of ids, and number of interactions or clicks.
        method: Name of the method.
        settings: Its settings.
        model_before: Fingerprint of the model before.
        model_after: Fingerprint of the model after.
        graph_before: Keyed fingerprint of its graph.
        graph_after: Keyed fingerprint of the retained graph.
        seconds: Wall seconds of the method.
        drift: What the request left uncorrected, and all requests so far; see :class:`~graphunlearn.operators.Drift`.
        out: Where the model was put.
        of: The entry that an audit is of.
        figures: What the audit found.
    """

    number: int
    time: str
    kind: Literal["forgotten", "audited", "retrained"]
    package: str
    hash: str
    digest: str | None = None
    request: dict[str, Any] | None = None
    method: str | None = None
    settings: dict[str, Any] | None = None
    model_before: str | None = None
    model_after: str | None = None
    graph_before: str | None = None
    graph_after: str | None = None
    seconds: float | None = None
    drift: dict[str, Any] | None = None
    out: str | None = None
    of: int | None = None
    figures: dict[str, Any] | None = None

    @classmethod
    def read(cls, content: str, hash: str) -> LedgerEntry:
        """Return the entry that is written down.

        Raises:
            ValueError: It is not as a ledger writes it.
        """
        try:
            return cls(hash=hash, **parsed(content))
        except TypeError as error:
            raise ArgumentError("ledger", "hold entries that this version knows", f"one of which {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return what there is to say, as JSON holds it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PendingRequest:
    """A request that a ledger has taken up and not finished: the one thing in it that names ids, until it is done.

    Args:
        request: What is to be forgotten.
        time: When it was taken up, in UTC.
        method: Name of the method.
        model: Fingerprint of the model to forget it from.
        graph: Keyed fingerprint of its graph.
        token: Tells what is saved for this request from what is saved for any other.
        out: Where the new model goes.
        command: What was given with the request, for whoever goes on with it.
        entry: What its entry will say, once the method is done; the new model may have been saved then.
    """

    request: ForgetRequest
    time: str
    method: str
    model: str
    graph: str
    token: str
    out: str | None = None
    command: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] | None = None

    @property
    def after(self) -> tuple[str, str] | None:
        """Fingerprints of the new model and graph, once the method is done."""
        return None if self.entry is None else (self.entry["model_after"], self.entry["graph_after"])

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> PendingRequest:
        """Return what is written down of a request.

        Raises:
            ValueError: It is not as a ledger writes it.
        """
        known = {name: value for name, value in facts.items() if name != "digest"}
        try:
            return cls(**known | {"request": reduce(or_, [_request(part) for part in facts["request"]])})
        except (KeyError, TypeError):
            raise ArgumentError("ledger", "hold a request under way whole", f"one of {sorted(known)}") from None


class PendingError(ArgumentError):
    """A ledger where another request is under way, and the file that it is in."""

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, path: Path | None = None) -> None:
        super().__init__(argument, expected, got, hint)
        self.path = path

    @classmethod
    def of(cls, path: Path, pending: PendingRequest) -> PendingError:
        """Return what to say where another request is under way."""
        return cls(
            "ledger",
            "have no other request under way",
            f"'{path}' with one of {pending.time} that was interrupted",
            "give that one again to finish it",
            path=path,
        )


def as_facts(request: ForgetRequest) -> list[dict[str, Any]]:
    """Return a request as JSON holds it."""
    return [{"level": part.level, "ids": part.index, "raw": part.raw} for part in request.parts]


def _request(part: Mapping[str, Any]) -> ForgetRequest:
    return ForgetRequest(part["level"], tuple(part["ids"]), part["raw"])


def parsed(content: str) -> dict[str, Any]:
    """Return what an entry says.

    Raises:
        ValueError: It is not as a ledger writes it.
    """
    try:
        facts = json.loads(content)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise ArgumentError("ledger", "hold entries as JSON", f"{content[:40]!r}")
    return facts


def entry_facts(
    pending: Mapping[str, Any], method: Unlearner, graph: Any, result: UnlearningResult, after: tuple[str, str]
) -> dict[str, Any]:
    """Return what the entry of a request will say.

    Args:
        pending: What is written down of it.
        method: The method.
        graph: The graph before.
        result: What the method handed back.
        after: Fingerprints of its model and graph.
    """
    facts = {
        "kind": "forgotten",
        "digest": pending["digest"],
        "request": result.request.describe(graph),
        "method": result.method,
        "settings": settings_of(method),
        "model_before": pending["model"],
        "graph_before": pending["graph"],
        "model_after": after[0],
        "graph_after": after[1],
        "seconds": result.seconds,
    }
    return facts if pending["out"] is None else facts | {"out": pending["out"]}


def settings_of(method: Unlearner) -> dict[str, Any]:
    """Return the settings of a method that can be written down, as JSON holds them."""
    values = {f.name: getattr(method, f.name) for f in fields(method) if f.init and f.repr}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
