"""Models at the default settings against what needs no training: popularity, item-kNN, EASE, Markov, session-kNN.

Every cell is one training. Its row is written as soon as it is done, and rows that are there are not computed again.
With ``--candidates``, other settings are trained as well and measured on the validation data alone; test data are used
for the defaults and the floors, which are not chosen on them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from typing import Any

import torch
from common import RESULTS, data, implicit, save

import graphunlearn as gu
from graphunlearn.datasets import load
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import CrossEntropy, FitSettings, build_model, default_settings, encode_prefixes, reset_parameters
from graphunlearn.nn.floors import default_floors, measure_floor

NAME = "floors"
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "interactions": [{"dim": 64}, {"dim": 64, "layers": 3}, {"dim": 64, "batch_size": 2048, "lr": 0.005}],
    "sessions": [{"patience": 6}, {"lr": 0.002, "patience": 5}],
}
SESSIONS = ("yoochoose-100k",)


def parts(name: str, split: int) -> tuple[Any, Any, Any]:
    """Return training, validation and test data; a test part that the data set comes with is always the same."""
    if name == "adm":
        train, validation, test = gu.InteractionGraph.from_file(data("adm", "adm8.csv")).random_split(
            [0.8, 0.1, 0.1], seed=split
        )
        return train, validation, test
    if name in SESSIONS:
        whole, test = load(name)
        train, validation = whole.time_split([0.9, 0.1])
        return train, validation.without_unseen(train), test.without_unseen(train)
    graph, test = implicit(name)
    return *graph.random_split([0.9, 0.1], seed=split), test


@torch.no_grad()
def measured(model: Any, train: Any, held_out: Any) -> dict[str, float]:
    """Return the metrics of a model."""
    if train.kind == "sessions":
        samples = CrossEntropy().samples(held_out)
        states, items, *_ = encode_prefixes(model, held_out, samples.ends)
        found = next_item_metrics(target_ranks(states, items, samples.target), ks=(20,))
        return {name: found[name] for name in ("recall@20", "mrr@20", "ndcg@20")}
    encoded = gu.encode(model, train)
    return Ranker(train, held_out, ks=(20,), metrics=("recall", "ndcg"))(encoded.queries, encoded.items)


def trained(model: str, train: Any, validation: Any, test: Any, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train a model and return its row."""
    sizes = {"dim": 64 if train.kind == "sessions" else 32, "layers": None}
    sizes |= {name: value for name, value in options.items() if name in sizes}
    settings: FitSettings = default_settings(train)
    changes = {name: value for name, value in options.items() if name not in sizes}
    built = build_model(model, train, **sizes)
    reset_parameters(built, seed)
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = gu.fit(built, train, validation=validation, settings=settings, seed=seed, progress=False, **changes)
    row = {"epochs": len(result.history), "best_epoch": result.best_epoch, "untrained": result.untrained}
    row |= {
        "popularity": result.popularity,
        "below_popularity": any("training ended" in str(w.message) for w in caught),
    }
    row |= {"cpu_seconds": time.process_time() - start, "validation": measured(built, train, validation)}
    return row if options else row | {"test": measured(built, train, test)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["adm", "lastfm", "ml-100k", "yoochoose-100k"])
    parser.add_argument("--models", nargs="+", default=["lightgcn", "gru4rec", "srgnn"])
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--candidates", type=int, nargs="?", const=9, default=0, help="also so many other settings, on validation data"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / f"{NAME}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["results"] if path.exists() else []
    done = {json.dumps([row[name] for name in ("dataset", "split", "model", "seed", "options")]) for row in rows}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        save(NAME, rows)
        held_out = {part: row[part]["recall@20"] for part in ("validation", "test") if part in row}
        print(row["dataset"], row["split"], row["model"], row["seed"], row["options"], held_out, flush=True)

    for name in args.data:
        for split in range(args.splits):
            train, validation, test = parts(name, split)
            cell = {"dataset": name, "split": split, "interactions": train.num_interactions}
            for floor in default_floors(train.kind):
                if json.dumps([name, split, floor.name, None, {}]) in done:
                    continue
                start = time.process_time()
                floor.fit(train)
                found = {
                    part: measure_floor(floor, train, graph)
                    for part, graph in (("validation", validation), ("test", test))
                }
                seconds = time.process_time() - start
                keep(cell | {"model": floor.name, "seed": None, "options": {}, "cpu_seconds": seconds} | found)
            wanted = [m for m in args.models if gu.nn.kind_of(m) == train.kind]
            for options in ({}, *CANDIDATES[train.kind][: args.candidates]):
                for model in wanted:
                    for seed in range(args.seeds):
                        if json.dumps([name, split, model, seed, options]) in done:
                            continue
                        row = cell | {"model": model, "seed": seed, "options": options}
                        keep(row | trained(model, train, validation, test, seed, options))


if __name__ == "__main__":
    main()
