"""What to forget, from the command line, and the part of it that a model has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeAlias

from graphunlearn.cli._text import WORDS, counted, listed, note
from graphunlearn.cli._wording import reading
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data import ForgetRequest
    from graphunlearn.data.request import Level
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
Asked: TypeAlias = "Mapping[Level, Sequence[Any]]"
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
    from graphunlearn.data import ForgetRequest

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
        except ArgumentError as error:
            if error.argument == "index":  # one that matches nothing may be among others that do
                raise error.renamed(OPTIONS[part.level]) from None
    try:
        return request.describe(graph)
    except ArgumentError as error:
        if error.argument != "request":
            raise
        options = listed([f"'{OPTIONS[part.level]}'" for part in request.parts], "and")
        raise ValueError(f"{options} must {error.expected} (got {error.got})") from error


def learned_part(request: ForgetRequest, run: Run) -> tuple[ForgetRequest, dict[str, int], list[str]]:
    """Return the request without what is only held out, and take that out of the run's held-out parts.

    The model has not learned from it, so there is nothing to unlearn. What the held-out parts have of forgotten users
    and items is taken out of them as well.

    Returns:
        The request to unlearn, how many pairs, or clicks and sessions, were held out, and what is to be said of that.

    Raises:
        ValueError: Nothing is left.
    """
    from graphunlearn.data.events import divide

    parts: list[ForgetRequest] = []
    sentences: list[str] = []
    levels = [level for level, kind in ONLY.items() if kind == run.spec.kind]
    counts = {f"held_out_{OPTIONS[level].removeprefix('--')}": 0 for level in levels}
    for part in request.parts:
        if part.level in ("user", "item"):
            parts.append(part)
            sentences += _forget_held_out(part, run)
            continue
        learned, held = divide(part, run.train, [getattr(run, name) for name in HELD_OUT])
        _drop_held_out(part if part.level == "interaction" else held, run)
        name, only_held = OPTIONS[part.level].removeprefix("--"), 0 if held is None else len(held)
        counts[f"held_out_{name}"] = only_held
        parts += [] if learned is None else [learned]
        if only_held:
            were, are, them = ("was", "it is", "it") if only_held == 1 else ("were", "they are", "them")
            told = f"{are} dropped, and there is nothing to unlearn about {them}"
            sentences.append(f"{only_held} of the {name} {were} held out: {told}")
    if not parts:
        level, count = request.parts[0].level, sum(counts.values())
        one = f"{'an' if level == 'interaction' else 'a'} {level}"
        reason = f"{count}, all of them held out from it"
        raise ArgumentError(OPTIONS[level], f"hold {one} that the model learned from", reason)
    return reduce(or_, parts), counts, sentences


def _drop_held_out(part: ForgetRequest | None, run: Run) -> None:
    """Take what a request names out of the held-out parts of a run."""
    if part is None:
        return
    for name in HELD_OUT:
        try:
            setattr(run, name, getattr(run, name).without(part))
        except ArgumentError as error:
            raise error.renamed(OPTIONS[part.level] if error.argument == "index" else None) from error


def _forget_held_out(part: ForgetRequest, run: Run) -> list[str]:
    """Take what the held-out parts have of forgotten users or items out of the run, which is theirs too, and say so."""
    import torch

    sentences = []
    if part.level == "user" and run.spec.kind == "sessions" and run.train.user is None:
        raise ArgumentError("--users", "go with sessions that carry users", "sessions that do not")
    nodes = run.train.vocabulary(part.level).lookup(part.index)
    for name in HELD_OUT:
        graph = getattr(run, name)
        gone = torch.isin(graph.ends(part.level), nodes.to(graph.device))
        if bool(gone.any()):
            count = int(gone.sum())
            what = "clicks" if graph.kind == "sessions" else "rows"
            rows, are = counted(count, f"{name} {what}"), "is" if count == 1 else "are"
            sentences.append(f"{rows} of the forgotten {part.level}s {are} dropped as well")
            setattr(run, name, graph.keep(~gone))
    return sentences
