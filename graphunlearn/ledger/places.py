"""Paths of run folders as a ledger records them: relative to its file, so that both can be moved together."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["relative_to_ledger", "run_folder_of"]


def relative_to_ledger(out: Path, file: Path) -> str:
    """Return the path of a run folder relative to a ledger.

    Args:
        out: The folder.
        file: The file of the ledger.

    Returns:
        The path; absolute if the folder is on another drive.

    Example:
        >>> relative_to_ledger(Path("runs/live"), Path("runs/ledger.db"))
        'live'
    """
    try:
        return Path(os.path.relpath(out.absolute(), file.absolute().parent)).as_posix()
    except ValueError:
        return str(out.absolute())


def run_folder_of(path: str, file: Path) -> Path:
    """Return a run folder from the path in an entry; the reverse of :func:`relative_to_ledger`.

    Args:
        path: The path in the entry.
        file: The file of the ledger.
    """
    return Path(os.path.relpath(file.absolute().parent / path))
