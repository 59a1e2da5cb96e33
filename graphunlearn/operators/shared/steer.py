"""Move the scores of chosen pairs to targets, with the least change of all other scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Linearised, PairPattern, conjugate_gradients
from graphunlearn.nn.encoding import Encoded, LinearForm, encode, linear_form
from graphunlearn.nn.tables import initial_table, write_table
from graphunlearn.operators.shared.table_model import TableModel

__all__ = ["own_weight", "steer"]

_PROBES = 32  # number of random sign vectors that a diagonal without a closed form is estimated from


class _Space(ABC):
    r"""The linear map from changes of layer-0 embeddings to changes of final embeddings, and its weighted transpose.

    Let :math:`J` be the derivative of all final embeddings by the layer-0 table, and :math:`W` the weights of the
    nodes.

    Args:
        table: The layer-0 embeddings ``[num_nodes, dim]``; the space changes this tensor or replaces it.
        weight: The weight of a change of the embedding of each node, the diagonal of :math:`W` ``[num_nodes]``.

    Attributes:
        iterations: Largest number of iterations of conjugate gradients.
        rows: The final embeddings ``[num_nodes, final_dim]``.
        gain: The diagonal of :math:`J W^{-1} J^\top` over nodes ``[num_nodes]``, exact or estimated.
        metric: The inverse metric of the columns of the table ``[dim, dim]``; ``None`` if the metric applies to the
            columns of the final embeddings.
    """

    iterations = 8
    rows: Tensor
    gain: Tensor
    metric: Tensor | None = None

    def __init__(self, table: Tensor, weight: Tensor) -> None:
        self.table, self.weight = table, weight.unsqueeze(1)

    @abstractmethod
    def direction(self, wanted: Tensor) -> Tensor:
        r"""Return the change of the table :math:`W^{-1} J^\top x` for a change :math:`x` of the final embeddings."""

    @abstractmethod
    def effect(self, change: Tensor) -> Tensor:
        r"""Return :math:`J\,\Delta`, the change of the final embeddings that a change of the table causes."""

    def response(self, wanted: Tensor) -> Tensor:
        r"""Return :math:`J W^{-1} J^\top x` for a change :math:`x` of the final embeddings."""
        return self.effect(self.direction(wanted))

    def move(self, change: Tensor, effect: Tensor) -> None:
        """Add ``change`` to the table, and ``effect``, its first-order effect, to the final embeddings."""
        self.table += change
        self.rows += effect

    def estimated_gain(self) -> Tensor:
        r"""Return an unbiased estimate of the diagonal of :math:`J W^{-1} J^\top` from random signs ``[num_nodes]``."""
        generator, draws = torch.Generator().manual_seed(0), max(1, _PROBES // self.table.size(1))
        gain = self.table.new_zeros(len(self.table))
        for _ in range(draws):  # each column of a table of signs is one random probe
            signs = torch.randint(2, self.table.shape, generator=generator).to(self.table) * 2 - 1
            gain += self.effect(signs / self.weight.sqrt()).square().mean(1)
        return gain / draws


class _Linear(_Space):
    """The space of a linear form without layer 0: final embeddings change only with those of other nodes."""

    def __init__(self, form: LinearForm, table: Tensor, weight: Tensor, rows: Tensor) -> None:
        super().__init__(table, weight)
        self.form, self.rows = form, rows
        self.gain = self._own_gain()

    def _own_gain(self) -> Tensor:
        return self.estimated_gain()

    def direction(self, wanted: Tensor) -> Tensor:
        return self.form.propagate(wanted) / self.weight

    def effect(self, change: Tensor) -> Tensor:
        return self.form.propagate(change)


class _Local(_Linear):
    r"""The space of a linear form with layer 0: only the embeddings of the users and items of the pairs change.

    The transpose of the propagation :math:`P` is replaced by its diagonal :math:`\partial z_v / \partial e_v = P_{vv}`.
    The effect on neighbours is left out of the dual problem; the next round corrects it.
    """

    iterations = 15

    def _own_gain(self) -> Tensor:
        self.diagonal = own_weight(self.form, self.table)
        return self.diagonal.square() / self.weight.squeeze(1)

    def direction(self, wanted: Tensor) -> Tensor:
        return self.diagonal.unsqueeze(1) / self.weight * wanted

    def response(self, wanted: Tensor) -> Tensor:
        return self.gain.unsqueeze(1) * wanted


class _Differentiable(_Space):
    r"""The space of any other model: :math:`J` is computed by automatic differentiation at the present table.

    Final and layer-0 embeddings may belong to different spaces, so the metric is that of the layer-0 embeddings.
    """

    def __init__(
        self, model: nn.Module, graph: InteractionGraph, table: Tensor, weight: Tensor, metric: Tensor
    ) -> None:
        super().__init__(table, weight)
        self.graph, self.metric, self.model = graph, metric, TableModel(model, graph)
        self._linearise()
        self.gain = self.estimated_gain()

    def _linearise(self) -> None:
        self._at = Linearised(lambda table: (self.model.run(table, self._encoded),), self.table)
        (self.rows,) = self._at.outputs

    def _encoded(self, model: nn.Module) -> Tensor:
        encoded = encode(model, self.graph)
        return torch.cat([encoded.queries, encoded.items])

    def direction(self, wanted: Tensor) -> Tensor:
        assert self.metric is not None
        return self._at.pullback((wanted,)) / self.weight @ self.metric

    def effect(self, change: Tensor) -> Tensor:
        return self._at.pushforward(change)[0]

    def move(self, change: Tensor, effect: Tensor) -> None:
        self.table = self.table + change  # not in place: the linearisation refers to the previous table
        self._linearise()


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
    r"""Change layer-0 embeddings so that the pairs score ``target``, with the least change of all other scores.

    To first order in the changes :math:`\Delta z` of the embeddings, the function solves

    .. math::
        \min_\Delta \sum_v w_v\,\Delta z_v^\top (C + \epsilon \bar c I)\,\Delta z_v \quad\text{such that}\quad
        \langle\Delta z_u, z_i\rangle + \langle z_u, \Delta z_i\rangle = t_{ui} - s_{ui},

    where :math:`C` is the mean of :math:`z z^\top` over users and over items, so that
    :math:`\Delta z_u^\top C \Delta z_u` measures the change of the scores of a user without computing them. The weight
    :math:`w_v` is one plus the degree, so embeddings of nodes with more interactions change less. The dual problem has
    one variable per pair and is solved by conjugate gradients. A line search and several rounds account for the
    propagation and for products of two changes. If final embeddings change only through their neighbours, the
    preconditioner is estimated from random signs; the result then depends on the numbering of the nodes, within the
    tolerance of the solver.

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
        wanted = torch.cat(pattern.both(dual, *images))
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
    """Split a table of all nodes into those of users and items."""
    users, items = rows.split(sizes)
    return users.contiguous(), items.contiguous()


def _metric(rows: Tensor, num_users: int, floor: float) -> Tensor:
    """Return the inverse metric ``[dim, dim]``: the inverse of the mean outer product, over users and over items.

    The mean eigenvalue of the outer product is scaled to 1, and ``floor`` is added to every eigenvalue.
    """
    users, items = rows[:num_users], rows[num_users:]
    mean = 0.5 * (users.t() @ users / len(users) + items.t() @ items / len(items))
    scale = mean.trace() / len(mean)
    identity = torch.eye(len(mean), dtype=rows.dtype, device=rows.device)
    return torch.linalg.inv(mean / scale.clamp(min=torch.finfo(rows.dtype).tiny) + floor * identity)


def own_weight(form: LinearForm, table: Tensor) -> Tensor:
    r"""Return :math:`\alpha_0 + \alpha_2 (\hat A^2)_{vv}`, the diagonal of the propagation to order 3.

    Odd powers of the adjacency of a bipartite graph have a zero diagonal. Higher powers may be neglected, because the
    diagonal only scales steps.

    Args:
        form: The linear form of the model.
        table: The layer-0 embeddings ``[num_nodes, dim]``, which give the number of nodes and the type.

    Returns:
        The diagonal ``[num_nodes]``.
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
    """Solve the dual problem for the multipliers of the pairs ``[num_pairs]`` by conjugate gradients."""
    (users, items), (user_images, item_images) = rows, images
    sizes = [len(users), len(items)]

    def kernel(y: Tensor) -> Tensor:
        wanted = torch.cat(pattern.both(y, user_images, item_images))
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
    r"""Return the step :math:`a` near 1 that minimises :math:`\sum (r - a f - a^2 g)^2`, by Gauss–Newton steps."""
    length = 1.0
    for _ in range(4):
        slope = first + 2 * length * second
        square = float(slope @ slope)
        if square == 0:
            return 1.0
        length += float((residual - length * first - length**2 * second) @ slope) / square
        length = min(max(length, 0.001), 2.0)
    return length
