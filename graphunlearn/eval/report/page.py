"""The report as one self-contained web page, without scripts or external resources, for light, dark and print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphunlearn.eval.report.answers import answers, date_of
from graphunlearn.eval.report.evidence_tables import (
    attack_table,
    klom_table,
    overlap_table,
    references_table,
    verdict_table,
)
from graphunlearn.eval.report.markup import paragraphs, scrolled, section
from graphunlearn.eval.report.plots import Plot
from graphunlearn.eval.report.style import STYLE
from graphunlearn.eval.report.summary import audited, describe, headline, warnings
from graphunlearn.eval.report.tables import distance_table, forgetting_table, groups_table

__all__ = ["page"]

LONGEST_LIST = 20
"""Greatest length of a list in a method's log that the page prints."""


def page(report: Mapping[str, Any], plots: Sequence[Plot] = ()) -> str:
    """Return the report as an HTML document: the answers in plain words first, then the technical part.

    Args:
        report: A complete report, as :func:`graphunlearn.eval.report.writing.complete` returns it.
        plots: Figures from :func:`graphunlearn.eval.report.plots.draw`.

    Returns:
        The HTML document as text.
    """
    title = headline(report)
    first = next((method["name"] for method in audited(report)), None)
    subtitle = " · ".join(filter(None, ["Audit of unlearning", f"operator {first}" if first else "", date_of(report)]))
    alarm = paragraphs(*warnings(report))
    sections = [
        f"<header><h1>{escape(title)}</h1><p class=muted>{escape(subtitle)}</p></header>",
        f'<div class=warning role=note aria-label="Read this first">{alarm}</div>' if alarm else "",
        *answers(report),
        section("Technical part", *_technical(report, plots)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main></body></html>\n"
    )


def _technical(report: Mapping[str, Any], plots: Sequence[Plot]) -> list[str]:
    parts = [
        ("Verdicts and their reasons", verdict_table(report)),
        ("Attacks", attack_table(report)),
        ("KLOM", klom_table(report)),
        ("Overlap of recommendations", overlap_table(report)),
        ("Distance to retraining", distance_table(report)),
        ("Forgetting metrics", forgetting_table(report)),
        ("Quality for affected and unaffected users", groups_table(report)),
        ("Retrained models", references_table(report)),
        *((plot.title, _figure(plot)) for plot in plots),
        ("Notes", _notes(report)),
        ("What each method did", _logs(report)),
        ("Settings", _setup(report)),
    ]
    return [section(title, body, level=3) for title, body in parts]


def _figure(plot: Plot) -> str:
    svg = plot.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plot.alt)}"', 1)
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>"
    return f"<figure>{scrolled(svg, plot.title)}{caption}</figure>"


def _notes(report: Mapping[str, Any]) -> str:
    notes = [str(note) for note in report.get("notes") or ()]
    notes += [
        f"Left out: {key.replace('_', ' ')}: {describe(value)}" for key, value in (report.get("left_out") or {}).items()
    ]
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else ""


def _logs(report: Mapping[str, Any]) -> str:
    logs = {
        method["name"]: json.dumps(_shortened(method["log"]), indent=2, ensure_ascii=False)
        for method in report["methods"]
        if method.get("log")
    }
    return "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(log)}</pre></details>" for name, log in logs.items()
    )


def _shortened(log: Any) -> Any:
    """Return a log without its long lists, which are in report.json and whose content the figures show."""
    if isinstance(log, Mapping):
        return {key: _shortened(value) for key, value in log.items()}
    if isinstance(log, list):
        return [_shortened(value) for value in log] if len(log) <= LONGEST_LIST else f"… {len(log):,} entries"
    return log


def _setup(report: Mapping[str, Any]) -> str:
    facts = {key: report.get(key) for key in ("dataset", "model", "scenario", "request", "seeds")} | (
        report.get("environment") or {}
    )
    inner = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(describe(value))}</dd>"
        for key, value in facts.items()
        if value
    )
    command = report.get("command")
    return f"<dl class=facts>{inner}</dl>" + (f"<pre>{escape(str(command))}</pre>" if command else "")
