"""Test Recall@20 and NDCG@20 of every backbone on public splits, beside figures published for the same split.

A tenth of the training interactions is held out to decide when to stop, unless ``OWN`` says otherwise; published
figures are of models that were trained on all of them, and that were mostly stopped by the test part. No recommendation
is one of the interactions held out. ``--checkpoints`` names a folder from which an interrupted training continues.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, implicit, save

import graphunlearn as gu
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import FitSettings, build_model, reset_parameters

# data set: layers, seeds, epochs at most, interactions per step, models
CASES: dict[str, tuple[int, int, int, int, tuple[str, ...]]] = {
    "lastfm": (3, 3, 300, 8192, ("lightgcn", "sgl", "simgcl", "ngcf")),
    "ml-1m": (2, 1, 150, 65536, ("lightgcn", "sgl", "simgcl", "ngcf")),
    "gowalla": (3, 1, 60, 65536, ("lightgcn", "simgcl")),
}

# trainings with settings of their own: the loss and what is held out besides those of FitSettings. The softmax needs a
# tenth of the steps of BPR; its penalty and its number of negatives were chosen by validation Recall@20 on Last.fm
OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("gowalla", "lightgcn"): {
        "objective": gu.SampledSoftmax(negatives=128, weight_decay=0.01),
        "held_out": 0.02,
        "batch_size": 8192,
        "lr": 0.005,
        "epochs": 60,
        "patience": 4,
    },
}

LR = {"ngcf": 0.003}  # .01 elsewhere; chosen, as every default, by validation Recall@20 on Last.fm and ML-100K

SPLITS = {
    "lastfm": "data1.txt and test1.txt of gusye1234/LightGCN-PyTorch",
    "ml-1m": "train.csv and test.csv of xiye7lai/CURE4Rec",
    "gowalla": "train.txt and test.txt of gusye1234/LightGCN-PyTorch (the 10-core split of NGCF and LightGCN)",
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "lastfm": {"figures": [], "note": "none found for this split: the repository it comes from gives none for it"},
    "ml-1m": {"figures": [], "note": "no Recall@20 of a model trained on all of it was found for this split"},
    "gowalla": {
        "figures": [
            {
                "model": "lightgcn",
                "layers": 3,
                "recall@20": 0.1824,
                "ndcg@20": 0.1547,
                "source": "README of gusye1234/LightGCN-PyTorch (1000 epochs, d 64)",
            },
            {
                "model": "lightgcn",
                "layers": 3,
                "recall@20": 0.18236,
                "ndcg@20": 0.15539,
                "source": "README of kuandeng/LightGCN (best epoch by the test part, d 64)",
            },
        ],
        "note": "trained on all training interactions; none found for SimGCL on this split",
    },
}


def train(name: str, dataset: str, seed: int, checkpoints: Path | None) -> dict[str, Any]:
    """Return what a backbone reaches on the test part, stopped by what is held out of the training part."""
    layers, _, epochs, batch_size, _ = CASES[dataset]
    own = dict(OWN.get((dataset, name), {}))
    objective, held_out = own.pop("objective", gu.BPR()), own.pop("held_out", 0.1)
    graph, test = implicit(dataset)
    kept, validation = graph.random_split([1 - held_out, held_out], seed=0)
    model = build_model(name, kept, dim=64, layers=layers)
    reset_parameters(model, seed)
    settings = FitSettings(**{"epochs": epochs, "batch_size": batch_size, "lr": LR.get(name, 0.01), "seed": seed} | own)
    fitted = gu.fit(
        model,
        kept,
        validation=validation,
        objective=objective,
        settings=settings,
        checkpoint=None if checkpoints is None else checkpoints / f"{dataset}-{name}-{seed}.safetensors",
        progress=False,
    )
    ranker = Ranker(graph, test, ks=(20,), metrics=("recall", "ndcg"))
    with torch.no_grad():
        encoded, every = gu.encode(model, kept), gu.encode(model, graph)
        scores, propagated = (ranker(part.queries, part.items) for part in (encoded, every))
    return {
        "dataset": dataset,
        "model": name,
        "layers": layers,
        "dim": 64,
        "options": model.extra_repr(),
        "seed": seed,
        "validation_recall@20": fitted.best,
        "recall@20": scores["recall@20"],
        "ndcg@20": scores["ndcg@20"],
        "propagated_over_all": propagated,
        "held_out": held_out,
        "objective": repr(objective),
        "curve": [record["recall@20"] for record in fitted.history],
        "best_epoch": fitted.best_epoch,
        "epochs": len(fitted.history),
        "stopped_early": len(fitted.history) < settings.epochs,
        "seconds": fitted.seconds,
        "settings": repr(settings),
    }


def not_run(results: dict[str, Any]) -> list[str]:
    """Return which data sets and models have no row."""
    done = {(row["dataset"], row["model"]) for name in CASES for row in results.get(name, {}).get("rows", [])}
    return [f"{name} {model}" for name, case in CASES.items() for model in case[-1] if (name, model) not in done]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--models", nargs="+", help="of these data sets; all by default")
    parser.add_argument("--checkpoints", type=Path, help="folder of the states of trainings")
    args = parser.parse_args()
    chosen = args.datasets
    path = RESULTS / "backbones.json"
    old = json.loads(path.read_text())["results"] if path.exists() else {}
    results: dict[str, Any] = {name: case for name, case in old.items() if name in CASES and name not in chosen}
    for dataset in chosen:
        _, seeds, _, _, models = CASES[dataset]
        names = [name for name in models if args.models is None or name in args.models]
        rows = [row for row in old.get(dataset, {}).get("rows", []) if row["model"] not in names]
        results[dataset] = {"split": SPLITS[dataset], "published": PUBLISHED[dataset], "rows": rows}
        for name in names:
            for seed in range(seeds):
                row = train(name, dataset, seed, args.checkpoints)
                results[dataset]["rows"].append(row)
                print(
                    *(row[key] for key in ("dataset", "model", "seed", "recall@20", "ndcg@20", "seconds")), flush=True
                )
                save("backbones", results | {"not_run": not_run(results)})


if __name__ == "__main__":
    main()
