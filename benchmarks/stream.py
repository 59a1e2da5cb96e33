"""Requests one after another, as in ERASE: distance to retraining, quality and cost as a stream of requests goes on.

Users of ML-100K forget their interactions with one genre, one user after another; fake sessions are taken out of the
last sessions of Yoochoose, and real ones out of those of Diginetica. Every method serves the stream one by one and in
batches, some with scheduled retraining. At 25, 50, 75 and 100 % of the requests the models are compared with retrained
ones. Lanes that are finished are kept in the results and skipped in the next run; those that failed are tried again.

    python benchmarks/stream.py --cases ml-100k yoochoose-spam diginetica-sessions --cache /tmp/models
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from common import RESULTS, data, save

import graphunlearn as gu
from graphunlearn.cli._sources import last_sessions
from graphunlearn.eval import Lane, Stream, arriving, follow, items_of_category, removal, sensitive, spam_sessions
from graphunlearn.eval.comparison import _Trainer
from graphunlearn.ledger.drift import BUDGET
from graphunlearn.nn import default_objective, default_settings
from graphunlearn.operators import registry

GENRES = {"ml-100k": "Horror", "ml-100k-musical": "Musical", "ml-100k-childrens": "Children's"}
MODELS = {
    **dict.fromkeys(GENRES, ("lightgcn", 32, 2)),
    "yoochoose-spam": ("gru4rec", 32, 1),
    "diginetica-sessions": ("gru4rec", 32, 1),
}
LAST = 5_000  # sessions of Yoochoose and Diginetica, the last ones
SETTLED = "ifru-settled"  # IFRU with further steps in embeddings that lose a part of their interactions
UNDAMPED = "cau-undamped"  # CAU with plain Adam, whose steps are as large for one session as for hundreds
VARIANTS = {SETTLED: lambda: gu.IFRU(settle=True), UNDAMPED: lambda: gu.CAU(damping=0)}
METHODS = {
    "interactions": (
        *("unlink", "unlink-redraw", "ifru", SETTLED, "unlearnrec", "calibrate", "finetune", "ascent", "popularity-kl"),
        *("scif", "gif", "ceu", "idea", "gnndelete", "alteraser", "cova", "sisa", "receraser", "ultrare"),
    ),
    "sessions": (
        *("unlink", "unlink-redraw", "cau", UNDAMPED, "finetune", "ascent", "ascent-finetune"),
        *("negative-kl", "popularity-kl", "scif", "gif", "ceu", "idea", "sisa", "sru"),
    ),
}
DASHES = {"one by one": "-", "batched": "--", "retrained": ":"}


def sessions(name: str) -> gu.SessionGraph:
    """Return the last sessions of a data set."""
    files = {
        "yoochoose-spam": data("yoochoose-100k", "yoochoose-clicks-100k_train_full.txt"),
        "diginetica-sessions": data("diginetica", "train.tsv.gz"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return last_sessions(gu.SessionGraph.from_file(files[name]), LAST).collapse()


def stream_of(name: str, requests: int) -> Stream[Any]:
    """Return the stream of a case."""
    if name in GENRES:
        graph = gu.InteractionGraph.from_file(data("ml-100k", "ml-100k.inter"))
        items = items_of_category(data("ml-100k", "ml-100k.item"), GENRES[name])
        return arriving(sensitive(graph, items, share=0.25), count=requests)
    graph = sessions(name)
    return arriving(
        spam_sessions(graph, share=0.025) if name == "yoochoose-spam" else removal(graph, "session", share=0.03),
        count=requests,
    )


def lanes_of(kind: str, batch: int, requests: int, chosen: list[str] | None, singly: bool = True) -> list[Lane]:
    """Return the lanes of a kind of graph: all methods in batches, then with retraining, then one by one if wanted."""
    names = chosen or METHODS[kind]
    again, drifting = (("calibrate", "ifru"), "scif") if kind == "interactions" else (("cau",), "cau")
    lanes = [lane_of(name, batch=batch) for name in names]
    lanes += [Lane(method=gu.Retrain(), batch=max(1, requests // 4))]
    half = max(1, requests // 2)
    lanes += [Lane(method=registry[name](), batch=batch, every=half) for name in again if name in names]
    lanes += [Lane(method=registry[drifting](), batch=batch, budget=BUDGET)] if drifting in names else []
    return lanes + [lane_of(name) for name in names if singly]


def lane_of(name: str, **options: Any) -> Lane:
    """Return the lane of a method with its default settings, or of one of :data:`VARIANTS`."""
    method = VARIANTS[name]() if name in VARIANTS else registry[name]()
    return Lane(method=method, label=name if name in VARIANTS else None, **options)


def run(name: str, options: argparse.Namespace, done: dict[str, Any]) -> None:
    """Run the lanes of one case that are not done, and save after each."""
    stream = stream_of(name, options.requests)
    case = stream.scenario
    model, dim, layers = MODELS[name]
    objective, settings = default_objective(case.train), default_settings(case.train)
    original = _Trainer(model, dim, layers, None, None, "cpu", Path(options.cache))(
        "original", case.train, case.validation, seed=0
    )
    entry = done.setdefault(name, {"model": model, "dim": dim, "layers": layers, "notes": case.notes, "lanes": []})
    for key in ("requests", "retrain_seeds"):  # lanes of another stream, or beside other references, do not compare
        if entry.setdefault(key, getattr(options, key)) != getattr(options, key):
            sys.exit(f"the lanes of {name} were measured with {key} {entry[key]} (now {getattr(options, key)})")
    entry["batch"] = options.batch
    have = {lane["lane"] for lane in entry["lanes"] if "failed" not in lane}
    wanted = lanes_of(case.train.kind, options.batch, options.requests, options.methods, not options.batches_only)
    missing = [lane for lane in wanted if str(lane) not in have]

    def keep(told: dict[str, Any]) -> None:
        entry["lanes"] = [*(lane for lane in entry["lanes"] if lane["lane"] != told["lane"]), told]
        keep_results(done)
        last = {key: round(v, 4) if isinstance(v, float) else v for key, v in (told["rows"] or [{}])[-1].items()}
        print(name, told["lane"], told.get("failed", last), f"{time.process_time():.0f} CPU s", flush=True)

    shared: dict[str, Any] = {"objective": objective, "settings": settings, "retrain_seeds": options.retrain_seeds}
    follow(stream, original, missing, cache=options.cache, on_looks=entry.update, on_lane=keep, **shared)
    keep_results(done)


def keep_results(done: dict[str, Any]) -> None:
    """Write the results, and the plots of every case."""
    save("stream", done)
    for name, entry in done.items():
        if entry["lanes"]:
            draw(entry, RESULTS / f"stream-{name}.png")


def draw(entry: dict[str, Any], path: Path) -> None:
    """Plot the distance to retraining and the CPU seconds against the number of requests."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    names = list(dict.fromkeys(lane["method"] for lane in entry["lanes"]))
    for lane in entry["lanes"]:
        if "failed" in lane or not lane["rows"]:
            continue
        kind = "retrained" if "retrained" in lane["lane"] else "one by one" if lane["batch"] == 1 else "batched"
        how = {"color": f"C{names.index(lane['method']) % 10}", "linestyle": DASHES[kind], "linewidth": 1.2}
        marker = "os^vDP"[names.index(lane["method"]) // 10 % 6]
        at = [row["requests"] for row in lane["rows"]]
        for ax, key in ((axes[0, 0], "distance_forget"), (axes[0, 1], "distance_test")):
            ax.plot(at, [row[key] for row in lane["rows"]], marker=marker, markersize=3, label=lane["lane"], **how)
        steps = [batch["requests"] for batch in lane["batches"]]
        spent, sums = 0.0, []
        for batch in lane["batches"]:
            spent += batch["cpu_seconds"]
            sums.append(spent)
        axes[1, 0].plot(steps, sums, **how)
        drift = [(batch["requests"], batch["drift"]) for batch in lane["batches"] if batch["drift"] is not None]
        axes[1, 1].plot([n for n, _ in drift], [value for _, value in drift], **how)
    titles = ("distance, forgotten data", "distance, test data", "CPU seconds so far", "drift since the last training")
    for ax, title in zip(axes.flat, titles):
        ax.set_xlabel("requests")
        ax.set_ylabel(title)
        ax.set_yscale("symlog" if ax is axes[1, 1] else "log")
        ax.grid(alpha=0.3)
    for ax in axes[0]:
        ax.axhline(1, color="black", linewidth=0.8)
    axes[1, 1].axhline(BUDGET, color="black", linewidth=0.8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=6)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--methods", nargs="+", help="names of methods; by default all that serve the kind of data")
    parser.add_argument("--batches-only", action="store_true", help="serve no stream one by one, which takes longest")
    parser.add_argument("--retrain-seeds", type=int, default=3)
    parser.add_argument("--cache", default="/tmp/models", help="folder of trained models")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the acceptance and the loss: outcomes are in the results
    path = RESULTS / "stream.json"
    done = json.loads(path.read_text())["results"] if path.is_file() else {}
    for name in options.cases:
        run(name, options, done)


if __name__ == "__main__":
    main()
