"""Fifty requests in a ledger, users and interactions in turn: what does the drift tell, and when is it time to retrain?

After 5, 15, 30 and 50 requests every method's model is compared with models retrained without all that was forgotten so
far: on the forgotten pairs and on test pairs (distance of probabilities, 1 is that of two retrained models), by
Recall@20, and by the drift. The distance of the gradients themselves, which the drift stands for, is measured as well:
of every method's model, and of the retrained ones.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import implicit, measure, save, trained

import graphunlearn as gu
from graphunlearn.ledger.drift import BUDGET, distance, gradient_scale
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor
from graphunlearn.metrics.ranking import Ranker

LOOKS = (5, 15, 30, 50)


def requests_of(train: gu.InteractionGraph, users: int, interactions: int) -> list[gu.ForgetRequest]:
    """Return requests of users and of interactions of other users in turn, as many as there are to look at."""
    generator, half = torch.Generator().manual_seed(1), LOOKS[-1] // 2
    chosen = torch.randperm(train.num_users, generator=generator)[: users * half]
    order = torch.randperm(train.num_interactions, generator=generator)
    others = order[~torch.isin(train.pairs[0, order], chosen)][: interactions * half]
    requests = []
    for some, rows in zip(chosen.split(users), others.split(interactions)):
        requests.append(gu.ForgetRequest.internal("user", some))
        requests.append(gu.ForgetRequest.internal("interaction", train.pairs[:, rows]))
    return requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k", choices=("lastfm", "ml-100k"))
    parser.add_argument("--users", type=int, default=5, help="users per request")
    parser.add_argument("--interactions", type=int, default=400, help="interactions per request")
    parser.add_argument("--methods", nargs="+", default=["ifru", "unlearnrec", "finetune", "unlink"])
    parser.add_argument("--retrain-seeds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of drift: that is what is measured
    graph, test = implicit(args.data)
    layers = {"lastfm": 3, "ml-100k": 2}[args.data]
    train, validation = graph.random_split([0.9, 0.1], seed=0)
    original, _ = trained(train, validation, layers, seed=0)
    requests = requests_of(train, args.users, args.interactions)
    known = {
        "ifru": gu.IFRU(),
        "unlearnrec": gu.UnlearnRec(validation=validation),
        "finetune": gu.FineTune(),
        "unlink": gu.Unlink(),
    }
    methods = {name: known[name] for name in args.methods}
    for method in methods.values():
        if method.needs_preparation:
            method.prepare(original, train, progress=False)
    objective, folder = gu.BPR(), Path(tempfile.mkdtemp())
    scale = gradient_scale(original, train, objective)
    ledgers = {name: gu.Ledger(folder / f"{name}.db") for name in methods}
    states: dict[str, Any] = {name: (copy.deepcopy(original), train) for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    rows: list[dict[str, Any]] = []
    references: list[dict[str, Any]] = []
    for number, request in enumerate(requests, start=1):
        for name, method in methods.items():
            start = time.perf_counter()
            result = ledgers[name].unlearn(method, *states[name], request)
            seconds[name] += time.perf_counter() - start
            states[name] = result.model, result.graph
        if number not in LOOKS:
            continue
        retained = next(iter(states.values()))[1]
        left = retained.pairs[0] * retained.num_items + retained.pairs[1]
        gone = train.pairs[:, ~torch.isin(train.pairs[0] * train.num_items + train.pairs[1], left)]
        models = [trained(retained, validation, layers, seed=50 + k) for k in range(args.retrain_seeds)]
        judged = test.without_emptied(train, retained)
        ranker = Ranker(retained, judged, ks=(20,), metrics=("recall",))
        against = [measure(model, retained, gone, judged, ranker) for model, _ in models]
        floors = [noise_floor([m[k] for m in against]) for k in (0, 1)]
        references.append(
            {
                "requests": number,
                "forgotten": gone.size(1),
                "share_forgotten": gone.size(1) / train.num_interactions,
                "retrain_seconds": statistics.fmean(s for _, s in models),
                "recall@20": statistics.fmean(m[2] for m in against),
                "recall@20_sd": statistics.stdev(m[2] for m in against),
                "gradient_distance": [
                    distance(original, train, model, retained, objective) / scale for model, _ in models
                ],
            }
        )
        print(references[-1], flush=True)
        for name, (model, where) in states.items():
            m, entries = measure(model, where, gone, judged, ranker), ledgers[name].entries()
            residuals = [entry.drift["residual"] for entry in entries]
            rows.append(
                {
                    "requests": number,
                    "method": name,
                    "method_seconds": sum(entry.seconds for entry in entries),
                    "seconds_with_ledger": seconds[name],
                    "recall@20": m[2],
                    "recall@20_over_retrain": m[2] / references[-1]["recall@20"],
                    "dp_forget_over_floor": distance_to_retrain(m[0], [r[0] for r in against]) / floors[0],
                    "dp_test_over_floor": distance_to_retrain(m[1], [r[1] for r in against]) / floors[1],
                    "drift": entries[-1].drift["spent"],
                    "sum_of_residuals": sum(residuals),
                    "gradient_distance": distance(original, train, model, where, objective) / scale,
                }
            )
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
    spent = {name: [entry.drift["spent"] for entry in ledger.entries()] for name, ledger in ledgers.items()}
    first = {name: next((n for n, s in enumerate(values, 1) if s > BUDGET), None) for name, values in spent.items()}
    sizes = {"users": args.users, "interactions": args.interactions}
    results = {"data": args.data, "request": sizes, "budget": BUDGET, "spent_after_requests": first}
    results |= {"retrained": references, "rows": rows, "drift": spent}
    save("ledger", results)


if __name__ == "__main__":
    main()
