"""What a graph of interactions holds, and the messages where it does not."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data.vocabulary import Vocabulary

EDGE_TYPE = ("user", "interacts", "item")
SIDES = ("user", "item")
ATTRIBUTES = ("rating", "time", "label")


def warn(message: str) -> None:
    """Warn as if from the first frame outside this package, however deep the call that noticed."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("graphunlearn."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def is_per_interaction(key: str, value: Any, num_interactions: int) -> bool:
    """Whether an attribute of the interaction store has one value per interaction, and names no pair itself."""
    if key.startswith("edge_") and key not in {"edge_attr", "edge_weight"}:
        return False
    return isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == num_interactions


def as_mask(index: Tensor, size: int, device: torch.device) -> Tensor:
    """Return a mask or indices as a mask of its own memory ``[size]``."""
    index = torch.as_tensor(index, device=device)
    if index.dtype == torch.bool:
        if index.shape != (size,):
            raise ValueError(f"'index' must be a mask of {size} interactions (got shape {list(index.shape)})")
        return index.clone()  # kept until the adjacency is asked for, whatever the caller does to theirs
    if index.dim() != 1 or index.is_floating_point():
        raise ValueError(f"'index' must be a mask or a list of indices (got {index.dtype}, shape {list(index.shape)})")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise ValueError(f"'index' must lie between 0 and {size - 1} (got {int(index.min())} to {int(index.max())})")
    mask = torch.zeros(size, dtype=torch.bool, device=device)
    mask[index.long()] = True
    return mask


def check_pairs(edge_index: Any) -> Tensor:
    """Return pairs as a new int64 tensor ``[2, num_interactions]``."""
    with torch.inference_mode(False):
        pairs = torch.as_tensor(edge_index)
        if pairs.dim() != 2 or pairs.size(0) != 2:
            raise ValueError(f"'edge_index' must have shape [2, num_interactions] (got {list(pairs.shape)})")
        if pairs.numel() and (pairs.dtype == torch.bool or pairs.is_floating_point() or pairs.is_complex()):
            raise ValueError(f"'edge_index' must hold whole numbers (got {pairs.dtype})")
        return pairs.detach().long().clone(memory_format=torch.contiguous_format)


def check_nodes(node_type: str, nodes: Tensor, num_nodes: int | None, ids: Iterable[Any] | None) -> Vocabulary:
    """Return the vocabulary of one node type, after checking ids, number and raw ids against one another."""
    try:
        vocabulary = None if ids is None else ids if isinstance(ids, Vocabulary) else Vocabulary(ids)
    except ValueError as error:
        raise ValueError(f"'{node_type}_ids' must be one raw id per {node_type}: {error}") from None
    low, high = (int(nodes.min()), int(nodes.max())) if nodes.numel() else (0, -1)
    size = num_nodes if num_nodes is not None else len(vocabulary) if vocabulary is not None else high + 1
    if low < 0:
        raise ValueError(f"'edge_index' must not hold negative ids (got {node_type} {low})")
    if high >= size:
        raise ValueError(f"'edge_index' must hold {node_type}s below {size} (got {node_type} {high})")
    if vocabulary is not None and len(vocabulary) != size:
        raise ValueError(f"'{node_type}_ids' must hold one raw id per {node_type}, {size} (got {len(vocabulary)})")
    return Vocabulary(size) if vocabulary is None else vocabulary


def check_attribute(name: str, value: Any, num_interactions: int, device: torch.device) -> Tensor:
    """Return one value per interaction as a new tensor ``[num_interactions]``, as floats but for times."""
    with torch.inference_mode(False):
        value = torch.as_tensor(value, device=device).detach()
        if value.shape != (num_interactions,):
            raise ValueError(
                f"'{name}' must hold one value per interaction, {num_interactions} (got {list(value.shape)})"
            )
        if not value.isfinite().all():
            at = int((~value.isfinite()).nonzero()[0])
            raise ValueError(f"'{name}' must be finite (got {float(value[at])} at interaction {at})")
        keep = value.is_floating_point() or name == "time"
        return value.clone() if keep else value.to(torch.get_default_dtype())
