"""Files of interactions and clicks, in and out; every malformed row is named by its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, PLACES, Column, sniff_separator
from graphunlearn.data.io.tables import SUFFIXES, head, read_column, read_lists, read_parquet, read_rows, read_text
from graphunlearn.errors import ArgumentError

__all__ = ["SUFFIXES", "read_clicks", "read_frame", "read_ids", "write_atomic"]


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
        return read_parquet(path, given)
    text = read_text(path)
    return read_lists(path, text) if lists else read_rows(path, text, given, maybe_lists=lists is None)


def read_clicks(path: str | os.PathLike[str], **columns: Column) -> pd.DataFrame:
    r"""Read a table of clicks in sessions; separator, header and columns are found out where they are not given.

    Args:
        path: A file as for :func:`read_frame`.
        columns: Name or number of the column of ``session``, ``item``, ``time``, ``position`` and ``user``, where it is
            not to be found by its name or, without a header, as the first, second and third (a time).

    Returns:
        A table in the order of the file, with columns ``session`` and ``item`` (categories of raw ids) and, where the
        file has them, ``time``, ``position`` and ``user`` (a category, missing where it is unknown).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not readable as such a table; the message names the line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "clicks.csv")
        >>> _ = path.write_text("SessionId;ItemId;Time\n3;21;139.94\n3;7;141.5\n")
        >>> read_clicks(path).values.tolist()
        [['3', '21', 139.94], ['3', '7', 141.5]]
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, columns, CLICKS)
    return read_rows(path, read_text(path), columns, CLICKS)


def read_ids(path: str | os.PathLike[str], level: str) -> list[Any]:
    """Read what to forget: one id per line, or rows of which ``level`` takes the ids or the pairs.

    Args:
        path: A file as for :func:`read_frame`, or with a single column (and maybe a header).
        level: ``"user"``, ``"item"``, ``"session"``, ``"interaction"`` or ``"click"``.

    Returns:
        Raw ids, or pairs: of user and item, or of session and position.

    Raises:
        ValueError: If the file is malformed, or has one column where pairs are needed.
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
