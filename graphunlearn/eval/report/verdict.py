"""What the numbers of a report say: how they are named and written, and the two-sided verdict on every method."""

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
LIKE_RETRAINING = (0.9, 1.1)  # share of the gap closed that counts as retraining
LARGEST_Z = 2.0
TRANSITION = (0.5, 1.5)  # share of the gap in deleted transitions beyond which they were not forgotten as well
LARGEST_KS = 0.2  # Kolmogorov–Smirnov distance to retraining beyond that between two retrained models
LARGEST_RATIO = 1.25  # distance to retraining over the retrain-to-retrain floor
NO_FLOOR = 1e-6  # below it, retrained models do not differ at all (as for users of whom a model knows nothing any more)
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
"""Readable names; a metric that is not here is shown by its own name."""
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
    """``status`` (inside, average, partly, under, over, off, unknown); the same as a label, a phrase and a sentence."""

    status: str
    label: str
    short: str
    sentence: str


def label(metric: str) -> str:
    """Return the readable name of a metric.

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
    """Return a number as people read it, ``–`` where there is none, with ``± sd`` where it has one.

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
    """Return a duration in the unit people would use.

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
    """Return the forgetting metric that decides the verdict: the most direct one that the report holds."""
    names = [name for method in report["methods"] for name in method.get("forgetting") or {}]
    return next((name for name in _PREFERRED if name in names), names[0] if names else None)


def distance_unit(report: Mapping[str, Any]) -> str:
    """Return what distances to retraining are measured in: ``"p"`` (of pairs) or ``"log p"`` (of clicks in sessions).

    Example:
        >>> distance_unit({"distance_unit": "log p"}), distance_unit({})
        ('log p', 'p')
    """
    return str(report.get("distance_unit") or "p")


def ratio_to_floor(method: Mapping[str, Any], where: str) -> float | None:
    """Return the distance to retraining on ``"test"`` or ``"forget"`` data over the retrain-to-retrain floor.

    Where retrained models do not differ at all it is 1 for a method that does not either, and ``None`` otherwise.

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
    """Whether what is forgotten is where retraining leaves it; ``None`` where that was not measured.

    Where retrained models do not differ there, their noise on the test data says what is near.
    """
    ratio, (value, floor) = ratio_to_floor(method, "forget"), _distance(method, "forget")
    if ratio is not None:
        return ratio <= LARGEST_RATIO
    if value is None or floor is None:
        return None
    return value <= max(_distance(method, "test")[1] or 0.0, NO_FLOOR)


def judge(method: Mapping[str, Any], metric: str | None) -> Verdict:
    """Compare one method with retraining, two-sided.

    It is *inside* where the metric lies within two standard deviations of the retrained models or closes 90–110% of
    the gap, the (log) probabilities of what is forgotten are no further from a retrained model's than 1.25 times what
    two retrained models are apart (where those do not differ at all: than they are apart on the test data), and their
    distribution is no more than .2 further by Kolmogorov–Smirnov: close to zero, small differences can hide
    over-forgetting. Otherwise it under-forgets or over-forgets, or is right on average only; or partly right, where
    the transitions that went with forgotten clicks lie beyond two standard deviations and close less than half of
    their gap, or more than one and a half.

    A method with an original of its own (of shards, say) is not judged: how its model differs from a retrained one says
    nothing of what it has forgotten.

    Args:
        method: One entry of a report's ``methods``; ``own_original`` where it has one.
        metric: The forgetting metric to judge by; ``None`` where there is none.
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
    """Whether the deleted transitions are not where retraining leaves them; no where nothing tells."""
    entry = (method.get("forgetting") or {}).get("log_p_deleted_transition") or {}
    z, gap = entry.get("z"), entry.get("gap_closed")
    beyond = gap is not None and not TRANSITION[0] <= gap <= TRANSITION[1]
    return beyond and (z is None or abs(z) > LARGEST_Z) and not left_little(entry)


def left_little(entry: Mapping[str, Any]) -> bool:
    """Whether the original was already within the noise of retraining, so that the gap closed says little.

    Args:
        entry: One metric of one method.
    """
    original, mean, sd = (entry.get(key) for key in ("original", "retrain_mean", "retrain_sd"))
    return not (original is None or mean is None or sd is None or abs(original - mean) > LARGEST_Z * sd)


def _noun(metric: str | None) -> str:
    """What is forgotten one by one, as the metric that is judged by says."""
    return "click" if metric == "log_p_forgotten" else "pair"


def _is_distributed_alike(method: Mapping[str, Any]) -> bool:
    """Whether what is forgotten has probabilities distributed as in retrained models; yes where nothing tells."""
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
