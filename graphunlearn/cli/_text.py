"""What the commands share: how they run and answer, and how options are shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import arg

from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    import torch

__all__ = [
    "WORDS",
    "Answer",
    "Printing",
    "Running",
    "columns",
    "counted",
    "device_of",
    "listed",
    "note",
    "optional",
    "several",
]

WORDS = {"interactions": "users and items", "sessions": "sessions"}
"""What a model of each kind is called."""


def optional(metavar: str, help: str | None = None) -> Any:
    """How an option that may be left out is shown: without the ``None`` that it then is."""
    return arg(metavar=metavar, help=help, help_behavior_hint="")


def several(metavar: str) -> Any:
    """How an option with several values is shown; given twice it adds up, or one would be forgotten to be forgotten."""
    return arg(metavar=metavar, help_behavior_hint="(can be repeated)")


class Answer(NamedTuple):
    """What a command has to say: for programs, and for people."""

    data: Any
    text: str


@dataclass(frozen=True, kw_only=True)
class Printing:
    """Output options of commands that only print their result."""

    json: bool = False
    """Print JSON, and nothing else, on standard output."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """How the command runs, and how its answer is printed."""

    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace what an earlier command wrote there."""
    json: bool = False
    """Print JSON, and nothing else, on standard output."""


def device_of(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        ValueError: There is none.
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
    """Tell what is going on, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def listed(names: Sequence[str], last: str) -> str:
    """Return names as one writes them.

    Example:
        >>> listed(["a", "b", "c"], "or")
        'a, b or c'
    """
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(count: int, noun: str) -> str:
    """Return how many there are of what is named in the plural.

    Example:
        >>> counted(1, "clicks"), counted(2000, "clicks")
        ('1 click', '2,000 clicks')
    """
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns; those in ``right`` are flush right.

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
