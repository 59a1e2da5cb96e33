"""Acceptance for models that propagate one table linearly, at the cost of the embeddings that change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.nn.encoding import Encoded, LinearForm, linear_form
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Objective, Sampled
from graphunlearn.operators.shared.acceptance import Acceptance, Measured
from graphunlearn.operators.shared.levels import Levels
from graphunlearn.operators.shared.propagation import Overlaid, Propagation, Rows, propagated, propagation_of

__all__ = ["LinearAcceptance", "judging_of"]

_GRADIENT = 1 << 20
"""The most entries of a graph for which the gradient of the tilted risk is recorded, though no rule depends on it."""

_ROWS = 1 << 13  # rows that are held in float64 at a time


class Gradient(NamedTuple):
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
class _Ahead:
    """What the slopes along the step to a model follow from.

    Args:
        gradient: The gradient of the risk at the model.
        final: Its final embeddings.
        step: The step from the model with its edges deleted.
        along_tilt: The inner product of the tilt and the step.
    """

    gradient: Gradient
    final: Overlaid
    step: Rows
    along_tilt: float


class LinearAcceptance(Acceptance):
    r"""The rules of :class:`Acceptance` for a model whose table is propagated linearly by the normalised adjacency.

    With :math:`W` the gradient of the risk in the final embeddings, the slope along a step :math:`v` is
    :math:`\langle P'W, v\rangle = \langle W, P'v\rangle`. Since :math:`P'v` is the difference of the final embeddings
    of both models, no gradient is propagated; and since few rows change for a small request, final embeddings follow
    those of the trained model (:class:`~graphunlearn.operators.shared.propagation.Propagation`). The figures are those
    of :class:`Acceptance`, but the norm of the gradient, which is recorded for graphs with up to half a million
    interactions alone; it decides nothing for methods that do not minimise the tilted risk.

    Args:
        propagation: The propagation of the trained model.
        form: The linear propagation on the retained graph.
        *given: What :class:`Acceptance` takes; the loss must not depend on the numbers of users and items.
        **options: Its options; ``solves`` must not be true.
    """

    criterion: Objective

    def __init__(self, propagation: Propagation, form: LinearForm, *given: Any, **options: Any) -> None:
        self.propagation, self.form, self._of_trained = propagation, form, 0.0
        super().__init__(*given, **options)

    @cached_property
    def _deleted_final(self) -> Overlaid:
        """The final embeddings of the model with its edges deleted."""
        found = self.propagation.after(self.form, self.retained, self._table(self.deleted))
        assert found is not None
        return found

    def _table(self, model: nn.Module) -> Tensor:
        return model.get_parameter(self.form.parameter).detach()

    def _losses(
        self, parts: Iterable[tuple[Any, Tensor]], final: Overlaid, table: Tensor, slopes: bool
    ) -> tuple[Tensor, Gradient | None]:
        """Return the losses of samples, and the gradient of their weighted sum."""
        found, total = [self.weight.new_zeros(0)], None
        for samples, weight in parts:
            compact, nodes = _compact(samples, self.graph.num_users)
            rows, sizes = [final.at(nodes), table[nodes]], list(compact.size)
            with torch.set_grad_enabled(slopes):
                rows = [part.requires_grad_(slopes) for part in rows]
                losses: Tensor = self.criterion(Encoded(*rows[0].split(sizes), *rows[1].split(sizes)), compact)
                if slopes:
                    whole = (losses * weight.to(losses.dtype)).sum()
                    more = torch.autograd.grad(whole, rows, allow_unused=True, materialize_grads=True)
                    total = _added(total, Gradient(nodes, *more), len(table))
            found.append(losses.detach().double())
        return torch.cat(found), total

    def _tilt(self) -> Any:
        known = self.propagation
        tilt = self._losses(self._parts_before(), Overlaid(known.final), known.table, True)[1]
        if tilt is None:
            return None
        emptied = self.graph.emptied(self.retained).nonzero().view(-1)
        gone = Rows(emptied, known.table[emptied])
        lost = _dot(tilt, propagated(known.form, self.graph, gone), gone, len(known.table))
        self._of_trained = _inner(tilt, known.final[tilt.nodes], known.table[tilt.nodes]) - lost
        return tilt

    def _measured(self, model: nn.Module) -> Measured:
        slopes, table = self.tilt is not None and self.solves is not None, self._table(model)
        step, final = Rows.changed(self._table(self.deleted), table), self._deleted_final
        if len(step.nodes):
            final = final.changed(propagated(self.form, self.retained, step))
        losses, gradient = self._losses(self._parts(), final, table, slopes)
        ahead = None if gradient is None else _Ahead(gradient, final, step, self._along_tilt(step))
        return Measured(losses, final, ahead)

    def _levels(self, model: nn.Module, encoded: Any) -> Levels | None:
        if not isinstance(self.criterion, Sampled):
            return None
        items = torch.cat([self.pairs[1], self.unseen[1]]).unique()
        users = self.pairs[0].unique()
        rows = Encoded(encoded.at(users), encoded.at(items + self.graph.num_users))
        kept, unseen = (
            torch.stack([torch.searchsorted(ids, own) for ids, own in zip((users, items), pairs)])
            for pairs in (self.pairs, self.unseen)
        )
        return Levels.of(model, self.retained, kept, self.weight, unseen, encoded=rows)

    def _along_tilt(self, step: Rows) -> float:
        """Return the inner product of the tilt, which is zero in rows of emptied nodes, and a step."""
        assert self.tilt is not None
        stays = ~self.graph.emptied(self.retained)[step.nodes]
        step = Rows(step.nodes[stays], step.values[stays])
        moved = propagated(self.propagation.form, self.graph, step)
        return _dot(self.tilt, moved, step, len(self.propagation.table))

    def _tilted(self, model: nn.Module, risk: float, slope: Any) -> float | None:
        return None if slope is None else risk - (self._of_trained + slope.along_tilt) / self.number

    def _steepness(self, slope: Any) -> float | None:
        if slope is None or self.tilt is None or self.graph.adjacency.col.numel() > _GRADIENT:
            return None
        own, tilt = self._whole(slope.gradient, self.form), self._whole(self.tilt, self.propagation.form)
        tilt[self.graph.emptied(self.retained)] = 0
        return float((own - tilt).double().norm() / self.number)

    def _whole(self, gradient: Gradient, form: LinearForm) -> Tensor:
        """Return a gradient in the table ``[num_nodes, dim]``."""
        rows = (Rows(gradient.nodes, part) for part in gradient[1:])
        zeros = torch.zeros_like(self.propagation.table)
        back, own = (zeros.index_copy(0, *part) for part in rows)
        return form.propagate(back) + own

    def _slopes(self, model: nn.Module, slope: Any) -> tuple[float, float]:
        ends = []
        for at in (self.slope, slope):
            nodes = at.gradient.nodes
            moved = slope.final.at(nodes) - self.slope.final.at(nodes)
            own = slope.step.at(nodes, self.graph.num_nodes)
            ends.append((_inner(at.gradient, moved, own) - slope.along_tilt) / self.number)
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
    if not solves and _numbers_anew(criterion) and graph.kind == "interactions":
        propagation, form = propagation_of(before, graph), linear_form(deleted, retained)
        if propagation is not None and propagation.reaches(form, retained):
            assert form is not None
            return LinearAcceptance(propagation, form, *given, solves=solves, seed=seed)
    return Acceptance(*given, solves=solves, seed=seed)


def _numbers_anew(criterion: Criterion) -> bool:
    """Return whether a loss depends on scores, layer-0 embeddings and targets alone, as those of this package do."""
    kind = type(criterion)
    names = ("losses", "__call__", "loss", "margins", "phi")
    return isinstance(criterion, Objective) and all(
        getattr(kind, name).__module__.startswith("graphunlearn.nn.training.") for name in names
    )


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


def _added(total: Gradient | None, more: Gradient, num_nodes: int) -> Gradient:
    """Return the sum of two gradients, in all nodes, so that memory does not grow with the number of terms."""
    if total is None:
        return more
    if len(total.nodes) < num_nodes:
        every = torch.arange(num_nodes, device=total.nodes.device)
        zeros = total.final.new_zeros(num_nodes, total.final.size(1))
        total = Gradient(every, *(zeros.index_copy(0, total.nodes, part) for part in total[1:]))
    for sums, part in zip(total[1:], more[1:]):
        sums.index_add_(0, more.nodes, part)
    return total


def _dot(gradient: Gradient, moved: Rows, step: Rows, num_nodes: int) -> float:
    """Return the inner product of a gradient and a step, given what the step changes in the final embeddings."""
    return _inner(gradient, *(rows.at(gradient.nodes, num_nodes) for rows in (moved, step)))


def _inner(gradient: Gradient, final: Tensor, own: Tensor) -> float:
    """Return the inner product of a gradient with rows of the final embeddings, and with rows of the table."""
    total = 0.0
    for part, other in ((gradient.final, final), (gradient.own, own)):
        for a, b in zip(part.split(_ROWS), other.split(_ROWS)):
            total += float(a.double().flatten() @ b.double().flatten())
    return total
