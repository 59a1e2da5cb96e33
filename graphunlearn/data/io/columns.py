"""Detection of separators, headers and columns, by the column names in common use."""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphunlearn.data.vocabulary import preview
from graphunlearn.errors import ArgumentError

# Column names in lower case without punctuation, by role; earlier names take precedence.
NAMES = {
    "user": "user userid uid usr member memberid customer customerid reviewerid userhash",
    "item": "item itemid iid movie movieid product productid parentasin asin artist artistid "
    "track trackid song songid book bookid isbn business businessid poi venueid",
    "rating": "rating ratings val value score stars overall weight count playcount",
    "time": "timestamp time datetime date unixreviewtime unixtime tag",
    "label": "label click clicked liked",
    "session": "sessionid session sid sessionkey visit visitid",
    "position": "position pos step",
}
SEPARATORS = ("\t", "::", ";", ",", " ")
Column = str | int | None


class ColumnError(ArgumentError):
    """A required column is missing.

    Attributes:
        role: Role of the missing column.
        names: Names of the columns that the table has.
    """

    def __init__(
        self, argument: object, expected: str, got: Any, hint: str = "", *, role: str = "", names: Sequence[str] = ()
    ) -> None:
        super().__init__(argument, expected, got, hint)
        self.role, self.names = role, names


@dataclass(frozen=True)
class Layout:
    """The possible columns of a table.

    Args:
        roles: For every role, the column names in common use.
        order: Roles of the columns of a table without a header.
        required: Roles that a table must have.
        ids: Roles whose values are raw ids.
        gaps: Roles in ``ids`` whose values may be missing in some rows.
        whole: Roles whose values are whole numbers from 0.
    """

    roles: dict[str, tuple[str, ...]]
    order: tuple[str, ...]
    required: tuple[str, ...]
    ids: tuple[str, ...]
    gaps: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


def _roles(*roles: str, **more: str) -> dict[str, tuple[str, ...]]:
    """Return the column names of some roles; ``more`` adds names that are common in tables of this kind alone."""
    return {role: (*NAMES[role].split(), *more.get(role, "").split()) for role in roles}


INTERACTIONS = Layout(
    _roles("user", "item", "rating", "time", "label"),
    order=("user", "item", "rating", "time"),
    required=("user", "item"),
    ids=("user", "item"),
)
CLICKS = Layout(
    # "timeframe" is the time since the session began
    _roles("session", "item", "time", "position", "user", time="eventdate eventtime", position="timeframe"),
    order=("session", "item", "time"),
    required=("session", "item"),
    ids=("session", "item", "user"),
    gaps=("user",),
)
PLACE = ("session", "position")
PLACES = Layout(_roles(*PLACE), order=PLACE, required=PLACE, ids=("session",), whole=("position",))


def plain(name: str) -> str:
    """Return a column name without its type, case and punctuation: ``"user_id:token"`` is ``"userid"``."""
    return re.sub(r"[^a-z0-9]", "", str(name).split(":")[0].lower())


def is_number(text: str) -> bool:
    """Whether a field is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def fields(line: str, separator: str) -> list[str]:
    """Return the fields of one line; quotes are interpreted if the separator is a comma or a semicolon."""
    if separator in {",", ";"}:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
    return [field.strip() for field in (line.split() if separator == " " else line.split(separator))]


def sniff_separator(lines: Sequence[str]) -> str | None:
    """Return the separator that gives most lines the same number of fields, or ``None`` for a single column."""
    best: tuple[int, str | None] = (0, None)
    for separator in SEPARATORS:
        widths = Counter(len(fields(line, separator)) for line in lines)
        agreeing = max((count for width, count in widths.items() if width > 1), default=0)
        if agreeing > best[0]:
            best = (agreeing, separator)
    return best[1]


def sniff_lists(lines: Sequence[str], separator: str | None) -> bool:
    """Whether the lines are users followed by any number of items: only whole numbers, and no predominant length."""
    rows = [line.split() for line in lines]
    usual = Counter(map(len, rows)).most_common(1)[0][1]
    varying = separator in {" ", "\t"} and len(rows) > 1 and 2 * usual <= len(rows)
    return varying and all(field.isdecimal() for row in rows for field in row)


def sniff_header(rows: Sequence[Sequence[str]], given: dict[str, Column], layout: Layout = INTERACTIONS) -> bool:
    """Whether the first row is a header.

    A header contains a common or a requested column name, or it is all text above at least one column of numbers.

    Args:
        rows: Fields of the first rows.
        given: Name or number of the column of every role that the caller specified.
        layout: The possible columns.
    """
    first, rest = rows[0], rows[1:]
    named = {name for names in layout.roles.values() for name in names}
    asked = {plain(name) for name in given.values() if isinstance(name, str)}
    if any(plain(field) in named | asked and not is_number(field) for field in first):
        return True
    if not rest or any(map(is_number, first)):
        return False
    return any(all(map(is_number, column)) for column in zip(*rest))


def find_columns(
    names: Sequence[str] | int, given: dict[str, Column], source: str | Path, layout: Layout = INTERACTIONS
) -> dict[str, int]:
    """Return the position of every role's column.

    Args:
        names: Names of the columns, or without a header their number; the columns are then in the order of the layout.
        given: Name or position of the column of every role that the caller specified.
        source: The file, or the name of the argument that holds the table.
        layout: The possible columns.

    Returns:
        Positions of the columns, by role.

    Raises:
        ColumnError: A required column is missing.
        ValueError: A specified column does not exist.
        TypeError: The layout has no such role.

    Example:
        >>> find_columns(["user_id:token", "item_id:token", "rating:float"], {}, "ratings.inter")
        {'user': 0, 'item': 1, 'rating': 2}
    """
    if unknown := given.keys() - layout.roles.keys():
        raise TypeError(f"there are columns {', '.join(layout.roles)} (got {', '.join(sorted(unknown))})")
    width = names if isinstance(names, int) else len(names)
    asked = {role: column for role, column in given.items() if column is not None}
    found = {role: _position(role, column, names, width, source) for role, column in asked.items()}
    if isinstance(names, int):
        free = [position for position in range(width) if position not in found.values()]
        found |= dict(zip([role for role in layout.order if role not in found], free))
    else:
        position = {plain(name): i for i, name in reversed(list(enumerate(names))) if i not in found.values()}
        for role, aliases in layout.roles.items():
            known = next((position[alias] for alias in aliases if alias in position), None)
            if role not in found and known is not None:
                found[role] = known
    for role in layout.required:
        if role not in found:
            have = f"{width} columns" if isinstance(names, int) else f"columns {preview(names, 6)}"
            seen = () if isinstance(names, int) else tuple(names)
            hint = f"name it with {role}=..."
            raise ColumnError(source, f"have a column of {role}s", have, hint, role=role, names=seen)
    return {role: found[role] for role in layout.roles if role in found}


def _position(role: str, column: str | int, names: Sequence[str] | int, width: int, source: str | Path) -> int:
    if isinstance(column, int):
        if not 0 <= column < width:
            raise ArgumentError(role, f"be a column below {width} of '{source}'", column)
        return column
    if isinstance(names, int):
        raise ArgumentError(role, f"be a column number, since '{source}' has no header", f"{column!r}")
    for same in (str, lambda name: str(name).split(":")[0], plain):
        matches = [i for i, name in enumerate(names) if same(name) == same(column)]
        if matches:
            return matches[0]
    close = difflib.get_close_matches(column, [str(name) for name in names], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {preview(names, 6)}"
    raise ArgumentError(role, f"name a column of '{source}'", f"{column!r}; {hint}")
