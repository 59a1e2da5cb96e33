"""Figures of the steps in which a method forgot clicks, drawn from its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphunlearn.eval.report.drawing import DASHED, INK, MUTED, SERIES, Plot, axes_of, colors, finished, shortened

__all__ = ["targets", "weights"]

CAPTIONS = {
    "weights": """Every step weighs its objectives so that none of them gets worse to first order: the shortest vector
        in the convex hull of their gradients; an objective with weight 0 is left out. The lower panel shows the number
        of clicks and transitions that had not reached their target in the last step on them, or before the first.""",
    "targets": """One mark per click or transition to be forgotten. The target is the level of comparable ones that were
        never trained on, estimated without test data and without retraining. Before forgetting, a click that the model
        had learned lies above the line; forgetting should move it to the line, and not below it.""",
}


def weights(report: Mapping[str, Any], logs: Mapping[str, Mapping[str, Any]]) -> Plot | None:
    """Draw the weights of the objectives over the steps, and the number of samples that remain to be forgotten.

    Args:
        report: The report, which decides the colours of the methods.
        logs: Logs by method; the first one whose ``steps`` hold ``weights`` is drawn.

    Returns:
        The figure, or ``None`` if no log has the data.
    """
    name = next((name for name, log in logs.items() if _weighed(log.get("steps"))), None)
    if name is None:
        return None
    steps = logs[name]["steps"]
    x = [entry["step"] for entry in steps]
    figure, (top, bottom) = axes_of(4.0, 2, 1, sharex=True, height_ratios=(2, 1))
    objectives = list(dict.fromkeys(objective for entry in steps for objective in entry["weights"]))
    told = []
    for n, objective in enumerate(objectives):
        y = _numbers(entry["weights"].get(objective) for entry in steps)
        top.plot(x, y, color=SERIES[n % len(SERIES)], lw=1.4, label=objective)
        told.append(f"{objective} {np.nanmean(y):.2f}" if np.isfinite(y).any() else f"{objective} none")
    left = _numbers(entry.get("remaining") for entry in steps)
    bottom.plot(x, left, color=colors(report).get(name, (INK, ""))[0], drawstyle="steps-post")
    top.set_ylim(-0.03, 1.03)
    bottom.set_ylim(bottom=0)
    top.set_ylabel("weight")
    bottom.set_ylabel("left to forget")
    bottom.set_xlabel(f"step of {shortened(name)}")
    alt = f"Weights of the objectives of {name} over {len(steps)} steps; on average {', '.join(told)}."
    return finished("weights", "How the objectives were weighed", figure, alt, CAPTIONS["weights"])


def targets(report: Mapping[str, Any], logs: Mapping[str, Mapping[str, Any]]) -> Plot | None:
    """Draw the log probabilities of the forget set, before and after, against their targets.

    Args:
        report: The report, which decides the colours of the methods.
        logs: Logs by method; the first one whose ``log_p`` holds ``target`` is drawn.

    Returns:
        The figure, or ``None`` if no log has the data.
    """
    name = next((name for name, log in logs.items() if (log.get("log_p") or {}).get("target")), None)
    if name is None:
        return None
    target, before, after = (_numbers(logs[name]["log_p"].get(key) or ()) for key in ("target", "before", "after"))
    figure, axes = axes_of(3.8, 1, 2, sharex=True, sharey=True)
    color, marker = colors(report).get(name, (INK, "o"))
    panels = (axes[0], before, "before", MUTED, "o"), (axes[1], after, f"after {shortened(name)}", color, marker)
    for ax, y, text, its_color, its_marker in panels:
        ax.axline((0, 0), slope=1, color=INK, lw=1, ls=DASHED, label="target")
        ax.plot(target, y, its_marker, color=its_color, ms=3.5, alpha=0.6, mew=0, label=text)
        ax.set_xlabel("target log p")
    axes[0].set_ylabel("log p")
    means = f"mean {np.nanmean(before):.2f} before, {np.nanmean(after):.2f} after, target {np.nanmean(target):.2f}"
    alt = f"Log probabilities of {target.size} samples to be forgotten against their targets: {means}."
    return finished("targets", "Log probabilities and their targets", figure, alt, CAPTIONS["targets"])


def _weighed(steps: Any) -> bool:
    """Whether these are steps of a method that weighs objectives; others may log steps of their own."""
    return isinstance(steps, list) and bool(steps) and all(isinstance(s, Mapping) and "weights" in s for s in steps)


def _numbers(values: Any) -> NDArray[np.float64]:
    """Return numbers as an array; ``None`` becomes NaN and leaves a gap."""
    return np.array(list(values), dtype=np.float64)
