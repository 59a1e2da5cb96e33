"""What IFRU knows of a trained model, whatever is forgotten, and how little may be left to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Product
from graphunlearn.nn.encoding import Encoded, linear_form
from graphunlearn.nn.risk import LinearRisk, risk_of
from graphunlearn.nn.rotated import Rotated
from graphunlearn.nn.training.objective import Objective, Sampled, Samples
from graphunlearn.operators.shared.local import Known, known_of
from graphunlearn.operators.shared.noise import LARGEST, Movement, noise_of_draws, pairs_near
from graphunlearn.operators.shared.refit import first_step
from graphunlearn.operators.shared.ridge import Ridges, ridge_of
from graphunlearn.operators.shared.right_hand_side import Problem
from graphunlearn.operators.shared.warm_start import kept_share

__all__ = ["Prepared", "Stopping"]


@dataclass(frozen=True)
class Prepared:
    r"""The samples, and the gradient and the curvature at the trained model; and for which graph they are valid.

    Args:
        trained: The trained parameters ``[num_parameters]``.
        supervised: The tensors of the graph that the risk depends on, each with its version counter.
        objective: The loss.
        own: The samples; ``None`` where they are those of ``known``.
        tilt: The gradient :math:`\nabla R(\hat\theta; D, G)` ``[num_parameters]``.
        ridge: The ridge that is equivalent to early stopping, and the cosine of this fit.
        known: What a correction around a small request needs; ``None`` where it is not possible.
        diagonal: The diagonal of the curvature ``[num_parameters]``; ``None`` where the noise is not known.
        noise: The noise of training in probabilities; ``None`` where it is not known.
        encoded: The final embeddings; ``None`` where the noise is not known.
        risk: The risk of the trained model; ``None`` where the noise is not known.
        ridges: The ridges of the fit of the neighbours of emptied nodes; ``None`` where the noise is not known.
    """

    trained: Tensor
    supervised: tuple[tuple[Tensor | None, int], ...]
    objective: Objective
    own: Samples | None
    tilt: Tensor
    ridge: tuple[float, float]
    known: Known | None
    diagonal: Tensor | None = None
    noise: float | None = None
    encoded: Encoded | None = None
    risk: LinearRisk | None = None
    ridges: Ridges | None = None

    @cached_property
    def rotated(self) -> Rotated:
        """An estimate of the curvature to precondition with; a correction around a small request does without it."""
        assert self.risk is not None
        return self.risk.rotated(self.trained)

    @property
    def samples(self) -> Samples:
        """The samples, in the order of the interactions."""
        if self.own is not None:
            return self.own
        assert self.known is not None
        return self.known.samples

    def __deepcopy__(self, memo: Any) -> Prepared:
        return self  # nothing in it is ever changed, and sparse tensors have no deep copy

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # a method that was pickled computes it again: it refers to tensors of one graph

    @classmethod
    def of(cls, model: nn.Module, graph: InteractionGraph, objective: Objective, least: float) -> Prepared:
        """Compute what a trained model determines.

        Args:
            model: The trained model.
            graph: The graph before forgetting.
            objective: The loss.
            least: The smallest damping.
        """
        known = known_of(model, graph, objective)
        if known is None:
            samples: Samples | None = objective.samples(graph)
            risk = risk_of(model, graph, objective, samples)
            tilt = risk.gradient(risk.parameters)
        else:
            samples, risk, tilt = None, known.risk, known.gradient.flatten()
        trained = risk.parameters.clone() if known is None else risk.parameters  # the table of what is known is a copy
        ridge = ridge_of(trained, tilt)
        diagonal = noise = encoded = measured = ridges = None
        if isinstance(risk, LinearRisk) and isinstance(objective, Sampled) and objective.negatives > 1:
            diagonal, encoded = risk.jacobi(risk.parameters), risk.final(risk.parameters)
            measured = risk
            ridges = Ridges(risk, tilt.view_as(risk.table)) if known is None else known.ridges
            noise = noise_of_draws(risk, risk.parameters, diagonal, max(least, ridge[0]), graph)
        found = (diagonal, noise, encoded, measured, ridges)
        return cls(trained, _supervised(graph), objective, samples, tilt, ridge, known, *found)

    def serves(self, model: nn.Module, graph: InteractionGraph, objective: Objective) -> bool:
        """Return whether this is valid for a model, a graph and a loss.

        Args:
            model: The model.
            graph: The graph.
            objective: The loss.
        """
        parts = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
        kind = reduce(torch.promote_types, (part.dtype for part in parts))
        same = (
            a is b and n == m and (a is None or n >= 0)  # changes of what was made in inference mode are not known
            for (a, n), (b, m) in zip(self.supervised, _supervised(graph))
        )
        if not all(same) or self.objective != objective or kind != self.trained.dtype:
            return False
        if sum(map(len, parts)) != len(self.trained):
            return False
        own = self.trained.split([len(part) for part in parts])
        known = self.known is None or self.known.propagates(linear_form(model, graph))
        return known and all(torch.equal(a, b.to(kind)) for a, b in zip(own, parts))


@dataclass(frozen=True)
class Stopping:
    r"""The rule by which IFRU stops: what is left to do moves probabilities by less than a share of the noise.

    Let :math:`x^*` solve :math:`(H + \delta I)x = b`. What an approximation :math:`x` lacks is
    :math:`x^* - x = (H + \delta I)^{-1} r` with the residual :math:`r`. The estimate of :math:`H` that the solver is
    preconditioned with (:meth:`~graphunlearn.nn.risk.LinearRisk.rotated`) stands for :math:`H` in it, so that conjugate
    gradients compute it in every iteration. Its movement of probabilities
    (:class:`~graphunlearn.operators.shared.noise.Movement`) is the mean absolute one of the forgotten pairs, of
    retained pairs with a user or an item that lost interactions, or of as many pairs that were never seen, whichever
    is largest. Users that lose all interactions count with their trained embeddings, which shows the trace that is left
    of them. The noise is that of the negatives (:func:`~graphunlearn.operators.shared.noise.noise_of_draws`), at most
    0.01. The rule needs no labels and no retrained model.

    Args:
        movement: The movement of probabilities by a step.
        limit: The largest movement that may be left.
        diagonal: The diagonal of the curvature of the retained risk, in proportion to the interactions that nodes keep
            ``[num_parameters]``.
        kept: The share of interactions that every node keeps ``[num_nodes, 1]``.
        problem: The problem.
        prepared: What is known of the trained model.
    """

    movement: Movement
    limit: float
    diagonal: Tensor
    kept: Tensor
    problem: Problem
    prepared: Prepared

    @classmethod
    def of(
        cls,
        problem: Problem,
        prepared: Prepared,
        graph: InteractionGraph,
        retained: InteractionGraph,
        removed: Tensor,
        share: float,
    ) -> Stopping | None:
        """Return the rule for one request; ``None`` where the noise is not known or nothing may be left out.

        Args:
            problem: The problem.
            prepared: What is known of the trained model.
            graph: The graph before forgetting.
            retained: The retained graph.
            removed: Mask of the forgotten interactions ``[num_interactions]``.
            share: The share of the noise that may be left.
        """
        risk = problem.new
        if not share or prepared.noise is None or not isinstance(risk, LinearRisk):
            return None
        assert prepared.diagonal is not None
        assert prepared.encoded is not None
        movement = Movement(risk.form, prepared.encoded, pairs_near(graph, retained, removed))
        kept = kept_share(graph, retained).to(prepared.diagonal.dtype).unsqueeze(1)
        diagonal = (prepared.diagonal.view(len(kept), -1) * kept).flatten()
        return cls(movement, share * min(prepared.noise, LARGEST), diagonal, kept, problem, prepared)

    def inverse(self, damping: float) -> Product:
        """Return the product with the inverse of the damped estimate of the curvature.

        Args:
            damping: The damping.
        """
        encoded = self.prepared.encoded
        assert encoded is not None
        return self.prepared.rotated.inverse(len(encoded.queries), max(damping, 1e-6), self.kept)

    def enough(self, left: Tensor) -> bool:
        """Return whether a step may be left out.

        Args:
            left: The step in the table ``[num_parameters]``.
        """
        return self.movement(left) <= self.limit

    def seldom(self) -> Callable[[Tensor], bool]:
        """Return :meth:`enough` for the iterations of one solution, which is false where it is unlikely to be true.

        Near the end, what is left to do falls to six to nine tenths in an iteration on ML-100K and Last.fm. After a
        movement of :math:`4^k` times the limit, that of the next :math:`k - 1` iterations is therefore not computed.
        Where it falls faster than to a quarter, as many iterations at most are made that were not needed.
        """
        skipped = 0

        def enough(left: Tensor) -> bool:
            nonlocal skipped
            if skipped:
                skipped -= 1
                return False
            movement = self.movement(left)
            if self.limit and self.limit < movement < math.inf:
                skipped = max(0, math.ceil(math.log(movement / self.limit, 4)) - 1)
            return movement <= self.limit

        return enough

    @torch.no_grad()
    def of_refit(self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor) -> float:
        """Return how far the fit of the neighbours of emptied nodes would move probabilities.

        Args:
            model: The corrected model.
            graph: The graph before forgetting.
            retained: The retained graph.
            removed: Mask of the forgotten interactions ``[num_interactions]``.
        """
        risk, encoded, ridges = self.problem.new, self.prepared.encoded, self.prepared.ridges
        assert isinstance(risk, LinearRisk)
        assert encoded is not None
        assert ridges is not None
        table = model.get_parameter(risk.form.parameter).detach()
        trained, tilt, gradient, diagonal = (
            flat.view_as(table)
            for flat in (self.prepared.trained, self.prepared.tilt, risk.gradient(table.flatten()), self.diagonal)
        )
        step = first_step(graph, retained, removed, (trained, tilt, encoded, ridges), (table, gradient, diagonal))
        return self.movement(step.flatten())


def _supervised(graph: InteractionGraph) -> tuple[tuple[Tensor | None, int], ...]:
    """Return the tensors of the graph that the risk depends on, each with its version; -1 where there is none."""
    tensors = graph.pairs, graph.label, graph.rating
    known = tuple((t, -1 if t is None or t.is_inference() else t._version) for t in tensors)
    return (*known, (None, graph.num_users), (None, graph.num_items))
