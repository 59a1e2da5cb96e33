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

from graphunlearn.data.vocabulary import WHITE, brief, preview
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
# Names that may as well be an id, such as the title of a book: alone, they do not make a header.
WORDS = {"customer", "member", "movie", "product", "asin", "artist", "track", "song", "book", "isbn", "business", "poi"}
SEPARATORS = ("\t", "::", ";", ",", "|", " ")
TYPE = re.compile(r":(token|float)(_seq)?$")
DATE = re.compile(r"[12][0-9]{3}-[01][0-9]-[0-3][0-9]([T ][0-9:.,+Z-]*)?")
WORD = re.compile(r"[A-Za-z][A-Za-z _-]*")
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
PLACES = Layout(_roles(*PLACE, "item"), order=PLACE, required=PLACE, ids=("session", "item"), whole=("position",))


def plain(name: str) -> str:
    """Return a column name without its type, case and punctuation: ``"user_id:token"`` is ``"userid"``."""
    return re.sub(r"[\W_]", "", TYPE.sub("", str(name)).lower())


def is_number(text: str) -> bool:
    """Whether a field is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def fields(line: str, separator: str) -> list[str]:
    """Return the fields of one line; quotes around whole fields are taken off."""
    if separator == " ":
        line = re.sub(" +", " ", line.strip(" "))
    if len(separator) == 1 and '"' in line:
        try:
            cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:  # a field that is too long
            cells = line.split(separator)
    else:
        cells = line.split(separator)
    return [cell.strip(WHITE).removeprefix('"').removesuffix('"') for cell in cells]


def sniff_separator(lines: Sequence[str], layout: Layout, suffix: str = "") -> tuple[str | None, list[str]]:
    """Return the separator that gives most lines the same number of fields.

    Args:
        lines: The first lines.
        layout: The possible columns.
        suffix: Suffix of the file, which decides between separators that fit equally well, as a header does.

    Returns:
        The separator, or ``None`` for a single column, and the other separators that fit equally well.
    """
    agreeing, lines = {}, _whole_rows(lines)
    for separator in SEPARATORS:
        widths = Counter(len(fields(line, separator)) for line in lines)
        agreeing[separator] = max((count for width, count in widths.items() if width > 1), default=0)
    best = max(agreeing.values())
    if not best:
        return None, []
    fitting = [separator for separator, count in agreeing.items() if count == best]
    usual = {".tsv": "\t", ".csv": ","}.get(suffix)
    named = [s for s in fitting if set(layout.required) <= _named(fields(lines[0], s), layout).keys()]
    chosen = named[0] if named else usual if usual in fitting and usual == "\t" else fitting[0]
    others = [] if named else [s for s in fitting if s not in (chosen, " ")]
    return chosen, others


def _whole_rows(lines: Sequence[str]) -> list[str]:
    """Return lines in which those that a quote holds together are one; a quote that stays open holds none."""
    rows: list[str] = []
    start = None
    for line in lines:
        rows.append(line)
        if line.count('"') % 2:
            if start is not None:
                rows[start:] = [" ".join(rows[start:])]
            start = len(rows) - 1 if start is None else None
    return rows


def sniff_lists(lines: Sequence[str], separator: str | None) -> bool:
    """Whether the lines are users followed by any number of items: only whole numbers, and no predominant length."""
    rows = [fields(line.strip(WHITE), separator or " ") for line in lines]
    usual = Counter(map(len, rows)).most_common(1)[0][1]
    least = 2 if separator in {" ", "\t"} else 3  # two rows with commas may as well be a table that is cut off
    return len(rows) >= least and 2 * usual <= len(rows) and _whole(rows)


def looks_like_lists(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows of one width may be lists: whole numbers, a user or a count first in every row, and no times."""
    width = len(rows[0])
    if width < 3 or not _whole(rows) or any(_is_time(column) for column in list(zip(*rows))[2:]):
        return False
    return len({row[0] for row in rows}) == len(rows) or all(row[0] == str(width - 1) for row in rows)


def _whole(rows: Sequence[Sequence[str]]) -> bool:
    return all(field.isascii() and field.isdecimal() for row in rows for field in row)


def _named(row: Sequence[str], layout: Layout) -> dict[str, str]:
    """Return the roles whose columns a row names, with the plain name."""
    found = {plain(field): field for field in row if not is_number(field)}
    named = {}
    for role, aliases in layout.roles.items():
        known = next((alias for alias in aliases if alias in found), None)
        if known is not None:
            named[role] = known
    return named


def names_columns(row: Sequence[str], layout: Layout) -> bool:
    """Whether a row holds no number and names a column that the layout requires, by a name that is not a plain word."""
    named = _named(row, layout)
    typed = any(TYPE.search(field) for field in row)
    return not any(map(is_number, row)) and (typed or any(named.get(r, "book") not in WORDS for r in layout.required))


def named_roles(row: Sequence[str], layout: Layout) -> set[str]:
    """Return the roles whose columns a row names."""
    return set(_named(row, layout))


def sniff_header(
    rows: Sequence[Sequence[str]], given: dict[str, Column], layout: Layout, source: str | Path = "file"
) -> tuple[bool, str]:
    """Whether the first row is a header: it names the columns that are needed, or one that the caller named.

    A row of text above a column of numbers counts as a header too, since it cannot be data; its columns are then not
    found, which is an error. If the caller gave the numbers of all columns, such a row must name a known column.

    Args:
        rows: Fields of the first rows.
        given: Name or number of the column of every role that the caller specified.
        layout: The possible columns.
        source: The file.

    Returns:
        Whether it is one, and a sentence if that is not certain, or if the line of a single column is skipped.

    Raises:
        ArgumentError: The columns are given by number, and the first row may be a header of unknown names.

    Example:
        >>> sniff_header([["user_id", "item_id"], ["ann", "dune"]], {}, INTERACTIONS)
        (True, '')
        >>> sniff_header([["user:4", "item:3"], ["user:5", "item:3"]], {}, INTERACTIONS)[0]
        False
    """
    first, rest = rows[0], rows[1:]
    asked = {plain(name) for name in given.values() if isinstance(name, str)}
    if asked & {plain(field) for field in first if not is_number(field)}:
        return True, ""
    named = _named(first, layout)
    above = not any(map(is_number, first)) and any(all(map(is_number, column)) for column in zip(*rest) if column)
    needed = [role for role in layout.required if given.get(role) is None]
    shown = preview(first, 4)
    if len(first) == 1:
        return _sniff_name(first[0], named, above)
    typed = [field for field in first if TYPE.search(field)]
    if len(typed) == len(first) or (typed and needed):
        return True, ""
    if not needed:
        return _sniff_by_number(first, named, above, layout, source)
    if all(role in named for role in needed):
        certain = above or any(named[role] not in WORDS for role in needed)
        return certain or not any(map(is_number, first)), "" if certain else f"its first line may be data ({shown})"
    if not any(map(is_number, first)) and any(named.get(role, "book") not in WORDS for role in needed):
        return True, ""  # some of the columns are missing, which is an error
    if above:
        return True, ""  # as above
    return False, _no_header(first)


def _no_header(first: Sequence[str]) -> str:
    certain = any(map(is_number, first))
    return "" if certain else f"it was taken to have no header: its first line is data (got {preview(first, 4)})"


def _sniff_name(first: str, named: dict[str, str], above: bool) -> tuple[bool, str]:
    """Whether the first line of a single column is a known name, and what to say of it."""
    if not named or not WORD.fullmatch(TYPE.sub("", first)):
        return False, ""
    if above or any(name not in WORDS for name in named.values()):
        return True, f"its first line was skipped as a header ({first!r}); 'header=False' keeps it"
    return False, f"its first line was taken as data ({first!r}); 'header=True' skips it"


def _sniff_by_number(
    first: Sequence[str], named: dict[str, str], above: bool, layout: Layout, source: str | Path
) -> tuple[bool, str]:
    """Whether the first row is a header where all columns are given by number, and what to say of it."""
    shown = preview(first, 4)
    known = {role for role, name in named.items() if above or name not in WORDS}
    if known and (above or set(layout.required) <= known) and not any(map(is_number, first)):
        return True, f"its first line was taken as a header ({shown})"
    if above and all(WORD.fullmatch(TYPE.sub("", field)) for field in first):
        hint = "'header=True' skips it, 'header=False' keeps it"
        raise ArgumentError(source, "begin with a row or the name of a known column", shown, hint)
    return False, _no_header(first)


def sniff_order(
    rows: Sequence[Sequence[str]], given: dict[str, Column], layout: Layout, source: str | Path
) -> tuple[str, ...]:
    """Return the order of the columns of a table without a header; a column of dates or times is recognised.

    Args:
        rows: Fields of the first rows.
        given: Number of the column of every role that the caller specified.
        layout: The possible columns.
        source: The file.

    Returns:
        The order of the layout, with the time moved to where dates or Unix times are.

    Raises:
        ArgumentError: The column that would be the item, or the first one, holds what looks like times.

    Example:
        >>> sniff_order([["11", "2014-04-07T10:51:09.277Z", "900"]], {}, CLICKS, "clicks.dat")
        ('session', 'time', 'item')
    """
    order, asked = layout.order, {role for role, column in given.items() if column is not None}
    if asked or "time" not in order:
        return order
    columns = list(zip(*rows))[: len(order)]
    usual = order.index("time")
    if usual < len(columns) and _is_time(columns[usual]):
        return order
    dates = [at for at, column in enumerate(columns) if all(map(DATE.fullmatch, column))]
    times = dates or [at for at in (*range(2, len(columns)), 1, 0) if at < len(columns) and _is_time(columns[at])]
    if not times or (not dates and len(columns) == 2):
        return order
    at, others = times[0], [role for role in order if role != "time"]
    if at < 2 and not dates:
        hint = f"{', '.join(f'{role}={n}' for n, role in enumerate(order[:2]))} takes the columns as they are"
        raise ArgumentError(source, "have a header or named columns", f"times in the place of the {order[at]}s", hint)
    return (*others[:at], "time", *others[at:])


def _is_time(column: Sequence[str]) -> bool:
    """Whether all fields are dates, or seconds or milliseconds since 1970 of the years 1985 to 2096."""
    if all(map(DATE.fullmatch, column)):
        return True
    return all(is_number(text) and (5e8 <= float(text) < 4e9 or 5e11 <= float(text) < 4e12) for text in column)


def find_columns(
    names: Sequence[str] | int,
    given: dict[str, Column],
    source: str | Path,
    layout: Layout = INTERACTIONS,
    order: Sequence[str] | None = None,
) -> dict[str, int]:
    """Return the position of every role's column.

    Args:
        names: Names of the columns, or without a header their number; the columns are then in the order of the layout.
        given: Name or position of the column of every role that the caller specified.
        source: The file, or the name of the argument that holds the table.
        layout: The possible columns.
        order: Roles of the columns of a table without a header (default: as in the layout).

    Returns:
        Positions of the columns, by role.

    Raises:
        ColumnError: A required column is missing.
        ValueError: A specified column does not exist, or has two roles.
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
    for role, at in found.items():
        twin = next(other for other, place in found.items() if place == at)
        if twin != role:
            raise ArgumentError(role, f"be another column of '{source}' than the {twin}", brief(asked[role]))
    if isinstance(names, int):
        free = [position for position in range(width) if position not in found.values()]
        found |= dict(zip([role for role in order or layout.order if role not in found], free))
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
    if isinstance(column, str) and column.isdecimal() and (isinstance(names, int) or column not in names):
        column = int(column)
    if isinstance(column, int):
        if not 0 <= column < width:
            raise ArgumentError(role, f"be a column below {width} of '{source}'", column)
        return column
    if isinstance(names, int):
        raise ArgumentError(role, f"be a column number, since '{source}' has no header", brief(column))
    for same in (str, lambda name: TYPE.sub("", str(name)), plain):
        matches = [i for i, name in enumerate(names) if same(name) == same(column)]
        if matches:
            return matches[0]
    close = difflib.get_close_matches(column, [str(name) for name in names], n=1)
    hint = f"{f'did you mean {close[0]!r}? ' if close else ''}there are {preview(names, 6)}"
    raise ArgumentError(role, f"name a column of '{source}'", f"{brief(column)}; {hint}")
