"""``prepare``: what serves every later request is done once, and kept beside the model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from graphunlearn._version import __version__
from graphunlearn.cli._defaults import PREPARABLE
from graphunlearn.cli._methods import (
    build_method,
    check_method,
    meant,
    method_names,
    options_of,
    parse_options,
    preparable,
)
from graphunlearn.cli._resume import resumable
from graphunlearn.cli._text import Answer, Running, device_of, listed, note, optional, several
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.operators import Unlearner
    from graphunlearn.runs.run import Run

__all__ = ["Prepare", "file_of", "method_for"]

DEFAULT = "unlearnrec"
"""The method that is prepared where none is named."""


@dataclass(kw_only=True)
class Prepare:
    """Prepare a method for a trained model once; it then serves one request to forget after another.

    The preparation is a file in the run folder, METHOD.safetensors, together with the options it was made with. It
    knows nothing of later requests. An interrupted preparation goes on where it was when the same command is given
    again.

    examples:
      graphunlearn prepare runs/a --method unlearnrec
      graphunlearn prepare runs/a --method unlearnrec --option probes=3 share=0.2 --overwrite
      graphunlearn prepare runs/a --method unlearnrec-published --seed 1
      graphunlearn prepare runs/g --method sisa --option num_shards=10       # of sessions
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder, as 'train' or 'forget' writes it."""
    method: Annotated[str, arg(metavar="NAME", help=f"{listed(PREPARABLE, 'or')}.")] = DEFAULT
    option: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, several("NAME=VALUE ...")] = ()
    """Options of the method, such as probes=3; a wrong name lists them."""
    seed: Annotated[int | None, optional("INT")] = None
    """Seed of the method."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Prepare, and write the file."""
        from graphunlearn.eval.report.verdict import format_seconds
        from graphunlearn.nn.identity import fingerprint
        from graphunlearn.runs.run import Run

        options, path = list(chain(*self.option)), self.source / file_of(self.method)
        if self.method not in preparable():
            reason = ", which has none to keep" if self.method in method_names() else meant(self.method, preparable())
            named = listed(preparable(), "or")
            raise ArgumentError("--method", f"be one with a preparation, {named}", f"{self.method!r}{reason}")
        parse_options(self.method, options)  # a wrong one is told before any file is read
        if path.exists() and not self.running.overwrite:
            raise ArgumentError("run", "be without a preparation", f"'{path}'; '--overwrite' replaces it")
        run = Run.load(self.source, device_of(self.running.device))
        check_method(self.method, run.spec, offered=preparable())
        if not os.access(self.source, os.W_OK | os.X_OK):
            raise ArgumentError("run", "be a folder that can be written to", f"'{self.source}'")
        method = _built(run, self.method, options, self.seed)
        if not method.asks_preparation(run.model):
            raise ArgumentError(
                "run",
                f"hold a model that {method.name} was not used on",
                f"'{self.source}', from which it forgets without another preparation",
            )
        note(f"preparing {method.name} for {run.spec.name} on {run.train.num_interactions:,} {run.train.unit}s")
        parts = (run.train, run.validation)
        identity = [__version__, options_of(method), fingerprint(run.model), *(part.fingerprint() for part in parts)]
        identity += [asdict(run.spec), repr(run.objective), asdict(run.settings)]
        with resumable(self.source, method.name, identity, "preparation") as checkpoint:
            method.prepare(run.model, run.train, checkpoint=checkpoint)
            assert method.preparation is not None
            log, made_with = dict(method.preparation.log), options_of(method)
            method.preparation.log["options"] = made_with  # in the one file, which they can then never contradict
            method.save(path)
        told = {"run": str(self.source), "file": path.name, "method": method.name, "seconds": method.prepare_seconds}
        most = f", for requests of up to {log['largest_share']:.1%} of the data" if "largest_share" in log else ""
        level = {"interactions": "user", "sessions": "session"}[run.spec.kind]
        first = run.train.vocabulary(level)[0]
        text = (
            f"prepared {method.name} in {format_seconds(method.prepare_seconds)}{most}\nwrote {path}\n"
            f"next: graphunlearn forget {self.source} --{level}s {first} --method {method.name} "
            f"--out {self.source.with_name('forgotten')}"
        )
        return Answer(told | {"options": made_with, "log": log}, text)


def file_of(name: str) -> str:
    """Return the file in a run folder that holds the preparation of a method."""
    return f"{name}.safetensors"


def method_for(run: Run, source: Path, name: str, options: Sequence[str], seed: int | None) -> Unlearner:
    """Return a method to serve a run with; one that is prepared first takes up what lies in the run folder.

    Args:
        run: The run.
        source: Its folder.
        name: The method.
        options: Settings of the method as ``NAME=VALUE``.
        seed: Seed of the method.

    Raises:
        ValueError: The name or an option is wrong, or the preparation is missing, not whole, of another version, for
            another model or graph, or made with other options.
    """
    from graphunlearn.nn.identity import fingerprint
    from graphunlearn.operators.shared.preparation import Preparation

    given = parse_options(name, options)
    plain = build_method(name, run.objective)
    if not plain.asks_preparation(run.model):
        return _built(run, name, options, seed)
    if plain.keeps is None:
        raise ArgumentError(
            "--method",
            "be one that forgets from a model as it is",
            f"{name!r}, which is prepared first, in memory; 'graphunlearn bench' compares it",
        )
    path, again = source / file_of(name), f"graphunlearn prepare {source} --method {name}"
    if not path.exists():
        raise ArgumentError("run", f"hold a preparation for {name}", f"none; prepare it first: {again}")
    device = next(run.model.parameters()).device
    with _whole(path, f"prepare it again: {again} --overwrite"):
        made_with = Preparation.log_of(path)["options"]
        _built(run, name, [], None, made_with)
    for key, value in given.items():
        if key not in plain.anew and value != made_with.get(key):
            raise ArgumentError(
                f"--option {key}",
                f"be {_text(made_with.get(key))}, as the method was prepared with",
                _text(value),
                f"to change it: {again} --option {key}={_text(value)} --overwrite",
            )
    method = _built(run, name, options, seed, made_with)
    with _whole(path, f"prepare it again: {again} --overwrite"):
        preparation = method.load(path, device, like=run.model).preparation
    assert preparation is not None
    adapt: bool | None = getattr(method, "adapt", None)
    objection = None if adapt else preparation.objection(fingerprint(run.model), run.train.fingerprint())
    if objection is not None:
        or_so = "" if adapt is None else "; or use it all the same with --option adapt=true"
        raise ArgumentError(
            "run",
            f"hold a preparation for its own {objection}",
            f"'{path}', for another; prepare it again: {again} --overwrite{or_so}",
        )
    return method


def _built(
    run: Run, name: str, options: Sequence[str], seed: int | None, defaults: dict[str, object] | None = None
) -> Unlearner:
    from graphunlearn.runs.run import watched

    return build_method(
        name,
        run.objective,
        options=options,
        seed=seed,
        validation=watched(run.validation, run.train),
        settings=run.settings,
        defaults=defaults,
    )


@contextmanager
def _whole(path: Path, way_out: str) -> Iterator[None]:
    """Say in one sentence why a preparation cannot be read, and what to do."""
    try:
        yield
        return
    except KeyError as error:
        reason = f"it lacks {error}"
    except (ValueError, TypeError, AttributeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, ArgumentError) and error.argument == "path":
            reason = f"must {error.expected} (got {error.got})"
    raise ArgumentError("run", "hold a whole preparation", f"'{path}': {reason}; {way_out}")


def _text(value: object) -> str:
    """A value as an option is given it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
