"""What to forget, from the command line, and the part of it that a model has learned from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, TypeAlias

import torch
from torch import Tensor

from graphunlearn.cli._text import WORDS, counted, listed, note
from graphunlearn.cli._wording import reading
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.matching import matching_clicks
from graphunlearn.data.request import Level
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.interactions import pair_codes, request_codes
from graphunlearn.runs.run import Graph, ModelSpec, Run

__all__ = ["Asked", "check_asked", "check_levels", "described", "learned_part", "request_of"]

OPTIONS = {
    **{"user": "--users", "item": "--items", "interaction": "--pairs"},
    **{"session": "--sessions", "click": "--clicks"},
}
"""The option that asks for each level."""
ONLY = {"interaction": "interactions", "session": "sessions", "click": "sessions"}
"""The kind of graph that a level belongs to, of those that belong to one alone."""
FILES = ("interaction", "click")
"""The levels that are asked for in files."""
Asked: TypeAlias = Mapping[Level, Sequence[Any]]
"""What was given for every level: ids, or files."""
HELD_OUT = ("validation", "test")


def check_asked(asked: Asked) -> None:
    """Refuse to forget nothing.

    Raises:
        ValueError: No option says what to forget.
    """
    if not any(asked.values()):
        named = listed([f"'{option}'" for option in OPTIONS.values()], "or")
        raise ValueError(f"what to forget must be given with {named} (got none of them)")


def check_levels(asked: Asked, spec: ModelSpec) -> None:
    """Refuse to forget from a model what only the other kind has.

    Raises:
        ValueError: It was asked for.
    """
    for level, given in asked.items():
        kind = ONLY.get(level, spec.kind)
        if given and kind != spec.kind:
            raise ArgumentError(
                OPTIONS[level], f"go with a model of {WORDS[kind]}", f"it with {spec.name}, one of {WORDS[spec.kind]}"
            )


def request_of(asked: Asked) -> ForgetRequest:
    """Return all that is asked as one request.

    Raises:
        ValueError: An id is not one, or a file is malformed.
    """
    parts: list[ForgetRequest] = []
    for level, given in asked.items():
        if given:
            with reading(OPTIONS[level]):
                if level in FILES:
                    parts += [ForgetRequest.from_file(path, level) for path in given]
                else:
                    parts.append(ForgetRequest(level, tuple(given)))
    repeated = sum(part.num_duplicates for part in parts)
    if repeated:
        note(f"{repeated} repeated {'entry counts' if repeated == 1 else 'entries count'} once")
    return reduce(or_, parts)


def described(request: ForgetRequest, graph: Graph) -> dict[str, Any]:
    """Return what the request is to the graph.

    Raises:
        ValueError: Something is not there, or nothing would be left; the options that asked for it are named.
    """
    for part in request.parts:
        try:
            part.mask(graph)
        except ValueError as error:
            _raise_named(error, part.level)  # one that matches nothing may be among others that do
    try:
        return request.describe(graph)
    except ValueError as error:
        options = listed([f"'{OPTIONS[part.level]}'" for part in request.parts], "and")
        text = str(error).replace("'request'", options, 1).replace("got one that removes", "got what removes", 1)
        raise ValueError(text) from error


def _raise_named(error: ValueError, level: str) -> None:
    """Raise the error with the name of the option that asked, where it is about an id."""
    if str(error).startswith("'index'"):
        text = str(error).replace("'index'", f"'{OPTIONS[level]}'", 1)
        raise ValueError(re.sub(r"the graph has (\d+ sessions)", r"the graph has \1 to train on", text)) from None


def learned_part(request: ForgetRequest, run: Run) -> tuple[ForgetRequest, dict[str, int], list[str]]:
    """Return the request without what is only held out, and take that out of the run's held-out parts.

    The model has not learned from it, so there is nothing to unlearn. What the held-out parts have of forgotten users
    and items is taken out of them as well.

    Returns:
        The request to unlearn, how many pairs, or clicks and sessions, were held out, and what is to be said of that.

    Raises:
        ValueError: Nothing is left.
    """
    take = _pairs if isinstance(run.train, InteractionGraph) else _of_sessions
    parts: list[ForgetRequest] = []
    sentences: list[str] = []
    levels = [level for level, kind in ONLY.items() if kind == run.spec.kind]
    held = {f"held_out_{OPTIONS[level].removeprefix('--')}": 0 for level in levels}
    for part in request.parts:
        if part.level in ("user", "item"):
            parts.append(part)
            sentences += _forget_held_out(part, run)
            continue
        rest, only_held = take(part, run)
        name = OPTIONS[part.level].removeprefix("--")
        held[f"held_out_{name}"] = only_held
        parts += [ForgetRequest(part.level, rest)] if rest else []
        if only_held:
            were, are, them = ("was", "it is", "it") if only_held == 1 else ("were", "they are", "them")
            told = f"{are} dropped, and there is nothing to unlearn about {them}"
            sentences.append(f"{only_held} of the {name} {were} held out: {told}")
    if not parts:
        level, count = request.parts[0].level, sum(held.values())
        one = f"{'an' if level == 'interaction' else 'a'} {level}"
        reason = f"got {count}, all of them held out from it"
        raise ValueError(f"'{OPTIONS[level]}' must hold {one} that the model learned from ({reason})")
    return reduce(or_, parts), held, sentences


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


def _forget_held_out(part: ForgetRequest, run: Run) -> list[str]:
    """Take what the held-out parts have of forgotten users or items out of the run, which is theirs too, and say so."""
    sentences = []
    nodes = run.train.vocabulary(part.level).lookup(part.index)
    for name in HELD_OUT:
        graph = getattr(run, name)
        gone = torch.isin(_ends(graph, part.level), nodes.to(graph.device))
        if bool(gone.any()):
            what = "clicks" if isinstance(graph, SessionGraph) else "rows"
            count = int(gone.sum())
            rows, are = counted(count, f"{name} {what}"), "is" if count == 1 else "are"
            sentences.append(f"{rows} of the forgotten {part.level}s {are} dropped as well")
            setattr(run, name, _without(graph, gone) if isinstance(graph, SessionGraph) else graph.select(~gone))
    return sentences


def _ends(graph: Graph, level: str) -> Tensor:
    """Return the user or item of every interaction or click."""
    if isinstance(graph, InteractionGraph):
        ends: Tensor = graph.pairs[0 if level == "user" else 1]
        return ends
    if level == "item":
        return graph.items
    if graph.user is None:
        raise ArgumentError("--users", "go with sessions that carry users", "sessions that do not")
    return graph.user[graph.session]


def _without(graph: SessionGraph, gone: Tensor) -> SessionGraph:
    """Return the sessions without the clicks of a mask, neighbours joined; those that lose all of them go."""
    if bool(gone.all()):
        return graph.select(torch.zeros(graph.num_sessions, dtype=torch.bool, device=graph.device))
    if not bool(gone.any()):
        return graph
    request = ForgetRequest.internal("click", torch.stack([graph.session[gone], graph.position[gone]]))
    return graph.split(request)[0]
