"""Steps up the loss of what is forgotten, and down the loss of what is kept, as the baselines take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from typing import Any

import torch
from torch import nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.nn.criterion import Criterion
from graphunlearn.nn.fit import _own_randomness, trained_parameters
from graphunlearn.nn.objective import Objective

__all__ = ["adam", "ascend", "descend", "endless_batches"]

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
    if isinstance(graph, SessionGraph):
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
