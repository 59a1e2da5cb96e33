"""Reading of tables with rows, lists or a single column from files; errors name the malformed line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
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
    is_number,
    plain,
    sniff_header,
    sniff_lists,
    sniff_separator,
)
from graphunlearn.data.io.frame import tidy
from graphunlearn.data.schema import warn
from graphunlearn.data.vocabulary import IdError, canonical_ids, preview
from graphunlearn.errors import ArgumentError, FileError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".inter", ".dat", ".data")
SUFFIXES = (*TEXT_SUFFIXES, *(suffix + ".gz" for suffix in TEXT_SUFFIXES), ".parquet")


def read_text(path: Path) -> bytes:
    """Return the text of a file as UTF-8 bytes with line feeds as line ends.

    Args:
        path: The file, whose suffix must be that of a text file, with or without ``.gz``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another suffix, is empty, is not UTF-8, or is a damaged gzip file.
    """
    name = path.name.lower()
    check_file(path)
    if not name.endswith(SUFFIXES):
        raise ArgumentError("path", f"end in {', '.join(TEXT_SUFFIXES)} (also with .gz) or .parquet", f"'{path}'")
    data = path.read_bytes()
    if name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ArgumentError(path, "be a whole gzip file", f"a truncated or damaged one: {error}") from None
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    wrong = data.find(0)
    if wrong < 0:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise ValueError(f"'{path}', line {line}: must be UTF-8 text (got byte 0x{data[wrong]:02x})")
    if not data.strip():
        raise ArgumentError(path, "hold at least one row", "an empty file")
    if not data.endswith(b"\n"):
        warn(f"'{path}' has no newline at its end: the last line may be cut off")
    return re.sub(rb" +\n", b"\n", data) if b" \n" in data else data


def check_file(path: Path) -> None:
    """Raise FileError if a file does not exist."""
    if not path.is_file():
        raise FileError("path", "be an existing file", f"'{path}'")


def head(text: bytes, count: int = 100) -> list[str]:
    """Return the first ``count`` lines of a text that are not blank."""
    lines = text[: 1 << 20].decode(errors="ignore").split("\n", 2 * count)[: 2 * count]
    return [line for line in lines if line.strip()][:count]


def read_rows(
    path: Path, text: bytes, given: dict[str, Column], layout: Layout = INTERACTIONS, maybe_lists: bool = False
) -> pd.DataFrame:
    """Read a table of rows.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`read_text` returns it.
        given: Name or number of the column of every role that the caller specified.
        layout: The possible columns.
        maybe_lists: Whether the lines may also be a user followed by any number of items, which is then detected.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        ValueError: The table is malformed; the message names the line.
    """
    first = head(text)
    separator = sniff_separator(first) or ","
    rows = [fields(line, separator) for line in first]
    if maybe_lists and not any(given.values()) and sniff_lists(first, separator):
        return read_lists(path, text)
    header = sniff_header(rows, given, layout)
    columns = find_columns(rows[0] if header else len(rows[0]), given, path, layout)
    if not header and not any(map(is_number, rows[0])):
        warn(f"'{path}' was taken to have no header: its first line is data (got {preview(rows[0], 4)})")
    if separator == "::":
        text, separator = text.replace(b"::", b"\t"), "\t"
    elif separator == " ":
        text = re.sub(rb"(?m)^ +", b"", re.sub(rb" +", b" ", text))
    width, line = _count_fields(text, separator)
    wrong = width != len(rows[0])
    if wrong.any():
        at = int(np.argmax(wrong))
        expected = f"{len(rows[0])} fields like line {line[0]}"
        raise ValueError(f"'{path}', line {line[at]}: must have {expected} (got {width[at]})")
    if len(line) == header:
        raise ArgumentError(path, "hold at least one row", "only a header")
    frame = pd.read_csv(
        io.BytesIO(text),
        sep=separator,
        header=None,
        skiprows=int(line[0]) if header else 0,
        usecols=sorted(columns.values()),
        dtype={columns[role]: object for role in layout.ids if role in columns},  # keeps ids as they are written
        quoting=csv.QUOTE_MINIMAL if separator in {",", ";"} else csv.QUOTE_NONE,
        skipinitialspace=True,
        low_memory=False,
    )
    frame = frame[list(columns.values())].set_axis(list(columns), axis=1)
    return tidy(frame, lambda row: f"'{path}', line {line[row + header]}", text=True, layout=layout)


def _count_fields(text: bytes, separator: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the number of fields and the line number of every line that is not blank."""
    if b'"' in text and separator in {",", ";"}:
        reader = csv.reader(io.StringIO(text.decode()), delimiter=separator, skipinitialspace=True)
        counted = [(len(row), reader.line_num) for row in reader if row]
        width, line = np.array(counted).T
        return width, line
    symbols = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(symbols == ord("\n"))
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    separators = np.flatnonzero(symbols == ord(separator))
    width = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    filled = np.flatnonzero(np.diff(ends, prepend=-1) > 1)
    return width[filled], filled + 1


def read_lists(path: Path, text: bytes) -> pd.DataFrame:
    """Read lines that consist of a user and any number of items.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`read_text` returns it.

    Returns:
        A clean table with the columns ``user`` and ``item``, one row per interaction.

    Raises:
        ValueError: No user has an item, or an id is malformed.
    """
    rows = [line.split() for line in text.decode().split("\n")]
    counts = np.array([max(len(row) - 1, 0) for row in rows])
    line = np.repeat(np.arange(len(rows)) + 1, counts)
    users = np.repeat(np.array([row[0] if row else "" for row in rows], dtype=object), counts)
    items = np.array(list(chain.from_iterable(row[1:] for row in rows)), dtype=object)
    if not len(items):
        raise ArgumentError(path, "hold at least one user with an item", "none")
    return tidy(pd.DataFrame({"user": users, "item": items}), lambda row: f"'{path}', line {line[row]}", text=True)


def read_column(path: Path, text: bytes, level: str, layout: Layout) -> list[str]:
    """Read a single column of raw ids.

    Args:
        path: The file, for error messages.
        text: Its text, as :func:`read_text` returns it.
        level: The role of the column, such as ``"user"``.
        layout: The possible columns, whose names identify a header.

    Raises:
        ValueError: An id is malformed; the message names the line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.decode().split("\n"), 1) if line.strip()]
    if plain(lines[0][1]) in layout.roles[level]:
        lines = lines[1:]
    try:
        return canonical_ids([line.strip('"') for _, line in lines], numbers_as_text=True)
    except IdError as error:
        number = lines[error.position][0]
        raise ValueError(f"'{path}', line {number}: {level} ids must {error.expected} (got {error.got})") from None


def read_parquet(path: Path, given: dict[str, Column], layout: Layout = INTERACTIONS) -> pd.DataFrame:
    """Read a table from a parquet file.

    Args:
        path: The file.
        given: Name or number of the column of every role that the caller specified.
        layout: The possible columns.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: Pyarrow is not installed.
        ValueError: The file is broken, or the table is empty or malformed.
    """
    check_file(path)
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise ImportError(f"'{path}' needs pyarrow to be read: python -m pip install 'graphunlearn[parquet]'") from None
    except (OSError, ValueError) as error:
        raise ArgumentError(path, "be a whole parquet file", f"a broken one: {error}") from None
    return read_table(frame, path, given, layout, first=1)


def read_table(
    frame: pd.DataFrame, source: str | Path, given: dict[str, Column], layout: Layout = INTERACTIONS, first: int = 0
) -> pd.DataFrame:
    """Return the columns of a table in memory that a layout has, checked and converted.

    Args:
        frame: The table.
        source: The file, or the name of the argument that holds the table.
        given: Name or position of the column of every role that the caller specified.
        layout: The possible columns.
        first: Number of the first row in error messages.

    Returns:
        A clean table; see :func:`~graphunlearn.data.io.frame.tidy`.

    Raises:
        ValueError: A column does not exist, or the table is empty or malformed.
    """
    columns = find_columns([str(name) for name in frame.columns], given, source, layout)
    if frame.empty:
        raise ArgumentError(source, "hold at least one row", "none")
    frame = frame.iloc[:, list(columns.values())].set_axis(list(columns), axis=1)
    return tidy(frame, lambda row: f"'{source}', row {row + first}", layout=layout)
