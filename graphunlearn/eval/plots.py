"""The figures of a report as inline SVG, coloured by the page so that light, dark and print all read well."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphunlearn.eval.verdict import REFERENCES, label, primary_metric, ratio_to_floor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Plot", "draw"]

# Colours that never reach the page: each is replaced by the page's own variable.
INK, MUTED, GRID, BAND = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = tuple(f"#0a0c0{n}" for n in range(1, 7))
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", BAND: "--band"} | {
    color: f"--c{n}" for n, color in enumerate(SERIES, 1)
}
MARKERS = "os^DvP"
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
CAPTIONS = {
    "scores": """One panel per method. The line of a method that forgot well lies on the grey area of the retrained
        models; left where it was before, it under-forgets; beyond the grey area, it over-forgets.""",
    "utility": """The dashed line is where retraining ends up. In the first panel a method left of it forgot too little,
        one right of it too much; in the second, 1 is as close as another retrained model, and more is further away.
        The grey band is the utility of the retrained models.""",
    "hops": """How far predictions moved from where they were before, by the distance in the graph from what was
        forgotten. Bars span the middle 80% of the pairs. Retraining moves everything a little: seed noise is part of
        it.""",
    "damping": """ρ near 1: the step does what its quadratic model promised. A smaller damping forgets more. The tilted
        residual says how much of the correction has arrived; the plain one how far the result is from a stationary
        point of the remaining objective. No labels, validation data or retrained models are used to choose.""",
}


class Plot(NamedTuple):
    """One figure: inline SVG, a title, what it shows for those who cannot see it, and how to read it."""

    key: str
    title: str
    svg: str
    alt: str
    caption: str


def draw(report: Mapping[str, Any], data: Mapping[str, Any] | None) -> list[Plot]:
    """Draw every figure that the report and the plot data allow.

    Args:
        report: The report; utility against forgetting is read off it.
        data: Any of ``scores`` (``{"original" | "retrain" | method: probabilities of the forgotten pairs}``) with
            ``scores_label`` (what those are, where that is not plain), ``moved_by_hop`` (``{"retrain" | method: {hop:
            |Δp| of every pair, or its mean}}``) and ``damping`` (lists ``damping``, ``rho``, ``residual`` and
            ``plain_residual``, and the ``chosen`` one).

    Returns:
        The figures, in the order of the page; those whose data is missing or empty are left out.
    """
    import matplotlib as mpl  # slow to import, and only reports need it

    data = data or {}
    with mpl.rc_context(STYLE):
        plots = [
            _scores(report, data.get("scores") or {}, data.get("scores_label") or "probability of a forgotten pair"),
            _utility_against_forgetting(report),
            _moved_by_hop(report, data.get("moved_by_hop") or {}),
            _damping(data.get("damping") or {}),
        ]
    return [plot for plot in plots if plot is not None]


def _colors(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every method, the same in all figures."""
    names = [method["name"] for method in report["methods"] if method["name"] not in REFERENCES]
    return {name: (SERIES[n % len(SERIES)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(names)}


def _figure(height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, **keywords)))


def _plot(key: str, title: str, figure: Figure, alt: str) -> Plot:
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
    return Plot(key, title, f"<svg {' '.join(view)}>{svg.strip()}", alt, " ".join(CAPTIONS[key].split()))


def _scores(report: Mapping[str, Any], scores: Mapping[str, Any], text: str) -> Plot | None:
    values = {name: _finite(p) for name, p in scores.items()}
    values = {name: p for name, p in values.items() if p.size}
    methods = {name: style for name, style in _colors(report).items() if name in values}
    if not methods:
        return None
    size = min(p.size for p in values.values())
    bins = np.linspace(0, 1, int(np.clip(np.sqrt(size), 10, 40)) + 1).tolist()
    columns = 2 if len(methods) == 4 else min(len(methods), 3)
    rows = -(-len(methods) // columns)
    figure, axes = _figure(0.5 + 2.3 * rows, rows, columns, sharex=True, sharey=True)
    outline: dict[str, Any] = {"density": True, "histtype": "step"}
    for ax, (name, (color, _)) in zip(axes, methods.items()):
        if "retrain" in values:
            ax.hist(values["retrain"], bins, density=True, color=BAND, label="retrained models")
        if "original" in values:
            ax.hist(values["original"], bins, color=INK, ls=DASHED, lw=1.3, label="before", **outline)
        ax.hist(values[name], bins, color=color, lw=2, label=f"after {name}", **outline)
        ax.set_title(name, color=color)
        ax.tick_params(labelbottom=True)
        ax.grid(axis="x", visible=False)
    for ax in axes[len(methods) :]:
        ax.remove()
    figure.supxlabel(text, fontsize=9.5)
    figure.supylabel("density", fontsize=9.5)
    means = ", ".join(f"{name} {p.mean():.3f}" for name, p in values.items())
    alt = f"Histograms of the predicted probabilities of the forgotten pairs. Mean probability: {means}."
    return _plot("scores", "What the model says of the forgotten pairs", figure, alt)


def _utility_against_forgetting(report: Mapping[str, Any]) -> Plot | None:
    entries = {method["name"]: method for method in report["methods"]}
    metric = primary_metric(report)
    utility = next((name for method in entries.values() for name in method.get("utility") or {}), None)
    styles = _colors(report)
    floors = "distance to retraining on the forgotten pairs,\nin units of the retrain-to-retrain floor"
    closed = partial(_gap, metric=metric)
    panels: list[tuple[str, Callable[[Mapping[str, Any]], float | None]]] = [
        (f"share of the gap closed,\n{label(metric or '')}", closed),
        (floors, partial(ratio_to_floor, where="forget")),
    ]
    panels = [(text, x) for text, x in panels if any(x(entries[name]) is not None for name in styles)]
    if utility is None or not panels:
        return None
    figure, axes = _figure(3.4, 1, len(panels), sharey=True)
    reference = entries.get("retrain", {})
    retrain = (reference.get("utility") or {}).get(utility)
    spread = (reference.get("utility_sd") or {}).get(utility) or 0.0
    for ax, (text, x) in zip(axes, panels):
        if retrain is not None:
            ax.axhspan(retrain - 2 * spread, retrain + 2 * spread, color=BAND, lw=0, alpha=0.6)
            ax.axhline(retrain, color=MUTED, lw=1, label="retrained models ± 2 sd" if spread else "retrained models")
        ax.axvline(1, color=MUTED, lw=1, ls=DASHED)
        for name in ("original", *styles):
            color, marker = styles.get(name, (INK, "X"))
            method = entries.get(name, {})
            where, y = x(method), (method.get("utility") or {}).get(utility)
            if where is not None and y is not None:
                ax.plot([where], [y], marker, color=color, ms=8, label="before" if name == "original" else name)
        ax.set_xlabel(text)
        ax.margins(0.15)
        ax.xaxis.set_major_formatter("{x:.0%}" if x is closed else "{x:g}")
    axes[0].set_ylabel(f"{label(utility)} on test")
    alt = f"{label(utility)} of every method against how close it comes to retraining; the tables hold the values."
    return _plot("utility", "Utility against forgetting", figure, alt)


def _gap(method: Mapping[str, Any], metric: str | None) -> float | None:
    if method.get("name") == "original":
        return 0.0
    return ((method.get("forgetting") or {}).get(metric) or {}).get("gap_closed")


def _moved_by_hop(report: Mapping[str, Any], moved: Mapping[str, Mapping[Any, Any]]) -> Plot | None:
    methods = {name: {hop: _finite(v) for hop, v in by_hop.items()} for name, by_hop in moved.items()}
    methods = {name: {h: v for h, v in by_hop.items() if v.size} for name, by_hop in methods.items()}
    hops = sorted({hop for by_hop in methods.values() for hop in by_hop}, key=lambda hop: (isinstance(hop, str), hop))
    if not hops:
        return None
    figure, (ax,) = _figure(3.2)
    styles = {"retrain": (MUTED, "X"), "original": (INK, "X")} | _colors(report)
    offsets = np.linspace(-0.12, 0.12, len(methods)) if len(methods) > 1 else np.zeros(1)
    told = []
    for offset, (name, by_hop) in zip(offsets, methods.items()):
        color, marker = styles.get(name, (INK, "X"))
        x = np.array([hops.index(hop) for hop in by_hop]) + offset
        low, mean, high = np.array([[np.quantile(v, 0.1), v.mean(), np.quantile(v, 0.9)] for v in by_hop.values()]).T
        ax.vlines(x, low, high, color=color, lw=4, alpha=0.3)
        ax.plot(x, mean, marker=marker, color=color, ls=":" if name == "retrain" else "-", lw=1.2, ms=7, label=name)
        told.append(f"{name} " + ", ".join(f"{v:.3g} at {hop}" for hop, v in zip(by_hop, mean)))
    ax.set_xticks(range(len(hops)), [str(hop) for hop in hops])
    ax.set_xlabel("hops from what was forgotten")
    ax.set_ylabel("mean |Δp| to before")
    ax.set_ylim(bottom=0)
    ax.grid(axis="x", visible=False)
    return _plot("hops", "Who moved, by distance", figure, f"Mean change by hop distance: {'; '.join(told)}.")


def _damping(sweep: Mapping[str, Any]) -> Plot | None:
    damping = np.array(sweep.get("damping", ()), dtype=float)
    if not damping.size:
        return None
    figure, (top, bottom) = _figure(4.0, 2, 1, sharex=True)
    series = (
        (top, "rho", "ρ, true over predicted decrease", SERIES[0], "o"),
        (bottom, "residual", "tilted residual", SERIES[1], "s"),
        (bottom, "plain_residual", "plain residual", SERIES[2], "^"),
    )
    order = np.argsort(damping)
    for ax, key, text, color, marker in series:
        if sweep.get(key) is not None:
            values = np.array(sweep[key], dtype=float)  # None becomes NaN and leaves a gap
            ax.plot(damping[order], values[order], marker=marker, color=color, ms=5, label=text)
    chosen = sweep.get("chosen")
    for ax in (top, bottom):
        ax.axhline(1, color=MUTED, lw=1, ls=DASHED)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        if chosen is not None:
            ax.axvline(chosen, color=INK, lw=1.2, label=f"chosen: {chosen:.3g}")
    top.set_ylabel("ρ")
    bottom.set_ylabel("residual, after / before")
    bottom.set_xlabel("damping")
    return _plot("damping", "How the damping was chosen", figure, f"ρ and both residuals by damping; chosen: {chosen}.")


def _finite(values: Any) -> NDArray[np.float64]:
    """Return numbers, arrays, tensors or a list of such as one flat array of finite values."""
    if isinstance(values, (list, tuple)):
        return np.concatenate([_finite(value) for value in values]) if values else np.zeros(0)
    array = np.ravel(np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64))
    return array[np.isfinite(array)]
