"""The time of a measurement, its versions and its hardware, without names of users, hosts or folders."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import numpy
import torch
import torch_geometric

from graphunlearn._version import __version__

__all__ = ["environment", "now"]


def environment(device: torch.device | str = "cpu") -> dict[str, str | int | float | None]:
    """Return versions and hardware for a report.

    Args:
        device: The device on which the result was computed.

    Returns:
        Versions, operating system, processor, threads, memory in GB and the device, by name. Host names, user names
        and paths are not included.

    Example:
        >>> environment()["device"]
        'cpu'
    """
    device = torch.device(device)
    return {
        "graphunlearn": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "numpy": numpy.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def now() -> str:
    """Return the date and time in UTC, to the second, as in ``2026-11-28T08:15:07+00:00``."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _cpu_model() -> str | None:
    """Return the processor's product name, or ``None`` if the system does not report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):  # some systems lack sysconf or these names
        return None
