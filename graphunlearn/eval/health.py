"""Health of the retrained models: a model that stopped too early increases the distances between retrained models."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from graphunlearn.operators import UnlearningResult

__all__ = ["health", "plateau"]

SHARE = 0.2
"""Share of the median of the siblings by which a validation metric must be lower to count as far below them."""
DEVIATIONS = 3 * 1.4826
"""Number of median absolute deviations of the siblings by which it must also be lower: three standard deviations, if
they are normal."""


def plateau(log: dict[str, Any]) -> bool:
    """Return whether a training stopped in its first plateau: its best epoch is the first one, or nearly.

    Args:
        log: The log of a retraining, with ``best_epoch``, ``epochs`` and ``settings``.

    Example:
        >>> plateau({"best_epoch": 1, "epochs": 11, "settings": {"epochs": 300}})
        True
    """
    best, epochs = log.get("best_epoch"), log.get("epochs")
    limit = (log.get("settings") or {}).get("epochs")
    if best is None or epochs is None:
        return False
    return best <= 2 and epochs > best and (limit is None or epochs < limit)


def health(references: Sequence[UnlearningResult]) -> list[dict[str, Any]]:
    """Return the report's entry on every retrained model.

    A retrained model is not healthy if its training stopped in its first plateau, or if its best validation metric is
    more than 20% below the median of the other retrained models, and more than three (robust) standard deviations.
    Median and median absolute deviation do not depend on a few models that are far off themselves. Without validation
    data nothing is known.

    Args:
        references: Results of retraining.

    Returns:
        ``seed``, ``best_epoch``, ``epochs`` (where it stopped), ``validation`` (the best value) and ``healthy`` of each
        model; fields that the result does not record are ``None``.
    """
    entries = []
    for k, result in enumerate(references):
        log = result.log
        own = log.get("validation")
        siblings = [r.log for j, r in enumerate(references) if j != k]
        values = [other["validation"] for other in siblings if other.get("validation") is not None]
        low = own is not None and len(values) > 1 and _is_far_below(own, values)
        entries.append(
            {
                "seed": (log.get("settings") or {}).get("seed"),
                "best_epoch": log.get("best_epoch"),
                "epochs": log.get("epochs"),
                "validation": own,
                "healthy": None if own is None or log.get("best_epoch") is None else not (low or plateau(log)),
            }
        )
    return entries


def _is_far_below(value: float, others: Sequence[float]) -> bool:
    middle = statistics.median(others)
    deviation = statistics.median(abs(other - middle) for other in others)
    return value < (1 - SHARE) * middle and value < middle - DEVIATIONS * deviation
