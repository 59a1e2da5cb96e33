"""The report in words: a headline and a few paragraphs with the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphunlearn.eval.report.verdict import (
    LARGEST_Z,
    REFERENCES,
    distance_unit,
    format_number,
    format_seconds,
    judge,
    label,
)

__all__ = ["audited", "cost", "describe", "headline", "summary", "utility", "warnings"]


def summary(report: Mapping[str, Any]) -> list[str]:
    """Return the report in words: unhealthy retrained models first, the first method, and a line on other methods.

    Args:
        report: A complete report.

    Returns:
        One to three paragraphs.
    """
    methods = audited(report)
    if not methods:
        return ["No unlearning method was run."]
    first, *others = methods
    paragraphs = [
        " ".join(warnings(report)),
        " ".join(filter(None, [judge(first).sentence, cost(first), utility(report, first)])),
    ]
    if others:
        told = [f"{method['name']} {judge(method).short}" for method in others]
        paragraphs.append(f"Beside it, {'; '.join(told)}.")
    return [paragraph for paragraph in paragraphs if paragraph]


def audited(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the entries of the methods, without those of the original and of retraining.

    Args:
        report: The report.
    """
    return [method for method in report["methods"] if method["name"] not in REFERENCES]


def warnings(report: Mapping[str, Any]) -> list[str]:
    """Return the warnings at the beginning of the report: retrained models that are not healthy.

    Args:
        report: The report.

    Returns:
        Sentences; none if all retrained models are healthy.
    """
    references = report.get("references") or []
    sick = [entry for entry in references if entry.get("healthy") is False]
    if not sick:
        return []
    seeds = ", ".join(str(entry.get("seed")) for entry in sick)
    are = "is" if len(sick) == 1 else "are"
    return [
        f"{len(sick)} of {len(references)} retrained models {are} not healthy (seed {seeds}): "
        "all comparisons with retraining are uncertain."
    ]


def cost(method: Mapping[str, Any]) -> str:
    """Return the cost of one method as a sentence, or nothing if it was not measured.

    Args:
        method: One entry of a report's ``methods``.
    """
    if (faster := method.get("speedup_vs_retrain")) is None:
        return ""
    compare = f"{faster:,.0f} times faster than" if faster >= 2 else f"{faster:.2f} times the speed of"
    return f"{method['name']} took {format_seconds(method.get('seconds'))}, {compare} retraining."


def utility(report: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    """Return the change of the first utility metric as a sentence, or nothing if it was not measured.

    Args:
        report: A complete report.
        method: One entry of its ``methods``.
    """
    entries = {entry["name"]: entry for entry in report["methods"]}
    original, retrain = entries.get("original", {}), entries.get("retrain", {})
    name, after = next(iter((method.get("utility") or {}).items()), ("", None))
    before, reference = ((entry.get("utility") or {}).get(name) for entry in (original, retrain))
    spread = (retrain.get("utility_sd") or {}).get(name)
    if after is None or before is None:
        return ""
    text = f"{label(name)} on the test data went from {format_number(before)} to {format_number(after)}"
    own = (original.get("utility_on_own_lists") or {}).get(name)
    if own is not None:
        where = "all test data" if distance_unit(report) == "log p" else "its own lists and all test data"
        text += f" (the original on {where}, as the command 'train' measures it: {format_number(own)})"
    if reference is None:
        return f"{text}."
    below = ", more than this" if spread is not None and after < reference - LARGEST_Z * spread else ""
    return f"{text}; retrained models reach {format_number(reference, spread)}{below}."


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
