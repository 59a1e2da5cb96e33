"""Embeddings, indices and records of ``graphunlearn export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from graphunlearn.cli._fields import Running
from graphunlearn.cli._text import Answer, counted, device_of, note
from graphunlearn.errors import ArgumentError

__all__ = ["embeddings", "record", "replaced_or_built"]

LEFT_OUT = "without events in the training part: forgotten, or only held out"
"""Why users and items have no row."""


def embeddings(source: Path, out: Path, running: Running) -> Answer:
    """Write the embeddings of a run by raw id.

    Args:
        source: The run folder.
        out: The folder to write.
        running: The device, and whether an earlier folder may be replaced.

    Returns:
        The result of the command.
    """
    from graphunlearn.data.io.folders import check_folder
    from graphunlearn.runs.run import Run
    from graphunlearn.serving.embeddings import EMBEDDINGS, export_embeddings, needed

    check_folder(out, EMBEDDINGS, overwrite=running.overwrite, argument="out")
    needed("pyarrow", "parquet")
    run = Run.load(source, device_of(running.device))
    facts = export_embeddings(run.model, run.train, out, overwrite=running.overwrite)
    lines = []
    for name, told in facts["files"].items():
        _tell_left_out(told["left_out"], name.removesuffix(".parquet"))
        lines.append(f"wrote {out / name}: {told['rows']:,} embeddings of width {facts['dim']}")
    return Answer({"run": str(source), "out": str(out), **facts}, "\n".join(lines))


def replaced_or_built(
    source: Path, out: Path, library: str, side: str | None, options: Sequence[str], running: Running
) -> Answer:
    """Write an index over the embeddings of a run, or replace an earlier one.

    Args:
        source: The run folder.
        out: The folder to write.
        library: The library of the index.
        side: ``"user"`` or ``"item"``; ``None`` for that of the earlier index, or items.
        options: Options of the library, as ``NAME=VALUE``.
        running: The device, and whether an earlier index may be replaced.

    Returns:
        The result of the command.

    Raises:
        ArgumentError: The earlier index is of another library, width or side, or has other options.
    """
    from graphunlearn.data.io.folders import check_folder
    from graphunlearn.runs.run import Run
    from graphunlearn.serving.embeddings import embedding_table, needed
    from graphunlearn.serving.index import INDEXED, ServingIndex, replace_index

    check_folder(out, INDEXED, overwrite=running.overwrite, argument="out")
    needed(library, library)
    settings = _settings(library, options)
    old = ServingIndex.load(out) if out.exists() and any(out.iterdir()) else None
    if old is not None and old.library != library:
        raise ArgumentError("--index", f"be the library of the index in '{out}', {old.library}", library)
    if old is not None and old.settings != old.settings | settings:
        raise ArgumentError("--index-option", f"be as in the index in '{out}', {old.settings}", settings)
    run = Run.load(source, device_of(running.device))
    table = embedding_table(run.model, run.train, side or (old.side if old is not None else "item"))
    _tell_left_out(table.left_out, f"{table.side}s")
    data = {"run": str(source), "out": str(out), "library": library, "side": table.side, "dim": table.dim}
    data |= {"entries": len(table.ids), "left_out": table.left_out}
    what = f"wrote {out}: an index of {library} with {len(table.ids):,} {table.side}s of width {table.dim}"
    if old is None:
        try:
            index = ServingIndex.build(table, library, **settings)
        except ArgumentError as error:
            raise error.renamed("--index-option" if error.argument == "settings" else None) from None
        index.save(out, overwrite=running.overwrite)
        return Answer(data, what)
    told = replace_index(out, table)
    searched = "" if not told["searched"] else f"; no search with {told['searched']:,} of their old vectors finds them"
    return Answer(data | told, f"{what}\n{counted(told['removed'], 'entries')} of the earlier index removed{searched}")


def record(source: Path, uri: str, served_from: str | None, given: Mapping[str, str | None]) -> Answer:
    """Record a run in MLflow.

    Args:
        source: The run folder.
        uri: Address of the server, or of its database.
        served_from: When the model starts to serve.
        given: The names of the experiment and of the registered model; ``None`` for the defaults.

    Returns:
        The result of the command.
    """
    from graphunlearn.serving.embeddings import needed
    from graphunlearn.serving.tracking import log_to_mlflow

    needed("mlflow", "mlflow")
    names = {name: value for name, value in given.items() if value is not None}
    if served_from is not None and given.get("registered_model") is None:
        raise ArgumentError("--served-from", "go with --registered-model", "it without")
    when = None if served_from is None else _time(served_from)
    try:
        number = log_to_mlflow(source, uri, served_from=when, **names)
    except ArgumentError as error:
        raise error.renamed("--mlflow" if error.argument == "tracking_uri" else None) from None
    data = {"run": str(source), "mlflow": uri, "mlflow_run": number, **names}
    version = f", and a version of {names['registered_model']}" if "registered_model" in names else ""
    return Answer(data, f"recorded run {number} in {uri}{version}")


def _tell_left_out(count: int, noun: str) -> None:
    if count:
        note(f"{counted(count, noun)} {'is' if count == 1 else 'are'} left out, {LEFT_OUT}")


def _settings(library: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the options of a library by name, in the types of their defaults."""
    from graphunlearn.serving.index import DEFAULTS

    settings: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in DEFAULTS[library] or not value:
            expected = f"be NAME=VALUE with an option of {library}, {', '.join(DEFAULTS[library])}"
            raise ArgumentError("--index-option", expected, repr(option))
        try:
            settings[name] = type(DEFAULTS[library][name])(value)
        except ValueError:
            raise ArgumentError(f"--index-option {name}", "be a whole number", repr(value)) from None
    return settings


def _time(text: str) -> datetime:
    """Return a time with a time zone; without one it is in UTC."""
    from datetime import timezone

    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ArgumentError("--served-from", "be a date or a time, such as 2026-12-20T08:00", repr(text)) from None
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
