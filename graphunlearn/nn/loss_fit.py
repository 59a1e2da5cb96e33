r"""Is a model near a stationary point of a loss? A model that was trained with the loss is; most others are not."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.data.schema import check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.func.blocks import in_blocks, inner
from graphunlearn.nn.precision import check_precision
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of
from graphunlearn.nn.training.objective import BCE, BPR, Objective, Sampled, Samples, SquaredError, default_objective
from graphunlearn.nn.training.sampled import InBatchSoftmax, SampledBCE, SampledSoftmax

__all__ = ["Stationarity", "losses_by_fit", "stationarity"]

NEAR, FAR = 0.45, 0.7  # settled on models of ML-100K and confirmed on others; see docs/own-loss.md
SAMPLED = 20_000  # interactions of the sample
_APART = 7_919  # between the seeds of two draws
DRAWS = 8  # draws of negatives that losses are compared with


@dataclass(frozen=True)
class Stationarity:
    r"""How near a model is to a stationary point of a loss.

    Args:
        objective: The loss.
        ridge_cosine: :math:`-\langle\nabla R, \theta\rangle / (\|\nabla R\|\,\|\theta\|)`. After early stopping or
            weight decay, the gradient points against the parameters, and the cosine is clearly above 0.
        gradient: The norm :math:`\|\nabla R\|` of the gradient.
        shuffled: The norm of the gradient for the same users and items with the items permuted.
        residual: The norm of the gradient without its part along :math:`-\theta`, over ``shuffled``. It is small for
            a model trained with the loss and near 1 for a model that knows nothing about it.
        num_samples: Number of interactions that the gradients sum over.
    """

    objective: Objective
    ridge_cosine: float
    gradient: float
    shuffled: float
    residual: float
    num_samples: int

    @property
    def verdict(self) -> str:
        """The result in words: ``"near stationary"``, ``"undecided"`` or ``"far from stationary"``."""
        if self.residual < NEAR:
            return "near stationary"
        return "far from stationary" if self.residual > FAR else "undecided"


def stationarity(
    model: nn.Module,
    graph: InteractionGraph,
    objective: Objective | None = None,
    *,
    num_samples: int = SAMPLED,
    seed: int = 0,
    draws: int = 1,
) -> Stationarity:
    """Return how near a model is to a stationary point of a loss, without labels and without training.

    The cost is that of two gradients per draw; a linear model is propagated once for all draws. On large graphs, both
    sum over the interactions of a sample of users.
    The verdict can say that a model was not trained with a loss; it cannot tell losses with similar minimisers apart.
    The negatives of one draw add noise to the residual, the more the fewer they are; the mean over several draws has
    less.

    Args:
        model: The recommender; it is not changed.
        graph: The graph that the model was trained on.
        objective: The loss; :func:`~graphunlearn.nn.default_objective` by default.
        num_samples: Largest number of interactions to sum over; whole users are drawn, at least one.
        seed: Seed of the sample of users and of the permutation.
        draws: Draws of negatives that the gradients are the mean of, if the loss draws some.

    Returns:
        The :class:`Stationarity`.

    Raises:
        ValueError: The graph is of sessions, the loss is none of interactions or does not fit the graph, the model has
            no trainable parameters, or some that are not finite or of half precision, or a number is below 1.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
        >>> _ = torch.manual_seed(0)
        >>> model = gu.nn.MatrixFactorization(graph.num_nodes, 8)
        >>> _ = gu.fit(model, graph, objective=gu.BPR(), epochs=60)
        >>> gu.stationarity(model, graph, gu.BPR()).verdict
        'near stationary'
        >>> gu.stationarity(model, graph, gu.SampledBCE(negatives=4)).verdict
        'far from stationary'
    """
    objective = _checked(model, graph, objective)
    check_sizes(num_samples=num_samples, draws=draws)
    return _fits(model, graph, [objective], num_samples, seed, draws)[0]


def _fits(
    model: nn.Module, graph: InteractionGraph, objectives: list[Objective], num_samples: int, seed: int, draws: int
) -> list[Stationarity]:
    """Return the stationarity of a model for some losses; it is encoded once for all of them."""
    if any(module.training for module in model.modules()):
        model = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    mask = _of_some_users(graph, num_samples, generator)
    count = graph.num_interactions if mask is None else int(mask.sum())
    order = torch.randperm(count, generator=generator).to(graph.device)
    fits: list[Stationarity] = []
    known: Risk | None = None
    with torch.inference_mode(False):
        for objective in objectives:
            losses = [objective]
            if isinstance(objective, Sampled):
                losses += [replace(objective, seed=objective.seed + draw * _APART) for draw in range(1, draws)]
            own, shuffled = _Sum(), _Sum()
            for loss in losses:
                samples = loss.samples(graph, mask=mask)
                for total, part in ((own, samples), (shuffled, _permuted(samples, order))):
                    known = risk_of(model, graph, loss, part) if known is None else known.of(loss, part.by_user())
                    total.add(known)
            assert known is not None
            slope, other = own.mean(known), shuffled.mean(known)
            fits.append(_figures(objective, slope, other, known.parameters, count))
    return fits


def _figures(objective: Objective, slope: Tensor, shuffled: Tensor, theta: Tensor, count: int) -> Stationarity:
    """Return the figures of a loss, given its gradient, that of shuffled pairs and the parameters."""
    along, square = -inner(slope, theta), max(inner(theta, theta), 1e-30)
    norm, other = inner(slope, slope) ** 0.5, inner(shuffled, shuffled) ** 0.5
    cosine, ridge = along / max(norm * square**0.5, 1e-30), max(along / square, 0.0)
    rest = sum(float((g + ridge * e).square().sum()) for g, e in in_blocks(slope, theta)) ** 0.5
    return Stationarity(objective, cosine, norm, other, rest / max(other, 1e-30), count)


def losses_by_fit(
    model: nn.Module, graph: InteractionGraph, *, num_samples: int = SAMPLED, seed: int = 0, draws: int = DRAWS
) -> list[Stationarity]:
    """Return the stationarity of a model for the losses of this package, the best fit first.

    The order does not identify the loss: losses with similar minimisers, such as BPR, SampledBCE with one negative and
    sampled softmax, have residuals within a tenth of each other on models of any of them. Take all losses with the
    verdict ``"near stationary"`` as equals, and what is known of the training to choose among them.

    The losses have no L2 penalty, since the part of the gradient along the parameters does not count. Losses of labels
    and ratings are included if the graph has labels or ratings that differ.

    Args:
        model: The recommender; it is not changed.
        graph: The graph that the model was trained on.
        num_samples: Largest number of interactions to sum over.
        seed: Seed of the sample.
        draws: Draws of negatives that the gradients are the mean of.

    Returns:
        One :class:`Stationarity` per loss, by ascending residual.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
        >>> _ = torch.manual_seed(0)
        >>> model = gu.nn.MatrixFactorization(graph.num_nodes, 8)
        >>> _ = gu.fit(model, graph, objective=gu.SampledBCE(negatives=4), epochs=60)
        >>> gu.nn.losses_by_fit(model, graph)[0].objective
        SampledBCE(weight_decay=0.0, negatives=4, seed=0, ratio=None)
    """
    losses: list[Objective] = [BPR(weight_decay=0.0)]
    losses += [SampledBCE(weight_decay=0.0, negatives=n) for n in (1, 2, 4)]
    losses += [SampledSoftmax(weight_decay=0.0, negatives=16), InBatchSoftmax(weight_decay=0.0, negatives=16)]
    losses += [BCE(weight_decay=0.0)] if _differ(graph.label) else []
    losses += [SquaredError()] if _differ(graph.rating) else []
    _checked(model, graph, losses[0])
    check_sizes(num_samples=num_samples, draws=draws)
    return sorted(_fits(model, graph, losses, num_samples, seed, draws), key=lambda fit: fit.residual)


@dataclass
class _Sum:
    """The sum of the gradients of risks of one model; that of a linear model is propagated once for all of them."""

    number: int = 0
    back: Tensor | float = 0.0
    own: Tensor | float = 0.0

    @torch.no_grad()
    def add(self, risk: Risk) -> None:
        """Add the gradient of a risk."""
        self.number, theta = self.number + 1, risk.parameters
        if isinstance(risk, LinearRisk) and risk.closed:
            self.back += risk.back(theta)
            self.own += (risk._l2(theta) * risk.table).flatten()
        else:
            self.own += risk.gradient(theta)

    @torch.no_grad()
    def mean(self, risk: Risk) -> Tensor:
        """Return the mean gradient, given one of the risks ``[num_parameters]``."""
        if isinstance(self.back, Tensor):
            assert isinstance(risk, LinearRisk)
            self.own += risk.form.propagate(self.back).flatten()
            self.back = 0.0
        assert isinstance(self.own, Tensor)
        return self.own.div_(self.number)


def _checked(model: nn.Module, graph: Any, objective: Any) -> Objective:
    """Return the loss, or raise ArgumentError if an argument is not what :func:`stationarity` needs."""
    if getattr(graph, "kind", None) != "interactions":
        raise ArgumentError("graph", "be an InteractionGraph", f"a {type(graph).__name__}")
    objective = default_objective(graph) if objective is None else objective
    if not isinstance(objective, Objective):
        raise ArgumentError("objective", "be a loss of interactions, an Objective", f"{objective!r}")
    check_precision(model)
    bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ArgumentError("model", "have finite parameters", f"NaN or infinity in {', '.join(bad[:3])}")
    return objective


def _differ(values: Tensor | None) -> bool:
    return values is not None and values.numel() > 1 and bool(values.min() < values.max())


def _of_some_users(graph: InteractionGraph, most: int, generator: torch.Generator) -> Tensor | None:
    """Return a mask of the interactions of random users, at most ``most`` of them; ``None`` for all interactions."""
    if graph.num_interactions <= most:
        return None
    order = torch.randperm(graph.num_users, generator=generator).to(graph.device)
    order = order[graph.adjacency.degree[order] > 0]
    chosen = torch.zeros(graph.num_users, dtype=torch.bool, device=graph.device)
    chosen[order[graph.adjacency.degree[order].cumsum(0) <= most]] = True
    chosen[order[:1]] = True
    return chosen[graph.pairs[0]]


def _permuted(samples: Samples, order: Tensor) -> Samples:
    """Return the samples with the items, and what belongs to them, in another order."""
    offset = samples.offset
    if offset is not None:
        own = offset[:, :1][order]
        offset = torch.cat([own, offset[:, 1:]], 1)
    return replace(samples, items=samples.items[order], offset=offset)
