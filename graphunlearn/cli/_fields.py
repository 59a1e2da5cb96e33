"""Types of options, and groups of options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from tyro.conf import Positional, UseAppendAction, arg


def optional(metavar: str) -> Any:
    """Return the help entry of an optional option, without the default ``None``."""
    return arg(metavar=metavar, help_behavior_hint="")


def several(metavar: str) -> Any:
    """Return the help entry of an option with several values; if the option is repeated, the values are joined."""
    return arg(metavar=metavar, help_behavior_hint="(can be repeated)")


Int: TypeAlias = Annotated[int | None, optional("INT")]
Float: TypeAlias = Annotated[float | None, optional("FLOAT")]
File: TypeAlias = Annotated[Path | None, optional("FILE")]
Folder: TypeAlias = Annotated[Path | None, optional("DIR")]
Out: TypeAlias = Annotated[Path, arg(metavar="DIR")]
RunFolder: TypeAlias = Annotated[Positional[Path], arg(metavar="RUN")]
Ids: TypeAlias = Annotated[tuple[tuple[str, ...], ...], UseAppendAction, several("ID ...")]
Files: TypeAlias = Annotated[tuple[tuple[Path, ...], ...], UseAppendAction, several("FILE ...")]
Settings: TypeAlias = Annotated[tuple[tuple[str, ...], ...], UseAppendAction, several("NAME=VALUE ...")]


@dataclass(frozen=True, kw_only=True)
class Running:
    """Options that set the device, and how results are written and printed."""

    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace the output of an earlier command."""
    json: bool = False
    """Print JSON, and nothing else, on standard output."""


@dataclass(frozen=True, kw_only=True)
class Printing:
    """Options of commands that only print their result."""

    json: bool = False
    """Print JSON, and nothing else, on standard output."""
