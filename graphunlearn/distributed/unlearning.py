"""Unlearning on several ranks: the methods that have a form over parts of a model, and their acceptance."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.distributed.calibrating import calibrate_part, check_calibrate
from graphunlearn.distributed.fitting import check_objective
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.influence import check_ifru, ifru_objective, ifru_part
from graphunlearn.distributed.judging import ShardAcceptance
from graphunlearn.distributed.model import check_items, form_of, whole_model
from graphunlearn.distributed.starting import any_emptied, refit_part, start_part
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators import IFRU, Calibrate, Unlearner, UnlearningResult, Unlink, UnlinkRedraw
from graphunlearn.operators.shared.accepting import settle
from graphunlearn.operators.shared.journal import Journal
from graphunlearn.operators.shared.memory import peak_memory

__all__ = ["METHODS", "as_on_ranks", "check_method", "unlearn", "whole_result"]

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


def as_on_ranks(method: Unlearner) -> Unlearner:
    """Return a method with the options by which it works on several ranks: IFRU solves its system in full.

    Args:
        method: The method.

    Returns:
        The method itself, or a copy with ``within_noise=0``.

    Raises:
        ArgumentError: The method or an option has no form on several ranks.

    Example:
        >>> import graphunlearn as gu
        >>> as_on_ranks(gu.IFRU()).within_noise
        0.0
    """
    check_method(method)
    if not isinstance(method, IFRU) or not method.within_noise:
        return method
    made = copy.copy(method)
    made.within_noise = 0.0
    return made


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
        method = as_on_ranks(method)
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

    def step_again(other: Any) -> dict[str, Any]:
        return _step(other, model, before, graph, retained, removed)

    finish = None
    if isinstance(method, IFRU) and method.refit:
        loss = ifru_objective(method, graph)

        def finish(journal: Journal) -> dict[str, Any]:
            refit = refit_part(model, before, graph, retained, removed, loss, noise="judged", journal=journal)
            return {"refit": refit} if refit else {}

    return settle(method, log, model, before, deleted, judging, step_again, finish, tells=graph.ranks.first)


def _check_finite(model: nn.Module, graph: ShardGraph, sentence: str) -> None:
    bad = sum(int((~torch.isfinite(p)).sum()) for p in model.parameters())
    if number := int(graph.ranks.number(bad)):
        raise FloatingPointError(f"{sentence} (got NaN or infinity in {number} of them)")
