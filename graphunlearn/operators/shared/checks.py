"""Checks of the settings of unlearning methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from graphunlearn.errors import ArgumentError

__all__ = ["check", "check_choices", "check_counts", "check_positive", "check_precision"]


def check(expected: str, valid: Callable[[Any], bool], **values: Any) -> None:
    """Raise an :class:`~graphunlearn.errors.ArgumentError` if one of the values is not valid.

    Args:
        expected: The requirement, in words that follow "must".
        valid: Returns whether a value is valid.
        **values: The values, by the names of the arguments.

    Raises:
        ValueError: A value is not valid.

    Example:
        >>> check("be at least 1", lambda value: value >= 1, epochs=3, steps=0)
        Traceback (most recent call last):
        graphunlearn.errors.ArgumentError: 'steps' must be at least 1 (got 0)
    """
    for name, value in values.items():
        if not valid(value):
            raise ArgumentError(name, expected, f"{value!r}")


def check_counts(**values: Any) -> None:
    """Raise a ``ValueError`` if one of the values is not an integer of at least 1."""
    check("be a positive integer", lambda value: isinstance(value, int) and value >= 1, **values)


def check_positive(**values: float) -> None:
    """Raise a ``ValueError`` if one of the values is not positive and finite."""
    check("be positive and finite", lambda value: 0 < value < math.inf, **values)


def check_choices(choices: tuple[str, ...], **values: Any) -> None:
    """Raise a ``ValueError`` if one of the values is not among ``choices``."""
    check(f"be one of {', '.join(choices)}", lambda value: value in choices, **values)


def check_precision(model: nn.Module) -> None:
    """Raise a ``ValueError`` if a trainable parameter has half precision, in which the systems cannot be solved."""
    for name, p in model.named_parameters():
        if p.requires_grad and p.is_floating_point() and torch.finfo(p.dtype).bits < 32:
            kind, hint = str(p.dtype).removeprefix("torch."), "pass model.float(), and convert the result back"
            raise ArgumentError("model", "have parameters in single or double precision", f"{kind} in {name}", hint)
