"""The page of benchmarks: every committed results file with machine, versions, command and main figures."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = BENCHMARKS / "results"

COLUMNS = {
    "method": "method",
    "dataset": "data",
    "data": "data",
    "model": "model",
    "repeats": "repeats",
    "layers": "layers",
    "options": "options",
    "scenario": "scenario",
    "verdict": "verdicts",
    "left_fold_in": "left: fold-in",
    "left_target": "left: promoted items",
    "left_lira": "left: LiRA",
    "left_rmia": "left: RMIA",
    "left_edge_recovery_forgotten": "left: edge recovery",
    "left_click": "left: clicks",
    "left_transition": "left: transitions",
    "distance_forget": "Δp forgotten",
    "distance_test": "Δp test",
    "requests": "requests",
    "forgotten": "forgotten",
    "interactions": "interactions",
    "split": "split",
    "dp_forget_over_floor": "Δp forgotten",
    "dp_test_over_floor": "Δp test",
    "dlogp_forget_over_floor": "Δ log p forgotten",
    "dlogp_test_over_floor": "Δ log p test",
    "gap_closed": "gap closed",
    "gap_closed.hit_u@10": "gap closed, Hit_u@10",
    "gap_closed.log_p_forgotten": "gap closed, log p",
    "gap_closed.log_p_deleted_transition": "gap closed, transition",
    "membership_auroc": "membership AUROC",
    "ks_statistic": "KS",
    "ks": "KS",
    "ks_floor": "KS floor",
    "recall@20": "Recall@20",
    "validation.recall@20": "Recall@20, validation",
    "test.recall@20": "Recall@20, test",
    "utility.recall@20": "Recall@20",
    "retrain_recall@20": "Recall@20, retrained",
    "mrr@20": "MRR@20",
    "utility.mrr@20": "MRR@20",
    "utility.auroc": "AUROC",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
    "seconds_in_all": "seconds in all",
    "prepare_seconds": "preparing, s",
    "retrain_seconds": "retraining, s",
    "speedup_vs_retrain": "× faster",
    "peak_memory_mb": "peak MB",
    "sensitive@10": "sensitive@10",
    "cpu_seconds_in_all": "CPU seconds in all",
    "drift": "drift",
    "fit_cpu_seconds": "fitting, CPU s",
    "forget_cpu_seconds": "a request, CPU s",
    "refit_cpu_seconds": "fitting anew, CPU s",
    "times_faster": "× faster",
    "difference": "difference",
    "best_epoch": "best epoch",
}
"""The figures of a row of a method or model that the page shows, and what they are called there."""
ASIDE = {"runs", "cells", "logs", "log", "steps", "settings", "left_out", "environment", "gap_closed_by_data_seed"}
"""What the files hold besides, for whoever repeats a measurement."""
LABELS = ("dataset", "model", "scenario", "level", "share", "shots", "lane")
"""What tells one case of a file from another."""
INTRODUCTION = """# Benchmarks

Made from the files in `benchmarks/results`, which hold more than is shown here: standard deviations, logs, single runs.
Every section names the command, the machine and the versions. Seconds depend on the machine and on what else ran there;
ratios depend on them less.

Δp is the mean absolute difference of probabilities to retrained models, in units of the same difference between two
retrained models; 1.00 is as close as another retraining. Δ log p is the same of log probabilities. A gap closed of 1 is
retraining, of less forgets too little, of more too much. {doc}`../concepts` explains them."""


def page() -> str:
    """Return the page."""
    made: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: (maker(path), path.stem)):
        made.setdefault(maker(path), []).append(path)
    parts = [INTRODUCTION]
    for script, paths in made.items():
        alone = paths[0].stem == script and len(paths) == 1
        parts += [f"(result-{script})=" if alone else "", f"## {script}", described(script)]
        for path in paths:
            parts += ["" if alone else f"(result-{path.stem})=\n### {path.stem}", *section(path)]
    return "\n\n".join(part for part in parts if part) + "\n"


def maker(path: Path) -> str:
    """Return the name of the script that wrote a results file."""
    found = re.search(r"benchmarks/(\w+)\.py", read(path)["command"])
    return found[1] if found else path.stem


def described(script: str) -> str:
    """Return what a script says about itself."""
    path = BENCHMARKS / f"{script}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") if path.is_file() else ""


def read(path: Path) -> dict[str, Any]:
    """Return what a file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def section(path: Path) -> list[str]:
    """Return the section of a results file."""
    content = read(path)
    on = content["environment"]
    machine = (
        f"{on['cpu']}, {on['cpu_count']} cores, {on['memory_gb']:.0f} GB, {on['device']}, threads: {on['threads']}; "
        f"Python {on['python']}, torch {on['torch']}, PyG {on['torch_geometric']}, numpy {on['numpy']}"
    )
    commands = content["command"].split(" ; ")
    parts = ["\n".join(["```text", *commands, "```"])]
    parts += [f"{machine}. All figures: {{download}}`{path.name} <../../benchmarks/results/{path.name}>`."]
    parts += [str(content[key]) for key in ("what", "note") if key in content]
    rest = {key: value for key, value in content.items() if key not in ("command", "environment", "what", "note")}
    parts += show(rest.pop("results", {}), "") + (show(rest, "") if rest else [])
    if path.with_suffix(".png").is_file():
        parts.append(f"![{path.stem}](pictures/{path.stem}.png)")
    return parts


def show(value: Any, title: str) -> list[str]:
    """Return any result as titled tables."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        if "rows" in value[0]:
            return [part for case in value for part in show(case["rows"], label(case))]
        return [f"**{title}**" if title else "", rows_table(value)]
    if isinstance(value, list):
        return [f"**{title}**" if title else "", "\n".join(f"- {text(entry)}" for entry in value)] if value else []
    if not isinstance(value, dict):
        return [f"{title}: {text(value)}"]
    if "rows" in value and "model" in value:
        return show(value["rows"], label(value) or title) + show(value.get("notes", []), "")
    plain = {key: inner for key, inner in value.items() if not isinstance(inner, (dict, list)) and key not in ASIDE}
    parts = [f"**{title}**" if title and plain else ""]
    parts += ["\n".join(f"- {name(key)}: {text(inner)}" for key, inner in plain.items())]
    for key, inner in value.items():
        if key not in ASIDE and isinstance(inner, (dict, list)) and inner:
            parts += show(inner, ", ".join(filter(None, (title, name(key)))))
    return parts


def label(case: dict[str, Any]) -> str:
    """Return what tells this case from the others of its file."""
    parts = []
    for key in LABELS:
        value = case.get(key)
        value = value.get("name") if isinstance(value, dict) else value
        parts += [] if value is None else [f"{value:.0%}" if key == "share" else str(value)]
    return ", ".join(dict.fromkeys(parts))


def rows_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of several rows: their main figures, or all where none of these is known."""
    flat = [flattened(row) for row in rows]
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in flat)]
    if not any(key in ("method", "model") for key in keys):
        keys = list(dict.fromkeys(key for row in flat for key in row))
    return table([name(key) for key in keys], [[text(row.get(key)) for key in keys] for row in flat])


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the entries of its inner mappings beside its own."""
    out = {}
    for key, value in row.items():
        if isinstance(value, dict):
            out |= {f"{key}.{inner}": entry for inner, entry in value.items() if not isinstance(entry, (dict, list))}
        elif not isinstance(value, list):
            out[key] = value
    return out


def name(key: str) -> str:
    """Return the name of a figure as the page writes it."""
    return COLUMNS.get(key, key.replace("_", " ").replace(".", ", "))


def text(value: Any) -> str:
    """Return a figure, rounded to what may count.

    Example:
        >>> [text(x) for x in (None, True, 12345, 1234.5, 0.98765, 8.765e-05, "ifru")]
        ['–', 'yes', '12,345', '1,234', '0.988', '8.77e-05', 'ifru']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")
        return shown.replace("-", "−", 1 if shown.startswith("-") else 0)
    return str(value).replace("|", "\\|")


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; nothing where it has no rows. Figures are not parted from their units.

    Example:
        >>> print(table(["a"], [["1.2 ×"]]).replace(chr(160), "_"))
        | a |
        | --- |
        | 1.2_× |
    """
    if not rows:
        return ""
    lines = [headings, ["---"] * len(headings), *rows]
    return unparted("\n".join(f"| {' | '.join(line)} |" for line in lines))


def unparted(table: str) -> str:
    """Return a table in which no line ends between a figure and its unit."""
    return re.sub(r"(?<=\d) (?=[×%±]|ms\b|MB\b)|(?<=±) ", "\N{NO-BREAK SPACE}", table)
