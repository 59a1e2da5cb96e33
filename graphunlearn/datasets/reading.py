"""Reading the files of public data sets, and checking them against the cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphunlearn.data.interaction import EDGE_TYPE, InteractionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.sealed import digest_of
from graphunlearn.data.session import SessionGraph
from graphunlearn.datasets.card import UNITS, Card, File, Form, Part
from graphunlearn.errors import ArgumentError

__all__ = ["check_digest", "known_digest", "read_part", "record_digest", "record_of"]

Graph = InteractionGraph | SessionGraph


def record_of(path: Path) -> Path:
    """Return the file beside a data file that its SHA-256 is recorded in."""
    return path.with_name(f"{path.name}.sha256")


def record_digest(path: Path, digest: str) -> None:
    """Record the SHA-256 of a data file beside it, in the format of ``sha256sum``."""
    write_atomic(record_of(path), f"{digest}  {path.name}\n")


def known_digest(path: Path, file: File) -> str | None:
    """Return the SHA-256 that a data file must have.

    Args:
        path: The place of the data file, which need not exist.
        file: The entry of the file on the card.

    Returns:
        The SHA-256 on the card, or else the one recorded at the first download, or else None.
    """
    if file.sha256 is not None:
        return file.sha256
    record = record_of(path)
    return record.read_text(encoding="utf-8").partition(" ")[0].strip() if record.is_file() else None


def check_digest(card: Card, path: Path, file: File) -> None:
    """Check that a data file has the SHA-256 on its card or, if the card has none, the recorded one.

    Raises:
        ValueError: It has another SHA-256.
    """
    known = known_digest(path, file)
    if known is None:
        return
    digest, expected = digest_of(path), f"be the published file, with SHA-256 {known}"
    if file.sha256 is None:
        record = record_of(path).name
        expected = f"be the file that was downloaded, with the SHA-256 {known} that '{record}' holds"
    if digest != known:
        hint = f"it is another version, or cut off: move it away, and get the published one. {card.by_hand}"
        raise ArgumentError(path, expected, digest, hint)


def read_part(card: Card, form: Form, part: Part, file: File, path: Path, like: Any = None) -> Graph:
    """Read a part of a data set, and check its counts.

    Args:
        card: The card of the data set.
        form: The form of the data set that the part belongs to.
        part: The part.
        file: The one of the part's files to read.
        path: The place of the file; its name must have the suffix of ``file.name``.
        like: The graph of the training part, whose user and item numbers are used (default: the file is numbered on its
            own).

    Returns:
        The graph, with only those columns that the card lists.

    Raises:
        ValueError: The file is not readable, or its counts are not those of the card.
    """
    kind: Any = InteractionGraph if card.kind == "interactions" else SessionGraph
    graph: Graph = kind.from_file(path, **file.read, like=like)
    units = UNITS[card.kind]
    rows = graph.num_interactions + graph.num_left_out
    if rows != part.rows:
        what = f"distinct {units[-1]}" if card.kind == "interactions" else units[-1]
        raise ArgumentError(path, f"hold {part.rows} {what}", rows)
    if len(form.parts) == 1:
        for unit in units[:-1]:
            count = getattr(graph, f"num_{unit}")
            if count != form.counts[unit]:
                raise ArgumentError(path, f"hold {form.counts[unit]} {unit}", count)
    if graph.kind == "interactions":
        for key in {"rating", "time", "label"} - form.columns.keys():
            graph[EDGE_TYPE].pop(key, None)  # the file has such a column, but with another meaning
    return graph
