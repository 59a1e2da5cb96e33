"""The text of files, cut into fields; errors name the malformed line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from graphunlearn.data.io.columns import is_number
from graphunlearn.data.io.options import Reading
from graphunlearn.data.schema import warn
from graphunlearn.data.vocabulary import WHITE, brief
from graphunlearn.errors import ArgumentError, FileError

ROWS = (".csv", ".tsv", ".txt", ".inter", ".dat", ".data")
JSON_LINES = (".jsonl", ".ndjson")
_TEXT = (*ROWS, *JSON_LINES)
SUFFIXES = (*_TEXT, *(suffix + ".gz" for suffix in _TEXT), ".parquet")
PACKED = (".bz2", ".xz", ".zip", ".zst", ".7z", ".rar", ".tar", ".tgz")
UNIT = "\x1f"
_PART = 1 << 20  # bytes decompressed at a time
"""A character that stands for a separator of several characters."""
Array = np.ndarray[Any, Any]


class Cells(NamedTuple):
    """The fields of a text.

    Args:
        width: Number of fields of every line that is not blank ``[num_lines]``.
        line: Number of these lines in the file, from 1 ``[num_lines]``.
        text: The text without quotes, or the rows that were parsed.
        separator: The separator in ``text``.
        start: Position in ``text`` of every line ``[num_lines]``; empty for parsed rows.
        cuts: Position in ``text`` of every separator; empty for parsed rows.
    """

    width: Array
    line: Array
    text: bytes | list[list[str]]
    separator: str
    start: Array = np.empty(0, dtype=np.int64)
    cuts: Array = np.empty(0, dtype=np.int64)

    def rows(self, count: int = 100) -> list[list[str]]:
        """Return the fields of the first lines that are not blank."""
        if isinstance(self.text, bytes):
            starts = self.start[:count].tolist()
            ends = [self.text.find(b"\n", start) for start in starts]
            lines = [self.text[a : b if b >= 0 else None] for a, b in zip(starts, ends)]
            rows = [line.decode().split(self.separator) for line in lines]
        else:
            rows = self.text[:count]
        return [[field.strip(WHITE) for field in row] for row in rows]


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
        hint = "decompress it first" if path.suffix.lower() in PACKED else ""
        raise ArgumentError("path", f"end in {', '.join(_TEXT)} (also with .gz) or .parquet", f"'{path}'", hint)
    reading.check_size(path, path.stat().st_size)
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        assert isinstance(reading.max_size, int)
        try:
            data = _decompressed(data, reading.max_size + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ArgumentError(path, "be a whole gzip file", f"a truncated or damaged one: {error}") from None
        reading.check_size(path, len(data), at_least=True)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    wrong = data.find(0)
    if wrong < 0:
        try:
            _ = data.isascii() or data.decode()
        except UnicodeDecodeError as error:
            wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise ValueError(f"'{path}', line {line}: must be UTF-8 text (got byte 0x{data[wrong]:02x})")
    if not data or data.isspace():
        raise ArgumentError(path, "hold at least one row", "an empty file")
    if not data.endswith(b"\n"):
        warn(f"'{path}' has no newline at its end: the last line may be cut off")
    return re.sub(rb" +\n", b"\n", data) if b" \n" in data else data


def _decompressed(data: bytes, most: int) -> bytes:
    """Return the first ``most`` bytes of a gzip file; ``read(most)`` would ask for memory for all of them at once."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while part := file.read(min(_PART, most - out.tell())):
            out.write(part)
    return out.getvalue()


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
    if len(separator.encode()) > 1:
        if UNIT.encode() in text:
            raise ArgumentError(path, "be without the character 0x1F", "one")
        text, separator = text.replace(separator.encode(), UNIT.encode()), UNIT
    elif separator == " ":
        text = _single_spaces(text)
    if b'"' not in text:
        return _simple(text, separator)
    plain = _without_quotes(text, separator)
    if plain is not None:
        return _simple(plain, separator)
    reasons = []
    found: list[Cells] = []
    for variant in dict.fromkeys([text, text.replace(b'\\"', b'""')]):
        try:
            found.append(_parsed(variant, separator))
        except csv.Error as error:
            reasons.append(str(error))
            continue
        if (found[-1].width == found[-1].width[0]).all():
            break
    if found:
        return _several_lines(path, found[-1])
    if separator in {",", ";", "|"}:
        raise ValueError(f"'{path}', {reasons[0]}")
    if re.search(rb'(?m)(?:^|%b)"[^"\n]*"(?:$|%b)' % ((re.escape(separator.encode()),) * 2), text):
        warn(f"'{path}': quotes were kept as part of the values, since not all of them surround a whole field")
    return _simple(text, separator)


def _single_spaces(text: bytes) -> bytes:
    """Return a text with one space for every run of spaces outside quotes, and none at the start of a line."""
    if b'"' in text:
        quoted = rb'(?<![^ \n])"[^"\n]*"(?![^ \n])'
        text = re.sub(quoted + rb"| +", lambda found: found[0] if found[0][:1] == b'"' else b" ", text)
    else:
        text = re.sub(rb" +", b" ", text)
    return re.sub(rb"(?m)^ ", b"", text)


def _simple(text: bytes, separator: str) -> Cells:
    """Cut a text without quotes."""
    symbols = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(symbols == ord("\n"))
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    cuts = np.flatnonzero(symbols == ord(separator))
    starts = np.append(0, ends[:-1] + 1)
    filled = np.flatnonzero(ends > starts)
    starts, ends = starts[filled], ends[filled]
    each, rest = divmod(cuts.size, max(filled.size, 1))
    square = cuts.reshape(-1, each) if each and not rest else None
    if square is not None and (square[:, 0] >= starts).all() and (square[:, -1] < ends).all():
        width = np.full(filled.size, each + 1)
    else:
        width = np.diff(np.searchsorted(cuts, ends), prepend=0) + 1
    return Cells(width, filled + 1, text, separator, starts, cuts)


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
    turns = np.zeros(len(text), dtype=np.int8)
    turns[opening], turns[closing] = 1, -1
    if (ends & (np.cumsum(turns, dtype=np.int8) > 0)).any():
        return None
    return text.translate(None, b'"')


def _parsed(text: bytes, separator: str) -> Cells:
    """Return the fields of a text with quotes.

    Raises:
        csv.Error: A quote is not closed or a field too long; the message names the line.
    """
    reader = csv.reader(
        io.StringIO(text.decode(), newline="\n"), delimiter=separator, skipinitialspace=True, strict=True
    )
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
            return Cells(np.array([len(row) for row in rows]), np.array(line), rows, separator)
        if row:
            rows.append(row)
            line.append(reader.line_num)


def _several_lines(path: Path, cells: Cells) -> Cells:
    """Return the cells; warn of rows that take several lines, inside quotes."""
    count = sum(isinstance(row, list) and any("\n" in field for field in row) for row in cells.text)
    if count:
        warn(f"'{path}': {count} {'row takes' if count == 1 else 'rows take'} several lines, inside quotes")
    return cells


def columns_of(
    path: Path, cells: Cells, header: bool, wanted: Sequence[int], ids: Sequence[int], decimal: str
) -> dict[int, Any]:
    """Return some columns of a text: ids as they are written, or as whole numbers; others as numbers where they are.

    Args:
        path: The file, for error messages.
        cells: The fields, as many in every line.
        header: Whether the first line is a header.
        wanted: Positions of the columns.
        ids: Positions of those that hold ids.
        decimal: Decimal point of numbers.

    Returns:
        The columns by position ``[num_rows]``.

    Raises:
        ValueError: A number has another decimal point.
    """

    def numbers(column: pd.Series[Any]) -> pd.Series[Any]:
        return _with_points(column, decimal, lambda row: f"'{path}', line {cells.line[row + header]}")

    if not isinstance(cells.text, bytes):
        columns = list(zip(*cells.text[header:]))
        found = {at: pd.Series(columns[at], dtype=object) for at in wanted}
        return {at: column if at in ids else numbers(column) for at, column in found.items()}
    plain = _plain_numbers(cells, header, ids)
    skipped = int(cells.line[0]) if header else 0
    found = _parse(cells, skipped, sorted(wanted), {}, decimal, in_pieces=True)
    if not all(map(_is_uniform, found.values())):
        found = _parse(cells, skipped, sorted(wanted), {}, decimal)
    # whole numbers are what was written if they look like it, and text always is; other types are read again as text
    kept = {at for at in ids if found[at].dtype.kind in ("iuO" if at in plain else "O")}
    as_text = {at: object for at in ids if at not in kept or pd.api.types.infer_dtype(found[at]) == "boolean"}
    if as_text:
        found |= _parse(cells, skipped, sorted(as_text), as_text, decimal)
    if any(len(column) != len(cells.line) - header for column in found.values()):
        raise ValueError("the rows of a file must be counted alike in two ways (got different counts)")
    return {at: column if at in ids else numbers(column) for at, column in found.items()}


def _parse(
    cells: Cells, skipped: int, wanted: list[int], types: dict[int, Any], decimal: str, in_pieces: bool = False
) -> dict[int, Any]:
    assert isinstance(cells.text, bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        frame = pd.read_csv(
            io.BytesIO(cells.text),
            sep=cells.separator,
            header=None,
            skiprows=skipped,
            usecols=wanted,
            dtype=types,
            quoting=csv.QUOTE_NONE,
            skipinitialspace=True,
            low_memory=in_pieces,
            decimal=decimal,
        )
    return {at: frame[at] for at in wanted}


def _is_uniform(column: pd.Series[Any]) -> bool:
    """Whether the pieces of a column had one type."""
    return column.dtype.kind in "iuf" or pd.api.types.infer_dtype(column, skipna=True) == "string"


def _with_points(column: pd.Series[Any], decimal: str, where: Callable[[int], str]) -> pd.Series[Any]:
    """Return a column with decimal points where it holds text.

    Raises:
        ValueError: A number with a point, which is no decimal point here.
    """
    if decimal == "." or column.dtype.kind in "iufb":
        return column
    values = column.astype(object).tolist()
    for row, text in enumerate(values):
        if isinstance(text, str) and "." in text and is_number(text.replace(decimal, "")):
            raise ValueError(f"{where(row)}: numbers must have {decimal!r} as decimal point (got {brief(text)})")
    return pd.Series([text.replace(decimal, ".") if isinstance(text, str) else text for text in values], dtype=object)


def _plain_numbers(cells: Cells, header: bool, ids: Sequence[int]) -> set[int]:
    """Return the columns of ids whose fields begin with a digit, and not with a zero before another digit."""
    assert isinstance(cells.text, bytes)
    symbols = np.frombuffer(cells.text + b"\n\n", dtype=np.uint8)
    cuts = cells.cuts.reshape(len(cells.line), -1)[int(header) :]
    found = set()
    for at in ids:
        start = cuts[:, at - 1] + 1 if at else cells.start[int(header) :]
        first = symbols[start] - ord("0")  # what is below a digit wraps to large numbers
        zeros = start[first == 0] + 1
        if (first < 10).all() and not (symbols[zeros] - ord("0") < 10).any():
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
