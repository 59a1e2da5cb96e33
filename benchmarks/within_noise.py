"""What IFRU leaves out where it moves probabilities by less than a share of the noise, in CPU seconds and in Δp.

    python benchmarks/within_noise.py --data lastfm ml-100k

A LightGCN is trained for a fixed number of epochs. Every request is made with the default share and with 0, which
solves every system to the tolerance, of a method that was prepared. Figures are CPU seconds of one process, the least
of three calls; the seconds of an epoch of training are beside them.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from common import implicit, save

import graphunlearn as gu
from graphunlearn.nn import FitSettings, build_model

LAYERS = {"lastfm": 3, "ml-100k": 2, "ml-1m": 2}


def requests(graph: gu.InteractionGraph) -> dict[str, gu.ForgetRequest]:
    """Return a user with the median number of interactions, ten interactions and 5 % of them."""
    degree = graph.adjacency.degree[: graph.num_users]
    user = degree.argsort()[graph.num_users // 2]
    order = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(0))
    some = {"ten interactions": 10, "5 % of interactions": graph.num_interactions // 20}
    parts = {name: gu.ForgetRequest.internal("interaction", graph.pairs[:, order[:k]]) for name, k in some.items()}
    return {"one user": gu.ForgetRequest.internal("user", user.view(1))} | parts


@torch.no_grad()
def probabilities(result: Any, groups: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Return the probabilities of groups of pairs after a request."""
    encoded = gu.encode(result.model, result.graph)
    return [torch.sigmoid(gu.score(encoded, pairs)) for pairs in groups]


def case(name: str, epochs: int) -> dict[str, Any]:
    """Return the figures of one data set."""
    graph, test = implicit(name)
    model = build_model("lightgcn", graph, 64, LAYERS[name])
    start = time.process_time()
    gu.fit(model, graph, settings=FitSettings(epochs=epochs), progress=False)
    epoch = (time.process_time() - start) / epochs
    out: dict[str, Any] = {"interactions": graph.num_interactions, "epochs": epochs, "epoch_cpu_seconds": epoch}
    for label, request in requests(graph).items():
        groups, rows, found = (graph.pairs[:, request.mask(graph)], test.pairs), {}, {}
        for share in (gu.IFRU().within_noise, 0.0):
            method = gu.IFRU(within_noise=share)
            method.prepare(model, graph)
            results = [method.unlearn(model, graph, request) for _ in range(3)]
            found[share], log = probabilities(results[0], groups), results[0].log
            rows[f"within_noise={share:g}"] = {
                "cpu_seconds": min(r.cpu_seconds for r in results),
                "products": log["steps"][0]["iterations"],
                "noise": log.get("within_noise", {}).get("noise"),
                "refit": log.get("refit"),
                "outcome": log["acceptance"]["outcome"],
            }
        moved = [float((a - b).abs().mean()) for a, b in zip(*found.values())]
        out[label] = rows | {"dp_between_forget": moved[0], "dp_between_test": moved[1]}
        print(name, label, out[label], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["lastfm", "ml-100k"], choices=list(LAYERS))
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    save("within_noise", {name: case(name, args.epochs) for name in args.data})


if __name__ == "__main__":
    main()
