"""Search of files and folders for traces of forgotten ids and of the original model."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run
from graphunlearn.runs.traces.arrays import arrays
from graphunlearn.runs.traces.databases import database
from graphunlearn.runs.traces.documents import documents, raw_bytes
from graphunlearn.runs.traces.ids import LEVELS, Hits, WantedIds
from graphunlearn.runs.traces.packed import packed
from graphunlearn.runs.traces.rows import WantedPrints, WantedRows, rows_of
from graphunlearn.runs.traces.sight import Sight
from graphunlearn.runs.traces.tables import tables

__all__ = ["Trace", "Traces", "search_traces"]

SIDES = ("user", "item")


@dataclass(frozen=True)
class Trace:
    """A place in which something that should be forgotten occurs.

    Args:
        file: The file.
        place: The kind of place, such as ``"column user"``; it never contains an id.
        count: Number of occurrences.
        certain: Whether they are traces; ``False`` for short numbers that may as well be figures.
    """

    file: str
    place: str
    count: int
    certain: bool = True


@dataclass
class Traces:
    """The result of a search.

    Args:
        found: All traces.
        unread: Files that could not be searched, with the reason.
        files: Number of files.
        bytes: Their size.
        skipped_rows: Number of rows of the original model that were not searched for, since they are constant.
    """

    found: list[Trace] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    skipped_rows: int = 0

    @property
    def certain(self) -> list[Trace]:
        """The traces without those that may be figures."""
        return [trace for trace in self.found if trace.certain]

    @property
    def possible(self) -> list[Trace]:
        """Places with short numbers that equal an id, but may as well be figures."""
        return [trace for trace in self.found if not trace.certain]

    @property
    def clean(self) -> bool:
        """Whether there is no certain trace, and every file could be searched."""
        return not self.certain and not self.unread


def search_traces(
    paths: Iterable[str | Path] | str | Path,
    ids: Iterable[Any],
    *,
    level: str = "user",
    original: Run | str | Path | None = None,
    progress: bool | None = None,
) -> Traces:
    """Search files and folders for ids, and for what the original model had learned about them.

    Searched are the names of files and their content: safetensors, NumPy, Parquet, Arrow and SQLite files with their
    unused space, JSON, tables, text, pickles, archives (zip, tar, gz, bz2, xz), and the bytes of all other files.

    An id is a hit as a whole cell, value or token, to which no letter, digit or underscore adjoins. A number of fewer
    than six digits equals figures by chance. It is a certain hit in text, in tables and in fields whose name says that
    they hold ids of this level, and a possible one in other fields of JSON, in HTML, and in columns of other ids or of
    figures. Inside a decimal number or a date it is no hit. In raw bytes, ids of fewer than six characters count only
    in runs of at least 16 printable characters.

    With ``original``, the rows of the ids in the embedding tables and in the encoding of the original model are
    searched for in every file, in four floating-point types, and so are the SHA-256 fingerprints of the original model
    and its training graph.

    Args:
        paths: Files and folders.
        ids: Raw ids, such as those of forgotten users.
        level: What the ids name: ``"user"``, ``"item"`` or ``"session"``.
        original: A run that was trained with the ids, or its folder; or the run that unlearning wrote, if it still
            holds the original.
        progress: Whether to show progress; ``None`` shows it on a terminal only.

    Returns:
        All traces. What could not be read is named there, and counts as not clean.

    Raises:
        ArgumentError: A path does not exist, there are no ids, the level is unknown, or the original was
            trained with none of the ids.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "log.txt").write_text("forgot u3 of u31")
        >>> [(trace.place, trace.count) for trace in search_traces(folder, ["u3"]).found]
        [('text', 1)]
    """
    from tqdm import tqdm

    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if level not in LEVELS:
        raise ArgumentError("level", f"be one of {', '.join(LEVELS)}", f"{level!r}")
    for path in given:
        if not path.exists() and not path.is_symlink():
            raise ArgumentError("paths", "hold existing files or folders", f"'{path}'")
    wanted = WantedIds(ids, level)
    if not wanted.ids:
        raise ArgumentError("ids", "hold at least one id", "none")
    rows, prints = _of_original(original, level, wanted)
    sight = Sight(wanted, rows, prints)
    result = Traces(skipped_rows=rows.skipped)
    listed = list(_files(given, result))
    total = sum(size or 0 for _, _, size in listed)
    with tqdm(total=total, desc="search", unit="B", unit_scale=True, leave=False, disable=_off(progress)) as bar:
        for path, name, size in listed:
            sight.file, sight.step = str(path), bar.update
            words = wanted.in_text(name.replace("_", " "), prose=True)
            sight.see("file name", Hits(wanted.in_text(name, prose=True) | words))
            if size is not None:
                _search(path, sight)
                result.files, result.bytes = result.files + 1, result.bytes + size
    for (file, place), hits in sight.found.items():
        kinds = [(True, hits["certain"]), (False, hits["possible"])]
        result.found += [Trace(file, place, count, certain) for certain, count in kinds if count]
    result.unread += sight.unread
    return result


def _off(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _files(paths: Iterable[Path], result: Traces) -> Iterator[tuple[Path, str, int | None]]:
    """Yield every file below some paths with its name below them and its size; name what cannot be walked.

    The size is ``None`` where there is only a name to search: empty folders, and further names of a file.
    """

    def refused(error: OSError) -> None:
        result.unread.append((str(error.filename), error.strerror or str(error)))

    seen: set[tuple[int, int]] = set()
    for root in paths:
        walked: Iterable[tuple[Path, str]] = [(root, root.name)]
        if root.is_dir():
            walked = (
                (Path(top, name), os.path.relpath(Path(top, name), root))
                for top, folders, names in os.walk(root, onerror=refused)
                for name in sorted([*names, *(folder for folder in folders if _is_end(Path(top, folder)))])
            )
        for path, name in walked:
            try:
                about = path.stat()
            except OSError as error:
                result.unread.append((str(path), error.strerror or str(error)))
                continue
            if stat.S_ISDIR(about.st_mode) and not path.is_symlink():
                yield path, name, None
            elif not stat.S_ISREG(about.st_mode):
                what = "a link to a folder, which was not followed" if path.is_dir() else "no regular file"
                result.unread.append((str(path), what))
            else:
                yield path, name, None if (about.st_dev, about.st_ino) in seen else about.st_size
                seen.add((about.st_dev, about.st_ino))


def _is_end(folder: Path) -> bool:
    """Return whether a folder is not walked into, or has nothing in it."""
    if folder.is_symlink():
        return True
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False  # the walk names it


def _search(path: Path, sight: Sight) -> None:
    """Search one file."""
    try:
        with path.open("rb") as stream:
            content(stream, path.name, "", sight, path)
    except (OSError, EOFError) as error:
        sight.refuse(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def content(stream: BinaryIO, name: str, inside: str, sight: Sight, path: Path | None = None) -> None:
    """Search the content of a file, or of a member of an archive.

    Args:
        stream: The content, at its beginning.
        name: Name of the file or the member.
        inside: Where the member is; empty for a file.
        sight: What to search for, and what was found.
        path: The file, if the content is a file of its own.
    """
    watched = sight.watch(stream, inside, counted=path is not None)
    head = watched.peek(512)
    try:
        for reader in (packed, arrays, tables, database, documents):
            if reader(watched, head, name, inside, sight, path, content):
                break
    except (OSError, EOFError):
        raise
    except Exception as error:  # whatever a broken file makes a library raise
        sight.refuse(f"broken: {str(error).partition(chr(10))[0][:80] or type(error).__name__}", inside)
        raw_bytes(watched, inside, sight)
    watched.drain()


def _of_original(original: Run | str | Path | None, level: str, wanted: WantedIds) -> tuple[WantedRows, WantedPrints]:
    """Return what models that were trained with the ids have learned about them, and the fingerprints of these models.

    They are the model of the run and, if it resulted from forgetting, the one before that.
    """
    if original is None:
        return WantedRows([]), WantedPrints([])
    run = original if isinstance(original, Run) else Run.load(Path(original))
    models: list[tuple[nn.Module, Any]] = [(run.model, run.train)]
    if run.forgotten is not None:
        models.append((run.forgotten.original, run.forgotten.graph))
        if run.forgotten.result.original is not None:
            models.append((run.forgotten.result.original, run.forgotten.graph))
    if level not in (levels := [name for name in run.train.levels if name in LEVELS]):
        raise ArgumentError("level", f"be one of the original, {', '.join(levels)}", f"{level!r}")
    tables, prints = [], []
    for model, graph in models:
        nodes = graph.vocabulary(level).lookup(wanted.ids).to(graph.device)
        learned = graph.pairs[SIDES.index(level)] if graph.kind == "interactions" else graph.ends(level)
        nodes = nodes[torch.isin(nodes, learned) & (nodes >= 0)]
        if len(nodes):
            tables += rows_of(model, graph, level, nodes)
            prints += [fingerprint(model), graph.fingerprint()]
    if not prints:
        raise ArgumentError("original", f"be a run that was trained with some of the {level}s", "one without them")
    return WantedRows(tables), WantedPrints(prints)
