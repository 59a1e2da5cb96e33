"""Test Recall@20 and MRR@20 of the session recommenders on Yoochoose-100k, beside figures published for other splits.

The last tenth of the training sessions decides when to stop. Every prefix of the test sessions is judged against the
whole catalogue; with and without consecutive clicks on one item, which are easy to foresee.
"""

from __future__ import annotations

from typing import Any

import torch
from cau import sessions
from common import save

import graphunlearn as gu
from graphunlearn.eval.scenarios.cases import cut_by_time, without_unseen_items
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.nn import build_model, reset_parameters
from graphunlearn.nn.prefixes import encode_prefixes

PUBLISHED = {
    "figures": [
        {"model": "srgnn", "data": "yoochoose 1/64", "recall@20": 0.7057, "mrr@20": 0.3094},
        {"model": "gru4rec", "data": "yoochoose 1/64", "recall@20": 0.6064, "mrr@20": 0.2289},
        {"model": "srgnn", "data": "diginetica", "recall@20": 0.5073, "mrr@20": 0.1759},
        {"model": "gru4rec", "data": "diginetica", "recall@20": 0.2945, "mrr@20": 0.0833},
    ],
    "source": "Wu et al., Session-based Recommendation with Graph Neural Networks, AAAI 2019, table 2",
    "difference": "Yoochoose 1/64 are the last 1/64 of the prefixes of half a year, and the test is the day after; "
    "yoochoose-100k is a week of April 2014, far fewer prefixes, and the day after. Diginetica as a whole was not "
    "trained on here.",
}


@torch.no_grad()
def judge(model: torch.nn.Module, test: gu.SessionGraph) -> dict[str, float]:
    """Return the metrics over every prefix."""
    samples = gu.CrossEntropy().samples(test)
    encoded = encode_prefixes(model, test, samples.ends)
    return next_item_metrics(target_ranks(encoded.queries, encoded.items, samples.target), ks=(20,))


def main() -> None:
    rows: list[dict[str, Any]] = []
    for collapsed in (False, True):
        graph, test = (part.collapse() if collapsed else part for part in sessions("yoochoose-100k"))
        train, validation, test = cut_by_time(graph, test, (0.9, 0.1, 0.0))
        validation, test, _ = without_unseen_items(train, validation, test, 0)
        for name in ("srgnn", "gru4rec", "sasrec"):
            model = build_model(name, train)
            reset_parameters(model, 0)
            fitted = gu.fit(model, train, validation=validation, progress=False)
            found = judge(model, test)
            row = {"model": name, "repeats": "collapsed" if collapsed else "kept", "best_epoch": fitted.best_epoch}
            rows.append(row | {key: found[key] for key in ("recall@20", "mrr@20")} | {"seconds": fitted.seconds})
            print(rows[-1], flush=True)
            save("session_backbones", {"rows": rows, "published": PUBLISHED})


if __name__ == "__main__":
    main()
