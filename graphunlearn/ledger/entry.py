"""The content of a ledger: entries and a pending request."""

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
    """An entry of a ledger, without the ids that were forgotten.

    Args:
        number: Number of the entry in the ledger, from 1.
        time: Time of writing, in UTC.
        kind: ``"forgotten"`` for a request, ``"audited"`` for the result of an audit, ``"retrained"`` for a retrained
            model, ``"erased"`` for a model without the rows of emptied users and items, ``"extended"`` for one that was
            trained on more data.
        package: Version of this package.
        hash: SHA-256 of the entry together with the hash of the previous entry.
        digest: Keyed digest of the request (:meth:`~graphunlearn.ForgetRequest.digest`).
        request: Level, number of ids, and number of interactions or clicks.
        method: Name of the method.
        settings: Settings of the method.
        model_before: Fingerprint of the model before forgetting.
        model_after: Fingerprint of the model after forgetting.
        graph_before: Keyed fingerprint of the graph before forgetting.
        graph_after: Keyed fingerprint of the retained graph.
        seconds: Wall time of the method in seconds.
        accepted: Whether the correction was accepted; ``None`` if it was not judged.
        drift: The uncorrected part of this request and of all requests so far; see
            :class:`~graphunlearn.ledger.Drift`.
        out: Path that the model was saved to.
        of: Number of the audited entry.
        figures: Results of the audit.
        erased: Numbers of users and items whose rows went, by node type.
        added: Numbers of users, items and interactions that were added.
    """

    number: int
    time: str
    kind: Literal["forgotten", "audited", "retrained", "erased", "extended"]
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
    accepted: bool | None = None
    drift: dict[str, Any] | None = None
    out: str | None = None
    of: int | None = None
    figures: dict[str, Any] | None = None
    erased: dict[str, int] | None = None
    added: dict[str, int] | None = None

    @classmethod
    def read(cls, content: str, hash: str) -> LedgerEntry:
        """Return the entry with the given content.

        Args:
            content: The entry as the ledger stores it, in JSON.
            hash: Hash of the entry.

        Raises:
            ValueError: The content is not in the format of a ledger.
        """
        try:
            return cls(hash=hash, **parsed(content))
        except TypeError as error:
            raise ArgumentError("ledger", "hold entries that this version knows", f"one of which {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields that are not ``None``, in JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PendingRequest:
    """A request that was begun and is not yet entered in the ledger.

    It is the only part of a ledger that contains ids, and it is erased when the request is entered.

    Args:
        request: The forget request.
        time: Time at which the request was begun, in UTC.
        method: Name of the method.
        model: Fingerprint of the model before forgetting.
        graph: Keyed fingerprint of the graph before forgetting.
        token: Random token that identifies the files saved for this request.
        out: Path that the new model is saved to.
        command: The command that the request was given with, to resume it.
        entry: Content of the entry that will be added; ``None`` until the method has finished. Once it is set, the new
            model may have been saved.
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
        """Fingerprints of the new model and of the retained graph; ``None`` until the method has finished."""
        return None if self.entry is None else (self.entry["model_after"], self.entry["graph_after"])

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> PendingRequest:
        """Return the pending request with the given content.

        Args:
            facts: The pending request as the ledger stores it, in JSON types.

        Raises:
            ValueError: The content is not in the format of a ledger.
        """
        known = {name: value for name, value in facts.items() if name != "digest"}
        try:
            return cls(**known | {"request": reduce(or_, [_request(part) for part in facts["request"]])})
        except (KeyError, TypeError):
            raise ArgumentError("ledger", "hold a complete pending request", f"one of {sorted(known)}") from None


class PendingError(ArgumentError):
    """The ledger holds another pending request.

    Attributes:
        path: The file of the ledger.
    """

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, path: Path | None = None) -> None:
        super().__init__(argument, expected, got, hint)
        self.path = path

    @classmethod
    def of(cls, path: Path, pending: PendingRequest) -> PendingError:
        """Return the error about ``pending``, the pending request of the ledger at ``path``."""
        got, hint = f"'{path}' with one of {pending.time} that was interrupted", "repeat that request to finish it"
        return cls("ledger", "have no other pending request", got, hint, path=path)


def as_facts(request: ForgetRequest) -> list[dict[str, Any]]:
    """Return a request in JSON types: level, ids and whether they are raw, for every level of the request.

    Args:
        request: The forget request.
    """
    return [{"level": part.level, "ids": part.index, "raw": part.raw} for part in request.parts]


def _request(part: Mapping[str, Any]) -> ForgetRequest:
    return ForgetRequest(part["level"], tuple(part["ids"]), part["raw"])


def parsed(content: str) -> dict[str, Any]:
    """Return the fields of an entry.

    Args:
        content: The entry in JSON.

    Raises:
        ValueError: The content is not a JSON object.
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
    """Return the fields of the entry of a finished request.

    Args:
        pending: The pending request as the ledger stores it.
        method: The method.
        graph: The graph before forgetting.
        result: The result of the method.
        after: Fingerprints of the new model and of the retained graph.
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
    judged = result.log.get("acceptance", {"outcome": "not judged"})["outcome"] != "not judged"
    facts |= {"accepted": result.accepted} if judged else {}
    return facts if pending["out"] is None else facts | {"out": pending["out"]}


def settings_of(method: Unlearner) -> dict[str, Any]:
    """Return the settings of a method in JSON types; other values are represented by their ``repr``.

    Args:
        method: The method.
    """
    values = {f.name: getattr(method, f.name) for f in fields(method) if f.init and f.repr}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
