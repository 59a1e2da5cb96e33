"""The table that says which row of a model became which, for systems that serve by row numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from graphunlearn.cli._text import listed
from graphunlearn.errors import ArgumentError

TABLES = (".csv", ".parquet")


def check_table(table: Path, folders: Sequence[Path]) -> None:
    """Check the path of the table before any work is done for it.

    Args:
        table: The path.
        folders: Run folders, which must not contain it.

    Raises:
        ArgumentError: The path has another suffix, is a folder, or is in no folder or in a run folder.
    """
    if table.suffix not in TABLES:
        raise ArgumentError("--id-map", f"end with {listed(TABLES, 'or')}", f"'{table}'")
    parent = table.resolve().parent
    if not parent.is_dir():
        raise ArgumentError("--id-map", "be in an existing folder", f"'{table}'")
    if table.is_dir():
        raise ArgumentError("--id-map", "be a file", f"'{table}', which is a folder")
    if any(folder.resolve() in (parent, *parent.parents) for folder in folders) or (parent / "run.json").exists():
        raise ArgumentError("--id-map", "be outside of run folders", f"'{table}'")


def write_table(table: Path, content: bytes) -> None:
    """Write the table, and delete what an interrupted call left of it.

    Args:
        table: The path.
        content: The content.
    """
    from graphunlearn.data import write_atomic

    for left in table.resolve().parent.glob(f".{escape(table.name)}.*.part"):
        if left.name.split(".")[-2].isdecimal():  # the number of a process, as write_atomic names it
            left.unlink()
    write_atomic(table, content)


def table_of(columns: Mapping[str, Sequence[Any]], suffix: str) -> bytes:
    """Return the content of a CSV or Parquet file.

    Args:
        columns: The columns by name.
        suffix: Suffix of the file.
    """
    import pandas as pd

    frame, content = pd.DataFrame(columns), BytesIO()
    if suffix == ".csv":
        frame.to_csv(content, index=False)
    else:
        frame.to_parquet(content, index=False)
    return content.getvalue()
