r"""The gradients of the losses of CAU with respect to states and items, in closed form.

With the scores :math:`z = S I^\top` of states :math:`S` and item embeddings :math:`I`, every loss has a residual
:math:`G = \partial L / \partial z` in closed form, and its gradients are :math:`\partial L/\partial S = G I` and
:math:`\partial L/\partial I = G^\top S`. No residual of the log probability of single items is stored: it is a row of
probabilities times a number, apart from one entry. The large matrices are kept from step to step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Before", "Buffers", "Catalogue"]

CHUNK = 128  # rows at a time, so that they stay in the cache of the processor
STORED = 1 << 26  # most bytes of the probabilities of the original model that are stored


class Buffers:
    """Memory for the large matrices, which the next step uses again."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return a tensor with arbitrary values.

        Args:
            name: The name of the matrix.
            like: A tensor of the wanted dtype and device.
            *shape: The shape.
        """
        size = math.prod(shape)
        if name not in self._held or self._held[name].numel() < size:
            self._held[name] = like.new_empty(size)
        return self._held[name][:size].view(shape)


class Left(NamedTuple):
    r"""Probabilities :math:`p_0` of the original model without one item per row.

    Args:
        weights: The probabilities, with 0 at the item that is left out ``[num, num_items]``.
        rest: Their sums ``[num]``.
        negentropy: :math:`\sum_j q_j \log q_j` of the renormalised rows :math:`q` ``[num]``.
    """

    weights: Tensor
    rest: Tensor
    negentropy: Tensor


class Before:
    r"""The predictions of the original model.

    Args:
        states: The states of some prefixes under the original model ``[num, dim]``.
        items: Its item embeddings ``[num_items, dim]``.

    Example:
        >>> before = Before(torch.zeros(1, 2), torch.ones(4, 2))
        >>> before.probabilities(torch.tensor([0])).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(self, states: Tensor, items: Tensor) -> None:
        self.states, self.items, size = states, items, (len(states), len(items))
        stored = math.prod(size) * states.element_size() <= STORED
        self._p = states.new_empty(size) if stored else None
        self.shift, self.negentropy = states.new_empty(len(states)), states.new_empty(len(states))
        for start in range(0, len(states), CHUNK):
            part = slice(start, start + CHUNK)
            scores = states[part] @ items.t()
            log_p = scores.log_softmax(1)
            p = torch.softmax(scores, 1, out=None if self._p is None else self._p[part])
            self.shift[part] = scores.amax(1) - log_p.amax(1)
            self.negentropy[part] = log_p.clamp_(min=torch.finfo(p.dtype).min).mul_(p).sum(1)

    def probabilities(self, rows: Tensor, buffers: Buffers | None = None) -> Tensor:
        """Return the probabilities of all items after the prefixes ``rows`` ``[num, num_items]``."""
        shape = (len(rows), len(self.items))
        out = (Buffers() if buffers is None else buffers).take("before", self.items, *shape)
        if self._p is not None:
            return torch.index_select(self._p, 0, rows, out=out)
        torch.mm(self.states[rows], self.items.t(), out=out)
        return out.sub_(self.shift[rows].unsqueeze(1)).exp_()

    def without(self, rows: Tensor, target: Tensor, buffers: Buffers) -> Left:
        """Return the probabilities without one item per row.

        Args:
            rows: Numbers of prefixes ``[num]``.
            target: The item to leave out; -1 leaves out none ``[num]``.
            buffers: Memory for the result.
        """
        p = self.probabilities(rows, buffers)
        gone, _ = _leave_out(p, target)
        rest = p.sum(1)
        tiny = torch.finfo(p.dtype).tiny
        kept = self.negentropy[rows] - gone * gone.clamp(min=tiny).log()
        return Left(p, rest, kept / rest.clamp(min=tiny) - rest.clamp(min=tiny).log())


class Catalogue:
    r"""The present predictions of a batch, and gradients of losses of them.

    Args:
        states: The states of the prefixes, one per row ``[num, dim]``.
        items: The item embeddings ``[num_items, dim]``.
        shift: A number per row near the logarithm of :math:`\sum_j e^{z_j}`, such as that of the original model
            ``[num]``.
        target: The item that the divergence leaves out; -1 leaves out none ``[num]``.
        buffers: Memory for the large matrices.

    Example:
        >>> none = torch.tensor([-1])
        >>> now = Catalogue(torch.zeros(1, 2), torch.ones(4, 2), torch.zeros(1), none, Buffers())
        >>> now.log_p(torch.tensor([0]), torch.tensor([2]))
        tensor([-1.3863])
    """

    def __init__(self, states: Tensor, items: Tensor, shift: Tensor, target: Tensor, buffers: Buffers) -> None:
        self.states, self.items, self.buffers = states, items, buffers
        size = (len(states), len(items))
        self.weights = buffers.take("now", items, *size)
        self.shift = shift
        self._score()
        if not bool(torch.isfinite(self.weights.sum(1).log()).all()):  # the scores are far from the original ones
            self.shift = (states @ items.t()).amax(1)
            self._score()
        self.gone, self.target = _leave_out(self.weights, target)
        self.rest = self.weights.sum(1)
        self.total = self.rest + self.gone
        self.mean = torch.mm(self.weights, items, out=buffers.take("mean", items, *states.shape))

    def _score(self) -> None:
        torch.mm(self.states, self.items.t(), out=self.weights)
        self.weights.sub_(self.shift.unsqueeze(1)).exp_()

    def log_p(self, rows: Tensor, target: Tensor) -> Tensor:
        """Return the log probability of one item each after the prefixes ``rows`` ``[num]``."""
        score = (self.states[rows] * self.items[target]).sum(1)
        return score - self.shift[rows] - self.total[rows].log()

    def of_targets(self, rows: Tensor, target: Tensor, slope: Tensor, out: Tensor) -> Tensor:
        r"""Compute the gradients of a loss that depends on log probabilities of single items only.

        .. math::
            G_i = \frac{\partial L}{\partial \log p_i}\,(e_{v_i} - p_i)

        Args:
            rows: The rows of the predictions, below ``len(self.states)``; repeats allowed ``[num]``.
            target: The item of each prediction ``[num]``.
            slope: :math:`\partial L / \partial \log p_i` ``[num]``.
            out: Tensor for the gradient with respect to the items ``[num_items, dim]``.

        Returns:
            The gradient with respect to the states ``[len(self.states), dim]``.
        """
        states, items, slope = self.states, self.items, slope.unsqueeze(1)
        scale = states.new_zeros(len(states), 1).index_add_(0, rows, slope).div_(self.total.unsqueeze(1))
        last = int(rows.max()) + 1 if rows.numel() else 0  # later rows have no part in it
        of_gone = scale * self.gone.unsqueeze(1)
        to_states = -scale * self.mean - of_gone * items[self.target]
        to_states.index_add_(0, rows, slope * items[target])
        torch.mm(self.weights[:last].t(), -scale[:last] * states[:last], out=out)
        out.index_add_(0, self.target[:last], (-of_gone * states)[:last])
        out.index_add_(0, target, slope * states[rows])
        return to_states

    def of_divergence(self, before: Left, share: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        r"""Compute the value and the gradients of :math:`\sum_i c_i \mathrm{KL}(q_{0,i} \| q_i)`.

        :math:`q_i` are the probabilities of row :math:`i` without the item that it leaves out, renormalised, and
        :math:`q_{0,i}` those of the original model. The residual of a row is :math:`c_i (q_i - q_{0,i})`.

        Args:
            before: The probabilities of the original model; their memory is used.
            share: The factors :math:`c` ``[num]``.
            out: Tensor for the gradient with respect to the items ``[num_items, dim]``.

        Returns:
            The value, a scalar, and the gradient with respect to the states ``[num, dim]``.
        """
        tiny = torch.finfo(share.dtype).tiny
        share = torch.where(
            before.rest > tiny, share, 0.0
        )  # with all probability on the item left out, nothing is left
        now, then = self.rest.clamp(min=tiny).unsqueeze(1), before.rest.clamp(min=tiny).unsqueeze(1)
        residual = before.weights.div_(-then).addcmul_(self.weights, 1 / now)
        to_states = torch.mm(residual, self.items, out=self.buffers.take("pulled", self.items, *self.states.shape))
        scores = ((self.mean / now - to_states) * self.states).sum(1)  # the mean score under the original probabilities
        value = share @ (before.negentropy - scores + self.shift + now.squeeze(1).log())
        torch.mm(residual.t(), share.unsqueeze(1) * self.states, out=out)
        return value.clamp(min=0), share.unsqueeze(1) * to_states


def _leave_out(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Set one entry per row to 0; return its value, and its index (both 0 where ``target`` is -1) ``[num]``."""
    rows = (target >= 0).nonzero().squeeze(1)
    gone = weights.new_zeros(len(weights))
    gone[rows] = weights[rows, target[rows]]
    weights[rows, target[rows]] = 0.0
    return gone, target.clamp(min=0)
