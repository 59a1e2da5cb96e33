"""The report's answers in plain words, as HTML: the request, the success of attacks, quality, cost, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from graphunlearn.eval.attacks.evidence import LEVEL
from graphunlearn.eval.report.attacks import (
    NOTHING,
    STRENGTH,
    Attack,
    attack_of,
    entry_of,
    few,
    left_of,
    names,
    reading,
    result,
    share,
)
from graphunlearn.eval.report.evidence_tables import both_models_table, left_table, passed
from graphunlearn.eval.report.markup import paragraphs, section
from graphunlearn.eval.report.summary import audited, cost, describe, utility, warnings
from graphunlearn.eval.report.tables import cost_table, target_table, utility_table
from graphunlearn.eval.report.verdict import distance_unit, judge
from graphunlearn.eval.scenarios.cases import counted

__all__ = ["answers"]

OPINION = """Opinion 28/2024 of the European Data Protection Board asks controllers to document how likely it is that
personal data can be obtained from a model. This page documents the attacks that were made after one request and what
they found. It does not say that any law is complied with."""
TRACE = """The trace is what an attack finds on the original beyond what it finds on retrained models, which never saw
the forgotten data. Retraining leaves 0% of it; the original has 100%. Below 0% a model reveals less than retrained
models do. That is as wrong as revealing more, because it shows that something was removed."""
AFTERWARDS = """A retrained model was trained without the forgotten data, so that the pair of original and retrained
model reveals the request as well; the table says how clearly. If only one of the two models is published, nobody
else can compare them; but a model that was published before may have been copied."""

FEW = "There are too few users or sessions for an interval, so the share left is not known."
_SENTENCES = {
    "auroc": """It is right in {before} of comparisons on the original, {retrained} on retrained models and {after} on
        {who}; guessing is right in 50%.""",
    "difference": """Its success on what was forgotten, less that on what remains, is {before} on the original,
        {retrained} on retrained models and {after} on {who}.""",
    "probability": """The mean probability is {before} for the original, {retrained} for retrained models and {after}
        for {who}.""",
}
_SENTENCES = {figure: " ".join(text.split()) for figure, text in _SENTENCES.items()}


def answers(report: Mapping[str, Any]) -> list[str]:
    """Return the answers of the page, one section per question.

    Args:
        report: A complete report.
    """
    first = next(iter(audited(report)), None)
    return [
        section("What was asked", _asked(report)),
        section("Can the forgotten data be identified?", *_told(report, first)),
        section(
            "Does it recommend as well?",
            "" if first is None else paragraphs(utility(report, first)),
            utility_table(report),
        ),
        section("What did it cost?", "" if first is None else paragraphs(cost(first)), cost_table(report)),
        section("What this does not prove", _limits(report), paragraphs(" ".join(OPINION.split()))),
    ]


def _asked(report: Mapping[str, Any]) -> str:
    baselines = [m["name"] for m in audited(report)[1:]]
    references = len(report.get("references") or ())
    facts = {
        "request": _request(report),
        "scenario": describe(report.get("scenario")),
        "data": describe(report.get("dataset")),
        "model": describe(_short(report.get("model"))),
        "operator": next((m["name"] for m in audited(report)), ""),
        "compared with": ", ".join(
            baselines + ["the original"] + ([f"{references} retrained models"] if references else [])
        ),
        "written": date_of(report),
    }
    inner = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v)
    return f"<dl class=facts>{inner}</dl>"


def _request(report: Mapping[str, Any]) -> str:
    """Return the request as text, such as ``19 users, interactions 941``."""
    request = dict(report.get("request") or {})
    size, level = request.pop("size", None), request.pop("level", None) or "interaction"
    if size is None:
        return describe(report.get("request"))
    rest = {key: value for key, value in request.items() if key != f"{level}s"}
    return ", ".join(filter(None, [counted(size, level), describe(rest)]))


def date_of(report: Mapping[str, Any]) -> str:
    """Return when the audit was written, such as ``2026-11-28 08:15 UTC``, or nothing if the report does not say.

    Args:
        report: The report.

    Example:
        >>> date_of({"date": "2026-11-28T08:15:07+00:00"})
        '2026-11-28 08:15 UTC'
    """
    date = str(report.get("date") or "")
    return f"{date[:10]} {date[11:16]} UTC" if len(date) >= 16 else date


def _short(model: Any) -> Any:
    """Return a model without its training settings, which are at the end of the page."""
    if isinstance(model, Mapping):
        return {key: value for key, value in model.items() if key not in ("objective", "settings")}
    return model


def _told(report: Mapping[str, Any], first: Mapping[str, Any] | None) -> list[str]:
    if first is None:
        return [paragraphs("No unlearning method was run."), left_table(report)]
    verdict = judge(first)
    parts = [f'<p class="verdict {verdict.status}">{escape(verdict.sentence)}</p>']
    if report.get("retrain_pass_rate") is not None or (report.get("references") and not few(report)):
        parts.append(paragraphs(passed(report)))
    found = [name for name in names(report) if entry_of(first, name)]
    if found:
        parts.append(
            section("What an attacker finds", paragraphs(" ".join(TRACE.split())), _list(report, first, found), level=3)
        )
        if several := _runs(report):
            parts.append(paragraphs(several))
    parts.append(section("What is left of the trace, by model", left_table(report), level=3))
    parts.append(section("Recommendation of the promoted items to real users", target_table(report), level=3))
    parts.append(section("Risk of publishing both models", *_both(report, first), level=3))
    return parts


def _runs(report: Mapping[str, Any]) -> str:
    runs = len(report.get("runs") or ())
    return f"All figures are means over {runs} runs with different originals." if runs > 1 else ""


def _list(report: Mapping[str, Any], method: Mapping[str, Any], found: list[str]) -> str:
    inner = ""
    for name in found:
        attack = attack_of(report, name)
        inner += f"<dt>{escape(attack.title)}</dt><dd class=muted>{escape(attack.told)}</dd>"
        inner += f"<dd>{escape(_sentence(report, method, name, attack))}</dd>"
    return f"<dl class=attacks>{inner}</dl>"


def _sentence(report: Mapping[str, Any], method: Mapping[str, Any], name: str, attack: Attack) -> str:
    entry = entry_of(method, name) or {}
    before, after, retrained = (result(attack, entry.get(key)) for key in ("original", "value", "retrain_mean"))
    who = method["name"]
    told = _SENTENCES[attack.figure].format(before=before, retrained=retrained, after=after, who=who)
    if name in STRENGTH:
        return told
    left = left_of(report, method, name)
    if left is None and entry.get("beyond") is None:
        return told if few(report) else f"{told} {FEW}"
    if left is None:
        away = "" if entry.get("runs") else _away(entry, method, name)
        return f"{told} The attack does not tell the original from retrained models: {NOTHING} to forget.{away}"
    if left.runs is not None:
        of = "" if left.exact else f" (from {share(left.low or 0.0)} to {share(left.high or 0.0)})"
        return (
            f"{told} In {left.runs[0]} of {left.runs[1]} runs, {share(left.share)} of the trace is left on average{of}."
        )
    between = f" ({LEVEL:.0%} interval {left.between})" if left.between else ""
    return f"{told} {share(left.share)} of the trace is left{between}: {reading(method, name)}."


def _away(entry: Mapping[str, Any], method: Mapping[str, Any], name: str) -> str:
    """Return a sentence on a model that is far from retrained models although the original is not."""
    if abs(entry.get("beyond") or 0.0) <= 1:
        return ""
    read = reading(method, name)
    verb = "reveals" if "forgotten" in read else "lies"
    return f" Yet {method['name']} {verb} {read.partition(', perhaps')[0]}."


def _both(report: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    entry = entry_of(first, "before_and_after")
    if entry is None:
        return []
    attack = attack_of(report, "before_and_after")
    value, retrained = (result(attack, entry.get(key)) for key in ("value", "retrain_mean"))
    told = (
        f"{attack.told} It is right in {value} of comparisons if the model after is that of {first['name']}, and in "
        f"{retrained} if it is a retrained model."
    )
    if entry.get("rows") is not None:
        rows, theirs = (result(attack, entry.get(key)) for key in ("rows", "retrain_rows"))
        told += f" By the change of the user embeddings, it finds the users in the request in {rows} and {theirs}."
    return [paragraphs(told, " ".join(AFTERWARDS.split())), both_models_table(report)]


def _limits(report: Mapping[str, Any]) -> str:
    what = "clicks" if distance_unit(report) == "log p" else "interactions"
    num = len(report.get("references") or ())
    better = "." if num >= 5 else "; five or more are better."
    limits = [
        *warnings(report),
        "Only the attacks on this page were made. An attacker with other means may find more.",
        f"Only this request was audited. Other {what} may be forgotten better or worse.",
        "Only the model was audited. Logs, backups, caches, search indices, exported recommendations and other data "
        "derived from the model or its training data are not changed by it.",
        "This is a comparison with retrained models, by statistics with intervals. It is no certificate, and it gives "
        "no guarantee that holds for every attack.",
        "A model that was published before forgetting stays public, and together with the new one it can give the "
        "request away.",
        "Retrained models were trained with the settings that stand at the end of this page. If the original was "
        "trained in another way, the comparison is with the wrong models.",
    ]
    if num and not few(report):
        limits.append(f"{num} retrained models served as the yardstick{better}")
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in limits)}</ul>"
