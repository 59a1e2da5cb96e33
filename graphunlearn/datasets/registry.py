"""Public data sets by name: a checked way to read the files one has got, or has them downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.data.session import SessionGraph
from graphunlearn.datasets import fetch
from graphunlearn.datasets.card import Card, Form, card_of, needed_folder
from graphunlearn.datasets.reading import check_digest, read_part

__all__ = ["SessionSplit", "Split", "load"]


class Split(NamedTuple):
    """A data set that its publisher divided; both graphs number users and items as ``train`` does."""

    train: InteractionGraph
    test: InteractionGraph


class SessionSplit(NamedTuple):
    """A data set of sessions that its publisher divided; both graphs number items as ``train`` does."""

    train: SessionGraph
    test: SessionGraph


def load(
    name: str, root: str | os.PathLike[str] | None = None, *, download: bool = False
) -> InteractionGraph | Split | SessionGraph | SessionSplit:
    """Read a public data set from its files, and check that they are the published ones.

    The files are looked for in the folder ``root/name``. Every file must have its known SHA-256, or the one that was
    recorded beside it when it was downloaded; and the counts must be right.

    Args:
        name: One of the names in :func:`available`.
        root: Folder of data sets (default: the one that the environment variable ``GRAPHUNLEARN_DATA`` names).
        download: Whether to get files that are not there, as :func:`download` does, under the terms on the card.

    Returns:
        The graph, of interactions or of sessions, or its training and test part where the set comes divided. Test rows
        with a user or an item that the training part does not have are left out, and counted in ``test.num_left_out``.

    Raises:
        FileNotFoundError: If a file is not there; the message says where to get it.
        ValueError: If there is no set of this name, or a file is not the published one.
        DownloadError: If a file could not be downloaded.

    Example:
        >>> train, test = load("gowalla", root="data")  # doctest: +SKIP
    """
    card = card_of(name)
    folder = needed_folder(card, root)
    form = card.form_in(folder)
    if form is None and download:
        fetch.download(name, root)
        form = card.form_in(folder)
    if form is None:
        raise FileNotFoundError(_missing(card, folder))
    graphs: list[Any] = []
    for part in form.parts:
        file = part.found(folder)
        if file is None:  # taken away since
            raise FileNotFoundError(_missing(card, folder))
        check_digest(card, folder / file.name, file)
        graphs.append(read_part(card, form, part, file, folder / file.name, graphs[0] if graphs else None))
    if len(graphs) == 2:
        return Split(*graphs) if card.kind == "interactions" else SessionSplit(*graphs)
    graph: InteractionGraph | SessionGraph = graphs[0]
    return graph


def _missing(card: Card, folder: Path) -> str:
    def parts_found(form: Form) -> int:
        return sum(part.found(folder) is not None for part in form.parts)

    nearest = max(card.forms, key=parts_found)
    part = next((part for part in nearest.parts if part.found(folder) is None), nearest.parts[0])
    wanted = " or ".join(f"'{file.name}'" for file in part.files)
    return (
        f"'root' must hold {wanted} of the data set '{card.name}' in '{folder}' (got no such file). {card.how_to_get}"
    )
