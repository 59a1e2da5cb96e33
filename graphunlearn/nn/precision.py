"""A check that parameters have a precision in which systems are solved and gradients are summed."""

from __future__ import annotations

import torch
from torch import nn

from graphunlearn.errors import ArgumentError

__all__ = ["check_precision"]


def check_precision(model: nn.Module) -> None:
    """Raise an error if a parameter of a model has less than single precision.

    Sparse products of half precision are not implemented on every device, and sums over many interactions lose their
    last digits in it.

    Args:
        model: The model.

    Raises:
        ValueError: A parameter has half precision or less.

    Example:
        >>> check_precision(nn.Linear(2, 2).half())
        Traceback (most recent call last):
        graphunlearn.errors.ArgumentError: 'model' must have parameters in single or double precision (got float16 in \
weight); pass model.float(), and convert the result back
    """
    for name, p in model.named_parameters():
        if p.is_floating_point() and torch.finfo(p.dtype).bits < 32:
            kind, hint = str(p.dtype).removeprefix("torch."), "pass model.float(), and convert the result back"
            raise ArgumentError("model", "have parameters in single or double precision", f"{kind} in {name}", hint)
