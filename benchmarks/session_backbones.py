"""Test Recall@20 and MRR@20 of the session recommenders on Yoochoose-100k and Diginetica, beside published figures.

The last tenth of the training sessions decides when to stop. Every prefix of the test sessions is judged against the
whole catalogue; with and without consecutive clicks on one item, which are easy to foresee.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import torch
from cau import sessions
from common import RESULTS, data, save

import graphunlearn as gu
from graphunlearn.eval.scenarios.cases import cut_by_time, without_unseen_items
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.nn import build_model, default_settings, reset_parameters
from graphunlearn.nn.floors.measuring import measure_floor
from graphunlearn.nn.floors.neighbours import SessionKNN
from graphunlearn.nn.prefixes import encode_prefixes

MODELS = ("srgnn", "gru4rec", "sasrec", "narm", "bert4rec", "gcegnn")
REPEATS = ("kept", "collapsed")
WRITTEN: list[dict[str, Any]] = []

PUBLISHED = {
    "figures": [
        {"model": "srgnn", "data": "yoochoose 1/64", "recall@20": 0.7057, "mrr@20": 0.3094},
        {"model": "gru4rec", "data": "yoochoose 1/64", "recall@20": 0.6064, "mrr@20": 0.2289},
        {"model": "srgnn", "data": "diginetica", "recall@20": 0.5073, "mrr@20": 0.1759},
        {"model": "gru4rec", "data": "diginetica", "recall@20": 0.2945, "mrr@20": 0.0833},
    ],
    "source": "Wu et al., Session-based Recommendation with Graph Neural Networks, AAAI 2019, table 2",
    "difference": "Yoochoose 1/64 are the last 1/64 of the prefixes of half a year, and the test is the day after; "
    "yoochoose-100k is a week of April 2014, far fewer prefixes, and the day after. Diginetica is the split of SR-GNN; "
    "one run, with the settings of the package, stopped by the last tenth of the training sessions.",
}


def whole(name: str) -> tuple[gu.SessionGraph, gu.SessionGraph]:
    """Return all training sessions and the test sessions, in one numbering."""
    graph = gu.SessionGraph.from_file(data(name, "train.tsv.gz"))
    return graph, gu.SessionGraph.from_file(data(name, "test.tsv.gz"), like=graph)


@torch.no_grad()
def judge(model: torch.nn.Module, test: gu.SessionGraph) -> dict[str, float]:
    """Return the metrics over every prefix."""
    samples = gu.CrossEntropy().samples(test)
    encoded = encode_prefixes(model, test, samples.ends)
    return next_item_metrics(target_ranks(encoded.queries, encoded.items, samples.target), ks=(20,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["yoochoose-100k", "diginetica"], default="yoochoose-100k")
    parser.add_argument("--epochs", type=int, help="most epochs")
    parser.add_argument("--models", nargs="+", default=[*MODELS, "session-knn"])
    parser.add_argument("--repeats", nargs="+", choices=REPEATS, default=list(REPEATS))
    parser.add_argument("--add", action="store_true", help="to the rows of other models in the results")
    options = parser.parse_args()
    for repeats in options.repeats:
        read = sessions if options.data == "yoochoose-100k" else whole
        graph, test = (part.collapse() if repeats == "collapsed" else part for part in read(options.data))
        train, validation, test = cut_by_time(graph, test, (0.9, 0.1, 0.0))
        validation, test, _ = without_unseen_items(train, validation, test, 0)
        for name in options.models:
            row: dict[str, Any] = {"data": options.data, "model": name, "repeats": repeats, "clicks": train.num_clicks}
            start = time.process_time()
            if name == "session-knn":
                found = measure_floor(SessionKNN().fit(train), train, test)
            else:
                model = build_model(name, train)
                reset_parameters(model, 0)
                settings = default_settings(train)
                settings = settings if options.epochs is None else replace(settings, epochs=options.epochs)
                fitted = gu.fit(model, train, validation=validation, settings=settings, progress=False)
                row |= {"best_epoch": fitted.best_epoch, "seconds": fitted.seconds}
                row["cpu_seconds"] = time.process_time() - start
                found = judge(model, test)
            row |= {key: found[key] for key in ("recall@20", "mrr@20")}
            print(row, flush=True)
            keep(row, options.add)


def keep(row: dict[str, Any], add: bool) -> None:
    """Write a row to the results, in the place of an earlier one of the same model."""
    path = RESULTS / "session_backbones.json"
    held = json.loads(path.read_text())["results"]["rows"] if path.exists() and (add or WRITTEN) else []
    WRITTEN.append(row)
    same = ("data", "model", "repeats")
    held = [{"data": "yoochoose-100k"} | other for other in held]
    rows = [other for other in held if any(other[key] != row[key] for key in same)]
    save("session_backbones", {"rows": [*rows, row], "published": PUBLISHED})


if __name__ == "__main__":
    main()
