r"""Balls and subgraphs of requests, against ``torch_geometric.utils.k_hop_subgraph`` on the same graph.

    python benchmarks/subgraph.py

A request is one user, the users and items of ten interactions, or 100 users. Both get what they read from ready-made
and not counted: the CSR adjacency here (its one-off cost is reported beside), ``edge_index`` with both directions
there. They take turns, round by round over the same requests, and their answers are compared. Times are medians over
all calls: of CPU time with one thread, and on a GPU of wall time. ``k_hop_subgraph`` here also renumbers and carries
raw ids and values along.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph as pyg_k_hop_subgraph

from graphunlearn import InteractionGraph, utils
from graphunlearn.data import EDGE_TYPE
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval.machine import environment
from graphunlearn.func import Adjacency


def timed(function: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Return milliseconds and the result of one call."""
    if device.type == "cpu":
        start = time.process_time()
        result = function()
        return 1e3 * (time.process_time() - start), result
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = function()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start), result


def requests_of(graph: InteractionGraph, queries: int) -> dict[str, list[Tensor]]:
    """Return the start nodes of the requests of every kind."""
    draw = torch.Generator().manual_seed(0)
    (user, item), users = graph.pairs.cpu(), graph.num_users
    ten = [torch.randint(graph.num_interactions, (10,), generator=draw) for _ in range(queries)]
    starts = {
        "one user": list(torch.randperm(users, generator=draw)[:queries].split(1)),
        "ten interactions": [torch.cat([user[chosen], item[chosen] + users]) for chosen in ten],
        "100 users": [torch.randperm(users, generator=draw)[:100] for _ in range(queries)],
    }
    return {kind: [nodes.to(graph.device) for nodes in several] for kind, several in starts.items()}


def compare(
    graph: InteractionGraph, edge_index: Tensor, kind: str, starts: list[Tensor], num_hops: int, rounds: int
) -> list[dict[str, Any]]:
    """Time both on the same requests; raise if an answer differs."""
    device, num_nodes = edge_index.device, graph.num_nodes
    calls: dict[str, Callable[[Tensor], Any]] = {
        "k_hop_ball": lambda nodes: utils.k_hop_ball(graph, nodes, num_hops),
        "k_hop_subgraph": lambda nodes: utils.k_hop_subgraph(graph, nodes, num_hops),
        "pyg": lambda nodes: pyg_k_hop_subgraph(nodes, num_hops, edge_index, num_nodes=num_nodes),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            milliseconds[name] += [timed(partial(call, nodes), device)[0] for nodes in starts]

    sizes: dict[str, list[int]] = {"k_hop_ball": [], "k_hop_subgraph": []}
    for nodes in starts:
        ball, sub, (pyg_ball, _, _, pyg_mask) = (call(nodes) for call in calls.values())
        # The first half of edge_index runs from users to items, in the order of the graph.
        interactions = pyg_mask[: graph.num_interactions].nonzero().view(-1)
        assert ball.equal(pyg_ball)
        assert sub[EDGE_TYPE].e_id.equal(interactions)
        assert utils.node_map(graph, sub).equal(pyg_ball)
        sizes["k_hop_ball"].append(ball.numel())
        sizes["k_hop_subgraph"].append(interactions.numel())
    median = {name: statistics.median(values) for name, values in milliseconds.items()}
    return [
        {
            "function": name,
            "request": kind,
            "num_hops": num_hops,
            "requests": len(starts),
            "rounds": rounds,
            "median_size": statistics.median(sizes[name]),
            "milliseconds": round(median[name], 4),
            "milliseconds_90": round(statistics.quantiles(milliseconds[name], n=10)[-1], 4),
            "pyg_milliseconds": round(median["pyg"], 3),
            "speedup": round(median["pyg"] / median[name], 1),
        }
        for name in sizes
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--interactions-per-user", type=float, default=34)
    parser.add_argument(
        "--popularity-exponent", type=float, default=0.6, help="the default is about as uneven as Gowalla"
    )
    parser.add_argument("--queries", type=int, default=50, help="requests of every kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "subgraph.json")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)

    start = time.perf_counter()
    graph = synthetic_interactions(
        args.users, args.items, args.interactions_per_user, popularity_exponent=args.popularity_exponent
    )
    seconds = time.perf_counter() - start
    graph = graph.to(device)
    shape = (graph.num_users, graph.num_items)
    built = [timed(lambda: Adjacency.from_pairs(graph.pairs, *shape), device)[0] for _ in range(5)]
    user, item = graph.pairs[0], graph.pairs[1] + graph.num_users
    edge_index = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    starts = requests_of(graph, args.queries)
    graph.adjacency  # noqa: B018 (built once, on first use)
    compare(graph, edge_index, "one user", starts["one user"][:3], 2, 1)  # warm-up

    rows = []
    for kind, several in starts.items():
        for num_hops in (1, 2):
            few = several if kind == "one user" else several[: max(1, args.queries // 5)]
            rows += compare(graph, edge_index, kind, few, num_hops, args.rounds)
    report = {
        "what": "balls and subgraphs of requests against torch_geometric.utils.k_hop_subgraph, medians over requests",
        "command": "python benchmarks/subgraph.py" + (f" --device {args.device}" if args.device != "cpu" else ""),
        "graph": {
            "users": shape[0],
            "items": shape[1],
            "interactions": graph.num_interactions,
            "popularity_exponent": args.popularity_exponent,
            "seed": 0,
        },
        "generate_seconds": round(seconds, 2),
        "build_adjacency_milliseconds": round(statistics.median(built), 1),
        "environment": environment(device),
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")

    print(f"{graph.num_interactions:,} interactions of {shape[0]:,} users with {shape[1]:,} items")
    print(f"adjacency, built once: {report['build_adjacency_milliseconds']} ms\n")
    print(f"{'':16}{'request':>18}{'hops':>6}{'median size':>13}{'ms':>10}{'PyG ms':>10}{'times':>9}")
    for row in rows:
        print(
            f"{row['function']:16}{row['request']:>18}{row['num_hops']:6}{row['median_size']:13,.0f}"
            f"{row['milliseconds']:10.3f}{row['pyg_milliseconds']:10.1f}{row['speedup']:9,.0f}"
        )


if __name__ == "__main__":
    main()
