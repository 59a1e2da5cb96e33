"""Raw ids: the ids of users, items and sessions in the original data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError

__all__ = ["IdError", "Vocabulary", "canonical_id", "canonical_ids", "preview"]

MISSING = frozenset({"", "NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"})
_DECIMAL = re.compile(r"[+-]?\d+(\.\d*)?")


def preview(values: Iterable[Any], count: int = 3) -> str:
    """Return the first few values for a message, and the number of further values.

    Args:
        values: The values.
        count: Number of values to show.

    Example:
        >>> preview(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    values = list(values)
    more = f" and {len(values) - count} more" if len(values) > count else ""
    return ", ".join(repr(value) for value in values[:count]) + more


class IdError(ArgumentError):
    """A value is not a valid id.

    Attributes:
        position: Position of the value in its column.
    """

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, position: int = 0) -> None:
        super().__init__(argument, expected, got, hint)
        self.position = position


def canonical_id(value: Any) -> str:
    """Return one raw id as a string: ``196``, ``196.0``, ``numpy.int64(196)``, ``tensor(196)`` are all ``"196"``.

    Args:
        value: A string, an integer, an integral float, or a NumPy or torch scalar of these.

    Raises:
        IdError: The id is missing, negative, fractional or of another type.

    Example:
        >>> canonical_id(196.0), canonical_id(" b7 ")
        ('196', 'b7')
    """
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str):
        value = value.strip()
        if value not in MISSING:
            return value
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    elif isinstance(value, float) and value >= 0 and value.is_integer():
        return str(int(value))
    raise IdError("ids", "be text or whole numbers from 0", f"{value!r}")


def canonical_ids(values: Sequence[Any], numbers_as_text: bool = False) -> list[str]:
    """Return the raw ids of one column as strings.

    Args:
        values: The ids.
        numbers_as_text: Whether numbers are given as text, as in a file. If so, in a column with only numbers,
            ``"196.0"`` becomes ``"196"``, a negative or fractional number is an error, and ``"007"`` is unchanged.

    Raises:
        IdError: An id is missing, negative, fractional or of another type.

    Example:
        >>> canonical_ids(["196.0", "22", "007"], numbers_as_text=True)
        ['196', '22', '007']
        >>> canonical_ids(["1.5", "b"], numbers_as_text=True)
        ['1.5', 'b']
    """
    numbers = numbers_as_text and all(isinstance(value, str) and _DECIMAL.fullmatch(value.strip()) for value in values)
    ids: list[str] = []
    for position, value in enumerate(values):
        try:
            ids.append(_whole(value.strip()) if numbers else canonical_id(value))
        except IdError as error:
            error.position = position
            raise
    return ids


def _whole(text: str) -> str:
    head, _, fraction = text.partition(".")
    if text[0] == "-" or fraction.strip("0"):
        raise IdError("ids", "be whole and not negative in a column of numbers", text)
    return head.removeprefix("+")


class Vocabulary:
    """The raw ids of one node type, in node order. A vocabulary is immutable, so that several graphs can share it.

    Args:
        ids: The raw ids, or their number, which gives the ids ``"0"``, ``"1"``, ...

    Attributes:
        is_range: Whether the vocabulary was made from a number of ids.

    Raises:
        ValueError: An id is repeated or invalid.

    Example:
        >>> vocabulary = Vocabulary(["196", "186"])
        >>> vocabulary.lookup([186, "7"])
        tensor([ 1, -1])
    """

    def __init__(self, ids: Iterable[Any] | int) -> None:
        self.is_range = isinstance(ids, int)
        if isinstance(ids, int):
            self._size = ids
            return
        self.ids = [canonical_id(value) for value in ids]
        self._size = len(self.ids)
        if len(self._position) < self._size:
            repeated = [text for i, text in enumerate(self.ids) if self._position[text] != i]
            raise ArgumentError("ids", "be distinct", f"{preview(repeated)} more than once")

    @cached_property
    def ids(self) -> list[str]:
        """The raw ids, in node order."""
        return [str(i) for i in range(self._size)]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.ids)}

    def lookup(self, ids: Iterable[Any]) -> Tensor:
        """Return the node of every raw id ``[num_ids]``; -1 for unknown ids.

        Args:
            ids: Raw ids.

        Raises:
            IdError: A value is not a valid id.
        """
        found = (self._position.get(canonical_id(value), -1) for value in ids)
        return torch.tensor(list(found), dtype=torch.long)

    def take(self, index: Tensor) -> Vocabulary:
        """Return the vocabulary of a subset of the nodes.

        Args:
            index: Node numbers, which give the order of the new vocabulary, or a boolean mask ``[num_nodes]``.
        """
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        ids = self.ids
        return Vocabulary([ids[i] for i in index.tolist()])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 fingerprint of the raw ids in their order."""
        return hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> str:
        return self.ids[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids == other.ids

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: Any) -> Vocabulary:
        return self

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)})"
