"""Is an accepted correction ever worse than deleting the edges? Models, losses, requests and data beyond the defaults.

Every case trains originals and references once. Each method then corrects with its defaults; the figures are Δp on test
pairs and Recall@20, for the first step, for what the acceptance left, and for deleted edges with emptied embeddings
redrawn. A correction counts as worse if one of them is worse by more than two standard deviations of the references,
where Δp of a reference is its mean distance to the others. With three references this deviation is uncertain by a
factor of three or more, so six are trained by default. Finished cases are kept in the results and skipped in the next
run; take them out of the file to measure them again. Cases marked as earlier were measured with one original, three
references and an earlier rule. Trained models and what UnlearnRec learned from them are kept in the cache.

    python benchmarks/acceptance.py --cache /tmp/models
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import own_loops
import torch
from common import RESULTS, data, implicit, rated, save

import graphunlearn as gu
from graphunlearn import operators
from graphunlearn.adapters import BipartiteRecommender
from graphunlearn.eval import items_of_category, scenarios
from graphunlearn.eval.cache import retrained
from graphunlearn.eval.comparison import RETRAINED, _Trainer
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn import default_settings
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import Retrain, UnlinkRedraw


class Case(NamedTuple):
    """One case; ``given`` is the loss that the methods are told, if it is not the one of training."""

    name: str
    model: str
    loss: str
    scenario: str
    given: str = ""


LOSSES: dict[str, Callable[[], Any]] = {
    "bpr": gu.BPR,
    "bce": lambda: gu.SampledBCE(negatives=2),
    "softmax": lambda: gu.SampledSoftmax(negatives=32),
    "labels": gu.BCE,
    **own_loops.LOSSES,
}
# The rule was set with the first half in view; the second half confirms it.
SETTLED = (
    Case("ml-100k", "lightgcn", "bpr", "random-edges"),
    Case("ml-100k", "lightgcn", "bpr", "core-users"),
    Case("ml-100k", "mf", "bpr", "core-users"),
    Case("ml-100k", "mf", "bce", "core-users"),
    Case("ml-100k", "mf", "softmax", "random-edges"),
    Case("ml-100k", "lightgcn", "bpr", "click-fraud"),
    Case("ml-100k", "graphsage", "bce", "random-edges"),
    Case("ml-100k", "graphsage", "bce", "random-edges", "bpr"),
    Case("ml-100k", "to-hetero", "own-bce", "random-edges"),
    Case("ml-100k", "to-hetero", "own-bce", "core-users", "softmax"),
    Case("ml-100k", "two-tower", "in-batch", "random-edges"),
    Case("ml-100k", "two-tower", "in-batch", "random-edges", "bce"),
    Case("ml-100k", "lightgcn", "labels", "flips"),
    Case("ml-100k", "lightgcn", "bpr", "sensitive"),
)
CONFIRMED = (
    Case("adm", "lightgcn", "bpr", "random-edges"),
    Case("adm", "lightgcn", "bpr", "core-users"),
    Case("adm", "mf", "bpr", "core-users"),
    Case("adm", "ngcf", "bpr", "random-edges"),
    Case("adm", "graphsage", "bce", "core-users"),
    Case("adm", "graphsage", "bce", "random-edges", "bpr"),
    Case("adm", "gat", "bpr", "random-edges"),
    Case("lastfm", "mf", "bpr", "core-users"),
    Case("lastfm", "lightgcn", "bpr", "click-fraud"),
    Case("ml-1m", "mf", "bpr", "core-users"),
    Case("ml-100k", "to-hetero", "own-bce", "core-users"),
    Case("adm", "to-hetero", "own-bce", "random-edges"),
    Case("adm", "to-hetero", "own-bce", "random-edges", "softmax"),
    Case("ml-100k", "two-tower", "in-batch", "core-users"),
    Case("adm", "two-tower", "in-batch", "core-users"),
    Case("adm", "two-tower", "in-batch", "core-users", "bce"),
    Case("ml-1m", "lightgcn", "labels", "flips"),
)


def built(name: str) -> str | Callable[[Any], torch.nn.Module]:
    """Return the name of a model of the package, or a function that builds one of another library's layers."""
    from torch_geometric.nn import GAT, GraphSAGE

    layers: dict[str, Any] = {"graphsage": GraphSAGE, "gat": GAT}
    if name not in layers:
        return name
    return lambda graph: BipartiteRecommender(layers[name](32, 32, num_layers=2), graph.num_users, graph.num_items, 32)


def scenario(which: str, name: str, seed: int) -> Any:
    """Return the scenario of a case."""
    if which == "flips":
        return scenarios.flipped_labels(rated(name), seed=seed)
    graph, test = implicit(name) if name != "adm" else (gu.InteractionGraph.from_file(data("adm", "adm8.csv")), None)
    if which == "random-edges":
        return scenarios.removal(graph, "interaction", seed=seed, test=test)
    if which == "sensitive":  # the ids of all of ML-100K, since genres are known by them
        graph = gu.InteractionGraph.from_file(data("ml-100k", "ml-100k.inter"))
        items = items_of_category(data("ml-100k", "ml-100k.item"), "Horror")
        return scenarios.sensitive(graph, items, seed=seed)
    made = {"core-users": scenarios.core_users, "click-fraud": scenarios.click_fraud}
    return made[which](graph, seed=seed, test=test)


def prepared(method: Any, original: torch.nn.Module, train: Any, cache: Path) -> None:
    """Prepare a method for an original, or load the preparation from the cache."""
    sources = sorted(Path(operators.__file__).parent.joinpath("unlearnrec").glob("*.py"))
    code = b"".join(path.read_bytes() for path in sources)
    facts = repr((method.objective, method.settings, fingerprint(original), train.fingerprint()))
    path = cache / f"prepared-{hashlib.sha256(facts.encode() + code).hexdigest()}.safetensors"
    if path.exists():
        method.load(path, like=original)
        return
    method.prepare(original, train, progress=False)
    method.save(path)


class Seen:
    """What a model is measured on: the test pairs, and the ranking of a catalogue or of labels."""

    def __init__(self, made: Any) -> None:
        self.retained, _ = made.train.split(made.request)
        self.held = made.test.without_emptied(made.train, self.retained)
        self.quality = "auroc" if made.trained_labels else "recall@20"
        self.ranker = None if made.trained_labels else Ranker(self.retained, self.held, ks=(20,))

    @torch.no_grad()
    def __call__(self, model: torch.nn.Module) -> tuple[torch.Tensor, float]:
        """Return the probabilities of test pairs, and Recall@20 or the AUROC of the labels."""
        encoded = gu.encode(model.eval(), self.retained)
        scores = gu.score(encoded, self.held.pairs)
        if self.ranker is None:
            return torch.sigmoid(scores), auroc(scores, self.held.label)
        return torch.sigmoid(scores), self.ranker(encoded.queries, encoded.items)["recall@20"]


def trained(case: Case, made: Any, loss: Any, base: Any, options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Return the originals and the models that were retrained without the request."""
    first, cache, train, validation = 100 * options.seed, Path(options.cache), made.train, made.validation
    if case.model in own_loops.MODELS:
        retained, _ = train.split(made.request)
        originals = [own_loops.train(case.model, train, first + k, cache) for k in range(options.originals)]
        numbers = range(first + RETRAINED, first + RETRAINED + options.references)
        return originals, [own_loops.train(case.model, retained, seed, cache) for seed in numbers]
    trainer = _Trainer(built(case.model), 32, None, loss, base, "cpu", cache)
    originals = [trainer("original", train, validation, seed=first + k) for k in range(options.originals)]
    models = []
    for k in range(options.references):
        method = Retrain(objective=loss, validation=validation, settings=replace(base, seed=first + RETRAINED + k))
        models.append(retrained(method, copy.deepcopy(originals[0]), train, made.request, cache).model)
    return originals, models


def residuals(case: Case, original: torch.nn.Module, train: Any) -> dict[str, float]:
    """Return the residuals of the loss that an original was trained with, and of the one that is given."""
    names = (case.loss, case.given)
    return {name: gu.stationarity(original, train, LOSSES[name](), draws=8).residual for name in names}


def run(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one case."""
    made = scenario(case.scenario, case.name, options.seed)
    train, validation, request = made.train, made.validation, made.request
    told = Seen(made)
    loss, base = LOSSES[case.loss](), default_settings(train)
    base = replace(base, epochs=min(base.epochs, options.epochs))
    originals, models = trained(case, made, loss, base, options)
    references = [told(model) for model in models]
    p, quality = torch.stack([r[0] for r in references]), [r[1] for r in references]

    def distance(own: torch.Tensor, others: torch.Tensor) -> float:
        return float((own - others).abs().mean())

    apart = [distance(p[k], torch.cat([p[:k], p[k + 1 :]])) for k in range(len(p))]
    spread = {"delta_p_test": statistics.stdev(apart), told.quality: statistics.stdev(quality)}
    floor = statistics.fmean(apart)

    def figures(model: torch.nn.Module) -> dict[str, Any]:
        own, found = told(model)
        return {"delta_p_test": distance(own, p), "over_floor": distance(own, p) / floor, told.quality: found}

    def worse(found: dict[str, Any], deleted: dict[str, Any]) -> bool:
        """Tell whether one of the figures is worse, and add both differences in standard deviations."""
        found["sd"] = {key: (found[key] - deleted[key]) / spread[key] for key in spread}
        return found["sd"]["delta_p_test"] > 2 or found["sd"][told.quality] < -2

    runs = []
    for original in originals:
        deleted = figures(UnlinkRedraw().unlearn(original, train, request).model)
        entry: dict[str, Any] = {"unlink-redraw": deleted}
        for name in options.methods:
            given = LOSSES[case.given or case.loss]()
            method = operators.registry[name]().filled(objective=given, validation=validation, settings=base)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if method.needs_preparation:
                    prepared(method, original, train, Path(options.cache))
                result = method.unlearn(original, train, request)
                found = {"final": figures(result.model), "acceptance": result.log["acceptance"]}
                found |= {"accepted": result.accepted, "cpu_seconds": result.cpu_seconds}
                if result.log["acceptance"]["outcome"] != "corrected":
                    method.on_rejection = "keep"
                    first = figures(method.unlearn(original, train, request).model)
                else:
                    first = found["final"]
            found |= {"first": first, "first_worse": worse(first, deleted), "worse": worse(found["final"], deleted)}
            entry[name] = found
        runs.append(entry)
    fits = {"fits": [residuals(case, original.eval(), train) for original in originals]} if case.given else {}
    return {
        "request": len(request),
        "references": len(references),
        **fits,
        "retrained": {"floor": floor, told.quality: statistics.fmean(quality), "spread": spread},
        "runs": runs,
    }


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Return how many corrections were accepted and rejected, and how many of each are worse than deleting."""
    counts: dict[str, Any] = {}
    for half, cases in (("settled", SETTLED), ("confirmed", CONFIRMED)):
        found = [
            entry
            for case in cases
            for one in cells.get(" ".join(filter(None, case)), {}).get("runs", [])
            for name, entry in one.items()
            if name != "unlink-redraw"
        ]
        counts[half] = {
            "corrections": len(found),
            "first step accepted": sum(e["acceptance"]["outcome"] == "corrected" for e in found),
            "first step accepted and worse": sum(
                e["acceptance"]["outcome"] == "corrected" and e["first_worse"] for e in found
            ),
            "mended": sum(e["acceptance"]["outcome"] in ("milder", "shortened") for e in found),
            "mended and worse": sum(
                e["acceptance"]["outcome"] in ("milder", "shortened") and e["worse"] for e in found
            ),
            "not corrected": sum(not e["accepted"] for e in found),
            "rejected though no worse": sum(
                e["acceptance"]["outcome"] != "corrected" and not e["first_worse"] for e in found
            ),
        }
    return counts


def main() -> None:
    """Run all cases that are not finished, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", help="only these cases, or those of these models, data or scenarios")
    parser.add_argument("--methods", nargs="+", default=["ifru", "unlearnrec", "calibrate"])
    parser.add_argument("--originals", type=int, default=2)
    parser.add_argument("--references", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default="models")
    parser.add_argument("--out", default="acceptance")
    options = parser.parse_args()
    path = RESULTS / f"{options.out}.json"
    cells = json.loads(path.read_text())["results"]["cells"] if path.exists() else {}
    for case in (*SETTLED, *CONFIRMED):
        key = " ".join(filter(None, case))
        if "runs" in cells.get(key, {}) or (options.cases and not any(word in (key, *case) for word in options.cases)):
            continue
        start = time.process_time()
        try:
            cells[key] = run(case, options)
        except Exception as error:  # a case that fails is printed as such, and the others go on
            cells[key] = {"failed": f"{type(error).__name__}: {error}"}
        cells[key]["cpu_seconds"] = time.process_time() - start
        save(options.out, {"summary": summary(cells), "cells": cells})
        print(key, round(cells[key]["cpu_seconds"]), cells[key].get("failed", ""), flush=True)
        for one in cells[key].get("runs", []):
            print("   unlink-redraw", {k: round(v, 4) for k, v in one["unlink-redraw"].items()})
            for name, e in one.items():
                if name != "unlink-redraw":
                    a = e["acceptance"]
                    print(
                        f"   {name:12}{a['outcome']:14}first worse {e['first_worse']!s:6}final worse {e['worse']!s:6}",
                        *(" ".join(f"{v:+.1f} sd" for v in e[step]["sd"].values()) for step in ("first", "final")),
                        {key: (a["corrected"] or {}).get(key) for key in ("share", "beyond")},
                        [t["what"] for t in a["tried"]],
                        flush=True,
                    )
    print(json.dumps(summary(cells), indent=2))


if __name__ == "__main__":
    main()
