"""The softmax loss over the whole catalogue, with a backward pass of two matrix products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["catalogue_loss"]

CHUNK = 128  # rows of scores at a time where no backward pass follows, so that they stay in the processor's cache


class _CatalogueLoss(torch.autograd.Function):
    """The loss, whose forward pass stores the exponentials for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(queries: Tensor, items: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = queries @ items.t()
        top = scores.amax(1, keepdim=True)
        picked = scores.gather(1, targets.unsqueeze(1))
        weights = scores.sub_(top).exp_()
        total = weights.sum(1, keepdim=True)
        return (total.log() + (top - picked)).squeeze(1), weights, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, weights, total = output
        ctx.mark_non_differentiable(weights, total)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, weights, total)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, Tensor | None, None]:
        if grad is None:
            return None, None, None
        queries, items, targets, weights, total = ctx.saved_tensors
        grad = grad.unsqueeze(1)
        if torch.is_grad_enabled():  # for second derivatives, the stored values would be constants
            weights, total = torch.softmax(queries @ items.t(), 1), torch.ones_like(total)
        scale, to_queries, to_items = grad / total, None, None
        if ctx.needs_input_grad[0]:
            to_queries = scale * (weights @ items) - grad * items.index_select(0, targets)
        if ctx.needs_input_grad[1]:
            to_items = (weights.t() @ (scale * queries)).index_add(0, targets, -grad * queries)
        return to_queries, to_items, None


def catalogue_loss(queries: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    r"""Return :math:`-\log\mathrm{softmax}(Q I^\top)` at one item per query.

    The result equals :func:`torch.nn.functional.cross_entropy` of the scores, but the backward pass saves several
    passes over the score matrix. The loss is differentiable any number of times, also under :mod:`torch.func`.

    Args:
        queries: Embeddings :math:`Q`, one per prediction ``[num, dim]``.
        items: Embeddings :math:`I` of all items ``[num_items, dim]``.
        targets: The item to predict ``[num]``.

    Returns:
        The losses ``[num]``.

    Example:
        >>> import torch
        >>> catalogue_loss(torch.zeros(2, 4), torch.ones(3, 4), torch.tensor([0, 2]))
        tensor([1.0986, 1.0986])
    """
    if not torch.is_grad_enabled():  # the fused kernel of PyTorch is faster where nothing is stored
        parts = zip(queries.split(CHUNK), targets.split(CHUNK))
        return torch.cat(
            [
                F.cross_entropy(some @ items.t(), own, reduction="none", ignore_index=-1 - len(items))
                for some, own in parts
            ]
        )
    loss: Tensor = _CatalogueLoss.apply(queries, items, targets)[0]
    return loss
