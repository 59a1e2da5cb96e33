"""Reading of tables with rows, lists or a single column from text files; errors name the malformed line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphunlearn.data.io.columns import (
    INTERACTIONS,
    Column,
    Layout,
    fields,
    find_columns,
    looks_like_lists,
    named_roles,
    names_columns,
    plain,
    sniff_header,
    sniff_lists,
    sniff_order,
    sniff_separator,
)
from graphunlearn.data.io.frame import Numeric, tidy
from graphunlearn.data.io.options import Reading
from graphunlearn.data.io.text import Cells, columns_of, cut, head, lists_with_counts, split_lists, suffix_of
from graphunlearn.data.schema import warn
from graphunlearn.data.vocabulary import WHITE, preview
from graphunlearn.errors import ArgumentError

DIGITS = frozenset("0123456789")

__all__ = ["lists_as_trained", "read_column", "read_lists", "read_rows", "read_table", "tell_ignored", "told"]


def told(frame: pd.DataFrame, **facts: Any) -> pd.DataFrame:
    """Return a table that carries how it was read: ``frame.attrs["read"]``."""
    frame.attrs["read"] = {"rows": len(frame), **facts}
    return frame


def read_rows(
    path: Path,
    text: bytes,
    given: dict[str, Column],
    layout: Layout = INTERACTIONS,
    reading: Reading | None = None,
    numeric: Numeric | None = None,
    maybe_lists: bool = False,
    request: bool = False,
) -> pd.DataFrame:
    """Read a table of rows.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`~graphunlearn.data.io.text.read_text` returns it.
        given: Name or number of the column of every role that the caller specified.
        layout: The possible columns.
        reading: How to read.
        numeric: Whether the ids of a role are numbers; see :func:`~graphunlearn.data.io.frame.tidy`.
        maybe_lists: Whether the lines may also be a user followed by any number of items, which is then detected.
        request: Whether the file names what to forget, where other columns need not be used.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        ValueError: The table is malformed; the message names the line.
    """
    reading = reading or Reading()
    given = {role: column for role, column in given.items() if column is not None}
    first = head(text)
    sniffed = sniff_separator(first, layout, suffix_of(path)) if reading.sep is None else (reading.sep, [])
    separator, others = sniffed
    if maybe_lists and not given and reading.header is None and sniff_lists(first, separator):
        if separator != " " and separator != "\t":
            warn(f"'{path}' was read as lists of a user and any number of items, since its lines differ in length")
        return read_lists(path, text, separator, numeric)
    separator = separator or ","
    if others:
        shown = ", ".join(f"sep={other!r}" for other in others)
        warn(f"'{path}' was cut at every {separator!r}, but {shown} would fit as well")
    cells = cut(path, text, separator)
    rows = cells.rows()
    header, doubt = sniff_header(rows, given, layout, path) if reading.header is None else (reading.header, "")
    order = layout.order if header else sniff_order(rows, given, layout, path)
    names = rows[0] if header else len(rows[0])
    _check_width(path, cells, header)
    columns = find_columns(names, given, path, layout, order)
    if doubt:
        warn(f"'{path}': {doubt}")
    if request and not header and len(rows[0]) > len(layout.required) and not given:
        what = " and ".join(layout.required)
        raise ArgumentError(path, f"hold one {what} per line or have a header", f"{len(rows[0])} fields without one")
    ids = [columns[role] for role in layout.ids if role in columns]
    found = columns_of(path, cells, header, list(columns.values()), ids, reading.decimal)
    frame = pd.DataFrame({role: found[at] for role, at in columns.items()})
    line = cells.line[int(header) :]
    clean = tidy(frame, lambda row: f"'{path}', line {line[row]}", layout, numeric)
    if header:
        _check_repeated(path, clean, {role: plain(rows[0][at]) for role, at in columns.items()}, layout, line)
    ignored = [rows[0][at] if header else at + 1 for at in range(len(rows[0])) if at not in columns.values()]
    lists = maybe_lists and not given and looks_like_lists(rows) and clean["user"].nunique() in (1, len(clean))
    if not request:
        _tell(path, header, columns, order != layout.order, ignored, lists)
    places = {role: rows[0][at] if header else at + 1 for role, at in columns.items()}
    return told(clean, form="rows", separator=reading.sep or separator, header=header, columns=places, ignored=ignored)


def _check_width(path: Path, cells: Cells, header: bool) -> None:
    wrong = cells.width != cells.width[0]
    if wrong.any():
        at = int(np.argmax(wrong))
        expected = f"{cells.width[0]} fields like line {cells.line[0]}"
        raise ValueError(f"'{path}', line {cells.line[at]}: must have {expected} (got {cells.width[at]})")
    if len(cells.line) == header:
        raise ArgumentError(path, "hold at least one row", "only a header")


def _tell(path: Path, header: bool, columns: dict[str, int], moved: bool, ignored: Sequence[Any], lists: bool) -> None:
    """Warn of columns that were not used, or whose meaning is not certain.

    Raises:
        ArgumentError: There is no header, and there are more columns than a table without one can have.
    """
    if header:
        tell_ignored(path, ignored)
        return
    taken = ", ".join(
        f"column {at + 1} is the {role}" for role, at in sorted(columns.items(), key=lambda pair: pair[1])
    )
    hint = "lists=True reads a user and items per line"
    if ignored and lists:
        got = f"{len(columns) + len(ignored)} without one"
        raise ArgumentError(path, f"have a header or at most {len(columns)} columns", got, hint)
    if ignored or moved:
        also = f"; {'column' if len(ignored) == 1 else 'columns'} {', '.join(map(str, ignored))} not used"
        warn(f"'{path}' has no header: {taken}{also if ignored else ''}")
    elif lists:
        warn(f"'{path}' has no header: {taken}; {hint}")


def tell_ignored(path: Path, names: Sequence[str]) -> None:
    """Warn of columns that were not used."""
    if names:
        what = "a column was" if len(names) == 1 else f"{len(names)} columns were"
        warn(f"'{path}': {what} not used ({preview(names, 6)})")


def _check_repeated(path: Path, frame: pd.DataFrame, names: dict[str, str], layout: Layout, line: Any) -> None:
    """Raise ValueError if a row repeats the header, as where files were joined."""
    repeats = np.ones(len(frame), dtype=bool)
    for role in layout.required:
        if role in layout.ids:
            same = [
                at
                for at, text in enumerate(frame[role].cat.categories)
                if text[0] not in DIGITS and plain(text) == names[role]
            ]
            if not same:
                return
            repeats &= frame[role].cat.codes.isin(same).to_numpy()
    if repeats.any():
        raise ValueError(f"'{path}', line {line[int(np.argmax(repeats))]}: must be a row (got the header again)")


def lists_as_trained(path: Path, lines: Sequence[str], reading: Reading, numeric: Numeric | None) -> bool:
    """Whether the lines of a test file are lists, as those of its training file were: it has no header.

    Args:
        path: The file, for error messages.
        lines: Its first lines.
        reading: How to read.
        numeric: Whether the ids of a role are numbers.

    Raises:
        ValueError: The lines may be lists as well as rows with ratings.
    """
    separator = reading.sep or sniff_separator(lines, INTERACTIONS, suffix_of(path))[0]
    rows = [fields(line.strip(WHITE), separator or " ") for line in lines]
    if reading.header is None and names_columns(rows[0], INTERACTIONS):
        return False
    widths = set(map(len, rows))
    decimal = (numeric or {}).get("item") and any(not field.isdecimal() for row in rows for field in row if field)
    if widths <= {3, 4} and len(widths) == 1 and (decimal or separator not in {None, " ", "\t"}):
        hint = "lists=True reads lists like those of the training file, user=0, item=1 reads rows"
        raise ArgumentError(path, "have a header or hold lists", "rows that may hold ratings", hint)
    return True


def read_lists(
    path: Path,
    text: bytes,
    separator: str | None,
    numeric: Numeric | None = None,
    header: bool | None = None,
    counted: bool | None = None,
) -> pd.DataFrame:
    """Read lines that consist of a user and any number of items, or of a count and as many items.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`~graphunlearn.data.io.text.read_text` returns it.
        separator: Text between fields (default: spaces and tabs).
        numeric: Whether the ids of a role are numbers; see :func:`~graphunlearn.data.io.frame.tidy`.
        header: Whether the first line is a header (default: if it names columns, which is told).
        counted: Whether every line begins with the count of its items (default: detected).

    Returns:
        A clean table with the columns ``user`` and ``item``, one row per interaction. If every line begins with the
        count of its items, users are the numbers of the lines, from 0.

    Raises:
        ValueError: No user has an item, an id is malformed, the header names other columns, or a line does not begin
            with a count although ``counted`` says so.
    """
    rows = split_lists(text, separator)
    first = next(at for at, row in enumerate(rows) if row)
    if header is not False:
        others = sorted(named_roles(rows[first], INTERACTIONS) - {"user", "item"})
        named = names_columns(rows[first], INTERACTIONS)
        if others and named:
            hint = "leave out lists=True"
            raise ArgumentError(path, "hold lists of a user and items", f"a header with {others[0]}s", hint)
        if named and header is None:
            warn(f"'{path}': its first line names columns and was skipped ({preview(rows[first], 4)})")
        header = bool(header or named)
        rows[first] = [] if header else rows[first]
    filled = [row for row in rows if row]
    if counted:
        wrong = next((at for at, row in enumerate(rows) if row and row[0] != str(len(row) - 1)), None)
        if wrong is not None:
            got = f"{preview(rows[wrong], 4)}"
            what = "must begin with the count of its items, as in the file of the training part"
            raise ValueError(f"'{path}', line {wrong + 1}: {what} (got {got})")
    elif counted is None:
        counted = lists_with_counts(filled)
    if counted:
        numbers = iter(range(len(filled)))
        rows = [[str(next(numbers)), *row[1:]] if row else row for row in rows]
        warn(f"'{path}': every line begins with the count of its items; users are the numbers of the lines, from 0")
    counts = np.array([max(len(row) - 1, 0) for row in rows])
    empty = sum(len(row) == 1 for row in rows)
    line = np.repeat(np.arange(len(rows)) + 1, counts)
    users = np.repeat(np.array([row[0] if row else "" for row in rows], dtype=object), counts)
    items = np.array(list(chain.from_iterable(row[1:] for row in rows)), dtype=object)
    if not len(items):
        raise ArgumentError(path, "hold at least one user with an item", "none")
    if empty:
        were = "user without items was" if empty == 1 else "users without items were"
        warn(f"'{path}': {empty} {were} left out")
    frame = tidy(
        pd.DataFrame({"user": users, "item": items}), lambda row: f"'{path}', line {line[row]}", numeric=numeric
    )
    return told(
        frame, form="lists with counts" if counted else "lists", separator=separator or " ", header=bool(header)
    )


def read_column(path: Path, text: bytes, level: str, layout: Layout, header: bool | None = None) -> list[str]:
    """Read a single column of raw ids, as they are written.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`~graphunlearn.data.io.text.read_text` returns it.
        level: The role of the column, such as ``"user"``.
        layout: The possible columns, whose names identify a header.
        header: Whether the first line is a header (default: detected).

    Raises:
        ValueError: An id is malformed; the message names the line.
    """
    lines = [(number, line.strip(WHITE)) for number, line in enumerate(text.decode().split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if header is None:
        rows = [[line.strip('"')] for _, line in lines]
        header, doubt = sniff_header(rows, {}, layout, path)
        if doubt:
            warn(f"'{path}': {doubt}")
    kept = lines[int(header) :]
    ids = [line[1:-1].replace('""', '"') if len(line) > 1 and line[0] == line[-1] == '"' else line for _, line in kept]
    frame = pd.DataFrame({level: pd.Series(ids, dtype=object)})
    clean = tidy(frame, lambda row: f"'{path}', line {kept[row][0]}", layout, dict.fromkeys([level], False))
    return clean[level].tolist()


def read_table(
    frame: pd.DataFrame,
    source: str | Path,
    given: dict[str, Column],
    layout: Layout = INTERACTIONS,
    first: int = 0,
    numeric: Numeric | None = None,
) -> pd.DataFrame:
    """Return the columns of a table in memory that a layout has, checked and converted.

    Args:
        frame: The table.
        source: The file, or the name of the argument that holds the table.
        given: Name or position of the column of every role that the caller specified.
        layout: The possible columns.
        first: Number of the first row in error messages.
        numeric: Whether the ids of a role are numbers; see :func:`~graphunlearn.data.io.frame.tidy`.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        ValueError: A column does not exist, or the table is empty or malformed.
    """
    columns = find_columns([str(name) for name in frame.columns], given, source, layout)
    if frame.empty:
        raise ArgumentError(source, "hold at least one row", "none")
    frame = frame.iloc[:, list(columns.values())].set_axis(list(columns), axis=1)
    return tidy(frame, lambda row: f"'{source}', row {row + first}", layout, numeric)
