"""Drift: the uncorrected part of a series of requests, measured by gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.shared.evaluating import evaluating

__all__ = ["BUDGET", "Drift", "Gradient", "distance", "gradient_scale"]

Gradient: TypeAlias = dict[str, Tensor]
BUDGET = 0.5
"""Default budget of the drift. On MovieLens 100K (``benchmarks/ledger.py``), models with less drift stayed within 1.5
times the distance between retrained models on test pairs, and models with more drift reached 1.75 times and more."""
_CHUNK = {"interactions": 1 << 16, "sessions": 8192}  # samples per gradient computation
_DRAWS = (1 << 20, (1 << 20) + 1)  # epochs beyond any training, whose negatives no method has used
_SIGNS = 4  # number of draws of signs that the scale is averaged over


@dataclass(frozen=True, kw_only=True)
class Drift:
    r"""The uncorrected part of all requests since the model was trained.

    Training stops with a gradient :math:`\nabla R(\hat\theta; D, G)`. A model that follows a request exactly would stop
    with the same gradient of the new risk. The difference between both gradients is the residual of the request,

    .. math::
        r_t = \frac1S\,\|\nabla R(\theta_t; D_t, G_t) - \nabla R(\theta_{t-1}; D_{t-1}, G_{t-1})\|

    where the second gradient is set to zero for the embeddings of emptied nodes. The unit
    :math:`S = \sqrt{\sum_s \|\nabla\ell_s(\hat\theta)\|^2}` is the root mean square norm of the summed gradient if the
    sign of every sample is drawn at random.

    The drift after :math:`T` requests is :math:`\sqrt{\sum_t r_t^2}`. Residuals of different requests are nearly
    orthogonal, so the drift approximates :math:`\|\nabla R(\theta_T) - \nabla R(\hat\theta)\| / S` (within a factor of
    1.6 on MovieLens 100K, also after 50 requests), for which certified removal uses the bound :math:`\sum_t r_t`.

    The drift measures how far the model is from the result of training, and thus when further requests begin to cost
    quality. It does not show whether the requests are forgotten; an audit measures that.

    Args:
        scale: The unit :math:`S`, computed for the first model.
        residual: The residual :math:`r_t` of the last request.
        spent: The drift :math:`\sqrt{\sum_t r_t^2}` so far.
        requests: Number of requests so far.
        budget: Drift above which the model should be retrained.

    Source: Guo et al., "Certified Data Removal from Machine Learning Models", ICML 2020, for residuals that add up.
    """

    scale: float
    residual: float
    spent: float
    requests: int
    budget: float

    @property
    def exhausted(self) -> bool:
        """Whether the drift exceeds the budget, so that the model should be retrained."""
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
            last: The drift before the request; ``None`` for the first request to a trained model.
            model: The model before the request.
            graph: The graph before the request.
            corrected: The model after the request.
            retained: The retained graph.
            objective: The loss.
            budget: Drift above which the model should be retrained.

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
    r"""Return :math:`\|\nabla R(\theta'; D_k, G_k) - \nabla R(\theta; D, G)\|`, the distance between two gradients.

    The second gradient is set to zero for the embeddings of emptied nodes. If the objective draws negatives, noise
    dominates the gradients. The differences :math:`\delta_a, \delta_b` for two independent draws :math:`a, b` that no
    method has used have independent noise, so the expectation of :math:`\langle\delta_a, \delta_b\rangle` is the
    squared norm without noise. If the inner product is negative by chance, the distance is 0.

    Args:
        model: The model before the request.
        graph: The graph before the request.
        corrected: The model after the request.
        retained: The retained graph.
        objective: The loss.

    Returns:
        The distance, which is not divided by the scale :math:`S`.
    """
    before, after = _gradients(model, graph, objective), _gradients(corrected, retained, objective)
    for part in before:
        _forget_rows(part, model, graph, retained)
    left = [{name: new[name] - old[name] for name in new} for old, new in zip(before, after)]
    return math.sqrt(max(0.0, sum(float((left[0][name] * left[-1][name]).sum()) for name in left[0])))


def gradient_scale(model: nn.Module, graph: Any, objective: Criterion, seed: int = 0) -> float:
    r"""Return :math:`\sqrt{\sum_s \|\nabla\ell_s(\theta)\|^2}`, estimated with random signs.

    For independent signs, :math:`E\,\|\sum_s \varepsilon_s \nabla\ell_s\|^2 = \sum_s \|\nabla\ell_s\|^2`. The estimate
    takes one gradient per draw of signs instead of one per sample.

    Args:
        model: The model.
        graph: Its graph.
        objective: The loss.
        seed: Seed of the signs.
    """
    generator = torch.Generator().manual_seed(seed)
    count = graph.num_interactions if _is_plain(objective) else len(objective.samples(graph, epoch=_DRAWS[0]))
    signs = torch.stack([torch.randint(2, (count,), generator=generator).bool() for _ in range(_SIGNS)])
    found = _summed(model, graph, objective, _DRAWS[0], signs)
    squares = [sum(float(part.square().sum()) for part in gradient.values()) for gradient in found]
    return math.sqrt(sum(squares) / len(squares))


def _gradients(model: nn.Module, graph: Any, objective: Criterion) -> list[Gradient]:
    """Return the float64 gradient of the summed loss, by parameter; two gradients if negatives are drawn."""
    draws: tuple[int, ...] = _DRAWS[:1]
    if _is_plain(objective):
        one = torch.arange(graph.num_interactions, device=graph.device) < 1
        drawn = getattr(objective.samples(graph, mask=one, epoch=_DRAWS[0]), "negatives", None)
        draws = draws if drawn is None else _DRAWS
    return [_summed(model, graph, objective, draw)[0] for draw in draws]


def _summed(
    model: nn.Module, graph: Any, objective: Criterion, draw: int, signs: Tensor | None = None
) -> list[Gradient]:
    """Return the gradient of the summed losses; with signs ``[num, num_samples]``, one for each row of signs.

    The losses are computed in chunks. Those of interactions share one encoding, whose gradient is summed over the
    chunks, and negatives are drawn chunk by chunk, so that the memory does not grow with the number of interactions.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    size, device = _CHUNK[graph.kind], next(model.parameters()).device
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        if not _is_plain(objective):
            samples = objective.samples(graph, epoch=draw)
            chunks = torch.arange(len(samples), device=device).split(size)
            pieces = ((chunk, objective.losses(model, graph, samples.select(chunk))) for chunk in chunks)
            sums = _sums(pieces, list(parameters.values()), signs)
            return [dict(zip(parameters, parts)) for parts in sums]
        assert isinstance(objective, Objective)
        outputs = list(encode(model, graph))
        whole = [None if part is None else part.detach().requires_grad_(part.requires_grad) for part in outputs]
        encoded = Encoded(*whole)  # type: ignore[arg-type]
        pairs = [(end, part) for end, part in zip(outputs, whole) if end is not None and part is not None]
        ends = [end for end, part in pairs if part.requires_grad]
        inputs = [part for _, part in pairs if part.requires_grad]

        def losses(chunk: Tensor) -> Tensor:
            mask = torch.zeros(graph.num_interactions, dtype=torch.bool, device=device)
            mask[chunk] = True
            return objective(encoded, objective.samples(graph, mask=mask, epoch=draw))

        chunks = torch.arange(graph.num_interactions, device=device).split(size)
        sums = _sums(((chunk, losses(chunk)) for chunk in chunks), inputs, signs)
        found = []
        for parts in sums:
            slopes = [part.to(end.dtype) for end, part in zip(ends, parts)]
            back = torch.autograd.grad(ends, list(parameters.values()), slopes, retain_graph=True, allow_unused=True)
            zeros = (torch.zeros_like(p) if part is None else part for p, part in zip(parameters.values(), back))
            found.append({name: part.detach().double() for name, part in zip(parameters, zeros)})
        return found


def _is_plain(objective: Criterion) -> bool:
    """Whether the losses depend on the encoding of the graph only, as those of interactions do."""
    return isinstance(objective, Objective) and type(objective).losses is Objective.losses


def _sums(pieces: Iterable[tuple[Tensor, Tensor]], inputs: Sequence[Any], signs: Tensor | None) -> list[list[Tensor]]:
    """Return the float64 gradients of all losses, summed over the pieces, for each row of signs."""
    rows = 1 if signs is None else len(signs)
    total = [[torch.zeros_like(part, dtype=torch.float64) for part in inputs] for _ in range(rows)]
    for chunk, losses in pieces:
        for row in range(rows):
            loss = losses if signs is None else losses * (signs[row][chunk.cpu()].to(losses) * 2 - 1)
            parts = torch.autograd.grad(loss.sum(), inputs, allow_unused=True, retain_graph=row < rows - 1)
            for target, part in zip(total[row], parts):
                if part is not None:
                    target += part.detach()
    return total


def _forget_rows(gradient: Gradient, model: nn.Module, graph: Any, retained: Any) -> None:
    """Set the gradient of the embeddings of emptied users and items to zero."""
    emptied = graph.emptied(retained)
    for name, nodes in node_rows(model, graph).items():
        if name in gradient:
            gradient[name][emptied[nodes]] = 0
