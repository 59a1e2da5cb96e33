"""Which model is it? A hash of what it has learned."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["fingerprint", "keyed"]


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


def keyed(print: str, key: bytes) -> str:
    """Return a fingerprint that only those who have the key can compare with anything.

    That of a graph needs this wherever it is told to others: who holds what remains could otherwise put back one pair
    after another until the fingerprint of the graph before comes out.

    Example:
        >>> keyed("5b1f", bytes(32)) == keyed("5b1f", bytes(range(32)))
        False
    """
    return hmac.new(key, print.encode(), hashlib.sha256).hexdigest()
