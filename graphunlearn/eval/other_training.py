"""Verdicts on models whose original was trained by another program than the retrained models."""

from __future__ import annotations

from collections.abc import Sequence

from graphunlearn.eval.decision import FEWEST, Spread, Verdict, spread_of
from graphunlearn.eval.measure import Measured
from graphunlearn.metrics.forgetting import distance_to_retrain

__all__ = ["discount"]

_OPENING = "The original was trained by another program than the retrained models"


def discount(original: Measured, retrained: Sequence[Measured], models: Sequence[Measured]) -> str:
    """Make verdicts undecided that the difference between two trainings could explain, in place.

    The two trainings count as alike if, on test pairs, the original is not plainly farther from the retrained models
    than these are from each other: forgetting moves these pairs little. If they are not alike, or if there are no test
    pairs to tell, a distance from retraining says nothing about forgetting, and the verdicts of forgetting too little
    or too much become undecided. That of forgetting as retraining does stands: it is harder to get.

    Args:
        original: Measures of the original model.
        retrained: Measures of the retrained models.
        models: Measures of the methods, with their verdicts.

    Returns:
        A sentence for the notes of the report.
    """
    apart = _apart(original, retrained)
    if apart is not None and not apart.far:
        return (
            f"{_OPENING}. On test data it is {apart.ratio:.2f} × as far from them as two of them are apart, "
            "so that the trainings count as alike."
        )
    found = "it cannot be told whether the trainings are alike"
    if apart is not None:
        found = f"on test data, the original is {apart.ratio:.2f} × as far from them as two of them are apart"
    needs = "retrained models from the training of the original (an import can name it)"
    for model in models:
        if model["verdict"].status in ("under", "over"):
            rule = f"the original was trained by another program than the retrained models, and {found}"
            model["verdict"] = Verdict("undecided", rule, needs)
    return f"{_OPENING}, and {found}: distances from retraining include the difference between the trainings."


def _apart(original: Measured, retrained: Sequence[Measured]) -> Spread | None:
    """Return how far the original is from the retrained models on test pairs; ``None`` if that cannot be told."""
    own = [m["test"] for m in retrained]
    if len(own) < FEWEST or not original["test"].numel():
        return None
    between = [distance_to_retrain(p, own[:k] + own[k + 1 :]) for k, p in enumerate(own)]
    return spread_of(distance_to_retrain(original["test"], own), between)
