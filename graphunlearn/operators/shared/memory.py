"""How much memory a piece of work takes."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

__all__ = ["peak_memory"]


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Any]:
    """Yield a function that gives the highest memory used inside, in bytes beyond what was in use at the start.

    On CUDA the allocator counts; on a CPU a thread samples the resident set a few hundred times a second, which misses
    peaks shorter than that.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: max(0, torch.cuda.max_memory_allocated(device) - before)
        return
    _trim()
    stop, before = threading.Event(), _resident()
    highest = before

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.003):
            highest = max(highest, _resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(highest, before) - before
    finally:
        highest = max(highest, _resident())
        stop.set()
        thread.join()


def _trim() -> None:
    """Give freed memory back to the system, or reusing it would count as using none (glibc; elsewhere nothing)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    """The process's resident memory in bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
