"""Errors and warnings of the library in the words of the command line: options instead of parameters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from graphunlearn.cli._options import offered_models
from graphunlearn.cli._text import WORDS, listed
from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, PLACES, ColumnError, plain
from graphunlearn.nn import kind_of

__all__ = ["models_of", "naming_option", "reading"]

COLUMNS = {**INTERACTIONS.roles, **CLICKS.roles, "position": PLACES.roles["position"]}
"""Names in common use of every role's column."""
TELLING = {"user": "session", "session": "user"}
"""The column that tells what a file is that lacks one of these."""
PHRASES = (
    (r"'(path|index)'", r"'{option}'"),
    (r"'like' must know some of the ([\w ]+\w)", r"'{option}' must hold some of the \1 of '--data'"),
    (
        r"(\d+ of \d+ \w+) were left out: 'like' does not know",
        r"\1 of '{option}' were left out: '--data' does not know",
    ),
    (r"^(1 of .+) were left out", r"\1 was left out"),
)
"""What the library says of a file, and what is to be said of the option that names it."""


@contextmanager
def reading(option: str, model: str | None = None) -> Iterator[None]:
    """Let what is said about a file name the option that asked for it.

    Args:
        option: The option.
        model: The model that is to learn from the file, if one is.

    Raises:
        ValueError: The file cannot be read.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    except ColumnError as error:
        raise ValueError(_lacking(error, model)) from error
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(_reworded(str(error), option)) from error
    finally:
        for warning in caught:
            text = _reworded(str(warning.message), option)
            warnings.showwarning(warning.category(text), warning.category, warning.filename, warning.lineno)


def naming_option(error: ValueError, command: Any) -> ValueError:
    """Return the error with the option in place of the parameter that it begins with, where the command has it.

    Example:
        >>> from graphunlearn.cli._options import Learning
        >>> naming_option(ValueError("'weight_decay' must not be negative (got -1.0)"), Learning())
        ValueError("'--weight-decay' must not be negative (got -1.0)")
    """
    match = re.match(r"'(\w+)'", str(error))
    if match is None or match[1] not in _options(command):
        return error
    return ValueError(f"'--{match[1].replace('_', '-')}'{str(error)[match.end() :]}")


def models_of(kind: str) -> list[str]:
    """Return the names of the models of a kind that can be trained."""
    return [name for name in offered_models() if kind_of(name) == kind]


def _options(command: Any) -> set[str]:
    """The options of a command, as its fields are called."""
    names: set[str] = set()
    for field in fields(command):
        value = getattr(command, field.name)
        names |= _options(value) if is_dataclass(value) else {field.name}
    return names


def _reworded(text: str, option: str) -> str:
    for pattern, replacement in PHRASES:
        text = re.sub(pattern, replacement.format(option=option), text)
    return text


def _lacking(error: ColumnError, model: str | None) -> str:
    """What file lacks which column, and what to do about it."""
    names = {plain(name) for name in error.names}
    said = str(error).partition("; name it with")[0]
    other = TELLING.get(error.role)
    if model is not None and other is not None and names & set(COLUMNS[other]):
        kind = next(kind for kind in WORDS if kind != kind_of(model))
        what = "clicks in sessions" if kind == "sessions" else "interactions of users and items"
        return f"{said}; the file looks like {what}, which '--model {listed(models_of(kind), 'or')}' reads)"
    return f"{said}; it is known by names such as {listed(COLUMNS[error.role][:6], 'or')})"
