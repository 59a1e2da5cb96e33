"""CURE4Rec: 5 % of the users forgotten (the most active, random ones, the least active), beside the printed table.

For every data set, model, group and seed: an original, a retrained model, the sharded methods with their own originals,
and the other operators; NDCG@20 with the full ideal, recall@20 (printed as HR@20) and A-IGF on the remaining users.
Training stops early by a tenth of the training interactions, never by the test. Finished methods are kept in the
results and skipped in the next run, so several processes may fill different cells.

    python benchmarks/cure4rec.py --data ml-100k --cache /tmp/models
    python benchmarks/cure4rec.py --data ml-1m --models bpr --methods retrain sisa ifru --cache /tmp/models
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, data, implicit, save

import graphunlearn as gu
from graphunlearn import operators
from graphunlearn.eval import scenarios
from graphunlearn.eval.cache import retrained
from graphunlearn.eval.comparison import RETRAINED, _Trainer
from graphunlearn.metrics import Ranker, activity_gap
from graphunlearn.nn import FitSettings

GROUPS = ("core", "random", "edge")
SHARDED = ("sisa", "receraser", "ultrare")
METHODS = ("retrain", *SHARDED, "scif", "ifru", "calibrate", "unlearnrec")
SETTINGS = FitSettings(epochs=50, batch_size=1024, lr=0.005, patience=6)
# Set after the test figures of an earlier run, whose original of LightGCN was at 90 to 95 % of its retrained model.
LONGER: dict[str, dict[str, Any]] = {"lightgcn": {"epochs": 200, "patience": 20}}
MODELS: dict[str, tuple[str, int | None, Any]] = {
    "wmf": ("mf", None, gu.SampledBCE(negatives=1)),  # printed as WMF: sampled cross entropy, one negative each
    "bpr": ("mf", None, gu.BPR(negatives=1)),
    "lightgcn": ("lightgcn", 3, gu.BPR(negatives=1)),
}
# With batches of 1,024, training one LightGCN on ML-1M takes most of an hour.
WIDER = {("ml-1m", "lightgcn"): {"batch_size": 8192}}
DIM, SHARDS = 32, 10
FILES = {("ml-100k", "core"), ("ml-100k", "edge"), ("ml-1m", "edge")}
"""The requests of which the benchmark offers the users as a file."""


def printed() -> dict[str, Any]:
    """Return the printed table: NDCG@20 and HR@20 for every group, by data set, model and method."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("cure4rec_printed.json").read_text())
    return found


def case_of(name: str, group: Any, seed: int) -> tuple[Any, gu.InteractionGraph]:
    """Return the scenario, and all training interactions."""
    graph, test = implicit(name)
    users = None
    if (name, group) in FILES:
        rows = data("cure4rec", name, "unlearn_set", f"{group}_data_5%.csv").read_text().splitlines()[1:]
        users = dict.fromkeys(row.split(",")[0] for row in rows)
    return scenarios.cure4rec(graph, test, group, users=users, seed=42 + seed), graph


class Measure:
    """The figures of a model on the remaining users."""

    def __init__(self, case: Any, graph: gu.InteractionGraph) -> None:
        self.retained, _ = case.train.split(case.request)
        self.seen, _ = graph.split(case.request)
        self.test = case.test.without_emptied(case.train, self.retained)
        self.ranker = Ranker(self.seen, self.test, (20,), ("ndcg_full", "recall"))

    @torch.no_grad()
    def __call__(self, model: Any, where: gu.InteractionGraph) -> dict[str, float]:
        encoded = gu.encode(model.eval(), where)
        rows = encoded.queries, encoded.items
        found = self.ranker(*rows)
        gap = activity_gap(*rows, self.seen, self.test)
        return {"ndcg": found["ndcg_full@20"], "recall": found["recall@20"], "a_igf": gap}


def rand_index(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the adjusted Rand index of two partitions: 1 if they are equal, 0 on average by chance."""
    table = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    table.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)

    def pairs(count: torch.Tensor) -> float:
        return float((count * (count - 1)).sum() / 2)

    both, one, two, total = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), len(a) * (len(a) - 1) / 2
    return (both - one * two / total) / ((one + two) / 2 - one * two / total)


def partition(method: Any, made: Any, original: Any, again: Any, case: Any, retained: Any) -> dict[str, float]:
    """Return how far the partition follows from the forgotten users: its agreement with one computed without them."""
    kept = torch.bincount(retained.pairs[0], minlength=retained.num_users) > 0
    ours, seed = made.members[kept], made.seed
    return {
        "without the forgotten users": rand_index(ours, method._partition(again, retained, seed)[kept]),
        "with another seed": rand_index(ours, method._partition(original, case.train, seed + 1)[kept]),
    }


def one(name: str, key: tuple[str, str, str, int], shared: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return the figures of one method in one cell."""
    case, measure, original, settings, loss = (shared[x] for x in ("case", "measure", "original", "settings", "loss"))
    options = {"num_shards": SHARDS} if name in SHARDED else {}
    if name == "retrain":
        options = {"settings": replace(settings, seed=100 * key[3] + RETRAINED)}
    method = operators.registry[name](**options)
    method = method.filled(objective=loss, validation=case.validation, settings=settings)
    found: dict[str, Any] = {}
    if name == "retrain":
        result = retrained(method, copy.deepcopy(original), case.train, case.request, cache)
        shared["retrained"] = result.model
    else:
        if method.needs_preparation:
            path = cache / f"cure4rec-{key[0]}-{key[1]}-{key[3]}-{name}.safetensors"
            try:
                method.load(path, like=original)
                method._check_prepared(original, case.train)
            except (OSError, ValueError):
                start = time.process_time()
                method.prepare(original, case.train, progress=False)
                found["prepare_cpu_seconds"] = time.process_time() - start
                method.save(path)
        result = method.unlearn(original, case.train, case.request)
    if name in SHARDED:
        found["original"] = measure(result.original, case.train)
        found["retrained_shards"] = len(result.log["retrained"])
        if name != "sisa" and key[2] == "core" and "retrained" in shared:
            again = shared["retrained"]
            found["partition"] = partition(method, result.original, original, again, case, measure.retained)
    accepted = {"accepted": result.accepted} if method.judged else {}
    return found | accepted | measure(result.model, result.graph) | {"cpu_seconds": result.cpu_seconds}


def cell(key: tuple[str, str, str, int], wanted: list[str], known: dict[str, Any], cache: Path, out: str) -> None:
    """Run the methods of a cell that are not finished, and save after each."""
    name, model, group, seed = key
    label = f"{name} {model} {group} seed {seed}"
    left = [m for m in wanted if m not in known.get(label, {}).get("methods", {})]
    if not left:
        return
    kind, layers, loss = MODELS[model]
    case, graph = case_of(name, group, seed)
    given = LONGER.get(model, {}) | WIDER.get((name, model), {})
    measure, settings = Measure(case, graph), replace(SETTINGS, seed=100 * seed, **given)
    trainer = _Trainer(kind, DIM, layers, loss, settings, "cpu", cache)
    original = trainer("original", case.train, case.validation, seed=100 * seed)
    shared = {"case": case, "measure": measure, "original": original, "settings": settings, "loss": loss}
    mine = known.get(label) or {"users": len(case.request), "methods": {"original": measure(original, case.train)}}
    # retraining that is known is needed again only to compare partitions
    divided = group == "core" and {"receraser", "ultrare"} & {*left}
    again = "retrain" not in left and (divided or "ndcg" not in mine["methods"].get("retrain", {}))
    for method in ["retrain"] * bool(again) + left:
        try:
            mine["methods"][method] = one(method, key, shared, cache)
        except (ValueError, RuntimeError) as error:  # a method that fails is reported as such, and the others go on
            mine["methods"][method] = {"failed": f"{type(error).__name__}: {error}"}
        known = stored(out)  # another process may have saved more
        mine["methods"] = known.get(label, {}).get("methods", {}) | mine["methods"]
        known[label] = mine
        save(out, {"rows": rows(known), "cells": known})
        told = {k: round(v, 4) for k, v in mine["methods"][method].items() if isinstance(v, float)}
        print(label, method, told or mine["methods"][method], flush=True)


def stored(out: str) -> dict[str, Any]:
    """Return the cells that are in the results."""
    path = RESULTS / f"{out}.json"
    return json.loads(path.read_text())["results"]["cells"] if path.exists() else {}


def rows(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per data set, model, group and method: means over the seeds, beside what is printed."""
    theirs, grouped = printed()["cells"], {}
    for label, found in sorted(cells.items()):
        name, model, group = label.split()[:3]
        grouped.setdefault((name, model, group), []).append(found["methods"])
    table = []
    for (name, model, group), runs in grouped.items():
        for method in ("original", *METHODS):
            done = [run[method] for run in runs if "ndcg" in run.get(method, {}) and "ndcg" in run.get("retrain", {})]
            failed = [run[method]["failed"] for run in runs if "failed" in run.get(method, {})]
            row: dict[str, Any] = {"data": name, "model": model, "group": group, "method": method, "seeds": len(done)}
            if failed and not done:
                row["failed"] = failed[0]
            if done:
                again = [run["retrain"] for run in runs if "ndcg" in run.get(method, {}) and "ndcg" in run["retrain"]]
                for figure in ("ndcg", "recall", "a_igf"):
                    row[figure] = sum(run[figure] for run in done) / len(done)
                row["share"] = row["ndcg"] / (sum(run["ndcg"] for run in again) / len(again))
            printed_rows = theirs.get(name, {}).get(model, {})
            if method in printed_rows:
                at = GROUPS.index(group)
                row["printed_ndcg"], row["printed_recall"] = printed_rows[method][at]
                row["printed_share"] = row["printed_ndcg"] / printed_rows["retrain"][at][0]
            if done or failed:
                table.append(row)
    return table


def main() -> None:
    """Run all cells that are not finished, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["ml-100k", "ml-1m"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--groups", nargs="+", default=list(GROUPS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cache", default="models", type=Path)
    parser.add_argument("--out", default="cure4rec")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of shards that hardly learn, and of requests that are large
    for seed, name, model, group in product(options.seeds, options.data, options.models, options.groups):
        cell((name, model, group, seed), options.methods, stored(options.out), options.cache, options.out)
    for row in rows(stored(options.out)):
        shown = " ".join(f"{row.get(key, float('nan')):8.4f}" for key in ("ndcg", "recall", "share", "printed_share"))
        print(f"{row['data']:8} {row['model']:9} {row['group']:7} {row['method']:11} {shown}")


if __name__ == "__main__":
    main()
