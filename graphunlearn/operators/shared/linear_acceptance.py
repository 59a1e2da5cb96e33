"""Acceptance for models that propagate one table linearly: no gradient is propagated, and the rows that change are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.nn.encoding import Encoded, LinearForm, linear_form
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.shared.acceptance import Acceptance, Measured
from graphunlearn.operators.shared.trail import Rows, Trail, propagated, trail_of

__all__ = ["LinearAcceptance", "judging_of"]

_GRADIENT = 1 << 20
"""The most entries of a graph for which the gradient of the tilted risk is recorded, though no rule depends on it."""


class Pull(NamedTuple):
    """The gradient of a weighted sum of losses in the rows of some nodes.

    Args:
        nodes: The nodes ``[num]``.
        final: The gradient in their final embeddings ``[num, dim]``.
        own: The gradient in their rows of the table, from the L2 term ``[num, dim]``.
    """

    nodes: Tensor
    final: Tensor
    own: Tensor


@dataclass(frozen=True)
class _Slope:
    """The gradient of the risk at a model, and the way to that model from the one with its edges deleted."""

    pulls: list[Pull]
    final: Tensor
    step: Rows
    along_tilt: float


class LinearAcceptance(Acceptance):
    r"""The rules of :class:`Acceptance` for a model whose table is propagated linearly by the normalised adjacency.

    With :math:`W` the gradient of the risk in the final embeddings, the slope along a step :math:`v` is
    :math:`\langle P'W, v\rangle = \langle W, P'v\rangle`. Since :math:`P'v` is the difference of the final embeddings
    of both models, no gradient is propagated; and since few rows change for a small request, final embeddings follow
    those of the trained model (:class:`~graphunlearn.operators.shared.trail.Trail`). The figures are those of
    :class:`Acceptance`, but the norm of the gradient, which is recorded for graphs with up to half a million
    interactions alone; it decides nothing for methods that do not minimise the tilted risk.

    Args:
        trail: The trail of the trained model.
        form: The linear propagation on the retained graph.
        criterion: The loss that the model was trained with.
        *given: The other arguments of :class:`Acceptance`.
        **options: Its options; ``solves`` must not be true.
    """

    def __init__(self, trail: Trail, form: LinearForm, criterion: Criterion, *given: Any, **options: Any) -> None:
        self.trail, self.form = trail, form
        self._of_trained, self._deleted_final = 0.0, torch.empty(0)
        super().__init__(criterion, *given, **options)

    def _reference(self) -> None:
        found = self.trail.after(self.form, self.retained, self._table(self.deleted))
        assert found is not None
        self._deleted_final = found
        super()._reference()

    criterion: Objective

    def _table(self, model: nn.Module) -> Tensor:
        return model.get_parameter(self.form.parameter).detach()

    def _pull(self, samples: Any, weight: Tensor, final: Tensor, table: Tensor, slopes: bool) -> tuple[Tensor, Any]:
        """Return the losses of samples, and the gradient of their weighted sum."""
        compact, nodes = _compact(samples, self.graph.num_users)
        rows = [final[nodes], table[nodes]]
        with torch.set_grad_enabled(slopes):
            leaves = [part.requires_grad_(slopes) for part in rows]
            sizes = list(compact.size)
            losses: Tensor = self.criterion(Encoded(*leaves[0].split(sizes), *leaves[1].split(sizes)), compact)
            if not slopes:
                return losses.double(), None
            total = (losses * weight.to(losses.dtype)).sum()
            grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        return losses.detach().double(), Pull(nodes, *grads)

    def _tilt(self) -> Any:
        pulls, trail = [], self.trail
        for samples, weight in self._parts_before():
            pulls.append(self._pull(samples, weight, trail.final, trail.table, True)[1])
        emptied = self.graph.emptied(self.retained).nonzero().view(-1)
        gone = Rows(emptied, trail.table[emptied])
        lost = _dot(pulls, propagated(trail.form, self.graph, gone), gone, len(trail.table))
        rows = [(trail.final[pull.nodes], trail.table[pull.nodes]) for pull in pulls]
        self._of_trained = _inner(pulls, *zip(*rows)) - lost if pulls else 0.0
        return pulls

    def _measured(self, model: nn.Module) -> Measured:
        slopes, table = self.tilt is not None, self._table(model)
        step = Rows.changed(self._table(self.deleted), table)
        final = self._deleted_final
        if len(step.nodes):
            final = final.index_add(0, *propagated(self.form, self.retained, step))
        parts = [self._pull(samples, weight, final, table, slopes) for samples, weight in self._parts()]
        sides = self.graph.num_users, self.graph.num_items
        encoded, losses = Encoded(*final.split(sides), *table.split(sides)), [own for own, _ in parts]
        pull = None
        if slopes:
            pull = _Slope([p for _, p in parts], final, step, self._along_tilt(step))
        return Measured(torch.cat([self.weight.new_zeros(0), *losses]), encoded, pull)

    def _along_tilt(self, step: Rows) -> float:
        """Return the inner product of the tilt, which is zero in rows of emptied nodes, and a step."""
        stays = ~self.graph.emptied(self.retained)[step.nodes]
        step = Rows(step.nodes[stays], step.values[stays])
        moved = propagated(self.trail.form, self.graph, step)
        return _dot(self.tilt or [], moved, step, len(self.trail.table))

    def _tilted(self, model: nn.Module, risk: float, pull: Any) -> float | None:
        return None if pull is None else risk - (self._of_trained + pull.along_tilt) / self.number

    def _steepness(self, pull: Any) -> float | None:
        if pull is None or self.graph.adjacency.col.numel() > _GRADIENT:
            return None
        slope = self._whole(pull.pulls, self.form)
        tilt = self._whole(self.tilt or [], self.trail.form)
        tilt[self.graph.emptied(self.retained)] = 0
        return float(((slope - tilt).double().norm()) / self.number)

    def _whole(self, pulls: Iterable[Pull], form: LinearForm) -> Tensor:
        """Return a gradient in the table ``[num_nodes, dim]``."""
        back, own = torch.zeros_like(self.trail.table), torch.zeros_like(self.trail.table)
        for pull in pulls:
            back.index_add_(0, pull.nodes, pull.final)
            own.index_add_(0, pull.nodes, pull.own)
        return form.propagate(back) + own

    def _slopes(self, model: nn.Module, pull: Any) -> tuple[float, float]:
        ends = []
        for at in (self.pull, pull):
            moved = (pull.final[part.nodes] - self.pull.final[part.nodes] for part in at.pulls)
            own = (pull.step.at(part.nodes, len(pull.final)) for part in at.pulls)
            ends.append((_inner(at.pulls, moved, own) - pull.along_tilt) / self.number)
        return ends[0], ends[1]


def judging_of(
    criterion: Criterion,
    before: nn.Module,
    deleted: nn.Module,
    graph: Any,
    retained: Any,
    request: ForgetRequest,
    *,
    solves: bool | None,
    seed: int,
) -> Acceptance:
    """Return what measures corrections of a model, in the way that costs least.

    Args:
        criterion: The loss that the model was trained with.
        before: The trained model.
        deleted: The model with emptied embeddings redrawn.
        graph: The graph before forgetting.
        retained: The retained graph.
        request: The request.
        solves: Whether the method minimises the tilted risk; ``None`` judges without the tilted risk.
        seed: Seed of the sample.
    """
    given = criterion, before, deleted, graph, retained, request
    kind = type(criterion)
    plain = isinstance(criterion, Objective) and (kind.losses, kind.__call__) == (Objective.losses, Objective.__call__)
    if not solves and plain and graph.kind == "interactions":
        trail, form = trail_of(before, graph), linear_form(deleted, retained)
        if trail is not None and trail.reaches(form, retained):
            assert form is not None
            return LinearAcceptance(trail, form, *given, solves=solves, seed=seed)
    return Acceptance(*given, solves=solves, seed=seed)


def _compact(samples: Any, num_users: int) -> tuple[Any, Tensor]:
    """Return samples in a numbering of the nodes that they contain, and these nodes, users first."""
    items = [samples.items, *([] if samples.negatives is None else [samples.negatives])]
    inside = torch.zeros(sum(samples.size), dtype=torch.bool, device=samples.users.device)
    inside[samples.users] = True
    for part in items:
        inside[part.flatten() + num_users] = True
    nodes, number = inside.nonzero().view(-1), torch.cumsum(inside, 0) - 1
    size = int(inside[:num_users].sum())
    own = [number[part + num_users] - size for part in items]
    sides = {"users": number[samples.users], "items": own[0], "negatives": own[1] if len(own) > 1 else None}
    return replace(samples, size=(size, len(nodes) - size), **sides), nodes


def _dot(pulls: Sequence[Pull], moved: Rows, step: Rows, num_nodes: int) -> float:
    """Return the inner product of a gradient and a step, given what the step changes in the final embeddings."""
    final = (moved.at(pull.nodes, num_nodes) for pull in pulls)
    return _inner(pulls, final, (step.at(pull.nodes, num_nodes) for pull in pulls))


def _inner(pulls: Iterable[Pull], final: Iterable[Tensor], own: Iterable[Tensor]) -> float:
    """Return the inner product of a gradient with rows of the final embeddings, and with rows of the table."""
    parts = zip(pulls, final, own)
    return sum(float((p.final.double() * z).sum() + (p.own.double() * e).sum()) for p, z, e in parts)
