"""What is said of rows that name users or items which another graph does not know."""

from __future__ import annotations

from typing import Any

from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError

__all__ = ["LeftOutWarning", "UnknownError", "tell_left_out"]


class UnknownError(ArgumentError):
    """A graph that knows nothing of what was read: what it was to know, such as ``"items"``."""

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, nodes: str = "") -> None:
        super().__init__(argument, expected, got, hint)
        self.nodes = nodes


class LeftOutWarning(UserWarning):
    """Rows were left out because a graph does not know what they name.

    Args:
        count: How many were left out.
        total: How many there were.
        unit: What one of them is called, in the plural.
        nodes: What of theirs is not known, such as ``"user or item"``.

    Example:
        >>> str(LeftOutWarning(2, 5, "clicks", "items"))
        "2 of 5 clicks were left out: 'like' does not know their items"
    """

    def __init__(self, count: int, total: int, unit: str, nodes: str) -> None:
        super().__init__(count, total, unit, nodes)
        self.count, self.total, self.unit, self.nodes = count, total, unit, nodes

    def __str__(self) -> str:
        return f"{self.count} of {self.total} {self.unit} were left out: 'like' does not know their {self.nodes}"


def tell_left_out(count: int, total: int, *, clicks: bool = False) -> None:
    """Warn of rows, or clicks, that were left out, if there are any.

    Raises:
        UnknownError: Nothing else is there.
    """
    if count == total:
        nodes = "items" if clicks else "users and items"
        got = f"{count} clicks, all on unknown ones" if clicks else f"{count} rows, all of them unknown"
        raise UnknownError("like", f"know some of the {nodes}", got, nodes=nodes)
    if count:
        warn(LeftOutWarning(count, total, *(("clicks", "items") if clicks else ("rows", "user or item"))))
