"""The forget request of a command line, and the part of it that is in the training data of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeAlias

from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._text import WORDS, counted, listed, note
from graphunlearn.cli._wording import reading
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data import ForgetRequest
    from graphunlearn.data.request import Level
    from graphunlearn.runs.run import Graph, ModelSpec, Run

OPTIONS: dict[Level, str] = {
    "user": "--users",
    "item": "--items",
    "interaction": "--pairs",
    "session": "--sessions",
    "click": "--clicks",
}
"""The option of each level."""
ONLY: dict[Level, str] = {"interaction": "interactions", "session": "sessions", "click": "sessions"}
"""For every level that only one kind of graph has: this kind."""
FILES = ("interaction", "click")
"""Levels whose options name files."""
Asked: TypeAlias = "Mapping[Level, Sequence[Any]]"
"""The values of the options, ids or files, by level."""
HELD_OUT = ("validation", "test")


def check_asked(asked: Asked) -> None:
    """Check that at least one option names something to forget.

    Args:
        asked: The values of the options.

    Raises:
        ValueError: No option names anything.
    """
    if not any(asked.values()):
        named = listed([f"'{option}'" for option in OPTIONS.values()], "or")
        raise ValueError(f"what to forget must be given with {named} (got none of them)")


def request_options(file: FileOptions, level: str) -> dict[str, Any]:
    """Return how a file of a request is to be read, as arguments of a reader.

    Args:
        file: The options; those of columns that the level lacks are left out.
        level: The level of the request.
    """
    from graphunlearn.data.io.files import layout_of

    given = file.given(layout_of(level), strict=False)
    return {name: value for name, value in given.items() if name not in ("lists", "decimal")}


def request_of(asked: Asked, spec: ModelSpec, file: FileOptions | None = None) -> ForgetRequest:
    """Return the forget request.

    Args:
        asked: The values of the options.
        spec: The model to unlearn from.
        file: How the files are to be read.

    Raises:
        ArgumentError: A level exists only for models of the other kind, or an id or a file is malformed.
    """
    from graphunlearn.data import ForgetRequest

    for level, given in asked.items():
        kind = ONLY.get(level, spec.kind)
        if given and kind != spec.kind:
            got = f"it with {spec.name}, one of {WORDS[spec.kind]}"
            raise ArgumentError(OPTIONS[level], f"go with a model of {WORDS[kind]}", got)
    parts: list[ForgetRequest] = []
    for level, given in asked.items():
        if given:
            with reading(OPTIONS[level]):
                if level in FILES:
                    how = request_options(file or FileOptions(), level)
                    parts += [ForgetRequest.from_file(path, level, **how) for path in given]
                else:
                    parts.append(ForgetRequest(level, tuple(given)))
    repeated = sum(part.num_duplicates for part in parts)
    if repeated:
        note(f"{repeated} repeated {'entry counts' if repeated == 1 else 'entries count'} once")
    return reduce(or_, parts)


def first_option(train: Graph) -> str:
    """Return the option that forgets the first user or session of the data, for an example command.

    Args:
        train: The training data.
    """
    level = "session" if train.kind == "sessions" else "user"
    return f"--{level}s {shlex.quote(train.vocabulary(level)[0])}"


def described(request: ForgetRequest, graph: Graph) -> dict[str, Any]:
    """Return the sizes of a request in a graph.

    Args:
        request: The request.
        graph: The graph.

    Raises:
        ValueError: The graph does not contain an id, or the request would leave no data.
    """
    for part in request.parts:
        try:
            part.mask(graph)
        except ArgumentError as error:
            if error.argument == "index":  # a part that matches nothing is allowed if another part matches
                raise error.renamed(OPTIONS[part.level]) from None
    try:
        return request.describe(graph)
    except ArgumentError as error:
        if error.argument != "request":
            raise
        options = listed([f"'{OPTIONS[part.level]}'" for part in request.parts], "and")
        raise ValueError(f"{options} must {error.expected} (got {error.got})") from error


def learned_part(request: ForgetRequest, run: Run) -> tuple[ForgetRequest, dict[str, int], list[str]]:
    """Remove a request from the held-out data of a run, and return the part of it that is in the training data.

    The model was not trained on held-out data, so there is nothing to unlearn about them. The held-out data of
    forgotten users and items are removed as well.

    Args:
        request: The request.
        run: The run; its validation and test data are replaced. Users and items of which the request leaves nothing in
            any part, and that had held-out data alone, are added to those that requests have emptied.

    Returns:
        The request without the parts that are only in held-out data, the numbers of held-out pairs, sessions or clicks,
        and messages about them.

    Raises:
        ArgumentError: Nothing of the request is in the training data.
    """
    from graphunlearn.data.events import divide
    from graphunlearn.runs.erasing import left_by

    before = [getattr(run, name) for name in HELD_OUT]
    parts: list[ForgetRequest] = []
    sentences: list[str] = []
    names = {level: OPTIONS[level].removeprefix("--") for level, kind in ONLY.items() if kind == run.spec.kind}
    counts = {f"held_out_{name}": 0 for name in names.values()}
    for part in map(run.train.placed, request.parts):
        if part.level in ("user", "item"):
            parts.append(part)
            sentences += _forget_held_out(part, run)
            continue
        learned, held = divide(part, run.train, [getattr(run, name) for name in HELD_OUT])
        also = _also_held_out(learned, run) if part.level == "session" else 0
        _drop_held_out(held if part.level == "click" else part, run)
        if also:
            have = "has" if also == 1 else "have"
            sentences.append(f"{also} of the forgotten sessions {have} held-out clicks, which are dropped as well")
        name, only_held = names[part.level], 0 if held is None else len(held)
        counts[f"held_out_{name}"] = only_held
        parts += [] if learned is None else [learned]
        if only_held:
            were, are, them = ("was", "it is", "it") if only_held == 1 else ("were", "they are", "them")
            told = f"{are} dropped, and there is nothing to unlearn about {them}"
            sentences.append(f"{only_held} of the {name} {were} held out: {told}")
    if not parts:
        level = request.parts[0].level
        one = f"{'an' if level == 'interaction' else 'a'} {level}"
        reason = f"{sum(counts.values())}, all of them held out from it"
        raise ArgumentError(OPTIONS[level], f"hold {one} that the model learned from", reason)
    if run.emptied is not None:
        left = left_by(run.train, before, [getattr(run, name) for name in HELD_OUT])
        run.emptied = {name: list(dict.fromkeys([*run.emptied.get(name, ()), *ids])) for name, ids in left.items()}
    return reduce(or_, parts), counts, sentences


def _also_held_out(part: ForgetRequest | None, run: Run) -> int:
    """Return how many sessions of a request occur in held-out data."""
    if part is None:
        return 0
    held = [getattr(run, name).holds(part) for name in HELD_OUT]
    return int(reduce(or_, held).sum())


def _drop_held_out(part: ForgetRequest | None, run: Run) -> None:
    """Remove a request from the held-out data of a run."""
    if part is None:
        return
    for name in HELD_OUT:
        try:
            setattr(run, name, getattr(run, name).without(part))
        except ArgumentError as error:
            raise error.renamed(OPTIONS[part.level] if error.argument == "index" else None) from error


def _forget_held_out(part: ForgetRequest, run: Run) -> list[str]:
    """Remove users or items from the held-out data of a run; return messages about the removed data."""
    import torch

    sentences = []
    if part.level == "user" and run.spec.kind == "sessions" and run.train.user is None:
        raise ArgumentError("--users", "go with sessions that carry users", "sessions that do not")
    for name in HELD_OUT:
        graph = getattr(run, name)
        if part.level == "user" and graph.kind == "sessions" and graph.user is None:
            continue
        nodes = graph.vocabulary(part.level).lookup(part.index)  # users of sessions have other numbers there
        nodes = nodes[nodes >= 0]
        gone = torch.isin(graph.ends(part.level), nodes.to(graph.device))
        count = int(gone.sum())
        if count:
            dropped = counted(count, f"{name} {graph.unit}s")
            are = "is" if count == 1 else "are"
            sentences.append(f"{dropped} of the forgotten {part.level}s {are} dropped as well")
            setattr(run, name, graph.keep(~gone))
    return sentences
