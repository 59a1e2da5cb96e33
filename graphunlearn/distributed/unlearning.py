"""Unlearning on several ranks: the methods that have a form over parts of a model, and their acceptance."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.data.schema import warn
from graphunlearn.distributed.calibrating import calibrate_part, check_calibrate
from graphunlearn.distributed.fitting import check_objective
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.influence import check_ifru, ifru_objective, ifru_part, milder
from graphunlearn.distributed.judging import ShardAcceptance
from graphunlearn.distributed.model import check_items, form_of, whole_model
from graphunlearn.distributed.starting import any_emptied, refit_part, start_part
from graphunlearn.errors import ArgumentError, RejectedError
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators import IFRU, Calibrate, Unlearner, UnlearningResult, Unlink, UnlinkRedraw
from graphunlearn.operators.shared.acceptance import Judged
from graphunlearn.operators.shared.accepting import SHORTER, SHORTEST, figures_of, shortened
from graphunlearn.operators.shared.memory import peak_memory

__all__ = ["METHODS", "check_method", "unlearn", "whole_result"]

METHODS = (Calibrate, IFRU, Unlink, UnlinkRedraw)
"""The methods that work on several ranks."""


def check_method(method: Unlearner) -> None:
    """Check that a method and its options have a form on several ranks.

    Args:
        method: The method.

    Raises:
        ArgumentError: They have none.
    """
    if type(method) not in METHODS:
        names = ", ".join(cls.name for cls in METHODS)
        raise ArgumentError("method", f"be one of {names} on several ranks", method.name)
    if isinstance(method, IFRU):
        check_ifru(method)
    elif isinstance(method, Calibrate):
        check_calibrate(method)


def unlearn(method: Unlearner, model: nn.Module, graph: ShardGraph, request: ForgetRequest) -> UnlearningResult:
    """Return the parts of the model that ``method.unlearn`` returns for a whole model and graph, up to rounding errors.

    All ranks must call this with the same method and request. IFRU solves its system to ``tol``, as one process does
    with ``within_noise=0``; the default of one process may stop earlier.

    Args:
        method: :class:`~graphunlearn.IFRU` or :class:`~graphunlearn.Calibrate` with the options that
            :func:`check_method` accepts, :class:`~graphunlearn.Unlink` or :class:`~graphunlearn.UnlinkRedraw`.
        model: The part of the trained model; it is not changed.
        graph: The part of its training graph.
        request: The request.

    Returns:
        The result with the corrected part and the retained part of the graph. Its figures are those of all ranks, its
        seconds and its peak memory those of this rank.

    Raises:
        ValueError: The method, an option, the model or the loss has no form on several ranks, or no rank holds an id
            of the request.
        FloatingPointError: The correction left NaN or infinity.
        RejectedError: The correction is worse than deleting the edges, and ``on_rejection`` is ``"raise"``.
        RankError: Another rank failed, died, or was given another method or request.

    Example:
        >>> import graphunlearn as gu
        >>> from graphunlearn.distributed import Ranks, build_part, fit, take_part, unlearn
        >>> whole = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> graph = take_part(whole, Ranks())
        >>> model = build_part("lightgcn", graph, 8)
        >>> _ = fit(model, graph, epochs=5)
        >>> result = unlearn(gu.IFRU(), model, graph, gu.ForgetRequest("user", [whole.user_ids[3]]))
        >>> int((result.graph.pairs[0] == 3).sum())
        0
    """
    ranks = graph.ranks
    with ranks.guard():
        check_method(method)
        objective = getattr(method, "objective", None) or default_objective(graph)
        check_objective(objective)
        form_of(model, graph)
        options = {name: repr(value) for name, value in vars(method).items() if not name.startswith("_")}
        asked = [[p.level, p.index, p.raw] for p in request.parts]
        ranks.same(method=[method.name, options], request=asked)
        check_items(model, graph)
        _check_finite(model, graph, "'model' must have finite parameters")
        removed = graph.mask_of(request)
        corrected = copy.deepcopy(model)
        device = next(model.parameters()).device
        with torch.inference_mode(False), torch.enable_grad(), peak_memory(device) as peak:
            start, cpu = time.perf_counter(), time.process_time()
            retained = graph.keep(~removed)
            log = _step(method, corrected, model, graph, retained, removed)
            _check_finite(corrected, graph, f"{method.name} left NaN or infinity, and the model is unchanged")
            if method.judged:
                log["acceptance"] = _accept(method, log, corrected, model, graph, retained, removed)
                _check_finite(corrected, graph, f"{method.name} left NaN or infinity, and the model is unchanged")
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        log["ranks"] = ranks.world
        return UnlearningResult(corrected, retained, request, method.name, seconds, cpu, None, peak(), log)


def whole_result(result: UnlearningResult) -> UnlearningResult | None:
    """Return a result with the whole model and the whole retained graph on rank 0, and ``None`` on the others.

    Args:
        result: The result of :func:`unlearn`.
    """
    graph: ShardGraph = result.graph
    model, whole = whole_model(result.model, graph), graph.whole()
    if model is None or whole is None:
        return None
    made = copy.copy(result)
    made.model, made.graph = model.eval(), whole
    return made


def _step(
    method: Unlearner, model: nn.Module, before: nn.Module, graph: ShardGraph, retained: ShardGraph, removed: Tensor
) -> dict[str, Any]:
    if isinstance(method, IFRU):
        return ifru_part(method, model, before, graph, retained, removed)
    if isinstance(method, Calibrate):
        return calibrate_part(method, model, graph, retained, removed)
    if isinstance(method, UnlinkRedraw):
        start_part(model, graph, retained, method.seed, scale=False)
        return {"emptied_nodes": any_emptied(graph, retained)}
    return {}


def _accept(
    method: Unlearner,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    graph: ShardGraph,
    retained: ShardGraph,
    removed: Tensor,
) -> dict[str, Any]:
    """Replace a correction that is worse than deleting the edges, and return a record of what was found."""
    deleted = copy.deepcopy(before)
    seed = getattr(method, "seed", 0) or 0
    start_part(deleted, graph, retained, seed, scale=False)
    objective = getattr(method, "objective", None) or default_objective(graph)
    solves = type(method).solves_tilted
    judging = ShardAcceptance(objective, before, deleted, graph, retained, removed, solves=solves, seed=seed)
    first = found = judging.judge(model)
    tried: list[dict[str, Any]] = []
    outcome = "corrected"
    if not first.accepted and method.on_rejection == "keep":
        outcome = "kept"
    elif not first.accepted:
        again = _again(method, log, model, before, deleted, graph, retained, removed, judging, first)
        own: dict[str, Any]
        for outcome, words, found, own in again:  # noqa: B007
            tried.append({"what": words} | figures_of(found) | {"accepted": found.accepted})
            if found.accepted:
                break
        else:
            outcome, found, own = "unlink-redraw", first, {}
            model.load_state_dict(deleted.state_dict())
            said = f"{method.name} made a step that is worse than deleting the edges: {first.reason}"
            if method.on_rejection == "raise":
                raise RejectedError(said)
            if graph.ranks.first:
                warn(f"{said}; the edges are deleted, and nothing is corrected")
        if outcome != "shortened":  # what was logged is not about the model that is returned
            refused = dict(log)
            log.clear()
            log |= own | {"refused_step": refused}
        elif graph.ranks.first:
            warn(shortened(method.name, tried[-1]["what"], first))
    if (found.accepted or outcome == "kept") and isinstance(method, IFRU) and method.refit:
        kept = copy.deepcopy(model.state_dict())
        refit = refit_part(model, before, graph, retained, removed, ifru_objective(method, graph))
        if refit:
            log["refit"] = refit
            judging.solves = None  # the tilt of a neighbour of emptied nodes holds what is forgotten
            if method.on_rejection != "keep" and not (after := judging.judge(model)).accepted:
                model.load_state_dict(kept)
                log["refit"] = {"skipped": after.reason}
    return {
        "accepted": found.accepted,
        "outcome": outcome,
        "deleted": judging.figures(),
        "corrected": figures_of(first),
        "limit": judging.limit,
        "levels": judging.levels(first),
        "reason": first.reason,
        "samples": judging.looked_at,
        "of": judging.number,
        "tried": tried,
    }


def _again(
    method: Unlearner,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    deleted: nn.Module,
    graph: ShardGraph,
    retained: ShardGraph,
    removed: Tensor,
    judging: ShardAcceptance,
    first: Judged,
) -> Iterator[tuple[str, str, Judged, dict[str, Any]]]:
    """Leave milder and then shorter steps in the model, and yield what is known about each."""
    step = copy.deepcopy(model.state_dict())
    for words, other in milder(method, log) if isinstance(method, IFRU) else ():
        model.load_state_dict(before.state_dict())
        try:
            own = ifru_part(other, model, before, graph, retained, removed)
        except FloatingPointError as error:
            yield "milder", words, Judged(None, None, None, False, str(error)), {}
            continue
        yield "milder", words, judging.judge(model), own
    start = deleted.state_dict()
    best = 1.0 if first.share is None else first.share
    for share in (part * best for part in SHORTER if part * best >= SHORTEST):
        mixed = {n: torch.lerp(start[n], v, share) if v.is_floating_point() else v for n, v in step.items()}
        model.load_state_dict(mixed)
        yield "shortened", f"{share:.3g} of the step", judging.judge(model), {}


def _check_finite(model: nn.Module, graph: ShardGraph, sentence: str) -> None:
    bad = sum(int((~torch.isfinite(p)).sum()) for p in model.parameters())
    if number := int(graph.ranks.number(bad)):
        raise FloatingPointError(f"{sentence} (got NaN or infinity in {number} of them)")
