"""Membership attacks per example: LiRA and RMIA, with the retrained models as out-models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError
from graphunlearn.eval.attacks.evidence import Evidence, placements

__all__ = ["FEWEST_ANCHORS", "Observed", "lira", "membership", "rmia", "true_positive_rate"]

MANY = 16
"""Number of out-models from which variances are estimated per example instead of once for all."""
GAMMA = 2.0
"""RMIA: factor by which the likelihood ratio of an example must exceed that of a population example."""
RATES = {"tpr@1%": 0.01, "tpr@0.1%": 0.001}
"""False positive rates at which the true positive rate is reported."""
FEWEST_ANCHORS = 20
"""Least number of anchors to calibrate on; with fewer, logits stay as they are, and the attacks must not decide."""
OFFLINE = 0.3
"""RMIA: the constant :math:`a` that estimates the probability of in-models from that of out-models."""


Observed = dict[str, Any]
"""The data of one model that attacks use: logits of ``forgotten``, ``controls`` and ``anchors``, and others by attack.
"""


def membership(
    observed: Observed, outside: Sequence[Observed], unit: Tensor, inside: Sequence[Observed] = ()
) -> dict[str, tuple[Evidence, dict[str, float]]]:
    """Run LiRA and RMIA on the forgotten examples against never-seen controls.

    The logits of the attacked model are first calibrated on anchors, held-out examples that no model was trained on.

    Args:
        observed: Logits of the attacked model: ``"forgotten"`` ``[num]``, ``"controls"`` ``[num_controls]``, half of
            which serve RMIA as its population, and ``"anchors"`` ``[num_anchors]``.
        outside: The same of models that were not trained on the forgotten examples.
        unit: Unit (user or session) of every forgotten example ``[num]``.
        inside: The same of shadow models that were trained on the forgotten examples. No model was trained on the
            controls; their logits on in-models are raised by the mean difference that training makes on the examples.

    Returns:
        The evidence and the true positive rates of ``"lira"`` and ``"rmia"``; empty without an out-model or controls.
    """
    if not outside or len(observed["controls"]) < 2 or not len(unit):
        return {}
    out = {key: torch.stack([o[key] for o in outside]) for key in ("forgotten", "controls", "anchors")}
    start, slope = _calibration(observed["anchors"], out["anchors"].mean(0))
    members, controls = ((observed[key] - start) / slope for key in ("forgotten", "controls"))
    outer, inner = torch.cat([out["forgotten"], out["controls"]], 1), None
    if inside:
        own = {key: torch.stack([o[key] for o in inside]) for key in ("forgotten", "controls")}
        gap = own["forgotten"].mean() - out["forgotten"].mean()
        inner = torch.cat([own["forgotten"], own["controls"] + gap], 1)
    scores = lira(torch.cat([members, controls]), outer, inner)
    p, p_out = torch.sigmoid(controls), torch.sigmoid(out["controls"])
    population = torch.arange(len(controls)) % 2 == 1
    background = p[population], p_out[:, population]
    relative = rmia(torch.sigmoid(members), torch.sigmoid(out["forgotten"]), *background)
    others = rmia(p[~population], p_out[:, ~population], *background)
    return {
        "lira": _told(scores[: len(members)], scores[len(members) :], unit),
        "rmia": _told(relative, others, unit),
    }


def _told(members: Tensor, others: Tensor, unit: Tensor) -> tuple[Evidence, dict[str, float]]:
    rates = {name: true_positive_rate(members, others, rate) for name, rate in RATES.items()}
    return Evidence.of((placements(members, others), unit)), rates


def _calibration(observed: Tensor, average: Tensor) -> tuple[float, float]:
    """Return intercept and slope of the logits of one model against the average model, on pairs that no model was
    trained on.

    A model that was trained longer has larger logits everywhere. Without this step an attack would take the
    difference for a trace of the forgotten pairs.
    """
    if len(observed) < FEWEST_ANCHORS:
        return 0.0, 1.0
    spread = average - average.mean()
    slope = float((spread * observed).sum() / (spread**2).sum().clamp(min=1e-12))
    slope = slope if slope > 0.1 else 1.0
    return float(observed.mean()) - slope * float(average.mean()), slope


def lira(observed: Tensor, outside: Tensor, inside: Tensor | None = None) -> Tensor:
    r"""Return the score of the likelihood-ratio attack for every example.

    The statistic :math:`\varphi_z` of an example, such as the logit of its probability, is taken as normal among models
    that were not trained on it, :math:`N(\mu_z, \sigma^2)`. Without in-models the score is
    :math:`(\varphi_z - \mu_z) / \sigma` (the offline attack). With in-models it is the log likelihood ratio

    .. math::
        \Lambda_z = \log N(\varphi_z; \mu_z^{in}, \sigma_{in}^2) - \log N(\varphi_z; \mu_z, \sigma^2)

    With fewer than 16 models, the variance is pooled over all examples.

    Args:
        observed: Statistic of every example on the attacked model ``[num]``.
        outside: The same on models that were not trained on the examples ``[num_models, num]``.
        inside: The same on other models that were trained on them ``[num_models, num]``, or ``None``.

    Returns:
        The scores ``[num]``; higher for examples that the model was probably trained on.

    Raises:
        ValueError: There is no out-model.

    Source: Carlini et al., "Membership Inference Attacks From First Principles", 2022, arXiv 2112.03570.

    Example:
        >>> lira(torch.tensor([2.0, 0.0]), torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        tensor([ 1., -1.], dtype=torch.float64)
    """
    if not len(outside):
        raise ArgumentError("outside", "hold at least one model", "none")
    observed, outside = observed.double(), outside.double()
    mean, sd = outside.mean(0), _spread(outside)
    standard = (observed - mean) / sd
    if inside is None:
        return standard
    inside = inside.double()
    mean_in, sd_in = inside.mean(0), _spread(inside) if len(inside) > 1 else sd
    return (standard**2 - ((observed - mean_in) / sd_in) ** 2) / 2 + torch.log(sd / sd_in)


def _spread(values: Tensor) -> Tensor:
    """Return standard deviations ``[num]``: per example for many models, else pooled; 1 where nothing varies."""
    if len(values) < 2:
        return torch.ones(values.size(1), dtype=values.dtype, device=values.device)
    variance = values.var(0)
    if len(values) < MANY:
        variance = variance.mean().expand_as(variance)
    return torch.where(variance > 1e-24, variance, 1.0).sqrt()


def rmia(
    observed: Tensor, outside: Tensor, population: Tensor, outside_population: Tensor, gamma: float = GAMMA
) -> Tensor:
    r"""Return the score of the relative membership attack for every example.

    The likelihood ratio of an example compares the attacked model with the average over models,
    :math:`\rho_x = p(x \mid \theta) / p(x)`. Without in-models, :math:`p(x) = ((1 + a)\, \bar p_{out}(x) + 1 - a) / 2`.
    The score is the share of population examples :math:`z` with :math:`\rho_x > \gamma \rho_z`.

    Args:
        observed: Probability of every example on the attacked model ``[num]``.
        outside: The same on models that were not trained on the examples ``[num_models, num]``.
        population: Probability of examples that no model was trained on, on the attacked model ``[num_population]``.
        outside_population: The same on the out-models ``[num_models, num_population]``.
        gamma: Factor by which a population example must be exceeded.

    Returns:
        The scores in [0, 1] ``[num]``.

    Raises:
        ValueError: There is no out-model or no population.

    Source: Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks", 2024, arXiv 2312.03262; the constant
    :math:`a = 0.3` is our choice.

    Example:
        >>> half = torch.full((1, 2), 0.5)
        >>> rmia(torch.tensor([0.9, 0.1]), half, torch.tensor([0.3, 0.5]), half)
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    if not len(outside) or not len(population):
        missing = "outside" if not len(outside) else "population"
        raise ArgumentError(missing, "hold at least one entry", "none")

    def ratio(p: Tensor, out: Tensor) -> Tensor:
        average = ((1 + OFFLINE) * out.double().mean(0) + 1 - OFFLINE) / 2
        return p.double() / average.clamp(min=1e-12)

    theirs = ratio(population, outside_population).sort().values
    beaten = torch.searchsorted(theirs, (ratio(observed, outside) / gamma).contiguous())
    return beaten.double() / len(theirs)


def true_positive_rate(members: Tensor, others: Tensor, rate: float) -> float:
    """Return the largest share of members found by a threshold that raises at most ``rate`` false alarms.

    Args:
        members: Scores of the members ``[num_members]``.
        others: Scores of non-members ``[num_others]``.
        rate: Largest share of non-members above the threshold.

    Returns:
        The share of members above the threshold.

    Example:
        >>> true_positive_rate(torch.tensor([3.0, 1.0]), torch.arange(3.0), 0.34)
        0.5
    """
    allowed = int(rate * len(others) + 1e-9)
    threshold = others.sort(descending=True).values[min(allowed, len(others) - 1)]
    return float((members > threshold).double().mean())
