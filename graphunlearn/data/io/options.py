"""How a file is to be read: what readers, graphs and the command line share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from graphunlearn.errors import ArgumentError

__all__ = ["MAX_SIZE", "Reading", "size_of"]

MAX_SIZE = 8 << 30
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_NAMED = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "space": " "}


@dataclass(frozen=True, kw_only=True)
class Reading:
    r"""How a file is to be read; what is not given is detected.

    Args:
        sep: Text between the fields of a line, such as ``","`` or ``"::"``; also ``"tab"``, ``"space"``, ``"comma"`` or
            ``"semicolon"``.
        decimal: Decimal point of ratings and times, ``"."`` or ``","``.
        header: Whether the first line is a header. By default, it is one if it names known columns.
        lists: Whether each line is a user followed by any number of items.
        max_size: Largest number of bytes that a file may have when it is decompressed, also as text such as ``"2GB"``.

    Raises:
        ArgumentError: A value is none of these.

    Example:
        >>> Reading(sep="tab", max_size="2GB")
        Reading(sep='\t', decimal='.', header=None, lists=None, max_size=2000000000)
    """

    sep: str | None = None
    decimal: str = "."
    header: bool | None = None
    lists: bool | None = None
    max_size: int | str = MAX_SIZE

    def __post_init__(self) -> None:
        if self.sep is not None:
            sep = _NAMED.get(self.sep, self.sep)
            if not sep or re.search(r'[\n\r"\w]', sep):
                raise ArgumentError("sep", "be the text between fields, such as ',' or '::'", repr(self.sep))
            object.__setattr__(self, "sep", sep)
        if self.decimal not in (".", ","):
            raise ArgumentError("decimal", "be '.' or ','", repr(self.decimal))
        if self.decimal == self.sep:
            raise ArgumentError("decimal", "differ from 'sep'", f"{self.decimal!r} for both")
        object.__setattr__(self, "max_size", size_of(self.max_size))

    @classmethod
    def take(cls, given: Mapping[str, Any]) -> tuple[Reading, dict[str, Any]]:
        """Return how to read, and the rest of the keyword arguments, which name columns.

        Args:
            given: Keyword arguments of a reader.
        """
        own = {field.name for field in fields(cls)}
        chosen = {name: value for name, value in given.items() if name in own}
        return cls(**chosen), {name: value for name, value in given.items() if name not in own}

    def check_size(self, path: object, size: int, *, at_least: bool = False) -> None:
        """Check the size of a decompressed file.

        Args:
            path: The file.
            size: Its number of bytes.
            at_least: Whether there are more bytes, which were not read.

        Raises:
            ArgumentError: There are more bytes than ``max_size``.
        """
        assert isinstance(self.max_size, int)
        if size > self.max_size:
            more = "or more" if at_least else "bytes"
            expected = f"hold at most {self.max_size:,} bytes when it is decompressed"
            raise ArgumentError(path, expected, f"{size:,} {more}", "'max_size' raises the limit")


def size_of(text: int | str) -> int:
    """Return a number of bytes.

    Args:
        text: The number, or text such as ``"500 MB"`` or ``"2GiB"``.

    Raises:
        ArgumentError: It is no number of bytes, or not positive.

    Example:
        >>> size_of("2GiB"), size_of(300)
        (2147483648, 300)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?i?)b?", str(text).strip().lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 1:
        raise ArgumentError("max_size", "be a number of bytes, such as 2GB", repr(text))
    return size
