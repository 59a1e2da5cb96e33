"""Requests one after another: what methods cost and how far they are from retraining as a stream goes on."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from graphunlearn.data import ForgetRequest
from graphunlearn.data.schema import check, check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.auditing import judge_of
from graphunlearn.eval.cache import retrained
from graphunlearn.eval.measure import Measured
from graphunlearn.eval.scenarios.stream import Stream, united
from graphunlearn.ledger.drift import Drift
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor
from graphunlearn.nn import Criterion, FitSettings, default_objective, default_settings
from graphunlearn.operators import Retrain, Unlearner, UnlearningResult
from graphunlearn.operators.shared.heldout import validation_left

__all__ = ["LOOKS", "Lane", "follow"]

LOOKS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the stream after which models are compared with retrained ones."""
_TOLD = (ArithmeticError, ValueError, RuntimeError, MemoryError)  # errors whose sentence says enough without the type
REFERENCES, LANES = 50, 5000
"""First seeds of the retrained models that lanes are compared with, and of those that lanes train themselves."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One way to serve a stream: a method, how many requests it takes at once, and when it trains again.

    Args:
        method: The method; an unprepared method that needs a preparation is prepared on the first model.
        batch: Number of requests that are collected and served at once.
        budget: Drift above which the model is retrained instead of corrected; ``None`` never retrains for that.
        every: Number of requests after which the model is retrained instead of corrected; ``None`` for no schedule.
        label: What the report calls the method; its name by default.

    Raises:
        ValueError: ``method`` is no method, ``batch`` or ``every`` is no whole number of at least 1, or ``budget`` is
            not positive.

    Example:
        >>> import graphunlearn as gu
        >>> str(Lane(method=gu.IFRU(), batch=10, budget=0.5))
        'ifru, batches of 10, retrained at drift 0.5'
    """

    method: Unlearner
    batch: int = 1
    budget: float | None = None
    every: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Unlearner):
            raise ArgumentError("method", "be an unlearning method, such as gu.IFRU()", repr(self.method))
        check_sizes(batch=self.batch, **({} if self.every is None else {"every": self.every}))
        check("be positive, or None", lambda value: value is None or value > 0, budget=self.budget)

    @property
    def name(self) -> str:
        """What the report calls the method."""
        return self.label or self.method.name

    def __str__(self) -> str:
        parts = [self.name]
        parts += [] if self.batch == 1 else [f"batches of {self.batch}"]
        parts += [] if self.budget is None else [f"retrained at drift {self.budget:g}"]
        parts += [] if self.every is None else [f"retrained every {self.every}"]
        return ", ".join(parts)


@dataclass
class _Look:
    """The models that lanes are compared with after some requests, and the measures that this takes."""

    count: int
    judge: Any
    retrained: list[Measured]
    known: dict[str, Any] = field(default_factory=dict)


def follow(
    stream: Stream[Any],
    model: nn.Module,
    lanes: Sequence[Lane],
    *,
    looks: Sequence[float] = LOOKS,
    objective: Criterion | None = None,
    settings: FitSettings | None = None,
    retrain_seeds: int = 3,
    deadline: float | None = None,
    cache: str | Path | None = None,
    on_looks: Callable[[dict[str, Any]], Any] = lambda told: None,
    on_lane: Callable[[dict[str, Any]], Any] = lambda told: None,
) -> dict[str, Any]:
    r"""Serve a stream of requests in several ways, and compare with retrained models while it goes on.

    At each look, models are trained without everything that was forgotten so far. The distance of a lane to them is
    the one of :func:`~graphunlearn.eval.distance_to_retrain`, over all that was forgotten so far and over the test
    data, as a multiple of the distance between two retrained models. ``sensitive@k`` is the share of the users who
    asked and whose list of :math:`k` items still holds one of the category. A batch ends at a look at the latest.

    The cost of a batch is its CPU time, without the drift. Where a batch exhausts the budget of the drift, the model is
    retrained on what is retained, which counts as well, and the drift starts again. A method that is prepared is then
    prepared again, which counts too. :class:`~graphunlearn.operators.Retrain` has no drift. A sharded method serves an
    ensemble of its own from the first batch on, and the drift starts at this ensemble.

    Args:
        stream: The stream.
        model: The model trained on ``stream.scenario.train``.
        lanes: The ways to serve the stream.
        looks: Shares of the requests, in (0, 1] and ascending, after which models are compared.
        objective: The loss that the model was trained with; the default of the kind of graph by default.
        settings: Training settings of retrained models, whose seeds are set here.
        retrain_seeds: Number of retrained models per look, at least 2.
        deadline: CPU seconds in which a batch has to be served, positive; by default those of a retraining at the first
            look.
        cache: Folder of retrained models; see :func:`~graphunlearn.eval.audit`.
        on_looks: Called with the report without lanes, once the models of all looks are trained.
        on_lane: Called with the entry of every lane that is finished.

    Returns:
        ``"deadline"``; ``"looks"``, the retrained models and the original by number of requests; and ``"lanes"``. A
        lane has ``"rows"``, one per look, with the drift since the last training; ``"prepare_cpu_seconds"``, of the
        preparation before the first batch, which the other costs leave out; and ``"batches"`` with the requests so far,
        the CPU seconds, the drift after every batch, before a retraining that it led to (``None`` where the method or
        the schedule retrains), and the outcome of the acceptance (``None`` without one). A lane whose method failed has
        the sentence of the error under ``"failed"``.

    Raises:
        ValueError: A look is not in (0, 1], there are fewer than 2 retrained models, the deadline is not positive, or
            ``lanes`` holds something else than lanes.

    Source: the protocol follows ERASE, arXiv 2603.08341.

    Example:
        >>> import graphunlearn as gu
        >>> from graphunlearn.eval import arriving, removal
        >>> graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8)
        >>> stream = arriving(removal(graph, "user", share=0.1), count=4)
        >>> model = gu.nn.build_model("mf", graph, 8)
        >>> short = gu.nn.FitSettings(epochs=2)
        >>> _ = gu.fit(model, stream.scenario.train, settings=short)
        >>> found = follow(stream, model, [Lane(method=gu.Unlink(), batch=2)], looks=(0.5, 1), settings=short)
        >>> [row["requests"] for row in found["lanes"][0]["rows"]]
        [2, 4]
    """
    check_sizes(retrain_seeds=retrain_seeds)
    if retrain_seeds < 2:
        raise ArgumentError("retrain_seeds", "be at least 2, for the distance between two of them", retrain_seeds)
    check("be positive, or None", lambda value: value is None or value > 0, deadline=deadline)
    lanes = list(lanes)
    check("hold lanes", lambda found: all(isinstance(lane, Lane) for lane in found), lanes=lanes)
    ends = _ends(looks, len(stream.requests))
    case = stream.scenario
    objective = objective or default_objective(case.train)
    settings = settings or default_settings(case.train)
    known = {"objective": objective, "validation": case.validation, "settings": settings}
    folder = None if cache is None else Path(cache)
    seen = [_look(stream, model, count, known, retrain_seeds, folder) for count in ends]
    deadline = seen[0].known["retrain_cpu_seconds"] if deadline is None else deadline
    report: dict[str, Any] = {"deadline": deadline, "looks": [look.known for look in seen]}
    on_looks(report)
    told = []
    for lane in lanes:
        told.append(_Run(stream, model, lane, known, deadline).all(seen))
        on_lane(told[-1])
    return report | {"lanes": told}


def _ends(looks: Sequence[float], count: int) -> list[int]:
    """Return the numbers of requests at which models are compared."""
    expected, found = "be ascending shares in (0, 1]", list(looks)
    check(expected, lambda shares: all(0 < share <= 1 for share in shares), looks=found)
    if not found or sorted(set(found)) != found:
        raise ArgumentError("looks", expected, found)
    return sorted({max(1, round(look * count)) for look in looks})


def _look(
    stream: Stream[Any], model: nn.Module, count: int, known: dict[str, Any], seeds: int, cache: Path | None
) -> _Look:
    """Train the references of one look, and measure them and the original."""
    case, request = stream.scenario, stream.until(count)
    shared = (case.trained_labels, case.targets, case.real, case.category)
    judge = judge_of(case.train, request, case.validation, case.test, known["objective"], *shared)
    settings = known["settings"]
    methods = [
        Retrain(**{**known, "settings": replace(settings, seed=settings.seed + REFERENCES + k)}) for k in range(seeds)
    ]
    references = [retrained(method, model, case.train, request, cache) for method in methods]
    original = judge.measure(model, case.train)
    measured = [judge.measure(r.model, r.graph) for r in references]
    look = _Look(count, judge, measured)
    rows = [_figures(m, [o for o in measured if o is not m], look, floors=False) for m in measured]
    names = [name for name in rows[0] if all(row.get(name) is not None for row in rows)]
    look.known = {
        "requests": count,
        "forgotten": int(request.mask(case.train).sum()),
        "original": _figures(original, measured, look),
        "retrained": {name: statistics.fmean(row[name] for row in rows) for name in names},
        "retrained_sd": {name: statistics.stdev(row[name] for row in rows) for name in names},
        "retrain_cpu_seconds": statistics.fmean(r.cpu_seconds for r in references),
    }
    return look


def _figures(m: Measured, others: Sequence[Measured], look: _Look, floors: bool = True) -> dict[str, Any]:
    """Return the figures of one model at one look; with ``floors``, also its distances to the retrained models."""
    quality = ("recall@20", "ndcg@20", "mrr@20")
    out = {name: m["utility"][name] for name in quality if name in m["utility"]}
    wanted = ("sensitive@10", "sensitive@20", "mean_probability", "log_p_forgotten")
    out |= {name: m["forgetting"][name] for name in wanted if name in m["forgetting"]}
    if m["target"] is not None:
        out |= {f"target_{name}": value for name, value in m["target"].items()}
    if floors:
        for where in ("forget", "test"):
            floor = noise_floor([r[where] for r in look.retrained])
            away = distance_to_retrain(m[where], [r[where] for r in others])
            out[f"distance_{where}"] = away / floor if floor else None
    return out


class _Run:
    """One lane on its way through the stream."""

    def __init__(
        self, stream: Stream[Any], model: nn.Module, lane: Lane, known: dict[str, Any], deadline: float
    ) -> None:
        self.stream, self.lane, self.known, self.deadline = stream, lane, known, deadline
        self.first, self.model, self.graph = model, copy.deepcopy(model), stream.scenario.train
        settings = replace(known["settings"], seed=known["settings"].seed + LANES)
        self.retraining = Retrain(**{**known, "settings": settings})
        own = {**known, "settings": settings} if isinstance(lane.method, Retrain) else known
        self.method = copy.deepcopy(lane.method).filled(**own)
        self.drift: Drift | None = None
        self.batches: list[dict[str, Any]] = []
        self.retrainings = self.since = 0

    def all(self, looks: Sequence[_Look]) -> dict[str, Any]:
        """Serve all requests, and return the entry of the lane."""
        told: dict[str, Any] = {"lane": str(self.lane), "method": self.lane.name, "batch": self.lane.batch}
        rows, served, preparing = [], 0, 0.0
        try:
            preparing = self._prepare()
            for look in looks:
                while served < look.count:
                    size = min(self.lane.batch, look.count - served)
                    self._serve(self.stream.requests[served : served + size], served + size)
                    served += size
                rows.append(self._row(look, look.judge.measure(self.model, self.graph)))
        except Exception as error:  # said in the entry of the lane; the others go on
            kind = "" if isinstance(error, _TOLD) else f"{type(error).__name__}: "
            asked = f"{served} request{'' if served == 1 else 's'}"
            told["failed"] = f"after {asked}: {kind}{' '.join(str(error).split())}"
        return told | {"prepare_cpu_seconds": preparing, "rows": rows, "batches": self.batches}

    def _prepare(self) -> float:
        """Prepare the method if it asks for it, and return the CPU seconds of that."""
        start = time.process_time()
        if self.method.asks_preparation(self.model) and self.method.preparation is None:
            self.method.prepare(self.model, self.graph, progress=False)
        return time.process_time() - start

    def _serve(self, requests: Sequence[ForgetRequest], so_far: int) -> None:
        """Serve one batch, and retrain where the schedule or the drift says so."""
        request, every = united(requests), self.lane.every
        self.since += len(requests)
        due = isinstance(self.method, Retrain) or (every is not None and self.since >= every)
        result = self._retrain(request) if due else self.method.unlearn(self.model, self.graph, request)
        seconds, spent = result.cpu_seconds, None
        if not due:
            drift = Drift.after(
                self.drift,
                self.model if result.original is None else result.original,
                self.graph,
                result.model,
                result.graph,
                self.known["objective"],
                math.inf if self.lane.budget is None else self.lane.budget,
            )
            self.drift, spent = drift, drift.spent
            if drift.exhausted:
                due, result = True, self._retrain(request)
                seconds += result.cpu_seconds
        self.retraining.validation = validation_left(self.retraining.validation, self.graph, result.graph)
        self.model, self.graph = result.model, result.graph
        if due:
            self.since, self.drift, self.retrainings = 0, None, self.retrainings + 1
            self.method.preparation = None
            seconds += self._prepare()
        outcome = result.log.get("acceptance", {}).get("outcome")
        served = {"cpu_seconds": seconds, "drift": spent, "retrained": due, "outcome": outcome}
        self.batches.append({"requests": so_far, **served})

    def _retrain(self, request: ForgetRequest) -> UnlearningResult:
        """Train a model of the class of the first one anew, since a method may serve one of another class."""
        method = self.method if isinstance(self.method, Retrain) else self.retraining
        return method.unlearn(self.first, self.graph, request)

    def _row(self, look: _Look, m: Measured) -> dict[str, Any]:
        costs = [batch["cpu_seconds"] for batch in self.batches]
        row = {"requests": look.count} | _figures(m, look.retrained, look)
        for name in ("recall@20", "mrr@20"):
            if name in row:
                best = look.known["retrained"].get(name)
                row[f"{name}_over_retrain"] = row[name] / best if best else None
        return row | {
            "cpu_seconds_in_all": sum(costs),
            "slowest_batch": max(costs),
            "late_batches": sum(cost > self.deadline for cost in costs),
            "retrainings": self.retrainings,
            "drift": 0.0 if self.drift is None else self.drift.spent,
        }
