"""LightGCN's propagation and one training epoch on a 1M-interaction graph, against PyG's own, side by side."""

from __future__ import annotations

import time
from typing import Any

import torch
from common import median_seconds, save
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.nn import FitSettings

LAYERS, DIM, BATCH = 3, 64, 8192


def pyg_epoch(model: LightGCN, graph: gu.InteractionGraph, edge_index: torch.Tensor, steps: int) -> float:
    """Return the seconds of ``steps`` steps of the loop in PyG's LightGCN example, per step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    positive = torch.stack([graph.pairs[0], graph.pairs[1] + graph.num_users])
    start = time.perf_counter()
    for index in torch.randperm(positive.size(1)).split(BATCH)[:steps]:
        chosen = positive[:, index]
        negative = torch.stack([chosen[0], torch.randint(graph.num_users, graph.num_nodes, (index.numel(),))])
        optimizer.zero_grad()
        ranks = model(edge_index, torch.cat([chosen, negative], dim=1)).chunk(2)
        loss = model.recommendation_loss(*ranks, node_id=torch.cat([chosen, negative], dim=1).unique(), lambda_reg=1e-4)
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - start) / steps


def main() -> None:
    torch.manual_seed(0)
    graph = gu.datasets.synthetic_interactions(30_000, 40_000, 34, popularity_exponent=0.5, seed=0)
    model = LightGCN(graph.num_nodes, DIM, LAYERS)
    edge_index = torch.stack([graph.pairs[0], graph.pairs[1] + graph.num_users])
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    build = time.perf_counter()
    graph.adjacency.normalized()
    build = time.perf_counter() - build
    with torch.no_grad():
        ours, theirs = torch.cat(gu.encode(model, graph)[:2]), model.get_embedding(edge_index)
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        seconds = {
            "graphunlearn": median_seconds(lambda: gu.encode(model, graph)),
            "pyg": median_seconds(lambda: model.get_embedding(edge_index), repeats=3),
        }
    steps = -(-graph.num_interactions // BATCH)
    other = LightGCN(graph.num_nodes, DIM, LAYERS)
    pyg_epoch(other, graph, edge_index, 1)
    pyg = pyg_epoch(other, graph, edge_index, 6) * steps
    settings = FitSettings(batch_size=BATCH, epochs=1)
    gu.fit(model, graph, objective=gu.BPR(negatives=1), settings=settings, progress=False)
    own = gu.fit(model, graph, objective=gu.BPR(negatives=1), settings=settings, progress=False).seconds
    results: dict[str, Any] = {
        "graph": {"interactions": graph.num_interactions, "users": graph.num_users, "items": graph.num_items},
        "layers": LAYERS,
        "dim": DIM,
        "adjacency_build_seconds": build,
        "propagation_seconds": seconds,
        "propagation_ratio": seconds["pyg"] / seconds["graphunlearn"],
        "epoch_seconds": {
            "graphunlearn": own,
            "pyg (6 of its steps, scaled)": pyg,
            "batch_size": BATCH,
            "steps": steps,
        },
        "epoch_ratio": pyg / own,
    }
    for key, value in results.items():
        print(key, value)
    save("propagation", results)


if __name__ == "__main__":
    main()
