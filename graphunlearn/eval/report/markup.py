"""Pieces of a report page as HTML: tables, sections, figures with their spread. Text is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from graphunlearn.eval.report.verdict import format_number, format_seconds

__all__ = ["Rows", "duration", "number", "p_value", "paragraphs", "percent", "scrolled", "section", "table", "times"]

Rows = Sequence[tuple[str, Sequence[str], bool]]
"""Title, cells (as HTML) and whether the row is a reference model, for every row of a table."""
LONGEST = 32
"""Length of a name from which it wraps in a table."""
WIDE = 6
"""Number of columns from which the spread stands below a number instead of beside it."""


def section(title: str, *bodies: str, level: int = 2) -> str:
    """Return a section under a heading, or nothing if all its parts are empty.

    Args:
        title: The heading.
        bodies: Parts as HTML.
        level: Level of the heading.
    """
    inner = "".join(bodies)
    return f"<section><h{level}>{escape(title)}</h{level}>{inner}</section>" if inner else ""


def paragraphs(*texts: str) -> str:
    """Return texts as paragraphs; empty ones are left out."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts if text)


def scrolled(inner: str, name: str) -> str:
    """Return a box that scrolls sideways, also by keyboard, if its content is wider than the page.

    Args:
        inner: Content as HTML.
        name: Name of the box for readers who cannot see it.
    """
    return f'<div class=scroll role=region tabindex=0 aria-label="{escape(name)}">{inner}</div>'


def table(name: str, head: Sequence[str], rows: Rows, hint: str = "", text: Sequence[int] = ()) -> str:
    """Return a table with a hint below it. Columns without any value are left out.

    Args:
        name: Name of the table for readers who cannot see it.
        head: Titles of the columns.
        rows: The rows. A row without cells is a heading of the rows below it.
        hint: Explanation below the table.
        text: Columns that hold sentences, which wrap.
    """
    filled = [0] + [
        n for n in range(1, len(head)) if any(cells[n - 1] not in ("", "–") for _, cells, _ in rows if cells)
    ]
    marks = {n: " class=text" if n in text else "" for n in filled}
    top = "".join(f'<th scope="col"{marks[n]}>{escape(head[n])}</th>' for n in filled)
    body = ""
    for title, cells, reference in rows:
        if cells:
            inner = "".join(f"<td{marks[n]}>{cells[n - 1] or '–'}</td>" for n in filled[1:])
            style = " class=reference" if reference else ""
            long = " class=long" if len(title) > LONGEST else ""
            body += f'<tr{style}><th scope="row"{long}>{escape(title)}</th>{inner}</tr>'
        else:
            body += f'<tr class=group><th scope="rowgroup" colspan={len(filled)}>{escape(title)}</th></tr>'
    narrow = " class=narrow" if len(filled) > WIDE else ""
    inner = f"<table{narrow}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    told = f"<p class=hint>{escape(' '.join(hint.split()))}</p>" if hint else ""
    return scrolled(inner, name) + told


def number(value: float | None, sd: float | None = None, digits: int = 4) -> str:
    """Return a number with its standard deviation, or ``–`` for ``None``."""
    spread = "" if sd is None else f"<small>± {format_number(sd, digits=digits)}</small>"
    return escape(format_number(value, digits=digits)) + spread


def p_value(value: float | None) -> str:
    """Return a p-value, or nothing for ``None``."""
    return "" if value is None else "&lt; 0.001" if value < 0.001 else number(value, digits=3)


def percent(value: float | None, sd: float | None = None) -> str:
    """Return a share as a percentage with its standard deviation, or ``–`` for ``None``."""
    spread = "" if sd is None else f"<small>± {sd:.0%}</small>"
    return "–" if value is None else f"{value:.0%}".replace("-", "−") + spread


def times(value: float | None, sd: float | None = None, digits: int = 2) -> str:
    """Return a factor with ``×`` and its standard deviation, or ``–`` for ``None``."""
    spread = "" if sd is None else f"<small>± {format_number(sd, digits=digits)}</small>"
    return "–" if value is None else f"{format_number(value, digits=digits)} ×{spread}"


def duration(method: Mapping[str, Any], name: str = "seconds") -> str:
    """Return a duration with its standard deviation, and for shards the time of the slowest shard below it.

    Args:
        method: One entry of a report's ``methods``.
        name: Field of the duration.
    """
    spread, slowest = method.get(f"{name}_sd"), method.get("seconds_slowest_shard")
    told = "" if spread is None else f"<small>± {format_seconds(spread)}</small>"
    if name == "seconds" and slowest is not None:
        told += f"<small>slowest shard</small><small>{format_seconds(slowest)}</small>"
    return format_seconds(method.get(name)) + told
