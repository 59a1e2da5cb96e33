"""A curriculum over what is to be forgotten: how hard a sample is, and in which order samples come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError
from graphunlearn.operators.cau.losses import Prediction

__all__ = ["Curriculum", "Difficulty", "Order", "embedding_difficulty", "gradient_difficulty"]

Order = Literal["random", "hard", "soft"]
Difficulty = Literal["gradient", "embedding"]
FULL_AT = 0.5  # share of the steps after which a hard order has all samples


def gradient_difficulty(now: Prediction, before: Tensor, target: Tensor, follower: Tensor) -> Tensor:
    r"""Return how far forgetting a click conflicts with keeping the rest ``[num]``, from -1 (easy) to 1 (hard).

    .. math::
        d_i = -\cos\big(\nabla L_\text{unlearn},\; \nabla L_\text{normal} + \nabla L_\text{KL}\big)

    with respect to the item rows, where all three gradients are a residual at the logits times the same state: what
    is left is the cosine of :math:`e_{v_t} - p` with :math:`2p - e_{v_{t+1}} - p_0`, and no backward pass. Without a
    follower the second one is :math:`p - p_0`; where that is zero, so is the difficulty.

    Args:
        now: What the model predicts after the prefixes.
        before: What it predicted before forgetting ``[num, num_items]``.
        target: The item to forget after each prefix ``[num]``.
        follower: The item that follows instead, -1 where there is none ``[num]``.

    Source: the difficulty by gradients of CAU, arXiv 2508.15263; its sign and the layer are choices of this package.

    Example:
        >>> p = torch.tensor([[0.5, 0.25, 0.25]])
        >>> gradient_difficulty(Prediction(p, p[:, 0].log()), p, torch.tensor([0]), torch.tensor([1]))
        tensor([-0.6547])
    """
    up = (-now.p).scatter_add_(1, target.unsqueeze(1), torch.ones_like(now.p[:, :1]))
    keep = now.p - before
    follows = (follower >= 0).to(keep.dtype).unsqueeze(1)
    keep += follows * now.p
    keep.scatter_add_(1, follower.clamp(min=0).unsqueeze(1), -follows)
    size = up.norm(dim=1) * keep.norm(dim=1)
    negligible = torch.finfo(up.dtype).eps * 8
    return torch.where(keep.norm(dim=1) > negligible, -(up * keep).sum(1) / size.clamp(min=negligible**2), 0.0)


def embedding_difficulty(states: Tensor, items: Tensor, target: Tensor) -> Tensor:
    r"""Return :math:`\langle s, e_{v_t} \rangle`: how close the session is to what it is to forget ``[num]``.

    Args:
        states: Rows of the prefixes ``[num, dim]``.
        items: Rows of the items ``[num_items, dim]``.
        target: The item to forget after each prefix ``[num]``.

    Source: the difficulty by embeddings of CAU, arXiv 2508.15263.

    Example:
        >>> embedding_difficulty(torch.ones(1, 2), torch.eye(2), torch.tensor([1]))
        tensor([1.])
    """
    return (states * items[target]).sum(1)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    r"""In which order samples come, from easy to hard.

    Args:
        order: ``"random"``; ``"hard"``, strictly from easy to hard, beginning with the easiest share ``start`` and
            taking in the rest until half of the steps are done; or ``"soft"``, every batch drawn with
            probabilities :math:`\propto \exp(-d_i / \tau)` of the standardised difficulties, :math:`\tau` growing
            geometrically from pass to pass, so that the mass moves to the harder ones.
        start: The share of samples that a hard order begins with.
        temperature: :math:`\tau` in the first and in the last pass.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> curriculum = Curriculum(order="hard", start=0.5)
        >>> difficulty, generator = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.Generator().manual_seed(0)
        >>> [batch.tolist() for batch in curriculum.batches(difficulty, 1, progress=0.0, generator=generator)]
        [[3], [1]]
    """

    order: Order = "random"
    start: float = 0.3
    temperature: tuple[float, float] = (0.2, 5.0)

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ArgumentError("order", f"be one of {', '.join(get_args(Order))}", f"{self.order!r}")
        if not 0 < self.start <= 1:
            raise ArgumentError("start", "be above 0 and at most 1", f"{self.start!r}")
        first, last = self.temperature
        if not 0 < first <= last < math.inf:
            raise ArgumentError("temperature", "be positive, finite and not falling", f"{self.temperature!r}")

    def batches(self, difficulty: Tensor, size: int, *, progress: float, generator: torch.Generator) -> list[Tensor]:
        """Return the batches of one pass over samples.

        Args:
            difficulty: One number per sample, larger is harder ``[num]``; only its length counts for a random order.
            size: Samples per batch.
            progress: The share of all steps that is done, in [0, 1].
            generator: Draws; on the CPU.

        Returns:
            Positions of the samples, batch by batch.
        """
        count = difficulty.numel()
        if self.order == "random":
            return list(torch.randperm(count, generator=generator).split(size))
        difficulty = difficulty.detach().cpu().double()
        if self.order == "hard":
            share = min(1.0, self.start + (1 - self.start) * progress / FULL_AT)
            easy_first = difficulty.argsort(stable=True)[: max(1, math.ceil(share * count))]
            return list(easy_first.split(size))
        first, last = self.temperature
        level = (difficulty - difficulty.mean()) / difficulty.std(correction=0).clamp(min=1e-12)
        weight = -level / (first * (last / first) ** progress)
        drawn = []
        for _ in range(math.ceil(count / size)):  # without replacement within a batch: the largest perturbed weights
            noise = -torch.empty(count, dtype=torch.float64).exponential_(generator=generator).log()
            drawn.append((weight + noise).topk(min(size, count)).indices)
        return drawn
