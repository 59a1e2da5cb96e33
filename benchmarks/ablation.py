"""What every part of UnlearnRec is worth: terms of the losses, what is simulated, and the encoder as its source has it.

LightGCN on Last.fm; models, requests and retrained references are those of ``benchmarks/unlearnrec.py``.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unlearnrec as main_benchmark
from common import implicit, save

import graphunlearn as gu
import graphunlearn.operators.unlearnrec.pretraining as pretraining
from graphunlearn.eval import adversarial_edges, bench, removal
from graphunlearn.operators import TuneSettings
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings

PROBES: dict[tuple[str, str], tuple[Any, Any]] = {}


def remember_probes() -> None:
    """Train every probe once: variants differ in what they make of it."""
    original = pretraining.fit

    def fit(model: Any, graph: gu.InteractionGraph, **keywords: Any) -> Any:
        key = graph.fingerprint(), repr(keywords["settings"])
        if key not in PROBES:
            result = original(model, graph, **keywords)
            PROBES[key] = copy.deepcopy(model.state_dict()), result
        model.load_state_dict(PROBES[key][0])
        model.eval()
        return PROBES[key][1]

    pretraining.fit = fit  # type: ignore[assignment]


def variants(published: bool, every_term: bool) -> dict[str, gu.Unlearner]:
    """Return the variants by name; those of the published encoder are slow to prepare."""
    made: dict[str, gu.Unlearner] = {
        "default": gu.UnlearnRec(),
        "without the probability term": gu.UnlearnRec(pretraining=EncoderSettings(probability=0)),
        "without the logit term": gu.UnlearnRec(pretraining=EncoderSettings(logit=0)),
        "without the request's context": gu.UnlearnRec(context=False),
        "without odd interactions": gu.UnlearnRec(odd_users=0),
        "two probes": gu.UnlearnRec(probes=2),
        "one step": gu.UnlearnRec(rounds=1),
        "fine-tuned 1 epoch": gu.UnlearnRec(epochs=1),
        "fine-tuned, without L_M": gu.UnlearnRec(epochs=1, tuning=TuneSettings(risk=0)),
        "fine-tuned, without L_U": gu.UnlearnRec(epochs=1, tuning=TuneSettings(target=0)),
        "fine-tuned, without L_P": gu.UnlearnRec(epochs=1, tuning=TuneSettings(preserve=0)),
    }
    if published:
        made |= {"as published, zero-shot": gu.UnlearnRec.as_published(epochs=0)}
        made |= {"as published, 5 epochs": gu.UnlearnRec.as_published(epochs=5)}
        for term in ("model", "unlearn", "preserve", "contrast") if every_term else ():
            switched = gu.UnlearnRec.as_published(
                epochs=0, published=gu.operators.PublishedSettings(**{f"lambda_{term}": 0.0})
            )
            made[f"as published, without the {term} term"] = switched
    return made


def named(name: str, method: gu.Unlearner) -> gu.Unlearner:
    """Return the method under a name of its own, so that tables can tell variants apart."""
    method.__class__ = type("Variant", (type(method),), {"name": name, "prepare": _prepare})
    return method


PREPARED: dict[str, Any] = {}


def _prepare(self: Any, model: Any, graph: gu.InteractionGraph, **keywords: Any) -> None:
    """Variants that differ only in how a request is served share a preparation."""
    decisive = ("kept_as", "probes", "odd_users", "context", "pretraining", "published")
    settings = [getattr(self, name, None) for name in decisive]
    key = f"{graph.fingerprint()} {settings}"
    if key not in PREPARED:
        gu.Unlearner.prepare(self, model, graph, **keywords)
        PREPARED[key] = copy.deepcopy(self.preparation), self.prepare_seconds
    self.preparation, self.prepare_seconds = copy.deepcopy(PREPARED[key][0]), PREPARED[key][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retrain-seeds", type=int, default=5)
    parser.add_argument("--without-published", action="store_true")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    remember_probes()
    graph, test = implicit("lastfm")
    keywords: dict[str, Any] = {"test": test, "fractions": (0.9, 0.1)}
    scenarios: dict[str, Callable[..., Any]] = {
        "adversarial-edges": lambda seed, clean: adversarial_edges(graph, clean, seed=seed, **keywords),
        "random-edges": lambda seed: removal(graph, "interaction", share=0.05, seed=seed, **keywords),
    }
    cases = []
    for name, scenario in scenarios.items():
        made = variants(not args.without_published, every_term=name == "adversarial-edges")
        audit = bench(
            scenario,
            [named(label, method) for label, method in made.items()],
            dim=64,
            layers=3,
            retrain_seeds=args.retrain_seeds,
            dataset="lastfm",
            cache=args.cache,
            progress=False,
        )
        rows = [{"method": m["name"], **main_benchmark.row(m), "runs": 1} for m in audit.report["methods"]]
        cases.append({"dataset": "lastfm", "model": audit.report["model"], "scenario": name, "rows": rows})
        main_benchmark.show(cases[-1])
        save("ablation", cases)


if __name__ == "__main__":
    main()
