"""Names and formats of a report's numbers, and the two-sided verdict on every method."""

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
LIKE_RETRAINING = (0.9, 1.1)  # range of the share of the gap closed that counts as retraining
LARGEST_Z = 2.0
TRANSITION = (0.5, 1.5)  # range of the gap closed in deleted transitions that counts as forgetting them
LARGEST_KS = 0.2  # largest Kolmogorov–Smirnov distance to retraining in excess of its noise floor
LARGEST_RATIO = 1.25  # largest distance to retraining, divided by the noise floor
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
    "inside": ("like retraining", "forgets as retraining does"),
    "average": ("right on average", "forgets as much as retraining on average, but not {one} by {one}"),
    "partly": ("clicks only", "forgets the clicks as retraining does, but not what followed on them"),
    "under": ("under-forgets", "under-forgets"),
    "over": ("over-forgets", "over-forgets"),
    "off": ("unlike retraining", "does not end where retraining does"),
    "unknown": ("not judged", "was not compared with retraining"),
}
_OWN = ("not judged", "serves a model of its own, which retraining does not give")


class Verdict(NamedTuple):
    """The verdict on one method.

    Args:
        status: ``"inside"``, ``"average"``, ``"partly"``, ``"under"``, ``"over"``, ``"off"`` or ``"unknown"``.
        label: The status as a label.
        short: The status as a phrase without a subject.
        sentence: The status as a sentence, with its evidence.
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
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size and size < 10**-digits:
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
    """Return the forgetting metric that decides the verdict: the most direct one in the report.

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


def _is_close(method: Mapping[str, Any]) -> bool | None:
    """Whether the distance to retraining on the forget set is close to the noise floor; ``None`` if not measured.

    If the retrained models do not differ on the forget set, the noise floor of the test data is used.
    """
    ratio, (value, floor) = ratio_to_floor(method, "forget"), _distance(method, "forget")
    if ratio is not None:
        return ratio <= LARGEST_RATIO
    if value is None or floor is None:
        return None
    return value <= max(_distance(method, "test")[1] or 0.0, NO_FLOOR)


def judge(method: Mapping[str, Any], metric: str | None) -> Verdict:
    """Compare one method with retraining, in both directions.

    A method is *inside*, like retraining, if all of the following hold:

    - the metric lies within two standard deviations of the retrained models, or closes 90–110% of the gap;
    - the distance of the (log) probabilities of the forget set to a retrained model is at most 1.25 times the noise
      floor, the distance between two retrained models (if the retrained models do not differ on the forget set, it is
      at most the noise floor of the test data);
    - the Kolmogorov–Smirnov distance to retraining exceeds its noise floor by at most 0.2, because small differences
      close to zero can hide over-forgetting.

    If the first condition fails, the method under-forgets or over-forgets. If it holds but another condition fails, the
    method is right on average. A method that meets all conditions is only *partly* right if it did not forget the
    transitions from forgotten clicks: their metric lies beyond two standard deviations of the retrained models, and
    less than 50% or more than 150% of its gap is closed.

    A method with an original model of its own (an ensemble of shards, say) gets no verdict: the difference between its
    model and a retrained model does not tell what it has forgotten.

    Args:
        method: One entry of a report's ``methods``; ``own_original`` is set if it has an original of its own.
        metric: The forgetting metric that decides the verdict, or ``None`` if there is none.

    Returns:
        The verdict.
    """
    entry = (method.get("forgetting") or {}).get(metric) or {}
    if method.get("own_original"):
        return Verdict("unknown", *_OWN, f"{method['name']} {_OWN[1]}.")
    z, gap, close = entry.get("z"), entry.get("gap_closed"), _is_close(method)
    reached = (z is not None and abs(z) <= LARGEST_Z) or (
        gap is not None and LIKE_RETRAINING[0] <= gap <= LIKE_RETRAINING[1]
    )
    if z is None and gap is None:
        status = "unknown" if close is None else "inside" if close else "off"
    elif reached:
        status = "average" if close is False or not _is_distributed_alike(method) else "inside"
        status = "partly" if status == "inside" and _keeps_transitions(method) else status
    else:
        status = "off" if gap is None else "under" if gap < 1 else "over"
    name, short = (text.format(one=_noun(metric)) for text in _WORDS[status])
    return Verdict(status, name, short, f"{method['name']} {short}{_evidence(method, entry, metric)}.")


def _keeps_transitions(method: Mapping[str, Any]) -> bool:
    """Whether the deleted transitions differ from retraining; ``False`` if this was not measured."""
    entry = (method.get("forgetting") or {}).get("log_p_deleted_transition") or {}
    z, gap = entry.get("z"), entry.get("gap_closed")
    beyond = gap is not None and not TRANSITION[0] <= gap <= TRANSITION[1]
    return beyond and (z is None or abs(z) > LARGEST_Z) and not left_little(entry)


def left_little(entry: Mapping[str, Any]) -> bool:
    """Whether the original model is within the noise of retraining, so that the share of the gap closed means little.

    Args:
        entry: The report entry of one forgetting metric of one method.
    """
    original, mean, sd = (entry.get(key) for key in ("original", "retrain_mean", "retrain_sd"))
    return not (original is None or mean is None or sd is None or abs(original - mean) > LARGEST_Z * sd)


def _noun(metric: str | None) -> str:
    """Return the name of one forgotten event, which follows from the metric of the verdict."""
    return "click" if metric == "log_p_forgotten" else "pair"


def _is_distributed_alike(method: Mapping[str, Any]) -> bool:
    """Whether the probabilities of the forget set are distributed as in retraining; ``True`` if not measured."""
    entry = (method.get("forgetting") or {}).get("ks_statistic") or {}
    value, floor = entry.get("value"), entry.get("floor")
    return value is None or value <= (floor or 0.0) + LARGEST_KS


def _evidence(method: Mapping[str, Any], entry: Mapping[str, Any], metric: str | None) -> str:
    ratio, (distance, floor) = ratio_to_floor(method, "forget"), _distance(method, "forget")
    parts, forgotten = [], f"forgotten {_noun(metric)}s"
    if metric and entry.get("value") is not None:
        part = f"{label(metric)} {format_number(entry['value'], digits=3)}"
        if entry.get("retrain_mean") is not None:
            part += f" against {format_number(entry['retrain_mean'], entry.get('retrain_sd'), 3)} for retrained models"
            part += f" and {format_number(entry.get('original'), digits=3)} before"
        if entry.get("gap_closed") is not None:
            part += f", {entry['gap_closed']:.0%} of the gap closed"
        parts.append(part)
    if ratio is not None:
        parts.append(
            f"on the {forgotten} it is {ratio:.2f} times as far from a retrained model as two of those are apart"
        )
        if not _is_distributed_alike(method):
            ks = method["forgetting"]["ks_statistic"]
            parts.append(
                f"its probabilities there are distributed otherwise (KS {format_number(ks['value'], digits=2)} against "
                f"{format_number(ks['floor'], digits=2)} between retrained models)"
            )
    elif distance is not None and floor is not None:
        away = format_number(distance, digits=3)
        parts.append(f"on the {forgotten} it is {away} away from retrained models, which all agree")
    if _keeps_transitions(method):
        closed = method["forgetting"]["log_p_deleted_transition"]["gap_closed"]
        parts.append(f"of the gap in {label('log_p_deleted_transition')}, {closed:.0%} is closed")
    return f": {'; '.join(parts)}" if parts else ""
