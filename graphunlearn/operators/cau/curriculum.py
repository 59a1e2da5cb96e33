"""A curriculum over the samples to forget: their difficulty, and the order in which they are visited."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from graphunlearn.operators.cau.losses import Prediction
from graphunlearn.operators.shared.checks import check, check_choices

__all__ = ["Curriculum", "Difficulty", "Order", "embedding_difficulty", "gradient_difficulty"]

Order = Literal["random", "hard", "soft"]
Difficulty = Literal["gradient", "embedding"]
FULL_AT = 0.5  # share of the steps after which the hard order includes all samples


def gradient_difficulty(now: Prediction, before: Tensor, target: Tensor, follower: Tensor) -> Tensor:
    r"""Return the conflict between forgetting a click and preserving the other predictions, from -1 (easy) to 1 (hard).

    .. math::
        d_i = -\cos\big(\nabla L_\text{unlearn},\; \nabla L_\text{normal} + \nabla L_\text{KL}\big)

    The gradients are taken with respect to the item embeddings. There, each of them is a residual at the logits times
    the same state, so the cosine is that of :math:`e_{v_t} - p` with :math:`2p - e_{v_{t+1}} - p_0` and needs no
    backward pass. Without a follower the second vector is :math:`p - p_0`; if it is zero, the difficulty is zero.

    Args:
        now: The present predictions of the model after the prefixes.
        before: The probabilities predicted before forgetting ``[num, num_items]``.
        target: The item to forget after each prefix ``[num]``.
        follower: The item that follows instead; -1 if there is none ``[num]``.

    Returns:
        The difficulties ``[num]``.

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
    r"""Return :math:`\langle s, e_{v_t} \rangle`, the closeness of the prefix to the item that it should forget.

    Args:
        states: Embeddings of the prefixes ``[num, dim]``.
        items: Embeddings of the items ``[num_items, dim]``.
        target: The item to forget after each prefix ``[num]``.

    Returns:
        The difficulties ``[num]``.

    Source: the difficulty by embeddings of CAU, arXiv 2508.15263.

    Example:
        >>> embedding_difficulty(torch.ones(1, 2), torch.eye(2), torch.tensor([1]))
        tensor([1.])
    """
    return (states * items[target]).sum(1)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    r"""The order in which samples are visited.

    Args:
        order: ``"random"``, ``"hard"`` or ``"soft"``. ``"hard"`` visits samples strictly from easy to hard; it begins
            with the easiest share ``start`` and adds the others until half of the steps are done. ``"soft"`` draws
            every batch with probabilities :math:`\propto \exp(-d_i / \tau)` of the standardised difficulties;
            :math:`\tau` grows geometrically from pass to pass, which shifts probability to harder samples.
        start: The share of samples with which the hard order begins.
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
        check_choices(get_args(Order), order=self.order)
        check("be above 0 and at most 1", lambda value: 0 < value <= 1, start=self.start)
        first, last = self.temperature
        rising = "be positive, finite and not falling"
        check(rising, lambda _: 0 < first <= last < math.inf, temperature=self.temperature)

    def batches(
        self,
        difficulty: Tensor,
        size: int,
        *,
        progress: float,
        generator: torch.Generator,
        group: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the batches of one pass over samples.

        Args:
            difficulty: The difficulty of every sample ``[num]``, larger for harder samples; the random order uses only
                its length.
            size: Samples per batch.
            progress: The share of all steps already done, in [0, 1].
            generator: Generator of the random draws, on the CPU.
            group: Whole numbers; the random order keeps samples with the same number together ``[num]``.

        Returns:
            The indices of the samples in each batch.
        """
        count = difficulty.numel()
        if self.order == "random":
            if group is None:
                return list(torch.randperm(count, generator=generator).split(size))
            _, number = torch.unique(group.cpu(), return_inverse=True)
            rank = torch.randperm(int(number.max()) + 1 if count else 0, generator=generator)
            return list(rank[number].argsort(stable=True).split(size))
        difficulty = difficulty.detach().cpu().double()
        if self.order == "hard":
            share = min(1.0, self.start + (1 - self.start) * progress / FULL_AT)
            easy_first = difficulty.argsort(stable=True)[: max(1, math.ceil(share * count))]
            return list(easy_first.split(size))
        first, last = self.temperature
        level = (difficulty - difficulty.mean()) / difficulty.std(correction=0).clamp(min=1e-12)
        weight = -level / (first * (last / first) ** progress)
        drawn = []
        for _ in range(math.ceil(count / size)):  # the largest perturbed weights: no repeats in a batch
            noise = -torch.empty(count, dtype=torch.float64).exponential_(generator=generator).log()
            drawn.append((weight + noise).topk(min(size, count)).indices)
        return drawn
