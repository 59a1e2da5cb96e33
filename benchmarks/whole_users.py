"""What forgotten users leave in the item embeddings: the fold-in attack after every operator, against retraining.

For every data set and scenario, the originals and the retrained models are trained once (or read from the cache). The
share of the leak that is left is 0 as retrained and 1 as the original; the figures are means over the originals. The
fit of the items of emptied users was settled on the users and the most active users of MovieLens-100K; one choice, the
projection, was made with the users of Last.fm in view as well. The most active users of Last.fm and adm were not looked
at before.

    python benchmarks/whole_users.py --data ml-100k lastfm adm --cache /tmp/models
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, data, implicit, save

import graphunlearn as gu
from graphunlearn import operators
from graphunlearn.eval import scenarios
from graphunlearn.eval.attacks.fold_in import FoldIn
from graphunlearn.eval.cache import retrained
from graphunlearn.eval.comparison import RETRAINED, _Trainer
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import default_objective, default_settings
from graphunlearn.operators import Retrain

SIZES = {"ml-100k": (32, 2), "lastfm": (64, 3), "adm": (32, 2)}
PATIENCE = {"adm": 40}  # training ends in the first plateau otherwise


def loaded(name: str) -> tuple[gu.InteractionGraph, gu.InteractionGraph | None]:
    """Return the interactions of a data set, and its test interactions if it names them."""
    if name == "adm":
        return gu.InteractionGraph.from_file(data("adm", "adm8.csv")), None
    return implicit(name)


def cell(name: str, which: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one data set and scenario."""
    graph, test = loaded(name)
    if which == "users":
        case = scenarios.removal(graph, "user", seed=options.seed, test=test)
    else:
        made = {"core-users": scenarios.core_users, "edge-users": scenarios.edge_users}[which]
        case = made(graph, seed=options.seed, test=test)
    dim, layers = SIZES[name]
    loss, base = default_objective(case.train), default_settings(case.train)
    base = replace(base, patience=PATIENCE.get(name, base.patience))
    cache = None if options.cache is None else Path(options.cache)
    train, request = case.train, case.request
    retained, _ = train.split(request)
    attack = FoldIn(train, retained, [case.validation, case.test])
    held = case.test.without_emptied(train, retained)
    ranker = Ranker(retained, held, ks=(20,))

    def told(model: Any, where: gu.InteractionGraph) -> tuple[float, float]:
        encoded = gu.encode(model.eval(), where)
        evidence = attack(encoded)
        assert evidence is not None
        return evidence.value, ranker(encoded.queries, encoded.items)["recall@20"]

    trainer = _Trainer(options.model, dim, None if options.model == "mf" else layers, loss, base, "cpu", cache)
    originals = [
        trainer("original", train, case.validation, seed=100 * options.seed + number)
        for number in range(options.originals)
    ]
    references = []
    for k in range(options.references):
        settings = replace(base, seed=100 * options.seed + RETRAINED + k)
        method = Retrain(objective=loss, validation=case.validation, settings=settings)
        result = retrained(method, copy.deepcopy(originals[0]), train, request, cache)
        references.append(told(result.model, result.graph))
    floor = [statistics.fmean(column) for column in zip(*references)]
    spread = [statistics.stdev(column) for column in zip(*references)]
    runs = []
    for number in range(options.originals):
        original = originals[number]
        leak, recall = told(original, train)
        run: dict[str, Any] = {"original": {"value": leak, "recall@20": recall}}
        for label, method in methods(options).items():
            method = method.filled(objective=loss, validation=case.validation, settings=base)
            if method.needs_preparation:
                method.prepare(original, train, progress=False)
            result = method.unlearn(original, train, request)
            value, recall = told(result.model, retained)
            left = (value - floor[0]) / (leak - floor[0])
            run[label] = {"value": value, "leak_left": left, "recall@20": recall, "seconds": result.seconds}
            run[label] |= {"refit": result.log.get("refit"), "accepted": result.accepted}
        runs.append(run)
    labels = [label for label in runs[0] if label != "original"]
    means = {label: statistics.fmean(run[label]["leak_left"] for run in runs) for label in labels}
    recalls = {label: statistics.fmean(run[label]["recall@20"] for run in runs) for label in labels}
    return {
        "request": len(request),
        "references": len(references),
        "retrained": {"value": floor[0], "sd": spread[0], "recall@20": floor[1], "recall@20_sd": spread[1]},
        "leak_left": means,
        "recall@20": recalls,
        "runs": runs,
    }


def methods(options: argparse.Namespace) -> dict[str, Any]:
    """Return the methods by their label."""
    made: dict[str, Any] = {name: operators.registry[name]() for name in options.methods}
    if "ifru" in made:
        made["ifru, no refit"] = operators.registry["ifru"](refit=False)
    return made


def main() -> None:
    """Run all cells that are not finished, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["ml-100k", "lastfm", "adm"])
    parser.add_argument("--model", default="lightgcn", choices=["lightgcn", "mf"])
    parser.add_argument("--scenarios", nargs="+", default=["users", "core-users"])
    parser.add_argument("--methods", nargs="+", default=["unlink-redraw", "unlearnrec", "calibrate", "ifru"])
    parser.add_argument("--originals", type=int, default=2)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache")
    parser.add_argument("--out", default="whole_users")
    options = parser.parse_args()
    path = RESULTS / f"{options.out}.json"
    cells = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in options.data:
        for which in options.scenarios:
            model = "" if options.model == "lightgcn" else f" {options.model}"
            key = f"{name}{model} {which} seed {options.seed}"
            if key in cells:
                continue
            cells[key] = cell(name, which, options)
            save(options.out, cells)
            print(key, flush=True)
    for key, found in cells.items():
        print(
            f"\n{key}: fold-in of retrained {found['retrained']['value']:.4f} ± {found['retrained']['sd']:.4f}, "
            f"Recall@20 {found['retrained']['recall@20']:.4f} ± {found['retrained']['recall@20_sd']:.4f}"
        )
        for label, left in found["leak_left"].items():
            print(f"  {label:24} leak left {left:6.3f}  Recall@20 {found['recall@20'][label]:.4f}")


if __name__ == "__main__":
    main()
