"""ML-100K, flipped labels: IFRU's own test, against five retrained models on five data seeds."""

from __future__ import annotations

import argparse
from typing import ClassVar

from common import data, save, show, summary

import graphunlearn as gu
from graphunlearn.eval import bench, flipped_labels


class AbsoluteHessian(gu.IFRU):
    """IFRU with the absolute Hessian, under a name of its own."""

    name: ClassVar[str] = "ifru-absolute"


class NoSpillover(gu.IFRU):
    """Direct influence only, under a name of its own."""

    name: ClassVar[str] = "ifru-direct-only"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-seeds", type=int, default=5)
    parser.add_argument("--retrain-seeds", type=int, default=5)
    parser.add_argument("--weight-decay", type=float, default=None, help="BCE's L2; the default objective otherwise")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--name", default="flipped_labels")
    args = parser.parse_args()
    graph = gu.InteractionGraph.from_file(data("ml-100k", "ml-100k.inter"))
    objective = gu.BCE() if args.weight_decay is None else gu.BCE(weight_decay=args.weight_decay)
    methods = [
        gu.IFRU(),
        AbsoluteHessian(curvature="absolute"),
        NoSpillover(spillover=False),
        gu.IFRU.as_published(),
        gu.Unlink(),
        gu.FineTune(),
        gu.GradientAscent(),
    ]
    audit = bench(
        lambda seed: flipped_labels(graph, seed=seed),
        methods,
        objective=objective,
        layers=args.layers,
        data_seeds=args.data_seeds,
        retrain_seeds=args.retrain_seeds,
        dataset="ml-100k",
    )
    rows = summary(audit.report, "flipped_label_auc")
    per_seed = {
        run["method"]: run["log"]["runs"]
        for run in ({"method": m["name"], "log": m["log"]} for m in audit.report["methods"])
        if run["log"] and run["method"].startswith("ifru")
    }
    gaps: dict[str, list[float]] = {}
    for run in audit.report["runs"]:
        for method in run:
            gaps.setdefault(method["name"], []).append(method["forgetting"]["flipped_label_auc"]["gap_closed"])
    save(args.name, {"model": audit.report["model"], "rows": rows, "gap_closed_by_data_seed": gaps, "logs": per_seed})
    show(rows, "flipped_label_auc", "auroc")
    for name, values in gaps.items():
        print(f"gap closed by data seed  {name:20s}", " ".join(f"{v:.3f}" for v in values))


if __name__ == "__main__":
    main()
