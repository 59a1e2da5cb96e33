"""Tables of attacks, verdicts, ensembles and references, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphunlearn.eval.attacks.evidence import LEVEL
from graphunlearn.eval.report.attacks import STRENGTH, attack_of, entry_of, few, left_of, names, share, untold
from graphunlearn.eval.report.markup import number, percent, table
from graphunlearn.eval.report.verdict import REFERENCES, judge

__all__ = [
    "attack_table",
    "both_models_table",
    "klom_table",
    "left_table",
    "overlap_table",
    "passed",
    "references_table",
    "verdict_table",
]

_HINTS = {
    "left": """Below each share stands its {level:.0%} interval; over several runs, and over the retrained models, the
        share is the mean, with the range, and with the number of runs (or models) in which the attack tells the
        original from retrained models. 0% is what retrained models reveal, 100% is what the original reveals.""",
    "both": """How often an attacker who holds both models is right; guessing is right in 50%. A figure far below 50%
        reveals as much as one far above, because the attacker can reverse the answers.""",
    "verdicts": """Every retrained model is judged by the other ones with the same rule.""",
    "attacks": """Values are AUROCs (0.5 is guessing), for fold-in attacks the difference of two AUROCs, forgotten less
        remaining, and for promoted items a mean probability. The interval is that of the model's
        value, at a level of {level:.0%}: the chance in the choice of users or sessions, by bootstrap. Left: (value −
        retrained) / (original − retrained), where the original lies further from retrained models than another
        retrained model would; the interval of this share includes the chance in the choice of retrained models and in
        the seed of the model, at the same level, shared by the attacks that decide (Bonferroni). TPR: share of
        forgotten examples found at this share of false alarms, on the model and (in brackets) on retrained models.""",
    "klom": """KLOM is the divergence between margins of several models of the method, from different originals, and
        margins of retrained models, example by example, in closed form for normal distributions; 0 is best. The floor
        is the same figure between two halves of the retrained models, if there are eight or more. Expected if equal:
        the expectation for as many models, if both kinds had equal normal distributions.""",
    "overlap": """Share of the 20 recommendations that a model has in common with a retrained model, beside the share
        that two retrained models have in common.""",
    "references": """The models trained again without the forgotten data. One is healthy if its training did not stop in
        its first plateau and its validation metric is not far (more than 20%) below the median of the others.""",
}


def _interval(low: float | None, high: float | None, text: Any = share) -> str:
    return "" if low is None or high is None else f"{text(low)} to {text(high)}"


def left_table(report: Mapping[str, Any]) -> str:
    """Return the table of the share of the trace that every attack finds in every model, with the verdicts.

    Args:
        report: A complete report.
    """
    attacks = [name for name in names(report) if name not in STRENGTH]
    rows = []
    for method in report["methods"]:
        verdict = judge(method)
        chip = f'<span class="chip {verdict.status}">{escape(verdict.label)}</span>'
        cells = [_reference(report) if method["name"] == "retrain" else chip]
        for name in attacks:
            left, entry = left_of(report, method, name), entry_of(method, name)
            if left is None:
                cells.append("–" if entry is None else f"<small class=wrap>{untold(report, entry)}</small>")
            else:
                cells.append(share(left.share) + (f"<small class=below>{left.between}</small>" if left.between else ""))
        rows.append((method["name"], cells, method["name"] in REFERENCES))
    titles = [attack_of(report, name).short for name in attacks]
    if not rows:
        return ""
    hint = _HINTS["left"].format(level=LEVEL) if attacks else ""
    return table("What is left of the trace, by model and attack", ["model", "verdict", *titles], rows, hint)


def _reference(report: Mapping[str, Any]) -> str:
    rate = report.get("retrain_pass_rate")
    return '<span class="chip">the yardstick</span>' + (
        "" if rate is None else f"<small class=below>{rate:.0%} pass</small>"
    )


def passed(report: Mapping[str, Any]) -> str:
    """Return how the retrained models fare under the rule for verdicts, as a sentence.

    Args:
        report: A complete report.
    """
    rate = report.get("retrain_pass_rate")
    if rate is None:
        return "There are too few retrained models to judge each of them by the other ones."
    return (
        f"The rule was tried on the retrained models themselves, each judged by the other ones: {rate:.0%} of them "
        "pass, that is, are judged as retraining or undecided."
    )


def both_models_table(report: Mapping[str, Any]) -> str:
    """Return the table of the attacks that compare each model with the original.

    Args:
        report: A complete report.
    """
    rows = []
    for method in report["methods"]:
        entry = entry_of(method, "before_and_after") or {}
        cells = [percent(entry.get("value")) + _small(entry), percent(entry.get("rows"))]
        rows.append((method["name"], cells, method["name"] in REFERENCES))
    if not any(entry_of(method, "before_and_after") for method in report["methods"]):
        return ""
    head = ["model, compared with the original", "forgotten data identified", "users in the request identified"]
    return table("Comparison of both models", head, rows, _HINTS["both"])


def _small(entry: Mapping[str, Any]) -> str:
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None:
        return ""
    return f"<small>{_interval(low, high)}</small>"


def verdict_table(report: Mapping[str, Any]) -> str:
    """Return the table of verdicts with the rule that decided each of them.

    Args:
        report: A complete report.
    """
    rows = []
    for method in report["methods"]:
        verdict, found = judge(method), method.get("verdict") or {}
        chip = f'<span class="chip {verdict.status}">{escape(verdict.label)}</span>'
        reasons = ("–", "–") if few(report) else (found.get("rule") or "–", found.get("needs") or "–")
        cells = [chip, *map(escape, reasons)]
        if method["name"] == "retrain":
            known = report.get("retrain_pass_rate") is not None
            cells = [_reference(report), escape(passed(report)) if known else "–", "–"]
        rows.append((method["name"], cells, method["name"] in REFERENCES))
    head = ["model", "verdict", "reason", "what would decide"]
    return table("Verdicts", head, rows, _HINTS["verdicts"], text=(2, 3)) if rows else ""


def attack_table(report: Mapping[str, Any]) -> str:
    """Return the statistician's table: every attack on every model.

    Args:
        report: A complete report.
    """
    rows: list[tuple[str, Sequence[str], bool]] = []
    rates = ("tpr@1%", "tpr@0.1%")
    both = [n for n in ("before_and_after",) if any(entry_of(method, n) for method in report["methods"])]
    for name in names(report) + both:
        rows.append((attack_of(report, name).title, (), False))
        for method in report["methods"]:
            entry = entry_of(method, name)
            if entry is None:
                continue
            left, sd = left_of(report, method, name), (method.get("attacks_sd") or {}).get(name) or {}
            told = "–" if name in (*both, *STRENGTH) else untold(report, entry)
            if left is not None and told != "–":
                told = share(left.share) + (f"<small>{left.between}</small>" if left.between else "")
            cells = [
                number(entry.get("original")),
                f"<strong>{number(entry.get('value'), sd.get('value'))}</strong>",
                _interval(entry.get("low"), entry.get("high"), lambda v: number(v, digits=3)),
                number(entry.get("retrain_mean"), entry.get("retrain_sd")),
                told,
                *(_rate(entry, rate) for rate in rates),
            ]
            rows.append((method["name"], cells, method["name"] in REFERENCES))
    head = ["model", "original", "value", "interval", "retrained", "left of the trace", "TPR at 1%", "TPR at 0.1%"]
    return table("Attacks", head, rows, _HINTS["attacks"].format(level=LEVEL) + _match(report)) if rows else ""


def _match(report: Mapping[str, Any]) -> str:
    """Return how well the never-seen controls match the forgotten data in popularity, as a sentence."""
    found = report.get("controls")
    if not found:
        return ""
    own, other = (number(found[key], digits=1) for key in ("forgotten", "controls"))
    return (
        f" Never-seen controls are of items with {other} training interactions on average, forgotten data of items "
        f"with {own}; popularity alone would be right in {found['auroc']:.0%} of comparisons."
    )


def _rate(entry: Mapping[str, Any], rate: str) -> str:
    if entry.get(rate) is None:
        return "–"
    against = entry.get(f"retrain_{rate}")
    return f"{entry[rate]:.1%}" + ("" if against is None else f"<small>({against:.1%})</small>")


def klom_table(report: Mapping[str, Any]) -> str:
    """Return the table of KLOM, or nothing if there were too few models.

    Args:
        report: A complete report.
    """
    rows = []
    for method in report["methods"]:
        entry = method.get("klom") or {}
        keys = ("forget", "floor_forget", "retain", "floor_retain", "expected_if_equal")
        cells = [number(entry.get(key)) for key in keys]
        cells += [str(entry[key]) if entry.get(key) else "–" for key in ("models", "retrained")]
        rows.append((method["name"], cells, method["name"] in REFERENCES))
    if not any(method.get("klom") for method in report["methods"]):
        return ""
    head = ["model", "forgotten", "floor, forgotten", "retained", "floor, retained", "expected if equal"]
    head += ["models", "retrained models"]
    return table("KLOM", head, rows, _HINTS["klom"])


def overlap_table(report: Mapping[str, Any]) -> str:
    """Return the table of the overlap of recommendation lists with those of retrained models.

    Args:
        report: A complete report.
    """
    found = dict.fromkeys(g for m in report["methods"] for g in m.get("topk_overlap") or {})
    groups = [g for g in found if not g.startswith("retrain_")]
    rows = []
    for method in report["methods"]:
        entry, sd = method.get("topk_overlap") or {}, method.get("topk_overlap_sd") or {}
        cells = []
        for group in groups:
            cells += [percent(entry.get(group), sd.get(group)), percent(entry.get(f"retrain_{group}"))]
        rows.append((method["name"], cells, method["name"] in REFERENCES))
    names_of = {"affected": "affected users", "unaffected": "other users", "test": "test sessions"}
    head = ["model"]
    for group in groups:
        head += [names_of.get(group, group), f"between retrained, {names_of.get(group, group)}"]
    known = any(cell != "–" for _, cells, _ in rows for cell in cells)
    return table("Overlap of recommendations", head, rows, _HINTS["overlap"]) if known else ""


def references_table(report: Mapping[str, Any]) -> str:
    """Return the table of the retrained models and their health.

    Args:
        report: A complete report.
    """
    rows = []
    for n, entry in enumerate(report.get("references") or ()):
        healthy = {True: "yes", False: "no", None: "not known"}[entry.get("healthy")]
        cells = [str(v) if (v := entry.get(key)) is not None else "–" for key in ("seed", "best_epoch", "epochs")]
        rows.append((f"retrained {n + 1}", [*cells, number(entry.get("validation")), healthy], False))
    head = ["model", "seed", "best epoch", "stopped after", "validation", "healthy"]
    return table("Retrained models", head, rows, _HINTS["references"]) if rows else ""
