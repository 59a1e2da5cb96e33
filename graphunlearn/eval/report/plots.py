"""The figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphunlearn.eval.decision import TOLERATED
from graphunlearn.eval.report.attacks import attack_of, deciding, left_of, share
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
    shortened,
)
from graphunlearn.eval.report.session_plots import targets, weights
from graphunlearn.eval.report.verdict import REFERENCES, distance_unit, label, ratio_to_floor

__all__ = ["Plot", "draw"]

FURTHEST = 1.5
"""Largest share of the trace, on either side, that the figure of shares shows."""
LOGARITHMIC = 20.0
"""Largest ratio to the floor that is drawn on a linear axis."""
CAPTIONS = {
    "scores": """One panel per method. The line of a method that forgot well lies on the grey area of the retrained
        models. A line near that of the original means too little forgetting; one beyond the grey area, too much.""",
    "left": """One panel per attack that can decide. 0% is what retrained models reveal, 100% what the original reveals.
        Bars are intervals. In the grey band a method leaves at most a quarter of the trace, on either side; right of it
        it forgot too little, left of it too much. Values beyond the axis are drawn at its end.""",
    "utility": """The dashed line is the value of retraining. In the panel of an attack, a method right of it
        forgot too little, and one left of it too much; in the panel of distances, 1 is as close as another retrained
        model, and more is further away. The grey band is the utility of the retrained models.""",
    "hops": """Change of the predictions, by the distance in the graph from the forgotten interactions. Bars span the
        middle 80% of the pairs. Retraining changes all predictions a little, because it includes the noise of the
        seed.""",
    "damping": """ρ near 1: the step achieves the predicted decrease. A smaller damping forgets more. The tilted
        residual is the part of the correction that is still missing; the plain one is the distance of the result from
        a stationary point of the remaining objective. No labels, validation data or retrained models are used to
        choose.""",
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
            _left(report),
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
        ax.hist(values[name], bins, color=color, lw=2, label=f"after {shortened(name)}", **outline)
        ax.set_title(shortened(name), color=color)
        ax.tick_params(labelbottom=True)
        ax.grid(axis="x", visible=False)
    for ax in axes[len(methods) :]:
        ax.remove()
    figure.supxlabel(text, fontsize=9.5)
    figure.supylabel("density", fontsize=9.5)
    one = "click" if logarithms else "pair"
    alt = f"Histograms of the {text}, for all forgotten {one}s. Mean: {means}."
    caption = CAPTIONS["scores"] + logarithms * " Log probabilities below the axis are gathered at its left end."
    return finished("scores", f"Predictions for the forgotten {one}s", figure, alt, caption)


def _lowest(values: Mapping[str, NDArray[np.float64]]) -> float:
    """Return the lower limit of an axis of log probabilities; smaller values are drawn at the limit."""
    known = [p for name, p in values.items() if name in REFERENCES]
    everything = np.concatenate(list(values.values()))
    usual = np.concatenate(known) if known else everything
    return float(min(-1.0, max(np.quantile(everything, 0.005), 2 * np.quantile(usual, 0.005))))


def _left(report: Mapping[str, Any]) -> Plot | None:
    """Draw the share of the trace that the deciding attacks find after every method, with intervals."""
    styles = colors(report)
    entries = {method["name"]: method for method in report["methods"]}
    found = {
        name: {who: left for who in styles if (left := left_of(report, entries[who], name)) is not None}
        for name in deciding(report)
    }
    found = {name: lefts for name, lefts in found.items() if lefts}
    if not found:
        return None
    figure, axes = axes_of(1.1 + 0.32 * len(styles), 1, len(found), sharey=True)
    places = {name: -n for n, name in enumerate(styles)}
    told = []
    for ax, (name, lefts) in zip(axes, found.items()):
        ax.axvspan(-TOLERATED, TOLERATED, color=BAND, lw=0, alpha=0.6)
        ax.axvline(0, color=MUTED, lw=1, ls=DASHED)
        ax.axvline(1, color=MUTED, lw=1, ls=":")
        for who, left in lefts.items():
            color, marker = styles[who]
            ends = [left.share if end is None else end for end in (left.share, left.low, left.high)]
            value, low, high = np.clip(ends, -FURTHEST, FURTHEST)
            ax.hlines(places[who], low, high, color=color, lw=4, alpha=0.35)
            ax.plot([value], [places[who]], marker, color=color, ms=7)
        ax.set_title(attack_of(report, name).short)
        ax.set_xlim(-FURTHEST - 0.1, FURTHEST + 0.1)
        ax.set_ylim(0.4 - len(styles), 0.6)
        ax.xaxis.set_major_formatter("{x:.0%}")
        ax.grid(axis="y", visible=False)
        told.append(f"{attack_of(report, name).short}: " + ", ".join(f"{w} {share(v.share)}" for w, v in lefts.items()))
    axes[0].set_yticks(list(places.values()), [shortened(name) for name in places])
    figure.supxlabel("left of the trace", fontsize=9.5)
    alt = f"What every method leaves of the trace, with intervals. {'; '.join(told)}."
    return finished("left", "What is left of the trace", figure, alt, CAPTIONS["left"])


def _utility_against_forgetting(report: Mapping[str, Any]) -> Plot | None:
    entries = {method["name"]: method for method in report["methods"]}
    utility = next((name for method in entries.values() for name in method.get("utility") or {}), None)
    styles = colors(report)
    floors = "distance to retraining on what is forgotten,\nin units of the retrain-to-retrain floor"
    panels: list[tuple[str, Callable[[Mapping[str, Any]], float | None], int]] = [
        (f"left of the trace,\n{attack_of(report, name).short}", partial(_share, report, name=name), 0)
        for name in deciding(report)[:1]
    ]
    panels.append((floors, partial(ratio_to_floor, where="forget"), 1))
    panels = [panel for panel in panels if any(panel[1](entries[name]) is not None for name in styles)]
    if utility is None or not panels:
        return None
    figure, axes = axes_of(3.4, 1, len(panels), sharey=True)
    reference = entries.get("retrain", {})
    retrain = (reference.get("utility") or {}).get(utility)
    spread = (reference.get("utility_sd") or {}).get(utility) or 0.0
    for ax, (text, x, best) in zip(axes, panels):
        if retrain is not None:
            ax.axhspan(retrain - 2 * spread, retrain + 2 * spread, color=BAND, lw=0, alpha=0.6)
            ax.axhline(retrain, color=MUTED, lw=1, label="retrained models ± 2 sd" if spread else "retrained models")
        ax.axvline(best, color=MUTED, lw=1, ls=DASHED)
        largest = 0.0
        for name in ("original", *styles):
            color, marker = styles.get(name, (INK, "X"))
            method = entries.get(name, {})
            where, y = x(method), (method.get("utility") or {}).get(utility)
            if where is not None and y is not None:
                largest = max(largest, where)
                ax.plot(
                    [where], [y], marker, color=color, ms=8, label="before" if name == "original" else shortened(name)
                )
        ax.set_xlabel(text)
        ax.margins(0.15)
        if best and largest > LOGARITHMIC:
            ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}" if best else "{x:.0%}")
    axes[0].set_ylabel(f"{label(utility)} on test")
    alt = f"{label(utility)} of every method against how close it comes to retraining; the tables hold the values."
    return finished("utility", "Utility against forgetting", figure, alt, CAPTIONS["utility"])


def _share(report: Mapping[str, Any], method: Mapping[str, Any], name: str) -> float | None:
    left = left_of(report, method, name)
    return None if left is None else left.share


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
        ax.plot(
            x,
            mean,
            marker=marker,
            color=color,
            ls=":" if name == "retrain" else "-",
            lw=1.2,
            ms=7,
            label=shortened(name),
        )
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
