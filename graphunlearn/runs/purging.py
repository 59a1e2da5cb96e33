"""Deletion of all that would undo a request: originals, requests, hashes, earlier runs and leftovers."""

from __future__ import annotations

import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from glob import escape
from pathlib import Path
from typing import Any

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.sealed import read_json, sealed_json
from graphunlearn.data.renumbering import canonical_order, node_types, with_sorted_events
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import registry
from graphunlearn.operators.compacting import Compacted
from graphunlearn.operators.shared.preparation import Preparation
from graphunlearn.runs.folder import WRITTEN
from graphunlearn.runs.run import Run

__all__ = ["PurgePlan", "Removal", "plan_purge"]

ORIGINALS = ("request.json", "own_original.safetensors", "original.safetensors", "original_train.safetensors")
"""Files of a run folder that hold what was forgotten, in the order in which they are deleted."""
KEPT = ("method", "seconds", "cpu_seconds", "prepare_seconds", "peak_memory", "options", "purged")
"""Entries of unlearning.json that stay: none depends on what was forgotten but the times."""
COURSE = "fit"
"""Entry of ``about`` in run.json with figures of the training on the original data, which confirm guesses of them."""


@dataclass(frozen=True)
class Removal:
    """A file or folder that a purge deletes, or a file that it rewrites.

    Args:
        path: The file or folder.
        what: ``"delete"`` or ``"rewrite"``.
        why: What it holds.
        content: The new content of a file that is rewritten.
    """

    path: Path
    what: str
    why: str
    content: bytes | None = field(default=None, repr=False)

    def carry_out(self) -> None:
        """Delete or rewrite it; what is gone already is no error.

        Raises:
            OSError: The file system refuses.
        """
        if self.content is not None:
            write_atomic(self.path, self.content)
        elif self.path.is_dir() and not self.path.is_symlink():
            aside = self.path
            if not self.path.name.startswith("."):  # a folder that is half deleted must not look like a run
                aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.old")
                self.path.rename(aside)
            shutil.rmtree(aside)
        else:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class PurgePlan:
    """All that a purge of a run removes, in the order in which it does.

    The order is such that an interruption at any point leaves a run folder that can be loaded, and that the same purge
    finishes: earlier runs go before what shows that they belong to the run, and the entries of unlearning.json by which
    a run is audited go before the files that they tell of.

    Args:
        run: The run folder.
        removals: What goes.
        gone: Folders to remove that no longer exist.
        notes: Sentences about what stays.
    """

    run: Path
    removals: list[Removal]
    gone: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def carry_out(self) -> None:
        """Remove everything, and check that the run can still be loaded.

        Raises:
            ArgumentError: The run folder was changed meanwhile.
            OSError: The file system refuses.
        """
        for removal in self.removals:
            removal.carry_out()
        for folder in {removal.path.absolute().parent for removal in self.removals}:
            if os.name != "nt" and folder.is_dir():
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        _load(self.run)


def plan_purge(
    run: str | Path,
    also: Sequence[str | Path] = (),
    *,
    is_earlier: Callable[[Run], bool] | None = None,
    cached: Callable[[list[Run]], list[Path]] | None = None,
) -> PurgePlan:
    """Verify a run that resulted from forgetting, and list all that would undo the request.

    In the run folder these are the original model and data, the request, what unlearning.json and run.json tell of
    them, and hashes of them in preparations. Beside it, these are leftovers of interrupted commands. Earlier runs are
    removed as a whole.

    Args:
        run: The run folder that stays.
        also: Earlier run folders of the same lineage. Folders that no longer exist are ignored.
        is_earlier: Function that says whether a run is an earlier one of the lineage, such as one that a ledger knows;
            by default, only runs that the originals lead to are.
        cached: Function that returns the cached models of the lineage; it receives the run and all earlier ones.

    Returns:
        The plan; its method ``carry_out`` deletes.

    Raises:
        ArgumentError: ``run`` is broken, is no result of forgetting, or still holds what its request names; or a folder
            of ``also`` is no run folder, holds other files, or is of another lineage.

    Example:
        >>> import pathlib, tempfile, graphunlearn as gu
        >>> from graphunlearn.runs import Forgotten, ModelSpec, Run
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> spec = ModelSpec("mf", 4, 1)
        >>> model = spec.build(graph)
        >>> result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> forgotten = Forgotten(model, graph, result, {})
        >>> parts = (result.graph, result.graph, result.graph, gu.BPR(), gu.nn.FitSettings())
        >>> run = Run(spec, result.model, *parts, forgotten=forgotten)
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "a")
        >>> run.save(folder)
        >>> plan = plan_purge(folder)
        >>> [removal.path.name for removal in plan.removals if removal.what == "delete"]
        ['request.json', 'original.safetensors', 'original_train.safetensors']
        >>> plan.carry_out()
        >>> Run.load(folder).forgotten is None
        True
    """
    folder, others = _named(run), list(dict.fromkeys(map(_named, also)))
    _check_place(folder, "run")
    successor = _load(folder)
    facts = _facts(folder)
    if facts is None and not others and not successor.about.get("erased"):
        raise ArgumentError("run", "be a folder that 'forget' or 'erase' wrote", f"'{folder}'")
    notes = _verified(folder, successor)
    earlier, gone = _earlier(folder, successor, others, is_earlier)
    removals = [
        Removal(path, "delete", "a model in the cache that was trained on earlier data")
        for path in (cached([successor, *earlier.values()]) if cached is not None else [])
    ]
    removals += [Removal(path, "delete", "an earlier run") for path in earlier]
    removals += [Removal(path, "delete", "left by an interruption") for path in _leftovers([folder, *others])]
    removals += _preparations(folder, successor)
    removals += _told(folder, facts, successor)
    removals += [
        Removal(path, "delete", "the request" if path.suffix == ".json" else "the original")
        for path in (folder / name for name in ORIGINALS)
        if path.exists()
    ]
    return PurgePlan(folder, removals, gone, notes)


def _named(path: str | Path) -> Path:
    """Return a path of a folder that ends with its name, which ``.`` and ``..`` do not, and is the same each time."""
    folder = Path(path)
    if folder.name in ("", ".."):
        return folder.resolve()
    parent = folder.parent.resolve()
    return folder if parent == Path.cwd() / folder.parent else parent / folder.name


def _check_place(folder: Path, argument: str) -> None:
    if folder.is_symlink():
        raise ArgumentError(argument, "be a folder itself", f"'{folder}', which is a symbolic link")


def _load(folder: Path) -> Run:
    """Load a run; the warning about plain hashes is left out, since these go."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*holds plain hashes.*")
        return Run.load(folder)


def _facts(folder: Path) -> dict[str, Any] | None:
    """Return the content of unlearning.json, or ``None`` if there is none."""
    try:
        facts = read_json(folder / "unlearning.json")
    except FileNotFoundError:
        return None
    return facts if isinstance(facts, dict) else {}


def _verified(folder: Path, run: Run) -> list[str]:
    """Check that a run holds nothing of its request, and return sentences about held-out data that do."""
    if run.forgotten is None:
        return []
    request = run.forgotten.result.request
    if run.forgotten.graph.split(request)[0].fingerprint() != run.train.fingerprint():
        raise ArgumentError("run", "hold the training data that remain after its request", f"'{folder}' with others")
    notes = []
    for name in ("validation", "test"):
        graph: Any = getattr(run, name)
        left = sum(graph.num_interactions - graph.without(part).num_interactions for part in request.parts)
        if left:
            what = f"{left:,} {graph.unit}{'' if left == 1 else 's'}"
            notes.append(f"{name}.safetensors still holds {what} of the request, and all ids; 'erase' removes both")
    return notes or ["the ids of whom the request emptied are still in the folder; 'erase' removes them"]


def _earlier(
    folder: Path, run: Run, others: Sequence[Path], is_earlier: Callable[[Run], bool] | None
) -> tuple[dict[Path, Run], list[Path]]:
    """Return the earlier runs of a lineage, the earliest first, and the folders that no longer exist."""
    open_, gone = {}, []
    for path in others:
        _check_place(path, "also")
        if path.resolve() == folder.resolve() or path.resolve() in folder.resolve().parents:
            raise ArgumentError("also", "be other folders than the run", f"'{path}'")
        if not path.exists():
            gone.append(path)
            continue
        foreign = sorted(entry.name for entry in path.iterdir() if not _own(entry)) if path.is_dir() else []
        if foreign:
            raise ArgumentError("also", "hold nothing but a run", f"'{path}', which holds '{foreign[0]}'")
        try:
            open_[path] = _load(path)
        except ArgumentError as error:
            raise error.renamed("also") from None
    known = {_print(run.forgotten)} if run.forgotten is not None else set()
    found: dict[Path, Run] = {}
    while open_:
        later = [run, *found.values()]
        fitting = [path for path, other in open_.items() if _known(other, later, known)]
        fitting = fitting or [path for path, other in open_.items() if is_earlier is not None and is_earlier(other)]
        if not fitting:
            hint = "name the runs between them as well" if run.forgotten is not None else "a ledger can tell"
            got = f"'{next(iter(open_))}', which nothing shows to be one"
            raise ArgumentError("also", f"be earlier runs of '{folder}'", got, hint)
        for path in fitting:
            found[path] = open_.pop(path)
            if found[path].forgotten is not None:
                known.add(_print(found[path].forgotten))
    return dict(reversed(found.items())), gone


def _known(other: Run, later: Sequence[Run], known: set[tuple[str, str]]) -> bool:
    """Return whether the originals of later runs lead to a run, or whether one of these is the result of erasing it."""
    if (fingerprint(other.model), other.train.fingerprint()) in known:
        return True
    return any(_is_erased(other, run) for run in later if run.forgotten is None and run.about.get("erased"))


def _is_erased(other: Run, run: Run) -> bool:
    """Return whether a run is the same model and graph as another, once some users and items have gone from that."""
    if other.spec != run.spec:
        return False
    kept = {}
    for name in node_types(run.train):
        nodes = other.train.vocabulary(name).lookup(run.train.vocabulary(name).ids)
        if not len(nodes) or (nodes < 0).any():
            return False
        kept[name] = nodes
    if run.train.kind == "sessions":
        kept["session"] = canonical_order(other.train.vocabulary("session"))
    try:
        small = Compacted.of(other.model, other.train, kept)
    except ValueError:
        return False
    if not any(small.gone.values()) and other.forgotten is None and other.about.get("erased"):  # a copy of the run
        return False
    found = fingerprint(small.model), with_sorted_events(small.graph).fingerprint()
    return found == (fingerprint(run.model), run.train.fingerprint())


def _own(entry: Path) -> bool:
    return entry.name in WRITTEN or (entry.name.startswith(".") and entry.name.endswith(".part"))


def _print(forgotten: Any) -> tuple[str, str]:
    return fingerprint(forgotten.original), forgotten.graph.fingerprint()


def _leftovers(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield what interrupted commands have left beside and inside run folders."""
    token = "?" * 8
    for number, folder in enumerate(folders):
        place, name = folder.absolute().parent, escape(folder.name)
        for pattern in (f".{name}.{token}.new", f".{name}.{token}.old", f".{name}.{token}.*safetensors"):
            yield from sorted(place.glob(pattern))
        if number == 0:  # the others are deleted as a whole
            yield from sorted(folder.glob(".*.part"))


def _preparations(folder: Path, run: Run) -> Iterator[Removal]:
    """Yield the preparations of a run that tell of earlier data."""
    now = fingerprint(run.model), run.train.fingerprint()
    for name in sorted(registry):
        path = folder / f"{name}.safetensors"
        if not path.is_file() or path.name in ORIGINALS:
            continue
        content = Preparation.narrowed(path, *now)
        if content is None:
            yield Removal(path, "delete", "a preparation for another model, with its hashes")
        elif content != path.read_bytes():
            yield Removal(path, "rewrite", "plain hashes of earlier data", content)


def _told(folder: Path, facts: dict[str, Any] | None, run: Run) -> Iterator[Removal]:
    """Yield the JSON files of a run that tell of the original data."""
    if COURSE in run.about:
        about = read_json(folder / "run.json")
        about["about"].pop(COURSE, None)
        yield Removal(
            folder / "run.json", "rewrite", "figures of the training on the original data", sealed_json(about)
        )
    if facts is not None and (not facts.keys() <= set(KEPT) or "purged" not in facts):
        left = {name: facts[name] for name in KEPT if name in facts}
        left |= {"purged": datetime.now(timezone.utc).date().isoformat()}
        yield Removal(
            folder / "unlearning.json", "rewrite", "hashes and figures of the original data", sealed_json(left)
        )


def purged_on(folder: Path) -> str | None:
    """Return the day on which a run folder was purged, or ``None``.

    Args:
        folder: The run folder.
    """
    with suppress(OSError, ValueError):
        return (_facts(folder) or {}).get("purged")
    return None
