"""Predictions over the whole catalogue."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Prediction", "predict"]


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
