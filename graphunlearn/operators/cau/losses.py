r"""Losses of next-click predictions with closed-form residuals at the logits, without automatic differentiation.

With the logits :math:`z = S I^\top` of states :math:`S` and item embeddings :math:`I`, every loss here has a residual
:math:`G = \partial L / \partial z` in closed form; its gradients are then :math:`\partial L/\partial S = G I` and
:math:`\partial L/\partial I = G^\top S`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Prediction", "at_target", "kl", "kl_without", "predict"]


class Prediction(NamedTuple):
    """The predictions of a model after some prefixes.

    Args:
        p: Probabilities of all items ``[num, num_items]``.
        log_p: Log probability of the target of each prefix ``[num]``.
    """

    p: Tensor
    log_p: Tensor


def predict(states: Tensor, items: Tensor, target: Tensor) -> Prediction:
    """Return the softmax over the catalogue, and the log probability of ``target``.

    Args:
        states: Embeddings of the prefixes ``[num, dim]``.
        items: Embeddings of the items ``[num_items, dim]``.
        target: One item per prefix ``[num]``.

    Returns:
        The :class:`Prediction`.

    Example:
        >>> predict(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3])).p
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    logits = states @ items.t()
    total = torch.logsumexp(logits, 1, keepdim=True)
    log_p = logits.gather(1, target.unsqueeze(1)) - total
    return Prediction(logits.sub_(total).exp_(), log_p.squeeze(1))


def at_target(p: Tensor, target: Tensor, slope: Tensor) -> Tensor:
    r"""Return the residual at the logits of a loss that depends on the log probabilities of ``target`` only.

    .. math::
        G_i = \frac{\partial L}{\partial \log p_i}\,(e_{v_i} - p_i)

    Args:
        p: Probabilities ``[num, num_items]``.
        target: One item per row ``[num]``.
        slope: :math:`\partial L / \partial \log p_i` ``[num]``.

    Returns:
        The residual :math:`G` ``[num, num_items]``.

    Example:
        >>> at_target(torch.full((1, 2), 0.5), torch.tensor([0]), torch.tensor([-1.0]))
        tensor([[-0.5000,  0.5000]])
    """
    residual = p * -slope.unsqueeze(1)
    return residual.scatter_add_(1, target.unsqueeze(1), slope.unsqueeze(1))


def kl(before: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the mean of :math:`\mathrm{KL}(p_0 \| p)` over all prefixes, and its residual :math:`(p - p_0) / n`.

    Args:
        before: Probabilities :math:`p_0` ``[num, num_items]``.
        p: Probabilities :math:`p` ``[num, num_items]``.

    Returns:
        The mean divergence, a scalar, and its residual ``[num, num_items]``.

    Example:
        >>> value, residual = kl(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]]))
        >>> float(value), residual.tolist()
        (0.0, [[0.0, 0.0]])
    """
    count = max(len(p), 1)
    tiny = torch.finfo(p.dtype).tiny
    value = (before * (before.clamp(min=tiny) / p.clamp(min=tiny)).log()).sum() / count
    return value, (p - before) / count


def kl_without(before: Tensor, p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :func:`kl` over all items except ``target``, with both distributions renormalised, and its residual.

    The target is excluded because a divergence that includes it would oppose the forgetting.

    Args:
        before: Probabilities :math:`p_0` ``[num, num_items]``.
        p: Probabilities :math:`p` ``[num, num_items]``.
        target: The item that is left out of each row ``[num]``.

    Returns:
        The mean divergence, a scalar, and its residual ``[num, num_items]``.

    Example:
        >>> value, residual = kl_without(
        ...     torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([0])
        ... )
        >>> float(value), residual.tolist()
        (0.0, [[0.0, 0.0, 0.0]])
    """
    index = target.unsqueeze(1)
    sides = []
    for q in (before, p):
        q = q.scatter(1, index, 0.0)
        sides.append(q.div_(q.sum(1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)))
    return kl(*sides)
