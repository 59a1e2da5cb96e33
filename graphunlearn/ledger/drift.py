"""How much one request after another leaves uncorrected, from gradients alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.operators.base import _evaluating

__all__ = ["BUDGET", "Drift", "Gradient", "distance", "gradient_scale"]

Gradient: TypeAlias = dict[str, Tensor]
BUDGET = 0.5
"""What may be spent. On MovieLens 100K (``benchmarks/ledger.py``), models below it stayed within 1.5 times the distance
between retrained models on test pairs, and those above came to 1.75 times and more."""
_CHUNK = {"interactions": 1 << 20, "sessions": 8192}  # samples whose gradient is taken at a time
_DRAWS = (1 << 20, (1 << 20) + 1)  # passes that training never comes to: their negatives are nobody's
_SIGNS = 4  # draws of signs that the scale is a mean of


@dataclass(frozen=True, kw_only=True)
class Drift:
    r"""What requests have left uncorrected since the model was trained.

    Training left a gradient :math:`\nabla R(\hat\theta; D, G)` where it stopped. A model that follows a request
    exactly would be stopped in the same place of the new risk; what differs is the request's residual

    .. math::
        r_t = \frac1S\,\|\nabla R(\theta_t; D_t, G_t) - \nabla R(\theta_{t-1}; D_{t-1}, G_{t-1})\|

    with the rows of emptied nodes left out of the second gradient. The unit
    :math:`S = \sqrt{\sum_s \|\nabla\ell_s(\hat\theta)\|^2}` is what chance alone makes of a sum of gradients: its norm
    if a coin were tossed for the sign of every sample.

    What is spent after :math:`T` requests is :math:`\sqrt{\sum_t r_t^2}`: residuals of different requests are nearly
    orthogonal, so that this comes near :math:`\|\nabla R(\theta_T) - \nabla R(\hat\theta)\| / S` (within a factor of
    1.6 on MovieLens 100K, after 50 requests as well), of which certified removal has the bound :math:`\sum_t r_t`.

    It tells how far a model is from where training would have left it, and so when requests begin to cost quality. It
    does not tell whether they are forgotten: for that there is an audit.

    Args:
        scale: The unit :math:`S`, taken at the first model.
        residual: :math:`r_t` of the request.
        spent: The drift so far.
        requests: How many requests it is of.
        budget: How much may be spent.

    Source: Guo et al., "Certified Data Removal from Machine Learning Models", ICML 2020, for residuals that add up.
    """

    scale: float
    residual: float
    spent: float
    requests: int
    budget: float

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: it is time to retrain."""
        return self.spent > self.budget

    @classmethod
    def after(
        cls,
        last: Drift | None,
        model: nn.Module,
        graph: Any,
        corrected: nn.Module,
        retained: Any,
        objective: Criterion,
        budget: float,
    ) -> Drift:
        """Return the drift after one more request.

        Args:
            last: The drift before; ``None`` for the first request to a trained model.
            model: The model before.
            graph: Its graph.
            corrected: The model after.
            retained: Its graph.
            objective: The loss.
            budget: How much may be spent.

        Raises:
            FloatingPointError: A gradient is not finite.
        """
        scale = (gradient_scale(model, graph, objective) or 1.0) if last is None else last.scale
        left = distance(model, graph, corrected, retained, objective) / scale
        if not math.isfinite(left):
            raise FloatingPointError("the drift is not finite (budget=None leaves it out)")
        spent, requests = (0.0, 0) if last is None else (last.spent, last.requests)
        return cls(scale=scale, residual=left, spent=math.hypot(spent, left), requests=requests + 1, budget=budget)


def distance(model: nn.Module, graph: Any, corrected: nn.Module, retained: Any, objective: Criterion) -> float:
    r"""Return :math:`\|\nabla R(\theta'; D_k, G_k) - \nabla R(\theta; D, G)\|` without the rows of emptied nodes.

    Where the objective draws negatives, a gradient is more noise than anything else. Two draws :math:`a, b`, of
    which no method knows, have noises of their own, and :math:`\langle\delta_a, \delta_b\rangle` has the squared norm
    without them for its expectation; where chance takes that below zero, the distance is zero.

    Args:
        model: The model before.
        graph: Its graph.
        corrected: The model after.
        retained: Its graph.
        objective: The loss.
    """
    before, after = _gradients(model, graph, objective), _gradients(corrected, retained, objective)
    for part in before:
        _forget_rows(part, model, graph, retained)
    left = [{name: new[name] - old[name] for name in new} for old, new in zip(before, after)]
    return math.sqrt(max(0.0, sum(float((left[0][name] * left[-1][name]).sum()) for name in left[0])))


def gradient_scale(model: nn.Module, graph: Any, objective: Criterion, seed: int = 0) -> float:
    r"""Return :math:`\sqrt{\sum_s \|\nabla\ell_s(\theta)\|^2}`, estimated with random signs.

    For independent signs, :math:`E\,\|\sum_s \varepsilon_s \nabla\ell_s\|^2 = \sum_s \|\nabla\ell_s\|^2`: one gradient
    for each draw of signs, instead of one for each sample.
    """
    generator, squares = torch.Generator().manual_seed(seed), []
    samples = objective.samples(graph, epoch=_DRAWS[0])
    for _ in range(_SIGNS):
        parts = _gradient(model, graph, objective, samples, generator)
        squares.append(sum(float(part.square().sum()) for part in parts.values()))
    return math.sqrt(sum(squares) / len(squares))


def _gradients(model: nn.Module, graph: Any, objective: Criterion) -> list[Gradient]:
    """Return the gradient of the summed loss by parameter, in float64; where negatives are drawn, for two draws."""
    samples = [objective.samples(graph, epoch=_DRAWS[0])]
    if getattr(samples[0], "negatives", None) is not None:
        samples.append(objective.samples(graph, epoch=_DRAWS[1]))
    return [_gradient(model, graph, objective, part) for part in samples]


def _gradient(
    model: nn.Module, graph: Any, objective: Criterion, samples: Any, signs: torch.Generator | None = None
) -> Gradient:
    """Return the gradient of the losses of ``samples``; with ``signs``, of each loss times 1 or -1."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    size = _CHUNK[graph.kind]
    device = next(model.parameters()).device
    with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
        for index in torch.arange(len(samples), device=device).split(size):
            loss = objective.losses(model, graph, samples.select(index))
            if signs is not None:
                loss = loss * (torch.randint(2, loss.shape, generator=signs).to(loss) * 2 - 1)
            parts = torch.autograd.grad(loss.sum(), list(parameters.values()), allow_unused=True)
            for name, part in zip(parameters, parts):
                if part is not None:
                    total[name] += part.detach()
    return total


def _forget_rows(gradient: Gradient, model: nn.Module, graph: Any, retained: Any) -> None:
    """Set to zero what the gradient says of users and items that the request empties."""
    emptied = graph.emptied(retained)
    for name, nodes in node_rows(model, graph).items():
        if name in gradient:
            gradient[name][emptied[nodes]] = 0
