"""SHA-256 fingerprints of the parameters of models."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef

__all__ = ["checksums", "fingerprint", "keyed", "remembered", "unchanging"]


@dataclass
class _Facts:
    """What was computed from the tensors of a model while they had these places, versions and contents."""

    places: list[tuple[str, TensorWeakRef, int, int]]
    contents: list[int]
    known: dict[str, Any]

    def holds(self, tensors: list[tuple[str, Tensor]]) -> bool:
        """Return whether these are the same tensors at the same places, with the same versions."""
        return len(tensors) == len(self.places) and all(
            name == other and ref() is value and (value.data_ptr(), value._version) == (place, version)
            for (name, value), (other, ref, place, version) in zip(tensors, self.places)
        )


_ODD = 0x2545F4914F6CDD1D  # so that the sums of rows and of columns do not cancel
_FACTS: WeakKeyDictionary[nn.Module, _Facts] = WeakKeyDictionary()
_UNCHANGING: ContextVar[dict[int, bool]] = ContextVar("unchanging", default={})  # noqa: B039 - it is never changed
"""By identity: the models that do not change in this block, and whether their contents were compared in it."""


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _facts_of(model: nn.Module) -> _Facts | None:
    """Return what is known of the present state of a model; ``None`` if its tensors have no versions or places."""
    tensors, unchanging = _tensors(model), _UNCHANGING.get()
    if any(v.is_inference() or v.is_meta or v.layout != torch.strided for _, v in tensors):
        return None
    facts = _FACTS.get(model)
    held = facts is not None and facts.holds(tensors)
    if facts is None or not held or not unchanging.get(id(model)):  # fused optimizers leave the version as it is
        contents = [_content(value) for _, value in tensors]
        if facts is None or not held or contents != facts.contents:
            places = [(name, TensorWeakRef(v), v.data_ptr(), v._version) for name, v in tensors]
            facts = _FACTS[model] = _Facts(places, contents, {})
    if id(model) in unchanging:
        unchanging[id(model)] = True
    return facts


@contextmanager
def unchanging(model: nn.Module) -> Iterator[None]:
    """Compare the contents of a model once in a block in which every change of its tensors raises their versions.

    Args:
        model: The model.
    """
    token = _UNCHANGING.set({**_UNCHANGING.get(), id(model): False})
    try:
        yield
    finally:
        _UNCHANGING.reset(token)


_SPARSE: dict[torch.layout, Callable[[Tensor], tuple[Tensor, ...]]] = {
    torch.sparse_coo: lambda x: (x._indices(), x._values()),
    torch.sparse_csr: lambda x: (x.crow_indices(), x.col_indices(), x.values()),
    torch.sparse_bsr: lambda x: (x.crow_indices(), x.col_indices(), x.values()),
    torch.sparse_csc: lambda x: (x.ccol_indices(), x.row_indices(), x.values()),
    torch.sparse_bsc: lambda x: (x.ccol_indices(), x.row_indices(), x.values()),
}
"""The tensors that a sparse one consists of."""


def _content(value: Tensor) -> int:
    """Return a checksum of the bits of a tensor."""
    if value.layout in _SPARSE:
        parts = _SPARSE[value.layout](value.detach())
        return sum((2 * place + 1) * _content(part) for place, part in enumerate(parts))
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
    """Return name, type, layout, shape and checksum of every parameter and buffer, at a fraction of the cost of a hash.

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
    facts, tensors = _facts_of(model), _tensors(model)
    contents = [_content(value) for _, value in tensors] if facts is None else facts.contents
    return tuple((name, v.dtype, v.layout, tuple(v.shape), content) for (name, v), content in zip(tensors, contents))


def remembered(model: nn.Module, what: str, compute: Callable[[nn.Module], Any]) -> Any:
    """Return what a function computes from the parameters and buffers of a model, once per state of them.

    A state is known by the identities of the tensors, their places in memory, their version counters, which changes in
    place raise, and checksums of their bits, since fused optimizers and ``.data`` bypass the counters; within
    :func:`unchanging`, checksums are computed once. Nothing is kept
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
    facts = _facts_of(model)
    if facts is None:
        return compute(model)
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
        parts = _SPARSE[value.layout](value.detach()) if value.layout in _SPARSE else (value.detach(),)
        for part in parts:
            if value.layout in _SPARSE:
                digest.update(f"{value.layout} {part.dtype} {list(part.shape)}".encode())
            content = part.cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy does not support all dtypes
            digest.update(content.numpy().data)
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
