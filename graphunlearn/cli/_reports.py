"""What commands share that judge: where trained models are kept, and the report they write."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from graphunlearn.cli._text import Answer, optional
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.eval import Audit

__all__ = ["Caching", "answer", "command", "written"]

CACHE_VARIABLE = "GRAPHUNLEARN_CACHE"


@dataclass(frozen=True, kw_only=True)
class Caching:
    """Where trained models are kept for later."""

    cache: Annotated[
        Path | None,
        optional("DIR", f"Folder of retrained models (default: {CACHE_VARIABLE}, or ~/.cache/graphunlearn)."),
    ] = None
    no_cache: bool = False
    """Train all models anew, and keep none."""

    def folder(self) -> Path | None:
        """Return the folder, or nothing where none is wanted.

        Raises:
            ValueError: It is no folder, or there are two answers.
        """
        if self.no_cache:
            if self.cache is not None:
                raise ArgumentError("--cache", "be left out with --no-cache", f"'{self.cache}'")
            return None
        folder = self.cache or Path(os.environ.get(CACHE_VARIABLE) or _home() / "graphunlearn")
        if folder.exists() and not folder.is_dir():
            raise ArgumentError("--cache", "be a folder", f"'{folder}', which is something else")
        return folder


def written(result: Audit, out: Path, overwrite: bool) -> Answer:
    """Write the report into a folder of its own and say so."""
    from graphunlearn.runs.folder import replaced

    with replaced(out, overwrite) as folder:
        result.write(folder)
    return answer(result, out)


def answer(result: Audit, out: Path) -> Answer:
    """Say what the report in ``out`` says."""
    from graphunlearn.eval.report.writing import complete

    return Answer(complete(result.report), f"{result}\n\nwrote {out / 'report.json'} and {out / 'report.html'}")


def command() -> str:
    """What was typed, for the report; of absolute paths only the last part, since a report names no folders."""
    words = ["graphunlearn", *sys.argv[1:]]
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
