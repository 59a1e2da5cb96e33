"""How IFRU's cost grows: with the graph at a fixed request, and with the request on a fixed graph."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, save

import graphunlearn as gu
from graphunlearn.nn import FitSettings, build_model

SIZES = (50_000, 100_000, 200_000, 400_000, 800_000)
FIXED = 400_000
REQUESTS = (1, 10, 100, 1_000, 10_000)


def train(graph: gu.InteractionGraph) -> torch.nn.Module:
    """Return a model after two epochs: enough for its gradients to be those of a model in use."""
    model = build_model("lightgcn", graph, 64, 3)
    gu.fit(model, graph, objective=gu.BPR(negatives=1), settings=FitSettings(epochs=2), progress=False)
    return model


def forget(graph: gu.InteractionGraph, model: torch.nn.Module, count: int, **options: Any) -> dict[str, Any]:
    """Return the median seconds of forgetting ``count`` interactions, over three calls."""
    objective = gu.BPR(negatives=1)
    chosen = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(0))[:count]
    request = gu.ForgetRequest.internal("interaction", graph.pairs[:, chosen])
    method = gu.IFRU(objective=objective, negatives=1, **options)
    results = [method.unlearn(model, graph, request) for _ in range(3)]
    out = {
        "interactions": graph.num_interactions,
        "forgotten": count,
        "seconds": statistics.median(r.seconds for r in results),
        "products": results[0].log["steps"][0]["iterations"],
        "peak_memory_mb": results[0].peak_memory / 2**20,
    }
    print(out, flush=True)
    return out


def main() -> None:
    made = {n: gu.datasets.synthetic_interactions(n // 34, n // 25, 34, popularity_exponent=0.5, seed=0) for n in SIZES}
    models = {n: train(made[n]) for n in SIZES}
    results = {
        "graph size, 100 forgotten": [forget(made[n], models[n], 100) for n in SIZES],
        "request size": [forget(made[FIXED], models[FIXED], n) for n in REQUESTS],
    }
    save("growth", results)
    draw(results, RESULTS / "growth.png")


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plot seconds against size, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, key, by, label in (
        (axes[0], "graph size, 100 forgotten", "interactions", "interactions in the graph (100 forgotten)"),
        (axes[1], "request size", "forgotten", "interactions forgotten (graph of 400,000)"),
    ):
        ax.loglog([r[by] for r in results[key]], [r["seconds"] for r in results[key]], marker="o", label="IFRU")
        ax.set_xlabel(label)
        ax.set_ylabel("seconds")
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
