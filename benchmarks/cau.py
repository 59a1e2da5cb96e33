"""CAU and its baselines on Yoochoose-100k and Diginetica, against retrained models.

``session-clicks``: one click in the second half of a tenth of the sessions; two requests, three originals, five
retrained models each, for SR-GNN, GRU4Rec and SASRec. With ``--sessions`` and ``--items`` whole sessions and items
everywhere are forgotten as well, and ``--diginetica`` takes the last 20,000 sessions of that.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from common import data, save

import graphunlearn as gu
from graphunlearn.cli._sources import last_sessions
from graphunlearn.eval import bench, removal, session_clicks

METRICS = ("hit_u@1", "hit_u@5", "hit_u@10", "hit_u@20", "log_p_forgotten", "log_p_deleted_transition")
UTILITY = ("recall@20", "mrr@20", "ndcg@20")
ORDERS = [("random", "gradient"), *((o, d) for o in ("hard", "soft") for d in ("gradient", "embedding"))]


def sessions(name: str) -> tuple[gu.SessionGraph, gu.SessionGraph]:
    """Return training and test sessions of a data set, in one numbering."""
    if name == "yoochoose-100k":
        graph = gu.SessionGraph.from_file(data(name, "yoochoose-clicks-100k_train_full.txt"))
        return graph, gu.SessionGraph.from_file(data(name, "yoochoose-clicks-100k_test.txt"), like=graph)
    graph = last_sessions(gu.SessionGraph.from_file(data(name, "train.tsv.gz")), 20_000)
    return graph, gu.SessionGraph.from_file(data(name, "test.tsv.gz"), like=graph)


def named(name: str, **changes: Any) -> gu.CAU:
    """Return CAU with other settings, under a name of its own."""
    kind = type("Variant", (gu.CAU,), {"name": name, "__annotations__": {"name": ClassVar[str]}})
    made: gu.CAU = dataclass(kw_only=True)(kind)(**changes)
    return made


def prepared() -> gu.CAU:
    """Return CAU with the counts and regressions of its targets prepared once per original."""
    kind = type(
        "Prepared",
        (gu.CAU,),
        {"name": "cau-prepared", "needs_preparation": True, "__annotations__": {"name": ClassVar[str]}},
    )
    made: gu.CAU = dataclass(kw_only=True)(kind)()
    return made


def few(case: Any, clicks: int) -> Any:
    """Return the scenario with a request of ``clicks`` of its clicks, drawn at random."""
    graph = case.train
    found = case.request.mask(graph).nonzero().squeeze(1)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    found = found[order[:clicks]].sort().values
    session = graph.session[found]
    index = torch.stack([session, found - graph.click_ptr[session]])
    return replace(case, request=gu.ForgetRequest.internal("click", index))


def methods(everything: bool) -> list[gu.Unlearner]:
    """Return what is compared."""
    compared: list[gu.Unlearner] = [gu.CAU(), gu.CAU.as_published(), gu.GradientAscent(), gu.AscentFineTune()]
    compared += [gu.NegativeKL(), gu.FineTune(), gu.Unlink()]
    return [*compared, gu.SISA(), gu.SRU()] if everything else compared


def variants() -> list[gu.CAU]:
    """Return the orders of the curriculum with three seeds each, and one change at a time of everything else."""
    orders = [
        named(f"{order} {difficulty} {seed}", order=order, difficulty=difficulty, seed=seed)
        for order, difficulty in ORDERS
        for seed in range(3)
    ]
    changes: dict[str, dict[str, Any]] = {
        "ascent with freezing": {"loss": "ascent"},
        "freezing at the level": {"freeze": True},
        "equal weights": {"mix": "sum"},
        "mix from all parameters": {"gradients": "all"},
        "without transitions": {"transitions": False},
        "divergence with the target": {"kl_without_target": False},
        "without kept clicks": {"kept_batch": 0},
        "nothing carried over": {"carry": 0.0},
        "all carried over": {"carry": 1.0},
    }
    return [*orders, *(named(name, **change) for name, change in changes.items())]


def row(method: dict[str, Any], retrain: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one method that the README and the notes quote."""
    distance, found = method["distance_to_retrain"], method["forgetting"] or {}
    utility = method["utility"]
    return {
        "method": method["name"],
        "seconds": method["seconds"],
        "cpu_seconds": method["cpu_seconds"],
        "prepare_seconds": method["prepare_seconds"],
        "speedup_vs_retrain": retrain["seconds"] / method["seconds"] if method["seconds"] else None,
        "gap_closed": {name: (found.get(name) or {}).get("gap_closed") for name in METRICS},
        "value": {name: (found.get(name) or {}).get("value") for name in METRICS},
        "ks": (found.get("ks_statistic") or {}).get("value"),
        "ks_floor": (found.get("ks_statistic") or {}).get("floor"),
        "dlogp_forget_over_floor": distance["forget"] / distance["noise_floor_forget"],
        "dlogp_test_over_floor": distance["test"] / distance["noise_floor_test"],
        "utility": {name: utility[name] for name in UTILITY},
        "utility_vs_retrain": {name: utility[name] / retrain["utility"][name] - 1 for name in UTILITY},
        "utility_vs_original": {name: utility[name] / original["utility"][name] - 1 for name in UTILITY},
    }


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per method, of the means over all runs."""
    known = {method["name"]: method for method in report["methods"]}
    return [row(method, known["retrain"], known["original"]) for method in report["methods"]]


def show(table: list[dict[str, Any]]) -> None:
    """Print the rows."""
    head = ("method", "s", "×", "hit5", "hit10", "hit20", "log p", "del.", "Δ/floor", "R@20", "MRR")
    print(head[0].ljust(30), *(name.rjust(8) for name in head[1:]))
    for r in table:
        gaps = [r["gap_closed"][name] for name in METRICS[1:]]
        cells = [r["seconds"], r["speedup_vs_retrain"], *gaps, r["dlogp_forget_over_floor"]]
        cells += [r["utility_vs_retrain"][name] for name in UTILITY[:2]]
        print(r["method"].ljust(30), *(("–" if c is None else f"{c:.3f}").rjust(8) for c in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["srgnn", "gru4rec", "sasrec"])
    parser.add_argument("--dataset", choices=["yoochoose-100k", "diginetica"], default="yoochoose-100k")
    parser.add_argument("--scenario", choices=["session-clicks", "sessions", "items"], default="session-clicks")
    parser.add_argument("--requests", type=int, default=2)
    parser.add_argument("--originals", type=int, default=3)
    parser.add_argument("--retrained", type=int, default=5)
    parser.add_argument(
        "--variants", action="store_true", help="the curriculum and single changes instead of baselines"
    )
    parser.add_argument("--speed", action="store_true", help="CAU alone, with and without a preparation")
    parser.add_argument("--clicks", type=int, help="forget only so many of the clicks")
    parser.add_argument("--no-shards", action="store_true", help="leave SISA and SRU out")
    parser.add_argument("--cache", type=Path, help="folder of trained models, for a run that goes on later")
    options = parser.parse_args()
    graph, test = sessions(options.dataset)

    def scenario(seed: int) -> Any:
        if options.scenario == "session-clicks":
            case = session_clicks(graph, seed=seed, test=test)
            return case if options.clicks is None else few(case, options.clicks)
        level = {"sessions": "session", "items": "item"}[options.scenario]
        return removal(graph.collapse(), level, seed=seed, test=test.collapse())

    results: dict[str, Any] = {}
    name = "curriculum" if options.variants else f"cau-{options.dataset}-{options.scenario}"
    if options.speed:
        name = f"cau-speed{'' if options.clicks is None else f'-{options.clicks}'}"
    for model in options.models:
        compared = [gu.CAU(), prepared()] if options.speed else methods(not options.no_shards)
        found = bench(
            scenario,
            variants() if options.variants else compared,
            model=model,
            data_seeds=options.requests,
            original_seeds=options.originals,
            retrain_seeds=options.retrained,
            dataset=options.dataset,
            cache=options.cache,
        )
        runs = [{"methods": run} for run in found.report["runs"]]
        results[model] = {
            **{key: found.report[key] for key in ("dataset", "model", "seeds", "notes", "left_out")},
            "rows": rows(found.report),
            "runs": [rows(run) for run in runs],
        }
        print(f"\n{model}")
        show(results[model]["rows"])
        save(name, results)


if __name__ == "__main__":
    main()
