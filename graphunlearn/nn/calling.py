"""A call of any function of a model with other parameters than its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["call_with"]

T = TypeVar("T")


class _Applied(nn.Module):
    """A module whose ``forward`` applies a function to a model, as ``torch.func.functional_call`` needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module], Any]) -> Any:
        return function(self.model)


def call_with(model: nn.Module, values: Mapping[str, Tensor], function: Callable[[nn.Module], T]) -> T:
    """Return ``function(model)``, evaluated with other values of some parameters; the model is never changed.

    Args:
        model: The model.
        values: The values by the name of the parameter; parameters that are not named keep theirs.
        function: The function.

    Returns:
        The result, differentiable in ``values``.

    Example:
        >>> import torch
        >>> call_with(torch.nn.Linear(1, 1), {"bias": torch.tensor([3.0])}, lambda model: model.bias)
        tensor([3.])
    """
    result: T = torch.func.functional_call(
        _Applied(model), {f"model.{name}": value for name, value in values.items()}, (function,)
    )
    return result
