"""Two processes of one thread against one process of one thread: training steps and IFRU, with the bytes they exchange.

The parent writes synthetic interactions to a Parquet folder, sorted by user, and starts the processes, which read their
parts of it. One process runs the code for one process, several run ``graphunlearn.distributed``. Each measures the wall
and CPU seconds of some training steps and of forgetting every thousandth user, and its peak memory. The parent compares
the parameters, and the bytes with the cost model of docs/distributed.md. On a machine that others use, wall seconds say
little; CPU seconds per rank bound what a quiet machine reaches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import save
from safetensors.torch import load_file, save_file
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.distributed import Ranks, build_part, read_part, unlearn, whole_model
from graphunlearn.distributed.fitting import ShardObjective
from graphunlearn.nn import reset_parameters

PER_USER, ROW_GROUP = 50, 500_000


def write(folder: Path, interactions: int) -> None:
    """Write interactions of users with items of skewed popularity, sorted by user, a million rows at a time."""
    import pandas as pd

    users = interactions // PER_USER
    items = max(1_000, users // 2)
    generator = torch.Generator().manual_seed(0)
    at_once = 1_000_000 // PER_USER
    for number, first in enumerate(range(0, users, at_once)):
        user = torch.arange(first, min(first + at_once, users)).repeat_interleave(PER_USER)
        item = (items * torch.rand(len(user), generator=generator).square()).long()
        frame = pd.DataFrame({"user": user.int().numpy(), "item": item.int().numpy()})
        frame.to_parquet(folder / f"{number:05}.parquet", row_group_size=ROW_GROUP)


def timed(ranks: Ranks, call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the result of a call, and its seconds, CPU seconds and the bytes and sums of this rank."""
    ranks.agree()
    wall, cpu, sent, sums = time.perf_counter(), time.process_time(), ranks.bytes, ranks.sums
    found = call()
    spent = {"cpu_seconds": time.process_time() - cpu}
    ranks.agree()
    return found, spent | {
        "seconds": time.perf_counter() - wall,
        "bytes": ranks.bytes - sent,
        "sums": ranks.sums - sums,
    }


def step(model: Any, graph: Any, objective: Any, optimizer: Any, batches: Any, count: int) -> None:
    """Train for some steps."""
    for batch in islice(batches, count):
        loss = objective.losses(model, graph, batch).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def work(folder: Path, out: Path, dim: int, layers: int, steps: int) -> None:
    """Measure as one of several processes, or as the only one, and write the figures to a folder."""
    torch.set_num_threads(1)
    ranks = Ranks.join(timeout=3600)
    part, reading = timed(ranks, lambda: read_part(folder, ranks))
    graph: Any = part if ranks.world > 1 else part.whole()
    objective: Any = gu.BPR()
    model: Any
    if ranks.world > 1:
        objective = ShardObjective(objective, ranks)
        model = build_part("lightgcn", graph, dim, layers, seed=0)
    else:
        del part
        model = LightGCN(graph.num_nodes, dim, layers)
        reset_parameters(model, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    samples = objective.samples(graph)
    batches = objective.batches(samples, 8192, torch.Generator().manual_seed(1))

    take = partial(step, model, graph, objective, optimizer, batches)
    take(1)  # adjacencies are built in the first step
    _, training = timed(ranks, partial(take, steps))
    optimizer.zero_grad(set_to_none=True)
    del samples, batches, optimizer, take
    users = graph.part.num_all_users if ranks.world > 1 else graph.num_users
    request = gu.ForgetRequest("user", [str(number) for number in range(0, users, 1000)])
    # after a few steps, no correction need be accepted, and the default tolerance is reached in one product
    method = gu.IFRU(on_rejection="keep", refit=False, tol=1e-3)
    run = (
        (lambda: unlearn(method, model, graph, request))
        if ranks.world > 1
        else (lambda: method.unlearn(model, graph, request))
    )
    result, forgetting = timed(ranks, run)
    forgetting |= {"seconds": result.seconds, "cpu_seconds": result.cpu_seconds}  # without checks of arguments
    forgetting |= {"iterations": result.log["steps"][0]["iterations"], "residual": result.log["steps"][0]["residual"]}
    figures = {"read": reading, "training": training, "ifru": forgetting, "users": graph.num_users}
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["items"], figures["interactions"] = graph.num_items, graph.num_interactions
    (out / f"{ranks.rank}.json").write_text(json.dumps(figures))
    for name, found in (("trained", model), ("corrected", result.model)):
        whole = whole_model(found, graph) if ranks.world > 1 else found
        if whole is not None:
            tables = {key: p.detach().contiguous() for key, p in whole.named_parameters()}
            save_file(tables, out / f"{name}.safetensors")
    ranks.leave()


def start(world: int, folder: Path, out: Path, options: list[str]) -> list[dict[str, Any]]:
    """Start the processes, and return the figures of every rank."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    out.mkdir()
    started = []
    for rank in range(world):
        own = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, __file__, "--work", str(folder), str(out), *options]
        started.append(subprocess.Popen(command, env={**os.environ, **own, "OMP_NUM_THREADS": "1"}))
    if any(process.wait() for process in started):
        sys.exit("a rank failed")
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]


def model_bytes(figures: dict[str, Any], dim: int, layers: int, what: str) -> float:
    """Return the bytes that the cost model expects of the item table in sums over ranks."""
    table = 4 * figures["items"] * dim
    if what == "training":
        return table * (2 * layers + 2)
    products = (figures["ifru"]["iterations"] + 1) * (2 * layers + 1)  # conjugate gradients, and a last residual
    gradients = 5 * (2 * layers + 2)  # two of the step, three of its acceptance
    return table * (products + gradients + (2 * layers + 1) + 5 * layers)  # the diagonal, and encodings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--interactions", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--name", default="distributed", help="name of the file of results")
    given = parser.parse_args()
    if given.work:
        work(*given.work, given.dim, given.layers, given.steps)
        return
    options = ["--dim", str(given.dim), "--layers", str(given.layers), "--steps", str(given.steps)]
    results: dict[str, Any] = {"dim": given.dim, "layers": given.layers, "steps": given.steps}
    for interactions in given.interactions:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data").mkdir()
            write(folder / "data", interactions)
            found: dict[int, Any] = {}
            for world in given.ranks:
                load = os.getloadavg()[0]
                ranks = start(world, folder / "data", folder / f"out{world}", options)
                found[world] = {"load_before": load, "ranks": ranks}
                for what in ("training", "ifru"):
                    per = given.steps if what == "training" else 1
                    expected = model_bytes(ranks[0], given.dim, given.layers, what) * per if world > 1 else 0
                    found[world][f"{what}_model_bytes"] = expected
                print(json.dumps({interactions: {world: found[world]}}, indent=1), flush=True)
            if len(found) > 1:
                found["ratios"] = _ratios(found, folder, given.ranks)
                print(json.dumps(found["ratios"], indent=1), flush=True)
            results[str(interactions)] = {str(key): value for key, value in found.items()}
        save(given.name, results)


def _ratios(found: dict[Any, Any], folder: Path, worlds: list[int]) -> dict[str, Any]:
    """Return how many times faster several ranks are than one, and how far their parameters are apart."""
    first, *others = worlds
    ratios: dict[str, Any] = {}
    for world in others:
        for what in ("training", "ifru"):
            one, several = found[first]["ranks"][0][what], [rank[what] for rank in found[world]["ranks"]]
            key = f"{what} on {world}"
            ratios[key] = {
                "wall": one["seconds"] / max(rank["seconds"] for rank in several),
                "cpu": one["cpu_seconds"] / max(rank["cpu_seconds"] for rank in several),
            }
        for name in ("trained", "corrected"):
            tables = [load_file(folder / f"out{n}" / f"{name}.safetensors")["embedding.weight"] for n in (first, world)]
            apart = (tables[0] - tables[1]).norm() / tables[0].norm()
            ratios[f"{name} on {world}"] = {"relative_difference": float(apart)}
    assert all(math.isfinite(value) for entry in ratios.values() for value in entry.values())
    return ratios


if __name__ == "__main__":
    main()
