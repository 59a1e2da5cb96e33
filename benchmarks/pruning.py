"""What pruning leaves unsolved, and what it saves: ML-100K, LightGCN, requests of three sizes.

The relative error is that of the full system, from the log. The seconds are medians of five calls of a prepared object.
"""

from __future__ import annotations

import statistics
import warnings
from typing import Any

import torch
from common import implicit, save, trained

import graphunlearn as gu
from graphunlearn.operators.shared.correction import Tilted

PRUNED: tuple[dict[str, Any], ...] = (
    {},
    {"prune": 0.8},
    {"prune": 0.95},
    {"prune": 0.99},
    {"prune": 0.999, "min_degree_change": 0.01},
)


def requests(graph: gu.InteractionGraph) -> dict[str, gu.ForgetRequest]:
    """Return one user with the median number of interactions, and ten and 5 % of the interactions."""
    order = graph.adjacency.degree[: graph.num_users].argsort()
    chosen = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(0))
    some = {"ten interactions": 10, "5 % of the interactions": graph.num_interactions // 20}
    out = {"one user": gu.ForgetRequest.internal("user", order[len(order) // 2].view(1))}
    return out | {n: gu.ForgetRequest.internal("interaction", graph.pairs[:, chosen[:k]]) for n, k in some.items()}


def phi(method: gu.IFRU, model: Any, graph: gu.InteractionGraph, request: gu.ForgetRequest, table: Any) -> float:
    """Return the change of the tilted risk from the start of the method to a table."""
    retained, _ = graph.split(request)
    problem, _, tilt, *_ = method._problem(model, graph, retained, request)
    tilted = Tilted(problem, tilt)
    return tilted.value(table.detach().flatten()) - tilted.value(problem.start)


def main() -> None:
    warnings.simplefilter("ignore")
    graph, validation = implicit("ml-100k")[0].random_split([0.9, 0.1], seed=0)
    model, _ = trained(graph, validation, 2, 0)
    rows = []
    for what, request in requests(graph).items():
        for options in PRUNED:
            method = gu.IFRU(**options)
            method.prepare(model, graph)
            done = [method.unlearn(model, graph, request) for _ in range(5)]
            rows.append({"request": what, "method": "ifru", "options": options, **figures(done)})
            plain = gu.IFRU(damping=done[0].log["damping"])
            rows[-1]["phi_change"] = phi(plain, model, graph, request, done[0].model.embedding.weight)
            print(rows[-1], flush=True)
        done = [gu.IFRU.as_published().unlearn(model, graph, request)]
        rows.append({"request": what, "method": "ifru-published", "options": {}, **figures(done)})
        print(rows[-1], flush=True)
    save("pruning", rows)


def figures(done: list[gu.UnlearningResult]) -> dict[str, Any]:
    """Return the figures of one row."""
    log = done[0].log
    return {
        "relative_error": log["relative_error"],
        "nodes_kept": log.get("pruning", {}).get("nodes_kept"),
        "nodes_reached": log.get("pruning", {}).get("nodes_reached"),
        "products": log["steps"][0]["iterations"],
        "cpu_seconds": statistics.median(r.cpu_seconds for r in done),
        "peak_memory_mb": max(r.peak_memory for r in done) / 2**20,
    }


if __name__ == "__main__":
    main()
