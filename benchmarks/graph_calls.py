"""CPU time of what one user's request asks of a graph of a million interactions, against plain code for the same.

    python benchmarks/graph_calls.py

One thread; both take turns over the same users, and their answers are compared. The plain code indexes with masks,
sorts the retained interactions anew, hashes what the fingerprint hashes, already in its order (the time of SHA-256
alone), and looks for the removed interactions in a mask. ``Unlink``, a whole call on LightGCN with 64 dimensions, is
compared with copying the model and the retained interactions.
"""

from __future__ import annotations

import copy
import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import save
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn import utils
from graphunlearn.func import Adjacency

USERS, ITEMS, QUERIES, ROUNDS = 30_000, 40_000, 10, 5
Calls = tuple[Callable[[], Any], Callable[[], Any]]


def calls(graph: gu.InteractionGraph, model: torch.nn.Module, user: str) -> dict[str, Calls]:
    """Return every call about one user with the plain code for the same; both return the same tensors."""

    def request() -> gu.ForgetRequest:
        return gu.ForgetRequest("user", [user])  # a new one, since the latest request is remembered

    kept = ~request().mask(graph)
    retained = graph.keep(kept)
    order = retained.adjacency.interaction[: retained.num_interactions].long()
    values = (retained.rating, retained.time)
    content = [retained.pairs[:, order].numpy(), *((value[order].double() + 0.0).numpy() for value in values)]

    def plainly_kept() -> tuple[torch.Tensor, ...]:
        return graph.pairs[:, kept], graph.rating[kept], graph.time[kept]

    def indices(adjacency: Adjacency) -> tuple[torch.Tensor, ...]:
        return adjacency.rowptr, adjacency.col, adjacency.interaction

    def all_kept() -> tuple[torch.Tensor, ...]:
        part = graph.keep(kept)
        return part.pairs, part.rating, part.time

    def endpoints() -> torch.Tensor:
        user_ends, item_ends = graph.pairs[:, request().mask(graph).nonzero().view(-1)]
        return torch.unique(torch.cat([user_ends, item_ends + graph.num_users]))

    def hashed() -> None:
        digest = hashlib.sha256()
        for part in content:
            digest.update(part)

    def copied() -> None:
        copy.deepcopy(model)
        plainly_kept()

    return {
        "keep": (all_kept, plainly_kept),
        "adjacency of what is kept": (
            lambda: indices(graph.keep(kept).adjacency),
            lambda: (plainly_kept(), indices(Adjacency.from_pairs(retained.pairs, USERS, ITEMS)))[1],
        ),
        "fingerprint of what is kept": (lambda: (retained.fingerprint(), None)[1], hashed),
        "removed_share": (lambda: utils.removed_share(graph, request())[0], endpoints),
        "affected_nodes, 1 hop": (
            lambda: utils.affected_nodes(graph, request(), 1),
            lambda: utils.k_hop_ball(graph, endpoints(), 1),
        ),
        "Unlink": (lambda: (gu.Unlink().unlearn(model, graph, request()), None)[1], copied),
    }


def same(one: Any, other: Any) -> bool:
    """Return whether two answers are equal."""
    if isinstance(one, tuple):
        return all(map(same, one, other))
    return one is other if one is None else one.equal(other)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    graph = gu.datasets.synthetic_interactions(USERS, ITEMS, 34, popularity_exponent=0.6)
    graph.adjacency  # noqa: B018 (built once, on first use)
    model = LightGCN(graph.num_nodes, 64, 3)
    chosen = torch.randperm(USERS, generator=torch.Generator().manual_seed(0))[:QUERIES].tolist()
    several = [calls(graph, model, graph.user_ids[user]) for user in chosen]

    milliseconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in several[0]}
    for number in range(ROUNDS + 1):
        for one in several:
            for name, pair in one.items():
                answers = []
                for call, taken in zip(pair, milliseconds[name]):
                    start = time.process_time()
                    answers.append(call())
                    if number:  # the first round warms up
                        taken.append(1e3 * (time.process_time() - start))
                assert same(*answers), name
    rows = [
        {"call": name, "cpu_ms": round(statistics.median(ours), 3), "plain_cpu_ms": round(statistics.median(plain), 3)}
        for name, (ours, plain) in milliseconds.items()
    ]
    for row in rows:
        row["times"] = round(row["plain_cpu_ms"] / row["cpu_ms"], 2)
        print(f"{row['call']:30}{row['cpu_ms']:10.3f}{row['plain_cpu_ms']:10.3f}{row['times']:8.2f}")
    interactions = graph.num_interactions
    save("graph_calls", {"interactions": interactions, "requests": QUERIES, "rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main()
