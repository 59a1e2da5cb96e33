"""Methods by name, and their options from text."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from graphunlearn.cli._text import WORDS, listed
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.nn import Criterion, FitSettings
    from graphunlearn.operators import Unlearner
    from graphunlearn.runs.run import Graph, ModelSpec

__all__ = [
    "BENCHED",
    "DEFAULT",
    "build_method",
    "check_method",
    "meant",
    "method_names",
    "options_of",
    "parse_options",
    "preparable",
    "rebuild_method",
    "serving",
]

DEFAULT = {"interactions": "ifru", "sessions": "cau"}
"""The method that forgets where none is named, by kind of graph."""
BENCHED = {
    "interactions": ("ifru", "unlink", "unlink-redraw", "finetune", "ascent"),
    "sessions": ("cau", "ascent", "ascent-finetune", "finetune", "unlink", "unlink-redraw"),
}
"""The methods that are compared where none are named, by kind of graph."""
_CLASSES = (bool, int, float, str)


def method_names() -> list[str]:
    """Return the names of all methods."""
    from graphunlearn.operators import registry

    return sorted(registry)


def preparable() -> list[str]:
    """Return the names of the methods whose preparation can be kept on disk."""
    from graphunlearn.operators import registry

    return [name for name in method_names() if registry[name].keeps is not None]


def serving() -> list[str]:
    """Return the names of the methods that forget from a model as it is, or with a preparation kept on disk."""
    from graphunlearn.operators import registry

    return [name for name in method_names() if name in preparable() or not registry[name].needs_preparation]


def check_method(name: str, spec: ModelSpec, option: str = "--method", offered: Sequence[str] | None = None) -> None:
    """Refuse a method that forgets from models of the other kind.

    Args:
        name: The method.
        spec: The model to forget from.
        option: The option that names the method.
        offered: The methods to list where another one is to be named (default: all).

    Raises:
        ValueError: It is one, or the name is unknown.
    """
    from graphunlearn.operators import registry

    offered = method_names() if offered is None else offered
    _check_name(name, option, offered)
    if spec.kind not in registry[name].kinds:
        known = [other for other in offered if spec.kind in registry[other].kinds]
        raise ArgumentError(
            option, f"be one for models of {WORDS[spec.kind]} such as {spec.name}, {listed(known, 'or')}", f"{name!r}"
        )


def build_method(
    name: str,
    objective: Criterion,
    *,
    options: Sequence[str] = (),
    seed: int | None = None,
    validation: Graph | None = None,
    settings: FitSettings | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Unlearner:
    """Return a method, configured.

    Args:
        name: One of :func:`method_names`.
        objective: The loss the model was trained with.
        options: Settings of the method as ``NAME=VALUE``.
        seed: Seed of the method, where it has one.
        validation: Early stopping, for a method that trains models.
        settings: Training settings, for a method that trains models.
        defaults: Settings that hold unless ``options`` or ``seed`` say otherwise, as :func:`options_of` returns them.

    Raises:
        ValueError: The name or an option is unknown, or a value is not of its type.

    Example:
        >>> from graphunlearn import BPR
        >>> build_method("ifru", BPR(), options=["damping=0.3"]).damping
        0.3
    """
    from graphunlearn.operators import registry

    values = parse_options(name, options)
    given = dict(defaults or {})
    if seed is not None:
        given["seed"] = seed
    names = {f.name for f in _init(registry[name])}
    made = registry[name](**{key: value for key, value in given.items() if key in names} | values)
    if settings is not None and seed is not None:
        settings = replace(settings, seed=seed)
    return made.filled(objective=objective, validation=validation, settings=settings)


def parse_options(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Return what ``NAME=VALUE`` words set in the method ``name``.

    Raises:
        ValueError: The name or an option is unknown, or a value is not of its type.

    Example:
        >>> parse_options("calibrate", ["epochs=2", "shrink=true"])
        {'epochs': 2, 'shrink': True}
    """
    from graphunlearn.operators import registry

    _check_name(name, "--method", method_names())
    known = _simple_fields(registry[name])
    values: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise ArgumentError("--option", "be NAME=VALUE", f"{option!r}")
        if key not in known:
            offer = f"an option of {name}, {', '.join(known)}" if known else f"left out, since {name} has none"
            raise ArgumentError("--option", f"be {offer}", f"{key!r}{meant(key, known)}")
        values[key] = _convert(key, text, known[key])
    return values


def options_of(method: Unlearner) -> dict[str, Any]:
    """Return the settings of a method that can be written down, as JSON holds them, and given again."""
    values = {name: getattr(method, name) for name in _simple_fields(type(method))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def rebuild_method(name: str, objective: Criterion, options: dict[str, Any]) -> Unlearner | None:
    """Return the method with the settings of :func:`options_of`; ``None`` where it is not known here.

    One that is to be prepared first is not.
    """
    from graphunlearn.operators import registry

    if name not in registry:
        return None
    cls = registry[name]
    own = {"objective": objective} if "objective" in {f.name for f in _init(cls)} else {}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return cls(**own | {key: value for key, value in given.items() if key in _simple_fields(cls)})


def _check_name(name: str, option: str, offered: Sequence[str]) -> None:
    if name not in method_names():
        raise ArgumentError(option, f"be one of {', '.join(offered)}", f"{name!r}{meant(name, offered)}")


def _init(cls: type[Unlearner]) -> list[Any]:
    return [f for f in fields(cls) if f.init]


def _simple_fields(cls: type[Unlearner]) -> dict[str, Any]:
    """Name and type of the fields that a word on the command line can set."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in _init(cls) if all(_is_simple(kind) for kind in _members(hints[f.name]))}


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_simple(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return all(part in _CLASSES for part in get_args(kind))
    return kind in (*_CLASSES, type(None)) or get_origin(kind) is Literal


def _convert(name: str, text: str, kind: Any) -> Any:
    """Return the value that ``text`` stands for in a field of type ``kind``."""
    for member in _members(kind):
        if member is type(None) and text.lower() == "none":
            return None
        if get_origin(member) is Literal and text in get_args(member):
            return text
        if get_origin(member) is tuple:
            parts = text.split(",")
            try:
                return tuple(kind(part) for kind, part in zip(get_args(member), parts, strict=True))
            except ValueError:
                continue
        if member is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if member in (int, float, str):
            try:
                return member(text)
            except ValueError:
                continue
    wanted = " or ".join(_told(member) for member in _members(kind))
    raise ArgumentError(f"--option {name}", f"be {wanted}", f"{text!r}")


def _told(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(map(str, get_args(member)))
    if get_origin(member) is tuple:
        return f"{len(get_args(member))} numbers with a comma between"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
    return words[member]


def meant(word: str, known: Iterable[str] | None = None) -> str:
    """Return a question for the end of a sentence: was the closest of ``known`` (default: all methods) meant?"""
    close = difflib.get_close_matches(word, list(known if known is not None else method_names()), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
