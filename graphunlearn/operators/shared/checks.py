"""Checks of the settings of unlearning methods."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from graphunlearn.data.schema import check, is_whole
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.precision import check_precision

__all__ = [
    "check",
    "check_choices",
    "check_counts",
    "check_positive",
    "check_precision",
    "naming_request",
    "not_finite",
]


@contextmanager
def naming_request(objective: Any) -> Iterator[None]:
    """Reword an error about the retained graph, which the request is to blame for, in a block that trains on it.

    Args:
        objective: The loss; ``None`` for the default.

    Raises:
        ValueError: The loss cannot be computed on what the request leaves.
    """
    try:
        yield
    except ArgumentError as error:
        if error.argument != "graph":
            raise
        name = "the default loss" if objective is None else type(objective).__name__
        hint = f"the retained graph must {error.expected}"
        raise ArgumentError("request", f"leave a graph that {name} can be trained on", error.got, hint) from error


def check_counts(**values: Any) -> None:
    """Raise a ``ValueError`` if one of the values is not an integer of at least 1."""
    check("be a positive integer", lambda value: is_whole(value) and value >= 1, **values)


def check_positive(**values: float) -> None:
    """Raise a ``ValueError`` if one of the values is not positive and finite."""
    check("be positive and finite", lambda value: 0 < value < math.inf, **values)


def check_choices(choices: tuple[str, ...], **values: Any) -> None:
    """Raise a ``ValueError`` if one of the values is not among ``choices``."""
    check(f"be one of {', '.join(choices)}", lambda value: value in choices, **values)


def not_finite(model: nn.Module) -> list[str]:
    """Return the names of the parameters that hold NaN or infinity."""
    return [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
