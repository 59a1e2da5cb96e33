"""``datasets``: the named data sets."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from graphunlearn.cli.common import Answer, Printing, columns, optional
from graphunlearn.datasets import available
from graphunlearn.datasets.registry import ROOT_VARIABLE

__all__ = ["Datasets"]


@dataclass(kw_only=True)
class Datasets:
    """List the named data sets, and which of them are on this machine.

    They are looked for in the folder that the environment variable GRAPHUNLEARN_DATA names, in a sub-folder of their
    name. Nothing is downloaded. What is found can be used by its name: graphunlearn train --data ml-100k ...

    examples:
      graphunlearn datasets
      graphunlearn datasets --root data
    """

    root: Annotated[Path | None, optional("DIR")] = None
    """Folder of data sets (default: the one that GRAPHUNLEARN_DATA names)."""
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """List them."""
        if self.root is not None and not self.root.is_dir():
            raise ValueError(f"'--root' must be a folder (got '{self.root}')")
        cards = available()
        found = {card.name: card.is_found(self.root) for card in cards}
        rows = [("name", "users", "items", "interactions", "found", "what")]
        rows += [
            (
                card.name,
                f"{card.num_users:,}",
                f"{card.num_items:,}",
                f"{card.num_interactions:,}",
                "yes" if found[card.name] else "no",
                card.title,
            )
            for card in cards
        ]
        lines = [columns(rows, right=(1, 2, 3)), ""]
        folder = self.root or os.environ.get(ROOT_VARIABLE)
        lines.append(f"looked in {folder}" if folder else f"{ROOT_VARIABLE} names no folder to look in")
        lines += [f"{card.name}: {card.how_to_get}" for card in cards if not found[card.name]]
        data = [asdict(card) | {"found": found[card.name]} for card in cards]
        return Answer(data, "\n".join(lines).rstrip())
