"""Baselines for sessions that also look at what is kept: ascent with a short fine-tuning, and negative KL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.nn.criterion import Criterion
from graphunlearn.nn.objective import default_objective
from graphunlearn.nn.prefixes import CrossEntropy, encode_prefixes
from graphunlearn.operators.ascent import CHUNK, adam, ascend, descend, endless_batches
from graphunlearn.operators.base import Unlearner

__all__ = ["AscentFineTune", "NegativeKL"]


@dataclass(kw_only=True)
class AscentFineTune(Unlearner):
    """Climb the loss of the forgotten clicks, then train on for a few steps on the retained sessions.

    How many steps are taken where nothing is said was chosen while looking at retrained models. A method that is to
    spare retraining cannot know them: as a baseline, this is a stronger one than could be had.

    Args:
        objective: The loss; the shared default where ``None``.
        steps: Number of ascent steps, each on all forgotten clicks.
        lr: Adam's learning rate of the ascent.
        finetune_steps: Number of training steps after it, each on one batch.
        finetune_lr: Adam's learning rate of those.
        batch_size: Prefixes per training step.
        seed: Seed of the order of sessions, and of dropout.

    Raises:
        ValueError: A setting is out of range.
    """

    name: ClassVar[str] = "ascent-finetune"
    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    objective: Criterion | None = None
    steps: int = 20
    lr: float = 0.001
    finetune_steps: int = 40
    finetune_lr: float = 0.001
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        _check_counts(steps=self.steps, finetune_steps=self.finetune_steps, batch_size=self.batch_size)
        _check_rates(lr=self.lr, finetune_lr=self.finetune_lr)

    def _unlearn(
        self, model: nn.Module, graph: SessionGraph, retained: SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        up = ascend(model, graph, retained, request, objective, steps=self.steps, lr=self.lr)
        down = descend(
            model,
            retained,
            objective,
            steps=self.finetune_steps,
            lr=self.finetune_lr,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        return {"loss": up, "finetune_loss": down}


@dataclass(kw_only=True)
class NegativeKL(Unlearner):
    r"""Push what the model predicts where clicks were forgotten away from what it predicted, and train on the rest.

    Adam on the loss of a batch of the retained sessions minus

    .. math::
        \lambda\,\mathrm{KL}\big(P_{\hat\theta}(\cdot \mid v_{1:t-1}) \,\|\, P_\theta(\cdot \mid v_{1:t-1})\big)

    at the prefixes of a batch of forgotten clicks :math:`v_t`, with :math:`\hat\theta` the original. Away is anywhere:
    all of the prediction moves, not only that of :math:`v_t`, and there is no bound to how far; the number of steps is
    fixed beforehand. At :math:`\hat\theta` the divergence has no gradient, and it is the training loss that makes the
    first step.

    Args:
        objective: The training loss; the shared default where ``None``.
        steps: Number of steps.
        lr: Adam's learning rate.
        weight: :math:`\lambda`.
        batch_size: Prefixes of the retained sessions per step, and forgotten clicks at most.
        seed: Seed of the order of both.

    Raises:
        ValueError: A setting is out of range.
    """

    name: ClassVar[str] = "negative-kl"
    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    objective: Criterion | None = None
    steps: int = 40
    lr: float = 0.001
    weight: float = 1.0
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        _check_counts(steps=self.steps, batch_size=self.batch_size)
        _check_rates(lr=self.lr, weight=self.weight)

    def _unlearn(
        self, model: nn.Module, graph: SessionGraph, retained: SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        ends = CrossEntropy().samples(graph, mask=request.mask(graph)).ends
        log: dict[str, Any] = {"kl": [], "loss": []}
        if not ends.numel():
            return log  # nothing was predicted
        with torch.no_grad():
            parts = [encode_prefixes(model, graph, part) for part in ends.split(CHUNK)]
            states, items = torch.cat([part.users for part in parts]), parts[0].items.clone()
        kept = endless_batches(retained, objective, self.batch_size, self.seed)
        optimizer = adam(model, self.lr)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers refuse gradients in evaluation mode
            for _ in range(self.steps):
                drawn = torch.randperm(ends.numel(), generator=generator)[: self.batch_size].to(ends.device)
                now = encode_prefixes(model, graph, ends[drawn])
                kl = divergence(states[drawn] @ items.t(), now.users @ now.items.t()).mean()
                batch = next(kept, None)
                loss = kl.new_zeros(()) if batch is None else objective.losses(model, retained, batch).mean()
                optimizer.zero_grad()
                (loss - self.weight * kl).backward()
                optimizer.step()
                log["kl"].append(float(kl.detach()))
                log["loss"].append(float(loss.detach()))
        return log


def divergence(before: Tensor, after: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{KL}(\mathrm{softmax}(a) \| \mathrm{softmax}(b))` of rows of scores ``[num]``.

    Args:
        before: Scores :math:`a` ``[num, num_items]``.
        after: Scores :math:`b` ``[num, num_items]``.

    Example:
        >>> divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([0.])
    """
    log_p, log_q = before.log_softmax(1), after.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"'{name}' must be a positive integer (got {value!r})")


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0 < value < math.inf:
            raise ValueError(f"'{name}' must be positive and finite (got {value!r})")
