r"""A step of IFRU around a small request: rows are chosen by their residual, and the cost is that of their samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import conjugate_gradients
from graphunlearn.nn.encoding import linear_form
from graphunlearn.operators.ifru.prepared import Prepared
from graphunlearn.operators.shared.correction import Tilted, inverse_diagonal
from graphunlearn.operators.shared.journal import Journal
from graphunlearn.operators.shared.local import Local
from graphunlearn.operators.shared.noise import LARGEST, Movement, pairs_near
from graphunlearn.operators.shared.propagation import Rows
from graphunlearn.operators.shared.refit import neighbours_of_emptied
from graphunlearn.operators.shared.warm_start import kept_share, warm_start

__all__ = ["AROUND", "Nearby"]

AROUND: WeakKeyDictionary[nn.Module, Local] = WeakKeyDictionary()
"""The risk around the neighbours of emptied nodes, for models in which they are still to be fitted."""

_ROUNDS = 3  # most solutions, so that rows are added twice at most
_ADDED = 0.9  # share of what is left to do, as a sum of squares, in the rows that are added
_TOLERANCE, _ROUGH = 0.01, 0.1  # of the system in the chosen rows; where its solution is not used but for what is left


@dataclass(frozen=True)
class Nearby:
    r"""The step :math:`-(H + \delta I)^{-1}\nabla\Phi(\theta_0)` in rows that are chosen by their residual.

    The first rows are those of the nodes that lose interactions, without users that lose all: items that lose all may
    still be drawn as negatives. The system is solved in them, with the samples that they occur in alone
    (:class:`~graphunlearn.operators.shared.local.Local`). What is left to do elsewhere is estimated by :math:`M^{-1}r`
    with the residual :math:`r` and the diagonal :math:`M`, as in
    :class:`~graphunlearn.operators.ifru.prepared.Stopping`. If it moves probabilities by more than the limit, the rows
    with 90 % of it are added. The step is shortened until :math:`\Phi` is lower than at the start and than with edges
    deleted, and given up if it never is. If all chosen rows are fitted to what remains after the step, they are left as
    they are.

    Args:
        prepared: What is known of the trained model.
        share: The share of the noise that may be left.
        damping: The damping :math:`\delta`; ``None`` takes the ridge that is equivalent to early stopping.
        min_damping: The smallest damping taken then.
        scale: Whether to start from embeddings scaled by the share of interactions kept.
        refits: Whether neighbours of emptied nodes are fitted to what remains after the step.
        max_iter: Largest number of products per solution.
        seed: Seed of redrawn embeddings.
    """

    prepared: Prepared
    share: float
    damping: float | None
    min_damping: float
    scale: bool
    refits: bool
    max_iter: int
    seed: int

    def correct(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor
    ) -> dict[str, Any] | None:
        """Correct a model in place, and keep the risk around the chosen rows if neighbours are fitted later.

        Args:
            model: The trained model.
            graph: The graph before forgetting.
            retained: The retained graph.
            removed: Mask of the forgotten interactions ``[num_interactions]``.

        Returns:
            A log; ``None``, and the model as it was, if so many rows have to change that it is better to solve the
            whole system.
        """
        journal, log = Journal(), None
        try:
            log = self._corrected(model, graph, retained, removed, journal)
        finally:
            if log is None:
                journal.undo()
        return log

    @torch.no_grad()
    def _corrected(
        self,
        model: nn.Module,
        graph: InteractionGraph,
        retained: InteractionGraph,
        removed: Tensor,
        journal: Journal,
    ) -> dict[str, Any] | None:
        """Correct a model in place, unless the result is ``None``; the journal has the rows that were changed."""
        prepared, emptied = self.prepared, graph.emptied(retained)
        known, noise = prepared.known, prepared.noise
        idle = emptied.clone()  # items that may still be drawn as negatives; a user without interactions has no samples
        idle[: graph.num_users] = False
        losing = graph.degree != retained.degree
        rows = (losing & (~emptied | idle)).nonzero().view(-1)
        if known is None or noise is None or not len(rows):
            return None
        assert prepared.encoded is not None
        assert prepared.diagonal is not None
        later = self.refits and len(neighbours_of_emptied(graph, retained, removed)) == len(rows)
        table = model.get_parameter(known.risk.form.parameter)
        journal.keep(table, losing.nonzero().view(-1))
        touched = warm_start(model, graph, retained, self.seed, scale=self.scale and not later)
        local = Local.of(known, model, graph, retained, removed, rows)
        form = linear_form(model, retained)
        if local is None or form is None:
            return None
        limit = self.share * min(noise, LARGEST)
        movement = Movement(form, prepared.encoded, pairs_near(graph, retained, removed))
        kept = kept_share(graph, retained).to(prepared.diagonal.dtype).unsqueeze(1)
        ridge, cosine = prepared.ridge
        damping = max(self.min_damping, ridge) if self.damping is None else self.damping
        diagonal = prepared.diagonal.view(len(kept), -1)
        iterations, moved = 0, 0.0
        for round in range(_ROUNDS):
            problem, theta = local.problem, local.problem.start
            slope = problem.new.gradient(theta) - local.tilt
            solution = conjugate_gradients(
                problem.product(theta, "gauss-newton"),
                problem.restrict(-slope),
                damping=damping,
                preconditioner=inverse_diagonal(problem, theta, damping),
                tol=_ROUGH if later else _TOLERANCE,
                max_iter=self.max_iter,
            )
            iterations += solution.iterations
            x = solution.x
            product = problem.curved.curvature(theta)(x) + damping * x
            residual = -slope - product
            nodes = problem.nodes
            assert nodes is not None
            left = residual.view(len(nodes), -1) / (diagonal[nodes] * kept[nodes] + max(damping, 1e-6))
            drawn = idle[nodes]
            if bool(drawn.any()):  # the share of interactions kept says nothing of the samples that draw an item
                inner = inverse_diagonal(problem, theta, damping)
                assert inner is not None
                left[drawn] = inner(residual).view_as(left)[drawn]
            if later:
                left[local.rows] = 0
            if known.propagation is not None and known.propagation.reaches(form, retained):
                moved = movement.of_rows(Rows(nodes, left), retained)
            else:
                moved = movement(torch.zeros_like(diagonal).index_copy_(0, nodes, left).flatten())
            if moved <= limit:
                break
            if round + 1 == _ROUNDS:
                return None
            later, rows = False, torch.cat([rows, nodes[_largest(left)]]).unique()
            local = Local.of(known, model, graph, retained, removed, rows)
            if local is None:
                return None
        tilted, trained = Tilted(problem, problem.restrict(local.tilt)), known.risk.table[nodes]
        assert problem.free is not None
        as_before = problem.free.bool() & ~emptied[nodes].repeat_interleave(trained.size(1))
        deleted = torch.where(as_before, trained.flatten(), theta)
        least = min(tilted.value(theta), tilted.value(deleted))
        length = 0.0 if later else tilted.falling(theta, x, least)
        if not length and not later:
            return None
        fall = least - tilted.value(theta + length * x)
        table[nodes] = (theta + length * x).view_as(trained)
        error = float((slope + length * product).norm() / slope.norm()) if float(slope.norm()) else 0.0
        step = {"iterations": iterations, "residual": error, "length": length, "rows": len(rows), "rounds": round + 1}
        log: dict[str, Any] = {"touched_rows": touched, "emptied_nodes": int(emptied.sum())}
        log |= {"ridge": ridge, "ridge_cosine": cosine} if self.damping is None else {}
        if later:
            AROUND[model] = local
        return log | {
            "damping": damping,
            "damping_rule": "ridge" if self.damping is None else "given",
            "tilted_fall": fall / retained.num_interactions,
            "relative_error": error,
            "relative_error_estimated": False,
            "within_noise": {"noise": noise, "limit": limit, "movement": moved, "samples": len(problem.new.samples)},
            "curvature": "gauss-newton",
            "steps": [step],
        }


def _largest(left: Tensor) -> Tensor:
    """Return the rows that hold most of what is left to do."""
    squares = left.double().square().sum(1)
    largest, order = squares.sort(descending=True)
    return order[: int((largest.cumsum(0) < _ADDED * largest.sum()).sum()) + 1]
