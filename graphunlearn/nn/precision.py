"""A check that parameters have a precision in which systems are solved and gradients are summed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphunlearn.errors import ArgumentError

__all__ = ["check_finite", "check_precision", "not_finite"]


def not_finite(model: nn.Module) -> list[str]:
    """Return the names of the parameters that hold NaN or infinity.

    A sum is finite only if all its terms are, so that one pass without a mask usually tells.

    Args:
        model: The model.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.bias, float("inf"))
        >>> not_finite(layer)
        ['bias']
    """
    with torch.no_grad():
        named = [(name, p) for name, p in model.named_parameters() if not bool(torch.isfinite(p.sum()))]
        return [name for name, p in named if not bool(torch.isfinite(p).all())]


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


def check_finite(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> None:
    """Raise an error if a parameter of a model is not finite, or a buffer is NaN.

    A buffer may be infinite: the offset of an empty shard is minus infinity.

    Args:
        model: The model.
        state: The values to check, which the model does not have yet; by default its own.

    Raises:
        ValueError: A value is not finite.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.bias, torch.nan)
        >>> check_finite(layer)
        Traceback (most recent call last):
        ValueError: 1 of 1 values of 'bias' are not finite
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in (model.state_dict() if state is None else state).items():
        if value.is_floating_point():
            bad = ~torch.isfinite(value) if name in parameters else torch.isnan(value)
            if bool(bad.any()):
                raise ValueError(f"{int(bad.sum()):,} of {value.numel():,} values of '{name}' are not finite")
