"""Reading of interactions, clicks and requests from files, and atomic writing; errors name the malformed line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, PLACES, Layout, sniff_separator
from graphunlearn.data.io.folders import private
from graphunlearn.data.io.frame import Numeric
from graphunlearn.data.io.options import Reading
from graphunlearn.data.io.tables import lists_as_trained, read_column, read_lists, read_rows, tell_ignored
from graphunlearn.data.io.text import JSON_LINES, SUFFIXES, head, read_text, suffix_of
from graphunlearn.data.io.typed import read_json_lines, read_parquet
from graphunlearn.errors import ArgumentError

__all__ = ["SUFFIXES", "read_clicks", "read_frame", "read_ids", "write_atomic"]


def read_frame(
    path: str | os.PathLike[str], *, numeric: Numeric | None = None, form: str | None = None, **given: Any
) -> pd.DataFrame:
    r"""Read a table of interactions; what is not given is detected.

    Args:
        path: A ``.csv``, ``.tsv``, ``.txt``, ``.inter``, ``.dat``, ``.data``, ``.jsonl`` or ``.ndjson`` (also with
            ``.gz``) or ``.parquet`` file.
        numeric: For ``"user"`` and ``"item"``, whether the ids are those of a vocabulary of numbers (default: they are
            numbers if all of them are whole numbers without leading zeros).
        form: For a test file, the form of its training file, ``attrs["read"]["form"]``: lines without a header are then
            lists if those were, with counts if those had counts.
        **given: Names or numbers of the columns ``user``, ``item``, ``rating``, ``time`` (dates become seconds since
            1970) and ``label``; by default, columns are found by their names, and without a header, the first four are
            user, item, rating and time. Also the arguments of :class:`~graphunlearn.data.io.options.Reading`: ``sep``,
            ``decimal``, ``header``, ``lists`` and ``max_size``.

    Returns:
        A table with the columns ``user`` and ``item`` (categories of raw ids, in order of first appearance) and, if the
        file has them, ``rating``, ``time`` and ``label``. ``attrs["read"]`` says how the file was understood.

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
    return _read(Path(path), given, INTERACTIONS, numeric, form=form)


def read_clicks(path: str | os.PathLike[str], *, numeric: Numeric | None = None, **given: Any) -> pd.DataFrame:
    r"""Read a table of clicks in sessions; what is not given is detected.

    Args:
        path: A file in a format of :func:`read_frame`.
        numeric: For ``"session"``, ``"item"`` and ``"user"``, as in :func:`read_frame`.
        **given: Names or numbers of the columns ``session``, ``item``, ``time``, ``position`` and ``user``; by
            default, columns are found by their names, and without a header, the first three are session, item and time,
            or session, time and item if dates show it. Also ``sep``, ``decimal``, ``header`` and ``max_size``.

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
    return _read(Path(path), given, CLICKS, numeric)


def _read(
    path: Path,
    given: dict[str, Any],
    layout: Layout,
    numeric: Numeric | None,
    request: bool = False,
    form: str | None = None,
) -> pd.DataFrame:
    reading, columns = Reading.take(given)
    if reading.lists:
        _check_lists(path, columns, layout, request)
    if suffix_of(path) == ".parquet":
        return read_parquet(path, columns, layout, reading, numeric, request)
    text = read_text(path, reading)
    if suffix_of(path) in JSON_LINES:
        return read_json_lines(path, text, columns, layout, numeric, request)
    as_trained = layout is INTERACTIONS and not request and (form or "").startswith("lists")
    lists = reading.lists
    if lists is None and as_trained and not any(column is not None for column in columns.values()):
        lists = not reading.header and lists_as_trained(path, head(text), reading, numeric)
    if lists:
        separator = reading.sep or sniff_separator(head(text), layout)[0]
        return read_lists(path, text, separator, numeric, reading.header, "counts" in str(form) if as_trained else None)
    maybe = layout is INTERACTIONS and reading.lists is None and not request
    return read_rows(path, text, columns, layout, reading, numeric, maybe, request)


def _check_lists(path: Path, columns: dict[str, Any], layout: Layout, request: bool) -> None:
    """Raise ArgumentError if a file cannot hold lists of a user and items."""
    expected = "be left out for a file that holds no lists of a user and items"
    if layout is not INTERACTIONS or request:
        raise ArgumentError("lists", expected, "a request" if request else "clicks in sessions")
    if suffix_of(path) in (".parquet", *JSON_LINES):
        raise ArgumentError("lists", expected, f"'{path}'")
    if named := [role for role, column in columns.items() if column is not None]:
        raise ArgumentError("lists", "be left out where columns are given", f"both lists and {', '.join(named)}")


def layout_of(level: str) -> Layout:
    """Return the columns of a file that names what to forget.

    Args:
        level: ``"user"``, ``"item"``, ``"session"``, ``"interaction"`` or ``"click"``.
    """
    pairs = {"interaction": INTERACTIONS, "click": PLACES}.get(level)
    layout = pairs or replace(CLICKS if level == "session" else INTERACTIONS, required=(level,))
    used = (*layout.required, "item") if level == "click" else layout.required
    return replace(layout, roles={role: layout.roles[role] for role in used}, order=layout.required, gaps=())


def read_ids(path: str | os.PathLike[str], level: str, *, tell: bool = False, **given: Any) -> list[Any]:
    """Read the ids or pairs of a forget request from a file; no row is left out.

    Args:
        path: A file in a format of :func:`read_frame`, from whose rows the columns of ``level`` are read, or a file
            with one id per line and an optional header.
        level: ``"user"``, ``"item"``, ``"session"``, ``"interaction"`` or ``"click"``.
        tell: Whether to warn of columns that are not used.
        **given: Names or numbers of columns, and ``sep``, ``header`` and ``max_size``, as in :func:`read_frame`.

    Returns:
        Raw ids as they are written, since the vocabulary of the graph says what they mean; at level ``"interaction"``
        pairs of user and item, at level ``"click"`` pairs of session and position, or with an item column, triples of
        session, position and item.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is malformed, or has only one column although the level needs pairs, or several without a
            header although it needs one.
    """
    path = Path(path)
    layout, pairs = layout_of(level), level in ("interaction", "click")
    reading, columns = Reading.take(given)
    if reading.lists:
        _check_lists(path, columns, layout, request=True)
    if suffix_of(path) not in (".parquet", *JSON_LINES):
        text = read_text(path, reading)
        separator = reading.sep or sniff_separator(head(text), layout, suffix_of(path))[0]
        if pairs and separator is None:
            what = "a user and an item" if level == "interaction" else "a session and a position"
            raise ArgumentError(path, f"hold {what} per line", "one column")
        if not pairs and separator in {None, " "} and all(column is None for column in columns.values()):
            return read_column(path, text, level, layout, reading.header)
    frame = _read(path, given, layout, dict.fromkeys(layout.ids, False), request=True)
    if tell:
        tell_ignored(path, frame.attrs["read"].get("ignored", []))
    found = [frame[role].tolist() for role in layout.roles if role in frame]
    return list(zip(*found)) if pairs else found[0]


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[BinaryIO], object]) -> Path:
    """Write a file atomically: if writing is interrupted, an existing file stays unchanged.

    Only its owner can read and write a new file; an existing file keeps its permissions.

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
        with open(temporary, "wb", opener=private) as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"'{path}' could not be written: {reason} (an earlier file is unchanged)") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Path(path)
