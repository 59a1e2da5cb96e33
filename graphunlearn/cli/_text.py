"""Results of commands, messages, and formatting of text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graphunlearn.cli._streams import tell
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    import torch

WORDS = {"interactions": "users and items", "sessions": "sessions"}
"""The training data of models of each kind, in words."""


class Answer(NamedTuple):
    """The result of a command.

    Args:
        data: What ``--json`` prints.
        text: What the command prints otherwise.
        status: The exit status.
    """

    data: Any
    text: str
    status: int = 0


def device_of(name: str) -> torch.device:
    """Return a device by its name.

    Args:
        name: The name, such as ``"cuda"``.

    Raises:
        ArgumentError: This machine has no such device.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ArgumentError("--device", "be a device of this machine, such as cpu", f"'{name}': {reason}") from None
    return device


def note(text: str) -> None:
    """Print a message about the progress of the work on standard error."""
    tell(f"{text}\n")


def listed(names: Sequence[str], last: str) -> str:
    """Return names as a list in English.

    Args:
        names: The names, at least one.
        last: The word before the last name, such as ``"or"``.

    Example:
        >>> listed(["a", "b", "c"], "or")
        'a, b or c'
    """
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def meant(word: str, known: Iterable[str]) -> str:
    """Return a question for the end of an error, which suggests the known word that is most similar to ``word``.

    Args:
        word: The wrong word.
        known: The known words.

    Returns:
        The question; empty if no known word is similar.
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the singular if the number is 1.

    Args:
        count: The number.
        noun: The noun in the plural.

    Example:
        >>> counted(1, "clicks"), counted(2000, "clicks")
        ('1 click', '2,000 clicks')
    """
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a table with aligned columns.

    Args:
        rows: The cells of every row.
        right: Numbers of the columns that are aligned on the right.

    Example:
        >>> print(columns([["a", "1"], ["bcd", "22"]], right=[1]))
        a     1
        bcd  22
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n in right else cell.ljust(width) for n, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
