"""Many processes on one ledger: is every request served once, and is none refused, while others read all the time?

Every writer forgets its own users one after another from one run folder, which each request replaces, and reads the
ledger after each of them. Every reader reads entries, pending request and chain of hashes without a pause. At the end
the ledger is verified, and the bytes of its files are searched for the ids.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import graphunlearn as gu
from graphunlearn.nn import FitSettings
from graphunlearn.runs import ModelSpec, Run

PER_WRITER = 2000


def write(folder: Path, mine: int, seconds: float, told: Any) -> None:
    """Forget one user after another until the time is over, and tell what came of it."""
    torch.set_num_threads(1)
    ledger, served, refused = gu.Ledger(folder / "ledger.db", budget=None), [], []
    end, longest = time.monotonic() + seconds, 0.0
    for k in range(PER_WRITER):
        if time.monotonic() > end:
            break
        name, start = f"reader-{mine}-{k}", time.monotonic()
        try:
            with ledger:
                run = Run.load(folder / "live")

                def save(result: gu.UnlearningResult, run: Run = run) -> None:
                    after = replace(run, model=result.model, train=result.graph)
                    after.save(folder / "live", overwrite=True)

                ledger.unlearn(gu.Unlink(), run.model, run.train, gu.ForgetRequest("user", [name]), save=save)
            ledger.entries()
            served.append(name)
        except (ValueError, OSError) as error:
            refused.append(f"{type(error).__name__}: {error}")
        longest = max(longest, time.monotonic() - start)
    told.put(("writer", served, refused, longest))


def read(folder: Path, seconds: float, told: Any) -> None:
    """Read without a pause until the time is over, and tell how often."""
    torch.set_num_threads(1)
    end, count, refused = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        try:
            ledger = gu.Ledger(folder / "ledger.db")
            ledger.verify()
            ledger.pending  # noqa: B018
            count += 1
        except (ValueError, OSError) as error:
            refused.append(f"{type(error).__name__}: {error}")
    told.put(("reader", count, refused, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8, help="writers")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    users = [f"reader-{p}-{k}" for p in range(args.processes) for k in range(PER_WRITER)]
    others = gu.datasets.synthetic_interactions(num_users=200, num_items=60, interactions_per_user=5, seed=0).to_frame()
    frame = others[["user", "item"]].astype(str)
    own = frame.sample(len(users), replace=True, random_state=0).assign(user=users)
    graph = gu.InteractionGraph.from_frame(pd.concat([frame, own], ignore_index=True))
    spec = ModelSpec("lightgcn", 4, 1)
    Run(spec, spec.build(graph), graph, graph, graph, gu.BPR(), FitSettings()).save(folder / "live")
    gu.Ledger(folder / "ledger.db")
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    jobs = [(write, (folder, k, args.seconds, told)) for k in range(args.processes)]
    jobs += [(read, (folder, args.seconds, told)) for _ in range(args.readers)]
    running = [context.Process(target=target, args=given) for target, given in jobs]
    for process in running:
        process.start()
    found = [told.get() for _ in running]
    for process in running:
        process.join()
    served = [name for kind, names, _, _ in found if kind == "writer" for name in names]
    ledger, run = gu.Ledger(folder / "ledger.db"), Run.load(folder / "live")
    left = {run.train.user_ids[node] for node in run.train.pairs[0].unique().tolist()}
    raw = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    digests = [entry.digest for entry in ledger.entries()]
    report = {
        "processes": args.processes,
        "readers": args.readers,
        "seconds": args.seconds,
        "served": len(served),
        "served_by_each": sorted(len(names) for kind, names, _, _ in found if kind == "writer"),
        "refused": sum(len(refused) for _, _, refused, _ in found),
        "entries": ledger.verify(run.model),
        "duplicates": len(digests) - len(set(digests)),
        "still_in_the_data": len(left & set(served)),
        "lost_without_a_request": len(set(users) - left - set(served)),
        "reads": sum(count for kind, count, _, _ in found if kind == "reader"),
        "longest_wait": round(max(longest for _, _, _, longest in found), 2),
        "ids_in_the_ledger": raw.count(b"reader-"),
        "files": sorted(path.name for path in folder.iterdir()),
        "first_refusals": [text for _, _, refused, _ in found for text in refused][:3],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
