"""Flipped labels on ML-100K and on the true ratings of a part of ML-1M: IFRU at its defaults, and polished.

``ifru-polish-N`` trains for N epochs after the step. It helps on neither data set, so it is no option of IFRU.

Every cell is one data seed of one data set. The limits are 1.25 × on the forgotten and 1.1 × on test pairs. Finished
cells are kept in the results and skipped in the next run.

    python benchmarks/flipped_labels_more.py --cache /tmp/models
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any, ClassVar

from common import RESULTS, rated, save, summary

import graphunlearn as gu
from graphunlearn.eval import bench, flipped_labels

NAME = "flipped_labels_more"
SHOWN = ("dp_forget_over_floor", "dp_test_over_floor", "gap_closed", "seconds")


class Polished(gu.IFRU):
    """IFRU with some epochs of training on the retained graph after the step, judged together."""

    name: ClassVar[str] = "ifru-polish"
    epochs: ClassVar[int] = 0

    def _unlearn(self, model: Any, graph: Any, retained: Any, request: Any) -> dict[str, Any]:
        log = super()._unlearn(model, graph, retained, request)
        settings = replace(gu.nn.default_settings(retained), epochs=self.epochs, seed=self.seed)
        gu.fit(model, retained, objective=self.objective, settings=settings, progress=False)
        return log


POLISHED = [
    type(f"Polished{n}", (Polished,), {"name": f"ifru-polish-{n}", "epochs": n, "__doc__": Polished.__doc__})
    for n in (1, 3, 10)
]


def main() -> None:
    """Measure all cells that are not finished, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["ml-1m", "ml-100k"])
    parser.add_argument("--data-seeds", type=int, default=3)
    parser.add_argument("--originals", type=int, default=2)
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--cache", default="models")
    options = parser.parse_args()
    path = RESULTS / f"{NAME}.json"
    cells: dict[str, Any] = json.loads(path.read_text())["results"]["cells"] if path.exists() else {}
    for seed in range(options.data_seeds):
        for name in options.data:
            key = f"{name} {seed}"
            if key in cells:
                continue
            audit = bench(
                lambda seed, name=name: flipped_labels(rated(name), seed=seed),
                [
                    gu.IFRU(),
                    *(kind() for kind in POLISHED),
                    gu.operators.UnlinkRedraw(),
                    gu.FineTune(),
                ],
                seed=seed,
                original_seeds=options.originals,
                retrain_seeds=options.references,
                dataset=name,
                cache=options.cache,
                progress=False,
            )
            cells[key] = {
                row["method"]: {k: row[k] for k in (*SHOWN, "noise_floor_test", "noise_floor_forget")}
                | {"auroc": row["utility"]["auroc"], "flipped_label_auc": row["flipped_label_auc"]}
                for row in summary(audit.report, "flipped_label_auc")
            }
            save(NAME, {"cells": cells})
            for method, row in cells[key].items():
                print(
                    f"{key:10}{method:18}", " ".join(f"{row[k]:.3f}" for k in SHOWN if row[k] is not None), flush=True
                )
    for name in options.data:
        own = [cell for key, cell in cells.items() if key.split()[0] == name]
        for method in own[0]:
            means = [statistics.fmean(cell[method][k] for cell in own) for k in SHOWN[:2]]
            print(f"{name:10}{method:18}", " ".join(f"{m:.3f}" for m in means))


if __name__ == "__main__":
    main()
