"""The right to write to a ledger, which one process at a time has and which ends with the process."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphunlearn.errors import ArgumentError

__all__ = ["lease"]

_PATIENCE = 1.0
"""Seconds of waiting after which the caller is told of it."""
_POLL = (0.005, 0.1)
"""Shortest and longest pause in seconds between two attempts."""
_held: dict[Path, int] = {}
"""The threads of this process that hold a lease, by the file of the lock."""


@contextmanager
def lease(path: Path, wait: float | None = None) -> Iterator[None]:
    """Hold the right to write to a ledger; another process that asks for it waits.

    The lock is one of the operating system on the file ``.NAME.lock`` beside the ledger, so that it ends with the
    process, however that ends. It does not lock the ledger itself: others can read it meanwhile.

    Args:
        path: The ledger.
        wait: Seconds to wait for another process; ``None`` waits until that one is done.

    Raises:
        ArgumentError: Another process holds the lease and ``wait`` is over, or this thread holds it already, through
            another object.
        OSError: The file of the lock cannot be written.
    """
    file = path.absolute().with_name(f".{path.name}.lock")
    if _held.get(file) == threading.get_ident():
        got = f"'{path}', which an enclosing call writes to"
        raise ArgumentError("ledger", "be written to through one object at a time", got)
    descriptor = _waited(path, file, wait)
    _held[file] = threading.get_ident()
    try:
        yield
    finally:
        del _held[file]
        with suppress(OSError):  # Windows does not delete an open file: it stays, and is of use again
            file.unlink()
        os.close(descriptor)


def _waited(path: Path, file: Path, wait: float | None) -> int:
    """Return the descriptor of the locked file, when other processes have released it."""
    start, pause, told = time.monotonic(), _POLL[0], False
    while True:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if _locked(descriptor) and _is_still(descriptor, file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        waited = time.monotonic() - start
        if wait is not None and waited >= wait:
            hint = "try again when that one is done"
            raise ArgumentError("ledger", "not be in use by another process", f"'{path}'", hint)
        if waited > _PATIENCE and not told:
            warnings.warn(f"'{path}' is in use by another process; waiting until that one is done", stacklevel=5)
            told = True
        time.sleep(pause)
        pause = min(2 * pause, _POLL[1])


def _locked(descriptor: int) -> bool:
    """Lock an open file, unless another process or thread holds the lock; return whether it was locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_still(descriptor: int, file: Path) -> bool:
    """Whether the locked file is still the one of that name, which the last holder may have deleted."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
