"""Warnings and errors about rows whose users or items another graph does not contain."""

from __future__ import annotations

from typing import Any

from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError

__all__ = ["LeftOutWarning", "UnknownError", "tell_left_out"]


class UnknownError(ArgumentError):
    """A graph contains none of the users or items that were read.

    Attributes:
        nodes: What the graph does not contain, such as ``"items"``.
    """

    def __init__(self, argument: object, expected: str, got: Any, hint: str = "", *, nodes: str = "") -> None:
        super().__init__(argument, expected, got, hint)
        self.nodes = nodes


class LeftOutWarning(UserWarning):
    """Rows were left out because a graph does not contain their users or items.

    Args:
        count: Number of rows that were left out.
        total: Number of all rows.
        unit: Plural name of the rows, ``"rows"`` or ``"clicks"``.
        nodes: What the graph does not contain, such as ``"user or item"``.

    Example:
        >>> str(LeftOutWarning(2, 5, "clicks", "items"))
        "2 of 5 clicks were left out: 'like' does not contain their items"
    """

    def __init__(self, count: int, total: int, unit: str, nodes: str) -> None:
        super().__init__(count, total, unit, nodes)
        self.count, self.total, self.unit, self.nodes = count, total, unit, nodes

    def __str__(self) -> str:
        return f"{self.count} of {self.total} {self.unit} were left out: 'like' does not contain their {self.nodes}"


def tell_left_out(count: int, total: int, *, clicks: bool = False) -> None:
    """Warn if rows or clicks were left out.

    Args:
        count: Number of rows that were left out.
        total: Number of all rows.
        clicks: Whether the rows are clicks.

    Raises:
        UnknownError: All rows were left out.
    """
    if count == total:
        nodes = "items" if clicks else "users and items"
        got = f"{count} clicks, all on unknown ones" if clicks else f"{count} rows, all of them unknown"
        raise UnknownError("like", f"know some of the {nodes}", got, nodes=nodes)
    if count:
        warn(LeftOutWarning(count, total, *(("clicks", "items") if clicks else ("rows", "user or item"))))
