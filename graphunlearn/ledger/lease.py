"""The right to write to a ledger, which one process at a time has and which ends with the process."""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from graphunlearn.errors import ArgumentError

__all__ = ["lease"]

_PATIENCE = 1.0
"""Seconds of waiting after which the caller is told of it."""
_PAUSE = 0.03
"""Mean pause in seconds between two attempts of a process that waits; it is random, so that all have equal chances."""
_held: dict[Path, int] = {}
"""The threads of this process that hold a lease, by the file of the lock."""


@contextmanager
def lease(path: Path, wait: float | None = None) -> Iterator[None]:
    """Hold the right to write to a ledger; another process that asks for it waits.

    The lock is one of the operating system on the file ``.NAME.lock`` beside the ledger, so that it ends with the
    process, however that ends. It does not lock the ledger itself: others can read it meanwhile. Whoever is next holds
    a second lock, ``.NAME.next``, so that a process that asks again and again does not keep the others out.

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
    waiting = _Waiting(path, wait)
    with ExitStack() as stack:
        with waiting.for_lock(file.with_suffix(".next"), _PAUSE):
            stack.enter_context(waiting.for_lock(file, _PAUSE / 10))
        _held[file] = threading.get_ident()
        stack.callback(_held.pop, file)
        yield


class _Waiting:
    """Waits for locks, and knows for how long it has waited."""

    def __init__(self, path: Path, wait: float | None) -> None:
        self.path, self.wait = path, math.inf if wait is None else wait
        self.start, self.told = time.monotonic(), False

    @contextmanager
    def for_lock(self, file: Path, pause: float) -> Iterator[None]:
        """Hold the lock on a file, which is created and in the end deleted, when others have released it."""
        while (descriptor := _locked(file)) is None:
            waited = time.monotonic() - self.start
            if waited >= self.wait:
                hint = "try again when that one is done"
                raise ArgumentError("ledger", "not be in use by another process", f"'{self.path}'", hint)
            if waited > _PATIENCE and not self.told:
                told = f"'{self.path}' is in use by another process; waiting until that one is done"
                warnings.warn(told, stacklevel=2)
                self.told = True
            time.sleep(random.uniform(0.5, 1.5) * pause)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows does not delete an open file: it stays, and is of use again
                file.unlink()
            os.close(descriptor)


def _locked(file: Path) -> int | None:
    """Return the descriptor of a file, locked; ``None`` if another process or thread has locked it."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):  # the last holder has not deleted it since
            return descriptor
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
