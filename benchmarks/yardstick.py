"""Does the audit tell? Every operator in every scenario, with the verdict on really retrained models beside them.

Each cell (data set, scenario, model) trains originals and references once, audits all methods, judges every retrained
model by the other ones, and repeats the verdicts with three references and with other seeds of the operator. Finished
cells are kept in the results and skipped in the next run; cells that are not finished are printed as such.

    python benchmarks/yardstick.py --data ml-100k lastfm --cache /tmp/models
    python benchmarks/yardstick.py --data ml-100k --models sgl --scenarios users random-edges --cache /tmp/models
    python benchmarks/yardstick.py --every --originals 1 --references 3 --operator-seeds 0 --out every_operator \
        --cache /tmp/models
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from common import RESULTS, data, implicit, save

import graphunlearn as gu
from graphunlearn import operators
from graphunlearn.eval import audit, items_of_category, scenarios
from graphunlearn.eval.comparison import RETRAINED, _Trainer
from graphunlearn.eval.judging import klom_entry
from graphunlearn.nn import default_objective, default_settings

INTERACTIONS = ("users", "random-edges", "core-users", "edge-users", "shilling", "click-fraud", "mislabelled-popular")
SESSIONS = ("session-clicks", "sessions", "spam-sessions")
MODELS = {"ml-100k": ("lightgcn", 32, 2), "lastfm": ("lightgcn", 64, 3), "yoochoose-100k": ("srgnn", 64, None)}
CATEGORY = "Horror"  # what the users of "sensitive" forget
EVERY = (
    *(
        "ifru",
        "unlearnrec",
        "calibrate",
        "scif",
        "gif",
        "ceu",
        "idea",
        "alteraser",
        "gnndelete",
        "cova",
        "popularity-kl",
    ),
    *("ascent", "finetune", "ifru-published", "scif-published", "gif-published", "gnndelete-published"),
)
"""The operators of ``--every``, beside those that compute nothing."""
COMPARED = ("users", "random-edges", "core-users", "edge-users", "click-fraud", "shilling")
TRIVIAL = ("original", "unlink", "unlink-redraw")
LEFT = ("fold_in", "target", "lira", "rmia", "edge_recovery_forgotten", "click", "transition")
FIGURES = ("value", "original", "retrain_mean", "retrain_sd", "leak_left", "leak_low", "leak_high")
"""What the results keep of an attack."""
SEPARATES = 0.6


def sessions() -> tuple[gu.SessionGraph, gu.SessionGraph]:
    """Return training and test sessions of Yoochoose."""
    folder = data("yoochoose-100k")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = gu.SessionGraph.from_file(folder / "yoochoose-clicks-100k_train_full.txt")
        return graph, gu.SessionGraph.from_file(folder / "yoochoose-clicks-100k_test.txt", like=graph)


def sensitive(seed: int) -> Any:
    """Return the scenario of a sensitive genre; the original ids of ML-100K, since genres are known by them."""
    graph = gu.InteractionGraph.from_file(data("ml-100k", "ml-100k.inter"))
    return scenarios.sensitive(graph, items_of_category(data("ml-100k", "ml-100k.item"), CATEGORY), seed=seed)


def scenario(name: str, graph: Any, test: Any, seed: int) -> Any:
    """Return the scenario of that name."""
    made: dict[str, Callable[[], Any]] = {
        "sensitive": lambda: sensitive(seed),
        "users": lambda: scenarios.removal(graph, "user", seed=seed, test=test),
        "random-edges": lambda: scenarios.removal(graph, "interaction", seed=seed, test=test),
        "core-users": lambda: scenarios.core_users(graph, seed=seed, test=test),
        "edge-users": lambda: scenarios.edge_users(graph, seed=seed, test=test),
        "shilling": lambda: scenarios.shilling(graph, seed=seed, test=test),
        "click-fraud": lambda: scenarios.click_fraud(graph, seed=seed, test=test),
        "mislabelled-popular": lambda: scenarios.mislabelled_popular(graph, seed=seed, test=test),
        "session-clicks": lambda: scenarios.session_clicks(graph, seed=seed, test=test),
        "sessions": lambda: scenarios.removal(graph, "session", seed=seed, test=test),
        "spam-sessions": lambda: scenarios.spam_sessions(graph, seed=seed, test=test),
    }
    return made[name]()


def methods_of(kind: str, chosen: list[str] | None) -> list[Any]:
    """Return the methods of a kind of graph, with default settings."""
    names = (
        chosen
        or {
            "interactions": ["ifru", "unlearnrec", "calibrate", "finetune", "ascent"],
            "sessions": ["cau", "ascent-finetune", "ascent", "finetune"],
        }[kind]
    )
    return [operators.registry[name]() for name in names]


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures with five digits, without those that do not apply."""
    return {name: round(value, 5) for name, value in figures.items() if value is not None}


def five_digits(found: Any) -> Any:
    """Return results whose numbers have five digits."""
    if isinstance(found, dict):
        return {name: five_digits(value) for name, value in found.items()}
    if isinstance(found, list):
        return [five_digits(value) for value in found]
    return float(f"{found:.5g}") if isinstance(found, float) else found


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what the results keep of one method's report entry."""
    attacks = {
        name: {key: round(found[key], 4) for key in FIGURES if found.get(key) is not None}
        for name, found in entry["attacks"].items()
        if found is not None
    }
    distance = entry["distance_to_retrain"]
    floor = distance["noise_floor_forget"]
    return {
        "verdict": entry["verdict"],
        "attacks": attacks,
        "target": entry["target"],
        "topk_overlap": _short(entry["topk_overlap"] or {}),
        "distance_forget": distance["forget"] / floor if floor else None,
        "distance_test": distance["test"] / distance["noise_floor_test"] if distance["noise_floor_test"] else None,
        "utility": _short({name: value for name, value in entry["utility"].items() if "@10" not in name}),
        "seconds": entry["seconds"],
        "cpu_seconds": entry["cpu_seconds"],
        "peak_memory_mb": entry["peak_memory_mb"],
        "accepted": entry["accepted"],
    }


def cell(name: str, which: str, model: str, options: argparse.Namespace, loaded: dict[str, Any]) -> dict[str, Any]:
    """Return the results of one cell."""
    if name not in loaded:
        loaded[name] = sessions() if name == "yoochoose-100k" else implicit(name)
    graph, test = loaded[name]
    case = scenario(which, graph, test, options.seed)
    _, dim, layers = MODELS[name]
    trainer = _Trainer(model, dim, layers, None, None, "cpu", Path(options.cache))
    loss, base = default_objective(case.train), default_settings(case.train)
    retraining = replace(base, seed=100 * options.seed + RETRAINED)
    shared: dict[str, Any] = {"validation": case.validation, "test": case.test, "objective": loss}
    shared |= {"targets": case.targets, "real": case.real, "category": case.category}
    shared |= {"cache": options.cache, "settings": retraining}
    references: list[Any] = []
    runs, judging, audits = [], [], []
    for number in range(options.originals):
        original = trainer("original", case.train, case.validation, seed=100 * options.seed + number)
        judged = (original, case.train, case.request)
        results, failed = [], {}
        for method in methods_of(case.train.kind, options.methods):
            method = method.filled(objective=loss, validation=case.validation, settings=base)
            try:
                if method.needs_preparation:
                    method.prepare(original, case.train, progress=False)
                results.append(method.unlearn(original, case.train, case.request))
            except Exception as error:  # said in the results; the others go on
                failed[method.name] = f"{type(error).__name__}: {error}"
        first = audit(
            original,
            case.train,
            case.request,
            results,
            retrain_seeds=options.references,
            references=references,
            **shared,
        )
        references = first.references
        audits.append(first)
        start = time.process_time()
        audit(*judged, results, retrain_seeds=0, references=references, **shared)
        judging.append(time.process_time() - start)
        fewer = references[:3] if len(references) > 3 else references
        few = audit(*judged, results, retrain_seeds=0, references=fewer, **shared)
        main = operators.registry["ifru" if case.train.kind == "interactions" else "cau"]
        seeded = [
            main(seed=seed)
            .filled(objective=loss, validation=case.validation, settings=base)
            .unlearn(original, case.train, case.request)
            for seed in range(1, 1 + options.operator_seeds)
        ]
        more = audit(*judged, seeded, retrain_seeds=0, references=references, **shared) if seeded else first
        named = {m["name"]: told(m) for m in first.report["methods"]}
        with_few = {m["name"]: m["verdict"]["status"] for m in few.report["methods"]}
        runs.append(
            {
                "methods": named,
                "three_references": with_few,
                "operator_seeds": [
                    m["verdict"]["status"] for m in more.report["methods"] if seeded and m["name"] == main.name
                ],
                "failed": failed,
                "left_out_in_turn": [entry["verdict"] for entry in first.retrained],
            }
        )
    cpu = statistics.fmean(r.cpu_seconds for r in references)
    ensembles = {}
    if len(audits) >= 3:  # KLOM between retrained models needs four against four
        many = {"retrain_seeds": max(8, options.references), "references": references, "baselines": False}
        retrained = audit(*judged, [], **many, **shared).measured["retrain"]
        for one in (n for n in first.measured if n != "retrain"):
            ensembles[one] = klom_entry([a.measured[one] for a in audits], retrained)
    return {
        "request": len(case.request),
        "references": first.report["references"],
        "runs": runs,
        "klom": ensembles,
        "judging_in_retrainings": statistics.fmean(judging) / cpu,
    }


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that the bars are about, over all finished cells."""
    done = [c for c in cells.values() if "runs" in c]
    runs = [run for c in done for run in c["runs"]]
    in_turn = [v["status"] for run in runs for v in run["left_out_in_turn"]]
    trivial = []
    for run in runs:
        for name in TRIVIAL:
            lira = run["methods"]["original"]["attacks"].get("lira") or {}
            if lira.get("value", 0) >= SEPARATES:
                trivial.append(run["methods"][name]["verdict"]["status"])
    both = [
        (entry["verdict"]["status"], run["three_references"][name])
        for run in runs
        for name, entry in run["methods"].items()
        if name != "retrain"
    ]
    seeds = [
        (a, b) for run in runs for n, a in enumerate(run["operator_seeds"]) for b in run["operator_seeds"][n + 1 :]
    ]

    def agree(pairs: list[tuple[str, str]]) -> float | None:
        return statistics.fmean(a == b or "undecided" in (a, b) for a, b in pairs) if pairs else None

    def share(words: list[str], *wanted: str) -> float | None:
        return statistics.fmean(word in wanted for word in words) if words else None

    return {
        "retrained, left out in turn": {
            "draws": len(in_turn),
            "like or undecided": share(in_turn, "like", "undecided"),
        },
        "original, unlink, unlink-redraw where LiRA on the original is at least 0.6": {
            "draws": len(trivial),
            "under": share(trivial, "under"),
            "like": share(trivial, "like"),
        },
        "three against five references": {"pairs": len(both), "agree": agree(both)},
        "seeds of the operator": {"pairs": len(seeds), "agree": agree(seeds)},
        "audit beyond retraining, in retrainings": [c["judging_in_retrainings"] for c in done],
    }


def rows(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per cell and method: the verdicts, and the mean share of the trace left by each attack."""
    table = []
    for key, found in cells.items():
        name, which, model, *_ = key.split()
        if "runs" not in found:
            table.append({"data": name, "scenario": which, "model": model, "method": "–", "verdict": "not finished"})
            continue
        for method in found["runs"][0]["methods"]:
            entries = [run["methods"][method] for run in found["runs"]]
            words = [entry["verdict"]["status"] for entry in entries]
            if method == "retrain":
                words = [v["status"] for run in found["runs"] for v in run["left_out_in_turn"]]
            told = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
            row = {"data": name, "scenario": which, "model": model, "method": method, "verdict": told}
            for attack in LEFT:
                left = [(entry["attacks"].get(attack) or {}).get("leak_left") for entry in entries]
                known = [value for value in left if value is not None]
                row[f"left_{attack}"] = round(statistics.fmean(known), 3) if known else None
            for figure in ("distance_forget", "distance_test"):
                known = [entry[figure] for entry in entries if entry[figure] is not None]
                row[figure] = statistics.fmean(known) if known else None
            row["recall@20"] = statistics.fmean(entry["utility"]["recall@20"] for entry in entries)
            for figure in ("cpu_seconds", "peak_memory_mb"):
                known = [entry[figure] for entry in entries if entry.get(figure) is not None]
                row[figure] = statistics.fmean(known) if known else None
            refused = sum(entry.get("accepted") is False for entry in entries)
            row |= {"refused": refused} if refused else {}
            table.append(row)
        for method, reason in (found["runs"][0].get("failed") or {}).items():
            about = {"data": name, "scenario": which, "model": model, "method": method}
            table.append(about | {"verdict": f"failed: {reason}"})
    return table


def main() -> None:
    """Run all cells that are not finished, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["ml-100k", "lastfm", "yoochoose-100k"])
    parser.add_argument("--scenarios", nargs="+")
    parser.add_argument("--models", nargs="+", help="backbones instead of the one of the data set")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--originals", type=int, default=2)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--operator-seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default="models")
    parser.add_argument("--out", default="yardstick")
    parser.add_argument("--every", action="store_true", help="every operator on ML-100K, three models, six scenarios")
    options = parser.parse_args()
    if options.every:
        options.data, options.scenarios = ["ml-100k"], options.scenarios or COMPARED
        options.models = options.models or ["lightgcn", "mf", "sgl"]
        options.methods = options.methods or list(EVERY)
    path = RESULTS / f"{options.out}.json"
    cells = json.loads(path.read_text())["results"]["cells"] if path.exists() else {}
    loaded: dict[str, Any] = {}
    for name in options.data:
        known = SESSIONS if name == "yoochoose-100k" else INTERACTIONS
        known += ("sensitive",) if name == "ml-100k" else ()
        for model, which in product(options.models or MODELS[name][:1], options.scenarios or known):
            key = f"{name} {which} {model} seed {options.seed}"
            if "runs" in cells.get(key, {}):
                continue
            start = time.process_time()
            try:
                cells[key] = cell(name, which, model, options, loaded)
            except Exception as error:  # a cell that fails is printed as such, and the others go on
                cells[key] = {"failed": f"{type(error).__name__}: {error}"}
            cells[key]["cpu_seconds"] = time.process_time() - start
            save(options.out, five_digits({"summary": summary(cells), "rows": rows(cells), "cells": cells}))
            print(key, round(cells[key]["cpu_seconds"]), cells[key].get("failed", ""), flush=True)
    for row in rows(cells):
        left = {key: value for key, value in row.items() if key.startswith("left_") and value is not None}
        print(f"{row['data']:10} {row['scenario']:20} {row['method']:14} {row['verdict']:28} {left}")
    print(json.dumps(summary(cells), indent=2))


if __name__ == "__main__":
    main()
