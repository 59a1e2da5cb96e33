"""How the figures of a report are drawn: inline SVG in the colours of the page, for light, dark and print alike."""

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

__all__ = ["Plot", "axes_of", "colors", "finished", "finite"]

# Colours that never reach the page: each is replaced by the page's own variable.
INK, MUTED, GRID, BAND = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = tuple(f"#0a0c0{n}" for n in range(1, 7))
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", BAND: "--band"} | {
    color: f"--c{n}" for n, color in enumerate(SERIES, 1)
}
MARKERS = "os^DvPh"  # one more than colours, so that 42 methods differ
DASHED = (0, (3, 2))
STYLE: Any = {  # matplotlib types every single key
    "svg.fonttype": "none",
    "svg.hashsalt": "graphunlearn",  # same figure, same ids
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
    """One figure: inline SVG, a title, what it shows for those who cannot see it, and how to read it."""

    key: str
    title: str
    svg: str
    alt: str
    caption: str


def colors(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every method, the same in all figures."""
    names = [method["name"] for method in report["methods"] if method["name"] not in REFERENCES]
    return {name: (SERIES[n % len(SERIES)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(names)}


def axes_of(height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as the page, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, **keywords)))


def finished(key: str, title: str, figure: Figure, alt: str, caption: str) -> Plot:
    """Add the legend and turn the figure into SVG that can stand in a page: own ids, the page's colours and font."""
    handles = {text: h for ax in figure.axes for h, text in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=6)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    head, _, svg = buffer.getvalue().partition("<svg")[2].partition(">")
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)  # its style sheet would rule the whole page
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r"font: (?:\d+ )?([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # how older versions write it
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    view = re.findall(r'viewBox="[^"]+"', head)
    return Plot(key, title, f"<svg {' '.join(view)}>{svg.strip()}", alt, " ".join(caption.split()))


def finite(values: Any) -> NDArray[np.float64]:
    """Return numbers, arrays, tensors or a list of such as one flat array of finite values."""
    if isinstance(values, (list, tuple)):
        return np.concatenate([finite(value) for value in values]) if values else np.zeros(0)
    array = np.ravel(np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64))
    return array[np.isfinite(array)]
