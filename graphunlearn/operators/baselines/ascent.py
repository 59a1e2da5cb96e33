"""Baselines that ascend the loss of the forget set, with or without fine-tuning, or maximise a KL divergence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import seeded, trained_parameters
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.baselines.simple import BOTH
from graphunlearn.operators.shared.checks import check_counts, check_positive

__all__ = ["AscentFineTune", "GradientAscent", "NegativeKL", "adam", "ascend", "descend", "endless_batches"]

_LR = {"interactions": 0.01, "sessions": 0.001}  # by kind of graph
CHUNK = 1024  # forgotten clicks scored at a time; memory is bounded by this times the number of items


def adam(model: nn.Module, lr: float) -> torch.optim.Adam:
    """Clear the gradients of a model and return an Adam optimiser of its trainable parameters.

    Args:
        model: The model.
        lr: Learning rate.

    Returns:
        The optimiser.

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
    r"""Ascend the mean loss of the forget set with Adam in place, without the L2 penalty of the objective.

    Args:
        model: The model; it is changed in place.
        graph: The graph before forgetting; forgotten clicks are predicted from their prefixes in this graph.
        retained: The retained graph, on which forgotten interactions are scored.
        request: The request to forget.
        objective: The training loss.
        steps: Number of steps, each over the whole forget set.
        lr: Learning rate of Adam.

    Returns:
        The mean loss before every step; empty if the forget set contains no sample with a loss.
    """
    if isinstance(objective, Objective) and objective.weight_decay:
        objective = replace(objective, weight_decay=0.0)  # ascending the penalty would make the embeddings diverge
    samples = objective.samples(graph, mask=request.mask(graph))
    where, parts = retained, [samples]
    if graph.kind == "sessions":
        where, parts = graph, [samples.select(index) for index in torch.arange(len(samples)).split(CHUNK)]
    optimizer = adam(model, lr)
    losses: list[float] = []
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's recurrent layers have no gradients in evaluation mode
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
    """Continue training in place for a number of steps.

    Args:
        model: The model; it is changed in place.
        graph: The graph to train on.
        objective: The training loss.
        steps: Number of steps, each on one batch.
        lr: Learning rate of Adam.
        batch_size: Samples per step.
        seed: Seed of the order of samples and of dropout.

    Returns:
        The loss of every batch; empty if the graph has no training samples.
    """
    optimizer = adam(model, lr)
    losses = []
    model.train()
    with seeded(model, seed * 1_000_003):
        for batch, _ in zip(endless_batches(graph, objective, batch_size, seed), range(steps)):
            loss = objective.losses(model, graph, batch).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    model.eval()
    return losses


def endless_batches(graph: Any, objective: Criterion, size: int, seed: int) -> Iterator[Any]:
    """Yield batches of the samples of ``graph`` endlessly, in a new order in each pass.

    Yield nothing if there are no samples.

    Args:
        graph: The graph to train on.
        objective: The training loss.
        size: Samples per batch.
        seed: Seed of the order of samples.
    """
    samples = objective.samples(graph)
    generator = torch.Generator().manual_seed(seed)
    rounds = count() if len(samples) else []
    return chain.from_iterable(objective.batches(samples, size, generator) for _ in rounds)


@dataclass(kw_only=True)
class GradientAscent(Unlearner):
    r"""Minimise :math:`-\frac{1}{|D_r|} \sum_{z \in D_r} \ell(z; \theta)` over the forget set :math:`D_r` with Adam.

    The samples are the forgotten interactions, scored on the retained graph, or the forgotten clicks, each predicted
    from the clicks before it; the first click of a session has no prefix and therefore no loss. The method has no
    stopping rule: the number of steps is fixed beforehand.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        steps: Number of ascent steps.
        lr: Learning rate of Adam; ``None`` selects .01 for interactions and .001 for sessions.
    """

    name: ClassVar[str] = "ascent"
    kinds: ClassVar[tuple[str, ...]] = BOTH
    on_rejection: Rejection = "keep"  # it is here to be compared
    objective: Criterion | None = None
    steps: int = 10
    lr: float | None = None

    def __post_init__(self) -> None:
        check_counts(steps=self.steps)
        if self.lr is not None:
            check_positive(lr=self.lr)

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        lr = _LR[graph.kind] if self.lr is None else self.lr
        return {"loss": ascend(model, graph, retained, request, objective, steps=self.steps, lr=lr)}


@dataclass(kw_only=True)
class AscentFineTune(GradientAscent):
    """Ascend the loss of the forgotten clicks, then continue training on the retained sessions for a few steps.

    The default numbers of steps were chosen by comparison with retrained models. A method that avoids retraining does
    not have such models, so this baseline is stronger than it would be in practice.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        steps: Number of ascent steps, each over all forgotten clicks.
        lr: Learning rate of Adam in the ascent; ``None`` selects .001.
        finetune_steps: Number of training steps after the ascent, each on one batch.
        finetune_lr: Learning rate of Adam in these training steps.
        batch_size: Prefixes per training step.
        seed: Seed of the order of sessions and of dropout.

    Raises:
        ValueError: A setting is out of range.
    """

    name: ClassVar[str] = "ascent-finetune"
    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    steps: int = 20
    lr: float | None = 0.001
    finetune_steps: int = 40
    finetune_lr: float = 0.001
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(finetune_steps=self.finetune_steps, batch_size=self.batch_size)
        check_positive(finetune_lr=self.finetune_lr)

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        log = super()._unlearn(model, graph, retained, request)
        objective, steps, lr = self.objective or default_objective(graph), self.finetune_steps, self.finetune_lr
        size, seed = self.batch_size, self.seed
        down = descend(model, retained, objective, steps=steps, lr=lr, batch_size=size, seed=seed)
        return log | {"finetune_loss": down}


@dataclass(kw_only=True)
class NegativeKL(Unlearner):
    r"""Maximise the KL divergence from the original predictions at forgotten clicks, and train on retained sessions.

    Adam minimises the loss of a batch of the retained sessions minus

    .. math::
        \lambda\,\mathrm{KL}\big(P_{\hat\theta}(\cdot \mid v_{1:t-1}) \,\|\, P_\theta(\cdot \mid v_{1:t-1})\big)

    at the prefixes of a batch of forgotten clicks :math:`v_t`, where :math:`\hat\theta` are the original parameters.
    The divergence has no preferred direction and no upper bound: it moves the whole prediction, not only that of
    :math:`v_t`. The number of steps is fixed beforehand. At :math:`\hat\theta` the divergence has a zero gradient, so
    the first step follows the training loss alone.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        steps: Number of steps.
        lr: Learning rate of Adam.
        weight: The weight :math:`\lambda` of the divergence.
        batch_size: Prefixes of the retained sessions per step, and largest number of forgotten clicks per step.
        seed: Seed of the order of the retained prefixes and of the forgotten clicks.

    Raises:
        ValueError: A setting is out of range.
    """

    name: ClassVar[str] = "negative-kl"
    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    on_rejection: Rejection = "keep"  # it is here to be compared
    objective: Criterion | None = None
    steps: int = 40
    lr: float = 0.001
    weight: float = 1.0
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, batch_size=self.batch_size)
        check_positive(lr=self.lr, weight=self.weight)

    def _unlearn(
        self, model: nn.Module, graph: SessionGraph, retained: SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        ends = CrossEntropy().samples(graph, mask=request.mask(graph)).ends
        log: dict[str, Any] = {"kl": [], "loss": []}
        if not ends.numel():
            return log  # no forgotten click has a prefix
        with torch.no_grad():
            parts = [encode_prefixes(model, graph, part) for part in ends.split(CHUNK)]
            states, items = torch.cat([part.queries for part in parts]), parts[0].items.clone()
        kept = endless_batches(retained, objective, self.batch_size, self.seed)
        optimizer = adam(model, self.lr)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN's recurrent layers have no gradients in evaluation mode
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
    r"""Return :math:`\mathrm{KL}(\mathrm{softmax}(a) \| \mathrm{softmax}(b))` for every row of scores.

    Args:
        before: Scores :math:`a` ``[num, num_items]``.
        after: Scores :math:`b` ``[num, num_items]``.

    Returns:
        The divergences ``[num]``.

    Example:
        >>> divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([0.])
    """
    log_p, log_q = before.log_softmax(1), after.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
