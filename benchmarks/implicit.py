"""Last.fm and ML-100K, implicit feedback, BPR: 2 % of the users, or a random 5 % of the interactions, forgotten."""

from __future__ import annotations

import argparse

from common import implicit, save, show, summary

import graphunlearn as gu
from graphunlearn.eval import bench, removal

CASES = (
    ("lastfm", 3, "user", 0.02),
    ("lastfm", 3, "interaction", 0.05),
    ("ml-100k", 2, "user", 0.02),
    ("ml-100k", 2, "interaction", 0.05),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--original-seeds", type=int, default=3)
    parser.add_argument("--retrain-seeds", type=int, default=5)
    args = parser.parse_args()
    results = []
    for name, layers, level, share in CASES:
        graph, test = implicit(name)
        audit = bench(
            lambda seed, g=graph, t=test, lv=level, s=share: removal(
                g, lv, share=s, seed=seed, test=t, fractions=(0.9, 0.1)
            ),
            [gu.IFRU(), gu.Unlink(), gu.FineTune(), gu.GradientAscent()],
            dim=64,
            layers=layers,
            original_seeds=args.original_seeds,
            retrain_seeds=args.retrain_seeds,
            dataset=name,
        )
        rows = summary(audit.report, "mean_probability")
        print(f"\n{name}, LightGCN {layers} layers d 64: {share:.0%} of the {level}s forgotten")
        print("left out", audit.report["left_out"])
        show(rows, "mean_probability", "recall@20")
        case = {"dataset": name, "layers": layers, "level": level, "share": share, "request": audit.report["request"]}
        results.append(case | {"model": audit.report["model"], "left_out": audit.report["left_out"], "rows": rows})
    save("implicit", results)


if __name__ == "__main__":
    main()
