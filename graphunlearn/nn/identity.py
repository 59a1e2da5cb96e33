"""Which model is it? A hash of what it has learned."""

from __future__ import annotations

import hashlib

from torch import nn

__all__ = ["fingerprint"]


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of the parameters and buffers of a model.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> before = fingerprint(layer)
        >>> _ = torch.nn.init.constant_(layer.bias, 7.0)
        >>> fingerprint(layer) == before
        False
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
