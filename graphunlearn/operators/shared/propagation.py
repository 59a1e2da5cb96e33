r"""Propagated embeddings that follow changes of some embeddings and edges, at the cost of what changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Adjacency
from graphunlearn.nn.encoding import LinearForm, linear_form

__all__ = [
    "GraphState",
    "Overlaid",
    "Propagation",
    "Rows",
    "propagated",
    "propagated_at",
    "propagation_of",
    "same",
    "spread",
]

_DENSE = 0.03
"""The share of the entries of the matrix above which whole tables are propagated; an entry costs more in parts."""
_LOOKED_AT = 0.25
"""The share of the entries of the matrix above which rows of a product are not gathered one by one."""
_BLOCK = 1 << 12  # rows that are compared at once
_CHUNK = 1 << 18  # entries whose rows are gathered at a time


class Rows(NamedTuple):
    """The rows of a table that is zero in all other rows.

    Args:
        nodes: The numbers of the rows, ascending ``[num]``.
        values: The rows ``[num, dim]``.
    """

    nodes: Tensor
    values: Tensor

    def at(self, nodes: Tensor, num_nodes: int) -> Tensor:
        """Return some rows of the table ``[len(nodes), dim]``.

        Args:
            nodes: The numbers of the rows.
            num_nodes: Number of rows of the table.
        """
        if len(self.nodes) == num_nodes:
            return self.values[nodes]
        if not len(self.nodes):
            return self.values.new_zeros(len(nodes), self.values.size(1))
        place = torch.searchsorted(self.nodes, nodes).clamp_(max=len(self.nodes) - 1)
        return self.values[place] * (self.nodes[place] == nodes).unsqueeze(1)

    @classmethod
    def changed(cls, before: Tensor, after: Tensor) -> Rows:
        """Return by how much the rows of a table have changed.

        Args:
            before: The table before ``[num_nodes, dim]``.
            after: The table after ``[num_nodes, dim]``.
        """
        found = [torch.arange(0, device=after.device)]
        for start, (old, new) in enumerate(zip(before.split(_BLOCK), after.split(_BLOCK))):
            if not torch.equal(old, new):  # which is several times as fast as comparing element by element
                found.append((old != new).any(1).nonzero().view(-1) + start * _BLOCK)
        nodes = torch.cat(found)
        return cls(nodes, after[nodes] - before[nodes])


class Overlaid(NamedTuple):
    """A table with changes of some rows, which are added when rows are asked for.

    Args:
        table: The table before the changes ``[num_nodes, dim]``.
        changes: The changes, one after another.
    """

    table: Tensor
    changes: tuple[Rows, ...] = ()

    def at(self, nodes: Tensor) -> Tensor:
        """Return some rows of the changed table ``[len(nodes), dim]``.

        Args:
            nodes: The numbers of the rows.
        """
        found = self.table[nodes]
        for change in self.changes:
            place = torch.searchsorted(change.nodes, nodes).clamp_(max=len(change.nodes) - 1)
            inside = (change.nodes[place] == nodes).nonzero().view(-1)
            found.index_add_(0, inside, change.values[place[inside]])
        return found

    def changed(self, change: Rows) -> Overlaid:
        """Return the table with one more change.

        Args:
            change: The change.
        """
        return Overlaid(self.table, (*self.changes, change)) if len(change.nodes) else self


@dataclass(frozen=True)
class Propagation:
    r"""A table :math:`E`, its final embeddings :math:`Z = \sum_l \alpha_l \hat A^l E`, and what is between them.

    The final embeddings are sums by Horner's scheme, :math:`o_L = \alpha_L E` and
    :math:`o_l = \hat A o_{l+1} + \alpha_l E`, with :math:`Z = o_0`. If some rows of :math:`E` change by :math:`\Delta`
    and the matrix becomes :math:`\hat A'`, the sums change by

    .. math:: \delta_L = \alpha_L\Delta, \qquad
        \delta_l = \hat A'\delta_{l+1} + (\hat A' - \hat A)\,o_{l+1} + \alpha_l\Delta,

    exactly. The normalised adjacency changes in the rows and columns of nodes that lose edges alone, so that the cost
    is that of the entries around what changes. If these are more than 3 % of all, whole tables are propagated.

    Args:
        form: The linear propagation of the table.
        adjacency: The adjacency of the graph.
        table: The table :math:`E` ``[num_nodes, dim]``.
        sums: The sums :math:`o_{L-1}, \dots, o_1`.
        final: The final embeddings :math:`Z`, users first ``[num_nodes, dim]``.
    """

    form: LinearForm
    adjacency: Adjacency
    table: Tensor
    sums: tuple[Tensor, ...]
    final: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, form: LinearForm, graph: InteractionGraph, table: Tensor) -> Propagation | None:
        """Return the propagation of a table; ``None`` if it is not propagated by the normalised adjacency.

        Args:
            form: The linear propagation of the table.
            graph: The graph to propagate on.
            table: The table ``[num_nodes, dim]``.
        """
        if not _plain(form, graph):
            return None
        if form.matrix is None:
            return cls(form, graph.adjacency, table, (), form.propagate(table))
        first, *sums = form.sums(table)
        final = sums.pop() if sums else first
        return cls(form, graph.adjacency, table, tuple(sums), final)

    def reaches(self, form: LinearForm | None, graph: InteractionGraph) -> bool:
        """Return whether a table is propagated in the same way on another graph.

        Args:
            form: The linear propagation on that graph.
            graph: The graph.
        """
        own = self.form
        if form is None or (form.parameter, form.alpha) != (own.parameter, own.alpha):
            return False
        return (form.matrix is None) == (own.matrix is None) and _plain(form, graph)

    @torch.no_grad()
    def after(self, form: LinearForm | None, graph: InteractionGraph, table: Tensor) -> Overlaid | None:
        """Return the final embeddings of a changed table on a graph that has lost edges.

        Args:
            form: The linear propagation on that graph.
            graph: The graph with the same nodes and a part of the edges; other edges are not noticed.
            table: The changed table ``[num_nodes, dim]``.

        Returns:
            The final embeddings; ``None`` if the propagation is another one.
        """
        if form is None or not self.reaches(form, graph):
            return None
        delta = self._after(form, graph, Rows.changed(self.table, table))
        if delta is None:
            return Overlaid(form.propagate(table))
        return Overlaid(self.final).changed(delta)

    def _after(self, form: LinearForm, graph: InteractionGraph, changed: Rows) -> Rows | None:
        """Return by how much the final embeddings change; ``None`` if it is better to propagate the whole table."""
        if form.matrix is None or self.form.matrix is None:
            return Rows(changed.nodes, form.alpha[0] * changed.values)
        now, left = graph.adjacency, _DENSE * self.adjacency.col.numel()
        lost = (self.adjacency.degree != now.degree).nonzero().view(-1)
        around = int(self.adjacency.degree[lost].sum() + now.degree[lost].sum())
        if around > left:
            return None
        sides = (_entries(self.adjacency, self.form.matrix, lost), -1.0), (_entries(now, form.matrix, lost), 1.0)
        delta = Rows(changed.nodes, form.alpha[-1] * changed.values)
        before = ((self.table, form.alpha[-1]), *((part, 1.0) for part in self.sums))
        for weight, old in zip(reversed(form.alpha[:-1]), before):
            left -= around + int(now.degree[delta.nodes].sum())
            if left < 0:
                return None
            terms = [_product(now, form.matrix, delta), _Terms.of(changed, weight)]
            for (row, col, value), sign in sides:
                other = ~_among(col, lost, now.num_nodes)  # an entry between two of these nodes is in the row of each
                terms.append(_Terms(row, col, sign * value, *old))
                terms.append(_Terms(col[other], row[other], sign * value[other], *old))
            delta = _summed(terms, now.num_nodes)
        return delta


@torch.no_grad()
def propagated(form: LinearForm, graph: InteractionGraph, rows: Rows) -> Rows:
    """Return the propagated table of some rows.

    Args:
        form: The linear propagation, by the normalised adjacency of the graph.
        graph: The graph.
        rows: The rows; the table is zero elsewhere.
    """
    found = spread(form, graph, rows)
    if found is None:
        table = rows.values.new_zeros(graph.num_nodes, rows.values.size(1)).index_copy_(0, *rows)
        found = Rows(torch.arange(len(table), device=table.device), form.propagate(table))
    return found


@torch.no_grad()
def spread(form: LinearForm, graph: InteractionGraph, rows: Rows) -> Rows | None:
    """Return the propagated table of some rows, at the cost of the entries that they reach; ``None`` if it is high.

    Args:
        form: The linear propagation, by the normalised adjacency of the graph.
        graph: The graph.
        rows: The rows; the table is zero elsewhere.
    """
    if form.matrix is None or not len(rows.nodes):
        return Rows(rows.nodes, form.alpha[0] * rows.values)
    adjacency = graph.adjacency
    out, left = Rows(rows.nodes, form.alpha[-1] * rows.values), _DENSE * adjacency.col.numel()
    for weight in reversed(form.alpha[:-1]):
        left -= int(adjacency.degree[out.nodes].sum())
        if left < 0:
            return None
        out = _summed([_product(adjacency, form.matrix, out), _Terms.of(rows, weight)], adjacency.num_nodes)
    return out


@torch.no_grad()
def propagated_at(form: LinearForm, graph: InteractionGraph, rows: Rows, nodes: Tensor) -> Rows | None:
    r"""Return some rows of the propagated table of some rows, at the cost of the entries around what is asked for.

    By Horner's scheme (:class:`Propagation`), :math:`o_0` in ``nodes`` follows from :math:`o_1` in their neighbours,
    and so on to :math:`o_L = \alpha_L x`, which is zero outside of ``rows``.

    Args:
        form: The linear propagation, by the normalised adjacency of the graph.
        graph: The graph.
        rows: The rows :math:`x`; the table is zero elsewhere.
        nodes: The rows that are asked for, ascending ``[num]``.

    Returns:
        The rows ``[num, dim]``; ``None`` if more than a quarter of the entries of the matrix would be looked at.
    """
    if form.matrix is None or len(form.alpha) == 1:
        return Rows(nodes, form.alpha[0] * rows.at(nodes, graph.num_nodes))
    adjacency, asked = graph.adjacency, [nodes]
    left = _LOOKED_AT * adjacency.col.numel()
    for _ in form.alpha[1:]:
        left -= int(adjacency.degree[asked[-1]].sum())
        if left < 0:
            return None
        if len(asked) < len(form.alpha) - 1:
            near = torch.zeros(adjacency.num_nodes, dtype=torch.bool, device=nodes.device)
            near[adjacency.neighbors(asked[-1])] = True
            asked.append(near.nonzero().view(-1))
    out = Rows(rows.nodes, form.alpha[-1] * rows.values)
    for weight, wanted in zip(reversed(form.alpha[:-1]), reversed(asked)):
        out = Rows(wanted, _gathered(adjacency, form.matrix, out, wanted) + weight * rows.at(wanted, graph.num_nodes))
    return out


def _gathered(adjacency: Adjacency, matrix: Tensor, x: Rows, wanted: Tensor) -> Tensor:
    """Return some rows of the product of a matrix with some rows ``[len(wanted), dim]``."""
    place = adjacency.entries(wanted)
    number = torch.full((adjacency.num_nodes,), -1, dtype=torch.int32, device=wanted.device)
    number[x.nodes] = torch.arange(len(x.nodes), dtype=torch.int32, device=wanted.device)
    source = number.index_select(0, adjacency.col.index_select(0, place))
    own = torch.arange(len(wanted), device=wanted.device).repeat_interleave(adjacency.degree[wanted].long())
    hit = source >= 0
    terms = own[hit], source[hit].long(), matrix.values().index_select(0, place)[hit]
    found = x.values.new_zeros(len(wanted), x.values.size(1))
    for target, row, weight in zip(*(column.split(_CHUNK) for column in terms)):
        found.index_add_(0, target, x.values[row] * weight.unsqueeze(1))
    return found


class _Terms(NamedTuple):
    """Terms of a sum by node: rows of a table times a factor and weights, and the nodes that they are added to."""

    target: Tensor
    source: Tensor
    weight: Tensor
    table: Tensor
    factor: float = 1.0

    @classmethod
    def of(cls, rows: Rows, weight: float) -> _Terms:
        """Return the terms of some rows with one weight."""
        own = torch.arange(len(rows.nodes), device=rows.nodes.device)
        return cls(rows.nodes, own, torch.full_like(own, weight, dtype=rows.values.dtype), rows.values)


def _plain(form: LinearForm, graph: InteractionGraph) -> bool:
    """Return whether the matrix of a form is the normalised adjacency of a graph, or no layer propagates."""
    matrix = form.matrix
    return matrix is None or matrix is graph.adjacency.normalized(matrix.dtype)


def _entries(adjacency: Adjacency, matrix: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and value of the entries in some rows."""
    place = adjacency.entries(rows)
    return rows.repeat_interleave(adjacency.degree[rows].long()), adjacency.col[place].long(), matrix.values()[place]


def _product(adjacency: Adjacency, matrix: Tensor, x: Rows) -> _Terms:
    """Return the terms of the product of a symmetric matrix with some rows."""
    place = adjacency.entries(x.nodes)
    own = torch.arange(len(x.nodes), device=place.device).repeat_interleave(adjacency.degree[x.nodes].long())
    return _Terms(adjacency.col[place].long(), own, matrix.values()[place], x.values)


def _among(nodes: Tensor, chosen: Tensor, num_nodes: int) -> Tensor:
    """Return a mask of the nodes that are among chosen ones."""
    mask = torch.zeros(num_nodes, dtype=torch.bool, device=nodes.device)
    mask[chosen] = True
    return mask[nodes]


def _summed(terms: list[_Terms], num_nodes: int) -> Rows:
    """Return the sums of terms by node."""
    inside = torch.zeros(num_nodes, dtype=torch.bool, device=terms[0].target.device)
    for part in terms:
        inside[part.target] = True
    nodes, number = inside.nonzero().view(-1), torch.cumsum(inside, 0) - 1
    values = terms[0].table.new_zeros(len(nodes), terms[0].table.size(1))
    for part in terms:
        for target, source, weight in zip(*(column.split(_CHUNK) for column in part[:3])):
            values.index_add_(0, number[target], part.factor * part.table[source] * weight.unsqueeze(1))
    return Rows(nodes, values)


_KEPT = WeakTensorKeyDictionary()  # by the pairs of the graph: the latest propagation of a model trained on it


@torch.no_grad()
def propagation_of(model: nn.Module, graph: InteractionGraph) -> Propagation | None:
    """Return the propagation of a trained model; it is computed once per graph and table.

    Args:
        model: The trained model.
        graph: The graph that it was trained on.

    Returns:
        The :class:`Propagation`; ``None`` if the model does not propagate one table linearly, or has other trainable
        parameters.
    """
    form = linear_form(model, graph)
    if form is None or [name for name, p in model.named_parameters() if p.requires_grad] != [form.parameter]:
        return None
    table, state = model.get_parameter(form.parameter).detach(), GraphState.of(graph)
    kept: tuple[GraphState, Propagation] | None = _KEPT.get(graph.pairs)
    if kept is not None and kept[0].holds(graph):
        own = kept[1].form
        alike = (own.parameter, own.alpha) == (form.parameter, form.alpha) and own.matrix is form.matrix
        if alike and same(kept[1].table, table):
            return kept[1]
    with torch.inference_mode(False):  # what is kept must be usable outside of it
        propagation = Propagation.of(form, graph, table.clone())
    if propagation is not None and state is not None:
        _KEPT[graph.pairs] = state, propagation
    return propagation


@dataclass(frozen=True)
class GraphState:
    """What tells whether a graph has changed; its pairs are not held, so that a graph is freed with what is known."""

    numbers: tuple[int, ...]
    values: tuple[Tensor | None, Tensor | None]

    @classmethod
    def of(cls, graph: InteractionGraph) -> GraphState | None:
        """Return the state of a graph; ``None`` if changes of its tensors are not known."""
        values = graph.label, graph.rating
        tensors = [t for t in (graph.pairs, *values) if t is not None]
        if any(t.is_inference() for t in tensors):
            return None
        versions = (number for t in tensors for number in (t.data_ptr(), t._version))
        return cls((graph.num_users, graph.num_items, *versions), values)

    def holds(self, graph: InteractionGraph) -> bool:
        """Return whether a graph with the same pairs has not changed."""
        now = GraphState.of(graph)
        equal = now is not None and now.numbers == self.numbers
        return equal and now is not None and all(a is b for a, b in zip(self.values, now.values))


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors have the same type, device and values."""
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
