"""Baselines that ascend the loss of what is forgotten: alone, with fine-tuning, or as negative KL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import _own_randomness, trained_parameters
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.baselines.simple import BOTH

__all__ = ["AscentFineTune", "GradientAscent", "NegativeKL", "adam", "ascend", "descend", "endless_batches"]

_LR = {"interactions": 0.01, "sessions": 0.001}  # by kind of graph
CHUNK = 1024  # forgotten clicks scored at a time, which bounds the memory at that times the number of items


def adam(model: nn.Module, lr: float) -> torch.optim.Adam:
    """Return Adam on what is trained of a model, whose gradients from before are dropped.

    Raises:
        ValueError: No parameter requires a gradient.
    """
    optimizer = torch.optim.Adam(trained_parameters(model), lr=lr, fused=True)
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def ascend(
    model: nn.Module,
    graph: Any,
    retained: Any,
    request: ForgetRequest,
    objective: Criterion,
    *,
    steps: int,
    lr: float,
) -> list[float]:
    r"""Climb the mean loss of what is forgotten with Adam, in place, without the penalty of the objective.

    Args:
        model: Changed in place.
        graph: The graph before; the clicks of its sessions are predicted as they were in training.
        retained: The graph after, on which interactions are scored.
        request: What is forgotten.
        objective: The loss.
        steps: Number of steps, each on everything that is forgotten.
        lr: Adam's learning rate.

    Returns:
        The mean loss before every step; none where nothing forgotten has a loss.
    """
    if isinstance(objective, Objective) and objective.weight_decay:
        objective = replace(objective, weight_decay=0.0)  # climbing the penalty would blow the rows up
    samples = objective.samples(graph, mask=request.mask(graph))
    where, parts = retained, [samples]
    if graph.kind == "sessions":
        where, parts = graph, [samples.select(index) for index in torch.arange(len(samples)).split(CHUNK)]
    optimizer = adam(model, lr)
    losses: list[float] = []
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers refuse gradients in evaluation mode
        for _ in range(steps if len(samples) else 0):
            losses.append(0.0)
            for part in parts:
                loss = objective.losses(model, where, part).sum() / len(samples)
                (-loss).backward()
                losses[-1] += float(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
    return losses


def descend(
    model: nn.Module, graph: Any, objective: Criterion, *, steps: int, lr: float, batch_size: int, seed: int
) -> list[float]:
    """Train on for a number of steps, in place.

    Args:
        model: Changed in place.
        graph: What to train on.
        objective: The loss.
        steps: Number of steps, each on one batch.
        lr: Adam's learning rate.
        batch_size: Samples per step.
        seed: Seed of the order of samples, and of dropout.

    Returns:
        The loss of every batch; none where there is nothing to learn.
    """
    optimizer = adam(model, lr)
    losses = []
    model.train()
    with _own_randomness(model, seed, 0):
        for batch, _ in zip(endless_batches(graph, objective, batch_size, seed), range(steps)):
            loss = objective.losses(model, graph, batch).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    model.eval()
    return losses


def endless_batches(graph: Any, objective: Criterion, size: int, seed: int) -> Iterator[Any]:
    """Yield batches of all samples of ``graph``, in a new order each time round; none if there are none."""
    samples = objective.samples(graph)
    generator = torch.Generator().manual_seed(seed)
    rounds = count() if len(samples) else []
    return chain.from_iterable(objective.batches(samples, size, generator) for _ in rounds)


@dataclass(kw_only=True)
class GradientAscent(Unlearner):
    r"""Climb the mean loss of what is forgotten: Adam on :math:`-\frac{1}{|D_r|} \sum_{z \in D_r} \ell(z; \theta)`.

    These are the forgotten interactions, on the graph that remains, or the forgotten clicks, each after the clicks that
    came before it; the first click of a session follows nothing and has no loss. It has no sense of where to stop,
    which is what makes it a baseline: the number of steps is fixed beforehand.

    Args:
        objective: The loss; the shared default where ``None``.
        steps: Number of ascent steps.
        lr: Adam's learning rate; by default .01 for interactions and .001 for sessions.
    """

    name: ClassVar[str] = "ascent"
    kinds: ClassVar[tuple[str, ...]] = BOTH
    objective: Criterion | None = None
    steps: int = 10
    lr: float | None = None

    def __post_init__(self) -> None:
        if not self.steps >= 1:
            raise ArgumentError("steps", "be a positive integer", f"{self.steps!r}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ArgumentError("lr", "be positive and finite", f"{self.lr!r}")

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        lr = _LR[graph.kind] if self.lr is None else self.lr
        return {"loss": ascend(model, graph, retained, request, objective, steps=self.steps, lr=lr)}


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
            states, items = torch.cat([part.queries for part in parts]), parts[0].items.clone()
        kept = endless_batches(retained, objective, self.batch_size, self.seed)
        optimizer = adam(model, self.lr)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers refuse gradients in evaluation mode
            for _ in range(self.steps):
                drawn = torch.randperm(ends.numel(), generator=generator)[: self.batch_size].to(ends.device)
                now = encode_prefixes(model, graph, ends[drawn])
                kl = divergence(states[drawn] @ items.t(), now.queries @ now.items.t()).mean()
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
            raise ArgumentError(name, "be a positive integer", f"{value!r}")


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0 < value < math.inf:
            raise ArgumentError(name, "be positive and finite", f"{value!r}")
