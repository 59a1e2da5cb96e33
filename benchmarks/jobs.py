"""A deletion job on a large graph of edges: how long does it take, and how much memory beside that of the graph?

A run folder of random interactions is written, and a job submitted and worked off by the command line, each in a
process of its own. Memory is the peak of the process above what it has after the imports; the graph is its pairs, its
adjacency and the text of its ids.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import graphunlearn as gu
from graphunlearn.nn import FitSettings
from graphunlearn.runs import ModelSpec, Run

CHILD = """
import json, sys, time
import torch, pandas, graphunlearn as gu
import graphunlearn.cli, graphunlearn.jobs, graphunlearn.operators
torch.zeros(1)
def peak():
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
before, start = peak(), time.perf_counter()
status = graphunlearn.cli.main(sys.argv[1:])
seconds = time.perf_counter() - start
print(json.dumps({"status": status, "seconds": seconds, "peak": peak() - before, "imports": before}), file=sys.stderr)
"""


def timed(*words: object) -> dict[str, Any]:
    """Run a command in a process of its own, and return its time and its peak of memory."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD, *map(str, words)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(made.stderr)
    sys.stdout.write(made.stdout)
    told: dict[str, Any] = json.loads(made.stderr.strip().splitlines()[-1])
    assert told["status"] == 0
    return told


def random_graph(interactions: int) -> gu.InteractionGraph:
    """Return distinct pairs of ten times fewer users and a hundred times fewer items, some of them far more popular."""
    generator = torch.Generator().manual_seed(0)
    users, items = interactions // 10, interactions // 100
    draws = int(interactions * 1.15)
    user = torch.randint(users, (draws,), generator=generator)
    item = (torch.rand(draws, generator=generator).square() * items).long()
    codes = (user * items + item).unique()
    codes = codes[torch.randperm(codes.numel(), generator=generator)[:interactions]].sort().values
    return gu.InteractionGraph.from_edges(torch.stack([codes // items, codes % items]), users, items)


def size_of(graph: gu.InteractionGraph) -> dict[str, int]:
    """Return the bytes of the pairs, of the adjacency, and of the ids."""
    adjacency = vars(graph.adjacency).values()
    ids = [*graph.user_ids, *graph.item_ids]
    return {
        "pairs": graph.pairs.numel() * graph.pairs.element_size(),
        "adjacency": sum(part.numel() * part.element_size() for part in adjacency if isinstance(part, torch.Tensor)),
        "ids": sum(map(sys.getsizeof, ids)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=10_000)
    parser.add_argument("--level", default="interaction", choices=("user", "interaction"))
    parser.add_argument("--model", default="mf", choices=("mf", "lightgcn"))
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument(
        "--epochs", type=int, default=10, help="of training; the work on a model that was not trained is more"
    )
    parser.add_argument("--method", default="calibrate")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    graph = random_graph(args.interactions)
    spec = ModelSpec(args.model, args.dim, 2)
    model, none = spec.build(graph), graph.select(torch.zeros(graph.num_interactions, dtype=torch.bool))
    gu.fit(model, graph, epochs=args.epochs, batch_size=16384, lr=0.03)
    Run(spec, model, graph, none, none, gu.BPR(), FitSettings()).save(folder / "live")
    generator = torch.Generator().manual_seed(1)
    if args.level == "user":
        chosen = torch.randperm(graph.num_users, generator=generator)[: args.ids].tolist()
        rows = ["user", *map(str, chosen)]
    else:
        chosen = torch.randperm(graph.num_interactions, generator=generator)[: args.ids]
        rows = ["user,item", *(f"{u},{i}" for u, i in graph.pairs[:, chosen].t().tolist())]
    (folder / "ids.csv").write_text("\n".join(rows) + "\n")
    size = size_of(graph)
    del graph, none, model
    ledger, due = folder / "ledger.db", datetime.now(timezone.utc).date().isoformat()
    given = ("--ids", folder / "ids.csv", "--due", due, "--run", folder / "live", "--level", args.level)
    start = time.perf_counter()
    submitted = timed("job", "submit", *given, "--ledger", ledger)
    worked = timed("job", "run", "--ledger", ledger, "--method", args.method)
    report = vars(args) | {
        "graph_mb": {name: round(value / 2**20, 1) for name, value in size.items()},
        "submit_seconds": round(submitted["seconds"], 1),
        "submit_peak_mb": round(submitted["peak"] / 2**20, 1),
        "run_seconds": round(worked["seconds"], 1),
        "run_peak_mb": round(worked["peak"] / 2**20, 1),
        "imports_mb": round(worked["imports"] / 2**20, 1),
        "run_peak_per_graph": round(worked["peak"] / sum(size.values()), 2),
        "file_of_jobs_mb": round((folder / "ledger.db.jobs").stat().st_size / 2**20, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
