"""Published methods beside edges deleted and IFRU: distances to retrained models and Recall@20 on MovieLens-100K.

One original and three retrained models per case, d 16, 15 epochs without early stopping; every method at its defaults.

    python benchmarks/published_methods.py
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from typing import Any

from common import implicit, measure, save

import graphunlearn as gu
from graphunlearn.eval import scenarios
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import build_model, default_settings, reset_parameters
from graphunlearn.operators import registry

METHODS = (
    *("unlink-redraw", "ifru", "scif", "scif-published", "gif", "gif-published", "ceu", "idea", "alteraser"),
    *("gnndelete", "gnndelete-published", "cova", "popularity-kl"),
)
SEEDS = (100, 101, 102)


def model_of(kind: str, graph: gu.InteractionGraph, seed: int) -> Any:
    """Return a trained model."""
    model = build_model(kind, graph, 16, *((2,) if kind == "lightgcn" else ()))
    reset_parameters(model, seed)
    gu.fit(model, graph, settings=replace(default_settings(graph), seed=seed, epochs=15), progress=False)
    return model


def rows_of(kind: str, case: Any, original: Any) -> list[dict[str, Any]]:
    """Return the rows of one case."""
    retained, _ = case.train.split(case.request)
    references = [model_of(kind, retained, seed) for seed in SEEDS]
    gone = case.train.pairs[:, case.request.mask(case.train)]
    ranker = Ranker(retained, case.test, ks=(20,), metrics=("recall",))
    truth = [measure(r, retained, gone, case.test, ranker) for r in references]
    floors = [noise_floor([t[k] for t in truth]) for k in (0, 1)]
    rows = []
    for method in METHODS:
        result = registry[method]().unlearn(original, case.train, case.request)
        found = measure(result.model, retained, gone, case.test, ranker)
        row = {"method": method, "forgotten": float(found[0].mean()), "cpu_seconds": result.cpu_seconds}
        for key, k in (("dp_forget_over_floor", 0), ("dp_test_over_floor", 1)):
            row[key] = distance_to_retrain(found[k], [t[k] for t in truth]) / floors[k]
        row |= {"recall@20": found[2], "accepted": result.accepted, "residual": result.log.get("residual")}
        row["certificate"] = result.log.get("certificate")
        rows.append(row)
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    retrained = {"forgotten": sum(float(t[0].mean()) for t in truth) / len(truth)}
    retrained |= {"recall@20": sum(t[2] for t in truth) / len(truth)}
    return [*rows, {"method": "retrained", **retrained}]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.simplefilter("ignore")
    graph, test = implicit("ml-100k")
    results = []
    for kind in ("lightgcn", "mf"):
        cases = {
            "random-edges": scenarios.removal(graph, "interaction", seed=0, test=test),
            "core-users": scenarios.core_users(graph, seed=0, test=test),
        }
        for scenario, case in cases.items():
            original = model_of(kind, case.train, 0)
            rows = rows_of(kind, case, original)
            results.append({"dataset": "ml-100k", "model": kind, "scenario": scenario, "rows": rows})
    save("published_methods", results)


if __name__ == "__main__":
    main()
