"""``graphunlearn datasets``: lists and downloads the named data sets."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from graphunlearn.cli._fields import Folder, Printing, several
from graphunlearn.cli._text import Answer, columns, note
from graphunlearn.cli._wording import how_to_get
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.datasets import Card

__all__ = ["Datasets"]


@dataclass(kw_only=True)
class Datasets:
    """List the named data sets, and which of them are on this machine; or download some.

    The environment variable GRAPHUNLEARN_DATA names the folder of data sets; each data set has a sub-folder of its
    name. A data set on this machine can be used by its name: graphunlearn train --data ml-100k ... Downloaded files are
    checked. By downloading a data set you agree to its terms, which this command prints.

    examples:
      graphunlearn datasets
      graphunlearn datasets --root data
      graphunlearn datasets --download ml-100k yoochoose-100k --root data
    """

    root: Folder = None
    """Folder of data sets (default: the one that GRAPHUNLEARN_DATA names)."""
    download: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, several("NAME ...")] = ()
    """Data sets to download into that folder."""
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """List them, or download some."""
        if self.root is not None and not self.root.is_dir() and (self.root.exists() or not self.download):
            raise ArgumentError("--root", "be a folder", f"'{self.root}'")
        return self._download() if self.download else self._list()

    def _download(self) -> Answer:
        from graphunlearn.datasets import download
        from graphunlearn.datasets.card import ROOT_VARIABLE, card_of, folder_of

        try:
            cards = [card_of(name) for names in self.download for name in names]
        except ArgumentError as error:
            raise error.renamed("--download") from None
        if not cards:
            raise ArgumentError("--download", "name data sets", "none")
        if folder_of(self.root) is None:
            raise ArgumentError("--root", f"name the folder of data sets, or {ROOT_VARIABLE}", "neither")
        lines, data = [], []
        for card in cards:
            note(f"{card.title}, {_size(card)}. Terms: {card.terms}")
            folder = download(card.name, self.root)
            model = "" if card.kind == "interactions" else " --model srgnn"
            train = f"graphunlearn train --data {card.name}{model} --out runs/a"
            lines += [f"{card.name}: in {folder}", f"cite: {card.citation}"]
            lines += [f"next: {ROOT_VARIABLE}={shlex.quote(str(folder.parent))} {train}"]
            data.append(asdict(card) | {"found": card.is_found(self.root), "folder": str(folder)})
        return Answer(data, "\n".join(lines))

    def _list(self) -> Answer:
        from graphunlearn.datasets import available
        from graphunlearn.datasets.card import ROOT_VARIABLE, folder_of

        cards, root = available(), folder_of(self.root)
        found = {card.name: None if root is None else card.form_in(root / card.name) for card in cards}
        parts = []
        for kind in ("interactions", "sessions"):
            shown = [card for card in cards if card.kind == kind]
            rows = [("name", *shown[0].counts, "found", "download", "what")]
            for card in shown:
                form = found[card.name] or card.forms[0]
                counts = (f"{count:,}" for count in form.counts.values())
                title = card.title if len(card.forms) == 1 else f"{card.title}: {form.title}"
                rows.append((card.name, *counts, "yes" if found[card.name] else "no", _size(card), title))
            parts.append(columns(rows, right=(1, 2, 3)))
        lines = ["\n\n".join(parts), ""]
        lines.append(f"looked in {root}" if root else f"{ROOT_VARIABLE} names no folder to look in")
        lines += [f"{card.name}: {how_to_get(card)}" for card in cards if not found[card.name]]
        titles = {name: None if form is None else form.title for name, form in found.items()}
        data = [asdict(c) | {"found": titles[c.name] is not None, "found_form": titles[c.name]} for c in cards]
        return Answer(data, "\n".join(lines).rstrip())


def _size(card: Card) -> str:
    """Return the size of the download of a data set, in words."""
    if card.download is None:
        return "by hand"
    size = card.download_bytes
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB"
