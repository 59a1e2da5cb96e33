"""Models that forget exactly: the CPU time of forgetting against that of fitting anew, and what the two differ by.

Users of ML-100K and Last.fm leave one after another, and so do sessions of Yoochoose. After the last request, the model
is compared with one that is fitted to the retained data, by the largest difference relative to the largest score. Both
times include taking the data out of the graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from dataclasses import fields
from typing import Any

import torch
from common import data, implicit, save

import graphunlearn as gu
from graphunlearn.nn.floors import ALS, EASE, Floor, ItemKNN, Markov, SessionKNN, measure_floor

QUERIES = 500  # users or prefixes whose scores are compared


def sessions() -> tuple[gu.SessionGraph, gu.SessionGraph]:
    """Return training and test sessions of Yoochoose."""
    folder = data("yoochoose-100k")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = gu.SessionGraph.from_file(folder / "yoochoose-clicks-100k_train_full.txt")
        test = gu.SessionGraph.from_file(folder / "yoochoose-clicks-100k_test.txt", like=graph)
        return graph, test.without_unseen(graph)


def timed(call: Any) -> tuple[Any, float]:
    """Return the result of a call, and its CPU seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def row(name: str, floor: Floor, graph: Any, test: Any, level: Any, requests: int) -> dict[str, Any]:
    """Return the figures of one model on one data set."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(graph.num_queries, generator=generator)[:requests].tolist()
    ids = graph.vocabulary(level)
    _, fitting = timed(lambda: floor.fit(graph))
    found, costs, last = floor, [], graph
    for one in chosen:
        request, last = gu.ForgetRequest(level, [ids[one]]), found.graph
        found, seconds = timed(lambda f=found, r=request: f.forget(r))
        costs.append(seconds)
    together, at_once = timed(lambda: floor.forget(gu.ForgetRequest(level, [ids[one] for one in chosen])))
    again, refitting = timed(lambda: type(floor)(**options(floor)).fit(last.split(request)[0]))
    if level == "user":
        subject, queries = found.graph, torch.arange(min(QUERIES, graph.num_users))
    else:
        test = test.without_unseen(found.graph)
        subject, queries = test, gu.CrossEntropy().samples(test).ends[:QUERIES]
    wanted = again.scores(subject, queries)
    size = float(wanted.abs().max())
    quality = {key: measure_floor(f, found.graph, test)["recall@20"] for key, f in (("r", found), ("again", again))}
    out = {
        "data": name,
        "model": floor.name,
        "requests": requests,
        "fit_cpu_seconds": fitting,
        "refit_cpu_seconds": refitting,
        "forget_cpu_seconds": statistics.fmean(costs),
        "times_faster": refitting / statistics.fmean(costs),
        "all_at_once_cpu_seconds": at_once,
        "difference": float((found.scores(subject, queries) - wanted).abs().max()) / size,
        "difference_at_once": float((together.scores(subject, queries) - wanted).abs().max()) / size,
        "recall@20": quality["r"],
        "refitted_recall@20": quality["again"],
    }
    if isinstance(found, ALS) and isinstance(again, ALS):
        out |= {"sweeps": found.sweeps, "refitted_sweeps": again.sweeps}
    print({key: round(v, 4) if isinstance(v, float) and v > 1e-3 else v for key, v in out.items()}, flush=True)
    return out


def options(floor: Floor) -> dict[str, Any]:
    """Return the options of a floor."""
    return {entry.name: getattr(floor, entry.name) for entry in fields(floor) if entry.init}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--als-requests", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for name in ("ml-100k", "lastfm"):
        graph, test = implicit(name)
        for floor, count in ((ItemKNN(), args.requests), (EASE(), args.requests), (ALS(), args.als_requests)):
            rows.append(row(name, floor, graph, test, "user", count))
    graph, test = sessions()
    rows += [row("yoochoose-100k", floor, graph, test, "session", args.requests) for floor in (SessionKNN(), Markov())]
    save("exact", {"rows": rows})


if __name__ == "__main__":
    main()
