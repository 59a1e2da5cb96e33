"""Tables of quality, cost, forgetting and distance, as HTML. Names that come from users are escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphunlearn.eval.report.attacks import NOTHING
from graphunlearn.eval.report.markup import Rows, duration, number, p_value, percent, table, times
from graphunlearn.eval.report.verdict import REFERENCES, distance_unit, label, left_little, ratio_to_floor

__all__ = ["cost_table", "distance_table", "forgetting_table", "groups_table", "target_table", "utility_table"]

_HINTS = {
    "cost": """Time: wall time of one request; preparation is paid once for many requests. Speedup: against retraining
        with the same trainer. ±: one standard deviation.""",
    "shards": """ Slowest shard: the time if all shards run in parallel, each on its own machine.""",
    "utility": "Measured on test data; higher is better; ± is one standard deviation.",
    "next": """Measured on every prefix of the test sessions, against the whole catalogue, items already clicked
        included; higher is better; ± is one standard deviation. With one next click per prefix, the hit rate is the
        recall.""",
    "groups": """Test metrics, separately for the users with a forgotten interaction and for all others; users left
        without any interaction are in neither.""",
    "forgetting": """Gap closed = (before − after) / (before − retrained): 100% is retraining, less forgets too little,
        more too much. Where the original is within two standard deviations of retrained models there is nothing
        measurable. z counts standard deviations of the retrained models from their mean; with few seeds a small
        difference can give a large z. {measures} The p-value of KS takes samples as independent; its floor, the same
        distance between two retrained models, is the better yardstick.""",
    "p": """MI-BF (mean probability of the forgotten pairs before forgetting, divided by that after) and MI-NG (mean
        probability of never-seen pairs, divided by that of the forgotten ones) are published measures that reward
        over-forgetting: the value of retrained models is the right one, not a larger one. Exposure: share of the
        forgotten pairs whose item is among the best unseen ones of its user.""",
    "log p": """Hit_u@k: share of the forgotten clicks that are among the k best of themselves and 500 random items,
        given the clicks before them; uniform negatives are easy, so read the log probability and the rank in the whole
        catalogue beside it. Deleted transition: from a forgotten click to the one after it. U-score: harmonic mean of
        the share of retraining's Recall@20 that is kept and of the share of the gap in Hit_u@10 that is closed, a
        formula of our own.""",
    "target": """How strongly the promoted items are recommended to real users (or after real sessions): mean
        probability, median rank, and share of lists that hold one of them. The values of retrained
        models are the right ones; lower is as wrong as higher.""",
    "distance": """Mean absolute difference of {unit} to a retrained model, on what is forgotten and on the
        test data, averaged over retrained seeds. The floor is the same figure between two retrained seeds:
        1.00 × is as close as another retrained model.""",
}
_OWN = {
    "p": """ The original has two rows. The first is on its own lists, which leave out the items that it was trained
    on, and on all test data, as the command train measures it. In all other rows the lists leave out the items
    that remain after forgetting, and test data of users and items that are forgotten do not count, so that all
    models answer the same question.""",
    "log p": """ The original has two rows. The first is on all test sessions, as the command train measures it. In
    all other rows, test clicks on items (or of users) that are forgotten entirely do not count, so that all
    models answer the same question.""",
}


def _names(report: Mapping[str, Any], field: str) -> list[str]:
    return list(dict.fromkeys(name for method in report["methods"] for name in method.get(field) or {}))


def cost_table(report: Mapping[str, Any]) -> str:
    """Return the table of the cost of every method.

    Args:
        report: A complete report.
    """
    rows = []
    for method in report["methods"]:
        cells = [
            times(method.get("speedup_vs_retrain"), method.get("speedup_vs_retrain_sd"), digits=1),
            duration(method),
            duration(method, "cpu_seconds"),
            duration(method, "prepare_seconds"),
            number(method.get("peak_memory_mb"), method.get("peak_memory_mb_sd"), digits=1),
        ]
        rows.append((method["name"], cells, method["name"] in REFERENCES))
    head = ["model", "speedup", "time", "CPU time", "preparation", "peak memory, MB"]
    if not any(cell != "–" for _, cells, _ in rows for cell in cells):
        return ""
    sharded = any(method.get("seconds_slowest_shard") is not None for method in report["methods"])
    return table("Cost", head, rows, _HINTS["cost"] + sharded * _HINTS["shards"])


def utility_table(report: Mapping[str, Any]) -> str:
    """Return the table of all utility metrics; the original has a row for its own lists and one for the retained data.

    Args:
        report: A complete report.
    """
    names = [name for name in _names(report, "utility") if not _is_of_group(name)]
    hint = _HINTS["next" if distance_unit(report) == "log p" else "utility"]
    return _utilities(report, names, "Quality of recommendations", hint, own=True) if names else ""


def groups_table(report: Mapping[str, Any]) -> str:
    """Return the table of the utility of affected and unaffected users, or nothing if it was not measured.

    Args:
        report: A complete report.
    """
    names = [name for name in _names(report, "utility") if _is_of_group(name)]
    if not names:
        return ""
    together = list(dict.fromkeys(name.rpartition("_")[0] for name in names))
    names.sort(key=lambda name: together.index(name.rpartition("_")[0]))
    return _utilities(report, names, "Quality by group", _HINTS["groups"])


def _is_of_group(metric: str) -> bool:
    return "_" in metric.partition("@")[2]


def _utilities(report: Mapping[str, Any], names: Sequence[str], title: str, hint: str, own: bool = False) -> str:
    rows = []
    for method in report["methods"]:
        name, fields = method["name"], ["utility"]
        twice = own and bool(method.get("utility_on_own_lists"))
        for field in ["utility_on_own_lists"] * twice + fields:
            values, sd = method.get(field) or {}, method.get(f"{field}_sd") or {}
            own_name = "all test data" if distance_unit(report) == "log p" else "own lists"
            shown = f"{name}, {own_name}" if field != "utility" else f"{name}, retained data" if twice else name
            rows.append((shown, [number(values.get(n), sd.get(n)) for n in names], name in REFERENCES))
        hint += twice * _OWN[distance_unit(report)]
    return table(title, ["model", *map(label, names)], rows, hint)


def forgetting_table(report: Mapping[str, Any]) -> str:
    """Return the table of all forgetting metrics before and after forgetting and of the retrained models.

    Args:
        report: A complete report.
    """
    rows = _against_retraining(report, "forgetting")
    head = ["model", "before", "after", "retrained", "gap closed", "z", "KS p-value", "KS floor"]
    hint = _HINTS["forgetting"].format(measures=_HINTS[distance_unit(report)])
    return table("Forgetting metrics", head, rows, hint) if rows else ""


def target_table(report: Mapping[str, Any]) -> str:
    """Return the table of the recommendation of promoted items to real users, or nothing without such items.

    Args:
        report: A complete report.
    """
    rows = _against_retraining(report, "target")
    head = ["model", "before", "after", "retrained", "gap closed", "z"]
    return table("Promoted items", head, [(n, c[:5], ref) for n, c, ref in rows], _HINTS["target"]) if rows else ""


def _against_retraining(report: Mapping[str, Any], field: str) -> Rows:
    """Return rows with a metric before and after forgetting, on retrained models, and the share of the gap closed."""
    rows: list[tuple[str, Sequence[str], bool]] = []
    for metric in _names(report, field):
        rows.append((label(metric), (), False))
        for method in report["methods"]:
            entry = (method.get(field) or {}).get(metric)
            sd = (method.get(f"{field}_sd") or {}).get(metric) or {}
            if entry:
                z = entry.get("z")
                gap = percent(entry.get("gap_closed"), sd.get("gap_closed"))
                cells = [
                    number(entry.get("original")),
                    f"<strong>{number(entry.get('value'), sd.get('value'))}</strong>",
                    number(entry.get("retrain_mean"), entry.get("retrain_sd")),
                    NOTHING if gap != "–" and left_little(entry) else gap,
                    "–" if z is None else "0.0" if abs(z) < 0.05 else f"{z:+.1f}",
                    p_value(entry.get("p_value")),
                    "" if entry.get("floor") is None else number(entry["floor"]),
                ]
                rows.append((method["name"], cells, method["name"] in REFERENCES))
    return rows


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
            cells.append(number(distance.get(where), sd.get(where)))
            cells.append(number(distance.get(f"noise_floor_{where}")))
            cells.append(f"<strong>{times(ratio_to_floor(method, where))}</strong>")
        if any(value is not None for value in distance.values()):
            rows.append((method["name"], cells, method["name"] in REFERENCES))
    head = ["model"]
    for where in ("forgotten", "test"):
        head += [f"mean |Δ{unit}|, {where}", f"floor, {where}", f"Δ{unit} / floor, {where}"]
    return table("Distance to retraining", head, rows, _HINTS["distance"].format(unit=unit)) if rows else ""
