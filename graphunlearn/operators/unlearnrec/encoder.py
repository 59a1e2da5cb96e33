"""The influence encoder: it predicts the score that each forgotten interaction would have after retraining."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.shared.preparation import Kept
from graphunlearn.operators.unlearnrec.features import NUM_FEATURES

__all__ = ["EncoderSettings", "InfluenceEncoder", "pretrain_encoder"]

_CLIP = 4.0  # standard deviations; features beyond the simulated range are clipped to its edge
Simulated = Sequence[Sequence[tuple[Tensor, Tensor]]]
"""Requests by kind, each as a pair of features ``[num_forgotten, NUM_FEATURES]`` and targets ``[num_forgotten]``."""


class InfluenceEncoder(Kept):
    r"""Predict the scores that retraining would give to the interactions of a request.

    .. math::
        t_r = f\big(x_r,\ \tfrac1n \sum_{s} x_s\big)

    Here :math:`x_r` are the standardised features of interaction :math:`r` (:meth:`Removal.features`) and :math:`f` is
    a small network shared by all interactions. The mean over the request describes the kind of request. No parameter
    belongs to a particular node: the encoder applies to unseen requests, nodes and graphs, and its output does not
    depend on the numbering of the nodes.

    Args:
        hidden: Width of the two hidden layers.
        context: Whether the mean features of the request are an input.

    Raises:
        ValueError: ``hidden`` is less than 1.

    Example:
        >>> encoder = InfluenceEncoder(hidden=8)
        >>> encoder(torch.zeros(5, NUM_FEATURES)).shape
        torch.Size([5])
    """

    center: Tensor
    scale: Tensor
    output: Tensor

    def __init__(self, hidden: int = 64, *, context: bool = True) -> None:
        super().__init__()
        check("be at least 1", lambda value: value >= 1, hidden=hidden)
        self.hidden, self.context = hidden, context
        self.register_buffer("center", torch.zeros(NUM_FEATURES))
        self.register_buffer("scale", torch.ones(NUM_FEATURES))
        self.register_buffer("output", torch.tensor([0.0, 1.0]))  # mean and standard deviation of the targets
        layers = (nn.Linear(NUM_FEATURES * (1 + context), hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1))
        self.network = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def shape(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "context": self.context}

    @torch.no_grad()
    def standardise(self, simulated: Simulated) -> None:
        """Set the means and standard deviations of features and targets from simulated requests.

        Args:
            simulated: The simulated requests, by kind.
        """
        features = torch.cat([features for kind in simulated for features, _ in kind])
        targets = torch.cat([target for kind in simulated for _, target in kind])
        self.center.copy_(features.mean(0))
        self.scale.copy_(features.std(0).clamp(min=1e-6))
        self.output.copy_(torch.stack([targets.mean(), targets.std().clamp(min=1e-6)]))

    def inputs(self, features: Tensor) -> Tensor:
        """Return the inputs of the network for one request.

        Args:
            features: The features of its interactions ``[num_forgotten, NUM_FEATURES]``.

        Returns:
            Standardised and clipped features, followed by their mean if ``context`` is set
            ``[num_forgotten, num_inputs]``.
        """
        own = ((features - self.center) / self.scale).clamp(-_CLIP, _CLIP)
        if not self.context:
            return own
        return torch.cat([own, own.mean(0, keepdim=True).expand_as(own)], 1)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the predicted scores ``[num]`` for rows of :meth:`inputs` ``[num, num_inputs]``."""
        scores: Tensor = self.output[0] + self.output[1] * self.network(inputs).squeeze(1)
        return scores

    def forward(self, features: Tensor) -> Tensor:
        """Return the predicted scores of one request.

        Args:
            features: The features of its interactions ``[num_forgotten, NUM_FEATURES]``.

        Returns:
            The scores ``[num_forgotten]``.
        """
        return self.answer(self.inputs(features)) if len(features) else features.new_zeros(0)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Settings of the training of the influence encoder.

    Args:
        probability: Weight of the mean absolute difference of probabilities, by which forgetting is measured; 0 drops
            the term.
        logit: Weight of the smooth L1 difference of standardised scores, which matters in the tails; 0 drops the term.
        steps: Largest number of steps.
        batch_size: Interactions per step.
        lr: Learning rate of AdamW; the last 40 % of the steps use a third of it.
        weight_decay: Decoupled weight decay.
        patience: Stop after this many evaluations on the held-out requests, one every 50 steps, without improvement.
        seed: Seed of the initial weights and of the batches.

    Raises:
        ValueError: A setting is out of range.
    """

    probability: float = 2.0
    logit: float = 1.0
    steps: int = 800
    batch_size: int = 2048
    lr: float = 3e-3
    weight_decay: float = 1e-3
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.probability, self.logit) < 0 or self.probability + self.logit == 0:
            raise ValueError(
                f"'probability' and 'logit' must not be negative, nor both 0 (got {self.probability} and {self.logit})"
            )
        counts = {"steps": self.steps, "batch_size": self.batch_size, "patience": self.patience}
        check("be at least 1", lambda value: value >= 1, **counts)

    def loss(self, encoder: InfluenceEncoder, answer: Tensor, target: Tensor) -> Tensor:
        r"""Return the mean of :math:`w_p\,|\sigma(t) - \sigma(t^*)| + w_l\,h((t - t^*)/s)`.

        Args:
            encoder: The encoder; it provides the standard deviation :math:`s` of the targets.
            answer: Predicted scores :math:`t` ``[num]``.
            target: Target scores :math:`t^*` ``[num]``.

        Returns:
            The loss, a scalar; :math:`h` is the smooth L1 loss.
        """
        loss = answer.new_zeros(())
        if self.probability:
            loss = loss + self.probability * (torch.sigmoid(answer) - torch.sigmoid(target)).abs().mean()
        if self.logit:
            scale = encoder.output[1]
            loss = loss + self.logit * F.smooth_l1_loss(answer / scale, target / scale)
        return loss


def pretrain_encoder(
    encoder: InfluenceEncoder,
    simulated: Simulated,
    held_out: Simulated,
    settings: EncoderSettings,
    on_step: Callable[[int, float], Any] = lambda step, loss: None,
) -> list[dict[str, float]]:
    """Train ``encoder`` in place on simulated requests, and keep the parameters that are best on held-out requests.

    Args:
        encoder: The encoder.
        simulated: Training requests by kind; every kind has the same weight.
        held_out: Simulated requests for model selection, by kind; they share no interaction with ``simulated``.
        settings: Settings of the training.
        on_step: Called at every evaluation with the step and the held-out loss.

    Returns:
        For every evaluation, the step, the training loss, the held-out loss and the held-out mean difference of
        probabilities.

    Raises:
        ValueError: ``simulated`` or ``held_out`` is empty.
    """
    simulated, held_out = ([kind for kind in kinds if kind] for kinds in (simulated, held_out))
    if not simulated or not held_out:
        raise ValueError("'simulated' and 'held_out' must each hold at least one request (got none)")
    encoder.standardise(simulated)
    device = encoder.center.device
    inputs = [torch.cat([encoder.inputs(features) for features, _ in kind]) for kind in simulated]
    targets = [torch.cat([target for _, target in kind]) for kind in simulated]
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        for module in encoder.network:
            if isinstance(module, nn.Linear):  # uses its own generator and leaves the global random state unchanged
                bound = module.in_features**-0.5
                for parameter in (module.weight, module.bias):
                    parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    best, kept, since, history = float("inf"), encoder.state_dict(), 0, []
    for step in range(1, settings.steps + 1):
        if step == round(0.6 * settings.steps):
            optimizer.param_groups[0]["lr"] = settings.lr / 3
        size = max(1, settings.batch_size // len(inputs))
        batch = [torch.randint(len(kind), (size,), generator=generator).to(device) for kind in inputs]
        answer = encoder.answer(torch.cat([kind[rows] for kind, rows in zip(inputs, batch)]))
        loss = settings.loss(encoder, answer, torch.cat([kind[rows] for kind, rows in zip(targets, batch)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 and step != settings.steps:
            continue
        judged = _judge(encoder, held_out, settings)
        history.append({"step": float(step), "loss": float(loss.detach()), **judged})
        on_step(step, judged["held_out"])
        since += 1
        if judged["held_out"] < best:
            best, since = judged["held_out"], 0
            kept = {name: value.clone() for name, value in encoder.state_dict().items()}
        if since >= settings.patience:
            break
    encoder.load_state_dict(kept)
    return history


@torch.no_grad()
def _judge(encoder: InfluenceEncoder, held_out: Simulated, settings: EncoderSettings) -> dict[str, float]:
    """Return the mean loss and the mean difference of probabilities on held-out requests; kinds weigh the same."""
    losses, moved = [], []
    for kind in held_out:
        answers = [(encoder(features), target) for features, target in kind]
        losses.append(statistics.fmean(float(settings.loss(encoder, a, t)) for a, t in answers))
        moved.append(statistics.fmean(float((torch.sigmoid(a) - torch.sigmoid(t)).abs().mean()) for a, t in answers))
    return {"held_out": statistics.fmean(losses), "probability_error": statistics.fmean(moved)}
