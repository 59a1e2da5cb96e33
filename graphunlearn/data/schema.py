"""Names of a graph's attributes, and checks of the data that graphs are made from."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data.vocabulary import Vocabulary, canonical_ids
from graphunlearn.errors import ArgumentError

EDGE_TYPE = ("user", "interacts", "item")
SIDES = ("user", "item")
ATTRIBUTES = ("rating", "time", "label")


def warn(message: str | Warning) -> None:
    """Issue a ``UserWarning`` that points to the code that called this package.

    Args:
        message: The message, or a warning.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("graphunlearn."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def check(expected: str, valid: Callable[[Any], bool], **values: Any) -> None:
    """Raise an :class:`~graphunlearn.errors.ArgumentError` if one of the values is not valid.

    Args:
        expected: The requirement, in words that follow "must".
        valid: Returns whether a value is valid; a value of a type that it cannot compare is not.
        **values: The values, by the names of the arguments.

    Raises:
        ValueError: A value is not valid.

    Example:
        >>> check("be at least 1", lambda value: value >= 1, epochs=3, steps=0)
        Traceback (most recent call last):
        graphunlearn.errors.ArgumentError: 'steps' must be at least 1 (got 0)
    """
    for name, value in values.items():
        try:
            fits = bool(valid(value))
        except (TypeError, RuntimeError, ValueError):  # such as a comparison of a number and a text
            fits = False
        if not fits:
            raise ArgumentError(name, expected, f"{value!r}")


def is_whole(value: Any) -> bool:
    """Whether a value is an integer of Python or NumPy, and not a truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_sizes(*, least: int = 1, **sizes: Any) -> None:
    """Raise ArgumentError if one of the arguments is not a whole number, or is below ``least``, which is 0 or 1."""
    expected = f"be at least {least}" if least else "not be negative"
    for name, value in sizes.items():
        check(
            expected if is_whole(value) else "be a whole number", lambda v: is_whole(v) and v >= least, **{name: value}
        )


def is_per_interaction(key: str, value: Any, num_interactions: int) -> bool:
    """Whether an attribute of the interaction store has one value per interaction and does not hold pairs itself.

    Args:
        key: Name of the attribute.
        value: Its value.
        num_interactions: Number of interactions.
    """
    if key.startswith("edge_") and key not in {"edge_attr", "edge_weight"}:
        return False
    return isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == num_interactions


def as_mask(index: Tensor, size: int, device: torch.device, what: str = "interactions") -> Tensor:
    """Return a new mask, given a mask or indices.

    Args:
        index: Boolean mask ``[size]``, or indices.
        size: Length of the mask.
        device: Device of the mask.
        what: Plural noun for error messages.

    Returns:
        Boolean mask ``[size]``.

    Raises:
        ValueError: A mask has another length, or an index is not a whole number below ``size``.
    """
    index = torch.as_tensor(index, device=device)
    if index.dtype == torch.bool:
        if index.shape != (size,):
            raise ArgumentError("index", f"be a mask of {size} {what}", f"shape {list(index.shape)}")
        return index.clone()  # a copy, since the adjacency may use it later, after the caller changed theirs
    mask = torch.zeros(size, dtype=torch.bool, device=device)
    mask[check_index("index", index, size, "a mask or a list of indices")] = True
    return mask


def check_index(name: str, index: Tensor, size: int, what: str) -> Tensor:
    """Return positions in a sequence as int64 ``[num]``.

    Args:
        name: Name of the argument in error messages.
        index: The positions.
        size: Length of the sequence.
        what: Description of the valid values, for error messages.

    Raises:
        ValueError: The positions are not whole numbers below ``size``.
    """
    if index.dim() != 1 or index.dtype == torch.bool or index.is_floating_point():
        raise ArgumentError(name, f"be {what}", f"{index.dtype}, shape {list(index.shape)}")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise ArgumentError(name, f"lie between 0 and {size - 1}", f"{int(index.min())} to {int(index.max())}")
    return index.long()


def cuts_of(fractions: Iterable[float], size: int) -> list[int]:
    """Return the positions at which a sequence is cut into parts of the given shares.

    Args:
        fractions: Share of every part; the shares add up to 1.
        size: Length of the sequence.

    Returns:
        The positions; their number is one less than that of the parts.

    Raises:
        ValueError: The fractions are not positive or do not add up to 1.
    """
    shares = [float(fraction) for fraction in fractions]
    if not shares or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ArgumentError("fractions", "be positive and add up to 1", list(fractions))
    return [round(sum(shares[: k + 1]) * size) for k in range(len(shares) - 1)]


def check_pairs(edge_index: Any) -> Tensor:
    """Return pairs of users and items as a new int64 tensor ``[2, num_interactions]``.

    Args:
        edge_index: The pairs.

    Raises:
        ValueError: The shape is not ``[2, num_interactions]``, or the values are not whole numbers.
    """
    with torch.inference_mode(False):
        pairs = torch.as_tensor(edge_index)
        if pairs.dim() != 2 or pairs.size(0) != 2:
            raise ArgumentError("edge_index", "have shape [2, num_interactions]", list(pairs.shape))
        if pairs.numel() and not _is_whole(pairs):
            raise ArgumentError("edge_index", "hold whole numbers", pairs.dtype)
        return pairs.detach().long().clone(memory_format=torch.contiguous_format)


def check_nodes(
    node_type: str, nodes: Tensor, num_nodes: int | None, ids: Iterable[Any] | None, name: str = "edge_index"
) -> Vocabulary:
    """Return the vocabulary of one node type after checking node numbers, number of nodes and raw ids.

    Args:
        node_type: ``"user"``, ``"item"`` or ``"session"``.
        nodes: Node numbers, of any length.
        num_nodes: Number of nodes; by default the number of raw ids, or the largest node number plus one.
        ids: Raw ids; by default the node numbers.
        name: Name of the argument ``nodes`` in error messages.

    Raises:
        ValueError: A node number is out of range, or the number of raw ids is not the number of nodes.
    """
    try:
        vocabulary = None if ids is None else ids if isinstance(ids, Vocabulary) else Vocabulary(canonical_ids(ids))
    except ArgumentError as error:
        raise error.renamed(f"{node_type}_ids") from None
    low, high = (int(nodes.min()), int(nodes.max())) if nodes.numel() else (0, -1)
    size = num_nodes if num_nodes is not None else len(vocabulary) if vocabulary is not None else high + 1
    if low < 0:
        raise ArgumentError(name, "not hold negative ids", f"{node_type} {low}")
    if high >= size:
        raise ArgumentError(name, f"hold {node_type}s below {size}", f"{node_type} {high}")
    if vocabulary is not None and len(vocabulary) != size:
        raise ArgumentError(f"{node_type}_ids", f"hold one raw id per {node_type}, {size}", len(vocabulary))
    return Vocabulary(size) if vocabulary is None else vocabulary


def check_attribute(
    name: str, value: Any, num_interactions: int, device: torch.device, what: str = "interaction"
) -> Tensor:
    """Return one value per interaction as a new tensor ``[num_interactions]``; all values but times become floats.

    Args:
        name: Name of the attribute.
        value: Its values.
        num_interactions: Number of interactions.
        device: Device of the tensor.
        what: Name of one interaction in error messages.

    Raises:
        ValueError: The shape is not ``[num_interactions]``, or a value is not finite.
    """
    with torch.inference_mode(False):
        value = torch.as_tensor(value, device=device).detach()
        if value.shape != (num_interactions,):
            raise ArgumentError(name, f"hold one value per {what}, {num_interactions}", list(value.shape))
        if not value.isfinite().all():
            at = int((~value.isfinite()).nonzero()[0])
            raise ArgumentError(name, "be finite", f"{float(value[at])} at {what} {at}")
        keep = value.is_floating_point() or name == "time"
        return value.clone() if keep else value.to(torch.get_default_dtype())


def check_sequences(items: Any, ptr: Any) -> tuple[Tensor, Tensor]:
    """Return the items of all clicks ``[num_clicks]`` and the number of clicks per session ``[num_sessions]``.

    Args:
        items: Items of all clicks, or without ``ptr`` one sequence of items per session.
        ptr: Position of the first click of every session, then the number of clicks, or ``None``.

    Raises:
        ValueError: Shapes, types or ranges do not fit, or a session has no click.
    """
    if ptr is None:
        if isinstance(items, Tensor):
            raise ArgumentError("ptr", "say where sessions begin where 'items' is one tensor", "none")
        length = torch.tensor([len(session) for session in items], dtype=torch.long)
        items = torch.as_tensor([item for session in items for item in session])
    else:
        items = torch.as_tensor(items)
        ptr = torch.as_tensor(ptr, device=items.device)
        if ptr.dim() != 1 or not ptr.numel() or not _is_whole(ptr):
            raise ArgumentError("ptr", "hold whole numbers [num_sessions + 1]", f"{ptr.dtype}, {list(ptr.shape)}")
        if (int(ptr[0]), int(ptr[-1])) != (0, items.numel()):
            raise ArgumentError("ptr", f"run from 0 to {items.numel()}", f"{int(ptr[0])} to {int(ptr[-1])}")
        length = ptr.detach().long().diff()
    if items.dim() != 1 or (items.numel() and not _is_whole(items)):
        raise ArgumentError("items", "hold whole numbers [num_clicks]", f"{items.dtype}, {list(items.shape)}")
    if length.numel() and int(length.min()) < 1:
        raise ArgumentError("items", "hold a click of every session", f"none of session {int(length.argmin())}")
    return items.detach().long(), length


def check_users(user: Any, num_sessions: int, device: torch.device) -> Tensor:
    """Return the user of every session, -1 where unknown, as a new tensor ``[num_sessions]``.

    Raises:
        ValueError: The shape is another, or a user is not a whole number from -1.
    """
    user = torch.as_tensor(user, device=device).detach()
    if user.shape != (num_sessions,) or (user.numel() and not _is_whole(user)):
        got = f"{user.dtype}, {list(user.shape)}"
        raise ArgumentError("user", f"hold a whole number per session, {num_sessions}", got)
    if user.numel() and int(user.min()) < -1:
        raise ArgumentError("user", "hold users from 0, or -1 where unknown", int(user.min()))
    return user.long().clone()


def _is_whole(values: Tensor) -> bool:
    return values.dtype != torch.bool and not values.is_floating_point() and not values.is_complex()
