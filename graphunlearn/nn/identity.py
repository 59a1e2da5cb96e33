"""SHA-256 fingerprints of the parameters of models."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checksums", "fingerprint", "keyed", "remembered"]


@dataclass
class _Facts:
    """What was computed from the tensors of a model while they had these versions."""

    state: list[tuple[str, TensorWeakRef, tuple[int, int, int]]]
    known: dict[str, Any]

    def holds(self, model: nn.Module) -> bool:
        """Return whether the model has the same tensors at the same places, unchanged since."""
        tensors = _tensors(model)
        return len(tensors) == len(self.state) and all(
            name == other and ref() is value and _version(value) == version
            for (name, value), (other, ref, version) in zip(tensors, self.state)
        )


_ODD = 0x2545F4914F6CDD1D  # so that the sums of rows and of columns do not cancel
_FACTS: WeakKeyDictionary[nn.Module, _Facts] = WeakKeyDictionary()


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _version(value: Tensor) -> tuple[int, int, int]:
    """Return the place of a tensor, its version, and a checksum; fused optimizers leave the version as it is."""
    return value.data_ptr(), value._version, _content(value)


def _content(value: Tensor) -> int:
    """Return a checksum of the bits of a tensor."""
    flat = value.detach().contiguous().view(-1).view(torch.uint8)
    words = flat.numel() // 8 * 8 if flat.storage_offset() % 8 == 0 else 0
    return _checksum(flat[:words].view(torch.int64)) + int(flat[words:].sum())


def _checksum(words: Tensor) -> int:
    """Return a sum of integers, modulo 2 to the 64, that also tells most changes of their order."""
    width = max(1, math.isqrt(words.numel()))
    whole = words.numel() // width * width
    total = int(words[whole:].sum())
    for axis in (0, 1):
        part = words[:whole].view(-1, width).sum(axis)
        total += int((part * (2 * torch.arange(len(part), device=part.device) + 1)).sum()) * (_ODD + 2 * axis)
    return total


def checksums(model: nn.Module) -> tuple[tuple[Any, ...], ...]:
    """Return the name, type, shape and a checksum of every parameter and buffer, at a fraction of the cost of a hash.

    Two models with equal checksums are nearly always equal; use :func:`fingerprint` where this must be certain.

    Args:
        model: The model.

    Example:
        >>> import torch
        >>> layer, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> checksums(layer) == checksums(other)
        False
        >>> checksums(other) == checksums(other)
        True
    """
    return tuple((name, v.dtype, tuple(v.shape), _content(v)) for name, v in _tensors(model))


def remembered(model: nn.Module, what: str, compute: Callable[[nn.Module], Any]) -> Any:
    """Return what a function computes from the parameters and buffers of a model, once per state of them.

    A state is known by the identities of the tensors, their places in memory, their version counters, which changes in
    place raise, and checksums of their bits, since fused optimizers and ``.data`` bypass the counters. Nothing is kept
    for a model with a tensor that is sparse, on the device ``meta``, or made in inference mode.

    Args:
        model: The model.
        what: The name of the function, which must depend on nothing but the tensors of the model.
        compute: The function.

    Returns:
        Its value, which must not be changed.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> remembered(layer, "fingerprint", fingerprint) == fingerprint(layer)
        True
    """
    if any(v.is_inference() or v.is_meta or v.layout != torch.strided for _, v in _tensors(model)):
        return compute(model)
    facts = _FACTS.get(model)
    if facts is None or not facts.holds(model):
        state = [(name, TensorWeakRef(value), _version(value)) for name, value in _tensors(model)]
        facts = _FACTS[model] = _Facts(state, {})
    if what not in facts.known:
        facts.known[what] = compute(model)
    return facts.known[what]


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
        digest.update(content.numpy())
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
