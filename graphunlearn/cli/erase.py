"""``graphunlearn erase``: a run folder without the rows and ids of those who were forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from graphunlearn.cli._fields import File, Out, RunFolder, Running
from graphunlearn.cli._id_map import check_table, table_of, write_table
from graphunlearn.cli._ledgers import check_no_key, existing, finished
from graphunlearn.cli._methods import preparable
from graphunlearn.cli._requests import first_option
from graphunlearn.cli._text import Answer, counted, device_of, listed
from graphunlearn.cli.prepare import file_of
from graphunlearn.errors import ArgumentError, ExistsError

if TYPE_CHECKING:
    from graphunlearn.ledger import Ledger
    from graphunlearn.runs.erasing import Erased
    from graphunlearn.runs.run import Run

__all__ = ["Erase"]

REPLACES = "'--overwrite' replaces it"


@dataclass(kw_only=True)
class Erase:
    """Write a run folder without the rows, ids and numbers of the users and items that were forgotten.

    'forget' deletes interactions and corrects the model; forgotten users and items keep their rows and ids, and in a
    run folder they are the ones without interactions. This command removes the users and items that the request of RUN,
    or an earlier request in the series, left without training interactions (or clicks): from the model, the ids, and
    the training, validation and test data. For everyone who stays, the model is the same. Users and items that never
    had training interactions stay, unless the request names them. The new folder contains neither the original model
    and data nor the request, so it cannot be audited. A preparation is not copied, because it was learned from the
    earlier data.

    The run folders before it, exports and backups still hold what was forgotten. Where ids are numbers without gaps, a
    gap tells which one is missing.

    examples:
      graphunlearn erase runs/b --out runs/clean
      graphunlearn erase runs/b --out runs/clean --ledger runs/ledger.db
      graphunlearn erase runs/b --out runs/clean --id-map rows.csv    # type,id,old_row,new_row of those who stay
    """

    source: RunFolder
    """Run folder, as 'forget' writes it."""
    out: Out
    """Folder to write; another one than RUN."""
    ledger: File = None
    """Ledger whose newest model is that of RUN; an entry without ids is added, and requests go on from the new run."""
    key: File = None
    """Key file of the ledger (default: a file in GRAPHUNLEARN_KEYS, or ~/.config/graphunlearn)."""
    id_map: File = None
    """Table to write, .csv or .parquet: for everyone who stays, the raw id, the row before and the row now."""
    inactive: bool = False
    """Remove all users and items without training interactions, not only those of requests: for a RUN whose
    request.json has been deleted, or that continues from such a one."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Erase, and write the folder."""
        from graphunlearn.data.io.folders import restore
        from graphunlearn.runs.folder import check_out
        from graphunlearn.runs.run import Run

        if self.source.resolve() in (self.out.resolve(), *self.out.resolve().parents):
            where = "" if self.out.resolve() == self.source.resolve() else ", which is in it"
            raise ArgumentError("--out", "be another folder than the run", f"'{self.out}'{where}")
        if self.id_map is not None:
            check_table(self.id_map, (self.source, self.out))
        check_out(self.out, overwrite=True)  # whether it may be replaced is asked below: it may be finished already
        if self.ledger is None:
            check_no_key(self.key)
            restore(self.out)
            return self._erase(Run.load(self.source, device_of(self.running.device)), None)
        with existing(self.ledger, self.key) as ledger:
            finished(ledger)
            restore(self.out)
            return self._erase(Run.load(self.source, device_of(self.running.device)), ledger)

    def _erase(self, before: Run, ledger: Ledger | None) -> Answer:
        """Erase, write the table and the folder, and add the entry."""
        from graphunlearn.data.io.folders import clear_leftovers
        from graphunlearn.ledger.places import relative_to_ledger
        from graphunlearn.runs.erasing import erase, id_map
        from graphunlearn.runs.folder import check_out

        try:
            erased = erase(before, inactive=self.inactive)
        except ArgumentError as error:
            if error.argument != "run":
                raise
            hint = "--inactive removes all users and items without training events"
            raise ArgumentError("run", error.expected, f"'{self.source}'", hint) from None
        small = erased.compacted
        written = _is_written(self.out, erased.run)
        if not written:
            check_out(self.out, self.running.overwrite)
        table = b"" if self.id_map is None else table_of(id_map(small), self.id_map.suffix)
        if self.id_map is not None and not self.running.overwrite and _other(self.id_map, table):
            raise ExistsError("--id-map", "be a new file", f"'{self.id_map}', which exists", REPLACES)

        def save() -> None:
            clear_leftovers(self.out)
            if not written:
                erased.run.save(self.out, self.running.overwrite)
            if self.id_map is not None:  # after the folder, since the rows of the earlier one are served until then
                write_table(self.id_map, table)

        entry = None
        if ledger is None:
            save()
        else:
            place = relative_to_ledger(self.out, ledger.path)
            entry = ledger.record_erased(before.model, before.train, small, save=save, out=place)
        return self._answer(erased, None if entry is None else entry.number)

    def _answer(self, erased: Erased, entry: int | None) -> Answer:
        """Return the result of the command."""
        train = erased.run.train
        prepared = [name for name in preparable() if (self.source / file_of(name)).exists()]
        gone = {f"{name}s": count for name, count in erased.compacted.gone.items()}
        data: dict[str, Any] = {
            "out": str(self.out),
            "erased": gone,
            "held_out": erased.held_out,
            "inactive": {f"{name}s": count for name, count in erased.inactive.items()},
        }
        data |= {"id_map": None if self.id_map is None else str(self.id_map), "left_out": [*map(file_of, prepared)]}
        lines = [f"erased {_counts(gone)}; for everyone who stays, the model is the same"]
        dropped = {f"{name} {train.unit}s": count for name, count in erased.held_out.items() if count}
        if dropped:
            lines.append(f"{_counts(dropped)} left with them")
        idle = {f"{name}s": count for name, count in erased.inactive.items() if count}
        if idle:
            stay, them = ("stays", "it") if sum(idle.values()) == 1 else ("stay", "them")
            none = f"no known request emptied {them}"
            lines.append(f"{_counts(idle)} without training {train.unit}s {stay}: {none}")
        for name in prepared:
            again = f"graphunlearn prepare {self.out} --method {name}"
            lines.append(f"{file_of(name)} is left out, because it was learned from the earlier data: {again}")
        lines += [f"wrote {self.out}", *([] if self.id_map is None else [f"wrote {self.id_map}"])]
        lines += [] if entry is None else [f"entry {entry} of {self.ledger}; the drift goes on"]
        lines.append(f"{self.source}, the runs before it, exports and backups still hold what was forgotten")
        lines.append(
            f"next: graphunlearn forget {self.out} {first_option(train)} --out {self.out.with_name('forgotten')}"
        )
        return Answer(data | ({} if entry is None else {"entry": entry}), "\n".join(lines))


def _other(path: Path, content: bytes) -> bool:
    """Return whether a file holds anything else than what an interrupted call has written."""
    return path.exists() and path.read_bytes() != content


def _is_written(out: Path, run: Run) -> bool:
    """Return whether a folder holds a run already, because an earlier call wrote it."""
    from graphunlearn.nn.identity import fingerprint
    from graphunlearn.runs.run import PARTS, Run

    if not (out / "run.json").is_file():
        return False
    try:
        found = Run.load(out)
    except ValueError:
        return False
    same = all(getattr(found, name).fingerprint() == getattr(run, name).fingerprint() for name in PARTS)
    return (
        same
        and found.forgotten is None
        and found.about == run.about
        and fingerprint(found.model) == fingerprint(run.model)
    )


def _counts(counts: Mapping[str, int]) -> str:
    return listed([counted(count, name) for name, count in counts.items()], "and")
