"""The audit: methods against an ensemble of retrained models, two-sided."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.plain import json_ready
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.cache import retrained as retrain
from graphunlearn.eval.machine import environment
from graphunlearn.eval.measure import Judge, Measured
from graphunlearn.eval.report.writing import aggregate, terminal_table, thinned, write_report
from graphunlearn.eval.scenarios.cases import counted
from graphunlearn.eval.session_measure import SessionJudge
from graphunlearn.metrics.forgetting import distance_to_retrain, forgetting_entry, noise_floor
from graphunlearn.nn import Criterion, FitSettings, Objective, default_settings
from graphunlearn.operators import Retrain, Unlearner, UnlearningResult
from graphunlearn.operators.shards.ensemble import backbone_of

__all__ = ["Audit", "audit", "own_figures"]

MEBIBYTE = 2**20
_TIMES = ("seconds_sum", "seconds_slowest_shard")  # of methods that could run their parts side by side


@dataclass
class Audit:
    """A finished audit: print it, write it, or read ``report``.

    Args:
        report: The report, in the format of ``report.json``.
        plots: What the figures are drawn from.
        references: The retrained models it was judged against, for further audits of the same request.
        results: What the audited methods returned.
        retrained: What the report's row of retraining is the mean of, one entry per retrained model.
    """

    report: dict[str, Any]
    plots: dict[str, Any] = field(default_factory=dict, repr=False)
    references: list[UnlearningResult] = field(default_factory=list, repr=False)
    results: list[UnlearningResult] = field(default_factory=list, repr=False)
    retrained: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return terminal_table(self.report)

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``report.json`` and ``report.html`` into ``folder`` and return their paths."""
        return write_report(self.report, folder, self.plots)

    @classmethod
    def mean(cls, audits: Sequence[Audit], about: Mapping[str, Any]) -> Audit:
        """Return the mean of several audits of the same methods; figures are those of the first.

        Audits may share retrained models: the row of retraining is the mean of all distinct ones, its ± their spread.
        """
        first, methods = audits[0], audits[0].report["methods"]
        if len(audits) > 1:
            row = json_ready(_retrain_row([(a.references, a.retrained) for a in audits]))
            means = aggregate([a.report["methods"] for a in audits])
            methods = [row if method["name"] == "retrain" else method for method in means]
        notes = [*about.get("notes", []), *_notes([a.references for a in audits], first.results)]
        runs = [[{k: v for k, v in m.items() if k != "log"} for m in a.report["methods"]] for a in audits]
        report = {**first.report, **about, "notes": notes, "methods": methods, "runs": runs}
        return cls(report, first.plots, first.references, first.results, first.retrained)


def audit(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    methods: Sequence[Unlearner | UnlearningResult],
    *,
    test: InteractionGraph | SessionGraph,
    validation: InteractionGraph | SessionGraph | None = None,
    objective: Criterion,
    settings: FitSettings | None = None,
    retrain_seeds: int = 5,
    references: list[UnlearningResult] | None = None,
    trained_labels: bool = False,
    cache: str | Path | None = None,
    on_step: Callable[[str], Any] = lambda what: None,
) -> Audit:
    """Judge unlearning methods against models retrained without what is forgotten.

    What is measured follows from the graph: see :class:`~graphunlearn.eval.measure.Judge` for users and items, and
    :class:`~graphunlearn.eval.session_measure.SessionJudge` for sessions. A method that brings an original of its own
    (shards, say) is measured from that one.

    Args:
        model: The original model.
        graph: The graph it was trained on.
        request: What is forgotten.
        methods: Methods to run, or results that are there already.
        test: Held-out interactions or sessions. Rows of users or items who are forgotten entirely, forgotten pairs, and
            rows with users or items that training never saw are left out and counted.
        validation: Early stopping of the retrained models.
        objective: The loss of all models.
        settings: Training of the retrained models; their seeds count up from its ``seed`` (50 where there are no
            settings), which must not be the original's.
        retrain_seeds: Number of retrained models.
        references: Retrained models that are there already.
        trained_labels: Whether the labels of the forgotten interactions are to be told after forgetting (flips).
        cache: Folder of retrained models; those that are there are not trained again. Nothing is kept where ``None``.
        on_step: Called with a word whenever a model is done.

    Returns:
        The :class:`Audit`.

    Raises:
        ValueError: The request or a graph does not fit.
    """
    judge = _judge(graph, request, validation, test, objective, trained_labels)
    for method in methods:
        if isinstance(method, UnlearningResult) or method.prepare_seconds is not None:
            continue
        if method.asks_preparation(model) and method.preparation is None:
            raise ArgumentError("methods", "be prepared", f"{method.name} before its prepare(model, graph)")
    settings = settings or replace(default_settings(graph), seed=50)
    references, folder = list(references or []), None if cache is None else Path(cache)
    for k in range(len(references), retrain_seeds):
        reference = Retrain(
            objective=objective, validation=validation, settings=replace(settings, seed=settings.seed + k)
        )
        references.append(retrain(reference, backbone_of(model), graph, request, folder))
        on_step("retraining")
    results = []
    for method in methods:
        results.append(method if isinstance(method, UnlearningResult) else method.unlearn(model, graph, request))
        on_step(results[-1].method)
    original = judge.measure(model, graph)
    retrained = [judge.measure(r.model, r.graph) for r in references]
    measured = [judge.measure(r.model, r.graph) for r in results]
    own = [original if r.original is None else judge.measure(r.original, graph) for r in results]
    for m, before in zip([original, *retrained, *own, *measured], [original] * (1 + len(retrained)) + own + own):
        m["original"] = before
    judge.compare([original, *(m for m in own if m is not original), *measured], retrained)
    seconds = statistics.fmean(r.seconds for r in references)
    of_retrained = _retrained_entries(retrained, references, seconds)
    entries = [
        _entry("original", original, retrained, None, seconds),
        _retrain_row([(references, of_retrained)]),
        *(_entry(r.method, m, retrained, r, seconds) for r, m in zip(results, measured)),
    ]
    report = {
        "request": request.describe(graph),
        "environment": environment(next(model.parameters()).device),
        "distance_unit": judge.distance_unit,
        "left_out": judge.left_out,
        "notes": _notes([references], results),
        "methods": entries,
    }
    named = {"original": original, **{r.method: m for r, m in zip(results, measured)}}
    plots = judge.plots(named, retrained) | own_figures(model, graph, request, methods)
    plots["logs"] = {r.method: r.log for r in results}
    plots["scores_before"] = {r.method: m["forget"] for r, m in zip(results, own) if r.original is not None}
    return Audit(json_ready(report), plots, references, results, of_retrained)


def _judge(
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    validation: Any,
    test: Any,
    objective: Criterion,
    trained_labels: bool,
) -> Judge | SessionJudge:
    for name, part in (("test", test), ("validation", validation)):
        if part is not None and part.kind != graph.kind:
            kinds = type(graph).__name__, type(part).__name__
            raise ArgumentError(name, f"be of the kind of 'graph', {kinds[0]}", kinds[1])
    if isinstance(graph, SessionGraph):
        if trained_labels:
            raise ArgumentError("trained_labels", "go with interactions that carry labels", "it with sessions")
        return SessionJudge(graph, request, validation, test)
    if not isinstance(objective, Objective):
        raise ArgumentError("objective", "be one of users and items", type(objective).__name__)
    return Judge(graph, request, validation, test, objective, trained_labels)


def _notes(ensembles: Iterable[Sequence[UnlearningResult]], results: Sequence[UnlearningResult]) -> list[str]:
    """Say what was judged against, how much of it is from an earlier day, and what has an original of its own."""
    distinct = {id(result): result for ensemble in ensembles for result in ensemble}.values()
    cached = sum("cached" in result.log for result in distinct)
    notes = [f"Judged against {counted(len(distinct), 'retrained model')}."]
    if cached:
        notes.append(
            f"{cached} of the {counted(len(distinct), 'retrained model')} came from the cache; "
            "their times and memory were measured when they were trained."
        )
    own = [result.method for result in results if result.original is not None]
    if own:
        notes.append(f"Measured from an original of its own: {', '.join(own)}.")
    return notes


def _entry(
    name: str,
    measured: Measured,
    retrained: list[Measured],
    result: UnlearningResult | None,
    retrain_seconds: float,
) -> dict[str, Any]:
    original = measured["original"]
    values = {metric: [m["forgetting"][metric] for m in retrained] for metric in measured["forgetting"]}
    return {
        "name": name,
        "seconds": None if result is None else result.seconds,
        "cpu_seconds": None if result is None else result.cpu_seconds,
        "prepare_seconds": None if result is None else result.prepare_seconds,
        "speedup_vs_retrain": None if result is None else retrain_seconds / result.seconds,
        "peak_memory_mb": None if result is None else result.peak_memory / MEBIBYTE,
        "utility": measured["utility"],
        "forgetting": {
            metric: forgetting_entry(value, original["forgetting"][metric], values[metric])
            | (measured["ks"] if metric == "ks_statistic" else {})
            for metric, value in measured["forgetting"].items()
            if all(v is not None and math.isfinite(v) for v in (value, *values[metric]))
        },
        "distance_to_retrain": {
            where: distance_to_retrain(measured[where], [m[where] for m in retrained]) for where in ("test", "forget")
        }
        | {f"noise_floor_{where}": noise_floor([m[where] for m in retrained]) for where in ("test", "forget")},
        "log": None if result is None else thinned(result.log),
        **({} if result is None else {k: result.log[k] for k in _TIMES if k in result.log}),
        **({} if result is None or result.original is None else {"own_original": True}),
    }


def _retrained_entries(
    retrained: list[Measured], references: list[UnlearningResult], seconds: float
) -> list[dict[str, Any]]:
    """Return an entry per retrained model; its distance to retraining is that to the others."""
    entries = []
    for k, (measured, result) in enumerate(zip(retrained, references)):
        entry, others = _entry("retrain", measured, retrained, result, seconds), retrained[:k] + retrained[k + 1 :]
        for where in ("test", "forget"):
            away = distance_to_retrain(measured[where], [m[where] for m in others]) if others else None
            entry["distance_to_retrain"][where] = away
        entries.append(entry)
    return entries


def _retrain_row(ensembles: Sequence[tuple[Sequence[UnlearningResult], Sequence[dict[str, Any]]]]) -> dict[str, Any]:
    """Return the mean retrained model: its distance to retraining is the noise floor.

    An ensemble that several originals share counts once.

    Args:
        ensembles: Retrained models and their entries.
    """
    by_model: dict[int, list[dict[str, Any]]] = {}
    for references, entries in ensembles:
        for reference, entry in zip(references, entries):
            by_model.setdefault(id(reference), []).append(entry)
    row = aggregate([[aggregate([[e] for e in same])[0] | {"log": same[0]["log"]}] for same in by_model.values()])[0]
    distance, spread = row["distance_to_retrain"], row.pop("distance_to_retrain_sd", {})
    if min(len(entries) for _, entries in ensembles) > 2:  # two models are as far from each other
        row["distance_to_retrain_sd"] = {where: sd for where, sd in spread.items() if where in ("test", "forget")}
    row["distance_to_retrain"] = distance | {where: distance[f"noise_floor_{where}"] for where in ("test", "forget")}
    row.pop("speedup_vs_retrain_sd", None)
    return row | {"speedup_vs_retrain": 1.0}


def own_figures(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    methods: Sequence[Unlearner | UnlearningResult],
) -> dict[str, Any]:
    """Return the data of the figures that a method adds; those of the first that adds any."""
    for method in methods:
        figures = {} if isinstance(method, UnlearningResult) else method.figures(model, graph, request)
        if figures:
            return figures
    return {}
