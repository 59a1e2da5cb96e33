"""The report as one self-contained web page, without scripts or external resources, for light, dark and print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphunlearn.eval.report.plots import Plot
from graphunlearn.eval.report.summary import describe, headline, summary
from graphunlearn.eval.report.tables import (
    distance_table,
    forgetting_table,
    glance_table,
    groups_table,
    percent,
    times,
    utility_table,
)
from graphunlearn.eval.report.verdict import (
    REFERENCES,
    format_number,
    format_seconds,
    judge,
    label,
    left_little,
    primary_metric,
    ratio_to_floor,
)

__all__ = ["page"]

LONGEST_LIST = 20
"""Greatest length of a list in a method's log that the page prints."""
_COLORS = {
    "light": "--page:#fff;--card:#f6f7f9;--ink:#1c2430;--muted:#5d6878;--line:#dde2e9;--band:#cdd4de;"
    "--c1:#0067a5;--c2:#c14a00;--c3:#00795a;--c4:#a63e7c;--c5:#856800;--c6:#4b56cc;--good:#00795a;--bad:#b33a00;",
    "dark": "--page:#14181f;--card:#1d232d;--ink:#e6eaf0;--muted:#98a4b5;--line:#343d4b;--band:#46505f;"
    "--c1:#5ab6f2;--c2:#ff9455;--c3:#3ac99a;--c4:#ea9aca;--c5:#e2c044;--c6:#a6aeff;--good:#3ac99a;--bad:#ff9455;",
}
_STYLE = (
    f":root{{color-scheme:light dark;{_COLORS['light']}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_COLORS['dark']}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:980px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.015em;text-wrap:balance}
h2{font-size:1.2rem;margin:2.6rem 0 .6rem}
.muted,figcaption,.hint{color:var(--muted)}
.hint,figcaption{font-size:.9rem;margin:.5rem 0 0;max-width:75ch}
.verdict{border-left:4px solid var(--line);padding:.1rem 0 .1rem 1rem;margin:1.6rem 0;max-width:75ch}
.verdict.inside{border-color:var(--good)}.verdict.under,.verdict.over,.verdict.off,.verdict.average,.verdict.partly{border-color:var(--bad)}
.verdict p{margin:.6rem 0}.verdict p:first-child{font-size:1.08rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:.75rem;margin:1.6rem 0 0;padding:0}
.card{background:var(--card);border-radius:10px;padding:.9rem 1rem}
.card dt{font-size:.85rem;color:var(--muted)}
.card dd{margin:.1rem 0 0;font-size:1.65rem;font-weight:650;letter-spacing:-.02em;line-height:1.25}
.card dd small{display:block;font-size:.82rem;font-weight:400;letter-spacing:0;color:var(--muted)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.45rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{font-weight:600;color:var(--muted);vertical-align:bottom;white-space:normal;font-size:.82rem;line-height:1.3}
th:first-child,td.text{text-align:left}
td small{margin-left:.4em;color:var(--muted);font-size:.88em;font-weight:400}.narrow small{display:block}
tr.group th{padding-top:1.1rem;color:var(--ink)}tbody th{font-weight:500}tr.group th{font-weight:650}
tr.reference th,tr.reference td{color:var(--muted)}
.chip{display:inline-block;border:1px solid currentColor;border-radius:99px;padding:0 .6em;font-size:.8rem}
.chip.inside{color:var(--good)}.chip.under,.chip.over,.chip.off,.chip.average,.chip.partly{color:var(--bad)}.chip.unknown{color:var(--muted)}
figure{margin:0}
figure svg{display:block;width:100%;min-width:560px;height:auto}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
details{border-bottom:1px solid var(--line);padding:.5rem 0}
summary{cursor:pointer;font-weight:600}
pre,code{font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border-radius:8px;padding:.8rem 1rem;overflow:auto;max-height:26rem;white-space:pre-wrap;
overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem;margin:0;font-size:.9rem}
.facts dt{color:var(--muted)}.facts dd{margin:0;overflow-wrap:anywhere}
@media print{main{max-width:none;padding:0}body{font-size:11pt}h2{break-after:avoid}
figure,table,.card{break-inside:avoid}pre{max-height:none}.scroll{overflow:visible}}
"""
)


def page(report: Mapping[str, Any], plots: Sequence[Plot] = ()) -> str:
    """Return the report as an HTML document.

    Args:
        report: A complete report, as :func:`graphunlearn.eval.report.writing.complete` returns it.
        plots: Figures from :func:`graphunlearn.eval.report.plots.draw`.

    Returns:
        The HTML document as text.
    """
    title = headline(report)
    methods = [method for method in report["methods"] if method["name"] not in REFERENCES]
    status = judge(methods[0]).status if methods else "unknown"
    verdict = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in summary(report))
    sections = [
        f"<header><h1>{escape(title)}</h1><p class=muted>{escape(_subtitle(report))}</p></header>",
        f'<section class="verdict {status}" aria-label="Verdict">{verdict}</section>',
        _cards(report, methods[0]) if methods else "",
        _section("At a glance", glance_table(report)),
        _section("Forgetting", forgetting_table(report)),
        _section("Distance to retraining", distance_table(report)),
        _section("Utility", utility_table(report)),
        _section("Utility of affected and unaffected users", groups_table(report)),
        *(_section(plot.title, _figure(plot)) for plot in plots),
        _section("Notes", _notes(report)),
        _section("What each method did", _logs(report)),
        _section("Set-up", _setup(report)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _subtitle(report: Mapping[str, Any]) -> str:
    parts = [describe(report.get("model")), describe(report.get("dataset"))]
    parts += [f"scenario {report['scenario']}"] if report.get("scenario") else []
    return " · ".join(part for part in parts if part)


def _cards(report: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    metric, cards = primary_metric(report), []
    entry = (method.get("forgetting") or {}).get(metric) or {}
    if entry.get("gap_closed") is not None:
        closed, hint = percent(entry["gap_closed"]), f"{label(metric or '')}; 100% is retraining"
        if method.get("own_original"):
            closed, hint = "–", "not judged: a model of its own"
        elif left_little(entry):
            closed, hint = "–", "not judged: the original was within the noise of retraining"
        cards.append(("Gap to retraining closed", closed, hint))
    if (ratio := ratio_to_floor(method, "forget")) is not None:
        cards.append(("Distance to retraining", times(ratio), "the retrain-to-retrain floor, what is forgotten"))
    if (faster := method.get("speedup_vs_retrain")) is not None:
        cards.append(("Faster than retraining", times(faster, digits=1), format_seconds(method.get("seconds"))))
    retrain: Mapping[str, Any] = next((m for m in report["methods"] if m["name"] == "retrain"), {})
    for name, value in list((method.get("utility") or {}).items())[:1]:
        reference = (retrain.get("utility") or {}).get(name)
        if value is not None and reference is not None:
            cards.append((f"{label(name)} on test", format_number(value), f"retrained {format_number(reference)}"))
    inner = "".join(
        f"<div class=card><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(hint)}</small></dd></div>"
        for name, value, hint in cards
    )
    return f'<dl class=cards aria-label="Key figures of {escape(method["name"])}">{inner}</dl>' if cards else ""


def _figure(plot: Plot) -> str:
    return (
        f'<figure><div class=scroll role="img" aria-label="{escape(plot.alt)}">{plot.svg}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


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
    facts = {key: report.get(key) for key in ("dataset", "model", "scenario", "request")} | (
        report.get("environment") or {}
    )
    inner = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(describe(value))}</dd>"
        for key, value in facts.items()
        if value
    )
    command = report.get("command")
    return f"<dl class=facts>{inner}</dl>" + (f"<pre>{escape(str(command))}</pre>" if command else "")
