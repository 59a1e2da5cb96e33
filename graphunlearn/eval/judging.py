"""Attacks, overlap and verdicts of all models of one audit, with every retrained model judged by the others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from graphunlearn.eval.attacks.evidence import Comparison, Evidence, compare
from graphunlearn.eval.attacks.interactions import InteractionAttacks
from graphunlearn.eval.attacks.membership import Observed
from graphunlearn.eval.attacks.sessions import SessionAttacks
from graphunlearn.eval.decision import DECIDING, FEWEST, Spread, Verdict, decide, spread_of
from graphunlearn.eval.measure import Measured
from graphunlearn.metrics.ensembles import klom, klom_if_equal, top_k_overlap
from graphunlearn.metrics.forgetting import distance_to_retrain

__all__ = ["SHOWN", "judge_all", "klom_entry", "pass_rate"]

SHOWN = {
    "interactions": (
        *("fold_in", "fold_in_items", "lira", "rmia"),
        *("edge_recovery_forgotten", "edge_recovery_kept", "before_and_after", "target"),
    ),
    "sessions": (
        *("click", "transition", "lira", "rmia", "fold_in", "fold_in_items"),
        *("edge_recovery_forgotten", "edge_recovery_kept", "before_and_after", "target"),
    ),
}
"""The attacks of a report, by kind of graph; sessions have no fold-in of items and no recovery of edges."""
CALIBRATED = ("lira", "transition")
"""The deciding attacks whose logits are calibrated on test data."""
# attacks that compare a model with the original, and so do not apply to the original itself
_ONE_SIDED = ("before_and_after",)
Found = dict[str, tuple[Evidence, dict[str, float]]]
Attacks = InteractionAttacks | SessionAttacks


def judge_all(
    attacks: Attacks,
    kind: str,
    models: Sequence[Measured],
    retrained: Sequence[Measured],
    shadows: tuple[Sequence[Observed], Sequence[Observed]] = ((), ()),
) -> None:
    """Add attacks, overlap and verdict to the measures of originals, methods and retrained models, in place.

    Args:
        attacks: The attacks of the request.
        kind: The kind of graph.
        models: Measures of originals and methods; ``"original"`` of each holds the measures of its original model.
        retrained: Measures of the retrained models; each is judged by the other ones.
        shadows: The data that the attacks use, of shadow models that were trained on the forgotten data and of those
            that were not; the membership attacks use them beside the retrained models.
    """
    inside, extra = shadows

    def found_in(observed: Observed, others: Sequence[Observed]) -> Found:
        return attacks.evidence(observed, [*others, *extra], inside)

    groups = [(model, list(retrained)) for model in models]
    groups += [(model, [m for m in retrained if m is not model]) for model in retrained]
    known: dict[tuple[int, ...], list[Found]] = {}
    for model, others in groups:
        key = tuple(map(id, others))
        if key not in known:
            seen = [m["observed"] for m in others]  # for every other model, the remaining ones are the out-models
            known[key] = [found_in(own, seen[:k] + seen[k + 1 :]) for k, own in enumerate(seen)]
        found = found_in(model["observed"], [m["observed"] for m in others]) if others else {}
        before = model["original"]
        base = found if before is model else found_in(before["observed"], [m["observed"] for m in others])
        model["attacks"], compared = _compared(kind, found, base, known[key])
        model["topk_overlap"] = _overlap(model, others)
        spread = None
        if len(others) >= FEWEST:
            own = [m["forget"] for m in others]
            between = [distance_to_retrain(p, own[:k] + own[k + 1 :]) for k, p in enumerate(own)]
            spread = spread_of(distance_to_retrain(model["forget"], own), between)
        model["verdict"] = _verdict(attacks, compared, spread, len(others))


def _verdict(attacks: Attacks, compared: dict[str, Comparison], spread: Spread | None, num_references: int) -> Verdict:
    """Return the verdict; membership attacks that could not be calibrated take no part in it."""
    told = {name: c for name, c in compared.items() if attacks.calibrated or name not in CALIBRATED}
    verdict = decide(told, spread, num_references, attacks.whole)
    if len(told) < len(compared) and verdict.status == "undecided" and num_references >= FEWEST:
        return verdict._replace(needs=f"{verdict.needs}, and test data on which membership attacks can be calibrated")
    return verdict


def pass_rate(retrained: Sequence[Measured]) -> float | None:
    """Return the share of retrained models that the other ones judge as forgotten as retraining does, or undecided.

    Args:
        retrained: Measures of the retrained models, with their verdicts.

    Returns:
        The share; ``None`` if too few retrained models are left for a verdict on any of them.
    """
    if len(retrained) <= FEWEST:
        return None
    return statistics.fmean(float(m["verdict"].status in ("like", "undecided")) for m in retrained)


def klom_entry(models: Sequence[Measured], retrained: Sequence[Measured]) -> dict[str, Any] | None:
    """Return KLOM of one method's models against retrained models, with the figure between retrained models.

    Args:
        models: Measures of the models that the method gave, from different originals.
        retrained: Measures of distinct retrained models.

    Returns:
        ``"forget"``, ``"retain"``, the number of models, and two yardsticks: the same figures between two halves of the
        retrained models under ``"floor_forget"`` and ``"floor_retain"`` (``None`` with fewer than eight: with a half of
        three models the expectation of the figure is infinite), and under ``"expected_if_equal"`` the expectation for
        as many models of equal normal distributions, with which few models can be compared; ``None`` with fewer than
        three unlearned or retrained models.
    """
    if min(len(models), len(retrained)) < 3:
        return None
    entry: dict[str, Any] = {"models": len(models), "retrained": len(retrained)}
    for part in ("forget", "retain"):
        own, theirs = (torch.stack([m["margins"][part] for m in group]) for group in (models, retrained))
        entry[part] = klom(own, theirs)
        half = len(theirs) // 2
        entry[f"floor_{part}"] = klom(theirs[:half], theirs[half:]) if half >= 4 else None
    return entry | {"expected_if_equal": klom_if_equal(len(models), len(retrained))}


def _compared(
    kind: str, found: Found, base: Found, references: Sequence[Found]
) -> tuple[dict[str, Any], dict[str, Comparison]]:
    entries: dict[str, Any] = dict.fromkeys(SHOWN[kind])
    compared = {}
    tests = max(1, sum(name in found for name in DECIDING))
    for name in SHOWN[kind]:
        against = [r[name][0] for r in references if name in r]
        if name not in found or not against:
            continue
        evidence, further = found[name]
        original = base[name][0] if name in base else evidence
        compared[name] = compare(
            evidence, original, against, tests=tests, two_sided=name == "target", limits=(0.0, 1.0)
        )
        entry = compared[name].entry()
        if name in _ONE_SIDED:
            entry |= dict.fromkeys(("original", "leak_left", "leak_low", "leak_high"))
        entries[name] = entry | further
        for key in further:
            entries[name][f"retrain_{key}"] = statistics.fmean(r[name][1][key] for r in references if name in r)
    return entries, compared


def _overlap(model: Measured, others: Sequence[Measured]) -> dict[str, Any] | None:
    """Return the overlap of recommendation lists with retrained models, and the overlap between retrained models."""
    if not others:
        return None
    entry: dict[str, Any] = {}
    for group, lists in model["lists"].items():
        values = [top_k_overlap(lists, m["lists"][group]) for m in others]
        pairs = [(a, b) for k, a in enumerate(others) for b in others[k + 1 :]]
        between = [top_k_overlap(a["lists"][group], b["lists"][group]) for a, b in pairs]
        for name, found in ((group, values), (f"retrain_{group}", between)):
            known = [value for value in found if value is not None]
            entry[name] = statistics.fmean(known) if known else None
    return entry
