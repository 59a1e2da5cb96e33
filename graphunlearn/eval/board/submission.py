"""What another program starts from on a track, and the folder of weights that it hands in."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from torch import nn

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.errors import FileError
from graphunlearn.eval.board.store import TRACK, Store, check_track, load_state, name_of, write_model
from graphunlearn.eval.board.track import Track
from graphunlearn.eval.scenarios.cases import Scenario, counted

__all__ = ["kit_names", "read_submission", "write_kit"]

_PARTS = ("kept", "forgotten", "validation")


def kit_names(track: Track) -> list[str]:
    """Return the names of the files of a kit.

    Args:
        track: The track.
    """
    return [*(f"{name}.csv" for name in _PARTS), *(name_of("original", k) for k in range(track.originals)), TRACK]


def write_kit(track: Track, case: Scenario[Any], store: Store, folder: str | os.PathLike[str]) -> list[Path]:
    """Write what another program needs to unlearn the request of a track.

    The files are ``kept.csv``, ``forgotten.csv`` and ``validation.csv`` with the numbers of users and items, which are
    rows of the embedding tables, one file of weights per original model, and ``track.json``. The same folder with
    corrected weights under the same names is what :func:`read_submission` reads.

    Args:
        track: The track.
        case: Its split and request.
        store: The models of the track.
        folder: The folder, which is created if it does not exist.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    retained, forgotten = case.train.split(case.request)
    parts = zip(_PARTS, (retained, forgotten, case.validation), strict=True)
    written = [write_atomic(folder / f"{name}.csv", _rows(graph.pairs)) for name, graph in parts]
    for k, model in enumerate(store.originals):
        path = folder / name_of("original", k)
        write_model(path, model, {})
        written.append(path)
    written.append(write_atomic(folder / TRACK, sealed_json({"format": 1, "track": track.facts(case)})))
    return written


def read_submission(track: Track, case: Scenario[Any], folder: str | os.PathLike[str]) -> list[nn.Module]:
    """Read a folder of corrected weights, one file per original model of the track.

    Args:
        track: The track.
        case: Its split and request.
        folder: The folder, with the names of :func:`write_kit`.

    Returns:
        The corrected models, in the order of the originals.

    Raises:
        FileNotFoundError: A file is missing.
        ArgumentError: The folder is of another track or split, or a file holds other parameters than the model.
    """
    folder = Path(folder)
    check_track(folder, track.facts(case), "weights")
    paths = [folder / name_of("original", k) for k in range(track.originals)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        lacks = f"'{folder}' without {missing[0]}"
        raise FileError("weights", f"hold {counted(len(paths), 'file')} of weights, one per original", lacks)
    models = [track.build(case) for _ in paths]
    for path, model in zip(paths, models):
        load_state(path, model, "weights")
    return models


def _rows(pairs: Any) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("user", "item"))
    rows.writerows(pairs.t().tolist())
    return text.getvalue()
