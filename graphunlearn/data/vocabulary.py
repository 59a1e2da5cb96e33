"""Raw ids: the ids of users, items and sessions in the original data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError

__all__ = ["IdError", "Vocabulary", "canonical_id", "canonical_ids", "preview"]

MISSING = frozenset({"", "NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"})
QUOTES = "'\""
WHITE = " \t\r\n\f\v"
"""The characters that are no part of an id at its ends; other blank characters are."""
EXACT = 2.0**53
"""The floats below are exact whole numbers; above, different ids become one float."""
WIDE = "store such ids as text or as integers"
_WHOLE = re.compile(r"(0|[1-9][0-9]*)(\.0*)?")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")


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
    return ", ".join(map(brief, values[:count])) + more


def brief(value: Any, longest: int = 60) -> str:
    """Return the representation of a value for a message, without the end of a long one."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}...{text[0] if text[0] in QUOTES else ''}"


class IdError(ArgumentError):
    """A value is not a valid id.

    Attributes:
        position: Position of the value in its column.
    """

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, position: int = 0) -> None:
        super().__init__(argument, expected, got, hint)
        self.position = position


def canonical_id(value: Any) -> str:
    """Return one raw id as text: ``196``, ``196.0``, ``numpy.int64(196)`` and ``tensor(196)`` are ``"196"``.

    Text is returned as it is, without the spaces around it; what it means is for the vocabulary to say (see
    :func:`canonical_ids`).

    Args:
        value: A string, an integer, an integral float, or a NumPy or torch scalar of these.

    Raises:
        IdError: The id is missing, negative, fractional, of another type, or a float so large that its last digits are
            lost.

    Example:
        >>> canonical_id(196.0), canonical_id(" b7 "), canonical_id("196.0")
        ('196', 'b7', '196.0')
    """
    exact = EXACT
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0:
        if isinstance(value, np.floating):
            exact = min(exact, 2.0 ** (np.finfo(value.dtype).nmant + 1))
        value = value.item()
    if isinstance(value, str):
        value = value.strip(WHITE)
        if not _is_unicode(value):
            raise IdError("ids", "be Unicode text", f"{value!a}, half of a character")
        if value not in MISSING:
            return value
    elif isinstance(value, (int, Decimal)) and not isinstance(value, bool) and value >= 0 and value % 1 == 0:
        return str(int(value))
    elif isinstance(value, float) and value >= 0 and value.is_integer():
        if value < exact:
            return str(int(value))
        raise IdError("ids", f"be below 2**{int(exact).bit_length() - 1} where they are floats", f"{value!r}", WIDE)
    raise IdError("ids", "be text or whole numbers from 0", brief(value))


def _is_unicode(text: str) -> bool:
    """Whether a text can be written to files; JSON can spell halves of characters, which cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def canonical_ids(values: Iterable[Any], numeric: bool | None = None) -> list[str]:
    """Return the raw ids of one vocabulary as text, by one rule for all of them.

    If all ids are whole numbers without leading zeros, they are numbers, and ``1``, ``1.0`` and ``"1"`` are one id. One
    other id (``"007"``, ``"+5"``, ``"b"``) makes all of them verbatim text.

    Args:
        values: The ids.
        numeric: Whether the ids belong to a vocabulary of numbers (default: by the rule). In one of numbers, an id that
            is not a number is verbatim text.

    Raises:
        IdError: An id is missing or of another type, or all ids are numbers and one is negative, fractional or a float
            whose last digits are lost.

    Example:
        >>> canonical_ids(["196.0", "22"]), canonical_ids(["196.0", "007"])
        (['196', '22'], ['196.0', '007'])
    """
    ids: list[str] = []
    for position, value in enumerate(values):
        try:
            ids.append(canonical_id(value))
        except IdError as error:
            error.position = position
            raise
    if numeric is None:
        numeric = all(map(_WHOLE.fullmatch, ids))
        if not numeric and all(map(_NUMBER.fullmatch, ids)):
            at = next((n for n, text in enumerate(ids) if text[0] == "-" or text.partition(".")[2].strip("0")), None)
            if at is not None:
                expected = "be whole and not negative in a column of numbers"
                raise IdError("ids", expected, ids[at], position=at)
    return list(map(_number, ids, range(len(ids)))) if numeric else ids


def _number(text: str, position: int = 0) -> str:
    """Return an id of a vocabulary of numbers without the zeros after the decimal point."""
    if "." not in text or not _WHOLE.fullmatch(text):
        return text
    whole = text.partition(".")[0]
    if int(whole) >= EXACT:
        raise IdError("ids", "be below 2**53 where they have a decimal point", text, WIDE, position=position)
    return whole


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
        >>> vocabulary.lookup([186, "186.0", "7"])
        tensor([ 1,  1, -1])
        >>> Vocabulary(["196", "x"]).lookup(["196.0"])
        tensor([-1])
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

    @cached_property
    def numeric(self) -> bool:
        """Whether all ids are whole numbers without leading zeros, so that ``"1.0"`` means ``"1"``."""
        if self.is_range:
            return True
        digits = "".join(self.ids)
        plain = not digits or (digits.isascii() and digits.isdecimal())
        return plain and not any(text[0] == "0" and len(text) > 1 for text in self.ids)

    def lookup(self, ids: Iterable[Any]) -> Tensor:
        """Return the node of every raw id ``[num_ids]``; -1 for unknown ids.

        Args:
            ids: Raw ids, which mean what they mean in this vocabulary; see :func:`canonical_ids`.

        Raises:
            IdError: A value is not a valid id.
        """
        found = (self._position.get(text, -1) for text in canonical_ids(ids, self.numeric))
        return torch.tensor(list(found), dtype=torch.long)

    def take(self, index: Tensor) -> Vocabulary:
        """Return the vocabulary of a subset of the nodes.

        Args:
            index: Node numbers, which give the order of the new vocabulary, or a boolean mask ``[num_nodes]``.
        """
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        ids = self.ids
        return Vocabulary([ids[i] for i in index.tolist()])

    def part(self, index: Tensor) -> Vocabulary:
        """Return the vocabulary of distinct nodes, as :meth:`take` does, but with ids that are read when needed.

        Until then, the part refers to this vocabulary. A copy or a pickled part holds its own ids alone.

        Args:
            index: Distinct node numbers, which must not be changed later ``[num]``.
        """
        return _Part(self, index)

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


class _Part(Vocabulary):
    """Some ids of a vocabulary, which are read from it when they are needed."""

    def __init__(self, whole: Vocabulary, index: Tensor) -> None:
        self.is_range, self._size = False, index.numel()
        self._whole, self._index = whole, index

    @cached_property
    def ids(self) -> list[str]:
        """The raw ids, in node order."""
        ids = self._whole.ids
        return [ids[i] for i in self._index.tolist()]

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[list[str]]]:
        return Vocabulary, (self.ids,)
