"""The figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphunlearn.eval.report.drawing import (
    BAND,
    DASHED,
    INK,
    MUTED,
    SERIES,
    STYLE,
    Plot,
    axes_of,
    colors,
    finished,
    finite,
)
from graphunlearn.eval.report.session_plots import targets, weights
from graphunlearn.eval.report.verdict import REFERENCES, distance_unit, label, primary_metric, ratio_to_floor

__all__ = ["Plot", "draw"]

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


def draw(report: Mapping[str, Any], data: Mapping[str, Any] | None) -> list[Plot]:
    """Draw all figures for which the report and the plot data have data.

    Args:
        report: The report, which holds the data of the figure of utility against forgetting.
        data: Data of the other figures, all of them optional:

            - ``scores``: (log) probabilities of the forget set, by ``"original"``, ``"retrain"`` or method; with
              ``scores_label``, the label of their axis, and ``scores_before``, those of the methods' own originals, by
              method;
            - ``moved_by_hop``: ``{"retrain" | method: {hop: |Δp| of every pair, or its mean}}``;
            - ``damping``: lists ``damping``, ``rho``, ``residual`` and ``plain_residual``, and the ``chosen`` damping;
            - ``logs``: logs by method. The figure of weights shows the first log whose ``steps`` hold ``weights``, the
              figure of targets the first log that holds ``log_p``.

    Returns:
        The figures, in the order of the page. Figures without data are left out.
    """
    import matplotlib as mpl  # slow to import, and only reports need it

    data = data or {}
    with mpl.rc_context(STYLE):
        plots = [
            _scores(report, data),
            _utility_against_forgetting(report),
            _moved_by_hop(report, data.get("moved_by_hop") or {}),
            _damping(data.get("damping") or {}),
            weights(report, data.get("logs") or {}),
            targets(report, data.get("logs") or {}),
        ]
    return [plot for plot in plots if plot is not None]


def _scores(report: Mapping[str, Any], data: Mapping[str, Any]) -> Plot | None:
    text = data.get("scores_label") or "probability of a forgotten pair"
    values = {name: finite(p) for name, p in (data.get("scores") or {}).items()}
    own = {name: finite(p) for name, p in (data.get("scores_before") or {}).items()}
    values = {name: p for name, p in values.items() if p.size}
    methods = {name: style for name, style in colors(report).items() if name in values}
    if not methods:
        return None
    size = min(p.size for p in values.values())
    logarithms = distance_unit(report) == "log p"
    low, high = (_lowest(values), 0.0) if logarithms else (0.0, 1.0)
    means = ", ".join(f"{name} {p.mean():.3f}" for name, p in values.items())
    values = {name: p.clip(low, high) for name, p in values.items()}
    bins = np.linspace(low, high, int(np.clip(np.sqrt(size), 10, 40)) + 1).tolist()
    columns = 2 if len(methods) == 4 else min(len(methods), 3)
    rows = -(-len(methods) // columns)
    figure, axes = axes_of(0.5 + 2.3 * rows, rows, columns, sharex=True, sharey=True)
    outline: dict[str, Any] = {"density": True, "histtype": "step"}
    for ax, (name, (color, _)) in zip(axes, methods.items()):
        if "retrain" in values:
            ax.hist(values["retrain"], bins, density=True, color=BAND, label="retrained models")
        before = own[name].clip(low, high) if name in own else values.get("original")
        if before is not None:
            ax.hist(before, bins, color=INK, ls=DASHED, lw=1.3, label="before", **outline)
        ax.hist(values[name], bins, color=color, lw=2, label=f"after {name}", **outline)
        ax.set_title(name, color=color)
        ax.tick_params(labelbottom=True)
        ax.grid(axis="x", visible=False)
    for ax in axes[len(methods) :]:
        ax.remove()
    figure.supxlabel(text, fontsize=9.5)
    figure.supylabel("density", fontsize=9.5)
    one = "click" if logarithms else "pair"
    alt = f"Histograms of the {text}, for all forgotten {one}s. Mean: {means}."
    caption = CAPTIONS["scores"] + logarithms * " Log probabilities below the axis are gathered at its left end."
    return finished("scores", f"What the model says of the forgotten {one}s", figure, alt, caption)


def _lowest(values: Mapping[str, NDArray[np.float64]]) -> float:
    """Return the lower limit of an axis of log probabilities; smaller values are drawn at the limit."""
    known = [p for name, p in values.items() if name in REFERENCES]
    everything = np.concatenate(list(values.values()))
    usual = np.concatenate(known) if known else everything
    return float(min(-1.0, max(np.quantile(everything, 0.005), 2 * np.quantile(usual, 0.005))))


def _utility_against_forgetting(report: Mapping[str, Any]) -> Plot | None:
    entries = {method["name"]: method for method in report["methods"]}
    metric = primary_metric(report)
    utility = next((name for method in entries.values() for name in method.get("utility") or {}), None)
    styles = colors(report)
    floors = "distance to retraining on what is forgotten,\nin units of the retrain-to-retrain floor"
    closed = partial(_gap, metric=metric)
    panels: list[tuple[str, Callable[[Mapping[str, Any]], float | None]]] = [
        (f"share of the gap closed,\n{label(metric or '')}", closed),
        (floors, partial(ratio_to_floor, where="forget")),
    ]
    panels = [(text, x) for text, x in panels if any(x(entries[name]) is not None for name in styles)]
    if utility is None or not panels:
        return None
    figure, axes = axes_of(3.4, 1, len(panels), sharey=True)
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
    return finished("utility", "Utility against forgetting", figure, alt, CAPTIONS["utility"])


def _gap(method: Mapping[str, Any], metric: str | None) -> float | None:
    if method.get("name") == "original":
        return 0.0
    return ((method.get("forgetting") or {}).get(metric) or {}).get("gap_closed")


def _moved_by_hop(report: Mapping[str, Any], moved: Mapping[str, Mapping[Any, Any]]) -> Plot | None:
    methods = {name: {hop: finite(v) for hop, v in by_hop.items()} for name, by_hop in moved.items()}
    methods = {name: {h: v for h, v in by_hop.items() if v.size} for name, by_hop in methods.items()}
    hops = sorted({hop for by_hop in methods.values() for hop in by_hop}, key=lambda hop: (isinstance(hop, str), hop))
    if not hops:
        return None
    figure, (ax,) = axes_of(3.2)
    styles = {"retrain": (MUTED, "X"), "original": (INK, "X")} | colors(report)
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
    alt = f"Mean change by hop distance: {'; '.join(told)}."
    return finished("hops", "Who moved, by distance", figure, alt, CAPTIONS["hops"])


def _damping(sweep: Mapping[str, Any]) -> Plot | None:
    damping = np.array(sweep.get("damping", ()), dtype=float)
    if not damping.size:
        return None
    figure, (top, bottom) = axes_of(4.0, 2, 1, sharex=True)
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
    alt = f"ρ and both residuals by damping; chosen: {chosen}."
    return finished("damping", "How the damping was chosen", figure, alt, CAPTIONS["damping"])
