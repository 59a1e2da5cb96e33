"""Metrics of forgetting: two-sided comparisons with an ensemble of retrained models.

All functions take plain tensors of probabilities ``p = sigmoid(score)`` over one fixed list of pairs. A single
retrained model is one random draw. The difference between retrained models with different seeds is therefore the noise
floor: smaller differences have no significance. Forgetting more than retraining is as wrong as forgetting less.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError
from graphunlearn.metrics.ranking import auroc

__all__ = [
    "KSDistance",
    "distance_to_retrain",
    "flipped_label_auc",
    "forgetting_entry",
    "gap_closed",
    "ks_distance",
    "membership_auroc",
    "mi_bf",
    "mi_ng",
    "noise_floor",
    "privacy_leakage",
    "z_score",
]


def distance_to_retrain(unlearned: Tensor, references: Sequence[Tensor]) -> float:
    r"""Return the mean over retrained seeds of the mean over pairs of :math:`|p - p_r|`.

    The distance is not taken to an averaged model, because averaging removes the noise that every single model has.

    Args:
        unlearned: Probabilities ``[num_pairs]``.
        references: The same of every retrained model.

    Returns:
        The distance; NaN without pairs.

    Raises:
        ValueError: There is no reference, or the shapes differ.

    Example:
        >>> distance_to_retrain(torch.tensor([0.5, 0.5]), [torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5])])
        0.1875
    """
    _check(references, unlearned)
    return statistics.fmean(_mean_difference(unlearned, reference) for reference in references)


def noise_floor(references: Sequence[Tensor]) -> float | None:
    r"""Return the mean of :math:`|p_a - p_b|` over pairs and over retrained seeds :math:`a < b`.

    Args:
        references: Probabilities ``[num_pairs]`` of every retrained model.

    Returns:
        The floor; ``None`` for a single reference, NaN without pairs.

    Raises:
        ValueError: There is no reference, or the shapes differ.

    Example:
        >>> noise_floor([torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5])])
        0.375
    """
    _check(references)
    differences = [_mean_difference(a, b) for a, b in combinations(references, 2)]
    return statistics.fmean(differences) if differences else None


def z_score(value: float, reference_values: Sequence[float]) -> float | None:
    r"""Return :math:`(v - \bar r) / s_r` with the sample standard deviation of the retrained values.

    With 3–5 seeds, a tiny difference can give a large z; report :func:`gap_closed` as well.

    Args:
        value: The value :math:`v` of the unlearned model.
        reference_values: The values of the retrained models.

    Returns:
        The score; ``None`` for fewer than two references, if they do not vary, or if one of them is not finite.

    Example:
        >>> z_score(4.0, [1.0, 2.0, 3.0])
        2.0
    """
    if len(reference_values) < 2 or not all(map(math.isfinite, reference_values)):
        return None
    sd = statistics.stdev(reference_values)
    return (value - statistics.fmean(reference_values)) / sd if sd > 0 else None


def gap_closed(original: float, unlearned: float, retrain_mean: float) -> float | None:
    """Return ``(original - unlearned) / (original - retrain_mean)``.

    The value 1 equals retraining, smaller values mean under-forgetting and larger values over-forgetting.

    Args:
        original: The value of the original model.
        unlearned: The value of the unlearned model.
        retrain_mean: The mean value of the retrained models.

    Returns:
        The share; ``None`` if the original equals the mean of the retrained models.

    Example:
        >>> gap_closed(original=0.75, unlearned=0.375, retrain_mean=0.25)
        0.75
    """
    gap = original - retrain_mean
    negligible = 1e-9 * max(abs(original), abs(retrain_mean), 1e-12)
    return (original - unlearned) / gap + 0.0 if abs(gap) > negligible else None  # + 0.0: no negative zero


class KSDistance(NamedTuple):
    """The averaged two-sample Kolmogorov–Smirnov comparison with retrained models, and among the retrained models.

    Args:
        statistic: Mean statistic over the retrained models.
        p_value: Mean p-value over the retrained models.
        floor: Mean statistic between two retrained models; ``None`` for a single one.
    """

    statistic: float
    p_value: float
    floor: float | None


def ks_distance(unlearned: Tensor, references: Sequence[Tensor]) -> KSDistance:
    r"""Compare the distribution of probabilities with that of every retrained model.

    .. math::
        D = \sup_x |F(x) - F_r(x)|

    Unlike the mean difference, the statistic detects differences in the tails. The p-value assumes independent samples,
    which two models on the same pairs do not give; treat it as a rough guide and compare the statistic with the floor.
    Probabilities that agree to six digits count as equal: otherwise, if retrained models give one value for all pairs,
    rounding errors could make the statistic 1.

    Args:
        unlearned: Probabilities ``[num_pairs]``.
        references: The same of every retrained model.

    Returns:
        Statistic and p-value, means over the references, and the mean statistic between two references (``None`` for
        a single one); NaN without pairs.

    Raises:
        ValueError: There is no reference, or the shapes differ.

    Example:
        >>> p = torch.linspace(0, 1, 5)
        >>> result = ks_distance(p, [p, p + 0.5])
        >>> result.statistic, result.floor
        (0.2, 0.4)
    """
    _check(references, unlearned)
    if unlearned.numel() == 0:
        return KSDistance(math.nan, math.nan, math.nan)
    own, *samples = (p.detach().cpu().double().round(decimals=6).numpy() for p in (unlearned, *references))
    from scipy import stats  # here, since importing it takes half a second that training and forgetting do not need

    results = [stats.ks_2samp(own, sample) for sample in samples]
    between = [float(stats.ks_2samp(a, b).statistic) for a, b in combinations(samples, 2)]
    return KSDistance(
        statistic=statistics.fmean(float(result.statistic) for result in results),
        p_value=statistics.fmean(float(result.pvalue) for result in results),
        floor=statistics.fmean(between) if between else None,
    )


def membership_auroc(forgotten: Tensor, never_seen: Tensor) -> float:
    """Return the AUROC with which scores separate forgotten pairs from never-seen pairs.

    After forgetting it need not be one half, because a model may predict a pair that it was never trained on. Compare
    it with the value of the retrained models.

    Args:
        forgotten: Scores or probabilities ``[num_forgotten]``.
        never_seen: Scores or probabilities of :func:`never_seen_pairs` ``[num_never_seen]``.

    Returns:
        The AUROC.

    Example:
        >>> membership_auroc(torch.tensor([0.9, 0.4]), torch.tensor([0.5, 0.1]))
        0.75
    """
    scores = torch.cat([forgotten, never_seen])
    labels = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    labels[: forgotten.numel()] = True
    return auroc(scores, labels)


def privacy_leakage(unlearned_auc: float, retrain_auc: float) -> float | None:
    r"""Return :math:`\frac{(1 - AUC_u) - (1 - AUC_r)}{1 - AUC_r}` of two membership AUROCs.

    A negative value means that forgotten pairs are easier to identify than after retraining. A positive value means
    that they are harder to identify, which reveals the request as well.

    Args:
        unlearned_auc: Membership AUROC :math:`AUC_u` of the unlearned model.
        retrain_auc: Membership AUROC :math:`AUC_r` of the retrained model.

    Returns:
        The signed leakage; ``None`` if :math:`AUC_r = 1`.

    Example:
        >>> privacy_leakage(0.75, 0.5)
        -0.5
    """
    return (retrain_auc - unlearned_auc) / (1 - retrain_auc) if retrain_auc != 1 else None


def mi_bf(before: Tensor, after: Tensor) -> float | None:
    r"""Return :math:`\bar p_{\text{before}} / \bar p_{\text{after}}` over the forgotten pairs.

    The ratio grows without bound under over-forgetting; compare it with the value of retrained models.

    Args:
        before: Probabilities of the forgotten pairs by the original model ``[num_pairs]``.
        after: The same after forgetting.

    Returns:
        The ratio; ``None`` where the mean after is 0.

    Source: the evaluation in Chen, Xia and Huang, "Pre-training for Recommendation Unlearning", 2025, arXiv 2505.22649.

    Example:
        >>> mi_bf(torch.tensor([0.9, 0.6]), torch.tensor([0.25, 0.25]))
        3.0
    """
    return _ratio(before, after)


def mi_ng(never_seen: Tensor, forgotten: Tensor) -> float | None:
    r"""Return :math:`\bar p_{\text{never seen}} / \bar p_{\text{forgotten}}` after forgetting.

    The ratio grows without bound under over-forgetting; compare it with the value of retrained models.

    Args:
        never_seen: Probabilities of pairs that were never trained on ``[num_never_seen]``.
        forgotten: Probabilities of the forgotten pairs ``[num_forgotten]``.

    Returns:
        The ratio; ``None`` where the mean of the forgotten is 0.

    Source: as :func:`mi_bf`.

    Example:
        >>> mi_ng(torch.tensor([0.25, 0.75]), torch.tensor([1.0]))
        0.5
    """
    return _ratio(never_seen, forgotten)


def flipped_label_auc(scores: Tensor, trained_labels: Tensor) -> float:
    """Return the AUROC of the *wrong* labels used in training, which measures how well the model still predicts them.

    Args:
        scores: Scores or probabilities of the forgotten pairs ``[num_pairs]``.
        trained_labels: The flipped labels used in training ``[num_pairs]``.

    Returns:
        The AUROC.

    Example:
        >>> flipped_label_auc(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([0, 1, 1]))
        0.0
    """
    return auroc(scores, trained_labels)


def forgetting_entry(value: float, original: float | None, retrain_values: Sequence[float]) -> dict[str, float | None]:
    """Return one metric of one method with the values of the original and the retrained models, for a report.

    Args:
        value: The value of the unlearned model.
        original: The value of the original model; ``None`` where the metric is not defined for it.
        retrain_values: The values of the retrained models.

    Returns:
        The value, the original value, the mean and standard deviation of the retrained values, z and the gap closed;
        ``None`` for what is not finite.

    Example:
        >>> forgetting_entry(0.5, 1.0, [0.25, 0.5, 0.75])
        {'value': 0.5, 'original': 1.0, 'retrain_mean': 0.5, 'retrain_sd': 0.25, 'z': 0.0, 'gap_closed': 1.0}
    """
    mean, finite = statistics.fmean(retrain_values) if retrain_values else None, all(map(math.isfinite, retrain_values))
    entry = {
        "value": value,
        "original": original,
        "retrain_mean": mean,
        "retrain_sd": statistics.stdev(retrain_values) if len(retrain_values) > 1 and finite else None,
        "z": z_score(value, retrain_values),
        "gap_closed": None if mean is None or original is None else gap_closed(original, value, mean),
    }
    return {key: float(v) if v is not None and math.isfinite(v) else None for key, v in entry.items()}


def _ratio(above: Tensor, below: Tensor) -> float | None:
    mean = float(below.double().mean())
    return float(above.double().mean()) / mean if mean else None


def _mean_difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().mean())


def _check(references: Sequence[Tensor], *unlearned: Tensor) -> None:
    if not references:
        raise ArgumentError("references", "hold at least one retrained model", "none")
    shapes = {tuple(p.shape) for p in (*unlearned, *references)}
    if len(shapes) > 1:
        raise ArgumentError("references", "all be probabilities of the same pairs", f"shapes {sorted(shapes)}")
