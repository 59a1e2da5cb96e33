"""Files of public data sets, checked against their card and read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from graphunlearn.data.interaction import EDGE_TYPE, InteractionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.session import SessionGraph
from graphunlearn.datasets.card import UNITS, Card, File, Form, Part

__all__ = ["check_digest", "digest_of", "read_part", "record_digest"]

Graph = InteractionGraph | SessionGraph


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def record_digest(path: Path) -> None:
    """Write the SHA-256 of a file that no digest was known of beside it, as ``sha256sum`` does."""
    write_atomic(_record(path), f"{digest_of(path)}  {path.name}\n")


def check_digest(card: Card, path: Path, file: File) -> None:
    """Check that a file is the published one or, where no digest of that is known, the one that was downloaded.

    Raises:
        ValueError: If it is not.
    """
    record = _record(path)
    if file.sha256 is not None:
        known, what = file.sha256, f"the published file, with SHA-256 {file.sha256}"
    elif record.is_file():
        known = record.read_text(encoding="utf-8").partition(" ")[0].strip()
        what = f"the file that was downloaded, with the SHA-256 {known} that '{record.name}' holds"
    else:
        return
    digest = digest_of(path)
    if digest != known:
        raise ValueError(
            f"'{path}' must be {what} (got {digest}): it is another version, or cut off; move it away. "
            f"{card.how_to_get}"
        )


def read_part(card: Card, form: Form, part: Part, file: File, path: Path, like: Any = None) -> Graph:
    """Read a part of a data set, and check the counts.

    Args:
        card: The data set.
        form: The form of it.
        part: The part.
        file: Which of its files this is.
        path: Where it lies, under a name with the same suffix.
        like: The graph of the training part, whose numbers of users and items, or of items, are taken over.

    Returns:
        The graph, with nothing in it that is not on the card.

    Raises:
        ValueError: If the file is not readable, or the counts are not those of the card.
    """
    kind: Any = InteractionGraph if card.kind == "interactions" else SessionGraph
    graph: Graph = kind.from_file(path, **file.read, like=like)
    units = UNITS[card.kind]
    rows = graph.num_interactions + graph.num_left_out
    if rows != part.rows:
        what = f"distinct {units[-1]}" if card.kind == "interactions" else units[-1]
        raise ValueError(f"'{path}' must hold {part.rows} {what} (got {rows})")
    if len(form.parts) == 1:
        for unit in units[:-1]:
            count = getattr(graph, f"num_{unit}")
            if count != form.counts[unit]:
                raise ValueError(f"'{path}' must hold {form.counts[unit]} {unit} (got {count})")
    if isinstance(graph, InteractionGraph):
        for key in {"rating", "time", "label"} - form.columns.keys():
            graph[EDGE_TYPE].pop(key, None)  # what the file has in such columns is nothing of the kind
    return graph


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
