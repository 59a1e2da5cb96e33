"""Conversion of values to JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["json_ready"]


def json_ready(value: Any) -> Any:
    """Return ``value`` in plain JSON types; NaN and infinities become ``None``, tensors and arrays become lists.

    Args:
        value: Any value; objects of unknown types become text.

    Example:
        >>> import torch
        >>> json_ready({"a": float("nan"), 2: torch.tensor([1.0, float("inf")]), "b": (1, True)})
        {'a': None, '2': [1.0, None], 'b': [1, True]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(v) for key, v in value.items()}
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return json_ready(value.tolist())
    if isinstance(value, (list, tuple, set)):
        return [json_ready(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
