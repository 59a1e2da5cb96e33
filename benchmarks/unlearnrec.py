"""UnlearnRec and Calibrate on three backbones, two data sets and three kinds of request, against retrained models.

UnlearnRec is prepared with several seeds; its rows are means over them.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from common import implicit, save
from torch import nn

import graphunlearn as gu
from graphunlearn.eval import adversarial_edges, bench, removal
from graphunlearn.nn.identity import fingerprint

LAYERS = {"lastfm": 3, "ml-100k": 2, "ml-1m": 2}
SCENARIOS = ("adversarial-edges", "random-edges", "users")
PREPARED: dict[tuple[str, str, int], tuple[Any, float | None]] = {}


@dataclass(kw_only=True)
class Prepared(gu.UnlearnRec):
    """UnlearnRec; one preparation serves all requests to the same model, as it is meant to."""

    name: ClassVar[str] = "unlearnrec"

    def prepare(self, model: nn.Module, graph: gu.InteractionGraph, **keywords: Any) -> None:
        key = fingerprint(model), graph.fingerprint(), self.seed
        if key not in PREPARED:
            super().prepare(model, graph, **keywords)
            PREPARED[key] = copy.deepcopy(self.preparation), self.prepare_seconds
        self.preparation, self.prepare_seconds = copy.deepcopy(PREPARED[key][0]), PREPARED[key][1]


@dataclass(kw_only=True)
class Tuned(Prepared):
    """The same, with one epoch of fine-tuning."""

    name: ClassVar[str] = "unlearnrec + 1 epoch"
    epochs: int = 1


def row(method: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that the bars are about."""
    distance, forgetting = method["distance_to_retrain"], method["forgetting"] or {}
    out = {name: method[name] for name in ("seconds", "prepare_seconds", "speedup_vs_retrain", "peak_memory_mb")}
    out |= method["utility"]
    for name in ("membership_auroc", "mean_probability", "ks_statistic", "mi_bf", "mi_ng", "exposure@20"):
        out[name] = (forgetting.get(name) or {}).get("value")
    out["ks_floor"] = (forgetting.get("ks_statistic") or {}).get("floor")
    for where in ("forget", "test"):
        floor = distance[f"noise_floor_{where}"]
        out |= {f"dp_{where}": distance[where], f"floor_{where}": floor}
        out[f"dp_{where}_over_floor"] = distance[where] / floor if floor else None
    return out


def mean_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means, and standard deviations where there are several rows."""
    out: dict[str, Any] = {"runs": len(rows)}
    for name in rows[0]:
        values = [float(r[name]) for r in rows if r.get(name) is not None]
        out[name] = statistics.fmean(values) if values else None
        if len(values) > 1:
            out[f"{name}_sd"] = statistics.stdev(values)
    return out


def run(dataset: str, backbone: str, scenario: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the rows of one case."""
    graph, test = implicit(dataset)
    methods: list[gu.Unlearner] = [Prepared(seed=seed) for seed in range(args.prepare_seeds)]
    methods += [Tuned(), gu.Calibrate(), gu.IFRU(), gu.Unlink(), gu.FineTune()]

    def make(seed: int, clean: Any) -> Any:
        keywords: dict[str, Any] = {"seed": seed, "test": test, "fractions": (0.9, 0.1)}
        if scenario == "adversarial-edges":
            return adversarial_edges(graph, clean, **keywords)
        level, share = ("interaction", 0.05) if scenario == "random-edges" else ("user", 0.02)
        return removal(graph, level, share=share, **keywords)

    audit = bench(
        make,
        methods,
        model=backbone,
        dim=64,
        layers=LAYERS[dataset],
        settings=gu.nn.FitSettings(epochs=args.epochs, batch_size=args.batch_size, patience=args.patience),
        retrain_seeds=args.retrain_seeds,
        dataset=dataset,
        cache=args.cache,
        progress=False,
    )
    named: dict[str, list[dict[str, Any]]] = {}
    for method in audit.report["methods"]:
        named.setdefault(method["name"], []).append(row(method))
    case = {"dataset": dataset, "model": audit.report["model"], "scenario": scenario}
    rows = [{"method": name, **mean_rows(found)} for name, found in named.items()]
    return case | {"request": audit.report["request"], "left_out": audit.report["left_out"], "rows": rows}


def show(case: dict[str, Any]) -> None:
    """Print a case as a table."""
    print(f"\n{case['dataset']}, {case['model']['name']}, {case['scenario']}", flush=True)
    names = ("recall@20", "mean_probability", "membership_auroc", "ks_statistic", "dp_forget_over_floor")
    names += ("dp_test_over_floor", "seconds", "speedup_vs_retrain", "prepare_seconds")
    print("method".ljust(22), *(name[:12].rjust(12) for name in names))
    for found in case["rows"]:
        cells = ["–" if found.get(name) is None else f"{found[name]:.4g}" for name in names]
        print(found["method"].ljust(22), *(cell.rjust(12) for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="lastfm", choices=sorted(LAYERS))
    parser.add_argument("--models", nargs="+", default=["lightgcn", "sgl", "simgcl"])
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=SCENARIOS)
    parser.add_argument("--prepare-seeds", type=int, default=3)
    parser.add_argument("--retrain-seeds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=gu.nn.FitSettings.batch_size)
    parser.add_argument("--patience", type=int, default=gu.nn.FitSettings.patience)
    parser.add_argument("--epochs", type=int, default=gu.nn.FitSettings.epochs)
    parser.add_argument("--cache", type=Path, help="folder of trained models, to go on after a break")
    args = parser.parse_args()
    cases = []
    for backbone in args.models:
        for scenario in args.scenarios:
            cases.append(run(args.data, backbone, scenario, args))
            show(cases[-1])
            save(f"unlearnrec-{args.data}", cases)


if __name__ == "__main__":
    main()
