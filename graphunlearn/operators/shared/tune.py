"""Fine-tuning towards target scores, on the retained loss and a penalty on changes of the other scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.data.schema import check_sizes
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.nn.tables import table_names
from graphunlearn.nn.training.auxiliary import auxiliary_loss
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.shared.checks import check, check_positive, naming_request

__all__ = ["TuneSettings", "tune"]


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    r"""Settings of the fine-tuning. A weight of 0 disables its term.

    Args:
        epochs: Epochs over the retained interactions.
        lr: Learning rate of Adam.
        batch_size: Interactions per step.
        risk: Weight of the training loss :math:`L_M` on the retained graph, contrastive term included.
        target: Weight of :math:`L_U`, the smooth L1 distance of the forgotten pairs' scores to their targets.
        preserve: Weight of :math:`L_P`, the mean squared change of the scores in the batch.
        seed: Seed of the order of interactions.

    Raises:
        ValueError: A setting is out of range.
    """

    epochs: int = 3
    lr: float = 0.003
    batch_size: int = 8192
    risk: float = 1.0
    target: float = 1.0
    preserve: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(epochs=self.epochs, least=0)
        check_sizes(batch_size=self.batch_size)
        check_positive(lr=self.lr)
        weights = {"risk": self.risk, "target": self.target, "preserve": self.preserve}
        check("be finite and not negative", lambda value: 0 <= value < math.inf, **weights)


def tune(
    model: nn.Module,
    graph: InteractionGraph,
    pairs: Tensor,
    targets: Callable[[Encoded], Tensor],
    objective: Objective,
    settings: TuneSettings,
) -> list[dict[str, float]]:
    r"""Train the layer-0 embeddings of ``model`` in place on :math:`w_M L_M + w_U L_U + w_P L_P`.

    Args:
        model: The model; its layer-0 table is changed in place, other parameters remain unchanged.
        graph: The retained graph.
        pairs: The forgotten pairs whose users and items keep some interaction ``[2, num_pairs]``.
        targets: Returns the target scores ``[num_pairs]`` for the encoding at the start of an epoch.
        objective: The training loss.
        settings: Settings of the fine-tuning.

    Returns:
        The mean of every term in every epoch.
    """
    table = [model.get_parameter(name) for name in table_names(model, graph)]
    optimizer = torch.optim.Adam(table, lr=settings.lr)
    with torch.no_grad():
        before = encode(model, graph)
    history = []
    for epoch in range(1, settings.epochs + 1):
        with torch.no_grad():
            wanted = targets(before if epoch == 1 else encode(model, graph))
        with naming_request(objective):  # negatives that training is unlikely to have drawn
            samples = objective.samples(graph, epoch=epoch + 1_000_000)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(samples), generator=generator).to(pairs.device)
        sums = {"risk": 0.0, "target": 0.0, "preserve": 0.0}
        for step, index in enumerate(order.split(settings.batch_size)):
            batch, encoded = samples.select(index), encode(model, graph)
            terms = {}
            if settings.risk:
                terms["risk"] = objective(encoded, batch).mean()
                extra = auxiliary_loss(model, graph, batch, seed=settings.seed, epoch=epoch + 1_000_000, step=step)
                terms["risk"] = terms["risk"] if extra is None else terms["risk"] + extra
            if settings.target and pairs.size(1):
                terms["target"] = F.smooth_l1_loss(score(encoded, pairs), wanted)
            if settings.preserve:
                pattern = batch.pattern
                moved = pattern.dots(encoded.queries, encoded.items) - pattern.dots(before.queries, before.items)
                terms["preserve"] = moved.square().mean()
            total = encoded.queries.sum() * 0
            for name, term in terms.items():
                total = total + getattr(settings, name) * term
                sums[name] += float(term.detach()) * len(index) / len(order)
            optimizer.zero_grad()
            total.backward(inputs=table)
            optimizer.step()
        optimizer.zero_grad()
        history.append({"epoch": float(epoch), **sums})
    return history
