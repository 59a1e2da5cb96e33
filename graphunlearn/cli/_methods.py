"""Unlearning methods by name, and their options as text."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from graphunlearn.cli._text import WORDS, listed, meant
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.nn import Criterion, FitSettings
    from graphunlearn.operators import Unlearner
    from graphunlearn.runs.run import Graph, ModelSpec

DEFAULT = {"interactions": "ifru", "sessions": "cau"}
"""Default method of ``forget``, by kind of graph."""
BENCHED = {
    "interactions": ("ifru", "unlink", "unlink-redraw", "finetune", "ascent"),
    "sessions": ("cau", "ascent", "ascent-finetune", "finetune", "unlink", "unlink-redraw"),
}
"""Default methods of ``bench``, by kind of graph."""
SPELLED: dict[type, dict[str, Any]] = {bool: {"true": True, "false": False}, type(None): {"none": None}}
"""Accepted spellings of the values of types with few values."""


def _registry() -> Mapping[str, type[Unlearner]]:
    from graphunlearn.operators import registry

    return registry


def method_names() -> list[str]:
    """Return the names of all methods."""
    return sorted(_registry())


def preparable() -> list[str]:
    """Return the names of the methods whose preparation can be saved."""
    return [name for name in method_names() if _registry()[name].keeps is not None]


def serving() -> list[str]:
    """Return the names of the methods that need no preparation, or whose preparation can be saved."""
    return [name for name in method_names() if name in preparable() or not _registry()[name].needs_preparation]


def check_method(name: str, spec: ModelSpec, option: str = "--method", offered: Sequence[str] | None = None) -> None:
    """Check that a method exists and unlearns from models of one kind.

    Args:
        name: Name of the method.
        spec: The model to unlearn from.
        option: The option that names the method.
        offered: Names of the methods that an error lists; by default all.

    Raises:
        ArgumentError: There is no such method, or it does not unlearn from such models.
    """
    offered = method_names() if offered is None else offered
    _check_name(name, option, offered)
    if spec.kind not in _registry()[name].kinds:
        known = listed([other for other in offered if spec.kind in _registry()[other].kinds], "or")
        expected = f"be one for models of {WORDS[spec.kind]} such as {spec.name}, {known}"
        raise ArgumentError(option, expected, f"{name!r}")


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
    """Return a method with its options.

    Args:
        name: One of :func:`method_names`.
        objective: The loss of the model.
        options: Options of the method as ``NAME=VALUE``.
        seed: Seed of the method, if it has one.
        validation: Validation data, for methods that use them.
        settings: Training settings, for methods that train models.
        defaults: Values of :func:`options_of` for the fields that ``options`` and ``seed`` do not set.

    Raises:
        ArgumentError: The name or an option is unknown, or a value has the wrong type.

    Example:
        >>> from graphunlearn import BPR
        >>> build_method("ifru", BPR(), options=["damping=0.3"]).damping
        0.3
    """
    values = parse_options(name, options)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (defaults or {}).items()}
    given |= {} if seed is None else {"seed": seed}
    names = {f.name for f in _init(_registry()[name])}
    chosen: dict[str, Any] = {key: value for key, value in given.items() if key in names} | values
    made = _registry()[name](**chosen)
    if settings is not None and seed is not None:
        settings = replace(settings, seed=seed)
    return made.filled(objective=objective, validation=validation, settings=settings)


def parse_options(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``NAME=VALUE`` options by field.

    Args:
        name: Name of the method.
        options: The options.

    Raises:
        ArgumentError: The name or an option is unknown, or a value has the wrong type.

    Example:
        >>> parse_options("calibrate", ["epochs=2", "shrink=true"])
        {'epochs': 2, 'shrink': True}
    """
    _check_name(name, "--method", method_names())
    known = _simple_fields(_registry()[name])
    values: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise ArgumentError("--option", "be NAME=VALUE", f"{option!r}")
        if key not in known:
            offer = f"an option of {name}, {', '.join(known)}" if known else f"left out, since {name} has none"
            raise ArgumentError("--option", f"be {offer}", f"{key!r}{meant(key, known)}")
        values[key] = convert(f"--option {key}", text, known[key])
    return values


def options_of(method: Unlearner) -> dict[str, Any]:
    """Return the fields of a method that ``NAME=VALUE`` options can set, as JSON values."""
    values = {name: getattr(method, name) for name in _simple_fields(type(method))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def rebuild_method(name: str, objective: Criterion, options: dict[str, Any]) -> Unlearner | None:
    """Return a method with the values of :func:`options_of`, or ``None`` if there is no such method.

    Args:
        name: Name of the method.
        objective: The loss of the model.
        options: The values.
    """
    return build_method(name, objective, defaults=options) if name in _registry() else None


def _check_name(name: str, option: str, offered: Sequence[str]) -> None:
    if name not in method_names():
        raise ArgumentError(option, f"be one of {', '.join(offered)}", f"{name!r}{meant(name, offered)}")


def _init(cls: type[Unlearner]) -> list[Any]:
    return [f for f in fields(cls) if f.init]


def _simple_fields(cls: type[Unlearner]) -> dict[str, Any]:
    """Return the names and types of the fields that a ``NAME=VALUE`` option can set."""
    hints = get_type_hints(cls)
    simple = {f.name: hints[f.name] for f in _init(cls) if all(map(_is_simple, _members(hints[f.name])))}
    return {name: kind for name, kind in simple.items() if cls.judged or name != "on_rejection"}


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_simple(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return all(part in (bool, int, float, str) for part in get_args(kind))
    return kind in (bool, int, float, str, type(None)) or get_origin(kind) is Literal


def convert(option: str, text: str, kind: Any) -> Any:
    """Return the value of a text in a field.

    Args:
        option: The option and the name of the field.
        text: The text.
        kind: The type of the field.

    Raises:
        ArgumentError: The text is no value of this type.
    """
    for member in _members(kind):
        with suppress(ValueError, KeyError):  # the next member of the union may fit
            if member in SPELLED:
                return SPELLED[member][text.lower()]
            if get_origin(member) is Literal:
                return dict(zip(get_args(member), get_args(member)))[text]
            if get_origin(member) is tuple:
                return tuple(part(word) for part, word in zip(get_args(member), text.split(","), strict=True))
            return member(text)
    wanted = " or ".join(map(_described, _members(kind)))
    raise ArgumentError(option, f"be {wanted}", f"{text!r}")


def _described(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(map(str, get_args(member)))
    if get_origin(member) is tuple:
        return f"{len(get_args(member))} numbers with a comma between"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
    return words[member]
