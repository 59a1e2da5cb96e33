"""Which ids of a batch occur in the data of a run, and the run without them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import compress
from operator import or_
from typing import Any, cast

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest
from graphunlearn.data.renumbering import active_nodes, node_types
from graphunlearn.data.vocabulary import canonical_id, canonical_ids
from graphunlearn.errors import ArgumentError
from graphunlearn.jobs.job import JobLevel
from graphunlearn.jobs.store import Id
from graphunlearn.runs.run import PARTS, Run

__all__ = ["Plan", "Wanted", "emptied_ids", "learned_part", "plan", "present", "without", "without_held_out"]


@dataclass(frozen=True)
class Wanted:
    """The ids of one job.

    Args:
        job: Number of the job.
        level: What the ids name.
        ids: The ids as they were submitted.
    """

    job: int
    level: JobLevel
    ids: Sequence[Id]


@dataclass(frozen=True)
class Plan:
    """What a batch will do.

    Args:
        request: All ids of the batch that occur in the data; ``None`` if none does.
        counts: Counts of each job, by the names of the fields of :class:`~graphunlearn.jobs.Job`.
        digests: Level and digest of every id that is deleted.
    """

    request: ForgetRequest | None
    counts: dict[int, dict[str, int]]
    digests: list[tuple[str, bytes]]


def plan(
    run: Run,
    wanted: Sequence[Wanted],
    digests_of: Callable[[list[str]], list[bytes]],
    known: Callable[[str, list[bytes]], set[bytes]],
) -> Plan:
    """Return what a batch will do to a run.

    An id that occurs in the training, validation or test data is deleted; if an earlier batch has deleted it already,
    it has returned. An id that does not occur was deleted by an earlier batch or an earlier job of this one, or it is
    not found.

    Args:
        run: The run.
        wanted: The ids of the jobs, in the order of the jobs.
        digests_of: Function that returns the digests of texts.
        known: Function that returns, of a level and digests, the digests that earlier batches have deleted.

    Raises:
        ArgumentError: The data have no ids of a level.
    """
    deleted: dict[JobLevel, dict[Id, None]] = {}
    counts: dict[int, dict[str, int]] = {}
    digests: list[tuple[str, bytes]] = []
    for job in wanted:
        seen = deleted.setdefault(job.level, {})
        ids = list(dict.fromkeys(_as_in_the_data(run, job)))
        fresh = [value for value in ids if value not in seen]
        found = torch.zeros(len(fresh), dtype=torch.bool)
        for name in PARTS:
            found |= present(getattr(run, name), job.level, fresh, optional=name != "train")
        here = found.tolist()
        marks = digests_of([_text(job.level, value) for value in fresh])
        before = known(job.level, marks)
        returned = sum(one and mark in before for one, mark in zip(here, marks))
        gone = sum(not one and mark in before for one, mark in zip(here, marks))
        counts[job.job] = {
            "deleted": sum(here),
            "returned": returned,
            "already_deleted": gone + len(ids) - len(fresh),
            "not_found": len(fresh) - sum(here) - gone,
        }
        seen.update(dict.fromkeys(compress(fresh, here)))
        digests += [(job.level, mark) for mark in compress(marks, here)]
    parts = [ForgetRequest(level, tuple(ids)) for level, ids in deleted.items() if ids]
    return Plan(reduce(or_, parts) if parts else None, counts, digests)


def present(graph: Any, level: JobLevel, ids: Sequence[Id], *, optional: bool = False) -> Tensor:
    """Return which ids have interactions or clicks in a graph.

    Args:
        graph: The graph.
        level: What the ids name.
        ids: Different ids.
        optional: Whether a graph without ids of the level has none of them; otherwise, that is an error.

    Returns:
        A mask on the CPU ``[num_ids]``.

    Raises:
        ArgumentError: The graph has no ids of the level.
    """
    if level not in graph.levels or (level == "user" and graph.kind == "sessions" and graph.user is None):
        if optional and level in graph.levels:
            return torch.zeros(len(ids), dtype=torch.bool)
        got = f"{level!r} for {'sessions without users' if level == 'user' else f'a graph of {graph.kind}'}"
        raise ArgumentError("level", "be one that the data of the run have", got)
    if not ids:
        return torch.zeros(0, dtype=torch.bool)
    if level == "interaction":
        return cast(Tensor, graph.holds(ForgetRequest(level, tuple(ids))))
    nodes = graph.vocabulary(level).lookup(ids)
    if not len(graph.vocabulary(level)):
        return nodes >= 0
    return (nodes >= 0) & active_nodes(graph, level).cpu()[nodes.clamp(min=0)]


def without(graph: Any, request: ForgetRequest) -> Any:
    """Return a graph without the interactions or clicks that a request names; ids that do not occur are ignored.

    Args:
        graph: The graph, of training or of held-out data.
        request: The request, by raw ids.
    """
    gone = _named(graph, request)
    return graph.keep(~gone) if bool(gone.any()) else graph


def _named(graph: Any, request: ForgetRequest) -> Tensor:
    """Return a mask of the interactions or clicks that a request names; ids that do not occur are ignored."""
    gone = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.device)
    for part in request.parts:
        level = cast(JobLevel, part.level)
        here = tuple(compress(part.index, present(graph, level, part.index, optional=True).tolist()))
        if here and level == "interaction":
            gone[graph.match(level, here, True)] = True
        elif here:
            flags = torch.zeros(len(graph.vocabulary(level)), dtype=torch.bool)
            flags[graph.vocabulary(level).lookup(here)] = True
            ends = graph.ends(level)
            gone |= (ends >= 0) & flags.to(graph.device)[ends.clamp(min=0)]
    return gone


def learned_part(request: ForgetRequest, run: Run) -> ForgetRequest | None:
    """Return the part of a request that occurs in the training data; ``None`` if nothing does.

    Args:
        request: The request.
        run: The run.
    """
    parts = []
    for part in request.parts:
        here = present(run.train, cast(JobLevel, part.level), part.index).tolist()
        if any(here):
            parts.append(part if all(here) else ForgetRequest(part.level, tuple(compress(part.index, here))))
    return reduce(or_, parts) if parts else None


def without_held_out(run: Run, request: ForgetRequest) -> Run:
    """Return a run whose validation and test data lack what a request names.

    Args:
        run: The run.
        request: The request.
    """
    return replace(run, **{name: without(getattr(run, name), request) for name in PARTS if name != "train"})


def emptied_ids(run: Run, wanted: Sequence[Wanted], learned: ForgetRequest | None) -> dict[str, list[str]]:
    """Return the users and items that will have no training events: those that are named, those that are
    emptied, and those that earlier requests have emptied and that still have rows.

    Args:
        run: The run before forgetting.
        wanted: The ids of the jobs.
        learned: What will be forgotten from the training data; ``None`` if nothing will.

    Returns:
        Raw ids by node type. Ids that keep events may be among them.
    """
    train: Any = run.train
    stay = slice(None) if learned is None else ~_named(train, learned)
    found: dict[str, list[str]] = {}
    for name in node_types(train):
        vocabulary = train.vocabulary(name)
        emptied, ends = active_nodes(train, name), train.ends(name)[stay]
        emptied[ends[ends >= 0]] = False
        named = [value for job in wanted if job.level == name for value in _as_in_the_data(run, job)]
        named += (run.emptied or {}).get(name, [])
        nodes = vocabulary.lookup(cast(list[str], named)) if named else torch.zeros(0, dtype=torch.long)
        emptied[nodes[nodes >= 0].to(emptied.device)] = True
        found[name] = [vocabulary[node] for node in emptied.nonzero().flatten().tolist()]
    return found


def _as_in_the_data(run: Run, job: Wanted) -> list[Id]:
    """Return ids as the training data write them, such as ``"1"`` for ``"1.0"`` where ids are numbers."""
    if job.level != "interaction":
        return list(_texts(run, job.level, cast(Sequence[str], job.ids)))
    users, items = zip(*job.ids) if job.ids else ((), ())
    return list(zip(_texts(run, "user", users), _texts(run, "item", items)))


def _texts(run: Run, level: str, ids: Sequence[str]) -> list[str]:
    if level == "user" and run.spec.kind == "sessions" and run.train.user is None:
        return list(ids)
    numeric = run.train.vocabulary(level).numeric
    try:
        return canonical_ids(ids, numeric)
    except ArgumentError:  # an id that no data can have is not found
        return [canonical_id(value) for value in ids]


def _text(level: str, value: Id) -> str:
    """Return the text of which the digest of an id is made."""
    return json.dumps(["deleted", level, value])
