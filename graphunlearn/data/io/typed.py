"""Reading of tables whose values have types: Parquet files and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from graphunlearn.data.io.columns import Column, Layout, find_columns
from graphunlearn.data.io.frame import Numeric, tidy
from graphunlearn.data.io.options import Reading
from graphunlearn.data.io.tables import tell_ignored, told
from graphunlearn.data.io.text import check_file
from graphunlearn.errors import ArgumentError

__all__ = ["read_json_lines", "read_parquet"]


def read_parquet(
    path: Path, given: dict[str, Column], layout: Layout, reading: Reading, numeric: Numeric | None, request: bool
) -> pd.DataFrame:
    """Read a table from a Parquet file; only the columns that are used are read.

    Args:
        path: The file.
        given: Name or number of the column of every role that the caller specified.
        layout: The possible columns.
        reading: How to read; the largest size counts here.
        numeric: Whether the ids of a role are numbers; see :func:`~graphunlearn.data.io.frame.tidy`.
        request: Whether the file names what to forget, where other columns need not be used.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: Pyarrow is not installed.
        ValueError: The file is broken or too large, a column is nested, or the table is empty or malformed.
    """
    check_file(path)
    try:
        from pyarrow import parquet, types
    except ImportError:
        raise ImportError(f"'{path}' needs pyarrow to be read: python -m pip install 'graphunlearn[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        schema, meta = file.schema_arrow, file.metadata
        sizes = [meta.row_group(at).total_byte_size for at in range(meta.num_row_groups)]
    except Exception as error:
        raise _broken(path, error) from None
    reading.check_size(path, max(sum(sizes), meta.num_rows))  # a run of equal values takes few bytes
    columns = find_columns(schema.names, given, path, layout)
    names = [schema.names[at] for at in columns.values()]
    for name in names:
        kind = schema.field(name).type if schema.names.count(name) == 1 else None
        if kind is None:
            raise ArgumentError(path, f"have one column '{name}'", schema.names.count(name))
        inner = kind.value_type if types.is_dictionary(kind) else kind
        unfit = (types.is_nested, types.is_binary, types.is_large_binary, types.is_time, types.is_duration)
        if any(is_unfit(inner) for is_unfit in unfit):
            raise ArgumentError(path, f"hold one number, text or date per row in '{name}'", f"{kind}")
    try:
        table = file.read(columns=list(dict.fromkeys(names)))
        frame = table.to_pandas(integer_object_nulls=True, date_as_object=False, ignore_metadata=True)
    except Exception as error:
        raise _broken(path, error) from None
    if frame.empty:
        raise ArgumentError(path, "hold at least one row", "none")
    ignored = [name for at, name in enumerate(schema.names) if at not in columns.values()]
    found = pd.DataFrame({role: frame[schema.names[at]] for role, at in columns.items()})
    clean = tidy(found, lambda row: f"'{path}', row {row + 1}", layout, numeric)
    return _told(clean, path, "Parquet", columns, schema.names, ignored, request)


def read_json_lines(
    path: Path, text: bytes, given: dict[str, Column], layout: Layout, numeric: Numeric | None, request: bool
) -> pd.DataFrame:
    """Read a table from a text with one JSON object per line.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`~graphunlearn.data.io.text.read_text` returns it.
        given: Name of the column of every role that the caller specified.
        layout: The possible columns.
        numeric: Whether the ids of a role are numbers; see :func:`~graphunlearn.data.io.frame.tidy`.
        request: Whether the file names what to forget, where other columns need not be used.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        ValueError: A line is no object, or lacks a column that others have; the message names the line.
    """
    objects, line = [], []
    for number, part in enumerate(text.split(b"\n"), 1):
        if not part.strip():
            continue
        try:
            found = json.loads(part, object_pairs_hook=_distinct, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ValueError(f"'{path}', line {number}: must be one JSON object (got another text: {reason})") from None
        if not isinstance(found, dict):
            kind = type(found).__name__
            raise ValueError(f"'{path}', line {number}: must be one JSON object (got a value of type {kind})")
        objects.append(found)
        line.append(number)
    names = list(dict.fromkeys(key for found in objects for key in found))
    columns = find_columns(names, given, path, layout)
    values: dict[str, Any] = {}
    for role, at in columns.items():
        gaps = role in layout.gaps
        values[role] = column = [found.get(names[at]) for found in objects]
        for number, found, value in zip(line, objects, column):
            if isinstance(value, (list, dict)) or (value is None and not gaps):
                got = "none" if names[at] not in found else "null" if value is None else type(value).__name__
                raise ValueError(f"'{path}', line {number}: '{names[at]}' must be text or a number (got {got})")
    frame = pd.DataFrame({role: pd.Series(column, dtype=object) for role, column in values.items()})
    clean = tidy(frame, lambda row: f"'{path}', line {line[row]}", layout, numeric)
    ignored = [name for at, name in enumerate(names) if at not in columns.values()]
    return _told(clean, path, "JSON lines", columns, names, ignored, request)


def _told(
    frame: pd.DataFrame,
    path: Path,
    form: str,
    columns: dict[str, int],
    names: list[str],
    ignored: list[str],
    request: bool,
) -> pd.DataFrame:
    if not request:
        tell_ignored(path, ignored)
    places = {role: names[at] for role, at in columns.items()}
    return told(frame, form=form, separator=None, header=True, columns=places, ignored=ignored)


def _broken(path: Path, error: Exception) -> ArgumentError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ArgumentError(path, "be a whole parquet file", f"a broken one: {reason}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
