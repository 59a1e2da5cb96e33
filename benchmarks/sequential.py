"""One preparation, fifty requests in a row: how far does the model drift, does preparing again help?

Every request takes random interactions from the model that the last one left. After 1, 10, 25 and 50 of them the model
is compared with models retrained without all that was forgotten so far.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from typing import Any

import torch
from common import implicit, measure, save, trained

import graphunlearn as gu
from graphunlearn.metrics.forgetting import distance_to_retrain, ks_distance, noise_floor
from graphunlearn.metrics.ranking import Ranker

LOOKS = (1, 10, 25, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="lastfm", choices=("lastfm", "ml-100k"))
    parser.add_argument("--size", type=int, default=20, help="interactions per request")
    parser.add_argument("--retrain-seeds", type=int, default=3)
    args = parser.parse_args()
    graph, test = implicit(args.data)
    layers = {"lastfm": 3, "ml-100k": 2}[args.data]
    train, validation = graph.random_split([0.9, 0.1], seed=0)
    original, _ = trained(train, validation, layers, seed=0)
    order = torch.randperm(train.num_interactions, generator=torch.Generator().manual_seed(1))
    requests = train.pairs[:, order[: args.size * LOOKS[-1]]].split(args.size, dim=1)
    again = f"unlearnrec, prepared again after {LOOKS[-2]}"
    methods: dict[str, gu.Unlearner] = {"unlearnrec": gu.UnlearnRec(validation=validation)}
    methods["unlearnrec"].prepare(original, train, progress=False)
    methods |= {again: copy.deepcopy(methods["unlearnrec"]), "calibrate": gu.Calibrate()}
    states = {name: (copy.deepcopy(original), train, 0.0) for name in methods}
    rows: list[dict[str, Any]] = []
    for number, pairs in enumerate(requests, start=1):
        for name, method in methods.items():
            model, left, seconds = states[name]
            result = method.unlearn(model, left, gu.ForgetRequest.internal("interaction", pairs))
            states[name] = result.model, result.graph, seconds + result.seconds
        if number == LOOKS[-2]:
            methods[again] = gu.UnlearnRec(validation=validation, seed=1)
            methods[again].prepare(*states[again][:2], progress=False)
        if number not in LOOKS:
            continue
        retained = states["unlearnrec"][1]
        gone = torch.cat(requests[:number], 1)
        references = [trained(retained, validation, layers, seed=50 + k) for k in range(args.retrain_seeds)]
        degree = retained.adjacency.degree
        judged = test.select((degree[test.pairs[0]] > 0) & (degree[test.pairs[1] + test.num_users] > 0))
        ranker = Ranker(retained, judged, ks=(20,), metrics=("recall",))
        against = [measure(model, retained, gone, judged, ranker) for model, _ in references]
        floors = [noise_floor([m[k] for m in against]) for k in (0, 1)]
        at_once = methods["unlearnrec"].unlearn(original, train, gu.ForgetRequest.internal("interaction", gone))
        candidates: dict[str, Any] = dict(states)
        candidates["unlearnrec, all in one request"] = (at_once.model, at_once.graph, at_once.seconds)
        candidates["unlink"] = (original, retained, None)
        for name, (model, where, seconds) in candidates.items():
            m = measure(model, where, gone, judged, ranker)
            rows.append(
                {
                    "requests": number,
                    "forgotten": gone.size(1),
                    "method": name,
                    "seconds_in_all": seconds,
                    "retrain_seconds": statistics.fmean(s for _, s in references),
                    "recall@20": m[2],
                    "retrain_recall@20": statistics.fmean(r[2] for r in against),
                    "mean_probability": float(m[0].mean()),
                    "retrain_mean_probability": statistics.fmean(float(r[0].mean()) for r in against),
                    "dp_forget_over_floor": distance_to_retrain(m[0], [r[0] for r in against]) / floors[0],
                    "dp_test_over_floor": distance_to_retrain(m[1], [r[1] for r in against]) / floors[1],
                    "ks": ks_distance(m[0], [r[0] for r in against]).statistic,
                }
            )
            shown = {key: round(v, 4) if isinstance(v, float) else v for key, v in rows[-1].items()}
            print(shown, flush=True)
    save("sequential", {"data": args.data, "size": args.size, "rows": rows})


if __name__ == "__main__":
    main()
