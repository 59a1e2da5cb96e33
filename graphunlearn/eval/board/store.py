"""The store of a track: its original models and the models that were retrained without what is forgotten."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.plain import json_ready
from graphunlearn.data.io.sealed import check_seal, parse_json, read_json, sealed_json, sealed_tensors
from graphunlearn.errors import ArgumentError, FileError
from graphunlearn.eval.auditing import replace_sick
from graphunlearn.eval.board.track import Track
from graphunlearn.eval.machine import environment
from graphunlearn.eval.scenarios.cases import Scenario, counted
from graphunlearn.nn.training.anew import train_anew
from graphunlearn.operators import Retrain, UnlearningResult

__all__ = ["TRACK", "Store", "check_track", "load_state", "load_store", "make_store", "name_of", "write_model"]

TRACK = "track.json"
"""The file with the facts of a track, in a store, in a kit and in a folder of weights."""
FIRST = 1_000
"""Seed of the first retrained model."""
_KEPT = ("seconds", "cpu_seconds", "peak_memory", "log")
_MACHINE = ("cpu", "threads", "device", "torch")
"""What decides whether the time of a retraining can be compared with times measured now."""


@dataclass
class Store:
    """The models of a track.

    Args:
        originals: The original models.
        references: The results of retraining, whose times are those of the machine that made the store.
        same_machine: Whether all machines that trained these have the processor, threads and torch of this one.
    """

    originals: list[nn.Module]
    references: list[UnlearningResult] = field(repr=False)
    same_machine: bool = True


def name_of(kind: str, number: int) -> str:
    """Return the name of the file of a model.

    Args:
        kind: ``"original"`` or ``"retrained"``.
        number: Number of the model, from 0.
    """
    return f"{kind}-{number:02d}.safetensors"


def make_store(
    track: Track,
    case: Scenario[Any],
    folder: str | os.PathLike[str],
    *,
    progress: bool | None = None,
) -> Store:
    """Train the models of a track that a store lacks. An interrupted call can be repeated.

    A retrained model that is not healthy is trained again with another seed, as in :func:`graphunlearn.audit`.

    Args:
        track: The track.
        case: Its split and request, :meth:`Track.case`.
        folder: The store, which is created if it does not exist.
        progress: Whether to show progress; by default only on a terminal.

    Returns:
        The models.

    Raises:
        ArgumentError: The folder belongs to another track or split, or one of its files is broken.
        OSError: A file cannot be written.
    """
    folder, own = Path(folder), track.facts(case)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / TRACK).exists():
        check_track(folder, own, "store")
    else:
        write_atomic(folder / TRACK, sealed_json({"format": 1, "track": own}))
    held_out = case.validation if case.validation.num_interactions else None
    learning: dict[str, Any] = {"validation": held_out, "objective": track.objective}
    retained, _ = case.train.split(case.request)

    def retrain(seed: int) -> UnlearningResult:
        method = Retrain(**learning, settings=replace(track.settings, seed=seed))
        return method.unlearn(originals[0], case.train, case.request)

    quiet = None if progress is None else not progress
    total = track.originals + track.references
    with tqdm(total=total, desc=track.name, unit="model", leave=False, disable=quiet) as bar:
        originals: list[nn.Module] = []
        for k in range(track.originals):
            model, path = track.build(case), folder / name_of("original", k)
            if path.exists():
                load_state(path, model)
            else:
                settings = replace(track.settings, seed=k)
                trained = train_anew(model, case.train, **learning, settings=settings, progress=False)
                facts = {"seconds": trained.seconds, "best": trained.best, "best_epoch": trained.best_epoch}
                write_model(path, model, facts)
            originals.append(model)
            bar.update()
        references = []
        for k in range(track.references):
            path = folder / name_of("retrained", k)
            if path.exists():
                references.append(_read(path, track.build(case), retained, case))
            else:
                references.append(retrain(FIRST + k))
                _write_result(path, references[-1])
            bar.update()
        before, told = list(references), ["health" in result.log for result in references]
        replace_sick(references, retrain)
        for k, (old, new) in enumerate(zip(before, references)):
            path = folder / name_of("retrained", k)
            if old is not new:
                _write_result(path, new)
            elif "health" in new.log and not told[k]:
                _write_result(path, new, {"environment": _record(path).get("environment")})
    return Store(originals, references, _is_same(folder, track, case))


def load_store(track: Track, case: Scenario[Any], folder: str | os.PathLike[str]) -> Store:
    """Read the models of a track.

    Args:
        track: The track.
        case: Its split and request, :meth:`Track.case`.
        folder: The store, which :func:`make_store` made.

    Returns:
        The models.

    Raises:
        FileNotFoundError: The folder or a model is missing.
        ArgumentError: The folder belongs to another track or split, or one of its files is broken.
    """
    folder = Path(folder)
    check_track(folder, track.facts(case), "store")
    names = [name_of("original", k) for k in range(track.originals)]
    names += [name_of("retrained", k) for k in range(track.references)]
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        lacks = f"{counted(len(missing), 'missing model')}, the first of which is {missing[0]}"
        raise FileError("store", f"hold {len(names)} models in '{folder}'", lacks)
    originals = [track.build(case) for _ in range(track.originals)]
    for k, model in enumerate(originals):
        load_state(folder / name_of("original", k), model)
    retained, _ = case.train.split(case.request)
    paths = [folder / name_of("retrained", k) for k in range(track.references)]
    references = [_read(path, track.build(case), retained, case) for path in paths]
    return Store(originals, references, _is_same(folder, track, case))


def check_track(folder: Path, facts: dict[str, Any], argument: str) -> None:
    """Check that a folder belongs to a track and to a split of its data.

    Args:
        folder: The folder.
        facts: :meth:`Track.facts`.
        argument: Name of the argument in an error.

    Raises:
        FileNotFoundError: The folder has no file of the track.
        ArgumentError: The folder is of another track, of another split, or its file is broken.
    """
    path = folder / TRACK
    if not path.is_file():
        raise FileError(argument, f"be a folder with {TRACK}", f"'{folder}' without it")
    try:
        content = read_json(path, required=True)
    except ValueError as error:
        raise ArgumentError(argument, f"hold a whole {TRACK}", f"a broken one: {error}") from None
    found = content.get("track") if isinstance(content, dict) else None
    if found == facts:
        return
    found = found if isinstance(found, dict) else {}
    differs = [name for name in facts if found.get(name) != facts[name]] or sorted(set(found) - set(facts))
    if differs == ["data"]:
        theirs = found["data"] if isinstance(found.get("data"), dict) else {}
        parts = [name for name, value in facts["data"].items() if theirs.get(name) != value]
        raise ArgumentError(argument, "be of the same data split", f"'{folder}' with another {', '.join(parts)}")
    raise ArgumentError(argument, "be of the same track", f"'{folder}' with another {', '.join(differs)}")


def load_state(path: Path, model: nn.Module, argument: str = "store") -> dict[str, Any]:
    """Load the parameters in a file into a model, and return the metadata of the file.

    Args:
        path: The file.
        model: The model, which is set to evaluation mode.
        argument: Name of the argument in an error.

    Raises:
        ArgumentError: The file is broken, holds other parameters than the model, or numbers that are not finite.
    """
    try:
        check_seal(path)
        with safe_open(path, "pt") as file:
            about = _about(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise ArgumentError(argument, f"hold a whole '{path.name}'", f"a broken one: {error}") from None
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if shapes != wanted:
        raise ArgumentError(argument, f"hold a '{path.name}' with the parameters {wanted}", shapes)
    odd = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if odd:
        raise ArgumentError(argument, f"hold finite numbers in '{path.name}'", f"others in {odd[0]}")
    model.load_state_dict(tensors)
    model.eval()
    return about


def write_model(path: Path, model: nn.Module, record: dict[str, Any]) -> None:
    """Write the parameters of a model with a record and the machine, this one unless the record has one, atomically.

    Args:
        path: The file.
        model: The model.
        record: Facts on its training, in JSON types.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    device = next(model.parameters()).device
    about = {"record": json.dumps(json_ready({"environment": environment(device), **record}))}
    write_atomic(path, sealed_tensors(tensors, about))


def _write_result(path: Path, result: UnlearningResult, more: dict[str, Any] | None = None) -> None:
    write_model(path, result.model, {name: getattr(result, name) for name in _KEPT} | (more or {}))


def _record(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return _about(file.metadata())


def _about(metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the record in the metadata of a file; raise a ValueError if it is none."""
    found = parse_json((metadata or {}).get("record", "{}"))
    if not isinstance(found, dict):
        raise ValueError("its record holds no names with values")
    return found


def _read(path: Path, model: nn.Module, retained: Any, case: Scenario[Any]) -> UnlearningResult:
    record = load_state(path, model)
    lacking = [name for name in _KEPT if name not in record]
    if lacking:
        expected = f"hold a retrained model with its record in '{path.name}'"
        raise ArgumentError("store", expected, f"one without {lacking[0]}")
    kept = {name: record[name] for name in _KEPT}
    return UnlearningResult(model, retained, case.request, Retrain.name, prepare_seconds=None, **kept)


def _is_same(folder: Path, track: Track, case: Scenario[Any]) -> bool:
    """Return whether all retrained models were trained on a machine like this one."""
    records = [_record(folder / name_of("retrained", k)) for k in range(track.references)]
    made, here = [record.get("environment") or {} for record in records], environment(case.train.device)
    return all(one.get(name) == here[name] for one in made for name in _MACHINE)
