"""``graphunlearn export``: hands the model of a run over, as a folder, embeddings, an index or an MLflow record."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from graphunlearn.cli._fields import File, Folder, RunFolder, Running, Settings, optional
from graphunlearn.cli._handover import embeddings, record, replaced_or_built
from graphunlearn.cli._ledgers import audit_figures
from graphunlearn.cli._methods import rebuild_method
from graphunlearn.cli._text import Answer, device_of
from graphunlearn.errors import ArgumentError

__all__ = ["Export"]

KEY_BYTES = 32
"""Length of a new key."""


@dataclass(kw_only=True)
class Export:
    """Hand the model of a run over to what serves it: as a folder, as embeddings, as an index, or as a record.

    By default, DIR is in the manner of Hugging Face: model.safetensors, config.json, unlearning.json and README.md. The
    facts contain the figures of an audit if report.json is in RUN. The folder names nobody: it has counts, and digests
    that reveal nothing without the key. With the key, it can be proved later which request was forgotten.

    With --embeddings, DIR contains users.parquet and items.parquet, with a raw id and its embedding per row; with
    --index, an index of FAISS or hnswlib, with the map of its raw ids. Users and items without interactions in the
    training part, such as forgotten ones, are left out. With --index and --overwrite, an index in DIR is built again
    with its library and options, and it is searched for the entries that are gone before it is replaced.

    With --mlflow, counts, options, times and the figures of an audit are recorded in an MLflow server, without ids and
    without weights; --registered-model adds a version, which says from when on the model serves.

    examples:
      graphunlearn export runs/b --out out/model
      graphunlearn export runs/b --out out/model --key keys/model.key
      graphunlearn export runs/b --embeddings parquet --out out/embeddings
      graphunlearn export runs/b --index faiss --out out/index --overwrite
      graphunlearn export runs/b --index faiss --index-option factory=IVF64,Flat --out out/index
      graphunlearn export runs/b --index hnswlib --index-side user --out out/users
      graphunlearn export runs/b --mlflow http://127.0.0.1:5000 --experiment erasures --registered-model shop
    """

    source: RunFolder
    """Run folder, as 'train' or 'forget' writes it; for the folder in the manner of Hugging Face, as 'forget' writes
    it, with the original still in it."""
    out: Folder = None
    """Folder to write."""
    embeddings: Annotated[Literal["parquet"] | None, optional("FORMAT")] = None
    """Write embeddings by raw id, in the format parquet."""
    index: Annotated[Literal["faiss", "hnswlib"] | None, optional("LIBRARY")] = None
    """Write an index of inner products, with faiss or hnswlib."""
    index_side: Annotated[Literal["item", "user"] | None, optional("SIDE")] = None
    """The entries of the index, item or user (default: item)."""
    index_option: Settings = ()
    """Options of the index: factory=DESCRIPTION for faiss (default: Flat, which is exact), M=INT and
    ef_construction=INT for hnswlib (default: 16 and 200)."""
    mlflow: Annotated[str | None, optional("URI")] = None
    """Address of the MLflow server, or of its database."""
    experiment: Annotated[str | None, optional("NAME")] = None
    """Experiment of the record (default: graphunlearn); it is created if it does not exist."""
    registered_model: Annotated[str | None, optional("NAME")] = None
    """Registered model to which a version is added."""
    served_from: Annotated[str | None, optional("TIME")] = None
    """When the model starts to serve, such as 2026-12-20T08:00:00+00:00 (default: now)."""
    key: File = None
    """File of the secret key of the digests; it is created if it does not exist (default: beside the folder, DIR.key).
    Keep it apart from the folder."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Write what the options name."""
        self._check_target()
        if self.mlflow is not None:
            given = {"experiment": self.experiment, "registered_model": self.registered_model}
            return record(self.source, self.mlflow, self.served_from, given)
        if self.out is None:
            raise ArgumentError("--out", "be given", "nothing")
        if self.embeddings is not None:
            return embeddings(self.source, self.out, self.running)
        if self.index is not None:
            options = list(chain(*self.index_option))
            return replaced_or_built(self.source, self.out, self.index, self.index_side, options, self.running)
        return self._folder(self.out)

    def _check_target(self) -> None:
        """Check that the options name one target, and that each goes with it."""
        targets = {"--embeddings": self.embeddings, "--index": self.index, "--mlflow": self.mlflow}
        chosen = [option for option, value in targets.items() if value is not None]
        if len(chosen) > 1:
            raise ArgumentError(chosen[1], f"be left out with {chosen[0]}", "both")
        fits = {
            "--key": ("key", "out"),
            "--embeddings": ("out",),
            "--index": ("out", "index_side", "index_option"),
            "--mlflow": ("experiment", "registered_model", "served_from"),
        }
        target = chosen[0] if chosen else "--key"
        for name in dict.fromkeys(chain(*fits.values())):
            if name in fits[target] or getattr(self, name) in (None, ()):
                continue
            option, owner = f"--{name.replace('_', '-')}", next(owner for owner, names in fits.items() if name in names)
            if chosen:
                raise ArgumentError(option, f"be left out with {target}", "both")
            raise ArgumentError(option, f"go with {owner}", "it without")

    def _folder(self, out: Path) -> Answer:
        """Write the folder in the manner of Hugging Face."""
        from graphunlearn.data.io.folders import check_folder
        from graphunlearn.runs import export
        from graphunlearn.runs.exported import EXPORTED
        from graphunlearn.runs.run import Run

        check_folder(out, EXPORTED, overwrite=self.running.overwrite, argument="out")
        file = out.with_name(f"{out.name}.key") if self.key is None else self.key
        run = Run.load(self.source, device_of(self.running.device))
        before = run.forgotten
        if before is None:
            expected = "be a folder that 'forget' wrote, with the original still in it"
            raise ArgumentError("run", expected, f"'{self.source}'")
        method = rebuild_method(before.result.method, run.objective, before.options)
        audit = _figures(self.source)
        given: dict[str, Any] = {"model": before.original, "graph": before.graph, "unlearner": method, "audit": audit}
        export(before.result, out, key=_key(file), overwrite=self.running.overwrite, **given)
        data = {"run": str(self.source), "out": str(out), "key": str(file), "audit": audit is not None}
        with_audit = "with the figures of its audit" if audit else "without an audit"
        return Answer(data, f"wrote {out}, {with_audit}\nthe key of its digests is {file}: keep it apart")


def _figures(source: Path) -> dict[str, Any] | None:
    """Return the figures of the audit in a run folder, if there is one.

    Raises:
        ArgumentError: The report is broken.
    """
    path = source / "report.json"
    if not path.exists():
        return None
    try:
        return audit_figures(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, StopIteration):
        expected, hint = "hold a whole report", f"'graphunlearn audit {source} --overwrite' writes it again"
        raise ArgumentError("run", expected, f"'{path}', which is broken", hint) from None


def _key(file: Path) -> bytes:
    """Return the key in a file; a file that does not exist is created, readable by its owner only.

    Raises:
        ArgumentError: The file does not hold a key, or its folder does not exist.
    """
    if file.exists():
        try:
            key = bytes.fromhex(file.read_text(encoding="ascii"))
        except (ValueError, OSError):
            key = b""
        if len(key) < KEY_BYTES:
            expected = f"be a file of a key of at least {KEY_BYTES} bytes, in hexadecimal"
            raise ArgumentError("--key", expected, f"'{file}'")
        return key
    key = secrets.token_bytes(KEY_BYTES)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(key.hex())
    except OSError as error:
        raise ArgumentError("--key", "be a file that can be written", f"'{file}': {error.strerror}") from None
    return key
