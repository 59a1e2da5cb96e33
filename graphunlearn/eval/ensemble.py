"""One model against an ensemble of retrained ones, whatever kind of recommender it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graphunlearn.eval.forgetting import ks_distance

__all__ = ["Measured", "compared_by_ks", "held_against"]

Measured = dict[str, Any]
"""What a judge says of one model: ``utility``, ``forgetting``, (log) probabilities ``forget`` and ``test``."""


def held_against(
    models: Sequence[Measured], retrained: Sequence[Measured]
) -> Iterator[tuple[Measured, list[Measured]]]:
    """Yield every model with the retrained ones it is held against; a retrained one is held against the others."""
    for model in models:
        yield model, list(retrained)
    for k, model in enumerate(retrained):
        yield model, [other for j, other in enumerate(retrained) if j != k]


def compared_by_ks(model: Measured, others: Sequence[Measured]) -> float | None:
    """Return the KS distance on what is forgotten, and leave its p-value and floor in ``model["ks"]``."""
    ks = ks_distance(model["forget"], [other["forget"] for other in others]) if others else None
    model["ks"] = {"p_value": ks.p_value, "floor": ks.floor} if ks else {"p_value": None, "floor": None}
    return ks.statistic if ks else None
