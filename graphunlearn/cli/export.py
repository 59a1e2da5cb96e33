"""``graphunlearn export``: writes the corrected model of a run as a folder in the manner of Hugging Face."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from graphunlearn.cli._fields import File, Out, RunFolder, Running
from graphunlearn.cli._ledgers import audit_figures
from graphunlearn.cli._methods import rebuild_method
from graphunlearn.cli._text import Answer, device_of
from graphunlearn.errors import ArgumentError

__all__ = ["Export"]

KEY_BYTES = 32
"""Length of a new key."""


@dataclass(kw_only=True)
class Export:
    """Write the corrected model of a run to a folder without ids: weights, configuration, facts and a model card.

    The folder is in the manner of Hugging Face: model.safetensors, config.json, unlearning.json and README.md. The
    facts contain the figures of an audit if report.json is in RUN. The folder names nobody: it has counts, and digests
    that reveal nothing without the key. With the key, it can be proved later which request was forgotten.

    examples:
      graphunlearn export runs/b --out out/model
      graphunlearn export runs/b --out out/model --key keys/model.key
    """

    source: RunFolder
    """Run folder, as 'forget' writes it, with the original still in it."""
    out: Out
    """Folder to write."""
    key: File = None
    """File of the secret key of the digests; it is created if it does not exist (default: beside the folder, DIR.key).
    Keep it apart from the folder."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Write the folder."""
        from graphunlearn.data.io.folders import check_folder
        from graphunlearn.runs import export
        from graphunlearn.runs.exported import EXPORTED
        from graphunlearn.runs.run import Run

        check_folder(self.out, EXPORTED, overwrite=self.running.overwrite, argument="out")
        file = self.out.with_name(f"{self.out.name}.key") if self.key is None else self.key
        run = Run.load(self.source, device_of(self.running.device))
        before = run.forgotten
        if before is None:
            expected = "be a folder that 'forget' wrote, with the original still in it"
            raise ArgumentError("run", expected, f"'{self.source}'")
        method = rebuild_method(before.result.method, run.objective, before.options)
        audit = _figures(self.source)
        given: dict[str, Any] = {"model": before.original, "graph": before.graph, "unlearner": method, "audit": audit}
        export(before.result, self.out, key=_key(file), overwrite=self.running.overwrite, **given)
        data = {"run": str(self.source), "out": str(self.out), "key": str(file), "audit": audit is not None}
        with_audit = "with the figures of its audit" if audit else "without an audit"
        return Answer(data, f"wrote {self.out}, {with_audit}\nthe key of its digests is {file}: keep it apart")


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
