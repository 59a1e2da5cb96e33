"""The report of an audit: ``report.json``, ``report.html`` and a table for the terminal."""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.plain import json_ready
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.attacks.evidence import LEVEL
from graphunlearn.eval.decision import combine
from graphunlearn.eval.report.attacks import NOTHING, attack_of, deciding, entry_of, left_of, share, untold
from graphunlearn.eval.report.page import page
from graphunlearn.eval.report.plots import draw
from graphunlearn.eval.report.summary import headline, summary
from graphunlearn.eval.report.verdict import (
    distance_unit,
    format_number,
    format_seconds,
    judge,
    label,
    primary_metric,
    ratio_to_floor,
)

__all__ = ["aggregate", "complete", "terminal_table", "thinned", "write_report"]

TOP = ("date", "dataset", "model", "scenario", "request", "environment", "references", "retrain_pass_rate", "methods")
METHOD = (
    *("name", "seconds", "prepare_seconds", "speedup_vs_retrain", "peak_memory_mb", "utility", "forgetting"),
    *("attacks", "topk_overlap", "klom", "verdict"),
)
_SECOND = (
    *("membership_auroc", "mean_probability", "exposure@20", "sensitive@10", "sensitive@20", "mi_bf", "mi_ng"),
    *("log_p_forgotten", "log_p_deleted_transition", "rank_forgotten", "hit_u@5", "hit_u@10", "hit_u@20", "u_score"),
    "ks_statistic",
)
_GROUPS = ("recall@20_affected", "recall@20_unaffected")
_SHORT = {
    "membership_auroc": "AUROC",
    "mean_probability": "mean p",
    "ks_statistic": "KS",
    "log_p_forgotten": "log p forgotten",
    "log_p_deleted_transition": "log p transition",
    "rank_forgotten": "log₂ rank",
    "recall@20_affected": "Recall@20: affected",
    "recall@20_unaffected": "unaffected users",
}
INTERVALS = ("low", "high", "leak_low", "leak_high", "difference_low", "difference_high")
RANGES = ("leak_least", "leak_most", "runs_told", "runs")
DISTANCE = ("test", "forget", "noise_floor_test", "noise_floor_forget")


def thinned(log: Mapping[str, Any], longest: int = 200) -> dict[str, Any]:
    """Return a log whose lists are shortened to at most ``longest`` evenly spaced entries, including both ends.

    For every shortened list, its original length is added under the name of the list with ``_of``.

    Args:
        log: The log of a method; it may hold further mappings.
        longest: Greatest length of a list.

    Example:
        >>> thinned({"loss": [5, 4, 3, 2, 1], "steps": 2}, longest=3)
        {'loss': [5, 3, 1], 'loss_of': 5, 'steps': 2}
    """
    out: dict[str, Any] = {}
    for key, value in log.items():
        if isinstance(value, Mapping):
            out[key] = thinned(value, longest)
        elif isinstance(value, (list, tuple)) and len(value) > longest:
            out[key] = [value[n] for n in np.linspace(0, len(value) - 1, longest).round().astype(int)]
            out[f"{key}_of"] = len(value)
        else:
            out[key] = value
    return out


def complete(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report in plain JSON types with every field of the format; missing fields are ``None``.

    Args:
        report: A mapping with ``dataset``, ``model``, ``scenario``, ``request``, ``environment`` and ``methods``, a
            list of mappings with at least a ``name``. Further fields are kept. The page shows ``notes`` (a list of
            sentences), ``left_out`` (counts by name) and ``command``, and it shows standard deviations, which have the
            suffix ``_sd`` (``seconds_sd``, ``utility_sd = {metric: sd}``, ...), as ±.

    Returns:
        A new report.

    Raises:
        ValueError: ``methods`` is missing, or a method has no name.
    """
    plain: dict[str, Any] = json_ready(report)
    methods = plain.get("methods")
    if not isinstance(methods, list) or not all(isinstance(m, dict) and m.get("name") for m in methods):
        raise ArgumentError("report", "hold 'methods', a list of mappings with a 'name'", f"{methods!r:.80}")
    filled = []
    for method in methods:
        entry = dict.fromkeys((*METHOD, "distance_to_retrain", "log")) | method
        entry["distance_to_retrain"] = dict.fromkeys(DISTANCE) | (entry["distance_to_retrain"] or {})
        filled.append(entry)
    return dict.fromkeys(TOP) | plain | {"methods": filled}


def write_report(
    report: Mapping[str, Any], folder: str | Path, plots_data: Mapping[str, Any] | None = None
) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``folder``; each file is replaced atomically.

    Args:
        report: The report; see :func:`complete`.
        folder: The folder, which is created if it does not exist.
        plots_data: Data of the figures; see :func:`graphunlearn.eval.report.plots.draw`.

    Returns:
        The paths of the two files.

    Raises:
        ValueError: See :func:`complete`.
    """
    report = complete(report)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        folder / "report.json": json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
        folder / "report.html": page(report, draw(report, plots_data)),
    }
    for path, text in files.items():
        write_atomic(path, text.encode())
    return folder / "report.json", folder / "report.html"


def aggregate(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the mean of the ``methods`` of several runs, with sample standard deviations under the suffix ``_sd``.

    Numbers are averaged over the runs that have them. Standard deviations within a run (its own ``_sd`` fields) are
    replaced by those between the runs. The logs and acceptances of all runs are kept in lists under ``runs``, and
    ``accepted`` says whether all corrections were.

    Intervals of attacks belong to single runs, and are ``None`` here. The share of the trace that is left has its range
    over the runs instead (``leak_least`` to ``leak_most``), and the number of runs in which the attack distinguishes
    the original (``runs_told``), of all runs with the attack (``runs``); the mean share is that of these runs.

    Args:
        runs: One list of methods per run (data seed or original seed), all with the same names.

    Returns:
        One mapping per method.

    Raises:
        ValueError: There is no run, or the runs have different methods.

    Example:
        >>> one, two = [{"name": "ifru", "seconds": 1.0}], [{"name": "ifru", "seconds": 3.0}]
        >>> aggregate([one, two])
        [{'name': 'ifru', 'seconds': 2.0, 'seconds_sd': 1.4142135623730951}]
    """
    names = {tuple(method["name"] for method in run) for run in runs}
    if len(names) != 1:
        raise ArgumentError("runs", "be one or more runs of the same methods", sorted(names))
    return [_aggregate_method(entries) for entries in zip(*runs)]


def _aggregate_method(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in dict.fromkeys(key for entry in entries for key in entry if not key.endswith("_sd")):
        values = [entry.get(key) for entry in entries]
        if key in ("name", "own_original"):
            out[key] = values[0]
        elif key == "verdict":
            out[key] = combine([value for value in values if value])
        elif key == "accepted":
            out[key] = None if None in values else all(values)
        elif key in ("log", "acceptance"):
            out[key] = {"runs": values} if key == "log" or any(values) else None
        elif key == "attacks":
            out |= _aggregate_attacks(values)
        else:
            mean, sd = _mean_and_sd(values)
            out |= {key: mean} | ({f"{key}_sd": sd} if sd is not None else {})
    return out


def _aggregate_attacks(runs: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return ``attacks`` and ``attacks_sd`` of several runs, without the intervals of single runs."""
    if len(runs) < 2:
        return {"attacks": runs[0]}
    names = dict.fromkeys(name for run in runs for name in run or {})
    means: dict[str, Any] = {}
    spreads: dict[str, Any] = {}
    for name in names:
        entries = [entry for run in runs if run and (entry := run.get(name))]
        if not entries:
            means[name] = None
            continue
        plain = [{k: v for k, v in entry.items() if k not in (*INTERVALS, *RANGES)} for entry in entries]
        means[name], spread = _mean_and_sd(plain)
        shares = [entry[key] for entry in entries for key in _ends(entry) if entry.get(key) is not None]
        counts = [
            (entry.get("runs_told", int(entry.get("leak_left") is not None)), entry.get("runs", 1)) for entry in entries
        ]
        means[name] |= dict.fromkeys(key for key in INTERVALS if any(key in entry for entry in entries))
        means[name] |= {"leak_least": min(shares, default=None), "leak_most": max(shares, default=None)}
        means[name] |= dict(zip(("runs_told", "runs"), map(sum, zip(*counts))))
        spreads |= {name: spread} if spread else {}
    return {"attacks": means} | ({"attacks_sd": spreads} if spreads else {})


def _ends(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields that hold the least and the largest share that is left, of one run or of several."""
    return ("leak_least", "leak_most") if "runs" in entry else ("leak_left",)


def _mean_and_sd(values: Sequence[Any]) -> tuple[Any, Any]:
    """Return mean and standard deviation of numbers, or of mappings of numbers by key, ignoring missing values."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, Mapping) for value in known):
        keys = dict.fromkeys(key for value in known for key in value)
        both = {key: _mean_and_sd([value.get(key) for value in known]) for key in keys}
        spread = {key: sd for key, (_, sd) in both.items() if sd is not None}
        return {key: mean for key, (mean, _) in both.items()}, spread or None
    known = [float(value) for value in known if math.isfinite(value)]
    return (statistics.fmean(known) if known else None), (statistics.stdev(known) if len(known) > 1 else None)


def terminal_table(report: Mapping[str, Any], width: int = 100) -> str:
    """Return the report as text for a terminal: the verdict in words, then tables with one line per method.

    Args:
        report: The report; see :func:`complete`.
        width: Width at which the words wrap. Tables are as wide as their columns.

    Raises:
        ValueError: See :func:`complete`.
    """
    report = complete(report)
    metric = primary_metric(report)
    attacks = deciding(report)
    utilities = list(dict.fromkeys(name for method in report["methods"] for name in method["utility"] or {}))[:1]
    head = ["method", "verdict", *(attack_of(report, name).short for name in attacks)]
    head += [*map(label, utilities), "time", "speedup"]
    rows = []
    for method in report["methods"]:
        faster, sd = method["speedup_vs_retrain"], method.get("utility_sd") or {}
        row = [method["name"], "yardstick" if method["name"] == "retrain" else judge(method).label]
        row += [_left(report, method, name) for name in attacks]
        row += [format_number((method["utility"] or {}).get(name), sd.get(name)) for name in utilities]
        row += [format_seconds(method["seconds"]), "–" if faster is None else f"{format_number(faster, digits=1)} ×"]
        rows.append(row)
    words = "\n".join(textwrap.fill(paragraph, width) for paragraph in summary(report))
    hint = (
        f"Below the names of attacks: what is left of the trace, with its {LEVEL:.0%} interval. 0% is what retrained "
        "models reveal, 100% is what the original reveals; below 0% is too much forgotten."
    )
    if len(report.get("runs") or ()) > 1:
        hint += " Over several runs, or several retrained models, it is the mean with the range."
    if any(NOTHING in cell for row in rows for cell in row):
        hint += " Where an attack does not tell the original from retrained models, nothing is measurable to forget."
    tables = [_aligned([head, *rows], left=2), *([textwrap.fill(hint, width)] if attacks else [])]
    tables += _second_table(report, metric)
    return "\n\n".join([headline(report), words, *tables])


def _left(report: Mapping[str, Any], method: Mapping[str, Any], name: str) -> str:
    """Return the share of the trace that an attack finds, with its interval."""
    left = left_of(report, method, name)
    if left is None:
        return "–" if (entry := entry_of(method, name)) is None else untold(report, entry)
    return share(left.share) + (f" ({between})" if (between := left.between) else "")


def _second_table(report: Mapping[str, Any], metric: str | None) -> list[str]:
    """Return a table of distances to retraining, of forgetting metrics and of the utility of both groups of users."""
    present = [n for n in _SECOND if any(n in (m["forgetting"] or {}) for m in report["methods"])]
    shown = [n for n in dict.fromkeys([metric, *present]) if n is not None]
    groups = [n for n in _GROUPS if any(n in (m["utility"] or {}) for m in report["methods"])]
    if not shown and not groups:
        return []
    unit = distance_unit(report)
    away = [
        where for where in ("forget", "test") if any(ratio_to_floor(m, where) is not None for m in report["methods"])
    ]
    rows = [["method", *(f"Δ{unit} {'forgotten' if where == 'forget' else where}" for where in away)]]
    rows[0] += [_SHORT.get(name) or label(name) for name in (*shown, *groups)]
    for method in report["methods"]:
        values = [((method["forgetting"] or {}).get(name) or {}).get("value") for name in shown]
        values += [(method["utility"] or {}).get(name) for name in groups]
        ratios = [ratio_to_floor(method, where) for where in away]
        far = ["–" if ratio is None else f"{ratio:.2f} ×" for ratio in ratios]
        rows.append([method["name"], *far, *map(format_number, values)])
    hints = [f"Δ{unit}: distance to retrained models, 1.00 × as far as two of those are apart."] if away else []
    hints += ["MI-BF and MI-NG grow with over-forgetting: right is what retraining gives, not more."] * (
        "mi_bf" in shown
    )
    return [_aligned(rows, left=1), *(["\n".join(hints)] if hints else [])]


def _aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Return rows as aligned columns, the first ``left`` of them flush left, with a line under the first row."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in (rows[0], ["─" * w for w in widths], *rows[1:])
    )
