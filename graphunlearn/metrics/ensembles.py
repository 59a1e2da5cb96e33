"""Comparisons of unlearned models with retrained models example by example: KLOM, and overlap of recommendations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError

__all__ = ["MANY", "klom", "klom_if_equal", "top_k_overlap"]

MANY = 16
"""Number of models on either side from which histograms replace the normal approximation."""
BINS, CLIP, LEAST = 20, 100.0, 1e-5


def klom(unlearned: Tensor, retrained: Tensor) -> float | None:
    r"""Return the mean KL divergence of the margins of unlearned models from those of retrained models (KLOM).

    The margin of an example is its logit less the log-sum-exp of all other logits. For one example, :math:`m_u, s_u`
    are mean and standard deviation over unlearned models and :math:`m_r, s_r` those over retrained models. With fewer
    than 16 models on either side, margins are taken as normal:

    .. math::
        KL = \ln\frac{s_r}{s_u} + \frac{s_u^2 + (m_u - m_r)^2}{2 s_r^2} - \frac12

    From 16 models on, margins are clipped to :math:`\pm 100` and counted in 20 bins of their common range, with
    :math:`10^{-5}` added to every share.

    Args:
        unlearned: Margins of every unlearned model ``[num_unlearned, num_examples]``.
        retrained: Margins of every retrained model ``[num_retrained, num_examples]``.

    Returns:
        The mean over the examples; ``None`` with fewer than three models on either side or without examples. With few
        models the figure is far above 0 for equal distributions as well: read it beside the same figure between
        retrained models.

    Source: the definition with histograms is from the public code of "Data-Unlearn-Bench" (RoyRin); the normal
    approximation for few models is ours.

    Example:
        >>> margins = torch.tensor([[0.0], [1.0], [2.0]])
        >>> klom(margins, margins), round(klom(margins + 1, margins), 6)
        (0.0, 0.5)
    """
    if unlearned.dim() != 2 or retrained.dim() != 2 or unlearned.size(1) != retrained.size(1):
        shapes = tuple(unlearned.shape), tuple(retrained.shape)
        raise ArgumentError("unlearned", "hold margins of the same examples as 'retrained'", f"shapes {shapes}")
    count = min(len(unlearned), len(retrained))
    if count < 3 or not unlearned.size(1):
        return None
    u, r = (m.double().clamp(-CLIP, CLIP) for m in (unlearned, retrained))
    if count >= MANY:
        return float(_of_histograms(u, r).mean())
    su, sr = (m.std(0).clamp(min=1e-6) for m in (u, r))
    return float((torch.log(sr / su) + (su**2 + (u.mean(0) - r.mean(0)) ** 2) / (2 * sr**2) - 0.5).mean())


def klom_if_equal(num_unlearned: int, num_retrained: int) -> float | None:
    r"""Return the expectation of :func:`klom` if unlearned and retrained models have equal normal distributions.

    Means and variances of few models are uncertain, so that the closed form is far above 0 even then. With :math:`n`
    unlearned and :math:`k` retrained models, :math:`a = (k - 1) / 2`, :math:`b = (n - 1) / 2` and the digamma function
    :math:`\psi`, the expectation is

    .. math::
        \frac12 \big( \psi(a) - \ln a - \psi(b) + \ln b \big)
        + \frac12 \Big( 1 + \frac1n + \frac1k \Big) \frac{k - 1}{k - 3} - \frac12

    Args:
        num_unlearned: Number of unlearned models :math:`n`.
        num_retrained: Number of retrained models :math:`k`.

    Returns:
        The expectation; ``None`` with fewer than three unlearned models, with fewer than four retrained models, for
        which it is infinite, and where :func:`klom` uses histograms.

    Source: moments of the chi-squared distribution; the use as a yardstick is ours.

    Example:
        >>> round(klom_if_equal(5, 5), 6), klom_if_equal(5, 3)
        (0.9, None)
    """
    n, k = num_unlearned, num_retrained
    if n < 3 or k < 4 or min(n, k) >= MANY:
        return None
    from scipy.special import digamma  # here, since training and forgetting do not need it

    a, b = (k - 1) / 2, (n - 1) / 2
    logarithms = float(digamma(a)) - math.log(a) - float(digamma(b)) + math.log(b)
    return (logarithms + (1 + 1 / n + 1 / k) * (k - 1) / (k - 3) - 1) / 2


def _of_histograms(u: Tensor, r: Tensor) -> Tensor:
    low = torch.minimum(u.amin(0), r.amin(0))
    width = (torch.maximum(u.amax(0), r.amax(0)) - low).clamp(min=1e-12)

    def shares(m: Tensor) -> Tensor:
        place = ((m - low) / width * BINS).long().clamp(max=BINS - 1)
        counts = torch.zeros(BINS, m.size(1), dtype=m.dtype).scatter_add_(0, place, torch.ones_like(m))
        smooth = counts / len(m) + LEAST
        return smooth / smooth.sum(0)

    p, q = shares(u), shares(r)
    return (p * torch.log(p / q)).sum(0)


def top_k_overlap(lists: Tensor, others: Tensor) -> float | None:
    r"""Return the mean Jaccard overlap :math:`|A \cap B| / |A \cup B|` of two models' recommendation lists.

    Args:
        lists: Recommended items of one model ``[num_queries, k]``; -1 stands for no item.
        others: The same of the other model ``[num_queries, k]``.

    Returns:
        The mean over the queries; ``None`` without queries.

    Example:
        >>> top_k_overlap(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 0], [3, 4]]))
        0.6666666666666666
    """
    if not len(lists):
        return None
    same = ((lists.unsqueeze(2) == others.unsqueeze(1)) & (lists >= 0).unsqueeze(2)).sum((1, 2)).double()
    union = (lists >= 0).sum(1) + (others >= 0).sum(1) - same
    return float((same / union.clamp(min=1)).mean())
