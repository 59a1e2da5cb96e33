"""IFRU's damping where the ridge of early stopping has no meaning: the ridge, the automatic choice and edges deleted.

One original and three retrained models per case, at defaults, d 32. The rule was chosen on the first four cases, from
the retained risk and the gradient of the tilted risk; its limit on the risk was set with all cases but the last three
in view.

    python benchmarks/ridge.py --cache /tmp/models
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import data, implicit, measure, save

import graphunlearn as gu
from graphunlearn.eval import scenarios
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import build_model, default_objective, default_settings, reset_parameters, risk_of
from graphunlearn.operators.baselines import UnlinkRedraw

CASES = (
    ("ml-100k", "core-users", "mf"),
    ("ml-100k", "random-edges", "mf"),
    ("ml-100k", "random-edges", "lightgcn"),
    ("ml-100k", "core-users", "lightgcn"),
    ("adm", "core-users", "mf"),
    ("adm", "random-edges", "mf"),
    ("lastfm", "core-users", "mf"),
    ("lastfm", "random-edges", "mf"),
    ("ml-100k", "random-edges", "ngcf"),
    ("ml-100k", "core-users", "ngcf"),
    ("adm", "core-users", "lightgcn"),
    ("adm", "core-users", "ngcf"),
    ("ml-1m", "core-users", "mf"),
)
SEEDS = (100, 101, 102)


def case_of(name: str, which: str) -> Any:
    """Return the scenario."""
    if name == "adm":
        graph, options = gu.InteractionGraph.from_file(data("adm", "adm8.csv")), {}
    else:
        graph, test = implicit(name)
        options = {"test": test}
    if which == "core-users":
        return scenarios.core_users(graph, seed=0, **options)
    return scenarios.removal(graph, "interaction", seed=0, **options)


def model_of(kind: str, case: Any, graph: gu.InteractionGraph, seed: int, file: Path | None) -> Any:
    """Return a trained model, from its file where there is one."""
    layers = {"mf": (), "lightgcn": (2,), "ngcf": (2,)}[kind]
    model = build_model(kind, graph, 32, *layers)
    reset_parameters(model, seed)
    if file is not None and file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model
    validation = case.validation if graph is case.train else case.validation.without_emptied(case.train, graph)
    gu.fit(model, graph, validation=validation, settings=replace(default_settings(graph), seed=seed), progress=False)
    if file is not None:
        torch.save(model.state_dict(), file)
    return model


def rows_of(name: str, which: str, kind: str, cache: Path | None) -> list[dict[str, Any]]:
    """Return the rows of one case."""
    case = case_of(name, which)
    retained, _ = case.train.split(case.request)

    def trained(graph: gu.InteractionGraph, seed: int, label: str) -> Any:
        file = None if cache is None else cache / f"{name}-{label}-{seed}.pt"
        return model_of(kind, case, graph, seed, file)

    original = trained(case.train, 0, f"orig-{kind}")
    references = [trained(retained, seed, f"{which}-{kind}-ref") for seed in SEEDS]
    gone = case.train.pairs[:, case.request.mask(case.train)]
    ranker = Ranker(retained, case.test, ks=(20,), metrics=("recall",))
    truth = [measure(r, retained, gone, case.test, ranker) for r in references]
    floors = [noise_floor([t[k] for t in truth]) for k in (0, 1)]
    objective = default_objective(case.train).with_negatives(16)
    chosen = gu.IFRU().unlearn(original, case.train, case.request)
    models = {
        "unlink-redraw": UnlinkRedraw().unlearn(original, case.train, case.request),
        "ifru, ridge": chosen,
        "ifru": chosen,
    }
    if chosen.log["damping_rule"] == "gradient":  # the ridge, or what the step of a non-linear model was raised to
        models["ifru, ridge"] = gu.IFRU(on_rejection="keep").unlearn(original, case.train, case.request)
    rows = []
    for method, result in models.items():
        found = measure(result.model, retained, gone, case.test, ranker)
        risk = risk_of(result.model, retained, objective)
        row = {"data": name, "request": which, "model": kind, "method": method, "cpu_seconds": result.cpu_seconds}
        for key, k in (("dp_forget_over_floor", 0), ("dp_test_over_floor", 1)):
            row[key] = distance_to_retrain(found[k], [t[k] for t in truth]) / floors[k]
        row |= {"recall@20": found[2], "retrain_recall@20": sum(t[2] for t in truth) / len(truth)}
        row["retained_risk"] = risk.value(risk.parameters)
        row |= {key: result.log.get(key) for key in ("damping", "damping_rule", "ridge_cosine")}
        rows.append(row)
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="a folder for trained models")
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first so many cases")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    save("ridge", [row for case in CASES[: args.cases] for row in rows_of(*case, args.cache)])


if __name__ == "__main__":
    main()
