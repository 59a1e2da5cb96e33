"""Public data sets by name: what they are, under which terms, and a checked way to read the files one has got."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from graphunlearn.data.interaction import EDGE_TYPE, InteractionGraph

__all__ = ["ROOT_VARIABLE", "Card", "File", "Part", "Split", "available", "load"]

ROOT_VARIABLE = "GRAPHUNLEARN_DATA"


class Split(NamedTuple):
    """A data set that its publisher divided; both graphs number users and items as ``train`` does."""

    train: InteractionGraph
    test: InteractionGraph


@dataclass(frozen=True)
class File:
    """One published form of a part of a data set.

    Args:
        name: File name.
        bytes: Size, where known.
        sha256: Digest of the file, where known.
        read: Arguments of :meth:`~graphunlearn.InteractionGraph.from_file`.
    """

    name: str
    bytes: int | None
    sha256: str | None
    read: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of a data set, ``"all"``, ``"train"`` or ``"test"``, in any of several files.

    Args:
        name: Name of the part.
        num_interactions: Number of its rows.
        files: The files that it may come in; the first one found is read.
    """

    name: str
    num_interactions: int
    files: tuple[File, ...]

    def path(self, folder: Path) -> Path | None:
        """Return the first of the files that lies in ``folder``, if any."""
        return next((folder / file.name for file in self.files if (folder / file.name).is_file()), None)


@dataclass(frozen=True)
class Card:
    """What is known about a public data set.

    Args:
        name: The name to :func:`load` it by, and that of its folder.
        title: Its full name.
        description: What the interactions are.
        url: Where its owner publishes it.
        source: Where the files named here are published.
        terms: Under which terms.
        citation: What to cite.
        num_users: Number of users.
        num_items: Number of items.
        num_interactions: Number of interactions in all parts.
        columns: What is read of every interaction, and what it means.
        by_hand: Which files to take from there.
        parts: Its parts and their files.
    """

    name: str
    title: str
    description: str
    url: str
    source: str
    terms: str
    citation: str
    num_users: int
    num_items: int
    num_interactions: int
    columns: dict[str, str]
    by_hand: str
    parts: tuple[Part, ...]

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card."""
        card = json.loads(text)
        parts = card.pop("parts")
        files = {name: tuple(File(**file) for file in part.pop("files")) for name, part in parts.items()}
        return cls(**card, parts=tuple(Part(name, files=files[name], **part) for name, part in parts.items()))

    @property
    def how_to_get(self) -> str:
        """What to do by hand to have the files."""
        return f"{self.by_hand} Source: {self.source}. Terms: {self.terms}"

    def is_found(self, root: str | os.PathLike[str] | None = None) -> bool:
        """Whether all parts lie in the sub-folder of this name; ``root`` as for :func:`load`."""
        folder = _root(root)
        return folder is not None and all(part.path(folder / self.name) for part in self.parts)


@cache
def _cards() -> dict[str, Card]:
    folder = resources.files(__package__) / "cards"
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".json")]
    return {card.name: card for card in sorted(map(Card.from_json, texts), key=lambda card: card.num_interactions)}


def _root(root: str | os.PathLike[str] | None) -> Path | None:
    given = root if root is not None else os.environ.get(ROOT_VARIABLE) or None
    return None if given is None else Path(given).expanduser()


def available() -> list[Card]:
    """Return the cards of all data sets that :func:`load` knows, small ones first.

    Example:
        >>> [card.name for card in available()]
        ['lastfm', 'ml-100k', 'ml-1m', 'gowalla']
    """
    return list(_cards().values())


def load(name: str, root: str | os.PathLike[str] | None = None) -> InteractionGraph | Split:
    """Read a public data set from files that are already on this machine, and check that they are the published ones.

    The files are looked for in the folder ``root/name``. Nothing is downloaded: the terms of most sets are accepted on
    their owners' pages. Every file must have its known SHA-256; where none is known, the counts must be right.

    Args:
        name: One of the names in :func:`available`.
        root: Folder of data sets (default: the one that the environment variable ``GRAPHUNLEARN_DATA`` names).

    Returns:
        The graph, or ``Split(train, test)`` where the set comes divided. Test rows with a user or an item that the
        training part does not have are left out, and counted in ``test.num_left_out``.

    Raises:
        FileNotFoundError: If a file is not there; the message says where to get it.
        ValueError: If there is no set of this name, or a file is not the published one.

    Example:
        >>> train, test = load("gowalla", root="data")  # doctest: +SKIP
    """
    if name not in _cards():
        close = difflib.get_close_matches(str(name), _cards(), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"'name' must be one of {', '.join(map(repr, _cards()))} (got {name!r}{hint})")
    card, folder = _cards()[name], _root(root)
    if folder is None:
        raise FileNotFoundError(
            f"'root' must be the folder of data sets, as an argument or in the environment variable {ROOT_VARIABLE} "
            f"(got neither); make one with a folder '{name}' in it. {card.how_to_get}"
        )
    graphs: list[InteractionGraph] = []
    for part in card.parts:
        like = graphs[0] if graphs else None
        graphs.append(_read(card, part, folder / name, like))
    return Split(*graphs) if len(graphs) == 2 else graphs[0]


def _read(card: Card, part: Part, folder: Path, like: InteractionGraph | None) -> InteractionGraph:
    path = part.path(folder)
    if path is None:
        wanted = " or ".join(f"'{file.name}'" for file in part.files)
        raise FileNotFoundError(
            f"'root' must hold {wanted} of the data set '{card.name}' in '{folder}' (got no such file). "
            f"{card.how_to_get}"
        )
    file = next(file for file in part.files if file.name == path.name)
    if file.sha256 is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != file.sha256:
            raise ValueError(
                f"'{path}' must be the published file, with SHA-256 {file.sha256} (got {digest}): "
                f"it is another version, or cut off. {card.how_to_get}"
            )
    graph = InteractionGraph.from_file(path, **file.read, like=like)
    rows = graph.num_interactions + graph.num_left_out
    if rows != part.num_interactions:
        raise ValueError(f"'{path}' must hold {part.num_interactions} distinct interactions (got {rows})")
    for key in {"rating", "time", "label"} - card.columns.keys():
        graph[EDGE_TYPE].pop(key, None)  # what the file has in such columns is nothing of the kind
    return graph
