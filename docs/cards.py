"""The page of data sets, made from their cards."""

from __future__ import annotations

import re
from pathlib import Path

from results import table

from graphunlearn.datasets import Card, available
from graphunlearn.datasets.card import UNITS, Form, Published

INTRODUCTION = Path(__file__).parent / "data-sets-intro.txt"


def page() -> str:
    """Return the page."""
    parts = ["# Data sets", INTRODUCTION.read_text(encoding="utf-8").strip()]
    for kind, units in UNITS.items():
        rows = [
            [f"[{card.name}](#{card.name})", card.title, *(f"{card.counts[unit]:,}" for unit in units), way(card)]
            for card in available(kind)
        ]
        parts += [f"## {kind.capitalize()}", table(["name", "what", *units, "download"], rows)]
    for card in available():
        parts += section(card)
    return "\n\n".join(part for part in parts if part) + "\n"


def way(card: Card) -> str:
    """Return whether the set can be downloaded, and how much that is."""
    if card.download is None:
        return "by hand"
    return "yes" if card.download_bytes is None else f"{card.download_bytes / 1e6:,.1f} MB"


def section(card: Card) -> list[str]:
    """Return the section of a data set."""
    facts = {"owner": card.url, "terms": card.terms, "to cite": card.citation}
    parts = [f"## {card.name}", f"**{card.title}.** {card.description}"]
    parts += ["\n".join(f"- {name}: {linked(said)}" for name, said in facts.items())]
    for form in card.forms:
        parts += form_of(form)
    return parts


def form_of(form: Form) -> list[str]:
    """Return what is known of one form of a data set."""
    counts = ", ".join(f"{count:,} {unit}" for unit, count in form.counts.items())
    facts = {"source": form.source, "by hand": form.by_hand, "checked against": form.checksum_source}
    published = [
        [part.name, f"`{source.name}`", known(source)]
        for part in form.parts
        for file in part.files
        for source in ([file, file.archive] if file.archive else [file])
    ]
    return [
        f"### {form.title[:1].upper()}{form.title[1:]}",
        f"{counts}.",
        "\n".join(f"- {name}: {linked(said)}" for name, said in facts.items()),
        table(["column", "meaning"], [[f"`{name}`", meaning] for name, meaning in form.columns.items()]),
        table(["part", "file", "what it must be"], published),
    ]


def known(file: Published) -> str:
    """Return what a file is checked against."""
    digests = [f"{kind} `{value}`" for kind, value in (("SHA-256", file.sha256), ("MD5", file.md5)) if value]
    size = [] if file.bytes is None else [f"{file.bytes:,} bytes"]
    return ", ".join(size + digests) or "its counts"


def linked(text: str) -> str:
    """Return a text with its addresses as links.

    Example:
        >>> linked("See https://example.org/a.zip, or ask.")
        'See <https://example.org/a.zip>, or ask.'
    """
    return re.sub(r"https?://[^\s,;)]*[^\s,;.)]", lambda match: f"<{match[0]}>", text)
