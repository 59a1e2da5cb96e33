"""Names and formats of a report's numbers, and the verdict on every method in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "Verdict",
    "distance_unit",
    "format_number",
    "format_seconds",
    "judge",
    "label",
    "left_little",
    "primary_metric",
    "ratio_to_floor",
]

REFERENCES = ("original", "retrain")
LARGEST_Z = 2.0
ROUNDING = 1e-12  # below it, a number is the rounding error of a zero
NO_FLOOR = 1e-6  # below it, retrained models count as equal (as for users without any training data left)
LABELS = {
    "flipped_label_auc": "AUC of the flipped labels",
    "membership_auroc": "AUROC forgotten vs never seen",
    "privacy_leakage": "privacy leakage",
    "mean_probability": "mean probability of the forgotten",
    "mi_bf": "MI-BF",
    "mi_ng": "MI-NG",
    "ks_statistic": "KS distance to retraining",
    "gradient_residual": "gradient residual",
    "auroc": "AUROC",
    "log_p_forgotten": "log p of the forgotten clicks",
    "log_p_deleted_transition": "log p of the deleted transitions",
    "rank_forgotten": "log₂ rank of the forgotten clicks",
    "u_score": "U-score",
}
"""Readable names of metrics; other metrics are shown under their own name."""
_NAMES = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "hit_u": "Hit_u"}
_PREFERRED = ("log_p_forgotten", "flipped_label_auc", "membership_auroc", "mean_probability")
_WORDS = {
    "like": ("as retraining", "forgets as retraining does"),
    "under": ("too little", "forgets too little"),
    "over": ("too much", "forgets too much"),
    "undecided": ("undecided", "is undecided"),
}
UNJUDGED: dict[str, Any] = {"status": "undecided", "rule": "the report holds no verdict", "needs": None}


class Verdict(NamedTuple):
    """The verdict on one method, in words.

    Args:
        status: ``"like"``, ``"under"``, ``"over"`` or ``"undecided"``.
        label: The status as a label.
        short: The status as a phrase without a subject.
        sentence: The status as a sentence, with the rule that decided and what would decide.
    """

    status: str
    label: str
    short: str
    sentence: str


def label(metric: str) -> str:
    """Return the readable name of a metric.

    Args:
        metric: Name of the metric, such as ``"recall@20_affected"``.

    Example:
        >>> label("recall@20"), label("ndcg@20_affected"), label("hit_u@10"), label("flipped_label_auc")
        ('Recall@20', 'NDCG@20, affected users', 'Hit_u@10', 'AUC of the flipped labels')
    """
    name, _, rest = metric.partition("@")
    if rest:
        k, _, group = rest.partition("_")
        name = _NAMES.get(name) or name.replace("_", " ").capitalize()
        return f"{name}@{k}" + (f", {group} users" if group else "")
    return LABELS.get(metric, metric.replace("_", " "))


def format_number(value: float | None, sd: float | None = None, digits: int = 4) -> str:
    """Return a number in a readable format.

    Args:
        value: The number; ``None`` and numbers that are not finite give ``–``.
        sd: Its standard deviation, which is appended as ``± sd``.
        digits: Number of decimal places of numbers below 10.

    Example:
        >>> format_number(0.23456), format_number(1234.5), format_number(None), format_number(0.25, 0.013)
        ('0.2346', '1,234', '–', '0.2500 ± 0.0130')
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size < ROUNDING:
        value = size = 0.0
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size and size < 10**-digits and digits > 2:
        text = f"{value:.1e}"
    else:
        text = f"{value:.{digits}f}"
    return text if sd is None else f"{text} ± {format_number(sd, digits=digits)}"


def format_seconds(value: float | None, sd: float | None = None) -> str:
    """Return a duration in milliseconds, seconds or minutes, depending on its size.

    Args:
        value: The duration in seconds; ``None`` and numbers that are not finite give ``–``.
        sd: Its standard deviation in seconds, which is appended as ``± sd``.

    Example:
        >>> format_seconds(0.0042), format_seconds(2.9), format_seconds(600)
        ('4.2 ms', '2.90 s', '10.0 min')
    """
    if value is None or not math.isfinite(value):
        return "–"
    scale, unit, digits = (1e3, "ms", 1) if value < 0.1 else (1, "s", 2) if value < 120 else (1 / 60, "min", 1)
    spread = "" if sd is None else f" ± {sd * scale:.{digits}f}"
    return f"{value * scale:.{digits}f}{spread} {unit}"


def primary_metric(report: Mapping[str, Any]) -> str | None:
    """Return the forgetting metric that the report shows first: the most direct one.

    Args:
        report: The report.

    Returns:
        Name of the metric, or ``None`` if the report has no forgetting metric.
    """
    names = [name for method in report["methods"] for name in method.get("forgetting") or {}]
    return next((name for name in _PREFERRED if name in names), names[0] if names else None)


def distance_unit(report: Mapping[str, Any]) -> str:
    """Return the unit of distances to retraining: ``"p"`` for pairs, ``"log p"`` for clicks in sessions.

    Args:
        report: The report.

    Example:
        >>> distance_unit({"distance_unit": "log p"}), distance_unit({})
        ('log p', 'p')
    """
    return str(report.get("distance_unit") or "p")


def ratio_to_floor(method: Mapping[str, Any], where: str) -> float | None:
    """Return the distance to retraining, divided by the noise floor.

    If the retrained models do not differ from each other, the ratio is 1 for a method that does not differ from them
    either, and ``None`` otherwise.

    Args:
        method: One entry of a report's ``methods``.
        where: ``"test"`` for the test data, ``"forget"`` for the forget set.

    Returns:
        The ratio, or ``None`` if it was not measured.

    Example:
        >>> ratio_to_floor({"distance_to_retrain": {"test": 0.03, "noise_floor_test": 0.02}}, "test")
        1.5
        >>> ratio_to_floor({"distance_to_retrain": {"test": 0.0, "noise_floor_test": 0.0}}, "test")
        1.0
    """
    value, floor = _distance(method, where)
    if value is None or floor is None:
        return None
    if floor < NO_FLOOR:
        return 1.0 if value < NO_FLOOR else None
    return value / floor


def _distance(method: Mapping[str, Any], where: str) -> tuple[float | None, float | None]:
    distance = method.get("distance_to_retrain") or {}
    return distance.get(where), distance.get(f"noise_floor_{where}")


def judge(method: Mapping[str, Any]) -> Verdict:
    """Return the verdict on one method in words; :func:`graphunlearn.eval.decision.decide` made it.

    Args:
        method: One entry of a report's ``methods``.

    Returns:
        The verdict.

    Example:
        >>> verdict = {"status": "under", "rule": "a membership attack", "needs": None}
        >>> judge({"name": "unlink", "verdict": verdict}).sentence
        'unlink forgets too little. Reason: a membership attack.'
    """
    found = method.get("verdict") or UNJUDGED
    name, short = _WORDS[found["status"]]
    needs = f" What would decide: {found['needs']}." if found.get("needs") else ""
    said = f"{method['name']} {short}"
    if found["status"] == "undecided":
        said = f"It is undecided whether {method['name']} {_WORDS['like'][1]}"
    return Verdict(found["status"], name, short, f"{said}. Reason: {found['rule']}.{needs}")


def left_little(entry: Mapping[str, Any]) -> bool:
    """Whether the original model is within the noise of retraining, so that the share of the gap closed means little.

    Args:
        entry: The report entry of one forgetting metric of one method.
    """
    original, mean, sd = (entry.get(key) for key in ("original", "retrain_mean", "retrain_sd"))
    return not (original is None or mean is None or sd is None or abs(original - mean) > LARGEST_Z * sd)
