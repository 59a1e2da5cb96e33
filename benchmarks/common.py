"""What every benchmark shares: real data from a folder, and results written with machine, versions and command."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import graphunlearn as gu
from graphunlearn.eval import environment
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import build_model, reset_parameters

MEASURED = ("membership_auroc", "ks_statistic", "mean_probability", "exposure@20", "mi_bf", "mi_ng")
GROUPS = ("recall@20_affected", "recall@20_unaffected")
RESULTS = Path(__file__).parent / "results"


def data(*parts: str) -> Path:
    """Return a file below the folder that GRAPHUNLEARN_DATA names."""
    root = os.environ.get("GRAPHUNLEARN_DATA")
    if not root:
        sys.exit("set GRAPHUNLEARN_DATA to the folder that holds the data sets (see datasets/README.md)")
    return Path(root, *parts)


def implicit(name: str) -> tuple[gu.InteractionGraph, gu.InteractionGraph]:
    """Return training and test interactions of a data set, in one numbering."""
    files = {
        "lastfm": (data("lastfm", "data1.txt"), data("lastfm", "test1.txt")),
        "ml-100k": (data("cure4rec", "ml-100k", "train.csv"), data("cure4rec", "ml-100k", "test.csv")),
        "ml-1m": (data("ml-1m", "train.csv.gz"), data("ml-1m", "test.csv")),
        "gowalla": (data("gowalla", "train.txt.gz"), data("gowalla", "test.txt.gz")),
    }
    train, test = files[name]
    graph = gu.InteractionGraph.from_file(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # test rows that training never saw are counted in num_left_out
        return graph, gu.InteractionGraph.from_file(test, like=graph)


def rated(name: str) -> gu.InteractionGraph:
    """Return the interactions of MovieLens with ratings; those of ML-1M are a part of 33,488."""
    if name == "ml-100k":
        return gu.InteractionGraph.from_file(data("ml-100k", "ml-100k.inter"))
    return gu.InteractionGraph.from_file(data("cure4rec", name, "unlearn_set", "edge_data_20%.csv"))


def trained(graph: gu.InteractionGraph, validation: gu.InteractionGraph, layers: int, seed: int) -> Any:
    """Return a LightGCN and the seconds it took."""
    model = build_model("lightgcn", graph, dim=64, layers=layers)
    reset_parameters(model, seed)
    result = gu.fit(model, graph, validation=validation, settings=gu.nn.FitSettings(seed=seed), progress=False)
    return model, result.seconds


@torch.no_grad()
def measure(model: Any, graph: gu.InteractionGraph, gone: Any, judged: Any, ranker: Ranker) -> tuple[Any, Any, float]:
    """Return the probabilities of what is forgotten and of the test pairs, and Recall@20."""
    encoded = gu.encode(model, graph)
    p = [torch.sigmoid(gu.score(encoded, pairs)) for pairs in (gone, judged.pairs)]
    return p[0], p[1], ranker(encoded.queries, encoded.items)["recall@20"]


def median_seconds(call: Callable[[], Any], repeats: int = 7) -> float:
    """Return the median wall time of ``call``, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def resumed(name: str, keys: list[str], found: Callable[[str], Any]) -> None:
    """Measure one data set after another, and write each beside the results of those that are not named."""
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for key in keys:
        results[key] = found(key)
        save(name, results)


def save(name: str, results: Any, device: str = "cpu") -> None:
    """Write ``results/NAME.json`` with what is needed to judge and to repeat it."""
    RESULTS.mkdir(exist_ok=True)
    script = Path(sys.argv[0]).name
    command = " ".join(["python", f"benchmarks/{script}", *map(shlex.quote, sys.argv[1:])])
    payload = {"command": command, "environment": environment(device), "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(payload, indent=1) + "\n")


def summary(report: dict[str, Any], forgetting: str) -> list[dict[str, Any]]:
    """Return one row per method of an audit: the figures that the README quotes."""
    rows = []
    for method in report["methods"]:
        distance, measured = method["distance_to_retrain"], method["forgetting"] or {}
        entry = measured.get(forgetting) or {}
        more = {name: (measured.get(name) or {}).get("value") for name in MEASURED if name in measured}
        for name, of in (("ks_p_value", "p_value"), ("ks_floor", "floor")):
            more[name] = (measured.get("ks_statistic") or {}).get(of)
        for name in GROUPS:
            more |= {name: (method["utility"] or {})[name]} if name in (method["utility"] or {}) else {}
        rows.append(
            {
                "method": method["name"],
                "seconds": method["seconds"],
                "prepare_seconds": method.get("prepare_seconds"),
                "speedup_vs_retrain": method["speedup_vs_retrain"],
                "peak_memory_mb": method["peak_memory_mb"],
                "utility": method["utility"],
                "utility_sd": method.get("utility_sd"),
                forgetting: entry.get("value"),
                "gap_closed": entry.get("gap_closed"),
                "gap_closed_sd": ((method.get("forgetting_sd") or {}).get(forgetting) or {}).get("gap_closed"),
                "dp_forget_over_floor": _ratio(distance, "forget"),
                "dp_test_over_floor": _ratio(distance, "test"),
                "dp_forget": distance["forget"],
                "noise_floor_forget": distance["noise_floor_forget"],
                "dp_test": distance["test"],
                "noise_floor_test": distance["noise_floor_test"],
            }
            | {name: value for name, value in more.items() if name != forgetting}
        )
    return rows


def _ratio(distance: dict[str, Any], where: str) -> float | None:
    floor = distance[f"noise_floor_{where}"]
    return distance[where] / floor if floor else None


def show(rows: list[dict[str, Any]], forgetting: str, utility: str) -> None:
    """Print the rows as a table."""
    columns = ("method", "seconds", "speedup", utility, forgetting, "gap", "dF", "dT")
    widths = (24, 9, 8, 10, 18, 6, 7, 6)
    print(" ".join(name.rjust(width) for name, width in zip(columns, widths)))
    for r in rows:
        cells = [r["seconds"], r["speedup_vs_retrain"], r["utility"].get(utility), r[forgetting], r["gap_closed"]]
        cells += [r["dp_forget_over_floor"], r["dp_test_over_floor"]]
        text = [r["method"], *("–" if c is None else f"{c:.3f}" for c in cells)]
        print(" ".join(cell.rjust(width) for cell, width in zip(text, widths)), flush=True)
