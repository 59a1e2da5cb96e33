"""The report in words: a headline and a few paragraphs with the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphunlearn.eval.report.verdict import (
    LARGEST_Z,
    REFERENCES,
    format_number,
    format_seconds,
    judge,
    label,
    left_little,
    primary_metric,
    ratio_to_floor,
)

__all__ = ["describe", "headline", "summary"]


def summary(report: Mapping[str, Any]) -> list[str]:
    """Return the report in words: a paragraph on the first method, a caveat if needed, and a line on other methods.

    Args:
        report: A complete report.

    Returns:
        One to three paragraphs.
    """
    metric = primary_metric(report)
    entries = {method["name"]: method for method in report["methods"]}
    methods = [method for method in report["methods"] if method["name"] not in REFERENCES]
    if not methods:
        return ["No unlearning method was run."]
    first, *others = methods
    sentences = [judge(first).sentence]
    if (faster := first.get("speedup_vs_retrain")) is not None:
        compare = f"{faster:,.0f} times faster than" if faster >= 2 else f"{faster:.2f} times the speed of"
        sentences.append(f"It took {format_seconds(first.get('seconds'))}, {compare} retraining.")
    sentences.append(_utility_change(first, entries.get("original", {}), entries.get("retrain", {})))
    paragraphs = [" ".join(filter(None, sentences)), _caveat(first, metric)]
    if others:
        told = [f"{method['name']} {_briefly(method, metric)}" for method in others]
        paragraphs.append(f"Beside it, {'; '.join(told)}.")
    return [paragraph for paragraph in paragraphs if paragraph]


def _briefly(method: Mapping[str, Any], metric: str | None) -> str:
    verdict = judge(method)
    if method.get("own_original"):
        return verdict.short
    gap = ((method.get("forgetting") or {}).get(metric) or {}).get("gap_closed")
    ratio = ratio_to_floor(method, "forget")
    facts = [f"{gap:.0%} of the gap closed"] if gap is not None else []
    facts += [f"{ratio:.2f} times the floor"] if ratio is not None else []
    return verdict.short + (f" ({', '.join(facts)})" if facts else "")


def _utility_change(method: Mapping[str, Any], original: Mapping[str, Any], retrain: Mapping[str, Any]) -> str:
    name, after = next(iter((method.get("utility") or {}).items()), ("", None))
    before, reference = ((entry.get("utility") or {}).get(name) for entry in (original, retrain))
    spread = (retrain.get("utility_sd") or {}).get(name)
    if after is None or before is None:
        return ""
    text = f"{label(name)} on the test data went from {format_number(before)} to {format_number(after)}"
    if reference is None:
        return f"{text}."
    below = ", more than this" if spread is not None and after < reference - LARGEST_Z * spread else ""
    return f"{text}; retrained models reach {format_number(reference, spread)}{below}."


def _caveat(method: Mapping[str, Any], metric: str | None) -> str:
    if method.get("own_original") or not left_little((method.get("forgetting") or {}).get(metric) or {}):
        return ""
    return (
        f"The original was already within the noise of retraining in {label(metric or '')}: "
        "the request left little to forget, and the share of the gap closed says little."
    )


def describe(value: Any) -> str:
    """Return a field of a report as one short line.

    Args:
        value: Text, a number, a list, a mapping, or ``None``.

    Example:
        >>> describe({"name": "ml-100k", "users": 943, "size": None})
        'ml-100k, users 943'
    """
    if isinstance(value, Mapping):
        named = [str(value["name"])] if value.get("name") else []
        rest = {k: v for k, v in value.items() if k != "name" and v is not None}
        return ", ".join(named + [f"{str(k).replace('_', ' ')} {describe(v)}" for k, v in rest.items()])
    if isinstance(value, (list, tuple)):
        return ", ".join(map(describe, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return (
        f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "" if value is None else str(value)
    )


def headline(report: Mapping[str, Any]) -> str:
    """Return one line that names the forget set and the data set.

    Args:
        report: The report.

    Example:
        >>> headline({"dataset": "ml-100k", "request": {"level": "user", "size": 2}})
        'Forgetting 2 users of ml-100k'
    """
    request, dataset = report.get("request") or {}, report.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else dataset
    size, level = request.get("size"), request.get("level") or "interaction"
    what = "a request" if size is None else f"{describe(size)} {level}{'' if size == 1 else 's'}"
    return f"Forgetting {what}" + (f" of {name}" if name else "")
