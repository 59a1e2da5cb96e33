"""What to forget, from the command line, and the part of it that a model has learned from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphunlearn.cli.common import WORDS, listed, note
from graphunlearn.cli.runs import Graph, ModelSpec, Run
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.matching import matching_clicks
from graphunlearn.eval.scenarios import pair_codes, request_codes

__all__ = ["check_levels", "described", "learned_part", "request_of"]

OPTIONS = {
    **{"user": "--users", "item": "--items", "interaction": "--pairs"},
    **{"session": "--sessions", "click": "--clicks"},
}
"""The option that asks for each level."""
ONLY = {"interaction": "interactions", "session": "sessions", "click": "sessions"}
"""The kind of graph that a level belongs to, of those that belong to one alone."""
HELD_OUT = ("validation", "test")


def request_of(
    users: Sequence[str], items: Sequence[str], pairs: Sequence[Path], sessions: Sequence[str], clicks: Sequence[Path]
) -> ForgetRequest:
    """Return all that is asked as one request.

    Raises:
        ValueError: Nothing is asked, an id is not one, or the file is malformed.
    """
    parts = [ForgetRequest("user", tuple(users))] if users else []
    parts += [ForgetRequest("item", tuple(items))] if items else []
    parts += [ForgetRequest.from_file(path) for path in pairs]
    parts += [ForgetRequest("session", tuple(sessions))] if sessions else []
    parts += [ForgetRequest.from_file(path, "click") for path in clicks]
    if not parts:
        named = listed([f"'{option}'" for option in OPTIONS.values()], "or")
        raise ValueError(f"what to forget must be given with {named} (got none of them)")
    repeated = sum(part.num_duplicates for part in parts)
    if repeated:
        note(f"{repeated} repeated {'entry counts' if repeated == 1 else 'entries count'} once")
    return reduce(or_, parts)


def check_levels(request: ForgetRequest, spec: ModelSpec) -> None:
    """Refuse to forget from a model what only the other kind has.

    Raises:
        ValueError: It was asked for.
    """
    for part in request.parts:
        kind = ONLY.get(part.level, spec.kind)
        if kind != spec.kind:
            raise ValueError(
                f"'{OPTIONS[part.level]}' must go with a model of {WORDS[kind]} "
                f"(got it with {spec.name}, one of {WORDS[spec.kind]})"
            )


def described(request: ForgetRequest, graph: Graph) -> dict[str, Any]:
    """Return what the request is to the graph; an error names the option that asked for what is not there."""
    for part in request.parts:
        try:
            part.mask(graph)
        except ValueError as error:
            _raise_named(error, part.level)  # one that matches nothing may be among others that do
    return request.describe(graph)


def _raise_named(error: ValueError, level: str) -> None:
    """Raise the error with the name of the option that asked, where it is about an id."""
    if str(error).startswith("'index'"):
        raise ValueError(str(error).replace("'index'", f"'{OPTIONS[level]}'", 1)) from None


def learned_part(request: ForgetRequest, run: Run) -> tuple[ForgetRequest, dict[str, int]]:
    """Return the request without what is only held out, and take that out of the run's held-out parts.

    The model has not learned from it, so there is nothing to unlearn. What the held-out parts have of forgotten users
    and items is taken out of them as well.

    Returns:
        The request to unlearn, and how many pairs, or clicks and sessions, were held out.

    Raises:
        ValueError: Nothing is left.
    """
    take = _pairs if isinstance(run.train, InteractionGraph) else _of_sessions
    parts: list[ForgetRequest] = []
    levels = [level for level, kind in ONLY.items() if kind == run.spec.kind]
    held = {f"held_out_{OPTIONS[level].removeprefix('--')}": 0 for level in levels}
    for part in request.parts:
        if part.level in ("user", "item"):
            parts.append(part)
            _forget_held_out(part, run)
            continue
        rest, only_held = take(part, run)
        name = OPTIONS[part.level].removeprefix("--")
        held[f"held_out_{name}"] = only_held
        parts += [ForgetRequest(part.level, rest)] if rest else []
        if only_held:
            note(
                f"{only_held} of the {name} were held out: they are dropped, and there is nothing to unlearn about them"
            )
    if not parts:
        level, count = request.parts[0].level, sum(held.values())
        one = f"{'an' if level == 'interaction' else 'a'} {level}"
        reason = f"got {count}, all of them held out from it"
        raise ValueError(f"'{OPTIONS[level]}' must hold {one} that the model learned from ({reason})")
    return reduce(or_, parts), held


def _pairs(part: ForgetRequest, run: Run) -> tuple[tuple[Any, ...], int]:
    """Return the pairs that were learned, and the number of those that were only held out; all go from there."""
    assert isinstance(run.train, InteractionGraph)
    wanted = request_codes(part, run.train)
    is_held = torch.zeros_like(wanted, dtype=torch.bool)
    for name in HELD_OUT:
        graph = getattr(run, name)
        own = pair_codes(graph)
        is_held |= torch.isin(wanted, own)
        setattr(run, name, graph.select(~torch.isin(own, wanted)))
    is_held &= ~torch.isin(wanted, pair_codes(run.train))
    return tuple(pair for pair, out in zip(part.index, is_held.tolist()) if not out), int(is_held.sum())


def _of_sessions(part: ForgetRequest, run: Run) -> tuple[tuple[Any, ...], int]:
    """Return the clicks or sessions that were learned, and the number of those that were only held out."""
    mine, others = _divided(part, run.train)
    held = 0
    for name in HELD_OUT:
        graph = getattr(run, name)
        here, others = _divided(ForgetRequest(part.level, others), graph) if others else ((), ())
        if here:
            gone = torch.zeros(graph.num_clicks, dtype=torch.bool, device=graph.device)
            try:
                gone[matching_clicks(part.level, here, True, graph)] = True
            except ValueError as error:
                _raise_named(error, part.level)
            setattr(run, name, _without(graph, gone))
        held += len(here)
    return mine + others, held  # what is nowhere is told when it is looked for


def _divided(part: ForgetRequest, graph: Graph) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the entries whose session the graph has, and the others."""
    names = part.index if part.level == "session" else [session for session, _ in part.index]
    here = (graph.vocabulary("session").lookup(names) >= 0).tolist()
    mine, others = (tuple(e for e, known in zip(part.index, here) if known is wanted) for wanted in (True, False))
    return mine, others


def _forget_held_out(part: ForgetRequest, run: Run) -> None:
    """Take what the held-out parts have of forgotten users or items out of the run: it is data of theirs as well."""
    nodes = run.train.vocabulary(part.level).lookup(part.index)
    for name in HELD_OUT:
        graph = getattr(run, name)
        gone = torch.isin(_ends(graph, part.level), nodes.to(graph.device))
        if bool(gone.any()):
            what = "clicks" if isinstance(graph, SessionGraph) else "rows"
            note(f"{int(gone.sum())} {name} {what} of the forgotten {part.level}s are dropped as well")
            setattr(run, name, _without(graph, gone) if isinstance(graph, SessionGraph) else graph.select(~gone))


def _ends(graph: Graph, level: str) -> Tensor:
    """Return the user or item of every interaction or click."""
    if isinstance(graph, InteractionGraph):
        ends: Tensor = graph.pairs[0 if level == "user" else 1]
        return ends
    if level == "item":
        return graph.items
    if graph.user is None:
        raise ValueError("'--users' must go with sessions that carry users (got sessions that do not)")
    return graph.user[graph.session]


def _without(graph: SessionGraph, gone: Tensor) -> SessionGraph:
    """Return the sessions without the clicks of a mask, neighbours joined; those that lose all of them go."""
    if bool(gone.all()):
        return graph.select(torch.zeros(graph.num_sessions, dtype=torch.bool, device=graph.device))
    if not bool(gone.any()):
        return graph
    request = ForgetRequest.internal("click", torch.stack([graph.session[gone], graph.position[gone]]))
    return graph.split(request)[0]
