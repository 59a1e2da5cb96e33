"""``graphunlearn prepare``: prepares a method for many requests, and saves the preparation in the run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from graphunlearn._version import __version__
from graphunlearn.cli._fields import Int, RunFolder, Running, Settings
from graphunlearn.cli._methods import build_method, check_method, method_names, options_of, parse_options, preparable
from graphunlearn.cli._requests import first_option
from graphunlearn.cli._resume import resumable
from graphunlearn.cli._text import Answer, device_of, listed, meant, note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.operators import Unlearner
    from graphunlearn.runs.run import Run

__all__ = ["Prepare", "file_of", "method_for"]


@dataclass(kw_only=True)
class Prepare:
    """Prepare a method for a trained model once; the method then serves any number of requests.

    The preparation is a file in the run folder, METHOD.safetensors, together with the options it was made with. It does
    not depend on later requests. If the command is interrupted, the same command continues the preparation.

    examples:
      graphunlearn prepare runs/a --method unlearnrec
      graphunlearn prepare runs/a --method unlearnrec --option probes=3 share=0.2 --overwrite
      graphunlearn prepare runs/a --method unlearnrec-published --seed 1
      graphunlearn prepare runs/g --method sisa --option num_shards=10       # of sessions
    """

    source: RunFolder
    """Run folder, as 'train' or 'forget' writes it."""
    method: Annotated[str, arg(metavar="NAME")] = "unlearnrec"
    """receraser, sisa, sru, ultrare, unlearnrec or unlearnrec-published."""
    option: Settings = ()
    """Options of the method, such as probes=3; an error about a wrong name lists all options."""
    seed: Int = None
    """Seed of the method."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Prepare, and write the file."""
        from graphunlearn.eval.report.verdict import format_seconds
        from graphunlearn.nn.identity import fingerprint
        from graphunlearn.runs.run import Run

        options, path = list(chain(*self.option)), self.source / file_of(self.method)
        if self.method not in preparable():
            reason = ", which has none to save" if self.method in method_names() else meant(self.method, preparable())
            named = listed(preparable(), "or")
            raise ArgumentError("--method", f"be one with a preparation, {named}", f"{self.method!r}{reason}")
        parse_options(self.method, options)  # before any file is read
        if path.exists() and not self.running.overwrite:
            raise ArgumentError("run", "be without a preparation", f"'{path}'", "'--overwrite' replaces it")
        run = Run.load(self.source, device_of(self.running.device))
        check_method(self.method, run.spec, offered=preparable())
        if not os.access(self.source, os.W_OK | os.X_OK):
            raise ArgumentError("run", "be a folder that can be written to", f"'{self.source}'")
        method = _built(run, self.method, options=options, seed=self.seed)
        if not method.asks_preparation(run.model):
            got = f"'{self.source}', whose model it serves without another one"
            raise ArgumentError("run", f"hold a model that needs a preparation for {method.name}", got)
        note(f"preparing {method.name} for {run.spec.name} on {run.train.num_interactions:,} {run.train.unit}s")
        identity = [__version__, options_of(method), fingerprint(run.model), run.train.fingerprint()]
        identity += [run.validation.fingerprint(), run.spec.facts(), repr(run.objective), asdict(run.settings)]
        with resumable(self.source, method.name, identity, "preparation") as checkpoint:
            method.prepare(run.model, run.train, checkpoint=checkpoint)
            assert method.preparation is not None
            log, made_with = dict(method.preparation.log), options_of(method)
            method.preparation.log["options"] = made_with  # in the same file, so that they always match it
            method.save(path)
        told = {"run": str(self.source), "file": path.name, "method": method.name, "seconds": method.prepare_seconds}
        most = f", for requests of up to {log['largest_share']:.1%} of the data" if "largest_share" in log else ""
        text = (
            f"prepared {method.name} in {format_seconds(method.prepare_seconds)}{most}\nwrote {path}\n"
            f"next: graphunlearn forget {self.source} {first_option(run.train)} --method {method.name} "
            f"--out {self.source.with_name('forgotten')}"
        )
        return Answer(told | {"options": made_with, "log": log}, text)


def file_of(name: str) -> str:
    """Return the name of the file with the preparation of a method in a run folder.

    Args:
        name: Name of the method.
    """
    return f"{name}.safetensors"


def method_for(run: Run, source: Path, name: str, options: Sequence[str], seed: int | None) -> Unlearner:
    """Return a method for requests on a run, with its preparation from the run folder if it needs one.

    Args:
        run: The run.
        source: The run folder.
        name: Name of the method.
        options: Options of the method as ``NAME=VALUE``.
        seed: Seed of the method.

    Raises:
        ArgumentError: The name or an option is wrong, or the preparation is missing, broken, of another version, made
            for another model or graph, or made with other options.
    """
    from graphunlearn.nn.identity import fingerprint
    from graphunlearn.operators.shared.preparation import Preparation
    from graphunlearn.runs.folder import whole

    given = parse_options(name, options)
    plain = build_method(name, run.objective)
    if not plain.asks_preparation(run.model):
        return _built(run, name, options=options, seed=seed)
    if plain.keeps is None:
        got = f"{name!r}, whose preparation is kept in memory only"
        expected = "need no preparation, or one that can be saved"
        raise ArgumentError("--method", expected, got, "'graphunlearn bench' can run it")
    path, command = source / file_of(name), f"graphunlearn prepare {source} --method {name}"
    again = f"prepare it again: {command} --overwrite"
    if not path.exists():
        raise ArgumentError("run", f"hold a preparation for {name}", "none", f"prepare it first: {command}")
    device = next(run.model.parameters()).device
    with whole("run", "hold a whole preparation", path, again):
        made_with = Preparation.log_of(path)["options"]
        _built(run, name, defaults=made_with)
    for key, value in given.items():
        if key not in (*plain.anew, "on_rejection") and value != made_with.get(key):
            expected = f"be {_text(made_with.get(key))}, as the method was prepared with"
            hint = f"to change it: {command} --option {key}={_text(value)} --overwrite"
            raise ArgumentError(f"--option {key}", expected, _text(value), hint)
    method = _built(run, name, options=options, seed=seed, defaults=made_with)
    with whole("run", "hold a whole preparation", path, again):
        preparation = method.load(path, device, like=run.model).preparation
    assert preparation is not None
    adapt: bool | None = getattr(method, "adapt", None)
    objection = None if adapt else preparation.objection(fingerprint(run.model), run.train.fingerprint())
    if objection is not None:
        hint = again if adapt is None else f"{again}; or use it all the same with --option adapt=true"
        raise ArgumentError("run", f"hold a preparation for its own {objection}", f"'{path}', for another", hint)
    return method


def _built(run: Run, name: str, **given: Any) -> Unlearner:
    """Return a method with the loss, the validation data and the training settings of a run."""
    validation = run.early_stopping(run.train)
    return build_method(name, run.objective, validation=validation, settings=run.settings, **given)


def _text(value: object) -> str:
    """Return a value as it is written in an option."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
