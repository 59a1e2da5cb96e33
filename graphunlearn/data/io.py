"""Files of interactions, in and out; every malformed row is named by its line."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from graphunlearn.data.columns import (
    REQUIRED,
    ROLES,
    Column,
    fields,
    find_columns,
    plain,
    sniff_header,
    sniff_lists,
    sniff_separator,
)
from graphunlearn.data.frame import tidy
from graphunlearn.data.schema import warn
from graphunlearn.data.vocabulary import canonical_ids

__all__ = ["SUFFIXES", "read_frame", "read_ids", "write_atomic"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".inter", ".dat", ".data")
SUFFIXES = (*TEXT_SUFFIXES, *(suffix + ".gz" for suffix in TEXT_SUFFIXES), ".parquet")


def read_frame(
    path: str | os.PathLike[str],
    *,
    user: Column = None,
    item: Column = None,
    rating: Column = None,
    time: Column = None,
    label: Column = None,
    lists: bool | None = None,
) -> pd.DataFrame:
    r"""Read a table of interactions; separator, header and columns are found out where they are not given.

    Args:
        path: A ``.csv``, ``.tsv``, ``.txt``, ``.inter``, ``.dat``, ``.data`` (also with ``.gz``) or ``.parquet`` file.
        user: Name or number of the column of users (default: found by its name, or the first column).
        item: Likewise for items (or the second column).
        rating: Likewise for ratings (or the third column, if any).
        time: Likewise for times (or the fourth column, if any); dates become seconds since 1970.
        label: Likewise for labels (by name only).
        lists: Whether each line is a user followed by any number of items (default: found out).

    Returns:
        A table with columns ``user`` and ``item`` (categories of raw ids, in order of first appearance) and, where the
        file has them, ``rating``, ``time`` and ``label``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not readable as such a table; the message names the line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "ratings.csv")
        >>> _ = path.write_text("user_id,item_id,rating\n196,242,3\n186,302,3\n")
        >>> read_frame(path)["user"].tolist()
        ['196', '186']
    """
    given: dict[str, Column] = {"user": user, "item": item, "rating": rating, "time": time, "label": label}
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, given)
    text = _read_text(path)
    return _read_lists(path, text) if lists else _read_rows(path, text, given, maybe_lists=lists is None)


def read_ids(path: str | os.PathLike[str], level: str) -> list[Any]:
    """Read what to forget: one id per line, or rows of which ``level`` takes the users, the items or the pairs.

    Args:
        path: A file as for :func:`read_frame`, or with a single column (and maybe a header).
        level: ``"user"``, ``"item"`` or ``"interaction"``.

    Returns:
        Raw ids, or pairs of them.

    Raises:
        ValueError: If the file is malformed, or has one column where pairs are needed.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        frame = _read_parquet(path, {}, REQUIRED if level == "interaction" else (level,))
    else:
        text = _read_text(path)
        lines = _head(text)
        separator = sniff_separator(lines)
        if separator is None or (separator == " " and level != "interaction"):
            return _read_column(path, text, level)
        frame = _read_rows(path, text, {}, required=REQUIRED if level == "interaction" else (level,))
    if level == "interaction":
        return list(zip(frame["user"], frame["item"]))
    return list(frame[level])


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[BinaryIO], object]) -> Path:
    """Write a file whole or not at all: whatever interrupts the writing, an earlier file stays as it was.

    Args:
        path: The file; its folder must exist.
        content: Bytes, text, or a function that writes to the binary file it is given.

    Returns:
        The path.

    Raises:
        OSError: If the file cannot be written, as on a full disk.

    Example:
        >>> import pathlib, tempfile
        >>> write_atomic(pathlib.Path(tempfile.mkdtemp(), "a.txt"), "all of it").read_text()
        'all of it'
    """
    target = Path(path).resolve()  # so that a link keeps pointing at its file
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"'{path}' could not be written: {reason} (an earlier file is as it was)") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Path(path)


def _read_text(path: Path) -> bytes:
    """The file's text with plain line ends, checked for all that makes a file no text."""
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise ValueError(f"'path' must end in {', '.join(TEXT_SUFFIXES)} (also with .gz) or .parquet (got '{path}')")
    _check_file(path)
    data = path.read_bytes()
    if name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"'{path}' must be a whole gzip file (got a truncated or damaged one: {error})") from None
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
        raise ValueError(f"'{path}' must hold at least one row (got an empty file)")
    if not data.endswith(b"\n"):
        warn(f"'{path}' has no newline at its end: the last line may be cut off")
    return re.sub(rb" +\n", b"\n", data) if b" \n" in data else data


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"'path' must be an existing file (got '{path}')")


def _head(text: bytes, count: int = 100) -> list[str]:
    lines = text[: 1 << 20].decode(errors="ignore").split("\n", 2 * count)[: 2 * count]
    return [line for line in lines if line.strip()][:count]


def _read_rows(
    path: Path,
    text: bytes,
    given: dict[str, Column],
    required: Sequence[str] = REQUIRED,
    maybe_lists: bool = False,
) -> pd.DataFrame:
    head = _head(text)
    separator = sniff_separator(head) or ","
    rows = [fields(line, separator) for line in head]
    if maybe_lists and not any(given.values()) and sniff_lists(head, separator):
        return _read_lists(path, text)
    header = sniff_header(rows, given)
    columns = find_columns(rows[0] if header else len(rows[0]), given, f"'{path}'", required)
    if separator == "::":
        text, separator = text.replace(b"::", b"\t"), "\t"
    elif separator == " ":
        text = re.sub(rb"(?m)^ +", b"", re.sub(rb" +", b" ", text))
    width, line = _count_fields(text, separator)
    wrong = width != len(rows[0])
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"'{path}', line {line[at]}: must have {len(rows[0])} fields like line {line[0]} (got {width[at]})"
        )
    if len(line) == header:
        raise ValueError(f"'{path}' must hold at least one row (got only a header)")
    frame = pd.read_csv(
        io.BytesIO(text),
        sep=separator,
        header=None,
        skiprows=int(line[0]) if header else 0,
        usecols=sorted(columns.values()),
        dtype={columns[role]: object for role in REQUIRED if role in columns},  # as they are written
        quoting=csv.QUOTE_MINIMAL if separator in {",", ";"} else csv.QUOTE_NONE,
        skipinitialspace=True,
        low_memory=False,
    )
    frame = frame[list(columns.values())].set_axis(list(columns), axis=1)
    return tidy(frame, lambda row: f"'{path}', line {line[row + header]}", text=True)


def _count_fields(text: bytes, separator: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Number of fields and line number of every line that is not blank."""
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


def _read_lists(path: Path, text: bytes) -> pd.DataFrame:
    rows = [line.split() for line in text.decode().split("\n")]
    counts = np.array([max(len(row) - 1, 0) for row in rows])
    line = np.repeat(np.arange(len(rows)) + 1, counts)
    users = np.repeat(np.array([row[0] if row else "" for row in rows], dtype=object), counts)
    items = np.array(list(chain.from_iterable(row[1:] for row in rows)), dtype=object)
    if not len(items):
        raise ValueError(f"'{path}' must hold at least one user with an item (got none)")
    return tidy(pd.DataFrame({"user": users, "item": items}), lambda row: f"'{path}', line {line[row]}", text=True)


def _read_column(path: Path, text: bytes, level: str) -> list[str]:
    lines = [(number, line.strip()) for number, line in enumerate(text.decode().split("\n"), 1) if line.strip()]
    if level == "interaction":
        raise ValueError(f"'{path}' must hold a user and an item per line (got one column)")
    if plain(lines[0][1]) in ROLES[level]:
        lines = lines[1:]
    try:
        return canonical_ids([line.strip('"') for _, line in lines], numbers_as_text=True)
    except ValueError as error:
        number = lines[getattr(error, "position", 0)][0]
        raise ValueError(f"'{path}', line {number}: {level} {error}") from None


def _read_parquet(path: Path, given: dict[str, Column], required: Sequence[str] = REQUIRED) -> pd.DataFrame:
    _check_file(path)
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise ImportError(f"'{path}' needs pyarrow to be read: python -m pip install 'graphunlearn[parquet]'") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' must be a whole parquet file (got: {error})") from None
    columns = find_columns([str(name) for name in frame.columns], given, f"'{path}'", required)
    if frame.empty:
        raise ValueError(f"'{path}' must hold at least one row (got none)")
    frame = frame.iloc[:, list(columns.values())].set_axis(list(columns), axis=1)
    return tidy(frame, lambda row: f"'{path}', row {row + 1}")
