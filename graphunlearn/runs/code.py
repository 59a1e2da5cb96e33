"""Code of the user that a run names: how it is found, when it is trusted, and how it is called.

A run folder can name functions of a module, as ``module:name``. Loading the folder imports the module, which runs its
code, so that a folder from somebody else could name any module of this machine. Therefore only modules that the user
has trusted by name are imported: with :func:`trust`, or in the environment variable ``GRAPHUNLEARN_TRUST_CODE``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graphunlearn.data.events import Kind
from graphunlearn.errors import ArgumentError
from graphunlearn.nn import encode
from graphunlearn.nn.encoding import _encode, linear_form
from graphunlearn.nn.origin import Origin, give_origin

__all__ = ["TRUST", "Code", "CodeError", "resolve", "trust", "trusted"]

TRUST = "GRAPHUNLEARN_TRUST_CODE"
"""The environment variable with the names of trusted modules, separated by commas."""
_WORD = r"(?!__)[A-Za-z_][A-Za-z0-9_]*"
_NAME = re.compile(rf"({_WORD}(?:\.{_WORD})*):({_WORD}(?:\.{_WORD})*)")
_trusted: set[str] = set()


class CodeError(ArgumentError):
    """A function that a run names cannot be used: it is not trusted, not found, or it failed."""


def trust(*modules: str) -> None:
    """Trust modules for this process, so that run folders may name functions in them.

    Args:
        modules: Names of modules; a package includes its modules.

    Example:
        >>> trust("towers")
        >>> trusted("towers.models"), trusted("os")
        (True, False)
    """
    _trusted.update(modules)


def trusted(module: str) -> bool:
    """Return whether the user has trusted a module, or a package that it is in.

    Args:
        module: Name of the module.
    """
    names = _trusted | {name.strip() for name in os.environ.get(TRUST, "").split(",")}
    parts = module.split(".")
    return any(".".join(parts[: n + 1]) in names for n in range(len(parts)))


def resolve(name: str, argument: str) -> Callable[..., Any]:
    """Return the function or class that a name of the form ``module:name`` stands for.

    Args:
        name: The name.
        argument: Name of the argument in errors.

    Returns:
        The function or class.

    Raises:
        CodeError: The name is not of this form, its module is not trusted, cannot be imported or lacks the name, or the
            name is not a function or class that is defined in the same package.
    """
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise CodeError(argument, "be of the form module:name", repr(name))
    module, attribute = found.groups()
    own = module.partition(".")[0] == __name__.partition(".")[0]  # the models of this package need no trust
    if not trusted(module) and not own:
        hint = f"importing a module runs its code: if you trust it, set {TRUST}={module}"
        raise CodeError(argument, "name code of modules that you trust", name, hint)
    thing: Any = _imported(module, name, argument)
    place = module
    for part in attribute.split("."):
        if not hasattr(thing, part):
            close = difflib.get_close_matches(part, [key for key in vars(thing) if not key.startswith("_")], n=1)
            got = f"{name}, and {place} has no '{part}'"
            hint = f"did you mean '{close[0]}'?" if close else ""
            raise CodeError(argument, "name something that is there", got, hint)
        thing, place = getattr(thing, part), f"{place}.{part}"
    if own and not trusted(module) and not (isinstance(thing, type) and issubclass(thing, nn.Module)):
        raise CodeError(argument, "name a model where it names code of this package", name)
    if not callable(thing):
        raise CodeError(argument, "name a function or a class", f"{name}, a {type(thing).__name__}")
    home = str(getattr(thing, "__module__", None))
    if home.partition(".")[0] != module.partition(".")[0]:
        raise CodeError(argument, f"name a function or a class of {module} itself", f"{name}, which is one of {home}")
    return thing


def _imported(module: str, name: str, argument: str) -> Any:
    """Return a module; it may be in the current folder, where the command ``graphunlearn`` does not look otherwise."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            reason = f"{name}, which needs {error.name}, and there is no such module"
            raise CodeError(argument, "name a module that can be imported", reason) from error
        got = f"{name}, and there is no module {error.name} in this folder or on PYTHONPATH"
        raise CodeError(argument, "name a module that can be imported", got) from None
    except (Exception, SystemExit) as error:  # a program that is imported may end
        raise CodeError(argument, "name a module that can be imported", f"{name}, {_raised(error)}") from error


@dataclass(frozen=True)
class Code:
    """The user's code of a model: how it is built, encoded and trained.

    Args:
        build: ``module:name`` of a function or class that returns the model. Its parameters ``graph``, ``num_users``,
            ``num_items`` and ``num_nodes`` are filled in; a function with none of these receives the graph.
        encode: ``module:name`` of a function ``(model, graph) -> (queries, items)``; ``None`` if the class of the model
            has an encoding.
        retrain: ``module:name`` of a function ``(graph, seed) -> model``, which may have a parameter ``validation``;
            ``None`` to retrain with :func:`~graphunlearn.fit`.
        arguments: Further arguments of ``build``, in JSON types.
        kind: The kind of graph that the model learns from.
    """

    build: str
    encode: str | None = None
    retrain: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "interactions"

    def check(self, options: Mapping[str, str] | None = None) -> None:
        """Import the modules, and check that the functions are there.

        Args:
            options: For ``"build"``, ``"encode"`` and ``"retrain"``, the name of the argument in errors; by default
                ``"run"``.

        Raises:
            CodeError: See :func:`resolve`.
        """
        for part in ("build", "encode", "retrain"):
            name = getattr(self, part)
            if name is not None or part == "build":
                resolve(name, (options or {}).get(part, "run"))

    def model(self, graph: Any) -> nn.Module:
        """Return an untrained model for a graph, on the device of the graph.

        The model has an encoding, and it can be built and trained anew.

        Args:
            graph: The graph.

        Raises:
            CodeError: The code is not trusted, or it failed, or it returned something else than a model.
        """
        build = resolve(self.build, "model")
        with torch.random.fork_rng(devices=[]):
            model = self._built(build, graph)
        if self.encode is not None:
            self._register(type(model), resolve(self.encode, "encode"))
        train = None if self.retrain is None else partial(self._retrained, resolve(self.retrain, "retrain"))
        on_graph = partial(self._built, build)
        give_origin(model, Origin(partial(on_graph, graph), train, self.identity(), on_graph))
        return model

    def identity(self) -> str:
        """Return a text that changes with the names, the arguments and the source of the modules."""
        digest = hashlib.sha256(repr((self.build, self.encode, self.retrain, sorted(self.arguments.items()))).encode())
        for name in (self.build, self.encode, self.retrain):
            if name is not None:
                module = importlib.import_module(name.partition(":")[0])
                try:
                    digest.update(inspect.getsource(module).encode())
                except (OSError, TypeError):  # a module without a file
                    digest.update(name.encode())
        return digest.hexdigest()

    def _built(self, build: Callable[..., Any], graph: Any) -> nn.Module:
        positional, keywords = self._arguments(build, graph)
        with _seeded_libraries():
            try:
                model = build(*positional, **keywords)
            except (Exception, SystemExit) as error:
                raise CodeError("model", "build a model", f"{self.build}, {_raised(error)}") from error
        if not isinstance(model, nn.Module):
            raise CodeError("model", "build a torch.nn.Module", f"{self.build}, which returns a {type(model).__name__}")
        return model.to(graph.device)

    def _arguments(self, build: Callable[..., Any], graph: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the named arguments of ``build``."""
        sizes = {f"num_{name}": getattr(graph, f"num_{name}", None) for name in ("users", "items", "nodes")}
        known = {"graph": graph} | ({"num_items": sizes["num_items"]} if graph.kind == "sessions" else sizes)
        try:
            parameters = inspect.signature(build).parameters
        except ValueError:  # a class of an extension module
            return [graph], dict(self.arguments)
        named = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for name in self.arguments:
                if name not in named:
                    got = f"'{name}', and {self.build} has {', '.join(named) or 'no arguments'}"
                    raise CodeError("model_option", "be arguments of the model", got)
        filled = {name: known[name] for name in named if name in known and name not in self.arguments}
        rest = [p for p in parameters.values() if p.name not in self.arguments and p.kind is not p.VAR_KEYWORD]
        takes_graph = not filled and bool(rest) and rest[0].default is inspect.Parameter.empty
        positional = [graph] if takes_graph and rest[0].kind is not rest[0].KEYWORD_ONLY else []
        first = {rest[0].name} if positional else set()
        lacking = [
            p.name
            for p in rest
            if p.default is p.empty and p.name not in filled and p.name not in first and p.kind is not p.VAR_POSITIONAL
        ]
        if lacking:
            expected = f"give all arguments of {self.build} that have no default"
            raise CodeError("model_option", expected, f"none for {', '.join(lacking)}")
        return positional, filled | self.arguments

    def _register(self, cls: type[nn.Module], function: Callable[..., Any]) -> None:
        """Register the encoding function for a model class.

        Raises:
            CodeError: The class has another encoding already.
        """
        known = _encode.registry.get(cls)
        if known is not None and _same(known, function):
            return
        if known is not None or cls in linear_form.registry:
            raise CodeError("encode", f"be left out for {cls.__name__}, which has an encoding", self.encode)
        encode.register(cls, function)

    def _retrained(self, function: Callable[..., Any], graph: Any, seed: int, validation: Any) -> Any:
        takes = "validation" in inspect.signature(function).parameters
        with _seeded_libraries():
            try:
                return function(graph, seed, **({"validation": validation} if takes else {}))
            except (Exception, SystemExit) as error:
                raise CodeError("retrain", "train a model", f"{self.retrain}, {_raised(error)}") from error


def _same(one: Any, other: Any) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _raised(error: BaseException) -> str:
    """Return what an error of the user's code says, in one line."""
    text = " ".join(str(error).split())
    return f"which raised {type(error).__name__}{f': {text}' if text else ''}"


@contextmanager
def _seeded_libraries() -> Iterator[None]:
    """Seed NumPy and ``random`` with the seed of torch in a block, and restore their state after it."""
    seed = torch.initial_seed() % 2**32
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def names_of(words: Iterable[str | None]) -> list[str]:
    """Return the modules of names of the form ``module:name``; ``None`` and other words are left out.

    Args:
        words: The names.

    Example:
        >>> names_of(["towers.models:TwoTower", None, "towers.models:encode"])
        ['towers.models']
    """
    found = [match.group(1) for word in words if word is not None and (match := _NAME.fullmatch(word))]
    return list(dict.fromkeys(found))
