"""Public data sets by name, read from their files and checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.data.session import SessionGraph
from graphunlearn.datasets.card import Card, Form, card_of, needed_folder
from graphunlearn.datasets.downloading import download as download_set
from graphunlearn.datasets.reading import check_digest, read_part
from graphunlearn.errors import FileError

__all__ = ["SessionSplit", "Split", "load"]


class Split(NamedTuple):
    """A data set with separate training and test files; both graphs use the user and item numbers of ``train``."""

    train: InteractionGraph
    test: InteractionGraph


class SessionSplit(NamedTuple):
    """A data set of sessions with separate training and test files; both graphs use the item numbers of ``train``."""

    train: SessionGraph
    test: SessionGraph


def load(
    name: str, root: str | os.PathLike[str] | None = None, *, download: bool = False
) -> InteractionGraph | Split | SessionGraph | SessionSplit:
    """Read a public data set from the files in the folder ``root/name``, and check that they are the published ones.

    Every file must have the SHA-256 on its card or, if the card has none, the one that was recorded when the file was
    first downloaded. Its counts must be those of the card.

    Args:
        name: One of the names in :func:`available`.
        root: Folder of data sets (default: the one that the environment variable ``GRAPHUNLEARN_DATA`` names).
        download: Whether to download missing files with :func:`download`, under the terms on the card.

    Returns:
        The graph of interactions or of sessions; for a data set with separate training and test files, the graphs of
        both. Test rows whose user or item is not in the training part are left out and counted in
        ``test.num_left_out``.

    Raises:
        FileNotFoundError: A file is missing; the message says where to get it.
        ValueError: There is no data set of this name, or a file is not the published one.
        DownloadError: A file could not be downloaded.

    Example:
        >>> train, test = load("gowalla", root="data")  # doctest: +SKIP
    """
    card = card_of(name)
    folder = needed_folder(card, root)
    form = card.form_in(folder)
    if form is None and download:
        download_set(name, root)
        form = card.form_in(folder)
    if form is None:
        raise _missing(card, folder)
    graphs: list[Any] = []
    for part in form.parts:
        file = part.found(folder)
        if file is None:  # removed in the meantime
            raise _missing(card, folder)
        check_digest(card, folder / file.name, file)
        graphs.append(read_part(card, form, part, file, folder / file.name, graphs[0] if graphs else None))
    if len(graphs) == 2:
        return Split(*graphs) if card.kind == "interactions" else SessionSplit(*graphs)
    graph: InteractionGraph | SessionGraph = graphs[0]
    return graph


def _missing(card: Card, folder: Path) -> FileError:
    """Return the error about the first missing file of the form that has most of its parts in ``folder``."""

    def parts_found(form: Form) -> int:
        return sum(part.found(folder) is not None for part in form.parts)

    nearest = max(card.forms, key=parts_found)
    part = next((part for part in nearest.parts if part.found(folder) is None), nearest.parts[0])
    wanted = " or ".join(f"'{file.name}'" for file in part.files)
    expected = f"hold {wanted} of the data set '{card.name}' in '{folder}'"
    return FileError("root", expected, "no such file", card.how_to_get)
