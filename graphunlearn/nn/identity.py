"""SHA-256 fingerprints of the parameters of models."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["fingerprint", "keyed"]


def fingerprint(model: nn.Module | Mapping[str, Tensor]) -> str:
    """Return the SHA-256 fingerprint of the parameters and buffers of a model.

    Args:
        model: The model, or its ``state_dict``.

    Returns:
        The fingerprint, in hexadecimal.

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
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy does not support all dtypes
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()


def keyed(print: str, key: bytes) -> str:
    """Return the HMAC-SHA256 of a fingerprint, which can be recomputed only with the key.

    Use it for every published fingerprint of a graph. With a plain fingerprint of the original graph, someone who has
    the retained graph could find the forgotten interactions by adding candidates until the fingerprints are equal.

    Args:
        print: The fingerprint.
        key: The secret key.

    Returns:
        The keyed fingerprint, in hexadecimal.

    Example:
        >>> keyed("5b1f", bytes(32)) == keyed("5b1f", bytes(range(32)))
        False
    """
    return hmac.new(key, print.encode(), hashlib.sha256).hexdigest()
