"""Drawing of a report's figures: inline SVG in the colours of the page, for light, dark and print."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphunlearn.eval.report.verdict import REFERENCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Plot", "axes_of", "colors", "finished", "finite", "shortened"]

# Placeholder colours: in the SVG, each is replaced by a CSS variable of the page.
INK, MUTED, GRID, BAND = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = tuple(f"#0a0c0{n}" for n in range(1, 7))
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", BAND: "--band"} | {
    color: f"--c{n}" for n, color in enumerate(SERIES, 1)
}
MARKERS = "os^DvPh"  # one more marker than colours, so that 42 methods are distinguishable
DASHED = (0, (3, 2))
STYLE: Any = {  # Any, because matplotlib's type stubs list every key
    "svg.fonttype": "none",
    "svg.hashsalt": "graphunlearn",  # makes the ids in the SVG reproducible
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    "grid.color": GRID,
}


class Plot(NamedTuple):
    """One figure of a report.

    Args:
        key: Name of the figure, which prefixes the ids in its SVG.
        title: Heading of the figure.
        svg: Inline SVG.
        alt: Text alternative for readers who cannot see the figure.
        caption: Explanation of how to read the figure.
    """

    key: str
    title: str
    svg: str
    alt: str
    caption: str


def colors(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the colour and the marker of every method, which are the same in all figures.

    Args:
        report: The report.
    """
    names = [method["name"] for method in report["methods"] if method["name"] not in REFERENCES]
    return {name: (SERIES[n % len(SERIES)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(names)}


def shortened(name: str, longest: int = 28) -> str:
    """Return a name that fits into a figure; a long one loses its middle.

    Args:
        name: The name.
        longest: Largest number of characters.

    Example:
        >>> shortened("a-method-with-a-long-name", 11)
        'a-met…-name'
    """
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def axes_of(height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure with the width of the page, and its axes row by row.

    Args:
        height: Height in inches.
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        keywords: Further arguments of matplotlib's ``Figure.subplots``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, **keywords)))


def finished(key: str, title: str, figure: Figure, alt: str, caption: str) -> Plot:
    """Add the legend and convert the figure to inline SVG with unique ids and the colours and font of the page.

    Args:
        key: Name of the figure.
        title: Heading of the figure.
        figure: The matplotlib figure; changed in place.
        alt: Text alternative.
        caption: Explanation of how to read the figure; white space is normalised.
    """
    handles = {text: h for ax in figure.axes for h, text in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=6)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    head, _, svg = buffer.getvalue().partition("<svg")[2].partition(">")
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)  # its styles would apply to the whole page
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r"font: (?:\d+ )?([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # as older matplotlib versions write it
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    view = re.findall(r'viewBox="[^"]+"', head)
    return Plot(key, title, f"<svg {' '.join(view)}>{svg.strip()}", alt, " ".join(caption.split()))


def finite(values: Any) -> NDArray[np.float64]:
    """Return a number, array or tensor, or a list of these, as one flat array without its non-finite values.

    Args:
        values: The values, of any shape.

    Returns:
        A float64 array ``[num_finite]``.
    """
    if isinstance(values, (list, tuple)):
        return np.concatenate([finite(value) for value in values]) if values else np.zeros(0)
    array = np.ravel(np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64))
    return array[np.isfinite(array)]
