"""Interactions by the ten million on one machine: read, train, forget, recommend; seconds of CPU and peak memory.

The data are synthetic, with a popularity that follows a power law. A model is trained for a fixed number of steps, and
what an epoch would take is extrapolated from them. Every stage is a process of its own, so that its peak memory is its
own: that of the whole process, with Python and the libraries (``floor_mb``), and above what is loaded for it. A process
that needs more than ``--limit-mb`` fails, and this is recorded. Stages that are in the results are not run again.
Memory comes in large pages, as that of the command line does. CPU seconds of the system are given by themselves: where
a virtual machine gets its memory at the first touch and gives it back when it is freed, they can be more than the rest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, implicit, save
from safetensors.torch import load_file, save_file

import graphunlearn as gu
from graphunlearn.nn import FitSettings, build_model, reset_parameters

METHODS: dict[str, Callable[[], gu.Unlearner]] = {"unlink": gu.Unlink, "calibrate": gu.Calibrate, "ifru": gu.IFRU}
REQUESTS = ("one user", "0.1 %")
GOWALLA = "one epoch on gowalla"
STAGES = (
    "make",
    "read parquet",
    "read csv",
    "train",
    "recommend",
    *(f"{method}, {request}" for method in METHODS for request in REQUESTS),
)
CHUNK = 1_000_000


class FewSteps(gu.BPR):
    """BPR of which training takes only the first steps of an epoch."""

    steps = 50

    def batches(self, samples: Any, size: int, generator: torch.Generator) -> Iterator[Any]:
        yield from itertools.islice(super().batches(samples, size, generator), self.steps)


def peak_mb() -> float:
    """Return the largest resident memory of this process since the last reset."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def reset_peak() -> float:
    """Start anew with the peak memory, and return what is resident."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def measured(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the result of a call, its seconds, and its peak memory."""
    before, wall, cpu, system = reset_peak(), time.perf_counter(), time.process_time(), os.times().system
    found = call()
    cost = {"cpu_seconds": time.process_time() - cpu, "system_cpu_seconds": os.times().system - system}
    cost |= {"seconds": time.perf_counter() - wall, "peak_mb": peak_mb()}
    return found, cost | {"peak_above_loaded_mb": cost["peak_mb"] - before, "loaded_mb": before}


def make(interactions: int, folder: Path) -> dict[str, Any]:
    """Draw interactions and write them as Parquet and as CSV."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    graph = gu.datasets.synthetic_interactions(
        interactions // 34, interactions // 25, 34, popularity_exponent=0.5, seed=0
    )
    users, items = graph.pairs.split(1)
    assert graph.time is not None
    writer = None
    for start in range(0, graph.num_interactions, CHUNK):
        part = slice(start, start + CHUNK)
        frame = pd.DataFrame({"user_id": users[0, part].numpy(), "item_id": items[0, part].numpy()})
        frame = frame.assign(timestamp=graph.time[part].numpy())
        frame.to_csv(folder / "data.csv", mode="a" if start else "w", header=not start, index=False)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(folder / "data.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    degree = graph.adjacency.degree
    return {
        "interactions": graph.num_interactions,
        "users": graph.num_users,
        "items": graph.num_items,
        "most_of_a_user": int(degree[: graph.num_users].max()),
        "most_of_an_item": int(degree[graph.num_users :].max()),
        "bytes": {name: (folder / name).stat().st_size for name in ("data.parquet", "data.csv")},
    }


def load(folder: Path, dim: int, layers: int) -> tuple[torch.nn.Module, gu.InteractionGraph]:
    """Return the trained model and the graph."""
    graph = gu.InteractionGraph.from_file(folder / "data.parquet")
    model = build_model("lightgcn", graph, dim, layers)
    if (folder / "model.safetensors").exists():
        model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), graph


def train(model: torch.nn.Module, graph: gu.InteractionGraph, steps: int, folder: Path) -> dict[str, Any]:
    """Train for some steps, and extrapolate to an epoch."""
    reset_parameters(model, 0)
    FewSteps.steps = steps
    settings = FitSettings(epochs=1)
    _, cost = measured(lambda: gu.fit(model, graph, objective=FewSteps(), settings=settings, progress=False))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    per_step = cost["cpu_seconds"] / steps
    in_epoch = -(-graph.num_interactions // settings.batch_size)
    return cost | {
        "steps": steps,
        "batch_size": settings.batch_size,
        "interactions_per_cpu_second": settings.batch_size / per_step,
        "steps_of_an_epoch": in_epoch,
        "cpu_seconds_of_an_epoch_extrapolated": in_epoch * per_step,
    }


def request_of(graph: gu.InteractionGraph, name: str) -> gu.ForgetRequest:
    """Return the user with the median number of interactions, or a random thousandth of the interactions."""
    if name == "one user":
        order = graph.adjacency.degree[: graph.num_users].argsort(stable=True)
        return gu.ForgetRequest.internal("user", order[len(order) // 2].view(1))
    chosen = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(0))
    return gu.ForgetRequest.internal("interaction", graph.pairs[:, chosen[: graph.num_interactions // 1000]])


def forget(model: torch.nn.Module, graph: gu.InteractionGraph, method: str, request: str) -> dict[str, Any]:
    """Forget by one method, with a model that was not prepared; and again, with what the first call has kept."""
    wanted, used = request_of(graph, request), METHODS[method]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result, cost = measured(lambda: used.unlearn(model, graph, wanted))
        _, again = measured(lambda: used.unlearn(model, graph, wanted))
    return cost | {
        "again": again,
        "forgotten": len(wanted),
        "accepted": result.accepted,
        "parts": {name: value for name, value in result.log.items() if isinstance(value, int | float | str | bool)},
        "warnings": [str(warning.message) for warning in caught],
    }


def gowalla(dim: int, layers: int) -> dict[str, Any]:
    """Train LightGCN on Gowalla for an epoch."""
    graph, _ = implicit("gowalla")
    model = build_model("lightgcn", graph, dim, layers)
    graph.adjacency.normalized()
    return measured(lambda: gu.fit(model, graph, epochs=1, progress=False))[1]


def stage(
    name: str, interactions: int, folder: Path, steps: int, dim: int, layers: int, limit_mb: int
) -> dict[str, Any]:
    """Run one stage in this process."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_mb * 2**20, limit_mb * 2**20))
    floor = {"floor_mb": reset_peak()}
    if name == GOWALLA:
        return floor | gowalla(dim, layers)
    if name == "make":
        found, cost = measured(lambda: make(interactions, folder))
        return floor | cost | found
    if name.startswith("read"):
        file = folder / f"data.{name.split()[1]}"
        graph, cost = measured(lambda: gu.InteractionGraph.from_file(file))
        _, more = measured(lambda: graph.adjacency)
        resident = {"resident_mb": reset_peak(), "adjacency_cpu_seconds": more["cpu_seconds"]}
        return floor | cost | resident
    model, graph = load(folder, dim, layers)
    graph.adjacency.normalized()
    if name == "train":
        return floor | train(model, graph, steps, folder)
    if name == "recommend":
        users = torch.arange(min(10_000, graph.num_users))
        _, cost = measured(lambda: gu.recommend(model, graph, k=20, users=users))
        return floor | cost | {"users": len(users), "k": 20}
    method, request = name.split(", ")
    return floor | forget(model, graph, method, request)


def not_run(results: dict[str, Any]) -> list[str]:
    """Return which stages have no figures."""
    sizes = ("10000000", "20000000")
    return [f"{size}: {name}" for size in sizes for name in STAGES if name not in results.get(size, {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000_000, 20_000_000])
    parser.add_argument("--folder", type=Path, required=True, help="where the data and the models are written")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--limit-mb", type=int, default=9000, help="largest memory of a process")
    parser.add_argument("--stages", nargs="*", choices=[GOWALLA, *STAGES], default=list(STAGES))
    parser.add_argument("--gowalla", action="store_true", help="also train for an epoch on Gowalla")
    parser.add_argument("--inside", action="store_true", help="run one stage of one size in this process")
    args = parser.parse_args()
    if args.inside:
        found = stage(args.stages[0], args.sizes[0], args.folder, args.steps, args.dim, args.layers, args.limit_mb)
        print(json.dumps(found))
        return
    path = RESULTS / "large.json"
    results: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    cells = [(size, name) for size in args.sizes for name in args.stages]
    for size, name in [(0, GOWALLA)] * args.gowalla + cells:
        cell = results.setdefault(str(size) if size else "gowalla", {"dim": args.dim, "layers": args.layers})
        if name in cell:
            continue
        folder = args.folder / str(size)
        folder.mkdir(parents=True, exist_ok=True)
        own = ["--sizes", str(size), "--folder", str(folder), "--steps", str(args.steps), "--dim", str(args.dim)]
        own += ["--layers", str(args.layers), "--limit-mb", str(args.limit_mb), "--inside", "--stages", name]
        env = {"THP_MEM_ALLOC_ENABLE": "1", **os.environ}
        done = subprocess.run([sys.executable, __file__, *own], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            cell[name] = {"failed": done.returncode, "why": done.stderr.strip().splitlines()[-1:]}
        else:
            cell[name] = json.loads(done.stdout.splitlines()[-1])
        print(size or "gowalla", name, cell[name], flush=True)
        save("large", results | {"not_run": not_run(results)})


if __name__ == "__main__":
    main()
