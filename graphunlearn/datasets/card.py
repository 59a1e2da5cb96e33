"""Cards of public data sets: contents, terms of use, files and download addresses."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from graphunlearn.errors import ArgumentError, FileError

__all__ = ["ROOT_VARIABLE", "Archive", "Card", "File", "Form", "Part", "available", "card_of", "folder_of"]

ROOT_VARIABLE = "GRAPHUNLEARN_DATA"
UNITS = {"interactions": ("users", "items", "interactions"), "sessions": ("sessions", "items", "clicks")}
"""The things that are counted in a data set of each kind; every row of a file is one of the last kind of things."""


@dataclass(frozen=True)
class Published:
    """A published file or archive.

    Args:
        name: File name.
        bytes: Size, if known.
        sha256: SHA-256 in hexadecimal, if known.
        md5: MD5 in hexadecimal, if the publisher gives it; without a SHA-256, a download must have it.
        mirrors: Addresses to download it from, in the order in which they are tried.
    """

    name: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mirrors", tuple(self.mirrors))
        if self.name in {"", ".", ".."} or Path(self.name).name != self.name:
            raise ArgumentError("name", "be the name of a file, without a folder", f"{self.name!r}")

    @property
    def known(self) -> str:
        """The size and the digests of the file, as far as they are known, as text."""
        size = [] if self.bytes is None else [f"{self.bytes:,} bytes"]
        digests = [f"{kind} {value}" for kind, value in (("SHA-256", self.sha256), ("MD5", self.md5)) if value]
        return ", ".join(size + digests) or "no size or digest is known"


@dataclass(frozen=True)
class Archive(Published):
    """A ``.zip`` file that contains a file of a data set as its ``member``."""

    member: str = ""


@dataclass(frozen=True)
class File(Published):
    """One published form of a part of a data set.

    Args:
        read: Arguments for the ``from_file`` method of the graph.
        archive: The archive that it is published in, if it is.
    """

    read: dict[str, Any] = field(default_factory=dict)
    archive: Archive | None = None

    @property
    def source(self) -> Published:
        """The file to download: the archive if there is one, or else the file itself."""
        return self.archive or self


@dataclass(frozen=True)
class Part:
    """A part of a data set, which is published as one file or as several equivalent ones.

    Args:
        name: ``"all"``, ``"train"`` or ``"test"``.
        rows: Number of its distinct interactions, or of its clicks.
        files: The equivalent files; the first one found is read.
    """

    name: str
    rows: int
    files: tuple[File, ...]

    def found(self, folder: Path) -> File | None:
        """Return the first of the files that is in ``folder``, if any."""
        return next((file for file in self.files if (folder / file.name).is_file()), None)

    @property
    def downloadable(self) -> File | None:
        """The first of the files that can be downloaded, if any."""
        return next((file for file in self.files if file.source.mirrors), None)


@dataclass(frozen=True)
class Form:
    """One published form of a data set, such as the original one, or one that others have divided into parts.

    Args:
        title: Description of the form.
        source: Where its files are published.
        counts: Numbers of users, items and interactions in all parts, or of sessions, items and clicks.
        columns: The columns that are read, and their meaning.
        by_hand: Instructions to get the files from the source without :func:`download`.
        checksum_source: Where the digests and counts come from, and which of them are unknown.
        parts: Its parts, ``"all"`` or ``"train"`` and ``"test"``.
    """

    title: str
    source: str
    counts: dict[str, int]
    columns: dict[str, str]
    by_hand: str
    checksum_source: str
    parts: tuple[Part, ...]

    def is_found(self, folder: Path) -> bool:
        """Whether all parts are in ``folder``."""
        return all(part.found(folder) for part in self.parts)

    @property
    def is_downloadable(self) -> bool:
        """Whether all parts can be downloaded."""
        return all(part.downloadable for part in self.parts)


@dataclass(frozen=True)
class Card:
    """The description of a public data set.

    Args:
        name: Its name, which is also the argument of :func:`load` and the name of its folder.
        title: Its full name.
        kind: ``"interactions"`` of users and items, or ``"sessions"`` of clicks.
        description: Meaning of the rows.
        url: Where its owner publishes it.
        terms: The terms of use.
        citation: The publications to cite.
        forms: The forms it is published in; the first one found in its folder is read.
    """

    name: str
    title: str
    kind: str
    description: str
    url: str
    terms: str
    citation: str
    forms: tuple[Form, ...]

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Return the card that a JSON text describes."""
        card = json.loads(text)
        return cls(**card | {"forms": tuple(map(_form, card["forms"]))})

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of users, items and interactions, or of sessions, items and clicks, in the first form."""
        return self.forms[0].counts

    @property
    def download(self) -> Form | None:
        """The form that can be downloaded, if any."""
        return next((form for form in self.forms if form.is_downloadable), None)

    @property
    def download_bytes(self) -> int | None:
        """The size of the download in bytes, if known."""
        parts = () if self.download is None else self.download.parts
        sizes = [part.downloadable.source.bytes for part in parts if part.downloadable is not None]
        return None if not sizes or None in sizes else sum(filter(None, sizes))

    @property
    def by_hand(self) -> str:
        """How to get the files by hand, as text."""
        ways = [f"{form.by_hand} Source: {form.source}." for form in self.forms]
        return f"{' Or: '.join(ways)} Terms: {self.terms}"

    @property
    def how_to_get(self) -> str:
        """How to get the files, as text."""
        call = f"graphunlearn.datasets.download({self.name!r}, root) gets them. By hand: " if self.download else ""
        return call + self.by_hand

    def form_in(self, folder: Path) -> Form | None:
        """Return the first form of which all parts are in ``folder``, if any."""
        return next((form for form in self.forms if form.is_found(folder)), None)

    def is_found(self, root: str | os.PathLike[str] | None = None) -> bool:
        """Whether the folder ``root/name`` has all parts of a form; ``root`` has the default of :func:`load`."""
        folder = folder_of(root)
        return folder is not None and self.form_in(folder / self.name) is not None


def _form(form: dict[str, Any]) -> Form:
    files = {name: tuple(map(_file, part["files"])) for name, part in form["parts"].items()}
    parts = tuple(Part(name, **part | {"files": files[name]}) for name, part in form["parts"].items())
    return Form(**form | {"parts": parts})


def _file(file: dict[str, Any]) -> File:
    archive = file.get("archive")
    return File(**file | {"archive": None if archive is None else Archive(**archive)})


@cache
def _cards() -> dict[str, Card]:
    folder = resources.files(__package__) / "cards"
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".json")]
    return {card.name: card for card in sorted(map(Card.from_json, texts), key=lambda card: max(card.counts.values()))}


def available(kind: str | None = None) -> list[Card]:
    """Return the cards of all data sets that :func:`load` knows, in order of size.

    Args:
        kind: ``"interactions"`` or ``"sessions"`` for the data sets of this kind only (default: all).

    Raises:
        ValueError: There is no such kind.

    Example:
        >>> [card.name for card in available("interactions")]
        ['lastfm', 'ml-100k', 'ml-1m', 'gowalla', 'yelp2018', 'amazon-book']
        >>> [card.name for card in available("sessions")]
        ['yoochoose-100k', 'diginetica', 'yoochoose']
    """
    if kind is not None and kind not in UNITS:
        raise ArgumentError("kind", f"be one of {', '.join(map(repr, UNITS))}", f"{kind!r}")
    return [card for card in _cards().values() if kind in (None, card.kind)]


def card_of(name: str) -> Card:
    """Return the card of the data set of this name.

    Raises:
        ValueError: There is no such data set.
    """
    cards = _cards()
    if name not in cards:
        close = difflib.get_close_matches(str(name), cards, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ArgumentError("name", f"be one of {', '.join(map(repr, cards))}", f"{name!r}{hint}")
    return cards[name]


def folder_of(root: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of data sets: the one given, or else the one that the environment variable names, if any.

    Raises:
        ValueError: It is in the home folder (``~name``) of an unknown user.
    """
    given = root if root is not None else os.environ.get(ROOT_VARIABLE) or None
    try:
        return None if given is None else Path(given).expanduser()
    except RuntimeError:
        argument = ROOT_VARIABLE if root is None else "root"
        raise ArgumentError(argument, "be a folder", f"'{given}', whose home folder is not known") from None


def needed_folder(card: Card, root: str | os.PathLike[str] | None) -> Path:
    """Return the folder of a data set.

    Raises:
        FileNotFoundError: Neither ``root`` nor the environment variable gives the folder of data sets.
    """
    folder = folder_of(root)
    if folder is None:
        expected = f"be the folder of data sets, as an argument or in the environment variable {ROOT_VARIABLE}"
        hint = f"make one with a folder '{card.name}' in it. {card.how_to_get}"
        raise FileError("root", expected, "neither", hint)
    return folder / card.name
