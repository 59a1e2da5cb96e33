"""Two processes of one thread against one process of one thread: training steps and IFRU, with the bytes they exchange.

The parent writes synthetic interactions to a Parquet folder, sorted by user, and starts the processes, which read their
parts of it. One process runs the code for one process, several run ``graphunlearn.distributed``. Each measures the wall
and CPU seconds of some training steps and of forgetting every thousandth user, and its peak memory. The parent compares
the parameters, and the bytes with the cost model of docs/distributed.md. On a machine that others use, wall seconds say
little; CPU seconds per rank bound what a quiet machine reaches. Memory comes in large pages, as that of the command
line does.
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


def write(folder: Path, interactions: int, catalogue: int | None) -> None:
    """Write interactions of users with items of skewed popularity, sorted by user, a million rows at a time."""
    import pandas as pd

    users = interactions // PER_USER
    items = max(1_000, users // 2) if catalogue is None else catalogue
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
    wall, cpu, added, sums, sent = time.perf_counter(), time.process_time(), ranks.bytes, ranks.sums, ranks.sent
    found = call()
    spent = {"cpu_seconds": time.process_time() - cpu}
    ranks.agree()
    return found, spent | {
        "seconds": time.perf_counter() - wall,
        "bytes": ranks.bytes - added,
        "sums": ranks.sums - sums,
        "sent": ranks.sent - sent,
    }


def peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(model: Any, graph: Any, objective: Any, optimizer: Any, batches: Any, count: int) -> None:
    """Train for some steps."""
    for batch in islice(batches, count):
        loss = objective.losses(model, graph, batch).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def work(folder: Path, out: Path, dim: int, layers: int, steps: int, items: str, trains_only: bool) -> None:
    """Measure as one of several processes, or as the only one, and write the figures to a folder."""
    torch.set_num_threads(1)
    ranks = Ranks.join(timeout=3600)
    part, reading = timed(ranks, lambda: read_part(folder, ranks, items=items))
    reading["peak_mb"] = peak()
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
    expected = model_sent(graph, objective, samples, dim, layers, steps) if items == "sharded" else 0
    _, training = timed(ranks, partial(take, steps))
    training["peak_mb"] = peak()
    optimizer.zero_grad(set_to_none=True)
    del samples, batches, optimizer, take
    figures = {"read": reading, "training": training, "users": graph.num_users, "items": graph.num_items}
    figures |= {"interactions": graph.num_interactions, "training_model_sent": expected}
    tables = {"trained": model}
    if not trains_only:
        tables["corrected"], figures["ifru"] = forget(model, graph, ranks)
    figures["peak_mb"] = peak()
    (out / f"{ranks.rank}.json").write_text(json.dumps(figures))
    for name, found in tables.items():
        whole = whole_model(found, graph) if ranks.world > 1 else found
        if whole is not None:
            save_file(
                {key: p.detach().contiguous() for key, p in whole.named_parameters()}, out / f"{name}.safetensors"
            )
    ranks.leave()


def forget(model: Any, graph: Any, ranks: Ranks) -> tuple[Any, dict[str, float]]:
    """Return the model without every thousandth user, and what forgetting took."""
    users = graph.part.num_all_users if ranks.world > 1 else graph.num_users
    request = gu.ForgetRequest("user", [str(number) for number in range(0, users, 1000)])
    # after a few steps, no correction need be accepted, and the default tolerance is reached in one product
    method = gu.IFRU(on_rejection="keep", refit=False, tol=1e-3, within_noise=0)
    run = (
        (lambda: unlearn(method, model, graph, request))
        if ranks.world > 1
        else (lambda: method.unlearn(model, graph, request))
    )
    result, forgetting = timed(ranks, run)
    forgetting |= {"seconds": result.seconds, "cpu_seconds": result.cpu_seconds}  # without checks of arguments
    forgetting |= {"iterations": result.log["steps"][0]["iterations"], "residual": result.log["steps"][0]["residual"]}
    return result.model, forgetting


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
        started.append(
            subprocess.Popen(command, env={"THP_MEM_ALLOC_ENABLE": "1", **os.environ, **own, "OMP_NUM_THREADS": "1"})
        )
    if any(process.wait() for process in started):
        sys.exit("a rank failed")
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]


def model_bytes(figures: dict[str, Any], dim: int, layers: int, what: str) -> float:
    """Return the bytes that the cost model expects of the item table in sums over ranks."""
    table = 4 * figures["items"] * dim
    if what == "training":
        return table * (2 * layers + 2)
    products = figures["ifru"]["iterations"] * (2 * layers + 1)
    gradients = 2 * (2 * layers + 1) + 3 * (2 * layers + 2)  # two of the step, three of its acceptance
    return table * (products + gradients + (layers + 1) + 4 * layers)  # the diagonal, and encodings


def model_sent(graph: Any, objective: Any, samples: Any, dim: int, layers: int, steps: int) -> float:
    """Return the bytes that the cost model expects a rank to ask others for and to return to them in training."""
    held = graph.item_rows

    def foreign(items: torch.Tensor) -> int:
        known = items.unique()
        return int(((known < held.first) | (known >= held.last)).sum())

    batches = islice(objective.batches(samples, 8192, torch.Generator().manual_seed(1)), 1, steps + 1)
    used = [foreign(torch.cat([batch.own.items, batch.own.negatives.flatten()])) for batch in batches]
    of_layers = 16 * layers * dim * foreign(graph.pairs[1])
    return steps * (of_layers + 8 * (graph.ranks.world - 1)) + sum(used) * (16 * dim + 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--interactions", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--trains-only", action="store_true", help="measure training alone")
    parser.add_argument("--catalogue", type=int, help="number of items; by default one for two users")
    parser.add_argument("--items", nargs="+", default=["replicated"], help="the ways to hold rows of items on ranks")
    parser.add_argument("--name", default="distributed", help="name of the file of results")
    given = parser.parse_args()
    if given.work:
        work(*given.work, given.dim, given.layers, given.steps, given.items[0], given.trains_only)
        return
    results: dict[str, Any] = {name: getattr(given, name) for name in ("dim", "layers", "steps")}
    options = [text for name, value in results.items() for text in (f"--{name}", str(value))]
    options += ["--trains-only"] if given.trains_only else []
    measured = ["training"] if given.trains_only else ["training", "ifru"]
    ways = [(world, items) for world in given.ranks for items in (given.items if world > 1 else ["replicated"])]
    for interactions in given.interactions:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data").mkdir()
            write(folder / "data", interactions, given.catalogue)
            found: dict[str, Any] = {}
            for world, items in ways:
                load, way = os.getloadavg()[0], _name(world, items)
                ranks = start(world, folder / "data", folder / f"out {way}", [*options, "--items", items])
                found[way] = {"load_before": load, "ranks": ranks}
                if items == "sharded":
                    found[way]["training_model_sent"] = sum(rank["training_model_sent"] for rank in ranks)
                else:
                    for what in measured:
                        per = given.steps if what == "training" else 1
                        expected = model_bytes(ranks[0], given.dim, given.layers, what) * per if world > 1 else 0
                        found[way][f"{what}_model_bytes"] = expected
                print(json.dumps({interactions: {way: found[way]}}, indent=1), flush=True)
            if len(found) > 1:
                found["ratios"] = _ratios(found, folder, [_name(*way) for way in ways])
                print(json.dumps(found["ratios"], indent=1), flush=True)
            results[str(interactions)] = found
        save(given.name, results)


def _name(world: int, items: str) -> str:
    return f"{world} {items}" if items == "sharded" else str(world)


def _ratios(found: dict[str, Any], folder: Path, ways: list[str]) -> dict[str, Any]:
    """Return how many times faster several ranks are than one, and how far their parameters are apart."""
    first, *others = ways
    ratios: dict[str, Any] = {}
    for way in others:
        for what in [name for name in ("training", "ifru") if name in found[way]["ranks"][0]]:
            one, several = found[first]["ranks"][0][what], [rank[what] for rank in found[way]["ranks"]]
            key = f"{what} on {way}"
            ratios[key] = {
                "wall": one["seconds"] / max(rank["seconds"] for rank in several),
                "cpu": one["cpu_seconds"] / max(rank["cpu_seconds"] for rank in several),
            }
        for name in [path.stem for path in sorted((folder / f"out {way}").glob("*.safetensors"))]:
            tables = [load_file(folder / f"out {n}" / f"{name}.safetensors")["embedding.weight"] for n in (first, way)]
            apart = (tables[0] - tables[1]).norm() / tables[0].norm()
            ratios[f"{name} on {way}"] = {"relative_difference": float(apart)}
    assert all(math.isfinite(value) for entry in ratios.values() for value in entry.values())
    return ratios


if __name__ == "__main__":
    main()
