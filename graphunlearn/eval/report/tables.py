"""The tables of a report page, as HTML. Names that come from users are escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphunlearn.eval.report.verdict import (
    REFERENCES,
    distance_unit,
    format_number,
    format_seconds,
    judge,
    label,
    primary_metric,
    ratio_to_floor,
)

__all__ = ["distance_table", "forgetting_table", "glance_table", "groups_table", "percent", "times", "utility_table"]

_HINTS = {
    "glance": """Gap closed: how far the method went from the original towards retraining, 100% being there. Δ{unit}:
        distance to a retrained model in units of the distance between two of those. Speedup: against retraining with
        the same trainer. Time: wall time of one request; preparation is paid once for many. ±: one standard
        deviation.""",
    "shards": """ Slowest shard: what of the time remains where every shard has a machine of its own.""",
    "utility": "Measured on test data, higher is better; ± is one standard deviation.",
    "next": """Measured on every prefix of the test sessions, against the whole catalogue, items already clicked
        included; higher is better; ± is one standard deviation. With one next click per prefix, the hit rate is the
        recall.""",
    "groups": """Test metrics apart for the users with a forgotten interaction and for all others; users left without
        any interaction are in neither.""",
    "forgetting": """Gap closed = (before − after) / (before − retrained): 100% is retraining, less forgets too little,
        more too much. z counts standard deviations of the retrained models from their mean; with few seeds a small
        difference can give a large z. {measures} The p-value of KS takes samples as independent; its floor, the same
        distance between two retrained models, is the better yardstick.""",
    "p": """MI-BF (mean probability of the forgotten pairs before over after) and MI-NG (mean
        probability of never-seen pairs over that of the forgotten) are published measures that reward over-forgetting:
        right is what retrained models give, not more. Exposure: share of the forgotten pairs whose item is among the
        best unseen ones of its user.""",
    "log p": """Hit_u@k: share of the forgotten clicks that are among the k best of themselves and 500 random items,
        given the clicks before them; uniform negatives are easy, so read the log probability and the rank in the whole
        catalogue beside it. Deleted transition: from a forgotten click to the one after it. U-score: harmonic mean of
        the share of retraining's Recall@20 that is kept and of how close the gap in Hit_u@10 is to closed, a formula
        of our own.""",
    "distance": """Mean absolute difference of {unit} to a retrained model, on what is forgotten and on the
        test data, averaged over retrained seeds. The floor is the same figure between two retrained seeds:
        1.00 × is as close as another retrained model.""",
}


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str], bool]], hint: str) -> str:
    """Return a table with a hint below it. Columns without any value are left out.

    Args:
        head: Titles of the columns.
        rows: Title, cells (as HTML) and whether the row is a reference model, for every row. A row without cells is a
            heading of the rows below it.
        hint: Explanation below the table.
    """
    filled = [0] + [
        n for n in range(1, len(head)) if any(cells[n - 1] not in ("", "–") for _, cells, _ in rows if cells)
    ]
    top = "".join(f'<th scope="col">{escape(head[n])}</th>' for n in filled)
    body = ""
    for name, cells, reference in rows:
        if cells:
            inner = "".join(f"<td>{cells[n - 1]}</td>" for n in filled[1:])
            style = " class=reference" if reference else ""
            body += f'<tr{style}><th scope="row">{escape(name)}</th>{inner}</tr>'
        else:
            body += f'<tr class=group><th scope="rowgroup" colspan={len(filled)}>{escape(name)}</th></tr>'
    narrow = " class=narrow" if len(filled) > 6 else ""
    table = f"<div class=scroll><table{narrow}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    return f"{table}<p class=hint>{escape(' '.join(hint.split()))}</p>"


def _names(report: Mapping[str, Any], field: str) -> list[str]:
    return list(dict.fromkeys(name for method in report["methods"] for name in method.get(field) or {}))


def _number(value: float | None, sd: float | None = None, digits: int = 4) -> str:
    spread = "" if sd is None else f"<small>± {format_number(sd, digits=digits)}</small>"
    return escape(format_number(value, digits=digits)) + spread


def _p_value(value: float | None) -> str:
    return "" if value is None else "&lt; 0.001" if value < 0.001 else _number(value, digits=3)


def percent(value: float | None, sd: float | None = None) -> str:
    """Return a share as a percentage, with its standard deviation in HTML if there is one, or ``–`` for ``None``."""
    spread = "" if sd is None else f"<small>± {sd:.0%}</small>"
    return "–" if value is None else f"{value:.0%}{spread}"


def times(value: float | None, sd: float | None = None, digits: int = 2) -> str:
    """Return a factor with ``×``, with its standard deviation in HTML if there is one, or ``–`` for ``None``."""
    spread = "" if sd is None else f"<small>± {format_number(sd, digits=digits)}</small>"
    return "–" if value is None else f"{format_number(value, digits=digits)} ×{spread}"


def _time(method: Mapping[str, Any], name: str = "seconds") -> str:
    """Return a duration with its standard deviation, and for shards the time of the slowest shard below it."""
    spread, slowest = method.get(f"{name}_sd"), method.get("seconds_slowest_shard")
    told = "" if spread is None else f"<small>± {format_seconds(spread)}</small>"
    if name == "seconds" and slowest is not None:
        told += f"<small>slowest shard</small><small>{format_seconds(slowest)}</small>"
    return format_seconds(method.get(name)) + told


def glance_table(report: Mapping[str, Any]) -> str:
    """Return the table with one line per method: verdict, distance to retraining, first utility metric and cost.

    Args:
        report: A complete report.
    """
    metric, utilities, rows = primary_metric(report), _names(report, "utility")[:1], []
    unit = distance_unit(report)
    for method in report["methods"]:
        reference = method["name"] in REFERENCES
        verdict = judge(method)
        entry = (method.get("forgetting") or {}).get(metric) or {}
        sd = (method.get("forgetting_sd") or {}).get(metric) or {}
        utility_sd = method.get("utility_sd") or {}
        cells = [
            "" if reference else f'<span class="chip {verdict.status}">{escape(verdict.label)}</span>',
            "–" if reference else percent(entry.get("gap_closed"), sd.get("gap_closed")),
            times(ratio_to_floor(method, "forget")),
            times(ratio_to_floor(method, "test")),
            *(_number((method.get("utility") or {}).get(name), utility_sd.get(name)) for name in utilities),
            times(method.get("speedup_vs_retrain"), method.get("speedup_vs_retrain_sd"), digits=1),
            _time(method),
            _time(method, "prepare_seconds"),
            _number(method.get("peak_memory_mb"), method.get("peak_memory_mb_sd"), digits=1),
        ]
        rows.append((method["name"], cells, reference))
    head = [
        "method",
        "verdict",
        "gap closed",
        f"Δ{unit} forgotten / floor",
        f"Δ{unit} test / floor",
        *map(label, utilities),
    ]
    head += ["speedup", "time", "preparation", "peak memory, MB"]
    sharded = any(method.get("seconds_slowest_shard") is not None for method in report["methods"])
    return _table(head, rows, _HINTS["glance"].format(unit=unit) + sharded * _HINTS["shards"])


def utility_table(report: Mapping[str, Any]) -> str:
    """Return the table of all utility metrics, or nothing if the glance table already holds the only one.

    Args:
        report: A complete report.
    """
    names = [name for name in _names(report, "utility") if not _is_of_group(name)]
    hint = "next" if distance_unit(report) == "log p" else "utility"
    return _utilities(report, names, hint) if len(names) > 1 else ""


def groups_table(report: Mapping[str, Any]) -> str:
    """Return the table of the utility of affected and unaffected users, or nothing if it was not measured.

    Args:
        report: A complete report.
    """
    names = [name for name in _names(report, "utility") if _is_of_group(name)]
    if not names:
        return ""
    together = list(dict.fromkeys(name.rpartition("_")[0] for name in names))
    return _utilities(report, sorted(names, key=lambda name: together.index(name.rpartition("_")[0])), "groups")


def _is_of_group(metric: str) -> bool:
    return "_" in metric.partition("@")[2]


def _utilities(report: Mapping[str, Any], names: Sequence[str], hint: str) -> str:
    rows = []
    for method in report["methods"]:
        utility, sd = method.get("utility") or {}, method.get("utility_sd") or {}
        rows.append((method["name"], [_number(utility.get(n), sd.get(n)) for n in names], method["name"] in REFERENCES))
    return _table(["method", *map(label, names)], rows, _HINTS[hint])


def forgetting_table(report: Mapping[str, Any]) -> str:
    """Return the table of all forgetting metrics before and after forgetting and of the retrained models.

    Args:
        report: A complete report.
    """
    rows: list[tuple[str, Sequence[str], bool]] = []
    for metric in _names(report, "forgetting"):
        rows.append((label(metric), (), False))
        for method in report["methods"]:
            entry = (method.get("forgetting") or {}).get(metric)
            sd = (method.get("forgetting_sd") or {}).get(metric) or {}
            if entry and method["name"] not in REFERENCES:
                z = entry.get("z")
                cells = [
                    _number(entry.get("original")),
                    f"<strong>{_number(entry.get('value'), sd.get('value'))}</strong>",
                    _number(entry.get("retrain_mean"), entry.get("retrain_sd")),
                    percent(entry.get("gap_closed"), sd.get("gap_closed")),
                    "–" if z is None else f"{z:+.1f}",
                    _p_value(entry.get("p_value")),
                    "" if entry.get("floor") is None else _number(entry["floor"]),
                ]
                rows.append((method["name"], cells, False))
    head = ["method", "before", "after", "retrained", "gap closed", "z", "KS p-value", "KS floor"]
    return _table(head, rows, _HINTS["forgetting"].format(measures=_HINTS[distance_unit(report)])) if rows else ""


def distance_table(report: Mapping[str, Any]) -> str:
    """Return the table of mean (log) probability differences to the retrained models, with their noise floors.

    Args:
        report: A complete report.
    """
    unit, rows = distance_unit(report), []
    for method in report["methods"]:
        distance, sd = method.get("distance_to_retrain") or {}, method.get("distance_to_retrain_sd") or {}
        cells = []
        for where in ("forget", "test"):
            cells.append(_number(distance.get(where), sd.get(where)))
            cells.append(_number(distance.get(f"noise_floor_{where}")))
            cells.append(f"<strong>{times(ratio_to_floor(method, where))}</strong>")
        if any(value is not None for value in distance.values()):
            rows.append((method["name"], cells, method["name"] in REFERENCES))
    head = ["method"]
    for where in ("forgotten", "test"):
        head += [f"mean |Δ{unit}|, {where}", f"floor, {where}", f"Δ{unit} / floor, {where}"]
    return _table(head, rows, _HINTS["distance"].format(unit=unit)) if rows else ""
