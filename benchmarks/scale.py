"""ML-1M, implicit feedback: a random 1 % of the interactions, and one user; and one user of Gowalla, for the memory.

Every request is made of a model that was prepared for requests (``IFRU.prepare``), and of one that was not.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from typing import Any

import torch
from common import implicit, save, show, summary

import graphunlearn as gu
from graphunlearn.eval import audit, removal
from graphunlearn.nn import FitSettings, build_model, reset_parameters


def one_user(graph: gu.InteractionGraph, seed: int) -> gu.ForgetRequest:
    """Return a user with the median number of interactions."""
    degree = graph.adjacency.degree[: graph.num_users]
    order = degree.argsort()
    return gu.ForgetRequest.internal("user", order[len(order) // 2 + seed : len(order) // 2 + seed + 1])


def methods(prepare: tuple[torch.nn.Module, gu.InteractionGraph] | None, objective: gu.Objective) -> list[gu.Unlearner]:
    """Return the methods, prepared where a model is given."""
    ifru = gu.IFRU(objective=objective)
    if prepare is not None:
        ifru.prepare(*prepare)
    return [ifru, gu.Unlink(), gu.FineTune(objective=objective, epochs=1)]


def ml_1m(retrain_seeds: int, layers: int, settings: FitSettings, device: str) -> dict[str, Any]:
    """Train, forget and audit on ML-1M."""
    graph, test = (g.to(device) for g in implicit("ml-1m"))
    objective = gu.BPR(negatives=1)
    out: dict[str, Any] = {"settings": dataclasses.asdict(settings), "objective": repr(objective), "layers": layers}
    case = removal(graph, "interaction", share=0.01, seed=0, test=test, fractions=(0.9, 0.1))
    model = build_model("lightgcn", case.train, 64, layers)
    reset_parameters(model, settings.seed)
    fitted = gu.fit(model, case.train, validation=case.validation, objective=objective, settings=settings)
    out["original"] = {"seconds": fitted.seconds, "best_epoch": fitted.best_epoch, "validation": fitted.best}
    print("original", out["original"], flush=True)
    references = dataclasses.replace(settings, seed=100)
    for name, request in (("1 % of interactions", case.request), ("one user", one_user(case.train, 0))):
        # one user needs references of its own: with three of them the ratio of seconds and the utility are settled
        judged = audit(
            model,
            case.train,
            request,
            methods((model, case.train), objective),
            test=case.test,
            validation=case.validation,
            objective=objective,
            settings=references,
            retrain_seeds=retrain_seeds if name != "one user" else 1,
        )
        rows = summary(judged.report, "mean_probability")
        print(f"\nML-1M, {name}", judged.report["request"])
        show(rows, "mean_probability", "recall@20")
        cold = [m.unlearn(model, case.train, request) for m in methods(None, objective) for _ in range(3)]
        seconds = {n: statistics.median(r.seconds for r in cold if r.method == n) for n in {r.method for r in cold}}
        warm = methods((model, case.train), objective)
        again = [m.unlearn(model, case.train, request) for m in warm for _ in range(5)]
        medians = {n: statistics.median(r.seconds for r in again if r.method == n) for n in {r.method for r in again}}
        retrain = next(r["seconds"] for r in rows if r["method"] == "retrain")
        for label, of in (("unprepared", seconds), ("prepared", medians)):
            print(label, {n: f"{s:.3f} s, {retrain / s:.0f} x" for n, s in of.items()}, flush=True)
        logs = {r.method: r.log for r in judged.results if r.method.startswith("ifru")}
        out[name] = {
            "request": judged.report["request"],
            "rows": rows,
            "median_seconds_unprepared": seconds,
            "median_seconds_prepared": medians,
            "prepare_seconds": warm[0].prepare_seconds,
            "logs": logs,
        }
    return out


def gowalla(layers: int, settings: FitSettings, device: str) -> dict[str, Any]:
    """Forget one user of Gowalla and report the memory; the model is trained for one epoch, which memory ignores."""
    graph, _ = (g.to(device) for g in implicit("gowalla"))
    objective = gu.BPR(negatives=1)
    model = build_model("lightgcn", graph, 64, layers)
    gu.fit(model, graph, objective=objective, settings=settings, epochs=1)
    result = gu.IFRU(objective=objective).unlearn(model, graph, one_user(graph, 0))
    print(f"Gowalla, one user: {result.peak_memory / 2**20:.0f} MiB, {result.seconds:.2f} s", flush=True)
    return {"ifru": {"peak_memory_mb": result.peak_memory / 2**20, "seconds": result.seconds, "log": result.log}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retrain-seeds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    settings = FitSettings(batch_size=args.batch_size, lr=args.lr)
    results = {"gowalla": gowalla(args.layers, settings, args.device)}
    results["ml-1m"] = ml_1m(args.retrain_seeds, args.layers, settings, args.device)
    save("scale" if args.device == "cpu" else f"scale-{args.device}", results, args.device)


if __name__ == "__main__":
    main()
