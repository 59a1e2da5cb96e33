"""``graphunlearn changed``: lists the users and items whose best items differ before and after forgetting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from graphunlearn.cli._fields import Folder, RunFolder, Running
from graphunlearn.cli._text import Answer, columns, counted, device_of
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

__all__ = ["Changed"]

FILES = frozenset(f"{side}.{suffix}" for side in ("users", "items") for suffix in ("csv", "parquet"))
"""Names of all files of a folder; a folder with any other file is never replaced."""


@dataclass(kw_only=True)
class Changed:
    """List the users and items whose best items differ before and after forgetting, to refresh caches and indices.

    DIR contains a row per user in users.csv: id, status and places, the number of places of the list with another item.
    The status is changed, or removed for users who are forgotten and get no list any more. In items.csv, places are
    those of the list of most similar items, and entered and left count the lists of users that the item is new in or
    gone from. The files name who was forgotten: only their owner can read them, and they must be deleted after use.
    Users get lists as from 'graphunlearn recommend'. Of session models, only items are compared.

    examples:
      graphunlearn changed runs/b
      graphunlearn changed runs/b --k 50 --out out/changed
      graphunlearn changed runs/b --out out/changed --format parquet --overwrite
    """

    source: RunFolder
    """Run folder, as 'forget' writes it, with the original still in it."""
    k: int = 20
    """Number of items per list."""
    out: Folder = None
    """Folder to write; without it, only counts are printed."""
    format: Literal["csv", "parquet"] = "csv"
    """Format of the files, csv or parquet."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Compare, and write or count."""
        from graphunlearn.data.io.folders import check_folder, replaced_folder
        from graphunlearn.runs.run import Run
        from graphunlearn.serving.changed import changed_lists
        from graphunlearn.serving.embeddings import needed

        if self.out is not None:
            check_folder(self.out, FILES, overwrite=self.running.overwrite, argument="out")
        if self.format == "parquet":
            needed("pyarrow", "parquet")
        run = Run.load(self.source, device_of(self.running.device))
        if run.forgotten is None:
            expected = "be a folder that 'forget' wrote, with the original still in it"
            raise ArgumentError("run", expected, f"'{self.source}'")
        found = changed_lists(run.forgotten.original, run.forgotten.graph, run.model, run.train, self.k)
        counts = found.counts()
        data = {"run": str(self.source), "k": found.k, "out": None if self.out is None else str(self.out)} | counts
        rows = [[side, *(f"{count:,}" for count in told.values())] for side, told in counts.items()]
        text = columns([["", *next(iter(counts.values()))], *rows], [1, 2, 3, 4])
        if self.out is None:
            return Answer(data, text)
        lists = {"users": found.users, "items": found.items}
        with replaced_folder(self.out) as new:
            for side, frame in lists.items():
                if frame is not None:
                    self._write(frame, new / f"{side}.{self.format}")
        lines = [
            f"wrote {self.out / f'{side}.{self.format}'}: {counted(len(frame), side)} to refresh"
            for side, frame in lists.items()
            if frame is not None
        ]
        return Answer(data, "\n".join([text, *lines]))

    def _write(self, frame: DataFrame, path: Path) -> None:
        """Write a table that only its owner can read."""
        from graphunlearn.serving.embeddings import private

        private(path)
        if self.format == "csv":
            frame.to_csv(path, index=False, lineterminator="\n")
        else:
            frame.to_parquet(path, index=False)
