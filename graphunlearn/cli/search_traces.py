"""``graphunlearn search-traces``: searches files for what should be forgotten."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from graphunlearn.cli._fields import Folder, Printing
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import request_options
from graphunlearn.cli._text import Answer, columns, counted
from graphunlearn.cli._wording import reading

if TYPE_CHECKING:
    from graphunlearn.runs.traces import Trace, Traces

__all__ = ["SearchTraces"]


@dataclass(kw_only=True)
class SearchTraces:
    """Search files and folders for forgotten ids, and for what the original model had learned about them.

    Searched are the names of files and their content: safetensors, NumPy, Parquet, Arrow and SQLite files with their
    unused space, JSON, tables, text, pickles, archives (zip, tar, gz, bz2, xz), and the bytes of all other files. With
    --original, the embeddings of the ids and the SHA-256 fingerprints of the original model and its training graph are
    searched for as well. Neither ids nor content are printed: only files, kinds of places and counts.

    An id is a hit as a whole cell, value or word. A number of fewer than six digits equals figures by chance: it is a
    hit in text, in tables, and in fields of JSON whose name says that they hold ids (user, item_ids, ids). In other
    fields of JSON, in HTML, and in columns of other ids or of figures (rating, time), it is counted as possible, which
    is no hit without --strict. Inside a decimal number or a date it is never one.

    exit status: 0 if nothing was found, 1 if something was found or a file could not be searched, 2 for bad input

    examples:
      graphunlearn search-traces runs exports --ids users.csv
      graphunlearn search-traces runs/c serving --ids users.csv --original runs/a
      graphunlearn search-traces /srv/logs --ids items.csv --level item
    """

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="PATH ...", help_behavior_hint="")]
    """Files and folders."""
    ids: Annotated[Path, arg(metavar="FILE")]
    """File of ids, one per line or with a column of them, as for 'forget'."""
    level: Annotated[str, arg(metavar="{user,item,session}")] = "user"
    """What the ids name."""
    original: Folder = None
    """Run folder from before the request, or one that still holds the original."""
    strict: bool = False
    """Count numbers that may as well be figures as hits."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """Search."""
        from graphunlearn.data.io.files import read_ids
        from graphunlearn.errors import ArgumentError
        from graphunlearn.runs.traces import search_traces
        from graphunlearn.runs.traces.ids import LEVELS

        if self.level not in LEVELS:
            raise ArgumentError("--level", f"be one of {', '.join(LEVELS)}", f"{self.level!r}")
        for path in self.paths or (Path(),):
            if not self.paths or not (path.exists() or path.is_symlink()):
                raise ArgumentError("PATH", "name existing files or folders", f"'{path}'" if self.paths else "none")
        with reading("--ids"):
            ids = read_ids(self.ids, self.level, **request_options(self.file, self.level))
        found = search_traces(self.paths, ids, level=self.level, original=self.original)
        certain = found.found if self.strict else found.certain
        data = asdict(found) | {"clean": not certain and not found.unread}
        return Answer(data, _text(found, certain), 0 if data["clean"] else 1)


def _text(found: Traces, certain: list[Trace]) -> str:
    """Return the result in words."""
    lines = []
    if certain:
        lines.append(columns([("file", "place", "count"), *map(_row, certain)], right=[2]))
    lines += [f"could not be searched: {file}: {reason}" for file, reason in found.unread]
    figures = sum(trace.count for trace in found.possible)
    if figures and len(certain) < len(found.found):
        where = len({trace.file for trace in found.possible})
        lines.append(
            f"{counted(figures, 'short numbers')} in {counted(where, 'files')} may be figures; --strict lists them"
        )
    if found.skipped_rows:
        lines.append(f"{counted(found.skipped_rows, 'constant rows')} of the original could not be searched for")
    total = sum(trace.count for trace in certain)
    summary = f"{counted(found.files, 'files')} searched, {found.bytes:,} bytes: "
    lines.append(summary + (f"{counted(total, 'traces')} found" if certain else "no traces found"))
    return "\n".join(lines)


def _row(trace: Trace) -> tuple[str, str, str]:
    return trace.file, trace.place, f"{trace.count:,}"
