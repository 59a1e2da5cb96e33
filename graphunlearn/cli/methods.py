"""Methods by name, and their options from text."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from graphunlearn.data import InteractionGraph
from graphunlearn.nn import FitSettings, Objective
from graphunlearn.operators import IFRU, Retrain, Unlearner, registry

__all__ = ["build_method", "method_names", "options_of", "rebuild_method"]


class PublishedIFRU(IFRU):
    """IFRU as its public code has it, under a name of its own in tables."""


PublishedIFRU.name = "ifru-published"
_CLASSES = (bool, int, float, str)


def method_names() -> list[str]:
    """Return the names of all methods."""
    return sorted([*registry, PublishedIFRU.name])


def build_method(
    name: str,
    objective: Objective,
    *,
    options: Sequence[str] = (),
    seed: int | None = None,
    validation: InteractionGraph | None = None,
    settings: FitSettings | None = None,
) -> Unlearner:
    """Return a method, configured.

    Args:
        name: One of :func:`method_names`.
        objective: The loss the model was trained with.
        options: Settings of the method as ``NAME=VALUE``.
        seed: Seed of the method, where it has one.
        validation: Early stopping, for a method that trains anew.
        settings: Training settings, for a method that trains anew.

    Raises:
        ValueError: The name or an option is unknown, or a value is not of its type.

    Example:
        >>> from graphunlearn import BPR
        >>> build_method("ifru", BPR(), options=["damping=0.3"]).damping
        0.3
    """
    if name not in method_names():
        raise ValueError(f"the method must be one of {', '.join(method_names())} (got {name!r}{_meant(name)})")
    cls = registry.get(name, PublishedIFRU)
    known = _simple_fields(cls)
    values: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise ValueError(f"'--option' must be NAME=VALUE (got {option!r})")
        if key not in known:
            offer = f"an option of {name}, {', '.join(known)}" if known else f"left out, since {name} has none"
            raise ValueError(f"'--option' must be {offer} (got {key!r}{_meant(key, known)})")
        values[key] = _convert(key, text, known[key])
    given: dict[str, Any] = {"objective": objective, "validation": validation}
    if settings is not None:
        given["settings"] = settings if seed is None else replace(settings, seed=seed)
    if seed is not None:
        given["seed"] = seed
    names = {f.name for f in _init(cls)}
    start = cls.as_published() if issubclass(cls, PublishedIFRU) else cls()
    return replace(start, **{key: value for key, value in given.items() if key in names} | values)


def options_of(method: Unlearner) -> dict[str, Any]:
    """Return the settings of a method that can be written down and given again."""
    return {name: getattr(method, name) for name in _simple_fields(type(method))}


def rebuild_method(name: str, objective: Objective, options: dict[str, Any]) -> Unlearner | None:
    """Return the method with the settings of :func:`options_of`; none where it trains anew, or is not known here."""
    cls = PublishedIFRU if name == PublishedIFRU.name else registry.get(name)
    if cls is None or issubclass(cls, Retrain):
        return None
    own = {"objective": objective} if "objective" in {f.name for f in _init(cls)} else {}
    return cls(**own | {key: value for key, value in options.items() if key in _simple_fields(cls)})


def _init(cls: type[Unlearner]) -> list[Any]:
    return [f for f in fields(cls) if f.init]


def _simple_fields(cls: type[Unlearner]) -> dict[str, Any]:
    """Name and type of the fields that a word on the command line can set."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in _init(cls) if all(_is_simple(kind) for kind in _members(hints[f.name]))}


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_simple(kind: Any) -> bool:
    return kind in (*_CLASSES, type(None)) or get_origin(kind) is Literal


def _convert(name: str, text: str, kind: Any) -> Any:
    """Return the value that ``text`` stands for in a field of type ``kind``."""
    for member in _members(kind):
        if member is type(None) and text.lower() == "none":
            return None
        if get_origin(member) is Literal and text in get_args(member):
            return text
        if member is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if member in (int, float, str):
            try:
                return member(text)
            except ValueError:
                continue
    wanted = " or ".join(_told(member) for member in _members(kind))
    raise ValueError(f"'--option {name}' must be {wanted} (got {text!r})")


def _told(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(map(str, get_args(member)))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
    return words[member]


def _meant(word: str, known: Iterable[str] | None = None) -> str:
    close = difflib.get_close_matches(word, list(known if known is not None else method_names()), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
