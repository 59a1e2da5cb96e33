"""``graphunlearn purge``: deletes what would undo a forgotten request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

from graphunlearn.cli._fields import File, Printing, RunFolder, several
from graphunlearn.cli._ledgers import check_no_key, existing
from graphunlearn.cli._reports import Caching
from graphunlearn.cli._text import Answer, columns, counted, note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.ledger import Ledger
    from graphunlearn.runs.purging import PurgePlan
    from graphunlearn.runs.run import Run

__all__ = ["Purge"]


@dataclass(kw_only=True)
class Purge:
    """Delete the originals and all else that would undo a forgotten request.

    RUN is the folder that stays, as 'forget' or 'erase' writes it. It is verified first. Then go, in this order: the
    cached models that were trained on earlier data, the earlier runs of --also, leftovers of interrupted commands, and
    in RUN hashes and figures of the original data (in preparations, run.json and unlearning.json), the request, and the
    original model and data. Afterwards, 'forget', 'recommend' and 'evaluate' go on working on RUN; 'audit' does not,
    since it needs the original. If the command is interrupted, the same command finishes the work.

    Not deleted are data files, exports, lists, reports in other folders, backups, logs and whatever other systems hold:
    'graphunlearn search-traces' finds what is left of them. Ids of forgotten users and items stay in RUN until 'erase'.

    what must be deleted where:
      here               run folders (RUN, --also), cached models (--cache), interrupted work beside the runs
      by hand            data and request files, exports, lists of 'recommend', notebooks with their output
      on this machine    shell history, logs, temporary files, and free space of disks without encryption
      elsewhere          backups and snapshots, indices and caches of what serves, copies that others have
      with the ledger    its key, to make the digests useless; a pending request, by finishing or dropping it

    examples:
      graphunlearn purge runs/b --dry-run
      graphunlearn purge runs/c --also runs/b runs/a --yes
      graphunlearn purge runs/c --also runs/b runs/a --ledger runs/ledger.db --yes
    """

    source: RunFolder
    """Run folder that stays."""
    also: Annotated[tuple[tuple[Path, ...], ...], UseAppendAction, several("RUN ...")] = ()
    """Earlier run folders of the same lineage, which are deleted as a whole."""
    ledger: File = None
    """Ledger of the lineage, which must have no pending request; it shows as well which runs are earlier ones."""
    key: File = None
    """Key file of the ledger, if it is not in its default place ('graphunlearn ledger --help')."""
    dry_run: bool = False
    """Only list what would be deleted."""
    yes: bool = False
    """Delete; without it, what would be deleted is listed and the command ends with an error."""
    caching: Annotated[Caching, arg(name="")] = field(default_factory=Caching)
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """Verify, list and delete."""
        from graphunlearn.runs.purging import plan_purge
        from graphunlearn.runs.run import Run

        if self.yes and self.dry_run:
            raise ArgumentError("--yes", "be left out with --dry-run", "both")
        earlier = None
        if self.ledger is None:
            check_no_key(self.key)
        else:
            ledger = existing(self.ledger, self.key)
            if ledger.pending is not None:
                hint = "finish it with 'ledger resume', or discard it with 'ledger drop'"
                got = f"'{self.ledger}' with one, which holds ids"
                raise ArgumentError("ledger", "have no pending request", got, hint)
            earlier = _earlier_in(ledger, Run.load(self.source))
        plan = plan_purge(self.source, list(chain(*self.also)), is_earlier=earlier, cached=self._cached)
        data = {
            "run": str(self.source),
            "removals": [{"path": str(r.path), "what": r.what, "why": r.why} for r in plan.removals],
            "gone": [str(path) for path in plan.gone],
            "notes": plan.notes,
            "deleted": False,
        }
        if not plan.removals:
            return Answer(data, "\n".join(["nothing to delete", *_remarks(plan)]))
        if not self.yes and not self.dry_run:
            for line in _listed(plan):
                note(line)
            total = counted(len(plan.removals), "entries")
            raise ArgumentError("--yes", f"be given to delete or rewrite these {total}", "none")
        if self.dry_run:
            return Answer(data, "\n".join(_listed(plan)))
        plan.carry_out()
        after = f"next: graphunlearn search-traces {self.source} --ids FILE, and the files that no run holds"
        lines = [*_listed(plan), f"deleted; {self.source} can be loaded and holds no original", after]
        return Answer(data | {"deleted": True}, "\n".join(lines))

    def _cached(self, runs: list[Run]) -> list[Path]:
        """Return the cached models of a lineage."""
        from graphunlearn.eval.cache import earlier_models

        cache = self.caching.folder()
        if cache is None:
            return []
        models: list[Any] = [run.model for run in runs]
        models += [run.forgotten.original for run in runs if run.forgotten is not None]
        return earlier_models(cache, models, runs[0].train)


def _earlier_in(ledger: Ledger, run: Run) -> Callable[[Run], bool]:
    """Return a function that says whether a run is an earlier one in a ledger.

    Args:
        ledger: The ledger.
        run: The run that stays.

    Raises:
        ArgumentError: The ledger does not contain the run.
    """
    now, entries = ledger.fingerprints(run.model, run.train), ledger.entries()
    places = [place for place, entry in enumerate(entries) if (entry.model_after, entry.graph_after) == now]
    if not places:
        raise ArgumentError("--ledger", "have an entry of the run", f"'{ledger.path}' without one")
    known = set()
    for entry in entries[: places[-1] + 1]:
        known |= {(entry.model_before, entry.graph_before), (entry.model_after, entry.graph_after)}
    return lambda other: ledger.fingerprints(other.model, other.train) in known - {now}


def _listed(plan: PurgePlan) -> list[str]:
    rows = [(removal.what, str(removal.path), removal.why) for removal in plan.removals]
    return [columns(rows), *_remarks(plan)]


def _remarks(plan: PurgePlan) -> list[str]:
    return [f"{path} no longer exists" for path in plan.gone] + plan.notes
