"""Acceptance of corrections: what is worse than deleting the edges is mended, shortened or replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError, RejectedError
from graphunlearn.nn.connecting import connect, is_connected
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators.shared.acceptance import Judged
from graphunlearn.operators.shared.journal import Journal
from graphunlearn.operators.shared.linear_acceptance import judging_of
from graphunlearn.operators.shared.own_loss import fitting_loss, objection_to_loss, pass_on_loss
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["accept", "refuse", "settle"]

SHORTER = (0.5, 0.25)  # what is tried of a rejected step, as shares of the part up to the minimum of the tilted risk
SHORTEST = 0.1  # a smaller share of the step is not worth taking


def accept(
    method: Any,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    graph: Any,
    retained: Any,
    request: ForgetRequest,
) -> dict[str, Any]:
    """Replace a correction that is worse than deleting the edges, and return a record of what was found.

    A rejected step is taken again with what the method offers (:meth:`~graphunlearn.Unlearner.milder`), and then made
    shorter. If nothing is accepted, the model is left with emptied embeddings redrawn, or an error is raised if
    ``on_rejection`` of the method is ``"raise"``. With ``"keep"``, nothing else is tried and the step is kept; it
    counts as not accepted as well if the model was plainly trained with another loss (:func:`refuse`).

    Args:
        method: The method that made the step.
        log: The log of the step; with a ``"tilted_fall"`` of at least 0, the method has found that its step does not
            raise the tilted risk of its loss, which is then not measured again, unless the model was trained with
            another loss. If another step is accepted, or none, the log moves to the entry ``"refused_step"``;
            if the step is only shortened, it stays.
        model: The corrected model, which is changed if the step is rejected.
        before: The trained model.
        graph: The graph before forgetting.
        retained: The retained graph.
        request: The request.

    Returns:
        The record: ``"accepted"``, ``"outcome"`` (``"corrected"``, ``"milder"``, ``"shortened"``, ``"unlink-redraw"``,
        ``"kept"`` or ``"not judged"``), the figures of the deleted and the corrected model, the limit, the
        ``"levels"`` of both models, and ``"tried"``.

    Raises:
        RejectedError: Nothing is accepted and ``on_rejection`` is ``"raise"``.
    """
    seed = getattr(method, "seed", 0) or 0
    deleted = _deleted(before, graph, retained, seed)
    criterion = fitting_loss(method, before, graph)
    own = getattr(method, "objective", None) or default_objective(graph)
    falls = log.get("tilted_fall", -1) >= 0 and criterion == own
    solves = type(method).solves_tilted
    judge = partial(judging_of, criterion, before, deleted, graph, retained, request, seed=seed)
    first: Judged | None = None
    try:
        judging = judge(solves=None if falls else solves)
        if judging.solves is not solves and judging.number:
            first = judging.judge(model)
            if not first.accepted:  # what is tried next need not lower the tilted risk
                judging, first = judge(solves=solves), None
    except ArgumentError as error:  # such as a loss of labels, if what remains has a single label
        return {"accepted": True, "outcome": "not judged", "reason": str(error)}
    if not judging.number:
        return {"accepted": True, "outcome": "not judged", "reason": "no click that remains has a click before it"}
    if objection := objection_to_loss(method, before, graph):
        first = judging.judge(model)
        first = replace(first, accepted=False, reason="; ".join(filter(None, (objection, first.reason))))

    def step_again(other: Any) -> dict[str, Any]:
        connect(model, retained)
        found: dict[str, Any] = other._unlearn(model, graph, retained, request)
        return found

    def finish(journal: Journal) -> dict[str, Any]:
        found: dict[str, Any] = method._finish(model, before, graph, retained, request, journal)
        return found

    finishes = sum("_finish" in vars(cls) for cls in type(method).__mro__) > 1
    record = settle(method, log, model, before, deleted, judging, step_again, finish if finishes else None, first=first)
    pass_on_loss(method, before, model, graph)
    return record


def refuse(method: Any, model: nn.Module, before: nn.Module, graph: Any, retained: Any) -> dict[str, Any] | None:
    """Only delete the edges if the model was plainly trained with another loss than that of the method.

    No step is made then, unless ``on_rejection`` of the method is ``"keep"``.

    Args:
        method: The method.
        model: The model to correct, which is changed if a step is refused.
        before: The trained model.
        graph: The graph before forgetting.
        retained: The retained graph.

    Returns:
        The log, whose record (see :func:`accept`) has the reason, no figures, and ``None`` as ``"corrected"``; ``None``
        if a step is to be made.
    """
    if not (method.judged and 0 < retained.num_interactions < graph.num_interactions):
        return None
    reason = objection_to_loss(method, before, graph)
    if not reason or method.on_rejection == "keep":
        return None
    model.load_state_dict(_deleted(before, graph, retained, getattr(method, "seed", 0) or 0).state_dict())
    pass_on_loss(method, before, model, graph)
    found = {"accepted": False, "outcome": "unlink-redraw", "corrected": None, "reason": reason, "tried": []}
    return {"acceptance": found}


def _deleted(before: nn.Module, graph: Any, retained: Any, seed: int) -> nn.Module:
    """Return the model whose edges are deleted and whose emptied embeddings are redrawn."""
    deleted = before
    emptied = bool(graph.emptied(retained).any())
    if emptied or is_connected(before):
        deleted = copy.deepcopy(before)
        connect(deleted, retained)
    if emptied:
        with suppress(TypeError):  # a model that cannot be reset keeps the embeddings of emptied nodes
            warm_start(deleted, graph, retained, seed, scale=False)
    return deleted


class Judging(Protocol):
    """What :func:`settle` measures models with."""

    solves: bool | None

    def judge(self, model: nn.Module) -> Judged:
        """Return whether a model is accepted, with its figures."""

    def record(self, first: Judged) -> dict[str, Any]:
        """Return what is recorded of the deleted model, and of the model that was judged first."""


def settle(
    method: Any,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    deleted: nn.Module,
    judging: Judging,
    step_again: Callable[[Any], dict[str, Any]],
    finish: Callable[[Journal], dict[str, Any]] | None = None,
    *,
    first: Judged | None = None,
    tells: bool = True,
) -> dict[str, Any]:
    """Judge a step, and take it again, shorten it or replace it until it is accepted; see :func:`accept`.

    Args:
        method: The method that made the step.
        log: The log of the step, which is changed as :func:`accept` says.
        model: The corrected model, which is changed if the step is rejected.
        before: The trained model.
        deleted: The model whose edges are deleted.
        judging: What measures a model.
        step_again: A function that leaves the step of a variant of the method in ``model``, which holds the trained
            parameters, and returns its log.
        finish: A function that changes an accepted correction further and returns more of the log, given a journal of
            the rows that it changes; what it made is judged once more, without the tilt, and undone if it is rejected.
        first: The figures of the step, if it was judged before.
        tells: Whether to warn of a step that was replaced or shortened.

    Returns:
        The record.

    Raises:
        RejectedError: Nothing is accepted and ``on_rejection`` is ``"raise"``.
    """
    first = found = judging.judge(model) if first is None else first
    tried: list[dict[str, Any]] = []
    outcome = "corrected"
    if not first.accepted and method.on_rejection == "keep":
        outcome = "kept"
    elif not first.accepted:
        steps = _again(method, log, model, before, deleted, judging, step_again, first)
        for outcome, words, found, own_log in steps:  # noqa: B007
            tried.append({"what": words} | figures_of(found) | {"accepted": found.accepted})
            if found.accepted:
                break
        else:
            outcome, found, own_log = "unlink-redraw", first, {}
            model.load_state_dict(deleted.state_dict())
        if outcome != "shortened":  # what was logged is not about the model that is returned
            refused = dict(log)
            log.clear()
            log |= own_log | {"refused_step": refused}
    if not found.accepted and method.on_rejection != "keep":
        _complain(method, first, tells)
    if outcome == "shortened" and tells:
        warn(shortened(method.name, tried[-1]["what"], first))
    if finish is not None and (found.accepted or outcome == "kept"):
        journal = Journal()
        more = finish(journal)
        judging.solves = None  # the tilt of a neighbour of emptied nodes holds what is forgotten
        if more and method.on_rejection != "keep" and not (after := judging.judge(model)).accepted:
            journal.undo()
            more = {name: {"skipped": after.reason} for name in more}
        log.update(more)
    return {
        "accepted": found.accepted,
        "outcome": outcome,
        "corrected": figures_of(first),
        "reason": first.reason,
        **judging.record(first),
        "tried": tried,
    }


def shortened(name: str, taken: str, first: Judged) -> str:
    """Return the sentence that warns of a step that was shortened.

    Args:
        name: Name of the method.
        taken: The part of the step that was taken.
        first: The figures of the whole step.
    """
    why = f"the whole step is worse than deleting the edges: {first.reason}"
    return f"{name} took {taken}, so that much of what is forgotten may remain; {why}"


def figures_of(found: Judged) -> dict[str, Any]:
    """Return the figures of a model for the log."""
    names = ("risk", "tilted", "gradient", "share", "beyond")
    return {name: getattr(found, name) for name in names}


def _again(
    method: Any,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    deleted: nn.Module,
    judging: Judging,
    step_again: Callable[[Any], dict[str, Any]],
    first: Judged,
) -> Iterator[tuple[str, str, Judged, dict[str, Any]]]:
    """Leave milder and then shorter steps in the model, and yield what is known about each."""
    step = copy.deepcopy(model.state_dict())
    for words, other in method.milder(log):
        model.load_state_dict(before.state_dict())
        try:
            own_log = step_again(other)
        except FloatingPointError as error:
            yield "milder", words, Judged(None, None, None, False, str(error)), {}
            continue
        yield "milder", words, judging.judge(model), own_log
    start = deleted.state_dict()
    best = 1.0 if first.share is None else first.share
    for share in (part * best for part in SHORTER if part * best >= SHORTEST):
        mixed = {n: torch.lerp(start[n], v, share) if _is_float(v) else v for n, v in step.items()}
        model.load_state_dict(mixed)
        yield "shortened", f"{share:.3g} of the step", judging.judge(model), {}


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _complain(method: Any, found: Judged, tells: bool) -> None:
    """Warn that no correction was accepted, or raise an error if the method asks for it."""
    said = f"{method.name} made a step that is worse than deleting the edges: {found.reason}"
    advice = "check that 'objective' is the loss that the model was trained with, or retrain"
    if method.on_rejection == "raise":
        raise RejectedError(f"{said}; {advice}")
    if tells:
        warn(f"{said}; the edges are deleted, and nothing is corrected; {advice}")
