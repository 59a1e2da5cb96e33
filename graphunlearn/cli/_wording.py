"""Errors and warnings of the library, reworded for the command line: with options in place of parameters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from graphunlearn.cli._options import models_of
from graphunlearn.cli._reading import COLUMNS
from graphunlearn.cli._text import listed
from graphunlearn.errors import ArgumentError, ExistsError

if TYPE_CHECKING:
    from graphunlearn.data.io.columns import ColumnError
    from graphunlearn.data.io.left_out import LeftOutWarning
    from graphunlearn.datasets import Card

OTHER = {
    "user": ("session", "sessions", "clicks in sessions"),
    "session": ("user", "interactions", "interactions of users and items"),
}
"""For each missing column: the column that identifies a file of the other kind, this kind, and its content in words."""


@contextmanager
def reading(option: str, model: str | None = None, known: str = "'--data'") -> Iterator[None]:
    """Reword the errors and warnings of a block that reads the file or the ids of an option.

    Args:
        option: The option.
        model: Name of the model that learns from the file, if one does.
        known: What contains the users and items that are known, in words.

    Raises:
        ArgumentError: The file or an id is wrong.
    """
    from graphunlearn.data.io.columns import ColumnError
    from graphunlearn.data.io.left_out import LeftOutWarning, UnknownError

    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    except UnknownError as error:
        raise ArgumentError(option, f"hold some of the {error.nodes} of {known}", error.got) from error
    except ColumnError as error:
        named = error.renamed(hint=_column_hint(error, model))
        named.expected += f", or one that '--{error.role}-column' names"
        raise named from error
    except ArgumentError as error:
        name = {"path": option, "index": option, "max_size": "--max-size", "lists": "--lists"}.get(error.argument)
        name = f"--{error.argument}-column" if error.argument in COLUMNS else name
        raise error.renamed(name, hint=as_options(error.hint)) from error
    finally:
        for warning in caught:
            told = warning.message
            if isinstance(told, LeftOutWarning):
                told = UserWarning(_left_out(told, option, known))
            elif issubclass(warning.category, UserWarning):
                told = UserWarning(as_options(str(told)))
            warnings.showwarning(told, warning.category, warning.filename, warning.lineno)


def as_options(text: str) -> str:
    """Return advice of a reader with options in place of its arguments.

    Args:
        text: The advice.

    Example:
        >>> as_options("lists=True reads lists, or user=0, item=1 takes the columns")
        "'--lists' reads lists, or '--user-column 0', '--item-column 1' takes the columns"
    """
    options = {"lists=True": "--lists", "'header=True'": "--header", "'header=False'": "--no-header"}
    for name, option in (options | {"'max_size'": "--max-size"}).items():
        text = text.replace(name, f"'{option}'")
    text = re.sub(rf"\b({'|'.join(COLUMNS)})=(\d+)\b", r"'--\1-column \2'", text)
    return re.sub(r"\bsep=('[^']*')", r"--sep \1", text)


def naming_option(error: ArgumentError, command: Any) -> ArgumentError:
    """Return an error of the library with the option in place of the argument, and a hint for the command line.

    Args:
        error: The error.
        command: The command, whose fields are its options.

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
    groups = [command, *filter(is_dataclass, vars(command).values())]
    known = any(error.argument in vars(group) for group in groups)
    if error.argument == "validation" and not known:
        hint = "'import' and 'train' give a run a validation part, with '--validation' or '--split'"
        error = error.renamed(hint=f"{hint}; other methods need none")
    return error.renamed(f"--{error.argument.replace('_', '-')}" if known else None)


def how_to_get(card: Card) -> str:
    """Return the instructions for getting the files of a data set."""
    command = f"'graphunlearn datasets --download {card.name} --root DIR' gets them. By hand: "
    return f"{command if card.download else ''}{card.by_hand}"


def _left_out(warning: LeftOutWarning, option: str, known: str) -> str:
    were = "was" if warning.count == 1 else "were"
    what = f"{warning.count} of {warning.total} {warning.unit} of '{option}' {were} left out"
    return f"{what}: {known} does not contain their {warning.nodes}"


def _column_hint(error: ColumnError, model: str | None) -> str:
    """Return the hint of an error about a missing column: another model if the file is of the other kind, or names."""
    from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, PLACES, plain

    names = {**INTERACTIONS.roles, **CLICKS.roles, "position": PLACES.roles["position"]}
    if model is not None and error.role in OTHER:
        role, kind, what = OTHER[error.role]
        if {plain(name) for name in error.names} & set(names[role]):
            option = f"--kind {kind}" if ":" in model else f"--model {listed(models_of(kind), 'or')}"
            return f"the file looks like {what}, which '{option}' reads"
    return f"it is known by names such as {listed(names[error.role][:6], 'or')}"
