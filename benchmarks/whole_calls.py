"""Whole calls of deletion, IFRU, Calibrate and UnlearnRec, with checks, copies and acceptance, against retraining.

    python benchmarks/whole_calls.py --data ml-100k lastfm ml-1m --cache /tmp/models

Every figure is CPU seconds of one process, the median over several calls of ``unlearn`` after ``prepare`` and a first
one. Data sets that are not named keep their results. Retraining
is the same trainer on the retained graph, with the same validation interactions. Models, with the CPU seconds that
they took, are kept in the folder of ``--cache``. The probe of UnlearnRec is trained with the settings of the original,
for at most ``--probe-epochs`` epochs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import implicit, measure, resumed
from safetensors import safe_open
from safetensors.torch import save_file

import graphunlearn as gu
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import FitSettings, build_model, encode, reset_parameters, score
from graphunlearn.operators import UnlinkRedraw
from graphunlearn.operators.shared.noise import pairs_near

LAYERS = {"lastfm": 3, "ml-100k": 2, "ml-1m": 2}
SEEDS = (0, 100)
"""Seeds of the original and of the retrained models; a second retrained one gives the noise floor where asked."""


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a call, and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def trained(
    graph: gu.InteractionGraph, validation: gu.InteractionGraph, layers: int, seed: int, cache: Path | None
) -> tuple[torch.nn.Module, float]:
    """Return a LightGCN trained with the default settings, and the CPU seconds it took."""
    model = build_model("lightgcn", graph, 64, layers)
    settings = FitSettings(seed=seed)
    name = f"whole-{graph.fingerprint()[:16]}-{layers}-{seed}.safetensors"
    if cache is not None and (cache / name).exists():
        with safe_open(str(cache / name), "pt") as file:
            model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            return model.eval(), float(json.loads(file.metadata()["cpu_seconds"]))
    reset_parameters(model, seed)
    seconds, _ = cpu_seconds(
        lambda: gu.fit(model, graph, validation=validation, settings=settings, progress=False, fresh=True)
    )
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), str(cache / name), {"cpu_seconds": json.dumps(seconds)})
    return model.eval(), seconds


def requests(graph: gu.InteractionGraph) -> dict[str, gu.ForgetRequest]:
    """Return one user with the median number of interactions, ten interactions, and 1 and 5 % of them."""
    degree = graph.adjacency.degree[: graph.num_users]
    user = degree.argsort()[graph.num_users // 2]
    order = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(0))
    some = {"ten interactions": 10}
    some |= {f"{share} % of interactions": share * graph.num_interactions // 100 for share in (1, 5)}
    found = {"one user": gu.ForgetRequest.internal("user", user.view(1))}
    return found | {n: gu.ForgetRequest.internal("interaction", graph.pairs[:, order[:k]]) for n, k in some.items()}


@torch.no_grad()
def apart(one: torch.nn.Module, other: torch.nn.Module, graph: gu.InteractionGraph, groups: Any) -> dict[str, float]:
    """Return the mean distance of probabilities on forgotten, near and unseen pairs, and on test pairs."""
    names = "forgotten", "retained beside them", "unseen beside them", "test"
    pairs = [[torch.sigmoid(score(encode(model, graph), group)) for group in groups] for model in (one, other)]
    return {name: float((a - b).abs().mean()) for name, a, b in zip(names, *pairs)}


def case(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one data set."""
    whole, test = implicit(name)
    graph, validation = whole.random_split([0.9, 0.1], seed=0)
    layers = LAYERS[name]
    model, seconds = trained(graph, validation, layers, SEEDS[0], args.cache)
    print(f"{name}: {graph.num_interactions:,} interactions, original {seconds:.1f} CPU s", flush=True)
    asked = requests(graph)
    largest = asked["5 % of interactions"]
    retained, forgotten = graph.split(largest)
    again = [trained(retained, validation, layers, seed, args.cache) for seed in args.retrain_seeds]
    retraining = statistics.fmean(seconds for _, seconds in again)
    print(f"{name}: retraining without 5 % {retraining:.1f} CPU s", flush=True)
    settings = FitSettings(epochs=args.probe_epochs)
    made: list[gu.Unlearner] = [gu.IFRU(within_noise=0, tol=1e-3, max_iter=200), gu.Unlink(), UnlinkRedraw(), gu.IFRU()]
    made.append(gu.Calibrate())
    made.append(gu.UnlearnRec(settings=settings, validation=validation))
    methods = [method for method in made if method.name in args.methods]
    for method in methods:
        method.prepare(model, graph, progress=False)
    out: dict[str, Any] = {"interactions": graph.num_interactions, "layers": layers, "original_cpu_seconds": seconds}
    out |= {"retraining_cpu_seconds": retraining, "rows": [], "probe": dataclasses.asdict(settings)}
    ranker = Ranker(retained, test)
    reference = [measure(found, retained, forgotten.pairs, test, ranker) for found, _ in again]
    for words, request in asked.items():
        corrected: dict[str, torch.nn.Module] = {}
        left, _ = graph.split(request)
        near = left, (*pairs_near(graph, left, request.mask(graph)), test.pairs)
        for method in methods:
            call = partial(method.unlearn, model, graph, request)
            times, results = zip(*(cpu_seconds(call) for _ in range(6)))
            result = results[-1]
            solved = isinstance(method, gu.IFRU) and not method.within_noise
            row: dict[str, Any] = {"request": words, "method": "ifru, solved in full" if solved else method.name}
            corrected[row["method"]] = result.model
            row["cpu_seconds"] = statistics.median(times[1:])
            row["inner_cpu_seconds"] = statistics.median(r.cpu_seconds for r in results[1:])
            row["outcome"] = result.log.get("acceptance", {}).get("outcome")
            row["around_the_request"] = "tilted_fall" in result.log
            if request is largest:
                own = measure(result.model, retained, forgotten.pairs, test, ranker)
                for place, where in enumerate(("forget", "test")):
                    distances = [(own[place] - other[place]).abs().mean() for other in reference]
                    row[f"dp_{where}"] = float(sum(distances)) / len(distances)
                    if len(reference) > 1:
                        row[f"floor_{where}"] = float((reference[0][place] - reference[1][place]).abs().mean())
                row["recall@20"] = own[2]
            out["rows"].append(row)
            row["speedup"] = retraining / row["cpu_seconds"]
            if "ifru, solved in full" in corrected and method.name in ("ifru", "unlink-redraw"):
                row["dp_to_solved_in_full"] = apart(corrected[row["method"]], corrected["ifru, solved in full"], *near)
            print("  ", {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=sorted(LAYERS), choices=sorted(LAYERS))
    parser.add_argument("--methods", nargs="+", default=["unlink", "unlink-redraw", "ifru", "calibrate", "unlearnrec"])
    parser.add_argument("--retrain-seeds", nargs="+", type=int, default=[100, 101])
    parser.add_argument("--probe-epochs", type=int, default=300)
    parser.add_argument("--cache", type=Path, help="folder of trained models")
    args = parser.parse_args()
    torch.set_num_threads(1)
    resumed("whole_calls", args.data, lambda name: case(name, args))


if __name__ == "__main__":
    main()
