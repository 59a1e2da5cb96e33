"""Reading of interactions, clicks and requests from files, and atomic writing; errors name the malformed line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, PLACES, Column, Layout, sniff_separator
from graphunlearn.data.io.tables import SUFFIXES, head, read_column, read_lists, read_parquet, read_rows, read_text
from graphunlearn.errors import ArgumentError

__all__ = ["SUFFIXES", "read_clicks", "read_frame", "read_ids", "write_atomic"]


def read_frame(path: str | os.PathLike[str], *, lists: bool | None = None, **columns: Column) -> pd.DataFrame:
    r"""Read a table of interactions; separator, header and unspecified columns are detected.

    Args:
        path: A ``.csv``, ``.tsv``, ``.txt``, ``.inter``, ``.dat``, ``.data`` (also with ``.gz``) or ``.parquet`` file.
        lists: Whether each line is a user followed by any number of items (default: detected).
        **columns: Names or numbers of the columns ``user``, ``item``, ``rating``, ``time`` (dates become seconds since
            1970) and ``label``. By default, columns are found by their names; without a header, the first four are
            user, item, rating and time.

    Returns:
        A table with the columns ``user`` and ``item`` (categories of raw ids, in order of first appearance) and, if the
        file has them, ``rating``, ``time`` and ``label``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read as such a table; the message names the line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "ratings.csv")
        >>> _ = path.write_text("user_id,item_id,rating\n196,242,3\n186,302,3\n")
        >>> read_frame(path)["user"].tolist()
        ['196', '186']
    """
    return _read(Path(path), columns, INTERACTIONS, lists)


def read_clicks(path: str | os.PathLike[str], **columns: Column) -> pd.DataFrame:
    r"""Read a table of clicks in sessions; separator, header and unspecified columns are detected.

    Args:
        path: A file in a format of :func:`read_frame`.
        **columns: Names or numbers of the columns ``session``, ``item``, ``time``, ``position`` and ``user``. By
            default, columns are found by their names; without a header, the first three are session, item and time.

    Returns:
        A table in the order of the file, with the columns ``session`` and ``item`` (categories of raw ids) and, if the
        file has them, ``time``, ``position`` and ``user`` (a category with missing values for unknown users).

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read as such a table; the message names the line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "clicks.csv")
        >>> _ = path.write_text("SessionId;ItemId;Time\n3;21;139.94\n3;7;141.5\n")
        >>> read_clicks(path).values.tolist()
        [['3', '21', 139.94], ['3', '7', 141.5]]
    """
    return _read(Path(path), columns, CLICKS, lists=False)


def _read(path: Path, given: dict[str, Column], layout: Layout, lists: bool | None) -> pd.DataFrame:
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, given, layout)
    text = read_text(path)
    return read_lists(path, text) if lists else read_rows(path, text, given, layout, maybe_lists=lists is None)


def read_ids(path: str | os.PathLike[str], level: str) -> list[Any]:
    """Read the ids or pairs of a forget request from a file.

    Args:
        path: A file in a format of :func:`read_frame`, from whose rows the columns of ``level`` are read, or a file
            with one id per line and an optional header.
        level: ``"user"``, ``"item"``, ``"session"``, ``"interaction"`` or ``"click"``.

    Returns:
        Raw ids; at level ``"interaction"`` pairs of user and item, at level ``"click"`` pairs of session and position.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is malformed, or has only one column although the level needs pairs.
    """
    path = Path(path)
    pairs = {"interaction": INTERACTIONS, "click": PLACES}.get(level)
    layout = pairs or replace(CLICKS if level == "session" else INTERACTIONS, required=(level,))
    if path.suffix.lower() == ".parquet":
        frame = read_parquet(path, {}, layout)
    else:
        text = read_text(path)
        separator = sniff_separator(head(text))
        if pairs and separator is None:
            what = "a user and an item" if level == "interaction" else "a session and a position"
            raise ArgumentError(path, f"hold {what} per line", "one column")
        if not pairs and separator in {None, " "}:
            return read_column(path, text, level, layout)
        frame = read_rows(path, text, {}, layout)
    columns = [frame[role].tolist() for role in layout.required]
    return list(zip(*columns)) if pairs else columns[0]


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[BinaryIO], object]) -> Path:
    """Write a file atomically: if writing is interrupted, an existing file stays unchanged.

    Args:
        path: The file; its folder must exist.
        content: Bytes, text, or a function that receives an open binary file and writes to it.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written, for example on a full disk.

    Example:
        >>> import pathlib, tempfile
        >>> write_atomic(pathlib.Path(tempfile.mkdtemp(), "a.txt"), "all of it").read_text()
        'all of it'
    """
    target = Path(path).resolve()  # for a symbolic link, its target is replaced
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
        raise type(error)(f"'{path}' could not be written: {reason} (an earlier file is unchanged)") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Path(path)
