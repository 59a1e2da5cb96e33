"""Atomic writing of folders."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from graphunlearn.errors import ArgumentError, ExistsError

__all__ = ["check_folder", "clear_leftovers", "private", "replaced_folder", "restore"]


def private(path: str, flags: int) -> int:
    """Open a file that only its owner can read and write, if it is new; an ``opener`` of :func:`open`.

    Args:
        path: The file.
        flags: How to open it.

    Returns:
        The descriptor of the file.
    """
    return os.open(path, flags, 0o600)


def check_folder(out: Path, written: Collection[str], *, overwrite: bool, argument: str = "folder") -> None:
    """Check that a folder may be written, before any work is done for it.

    Args:
        out: The folder.
        written: Names of all files that such a folder may contain. A folder with any other file is never replaced.
        overwrite: Whether an existing folder may be replaced.
        argument: Name of the argument in error messages.

    Raises:
        ExistsError: The folder exists and must not be replaced.
        ValueError: The folder contains other files, or it cannot be created.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ArgumentError(argument, "be a folder", f"'{out}', which is a file or a symbolic link")
    if out.exists():
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in written or entry.is_dir())
        if foreign:
            got = f"'{out}', which holds '{foreign[0]}'"
            raise ArgumentError(argument, "be a new folder or one that graphunlearn wrote", got)
        if not overwrite:
            raise ExistsError(argument, "be a new folder", f"'{out}', which exists", "overwrite=True replaces it")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise ArgumentError(argument, "be in a folder that can be written to", f"'{out}'")


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``out`` if the block succeeds, and is deleted if it fails.

    An existing ``out`` is kept until the new folder is on the disk, and it is restored if replacing it fails. Where the
    operating system can exchange two folders, as Linux does, there is a folder of that name at every moment. Only its
    owner can read and write the new folder and its files; one that replaces another keeps the permissions of that one.

    Args:
        out: The folder to write; :func:`check_folder` checks whether it may be replaced.

    Raises:
        OSError: The folder could not be written, for example on a full disk.

    Example:
        >>> import pathlib, tempfile
        >>> out = pathlib.Path(tempfile.mkdtemp(), "a")
        >>> with replaced_folder(out) as folder:
        ...     _ = (folder / "file").write_text("all of it")
        >>> (out / "file").read_text()
        'all of it'
    """
    target = out.absolute()
    token = secrets.token_hex(4)
    new, old = (target.with_name(f".{target.name}.{token}.{role}") for role in ("new", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir(mode=0o700)
        yield new
        _restrict(new, target)
        _flush([*new.iterdir(), new])
        if not (target.exists() and _exchanged(new, target)):
            if target.exists():
                target.rename(old)
            new.rename(target)
        with suppress(OSError):  # the new folder is already in place
            _flush([target.parent])
    except OSError as error:
        kept = " (the earlier one is unchanged)" if old.exists() or target.exists() else ""
        raise OSError(f"'{out}' could not be written: {_reason(error)}{kept}") from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(out: Path) -> None:
    """Restore a folder whose replacement was interrupted, and delete what :func:`replaced_folder` left beside it.

    Args:
        out: The folder; no other process may be writing it.

    Example:
        >>> import pathlib, tempfile
        >>> out = pathlib.Path(tempfile.mkdtemp(), "a")
        >>> out.with_name(".a.0123abcd.old").mkdir()
        >>> clear_leftovers(out)
        >>> [path.name for path in out.parent.iterdir()]
        ['a']
    """
    restore(out)
    for role in ("old", "new"):
        for left in _left(out, role):
            shutil.rmtree(left)


def restore(out: Path) -> None:
    """Restore a folder whose replacement was interrupted; nothing is deleted.

    Args:
        out: The folder; no other process may be writing it.
    """
    if not out.exists():
        for left in _left(out, "old")[:1]:
            left.rename(out)


def _left(out: Path, role: str) -> list[Path]:
    """Return the temporary folders of a role that :func:`replaced_folder` has left, as it names them."""
    return sorted(out.absolute().parent.glob(f".{escape(out.name)}.{'[0-9a-f]' * 8}.{role}"))


def _exchanged(one: Path, two: Path) -> bool:
    """Exchange two folders in one step; return false where that is not possible."""
    if sys.platform != "linux":
        return False
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, both = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return bool(exchange(here, os.fsencode(one), here, os.fsencode(two), both) == 0)


def _restrict(new: Path, target: Path) -> None:
    """Give a folder and its files the permissions of the folder that it replaces, or else those of its owner alone."""
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o700
    for entry in new.rglob("*"):
        entry.chmod(mode if entry.is_dir() else mode & 0o666)
    new.chmod(mode)


def _reason(error: BaseException) -> str:
    """Return the message of the innermost cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "strerror", None) or str(error)


def _flush(paths: Iterable[Path]) -> None:
    """Wait until files and folders are on the disk, not only in memory."""
    for path in paths:
        if path.is_dir() and os.name == "nt":
            continue  # folders cannot be opened there
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
