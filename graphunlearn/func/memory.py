"""Return of freed memory to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["trim"]


@cache
def _allocator() -> Any:
    """Return the function of glibc that returns freed memory; ``None`` elsewhere."""
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None


def trim() -> None:
    """Return freed memory to the system (glibc only; no effect elsewhere).

    The allocator keeps what is freed in pieces of less than about 32 MB for later requests, and after much work in
    such pieces it holds some hundred megabytes that are not in use.
    """
    if (returned := _allocator()) is not None:
        returned(0)
