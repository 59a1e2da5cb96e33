"""The cache of retrained models, and the reports of ``demo``, ``audit`` and ``bench``."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphunlearn.cli._fields import Folder
from graphunlearn.cli._text import Answer
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.eval import Audit


@dataclass(frozen=True, kw_only=True)
class Caching:
    """Options of the cache of retrained models."""

    cache: Folder = None
    """Folder of retrained models (default: GRAPHUNLEARN_CACHE, or ~/.cache/graphunlearn)."""
    no_cache: bool = False
    """Do not read or write the cache: train all models."""

    def folder(self) -> Path | None:
        """Return the folder of retrained models, or ``None`` with ``--no-cache``.

        Raises:
            ArgumentError: The path is not a folder, or ``--cache`` and ``--no-cache`` are both given.
        """
        if self.no_cache:
            if self.cache is not None:
                raise ArgumentError("--cache", "be left out with --no-cache", f"'{self.cache}'")
            return None
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = self.cache or Path(os.environ.get("GRAPHUNLEARN_CACHE") or home / "graphunlearn")
        if folder.exists() and not folder.is_dir():
            raise ArgumentError("--cache", "be a folder", f"'{folder}', which is not a folder")
        return folder


def check_retrain_seeds(count: int) -> None:
    """Check the number of retrained models, before any work is done.

    Args:
        count: The number.

    Raises:
        ArgumentError: The number is below 2, so that the differences between retrained models cannot be measured.
    """
    if count < 2:
        raise ArgumentError("--retrain-seeds", "be at least 2", count)


def written(result: Audit, out: Path, overwrite: bool) -> Answer:
    """Write a report to a folder that holds nothing else.

    Args:
        result: The audit.
        out: The folder.
        overwrite: Whether an existing folder may be replaced.

    Returns:
        The report as the result of the command.
    """
    from graphunlearn.runs.folder import replaced

    with replaced(out, overwrite) as folder:
        result.write(folder)
    return answer(result, out)


def answer(result: Audit, out: Path) -> Answer:
    """Return a report as the result of the command.

    Args:
        result: The audit.
        out: The folder that the report was written to.
    """
    from graphunlearn.eval.report.writing import complete

    return Answer(complete(result.report), f"{result}\n\nwrote {out / 'report.json'} and {out / 'report.html'}")


def command() -> str:
    """Return the command line for the report, with only the last part of absolute paths, which may name people."""
    words = ["graphunlearn", *sys.argv[1:]]
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)
