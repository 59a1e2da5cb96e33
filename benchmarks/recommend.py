"""``recommend`` for all users of Gowalla, against chunked products and ``topk``, each in a process of its own.

    python benchmarks/recommend.py

Both encode the model, and leave out what a user has. CPU seconds are medians over processes; the peak is that of the
resident memory above what is there once the model, the graph and its normalised adjacency are loaded. The model has
random parameters, on which neither depends. The yardstick takes the fastest of several chunk sizes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import implicit, save
from torch import Tensor

import graphunlearn as gu
from graphunlearn.nn import build_model

CHUNKS = (128, 256, 1024)


@torch.no_grad()
def plain(model: torch.nn.Module, graph: gu.InteractionGraph, k: int, chunk: int) -> Tensor:
    """Return the best items of all users by one product and one ``topk`` per chunk."""
    users, items, *_ = gu.encode(model, graph)
    found = []
    for batch in torch.arange(graph.num_users).split(chunk):
        scores = users[batch] @ items.t()
        scores[graph.seen(batch)] = -torch.inf
        found.append(scores.topk(k).indices)
    return torch.cat(found)


def status(name: str) -> float:
    """Return an entry of the process's status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def worker(args: argparse.Namespace) -> None:
    """Measure one way in this process, and print the figures."""
    torch.set_num_threads(args.threads)
    graph, _ = implicit("gowalla")
    torch.manual_seed(0)
    model = build_model("lightgcn", graph, 64, 3).eval()
    graph.adjacency.normalized()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, cpu, wall = status("VmRSS"), time.process_time(), time.perf_counter()
    found = plain(model, graph, args.k, args.worker) if args.worker else gu.recommend(model, graph, args.k)
    cpu, wall, peak = time.process_time() - cpu, time.perf_counter() - wall, status("VmHWM") - before
    same = (
        float(
            (found[:512] == plain(model, graph.select(torch.arange(graph.num_interactions)), args.k, 512)[:512])
            .float()
            .mean()
        )
        if args.check
        else None
    )
    print(json.dumps({"cpu_seconds": cpu, "seconds": wall, "peak_mb": peak, "agreement": same}))


def measured(threads: int, chunk: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the medians over processes."""
    command = [sys.executable, __file__, "--worker", str(chunk), "--threads", str(threads), "--k", str(args.k)]
    rows = []
    for number in range(args.rounds):
        check = ["--check"] if number == 0 and not chunk else []
        done = subprocess.run([*command, *check], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {name: statistics.median(r[name] for r in rows) for name in ("cpu_seconds", "seconds", "peak_mb")}
    return {"threads": threads, "chunk": chunk or None, **medians, "agreement": rows[0]["agreement"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        args.threads = args.threads[0]
        worker(args)
        return
    out = []
    for threads in args.threads:
        ours = measured(threads, 0, args)
        others = [measured(threads, chunk, args) for chunk in CHUNKS]
        ours["ratio"] = min(other["cpu_seconds"] for other in others) / ours["cpu_seconds"]
        ours["ratio_of_wall"] = min(other["seconds"] for other in others) / ours["seconds"]
        out += [ours, *others]
        for row in out[-len(others) - 1 :]:
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    save("recommend", out)


if __name__ == "__main__":
    main()
