"""IFRU's step with the curvature of a sample: its distance to the step with the whole curvature, in units of the floor.

The curvature is computed from fewer negatives per interaction, or from a part of the interactions whose curvature is
scaled up. The right-hand side stays whole, and every system is solved to a relative residual of 0.001. The distance is
that of probabilities of the forgotten interactions; the floor is that of two retrained models (5 % of the interactions,
from ``whole_calls.json``). ``left`` is the residual of the whole system at the step of the sample, as a share of the
right-hand side: where it is near 1 or above, repeating the step with the same sample promises nothing.

    python benchmarks/sampled_curvature.py --data ml-100k lastfm ml-1m --cache /tmp/models
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, implicit, resumed
from whole_calls import LAYERS, cpu_seconds, requests, trained

import graphunlearn as gu
from graphunlearn.func import conjugate_gradients
from graphunlearn.nn import encode, score
from graphunlearn.nn.risk import LinearRisk

SAMPLES = (("negatives", 1), ("negatives", 2), ("negatives", 4), ("negatives", 8), ("interactions", 0.5), ("all", 1))
"""What the curvature is computed from: negatives per interaction, or a share of the interactions."""


def sampled(risk: LinearRisk, kind: str, size: float) -> tuple[LinearRisk, float]:
    """Return the risk of a sample, and the factor that its curvature is scaled by."""
    if kind == "negatives":
        return risk.with_negatives(int(size)), 1.0
    if kind == "all":
        return risk, 1.0
    return risk.of(risk.objective, risk.samples.select(torch.arange(0, len(risk.samples), round(1 / size)))), 1 / size


def case(name: str, cache: Path | None) -> dict[str, Any]:
    """Return the figures of one data set, where 1 % of the interactions are forgotten."""
    whole, _ = implicit(name)
    graph, validation = whole.random_split([0.9, 0.1], seed=0)
    model, _ = trained(graph, validation, LAYERS[name], 0, cache)
    request = requests(graph)["1 % of interactions"]
    retained, forgotten = graph.split(request)
    method = gu.IFRU(within_noise=0)
    tilted, started, slope, damping, _, _ = method._settle(model, graph, retained, request)
    problem, curved = tilted.problem, tilted.problem.curved
    assert isinstance(curved, LinearRisk)
    inverse = (1 / (curved.jacobi(problem.start) + damping)).mul
    full, moved = curved.curvature(problem.start), copy.deepcopy(started)

    def solved(kind: str, size: float) -> tuple[torch.Tensor, dict[str, Any]]:
        risk, factor = sampled(curved, kind, size)
        curvature = risk.curvature(problem.start)
        options: dict[str, Any] = {"damping": damping, "preconditioner": inverse, "tol": 1e-3, "max_iter": 300}
        seconds, found = cpu_seconds(lambda: conjugate_gradients(lambda v: factor * curvature(v), -slope, **options))
        left = float((full(found.x) + damping * found.x + slope).norm() / slope.norm())
        negatives = None if risk.samples.negatives is None else risk.samples.negatives.size(1)
        told = {"interactions": len(risk.samples), "negatives": negatives, "products": found.iterations}
        return found.x, told | {"cpu_seconds": seconds, "left": left}

    @torch.no_grad()
    def probabilities(step: torch.Tensor) -> torch.Tensor:
        moved.get_parameter(curved.form.parameter).copy_((problem.start + step).view_as(curved.table))
        return torch.sigmoid(score(encode(moved, retained), forgotten.pairs))

    calls = json.loads((RESULTS / "whole_calls.json").read_text())["results"][name]["rows"]
    floor = next(row["floor_forget"] for row in calls if "floor_forget" in row)
    right, _ = solved("all", 1)
    wanted, before, rows = probabilities(right), probabilities(torch.zeros_like(right)), []
    for kind, size in SAMPLES:
        step, row = solved(kind, size)
        row["distance_over_floor"] = float((probabilities(step) - wanted).abs().mean()) / floor
        rows.append({"curvature": f"{kind}: {size:g}"} | row)
        print(name, rows[-1], flush=True)
    whole_step = float((wanted - before).abs().mean()) / floor
    return {"interactions": graph.num_interactions, "floor": floor, "step_over_floor": whole_step, "rows": rows}


def main() -> None:
    """Measure, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=sorted(LAYERS), choices=sorted(LAYERS))
    parser.add_argument("--cache", type=Path, help="folder of trained models")
    args = parser.parse_args()
    torch.set_num_threads(1)
    resumed("sampled_curvature", args.data, lambda name: case(name, args.cache))


if __name__ == "__main__":
    main()
