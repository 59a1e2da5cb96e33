"""Move the scores of chosen pairs to targets, with the least change of all other scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Linearised, PairPattern, conjugate_gradients
from graphunlearn.nn.encoding import Encoded, LinearForm, encode, linear_form
from graphunlearn.nn.tables import initial_table, table_names, write_table

__all__ = ["steer"]

_PROBES = 32  # random sign vectors that estimate the diagonal of the kernel if it has no closed form


class _Space(ABC):
    """The possible changes of the layer-0 rows, and their effect on the final rows.

    Args:
        table: The layer-0 rows ``[num_nodes, dim]``.
        weight: The cost of a change of each row ``[num_nodes]``.
    """

    iterations = 8
    rows: Tensor  # the final rows [num_nodes, dim of a final row]
    gain: Tensor  # how much of a wanted change a row's own response gives [num_nodes]
    metric: Tensor | None = None  # of the table's columns, where it is not that of the final rows

    def __init__(self, table: Tensor, weight: Tensor) -> None:
        self.table, self.weight = table, weight.unsqueeze(1)

    @abstractmethod
    def direction(self, wanted: Tensor) -> Tensor:
        """Return the change of the table towards a wanted change of the final rows."""

    @abstractmethod
    def effect(self, change: Tensor) -> Tensor:
        """Return what a change of the table does to the final rows, to first order."""

    def response(self, wanted: Tensor) -> Tensor:
        """Return what the final rows do when a change of them is wanted."""
        return self.effect(self.direction(wanted))

    def move(self, change: Tensor, effect: Tensor) -> None:
        """Make a change."""
        self.table += change
        self.rows += effect

    def estimated_gain(self) -> Tensor:
        """Return the mean response of a row to random signs, which is its own part of the response."""
        generator, turns = torch.Generator().manual_seed(0), max(1, _PROBES // self.table.size(1))
        gain = self.table.new_zeros(len(self.table))
        for _ in range(turns):  # every column of a random table is a probe of its own
            signs = torch.randint(2, self.table.shape, generator=generator).to(self.table) * 2 - 1
            gain += self.effect(signs / self.weight.sqrt()).square().mean(1)
        return gain / turns


class _Local(_Space):
    r"""A linear form that keeps layer 0: only the rows at the ends of the pairs move.

    :math:`\partial z_v / \partial e_v = P_{vv}` carries a wanted change of :math:`z_v` to :math:`e_v`; what it does to
    the neighbours is what the next round sees.
    """

    iterations = 15

    def __init__(self, form: LinearForm, table: Tensor, weight: Tensor, rows: Tensor) -> None:
        super().__init__(table, weight)
        self.form, self.rows = form, rows
        own = _diagonal(form, table)
        self.gain, self.carried = own.square() / weight, own.unsqueeze(1) / self.weight

    def direction(self, wanted: Tensor) -> Tensor:
        return self.carried * wanted

    def effect(self, change: Tensor) -> Tensor:
        return self.form.propagate(change)

    def response(self, wanted: Tensor) -> Tensor:
        return self.gain.unsqueeze(1) * wanted


class _Linear(_Space):
    """A linear form without layer 0: rows move through those of their neighbours."""

    def __init__(self, form: LinearForm, table: Tensor, weight: Tensor, rows: Tensor) -> None:
        super().__init__(table, weight)
        self.form, self.rows = form, rows
        self.gain = self.estimated_gain()

    def direction(self, wanted: Tensor) -> Tensor:
        return self.form.propagate(wanted) / self.weight

    def effect(self, change: Tensor) -> Tensor:
        return self.form.propagate(change)


class _Differentiable(_Space):
    r"""Any other model: rows move along :math:`W^{-1} J^\top`, within reach of the pairs' ends.

    :math:`J` is the derivative of all final rows by the layer-0 table at the present table. Final and layer-0 rows need
    not be of one space, so that the metric is that of the layer-0 rows.
    """

    def __init__(
        self, model: nn.Module, graph: InteractionGraph, table: Tensor, weight: Tensor, metric: Tensor
    ) -> None:
        super().__init__(table, weight)
        self.model, self.graph, self.metric, self.names = model, graph, metric, table_names(model, graph)
        self.sizes = [len(model.get_parameter(name)) for name in self.names]
        self._linearise()
        self.gain = self.estimated_gain()

    def _encoded(self, table: Tensor) -> Tensor:
        parts = dict(zip((f"model.{name}" for name in self.names), table.split(self.sizes), strict=True))
        rows: Tensor = torch.func.functional_call(_Rows(self.model), parts, (self.graph,))
        return rows

    def _linearise(self) -> None:
        self._at = Linearised(lambda table: (self._encoded(table),), self.table)
        (self.rows,) = self._at.outputs

    def direction(self, wanted: Tensor) -> Tensor:
        assert self.metric is not None
        return self._at.pullback((wanted,)) / self.weight @ self.metric

    def effect(self, change: Tensor) -> Tensor:
        return self._at.pushforward(change)[0]

    def move(self, change: Tensor, effect: Tensor) -> None:
        self.table = self.table + change  # not in place: the derivatives at hand hold on to the old one
        self._linearise()


class _Rows(nn.Module):
    """Gives ``torch.func.functional_call`` a forward that is ``encode``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: InteractionGraph) -> Tensor:
        encoded = encode(self.model, graph)
        return torch.cat([encoded.queries, encoded.items])


@torch.no_grad()
def steer(
    model: nn.Module,
    graph: InteractionGraph,
    pairs: Tensor,
    target: Tensor,
    *,
    encoded: Encoded | None = None,
    rounds: int = 2,
    floor: float = 0.3,
    damping: float = 0.01,
) -> dict[str, Any]:
    r"""Change the layer-0 rows of ``model`` so that ``pairs`` score ``target``, with the least change of other scores.

    To first order in the changes :math:`\Delta z` of the rows, the function solves

    .. math::
        \min_\Delta \sum_v w_v\,\Delta z_v^\top (C + \epsilon \bar c I)\,\Delta z_v \quad\text{such that}\quad
        \langle\Delta z_u, z_i\rangle + \langle z_u, \Delta z_i\rangle = t_{ui} - s_{ui},

    where :math:`C` is the mean of :math:`z z^\top` over users and over items, so that
    :math:`\Delta z_u^\top C \Delta z_u` measures the change of the scores of a user without computing them. The weight
    :math:`w_v` is one plus the degree, so nodes with more interactions move less. The dual problem has one variable per
    pair and is solved by conjugate gradients. A line search and several rounds account for the propagation and for
    products of two changes. If rows change through their neighbours, the preconditioner is estimated from random signs;
    the result then depends on the numbering of the nodes, within the tolerance of the solver.

    Args:
        model: The model; it is changed in place.
        graph: The graph to propagate on.
        pairs: The pairs ``[2, num_pairs]``.
        target: Their target scores ``[num_pairs]``.
        encoded: ``encode(model, graph)``, if already computed.
        rounds: Number of steps.
        floor: The constant :math:`\epsilon`, relative to the mean eigenvalue :math:`\bar c`.
        damping: Damping of the dual problem, relative to its mean diagonal; contradictory pairs require it.

    Returns:
        The mean absolute error of the scores before every round and at the end, and the lengths of the steps.

    Raises:
        ValueError: The initial embeddings of the model are not accessible.
    """
    table = initial_table(model, graph)
    if pairs.size(1) == 0:
        return {"errors": [], "lengths": []}
    weight = 1.0 + graph.adjacency.degree.to(table.dtype)
    form = linear_form(model, graph)
    space: _Space
    if form is None:
        space = _Differentiable(model, graph, table, weight, _metric(table, graph.num_users, floor))
    else:
        encoded = encode(model, graph) if encoded is None else encoded
        rows_now = torch.cat([encoded.queries, encoded.items])
        space = (_Local if form.alpha[0] > 0 else _Linear)(form, table, weight, rows_now)
    pattern = PairPattern(pairs[0], pairs[1], (graph.num_users, graph.num_items))
    sizes = [graph.num_users, graph.num_items]
    image = None if space.metric is not None else _metric(space.rows, graph.num_users, floor)
    errors, lengths = [], []
    for _ in range(rounds):
        rows = _two(space.rows, sizes)
        images = rows if image is None else _two(space.rows @ image, sizes)
        residual = target - pattern.dots(*rows)
        errors.append(float(residual.abs().mean()))
        dual = _dual(pattern, rows, images, space, residual, damping)
        wanted = torch.cat([pattern.matmul(dual, images[1]), pattern.transposed.matmul(dual, images[0])])
        change = space.direction(wanted)
        effect = space.effect(change)
        moved = _two(effect, sizes)
        first = pattern.dots(moved[0], rows[1]) + pattern.dots(rows[0], moved[1])
        lengths.append(_length(residual, first, pattern.dots(*moved)))
        space.move(lengths[-1] * change, lengths[-1] * effect)
    errors.append(float((target - pattern.dots(*_two(space.rows, sizes))).abs().mean()))
    write_table(model, graph, space.table)
    return {"errors": errors, "lengths": lengths}


def _two(rows: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    users, items = rows.split(sizes)
    return users.contiguous(), items.contiguous()


def _metric(rows: Tensor, num_users: int, floor: float) -> Tensor:
    """Return the inverse of the mean outer product of users' and of items' rows, lifted by ``floor``."""
    users, items = rows[:num_users], rows[num_users:]
    mean = 0.5 * (users.t() @ users / len(users) + items.t() @ items / len(items))
    scale = mean.trace() / len(mean)
    identity = torch.eye(len(mean), dtype=rows.dtype, device=rows.device)
    return torch.linalg.inv(mean / scale.clamp(min=torch.finfo(rows.dtype).tiny) + floor * identity)


def _diagonal(form: LinearForm, table: Tensor) -> Tensor:
    r"""Return :math:`\alpha_0 + \alpha_2 (\hat A^2)_{vv}`: odd powers of a bipartite graph have no diagonal.

    Powers above the third are left out: it scales steps, whose effect is measured.
    """
    diagonal = table.new_full((len(table),), form.alpha[0])
    if form.matrix is not None and len(form.alpha) > 2:
        start = form.matrix.crow_indices()
        squares = torch.cumsum(form.matrix.values().square().double(), 0)
        squares = torch.cat([squares.new_zeros(1), squares])[start.long()].diff()
        diagonal += form.alpha[2] * squares.to(table.dtype)
    return diagonal


def _dual(
    pattern: PairPattern,
    rows: tuple[Tensor, Tensor],
    images: tuple[Tensor, Tensor],
    space: _Space,
    residual: Tensor,
    damping: float,
) -> Tensor:
    """Return the multipliers of the pairs ``[num_pairs]`` by conjugate gradients."""
    (users, items), (user_images, item_images) = rows, images
    sizes = [len(users), len(items)]

    def kernel(y: Tensor) -> Tensor:
        wanted = torch.cat([pattern.matmul(y, item_images), pattern.transposed.matmul(y, user_images)])
        to_users, to_items = _two(space.response(wanted), sizes)
        return pattern.dots(to_users, items) + pattern.dots(users, to_items)

    (u, i), gain = (pattern.rows, pattern.cols), space.gain.split(sizes)
    diagonal = gain[0][u] * (items * item_images).sum(1)[i] + gain[1][i] * (users * user_images).sum(1)[u]
    ridge = float(damping * diagonal.mean())
    inverse = (diagonal + ridge).clamp(min=torch.finfo(diagonal.dtype).tiny).reciprocal()
    return conjugate_gradients(
        kernel, residual, damping=ridge, preconditioner=lambda r: inverse * r, tol=0.05, max_iter=space.iterations
    ).x


def _length(residual: Tensor, first: Tensor, second: Tensor) -> float:
    r"""Return :math:`a` that minimises :math:`\sum (r - a f - a^2 g)^2` near 1, by Gauss–Newton steps."""
    length = 1.0
    for _ in range(4):
        slope = first + 2 * length * second
        square = float(slope @ slope)
        if square == 0:
            return 1.0
        length += float((residual - length * first - length**2 * second) @ slope) / square
        length = min(max(length, 0.001), 2.0)
    return length
