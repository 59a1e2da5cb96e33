"""The text of files, cut into fields; errors name the malformed line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from graphunlearn.data.io.options import Reading
from graphunlearn.data.schema import warn
from graphunlearn.data.vocabulary import WHITE
from graphunlearn.errors import ArgumentError, FileError

ROWS = (".csv", ".tsv", ".txt", ".inter", ".dat", ".data")
JSON_LINES = (".jsonl", ".ndjson")
_TEXT = (*ROWS, *JSON_LINES)
SUFFIXES = (*_TEXT, *(suffix + ".gz" for suffix in _TEXT), ".parquet")
UNIT = "\x1f"
"""A character that stands for a separator of several characters."""
Array = np.ndarray[Any, Any]


class Cells(NamedTuple):
    """The fields of a text.

    Args:
        width: Number of fields of every line that is not blank ``[num_lines]``.
        line: Number of these lines in the file, from 1 ``[num_lines]``.
        start: Position in ``text`` of the first field of every line ``[num_lines]``, or ``None`` for parsed rows.
        text: The text without quotes, or the rows that were parsed.
        separator: The separator in ``text``.
    """

    width: Array
    line: Array
    start: Array | None
    text: bytes | list[list[str]]
    separator: str


def check_file(path: Path) -> None:
    """Raise FileError if a file does not exist."""
    if not path.is_file():
        raise FileError("path", "be an existing file", f"'{path}'")


def suffix_of(path: Path) -> str:
    """Return the suffix of a file in lower case, for text files without ``.gz``."""
    name = path.name.lower()
    text = name.removesuffix(".gz")
    return Path(text if text.endswith(_TEXT) else name).suffix


def read_text(path: Path, reading: Reading) -> bytes:
    """Return the text of a file as UTF-8 bytes with line feeds as line ends.

    Args:
        path: The file, whose suffix must be that of a text file, with or without ``.gz``.
        reading: How to read; the largest size counts here.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another suffix, is too large, is empty, is not UTF-8, or is a damaged gzip file.
    """
    check_file(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise ArgumentError("path", f"end in {', '.join(_TEXT)} (also with .gz) or .parquet", f"'{path}'")
    reading.check_size(path, path.stat().st_size)
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        assert isinstance(reading.max_size, int)
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(reading.max_size + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ArgumentError(path, "be a whole gzip file", f"a truncated or damaged one: {error}") from None
        reading.check_size(path, len(data), at_least=True)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
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


def head(text: bytes, count: int = 100) -> list[str]:
    """Return the first ``count`` lines of a text that are not blank."""
    lines = text[: 1 << 20].decode(errors="ignore").split("\n", 2 * count)
    whole = lines[: 2 * count] if len(lines) > 1 else lines
    return [line for line in whole if line.strip(WHITE)][:count]


def cut(path: Path, text: bytes, separator: str) -> Cells:
    """Cut a text into fields.

    Quotes count where they surround whole fields, with quotes inside either doubled or after a backslash. Elsewhere
    they are part of the text; with commas and semicolons, a quote that is not closed is an error.

    Args:
        path: The file, for error messages.
        text: The text, as :func:`read_text` returns it.
        separator: Text between fields; a space stands for any number of spaces.

    Returns:
        The fields.

    Raises:
        ValueError: A quote is not closed, a field is too long, or the text has the character 0x1F.
    """
    if len(separator) > 1:
        if UNIT.encode() in text:
            raise ArgumentError(path, "be without the character 0x1F", "one")
        text, separator = text.replace(separator.encode(), UNIT.encode()), UNIT
    elif separator == " ":
        text = re.sub(rb"(?m)^ +", b"", re.sub(rb" +", b" ", text))
    if b'"' not in text:
        return _simple(text, separator)
    plain = _without_quotes(text, separator)
    if plain is not None:
        return _simple(plain, separator)
    reasons = []
    for escape in (None, "\\") if b'\\"' in text else (None,):
        try:
            rows, line = _parsed(text, separator, escape)
        except csv.Error as error:
            reasons.append(str(error))
            continue
        width = np.array([len(row) for row in rows])
        if escape is None and (width != width[0]).any() and b'\\"' in text:
            continue  # backslashes may explain it
        return _rows(path, rows, width, line, separator)
    if separator in {",", ";"}:
        if not reasons:
            rows, line = _parsed(text, separator, None)
            return _rows(path, rows, np.array([len(row) for row in rows]), line, separator)
        raise ValueError(f"'{path}', {reasons[0]}")
    if re.search(rb'(?m)(?:^|%b)"[^"\n]*"(?:$|%b)' % ((re.escape(separator.encode()),) * 2), text):
        warn(f"'{path}': quotes were kept as part of the values, since not all of them surround a whole field")
    return _simple(text, separator)


def _simple(text: bytes, separator: str) -> Cells:
    """Cut a text without quotes."""
    symbols = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(symbols == ord("\n"))
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    separators = np.flatnonzero(symbols == ord(separator))
    starts = np.append(0, ends[:-1] + 1)
    width = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    filled = np.flatnonzero(ends > starts)
    return Cells(width[filled], filled + 1, starts[filled], text, separator)


def _without_quotes(text: bytes, separator: str) -> bytes | None:
    """Return the text without its quotes if they only surround fields without separators and line ends."""
    symbols = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(symbols == ord('"'))
    if quotes.size % 2:
        return None
    ends = (symbols == ord(separator)) | (symbols == ord("\n"))
    edge = np.concatenate([[True], ends, [True]])  # edge[i] is about the character before i, edge[i + 2] after
    opening, closing = quotes[::2], quotes[1::2]
    if not (edge[opening].all() and edge[closing + 2].all()):
        return None
    before = np.flatnonzero(ends)
    if (np.searchsorted(before, opening) != np.searchsorted(before, closing)).any():
        return None
    return text.replace(b'"', b"")


def _parsed(text: bytes, separator: str, escape: str | None) -> tuple[list[list[str]], list[int]]:
    """Return the rows of a text with quotes, and the numbers of their last lines.

    Raises:
        csv.Error: A quote is not closed or a field too long; the message names the line.
    """
    stream = io.StringIO(text.decode(), newline="\n")
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True, escapechar=escape)
    rows: list[list[str]] = []
    line: list[int] = []
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            limit = "field larger" in str(error)
            what = f"have fields below {csv.field_size_limit():,} characters" if limit else "close its quotes"
            raise csv.Error(f"line {first}: must {what} (got {error})") from None
        if row is None:
            return rows, line
        if row:
            rows.append(row)
            line.append(reader.line_num)


def _rows(path: Path, rows: list[list[str]], width: Array, line: list[int], separator: str) -> Cells:
    """Return parsed rows as cells; warn of rows that take several lines."""
    several = sum(any("\n" in field for field in row) for row in rows)
    if several:
        warn(f"'{path}': {several} of {len(rows)} rows take several lines, inside quotes")
    return Cells(width, np.array(line), None, rows, separator)


def columns_of(cells: Cells, header: bool, wanted: Sequence[int], ids: Sequence[int], decimal: str) -> dict[int, Any]:
    """Return some columns of a text: ids as they are written, or as whole numbers; others as numbers where they are.

    Args:
        cells: The fields, as many in every line.
        header: Whether the first line is a header.
        wanted: Positions of the columns.
        ids: Positions of those that hold ids.
        decimal: Decimal point of numbers.

    Returns:
        The columns by position ``[num_rows]``.
    """
    if not isinstance(cells.text, bytes):
        columns = list(zip(*cells.text[header:]))
        return {at: pd.Series(columns[at], dtype=object) for at in wanted}
    plain = set(ids) & _plain_numbers(cells, header)
    skipped = int(cells.line[0]) if header else 0
    found = _parse(cells, skipped, sorted(wanted), {at: object for at in ids if at not in plain}, decimal)
    again = [at for at in plain if found[at].dtype.kind not in "iu"]
    if again:
        found |= _parse(cells, skipped, sorted(again), dict.fromkeys(again, object), decimal)
    if any(len(column) != len(cells.line) - header for column in found.values()):
        raise ValueError("the rows of a file must be counted alike in two ways (got different counts)")
    return found


def _parse(cells: Cells, skipped: int, wanted: list[int], types: dict[int, Any], decimal: str) -> dict[int, Any]:
    assert isinstance(cells.text, bytes)
    frame = pd.read_csv(
        io.BytesIO(cells.text),
        sep=cells.separator,
        header=None,
        skiprows=skipped,
        usecols=wanted,
        dtype=types,
        quoting=csv.QUOTE_NONE,
        skipinitialspace=True,
        low_memory=False,
        decimal=decimal,
    )
    return {at: frame[at] for at in wanted}


def _plain_numbers(cells: Cells, header: bool) -> set[int]:
    """Return the columns whose fields begin with a digit, and not with a zero that leads others."""
    assert isinstance(cells.text, bytes)
    assert cells.start is not None
    symbols = np.frombuffer(cells.text + b"\n", dtype=np.uint8)
    rows, width = len(cells.line), int(cells.width[0])
    starts = np.empty((width, rows), dtype=np.int64)
    starts[0] = cells.start
    separators = np.flatnonzero(symbols == ord(cells.separator))
    starts[1:] = separators.reshape(rows, width - 1).T + 1
    found = set()
    for at, start in enumerate(starts[:, int(header) :]):
        first, second = symbols[start], symbols[np.minimum(start + 1, symbols.size - 1)]
        digit = (first >= ord("0")) & (first <= ord("9"))
        leading = (first == ord("0")) & (second >= ord("0")) & (second <= ord("9"))
        if digit.all() and not leading.any():
            found.add(at)
    return found


def split_lists(text: bytes, separator: str | None) -> list[list[str]]:
    """Return the fields of every line, blank lines included, of lines of any width."""
    split = re.compile(r"[ \t]+" if separator in {None, " ", "\t"} else re.escape(separator or ""))
    lines = (line.strip(WHITE) for line in text.decode().split("\n"))
    return [[field.strip(WHITE).strip('"') for field in split.split(line)] if line else [] for line in lines]


def lists_with_counts(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first number of every line is the count of the others, and not the id of a user.

    Args:
        rows: Fields of the lines that are not blank.

    Example:
        >>> lists_with_counts([["2", "13", "14"], ["1", "10"], ["2", "10", "15"]])
        True
    """
    counted = len(rows) > 1 and all(row[0] == str(len(row) - 1) for row in rows)
    ascending = all(int(b[0]) == int(a[0]) + 1 for a, b in pairwise(rows)) if counted else False
    return counted and not ascending
