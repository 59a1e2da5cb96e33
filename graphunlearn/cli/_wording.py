"""Errors and warnings of the library in the words of the command line: options instead of parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from graphunlearn.cli._options import offered_models
from graphunlearn.cli._text import WORDS, listed
from graphunlearn.errors import ArgumentError, ExistsError

if TYPE_CHECKING:
    from graphunlearn.data.io.columns import ColumnError
    from graphunlearn.data.io.left_out import LeftOutWarning
    from graphunlearn.datasets import Card

__all__ = ["how_to_get", "models_of", "naming_option", "reading"]

TELLING = {"user": "session", "session": "user"}
"""The column that tells what a file is that lacks one of these."""
ASKED = frozenset({"path", "index"})
"""Arguments of the library that an option names the value of when a file is read or ids are given."""


@contextmanager
def reading(option: str, model: str | None = None) -> Iterator[None]:
    """Let what is said about a file name the option that asked for it.

    Args:
        option: The option.
        model: The model that is to learn from the file, if one is.

    Raises:
        ValueError: The file cannot be read.
    """
    from graphunlearn.data.io.columns import ColumnError
    from graphunlearn.data.io.left_out import LeftOutWarning, UnknownError

    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    except UnknownError as error:
        raise ArgumentError(option, f"hold some of the {error.nodes} of '--data'", error.got) from error
    except ColumnError as error:
        raise error.renamed(hint=_what_to_do(error, model)) from error
    except ArgumentError as error:
        raise error.renamed(option if error.argument in ASKED else None) from error
    finally:
        for warning in caught:
            told = warning.message
            if isinstance(told, LeftOutWarning):
                told = UserWarning(_left_out(told, option))
            warnings.showwarning(told, warning.category, warning.filename, warning.lineno)


def naming_option(error: ArgumentError, command: Any) -> ArgumentError:
    """Return the error with the command's option in place of the argument, and with what the command line has to add.

    Example:
        >>> from graphunlearn.cli._options import Learning
        >>> str(naming_option(ArgumentError("weight_decay", "not be negative", -1.0), Learning()))
        "'--weight-decay' must not be negative (got -1.0)"
    """
    from graphunlearn.ledger.entry import PendingError

    if isinstance(error, ExistsError):
        error = error.renamed(hint="'--overwrite' replaces it")
    elif isinstance(error, PendingError):
        error = error.renamed(hint=f"{error.hint}, or run 'graphunlearn ledger resume {error.path}'")
    known = error.argument in _options(command)
    return error.renamed(f"--{error.argument.replace('_', '-')}" if known else None)


def how_to_get(card: Card) -> str:
    """Return what to do to have the files of a data set."""
    command = f"'graphunlearn datasets --download {card.name} --root DIR' gets them. By hand: "
    return f"{command if card.download else ''}{card.by_hand}"


def models_of(kind: str) -> list[str]:
    """Return the names of the models of a kind that can be trained."""
    from graphunlearn.nn import kind_of

    return [name for name in offered_models() if kind_of(name) == kind]


def _options(command: Any) -> set[str]:
    """The options of a command, as its fields are called."""
    names: set[str] = set()
    for field in fields(command):
        value = getattr(command, field.name)
        names |= _options(value) if is_dataclass(value) else {field.name}
    return names


def _left_out(warning: LeftOutWarning, option: str) -> str:
    were = "was" if warning.count == 1 else "were"
    what = f"{warning.count} of {warning.total} {warning.unit} of '{option}' {were} left out"
    return f"{what}: '--data' does not know their {warning.nodes}"


def _what_to_do(error: ColumnError, model: str | None) -> str:
    """What to do about a column that a file lacks."""
    from graphunlearn.data.io.columns import plain
    from graphunlearn.nn import kind_of

    names = {plain(name) for name in error.names}
    other = TELLING.get(error.role)
    if model is not None and other is not None and names & set(_columns()[other]):
        kind = next(kind for kind in WORDS if kind != kind_of(model))
        what = "clicks in sessions" if kind == "sessions" else "interactions of users and items"
        return f"the file looks like {what}, which '--model {listed(models_of(kind), 'or')}' reads"
    return f"it is known by names such as {listed(_columns()[error.role][:6], 'or')}"


def _columns() -> dict[str, tuple[str, ...]]:
    """Return names in common use of every role's column."""
    from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, PLACES

    return {**INTERACTIONS.roles, **CLICKS.roles, "position": PLACES.roles["position"]}
