"""``graphunlearn leaderboard``: scores methods against stored models of a fixed request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from graphunlearn.cli._fields import Folder, Running, optional, several
from graphunlearn.cli._methods import build_method, check_method
from graphunlearn.cli._reports import Caching, command
from graphunlearn.cli._text import Answer, columns, device_of
from graphunlearn.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from graphunlearn.eval import Audit
    from graphunlearn.eval.board import Store, Track

__all__ = ["Leaderboard"]

Name = Literal["ml-100k-users", "ml-100k-edges", "lastfm-users", "lastfm-edges"]


@dataclass(kw_only=True)
class Leaderboard:
    """Score unlearning methods, or weights from another program, against 20 retrained models of a fixed request.

    A track is a data set, 5% random users or 5% random interactions of it, and five LightGCN models, which every
    method corrects. Its models are trained once with --make, on this machine, and kept in a store.

    Methods that the attacks do not tell from retraining come first, then those of which nothing can be said, then
    all others. Within these, the rows are in the order of KLOM, which compares the predictions of the corrected
    models with those of retrained ones pair by pair; the greater of the figures on the forgotten pairs and on pairs
    that remain counts.

    tracks:
      ml-100k-users, ml-100k-edges    MovieLens-100K
      lastfm-users, lastfm-edges      Last.fm

    examples:
      graphunlearn leaderboard ml-100k-users --make
      graphunlearn leaderboard ml-100k-users --methods ifru calibrate --out runs/board
      graphunlearn leaderboard ml-100k-users --kit runs/kit
      graphunlearn leaderboard ml-100k-users --weights runs/mine
    """

    track: Annotated[Positional[Name], arg(metavar="TRACK")]
    """One of the tracks above."""
    methods: Annotated[tuple[str, ...] | None, optional("NAME ...")] = None
    """Methods to score; 'bench --help' lists them."""
    weights: Annotated[tuple[tuple[Path, ...], ...], UseAppendAction, several("DIR ...")] = ()
    """Folders of corrected weights to score, each with the names of the files of --kit."""
    kit: Folder = None
    """Write the weights of the originals, the pairs to keep and the pairs to forget into this folder, for another
    program; nothing is scored."""
    make: bool = False
    """Train the models that the store lacks. An interrupted call can be repeated."""
    store: Folder = None
    """Folder of the models of the track (default: leaderboard/TRACK in GRAPHUNLEARN_CACHE, or in
    ~/.cache/graphunlearn)."""
    out: Folder = None
    """Folder for report.json and report.html."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Make a store, write a kit, or score."""
        from graphunlearn.data.io.folders import check_folder
        from graphunlearn.eval.board import (
            kit_names,
            load_store,
            make_store,
            read_submission,
            score,
            track_of,
            write_kit,
        )
        from graphunlearn.eval.comparison import on_device
        from graphunlearn.runs.folder import check_out

        device = device_of(self.running.device)
        track, folders = track_of(self.track), [folder for group in self.weights for folder in group]
        methods = self._methods(track)
        if not (self.make or self.kit or methods or folders):
            raise ArgumentError(
                "--methods", "name methods", "none", "or name folders with --weights, or --kit or --make"
            )
        if self.kit is not None and (methods or folders):
            raise ArgumentError("--kit", "be left out where something is scored", f"'{self.kit}'")
        if self.out is not None:
            check_out(self.out, self.running.overwrite)
        if self.kit is not None:
            check_folder(self.kit, kit_names(track), overwrite=self.running.overwrite, argument="--kit")
        case = on_device(track.case(), device)
        store = self.store or (Caching().folder() or Path()) / "leaderboard" / track.name
        try:
            models = make_store(track, case, store) if self.make else load_store(track, case, store)
        except FileError as error:
            raise error.renamed(hint="'--make' trains what is missing") from None
        if self.kit is not None:
            return self._write_kit(lambda folder: write_kit(track, case, models, folder), self.kit, store)
        if not (methods or folders):
            return _made(store, models)
        handed = {folder.resolve().name: read_submission(track, case, folder) for folder in folders}
        if len(handed) < len(folders):
            raise ArgumentError("--weights", "name folders with different names", " ".join(map(str, folders)))
        return self._answer(self._scored(lambda step: score(track, case, models, methods, handed, on_step=step), track))

    def _methods(self, track: Track) -> list[Any]:
        from graphunlearn.nn import FitSettings
        from graphunlearn.operators import Retrain
        from graphunlearn.runs.run import ModelSpec

        names = self.methods or ()
        if self.methods is not None and (not names or Retrain.name in names):
            raise ArgumentError("--methods", "name methods other than retrain", " ".join(names) or "none")
        spec = ModelSpec(track.model, track.dim, track.layers)
        for name in names:
            check_method(name, spec, "--methods")
        settings: FitSettings = track.settings
        return [build_method(name, track.objective, settings=settings) for name in dict.fromkeys(names)]

    def _scored(self, scoring: Any, track: Track) -> Audit:
        from tqdm import tqdm

        with tqdm(desc=track.name, unit="model", disable=None, leave=False) as bar:

            def step(what: str) -> None:
                bar.set_postfix_str(what)
                bar.update()

            found: Audit = scoring(step)
        found.report["command"] = command()
        return found

    def _write_kit(self, writing: Any, kit: Path, store: Path) -> Answer:
        from graphunlearn.data.io.folders import replaced_folder

        with replaced_folder(kit) as folder:
            names = [path.name for path in writing(folder)]
        text = f"wrote {len(names)} files to {kit}; correct the weights in place and score them with --weights {kit}"
        return Answer({"kit": str(kit), "store": str(store), "files": names}, text)

    def _answer(self, found: Audit) -> Answer:
        from graphunlearn.eval.board import rows_of
        from graphunlearn.runs.folder import replaced

        rows = rows_of(found.report)
        lines = [_table(rows)]
        yardstick = next((row["klom_if_equal"] for row in rows if row["klom_if_equal"] is not None), None)
        if yardstick is not None:
            lines.append(f"KLOM of as many models that are distributed as retrained ones: {yardstick:.2f} on average")
        if self.out is not None:
            with replaced(self.out, self.running.overwrite) as folder:
                found.write(folder)
            lines.append(f"wrote {self.out / 'report.json'} and {self.out / 'report.html'}")
        return Answer({"track": self.track, "rows": rows}, "\n".join(lines))


def _made(store: Path, models: Store) -> Answer:
    counts = {"originals": len(models.originals), "retrained": len(models.references)}
    text = f"{store} holds {counts['originals']} originals and {counts['retrained']} retrained models"
    return Answer({"store": str(store)} | counts, text)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    attacks = list(rows[0]["leaks"])
    head = ["", "method", "verdict", "KLOM forgotten", "KLOM kept", "Δp forgotten", "Δp test"]
    head += [f"left: {name.replace('_', ' ')}" for name in attacks] + ["Recall@20", "CPU s", "× faster", "MB"]
    lines = [tuple(head)]
    places = iter(range(1, len(rows) + 1))
    for row in rows:
        left = [_number(row["leaks"][name], "{:+.0%}") for name in attacks]
        figures = [_number(row[name], "{:.2f}") for name in ("klom_forget", "klom_retain")]
        figures += [_number(row[f"dp_{where}_over_floor"], "{:.2f} ×") for where in ("forget", "test")]
        cost = [_number(row["cpu_seconds"], "{:.2f}"), _number(row["speedup_vs_retrain"], "{:.1f}")]
        cost += [_number(row["peak_memory_mb"], "{:.0f}")]
        place = "" if row["method"] in ("retrain", "original") else f"{next(places)}"
        quality = _number(row["recall@20"], "{:.4f}")
        lines.append((place, row["method"], row["verdict"] or "–", *figures, *left, quality, *cost))
    return columns(lines, right=tuple(range(3, len(head))))


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
