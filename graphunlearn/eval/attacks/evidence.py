"""The evidence that an attack collects from a model, and its comparison with retrained models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError

__all__ = ["FEWEST_MODELS", "Comparison", "Evidence", "compare", "placements", "t_quantile", "units_of"]

DRAWS = 400
"""Number of bootstrap samples."""
LEVEL = 0.95
"""Coverage of every interval."""
MOST_UNITS = 4000
"""Largest number of units that a bootstrap resamples; more units are merged into this many blocks."""
FEWEST_UNITS = 5
"""Least number of units in every group for an interval."""
FEWEST_MODELS = 3
"""Least number of retrained models for a comparison with their spread."""
PRIOR = 2.0
"""Largest number of degrees of freedom given to the spread expected from the units alone, in the moderated variance."""


@dataclass(frozen=True)
class Evidence:
    r"""The value of an attack on one model, with the contribution of every unit (a user, an item or a session).

    With the groups :math:`g` of contributions :math:`c` (the forgotten ones, and possibly controls), the value is

    .. math::
        v = \sum_g s_g \frac{\sum_{c \in g} c}{|g|}, \qquad s = (1, -1)

    Args:
        sums: Sum of the contributions of every unit, by group ``[num_groups, num_units]``.
        counts: Number of contributions of every unit, by group ``[num_groups, num_units]``.
    """

    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, *groups: tuple[Tensor, Tensor]) -> Evidence:
        """Sum contributions by unit.

        Args:
            *groups: Contributions ``[num]`` and the unit of each of them ``[num]``, by group. The numbers of units are
                counted over all groups: equal numbers in two groups are the same unit.

        Returns:
            The evidence.

        Example:
            >>> Evidence.of((torch.tensor([1.0, 0.0, 0.5]), torch.tensor([3, 3, 8]))).value
            0.5
        """
        units = torch.cat([unit for _, unit in groups]).cpu()
        _, own = units.unique(return_inverse=True)
        own = own % MOST_UNITS
        num, start, sums, counts = int(own.max()) + 1 if len(own) else 0, 0, [], []
        for value, unit in groups:
            index = own[start : start + len(unit)]
            start += len(unit)
            zeros = torch.zeros(num, dtype=torch.float64)
            sums.append(zeros.index_add(0, index, value.detach().cpu().double()))
            counts.append(torch.bincount(index, minlength=num).double())
        return cls(torch.stack(sums), torch.stack(counts))

    @property
    def value(self) -> float:
        """The value of the attack."""
        return float(self.resampled(torch.ones(1, self.sums.size(1), dtype=torch.float64)))

    def resampled(self, weights: Tensor) -> Tensor:
        """Return the value if every unit is counted with its weight.

        Args:
            weights: Weights of the units ``[num_draws, num_units]``.

        Returns:
            The values ``[num_draws]``; NaN where a group has no weight.
        """
        means = (weights @ self.sums.t()) / (weights @ self.counts.t())
        return means[:, 0] - means[:, 1] if means.size(1) > 1 else means[:, 0]


@dataclass(frozen=True)
class Comparison:
    """The value of an attack on one model, with its values on the original and on retrained models.

    Args:
        value: The value on the model.
        original: The value on the original model.
        retrain_mean: The mean value on the retrained models.
        retrain_sd: The standard deviation between retrained models, moderated by the spread that the units give.
        low: Lower end of the interval of ``value`` over the choice of units.
        high: Upper end of the interval of ``value``.
        leak_left: Share of what the original reveals that the model still reveals: 0 as retrained, 1 as the original;
            ``None`` if the attack cannot distinguish the original from retrained models.
        leak_low: Lower end of the interval of ``leak_left``.
        leak_high: Upper end of the interval of ``leak_left``.
        beyond: The difference from the mean of retrained models, in units of the largest difference that another
            retrained model has at the level of the interval; positive on the side of the original if the attack can
            distinguish it, and for larger values otherwise. ``None`` with fewer than three retrained models.
        difference_low: Lower end of the interval of the difference from the mean of retrained models.
        difference_high: Upper end of the interval of the difference.
    """

    value: float
    original: float
    retrain_mean: float
    retrain_sd: float | None
    low: float | None
    high: float | None
    leak_left: float | None
    leak_low: float | None
    leak_high: float | None
    beyond: float | None
    difference_low: float | None = None
    difference_high: float | None = None

    @property
    def separated(self) -> bool:
        """Whether the attack can distinguish the original from retrained models."""
        return self.leak_left is not None

    def entry(self) -> dict[str, Any]:
        """Return the report's entry, with ``None`` for numbers that are not finite."""
        return {key: None if value is None or not math.isfinite(value) else value for key, value in vars(self).items()}


def compare(
    model: Evidence,
    original: Evidence,
    references: Sequence[Evidence],
    *,
    tests: int = 1,
    two_sided: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
    seed: int = 0,
) -> Comparison:
    r"""Compare the value of an attack on one model with its value on retrained models.

    The interval of the value :math:`v` is :math:`v \pm t \cdot \mathrm{se}` with the standard error of a bootstrap over
    the units (users, items or sessions), clipped to the values that the attack can take.

    Let :math:`d = v - \bar r` be the difference between the model and the mean of :math:`R` retrained models. Its
    standard error combines two sources of chance: the choice of the units (the same bootstrap, with the same draws for
    all models) and the choice of the retrained models (:math:`s_r^2 / R`). The spread
    :math:`s_r` of few retrained models is uncertain, so its square is averaged with the spread that the units alone
    would give, weighted by degrees of freedom (a moderated variance). The units alone do not show variation that
    affects all of them in the same way, so their weight falls with their share of the observed spread. The interval is
    :math:`d \pm t \cdot \mathrm{se}`.

    The share that is left, :math:`\ell = d / g` with the gap :math:`g = o - \bar r` to the value :math:`o` of the
    original, has the standard error of :math:`d - \ell g` divided by :math:`|g|` (the delta method). It includes a
    third source of chance, the seed of the model itself. The model is taken to vary as much as a retrained one, and to
    have this in common with the original as far as it has kept its trace, so that

    .. math::
        \mathrm{var}(d - \ell g) = \mathrm{var}_{\text{units}}
        + s_r^2 \Big( 1 - m^2 + \frac{(1 - \ell)^2}{R} \Big), \qquad m = \max(0, 1 - |1 - \ell|)

    For a retrained model (:math:`\ell = 0`) this is :math:`s_r^2 (1 + 1/R)`; for the original itself it is 0.

    Another retrained model differs from :math:`\bar r` by at most :math:`t\, s_r \sqrt{1 + 1/R}` at the same level. The
    attack *separates* the original if the original lies further away, on the side where attacks succeed; with
    ``two_sided``, on either side.

    Args:
        model: The evidence on the model.
        original: The evidence on the original model.
        references: The evidence on the retrained models.
        tests: Number of comparisons with retrained models that share the level (Bonferroni).
        two_sided: Whether the original may lie on either side of retrained models, as the probability of a promoted
            item may; otherwise an attack must succeed better on the original.
        limits: The least and the largest contribution of a unit, to which the interval of the value is clipped.
        seed: Seed of the bootstrap.

    Returns:
        The comparison; without an interval for fewer than five units in a group, and without a spread and a share for
        fewer than three retrained models.

    Raises:
        ValueError: There is no retrained model.

    Source of the moderated variance: Smyth, "Linear Models and Empirical Bayes Methods", 2004.
    """
    if not references:
        raise ArgumentError("references", "hold at least one retrained model", "none")
    values = torch.tensor([r.value for r in references], dtype=torch.float64)
    value, before, mean, count = model.value, original.value, float(values.mean()), len(references)
    least = min(int((group > 0).sum()) for group in model.counts)
    if least < FEWEST_UNITS or not math.isfinite(value + before + mean):
        return Comparison(value, before, mean, None, None, None, None, None, None, None)
    units = model.sums.size(1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(units, (DRAWS, units), generator=generator)
    weights = torch.zeros(DRAWS, units, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    drawn_value = model.resampled(weights)
    own = t_quantile(1 - (1 - LEVEL) / 2, least - 1)
    own *= math.sqrt(float(_variance(drawn_value, 0)) * least / (least - 1))  # a bootstrap divides by n, not n - 1
    lowest, highest = limits if len(model.sums) == 1 else (limits[0] - limits[1], limits[1] - limits[0])
    low, high = max(value - own, lowest), min(value + own, highest)
    if count < FEWEST_MODELS:
        return Comparison(value, before, mean, None, low, high, None, None, None, None)
    of_references = torch.stack([r.resampled(weights) for r in references])
    apart = of_references - of_references.mean(0)  # every retrained model against their mean, by draw
    expected = float(_variance(apart, 1).mean()) * count / (count - 1)
    variance = float(values.var())
    prior = PRIOR * min(1.0, expected / max(variance, 1e-24))
    df = count - 1 + prior
    spread = math.sqrt((variance * (count - 1) + prior * expected) / df)
    quantile = t_quantile(1 - (1 - LEVEL) / 2 / tests, df)
    furthest = max(quantile * spread * math.sqrt(1 + 1 / count), 1e-12)
    drawn_mean = of_references.mean(0)
    half = quantile * math.sqrt(float(_variance(drawn_value - drawn_mean, 0)) + spread**2 / count)
    difference, gap = value - mean, before - mean
    left: list[float | None] = [None] * 3
    beyond = difference / furthest
    if (abs(gap) if two_sided else gap) > furthest:
        share = difference / gap
        rest = drawn_value - drawn_mean - share * (original.resampled(weights) - drawn_mean)
        seeds = 1 - max(0.0, 1 - abs(1 - share)) ** 2 + (1 - share) ** 2 / count
        width = quantile * math.sqrt(float(_variance(rest, 0)) + seeds * spread**2) / abs(gap)
        left = [share, share - width, share + width]
        beyond = math.copysign(1.0, gap) * beyond
    ends = difference - half, difference + half
    return Comparison(value, before, mean, spread, low, high, left[0], left[1], left[2], beyond, *ends)


def units_of(owners: Tensor) -> Tensor:
    """Return the units of a bootstrap: the owners of contributions, or every contribution if they have few owners.

    A single forgotten user gives no information on the differences between users. The interval then covers the choice
    of pairs of that user only.

    Args:
        owners: User (or session) of every contribution ``[num]``.

    Returns:
        The owners if there are at least five, otherwise distinct numbers ``[num]``.

    Example:
        >>> units_of(torch.tensor([7, 7, 9])).tolist(), units_of(torch.arange(5)).tolist()
        ([0, 1, 2], [0, 1, 2, 3, 4])
    """
    return owners if len(owners.unique()) >= FEWEST_UNITS else torch.arange(len(owners), device=owners.device)


def t_quantile(share: float, df: float) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        share: The probability below the quantile, in (0, 1).
        df: Degrees of freedom.

    Example:
        >>> round(t_quantile(0.975, 4), 3)
        2.776
    """
    from scipy import stats  # here, since importing it takes half a second that training and forgetting do not need

    return float(stats.t.ppf(share, df))


def _variance(values: Tensor, dim: int) -> Tensor:
    """Return the variance over draws, without draws in which a group of units is missing."""
    known = values.isfinite()
    count = known.sum(dim)
    mean = values.nan_to_num().sum(dim, keepdim=True) / count.unsqueeze(dim)
    return ((values - mean).nan_to_num() ** 2).sum(dim) / (count - 1).clamp(min=1)


def placements(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Return the share of negatives below every positive, ties counted half; the mean of the shares is the AUROC.

    Args:
        positive: Scores of positives ``[num_positive]``.
        negative: Scores of negatives ``[num_negative]``.

    Returns:
        The shares ``[num_positive]``.

    Example:
        >>> placements(torch.tensor([0.3, 0.1]), torch.tensor([0.1, 0.2]))
        tensor([1.0000, 0.2500], dtype=torch.float64)
    """
    ordered = negative.sort().values.contiguous()
    below = torch.searchsorted(ordered, positive.contiguous())
    upto = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return (below + upto).double() / 2 / len(ordered)
