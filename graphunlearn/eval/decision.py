"""The verdict on one model: forgotten as retraining does, too little, too much, or undecided, and the rule for it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graphunlearn.eval.attacks.evidence import FEWEST_MODELS, LEVEL, Comparison, t_quantile
from graphunlearn.eval.attacks.fold_in import NEEDED

__all__ = ["DECIDING", "FEWEST", "NAMES", "TOLERATED", "Spread", "Verdict", "combine", "decide", "says", "spread_of"]

DECIDING = ("target", "fold_in", "fold_in_items", "lira", "edge_recovery_forgotten", "transition")
"""The attacks that decide, the most direct one first. All other attacks are shown, but do not decide."""
FEWEST = FEWEST_MODELS
"""Least number of retrained models for a verdict."""
TOLERATED = 0.25
"""Largest share of the trace that may be left, on either side, for the verdict of forgetting as retraining does."""
WIDEST = 0.5
"""Largest distance of the ends of an interval from 0 for the same verdict."""
FAR = 1.5
"""Distance to retrained models, divided by the noise floor, above which a model differs from them example by example.
"""
UNSEPARATED = 2.0
"""Distance to retrained models from which an attack decides even if it does not distinguish the original from them."""
NAMES = {
    "target": "the promoted items of real users",
    "fold_in": "the fold-in attack on users",
    "fold_in_items": "the fold-in attack on items",
    "lira": "the membership attack (LiRA)",
    "rmia": "the membership attack (RMIA)",
    "edge_recovery_forgotten": "the recovery of forgotten edges",
    "edge_recovery_kept": "the recovery of kept edges",
    "before_and_after": "the comparison of both models",
    "click": "the log probability of forgotten clicks",
    "transition": "the membership attack on deleted transitions",
}
"""Names of the attacks in sentences."""


class Verdict(NamedTuple):
    """The verdict on one model.

    Args:
        status: ``"like"``, ``"under"``, ``"over"`` or ``"undecided"``.
        rule: The rule that decided, in words.
        needs: The further data or models that would decide, in words; ``None`` if the verdict is decided.
    """

    status: str
    rule: str
    needs: str | None = None


class Spread(NamedTuple):
    """The distance of a model to retrained models, relative to the distances between retrained models.

    Args:
        ratio: The distance divided by the mean distance between retrained models.
        far: Whether the distance exceeds what another retrained model would have, and the ratio is large.
    """

    ratio: float
    far: bool


def spread_of(distance: float, between: Sequence[float]) -> Spread | None:
    """Compare the distance of a model to retrained models with the distances of retrained models to the others.

    Args:
        distance: Mean distance of the model to the retrained models.
        between: Mean distance of every retrained model to the others.

    Returns:
        The comparison; ``None`` with fewer than three retrained models, or if they do not differ.

    Example:
        >>> spread_of(0.06, [0.029, 0.030, 0.031])
        Spread(ratio=2.0, far=True)
    """
    if len(between) < FEWEST or not (floor := statistics.fmean(between)) > 1e-6:
        return None
    quantile = t_quantile(1 - (1 - LEVEL) / 2, len(between) - 1)
    most = floor + quantile * statistics.stdev(between) * (1 + 1 / len(between)) ** 0.5
    return Spread(distance / floor, distance > most and distance / floor > FAR)


def decide(
    compared: Mapping[str, Comparison],
    spread: Spread | None,
    num_references: int,
    whole: Mapping[str, str] | None = None,
) -> Verdict:
    """Return the verdict that the attacks on one model give.

    An attack says that a model forgets

    - *too little* if the interval of the share left lies above 25%, and the model lies
      further from retrained models than another retrained model would;
    - *too much* in the mirrored case;
    - *as retraining does* if the share left is at most 25% on either side and its interval stays within 50%.

    An attack can do so only if it distinguishes the original from retrained models, or if the distance exceeds twice
    that of another retrained model. The first attack of :data:`DECIDING` that says *too little* or *too much* decides.
    Otherwise, the verdict *as retraining does* needs all of the following:

    - By no attack does the model lie further from retrained models than another retrained model would. All attacks
      share one level, so that chance brings a retrained model further out by any of them in 5% of audits.
    - The first attack that separates the original says so, and so does every attack of ``whole``: the embeddings of
      users or items that are forgotten entirely can be drawn anew, and then attacks that read these embeddings find
      nothing, while the trace in the embeddings of the others is still there.
    - For every other attack that separates the original, the share left is at most half on either side.
    - The probabilities of the forgotten data are not far from retrained models, example by example (more than 1.5 times
      the noise floor, and more than another retrained model would be). If they are, the side of retrained models on
      which the interval of the difference lies decides.

    In every other case the verdict is *undecided*.

    Args:
        compared: The comparisons with retrained models, by attack.
        spread: The distance to retrained models on the forgotten data, or ``None``.
        num_references: Number of retrained models.
        whole: The attacks that the verdict *as retraining does* needs, because the request empties users, items or
            sessions, with what such an attack needs, in words; by default the fold-in attacks in ``compared``.

    Returns:
        The verdict.
    """
    if num_references < FEWEST:
        return Verdict(
            "undecided",
            f"{num_references} retrained model{'' if num_references == 1 else 's'}, too few for a verdict",
            f"at least {FEWEST} retrained models; five or more are better",
        )
    asked = {name: compared[name] for name in DECIDING if name in compared and compared[name].beyond is not None}
    if not asked:
        rule = "nothing measurable to forget: too few forgotten users, sessions or pairs for any attack"
        return Verdict("undecided", rule, "a larger request")
    said = {name: says(comparison) for name, comparison in asked.items()}
    for name, word in said.items():
        if word in ("under", "over"):
            return Verdict(word, _told(name, asked[name]))
    separated = [name for name in asked if asked[name].separated]
    out = [name for name in asked if abs(asked[name].beyond or 0.0) > 1]
    if out and not asked[out[0]].separated:
        rule = f"{_told(out[0], asked[out[0]])}, further away than another retrained model"
        return Verdict("undecided", rule, _needs(asked[out[0]]))
    if not separated:
        return Verdict(
            "undecided",
            "nothing measurable to forget: no attack tells the original from retrained models",
            "more forgotten data in one request, or more retrained models",
        )
    first, others = separated[0], separated[1:]
    if spread is not None and spread.far:
        return _one_by_one(_told(first, asked[first]), asked[first], spread)
    if whole is None:
        whole = {name: words for name, words in NEEDED.items() if name in compared}
    for name in whole:
        if name not in separated:
            return _unseen(name, name in asked, whole[name])
    open_ = [name for name in separated if name in (first, *whole) and said[name] != "like"]
    open_ += [name for name in others if abs(asked[name].leak_left or 0.0) > WIDEST]
    open_ += [name for name in separated if name in out]
    if open_:
        return Verdict("undecided", _told(open_[0], asked[open_[0]]), _needs(asked[open_[0]]))
    return Verdict("like", _told(first, asked[first]))


def _unseen(name: str, made: bool, needs: str) -> Verdict:
    """Return the verdict where an attack that whole users, items or sessions need does not separate the original."""
    if made:
        rule = f"{NAMES[name]} does not tell the original from retrained models"
        return Verdict("undecided", rule, "a larger request, or more retrained models")
    return Verdict("undecided", f"{NAMES[name]} could not be made, and other attacks miss what it finds", needs)


def _one_by_one(rule: str, c: Comparison, spread: Spread) -> Verdict:
    """Return the verdict on a model whose probabilities of forgotten data are far from those of retrained models."""
    rule = f"{rule}; and one by one, {spread.ratio:.1f} times as far from retrained models as two of those are apart"
    toward = math.copysign(1.0, c.original - c.retrain_mean)
    low, high = sorted(toward * (end or 0.0) for end in (c.difference_low, c.difference_high))
    if low > 0:
        return Verdict("under", rule)
    if high < 0:
        return Verdict("over", rule)
    return Verdict("undecided", rule, "a larger request")


def says(c: Comparison) -> str | None:
    """Return the verdict of one attack alone: ``"like"``, ``"under"``, ``"over"``, or ``None`` if it does not decide.

    Args:
        c: The comparison with retrained models. Where the attack does not separate the original, a model has forgotten
            too much only if it reveals less than the original, which has forgotten nothing.
    """
    if c.beyond is None:
        return None
    if c.leak_left is None or c.leak_low is None or c.leak_high is None:
        if c.beyond > UNSEPARATED:
            return "under"
        return "over" if c.beyond < -UNSEPARATED and c.value < c.original else None
    if c.beyond > 1 and c.leak_low > TOLERATED:
        return "under"
    if c.beyond < -1 and c.leak_high < -TOLERATED:
        return "over"
    inside = abs(c.leak_left) <= TOLERATED and c.leak_low >= -WIDEST and c.leak_high <= WIDEST
    return "like" if inside else None


def _told(name: str, c: Comparison) -> str:
    if c.leak_left is None or c.leak_low is None or c.leak_high is None:
        return f"{NAMES[name]}: {c.value:.3f} against {c.retrain_mean:.3f} for retrained models"
    return f"{NAMES[name]}: {c.leak_left:.0%} of the trace is left ({c.leak_low:.0%} to {c.leak_high:.0%})"


def _needs(c: Comparison) -> str:
    """Return how to narrow the interval: more examples or more retrained models, whichever contributes more to its
    width.
    """
    models = c.retrain_sd or 0.0
    half = ((c.difference_high or 0.0) - (c.difference_low or 0.0)) / 2
    return "more retrained models" if models > half / 4 else "more forgotten users, sessions or pairs in one request"


def combine(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return one verdict for several runs of one method.

    Decided runs that agree decide, if they are at least half of the runs; for the verdict of forgetting as retraining
    does, if they are more than half.

    Args:
        verdicts: The verdict of every run, as in the report.

    Returns:
        The verdict; ``None`` without runs.

    Example:
        >>> runs = [{"status": s, "rule": "a", "needs": None} for s in ("like", "like", "undecided")]
        >>> combine(runs)
        {'status': 'like', 'rule': 'in 2 of 3 runs, such as a', 'needs': None}
    """
    decided = [v for v in verdicts if v["status"] != "undecided"]
    words = {v["status"] for v in decided}
    if len(verdicts) < 2:
        return dict(verdicts[0]) if verdicts else None
    if len(words) == 1 and 2 * len(decided) >= len(verdicts) + ("like" in words):
        rule = f"in {len(decided)} of {len(verdicts)} runs, such as {decided[0]['rule']}"
        return {"status": decided[0]["status"], "rule": rule, "needs": None}
    if len(words) > 1:
        counts = ", ".join(f"{sum(v['status'] == w for v in decided)} {w}" for w in sorted(words))
        return {"status": "undecided", "rule": f"the runs disagree ({counts})", "needs": "more originals"}
    open_ = next(v for v in verdicts if v["status"] == "undecided")
    return {**open_, "rule": f"{len(verdicts) - len(decided)} of {len(verdicts)} runs are undecided: {open_['rule']}"}
