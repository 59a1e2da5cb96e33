"""The report's entries on the models of an audit: the original, the methods, and retraining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphunlearn.eval.decision import combine
from graphunlearn.eval.measure import Measured
from graphunlearn.eval.report.writing import aggregate, thinned
from graphunlearn.metrics.forgetting import distance_to_retrain, forgetting_entry, noise_floor
from graphunlearn.operators import UnlearningResult

__all__ = ["model_entry", "retrain_row", "retrained_entries"]

MEBIBYTE = 2**20
_TIMES = ("seconds_sum", "seconds_slowest_shard")  # logged by methods whose shards could run in parallel


def model_entry(
    name: str,
    measured: Measured,
    retrained: list[Measured],
    result: UnlearningResult | None,
    retrain_seconds: float,
) -> dict[str, Any]:
    """Return the report's entry on one model.

    Args:
        name: Name of the method, or ``"original"``.
        measured: Measures of the model, with attacks and verdict.
        retrained: Measures of the retrained models.
        result: The result of the method; ``None`` for the original.
        retrain_seconds: Mean time of one retraining.
    """
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
        "attacks": measured["attacks"],
        "topk_overlap": measured["topk_overlap"],
        "klom": None,
        "target": _target(measured, retrained),
        "verdict": measured["verdict"]._asdict(),
        "accepted": None if result is None or "acceptance" not in result.log else result.accepted,
        "acceptance": None if result is None else result.log.get("acceptance"),
        "log": None if result is None else thinned(result.log),
        **({"utility_on_own_lists": measured["own"]} if result is None and measured.get("own") else {}),
        **({} if result is None else {k: result.log[k] for k in _TIMES if k in result.log}),
        **({} if result is None or result.original is None else {"own_original": True}),
    }


def _target(measured: Measured, retrained: list[Measured]) -> dict[str, Any] | None:
    """Return how strongly promoted items are recommended to real users, compared with retraining; ``None`` without
    targets.
    """
    if measured["target"] is None:
        return None
    original = measured["original"]["target"]
    return {
        name: forgetting_entry(value, original[name], [m["target"][name] for m in retrained])
        for name, value in measured["target"].items()
    }


def retrained_entries(
    retrained: list[Measured], references: list[UnlearningResult], seconds: float
) -> list[dict[str, Any]]:
    """Return one report entry per retrained model; its distance to retraining is the distance to the other models.

    Args:
        retrained: Measures of the retrained models.
        references: The results of retraining.
        seconds: Mean time of one retraining.
    """
    entries = []
    for k, (measured, result) in enumerate(zip(retrained, references)):
        entry, others = model_entry("retrain", measured, retrained, result, seconds), retrained[:k] + retrained[k + 1 :]
        for where in ("test", "forget"):
            away = distance_to_retrain(measured[where], [m[where] for m in others]) if others else None
            entry["distance_to_retrain"][where] = away
        entries.append(entry)
    return entries


def retrain_row(ensembles: Sequence[tuple[Sequence[UnlearningResult], Sequence[dict[str, Any]]]]) -> dict[str, Any]:
    """Return the report's row of retraining: the mean over the retrained models, whose distance is the noise floor.

    A retrained model that several audits share counts once.

    Args:
        ensembles: For every audit, the retrained models and their report entries.
    """
    by_model: dict[int, list[dict[str, Any]]] = {}
    for references, entries in ensembles:
        for reference, entry in zip(references, entries):
            by_model.setdefault(id(reference), []).append(entry)
    row = aggregate([[aggregate([[e] for e in same])[0] | {"log": same[0]["log"]}] for same in by_model.values()])[0]
    distance, spread = row["distance_to_retrain"], row.pop("distance_to_retrain_sd", {})
    if min(len(entries) for _, entries in ensembles) > 2:  # with two models, both distances are the same
        row["distance_to_retrain_sd"] = {where: sd for where, sd in spread.items() if where in ("test", "forget")}
    row["distance_to_retrain"] = distance | {where: distance[f"noise_floor_{where}"] for where in ("test", "forget")}
    row.pop("speedup_vs_retrain_sd", None)
    row["verdict"] = combine([entry["verdict"] for same in by_model.values() for entry in same])
    return row | {"speedup_vs_retrain": 1.0}
