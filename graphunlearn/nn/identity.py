"""Which model is it? A hash of what it has learned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["fingerprint"]


def fingerprint(model: nn.Module | Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of the parameters and buffers of a model, or of its ``state_dict``.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> before = fingerprint(layer)
        >>> _ = torch.nn.init.constant_(layer.bias, 7.0)
        >>> fingerprint(layer) == before, fingerprint(layer) == fingerprint(layer.state_dict())
        (False, True)
    """
    digest = hashlib.sha256()
    for name, value in sorted((model.state_dict() if isinstance(model, nn.Module) else model).items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy does not know every dtype
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()
