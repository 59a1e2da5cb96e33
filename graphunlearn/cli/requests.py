"""What to forget, from the command line, and the part of it that a model has learned from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import torch

from graphunlearn.cli.common import note
from graphunlearn.cli.runs import Run
from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.eval.scenarios import pair_codes, request_codes

__all__ = ["described", "learned_part", "request_of"]

OPTIONS = {"user": "--users", "item": "--items", "interaction": "--pairs"}


def request_of(users: Sequence[str], items: Sequence[str], pairs: Sequence[Path]) -> ForgetRequest:
    """Return all that is asked as one request.

    Raises:
        ValueError: Nothing is asked, an id is not one, or the file is malformed.
    """
    parts = [ForgetRequest("user", tuple(users))] if users else []
    parts += [ForgetRequest("item", tuple(items))] if items else []
    parts += [ForgetRequest.from_file(path) for path in pairs]
    if not parts:
        raise ValueError("what to forget must be given with '--users', '--items' or '--pairs' (got none of them)")
    repeated = sum(part.num_duplicates for part in parts)
    if repeated:
        note(f"{repeated} repeated {'entry counts' if repeated == 1 else 'entries count'} once")
    return reduce(or_, parts)


def described(request: ForgetRequest, graph: InteractionGraph) -> dict[str, Any]:
    """Return what the request is to the graph; an error names the option that asked for what is not there."""
    for part in request.parts:
        try:
            part.mask(graph)
        except ValueError as error:
            if str(error).startswith("'index'"):
                raise ValueError(str(error).replace("'index'", f"'{OPTIONS[part.level]}'", 1)) from None
    return request.describe(graph)


def learned_part(request: ForgetRequest, run: Run) -> tuple[ForgetRequest, int]:
    """Return the request without the pairs that are only held out, and take those out of the run's held-out parts.

    The model has not learned from them, so there is nothing to unlearn.

    Returns:
        The request to unlearn, and the number of pairs that were held out.

    Raises:
        ValueError: Nothing is left.
    """
    parts, held = [], 0
    for part in request.parts:
        if part.level != "interaction":
            parts.append(part)
            _forget_held_out(part, run)
            continue
        wanted = request_codes(part, run.train)
        is_held = torch.zeros_like(wanted, dtype=torch.bool)
        for name in ("validation", "test"):
            graph = getattr(run, name)
            own = pair_codes(graph)
            is_held |= torch.isin(wanted, own)
            setattr(run, name, graph.select(~torch.isin(own, wanted)))
        is_held &= ~torch.isin(wanted, pair_codes(run.train))
        held = int(is_held.sum())
        rest = tuple(pair for pair, out in zip(part.index, is_held.tolist()) if not out)
        parts += [ForgetRequest("interaction", rest)] if rest else []
    if not parts:
        raise ValueError(
            f"'--pairs' must hold an interaction that the model learned from (got {held}, all of them held out from it)"
        )
    if held:
        note(f"{held} of the pairs were held out: they are dropped, and there is nothing to unlearn about them")
    return reduce(or_, parts), held


def _forget_held_out(part: ForgetRequest, run: Run) -> None:
    """Take the held-out rows of forgotten users or items out of the run: they are data of theirs as well."""
    side = 0 if part.level == "user" else 1
    nodes = run.train.vocabulary(part.level).lookup(part.index)
    for name in ("validation", "test"):
        graph = getattr(run, name)
        kept = ~torch.isin(graph.pairs[side].cpu(), nodes)
        if not bool(kept.all()):
            note(f"{int((~kept).sum())} {name} rows of the forgotten {part.level}s are dropped as well")
            setattr(run, name, graph.select(kept))
