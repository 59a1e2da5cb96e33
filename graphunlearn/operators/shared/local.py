r"""The tilted risk around a small request: the samples that some embeddings occur in, at the cost of these samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data import InteractionGraph
from graphunlearn.func import Adjacency, csr
from graphunlearn.func.compressed import ranges
from graphunlearn.nn.encoding import Encoded, LinearForm, linear_form
from graphunlearn.nn.risk import LinearRisk
from graphunlearn.nn.training.objective import Objective, Samples
from graphunlearn.operators.shared.propagation import GraphState, Overlaid, Propagation, propagation_of, same
from graphunlearn.operators.shared.ridge import Ridges
from graphunlearn.operators.shared.right_hand_side import Problem

__all__ = ["Known", "Local", "known_of"]

SMALL = 0.25
"""The largest share of all samples that a request may concern, so that working on them alone is worthwhile."""
_LOSSES = 2  # most losses that are remembered for a graph


@dataclass(frozen=True)
class Known:
    r"""What determines the gradient of the training risk of a trained model, whatever is forgotten.

    Args:
        risk: The training risk at the trained table, with the samples of all interactions sorted by user.
        order: The interaction of every sample (int32) ``[num_samples]``; ``None`` where the interactions are sorted by
            user, so that every sample is that of the one in its place.
        encoded: The final embeddings.
        back: The gradient in the final embeddings ``[num_nodes, dim]``.
        gradient: The gradient in the table ``[num_nodes, dim]``.
        propagation: How the table is propagated, if that is by the normalised adjacency.
        ridges: The ridges that are equivalent to early stopping.
    """

    risk: LinearRisk
    order: Tensor | None
    encoded: Encoded
    back: Tensor
    gradient: Tensor
    propagation: Propagation | None
    ridges: Ridges

    @cached_property
    def samples(self) -> Samples:
        """The samples in the order of the interactions, with ids of 32 bits; made when they are asked for."""
        if self.order is None:
            return self.risk.samples
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(place), dtype=place.dtype, device=place.device)
        return self.risk.samples.narrow(place)

    def interactions_of(self, samples: Tensor) -> Tensor:
        """Return the interactions of samples, given by their positions ``[num]``."""
        return samples if self.order is None else self.order[samples].long()

    def samples_of(self, interactions: Tensor, users: Tensor) -> Tensor:
        """Return the positions of the samples of interactions, which are looked up among all of their users.

        Args:
            interactions: Indices of interactions ``[num]``.
            users: The user of each ``[num]``.

        Returns:
            Positions ``[num]``.
        """
        if self.order is None:
            return interactions
        distinct, sorted_users = users.unique().to(self.risk.samples.users.dtype), self.risk.samples.users
        first, last = (torch.searchsorted(sorted_users, distinct, right=right) for right in (False, True))
        positions = ranges(first, last - first)
        ids, place = self.order[positions].long().sort()
        return positions[place[torch.searchsorted(ids, interactions)]]

    @property
    def final(self) -> Tensor:
        """The final embeddings, users first ``[num_nodes, dim]``."""
        return (
            torch.cat([self.encoded.queries, self.encoded.items])
            if self.propagation is None
            else self.propagation.final
        )

    def propagates(self, form: LinearForm | None) -> bool:
        """Return whether this is of a model with the given linear form.

        Args:
            form: The linear form of a model on the same graph.
        """
        own = self.risk.form
        if form is None or (form.parameter, form.alpha) != (own.parameter, own.alpha):
            return False
        if form.matrix is None or own.matrix is None or form.matrix is own.matrix:
            return form.matrix is own.matrix
        return all(same(a, b) for a, b in zip(_parts(form.matrix), _parts(own.matrix)))

    def around(self, rows: Tensor, num_users: int) -> Tensor:
        """Return the positions of the samples with one of some users, items or negatives, ascending.

        Args:
            rows: Node numbers ``[num]``.
            num_users: Number of users of the graph.
        """
        users = rows < num_users
        return self.risk.samples.with_any(rows[users], rows[~users] - num_users)


_KNOWN = WeakTensorKeyDictionary()  # by the pairs of the graph: what is known of models trained on it, latest first


@torch.no_grad()
def known_of(model: nn.Module, graph: InteractionGraph, objective: Objective) -> Known | None:
    """Return what is known of a trained model; it is computed once per graph, table and loss.

    Args:
        model: The trained model.
        graph: The graph that it was trained on.
        objective: The loss that it was trained with.

    Returns:
        The :class:`Known`; ``None`` if the model does not propagate one table linearly, if it has other trainable
        parameters, or if the samples of a user depend on the interactions of others.
    """
    form = linear_form(model, graph)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    if form is None or trainable != [form.parameter] or not objective.private:
        return None
    if type(objective).__call__ is not Objective.__call__:  # its loss is not a function of the margins alone
        return None
    table, state = model.get_parameter(form.parameter).detach(), GraphState.of(graph)
    kept: tuple[tuple[GraphState, Known], ...] = _KNOWN.get(graph.pairs, ()) if state is not None else ()
    for entry in kept:
        known_state, known = entry
        holds = known_state.holds(graph) and known.risk.objective == objective and known.propagates(form)
        if holds and same(known.risk.table, table):
            _KNOWN[graph.pairs] = (entry, *(other for other in kept if other is not entry))
            return known
    samples = objective.samples(graph)
    if samples.offset is not None or len(samples) != graph.num_interactions:
        return None
    if bool((samples.users[1:] >= samples.users[:-1]).all()):
        order, samples = None, samples.narrow()
    else:
        order = graph.adjacency.interaction[: len(samples)]  # the entries of users, which take no memory of their own
        samples = samples.narrow(order)
    propagation = propagation_of(model, graph)
    risk = LinearRisk(table.clone() if propagation is None else propagation.table, form, objective, samples)
    if propagation is not None:
        risk.take(propagation.final)
    back = risk.back(risk.parameters)
    gradient = risk.propagated(back, risk.parameters).view_as(table)
    known = Known(risk, order, risk.final(risk.parameters), back, gradient, propagation, Ridges(risk, gradient))
    if state is not None:
        _KNOWN[graph.pairs] = ((state, known), *kept)[:_LOSSES]
    return known


@dataclass(frozen=True)
class Local:
    r"""The tilted risk :math:`\Phi` in some embeddings, from the samples that they occur in alone.

    Let :math:`K` be the embeddings that may change, :math:`S` the samples with a user, item or negative in :math:`K`
    and those of users who lost interactions, whose negatives are drawn anew, and :math:`W_v` the gradient of a risk in
    the final embedding of the node :math:`v`. Then

    .. math::
        \nabla_k\Phi(\theta) = \sum_v P'_{kv}\,\bigl(W^{S}_v(\theta) + \bar W_v\bigr) - \sum_v P_{kv} W_v(\hat\theta),
        \qquad \bar W = W(\hat\theta) - W^{S}(\hat\theta) - W^{D_r}(\hat\theta),

    where :math:`P = \sum_l \alpha_l \hat A^l` on the graph before and :math:`P'` on the graph after forgetting. Paths
    of more than one edge count as far as all of their edges end in :math:`K`; final embeddings at the start are exact,
    and those outside of :math:`S` are taken not to change any more.

    Args:
        problem: The risks before and after forgetting in the numbering of ``problem.nodes``.
        tilt: What the gradient of the risk after forgetting minus that of :math:`\Phi` is ``[num_parameters]``.
        rows: The numbers of the embeddings that may change, in this numbering ``[num]``.
    """

    problem: Problem
    tilt: Tensor
    rows: Tensor

    def starts_at(self, objective: Objective, table: Tensor, rows: Tensor) -> bool:
        """Return whether this is a risk around some nodes, whose rows of the table are those of the start.

        Args:
            objective: The loss of the risk.
            table: The table ``[num_nodes, dim]``.
            rows: The nodes whose embeddings may change, ascending ``[num]``.
        """
        nodes = self.problem.nodes
        assert nodes is not None
        if self.problem.new.objective != objective:
            return False
        return torch.equal(nodes[self.rows], rows) and torch.equal(table[nodes].flatten(), self.problem.start)

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        known: Known,
        started: nn.Module,
        graph: InteractionGraph,
        retained: InteractionGraph,
        removed: Tensor,
        rows: Tensor,
    ) -> Local | None:
        """Return the risk around some nodes; ``None`` if it concerns too many samples.

        Args:
            known: What is known of the trained model.
            started: The model that the correction starts from.
            graph: The graph before forgetting.
            retained: The retained graph.
            removed: Mask of the forgotten interactions ``[num_interactions]``.
            rows: The nodes whose embeddings may change, ascending: nodes with retained interactions, and items without
                any, to which the trained gradient no longer applies ``[num]``.
        """
        after = linear_form(started, retained)
        if after is None or not len(rows) or not _follows(known.risk.form, graph) or not _follows(after, retained):
            return None
        samples, objective, num_users = known.risk.samples, known.risk.objective, graph.num_users
        held = graph.degree[rows].long()  # every interaction of a row is a sample, and has one user and one item
        if max(int(held[rows < num_users].sum()), int(held[rows >= num_users].sum())) > SMALL * len(samples):
            return None
        gone = removed.nonzero().view(-1)
        drawing = rows[:0]  # users whose negatives are drawn anew, perhaps among the chosen items
        if samples.negatives is not None:
            drawing = graph.pairs[0, gone].unique()
            drawing = drawing[retained.degree[drawing] > 0]
        chosen = known.around(torch.cat([rows, drawing]), num_users)
        if len(chosen) > SMALL * len(samples):
            return None
        forgotten = known.samples_of(gone, graph.pairs[0, gone])
        before = samples.select(torch.cat([chosen, forgotten]).unique())
        kept = known.interactions_of(chosen)
        stays = ~removed[kept]
        kept, now = kept[stays], samples.select(chosen[stays])
        now = _redrawn(objective, now, graph, retained, gone, kept - torch.searchsorted(gone, kept))
        inside = torch.zeros(graph.num_nodes, dtype=torch.bool, device=rows.device)
        inside[rows] = True
        for s in (before, now):
            inside[s.users] = True
            for items in (s.items, s.negatives):
                if items is not None:
                    inside[items.flatten() + num_users] = True
        nodes = inside.nonzero().view(-1)
        number = torch.cumsum(inside, 0) - 1
        size = int((nodes < num_users).sum())
        part = _Part(objective, rows, nodes, number, (size, len(nodes) - size), num_users)
        table = started.get_parameter(after.parameter).detach()
        trained = part.of(known.risk.form, graph.adjacency, known.risk.table, Overlaid(known.final))
        old = trained(before)
        final = None if known.propagation is None else known.propagation.after(after, retained, table)
        new = part.of(after, retained.adjacency, table, final or Overlaid(after.propagate(table)))(now)
        rest = known.back[nodes] - old.back(old.parameters)
        tilt = old.gradient(old.parameters) + (old.form.propagate(rest) - new.form.propagate(rest)).flatten()
        tilt.view_as(rest)[graph.emptied(retained)[nodes]] = 0
        free = torch.zeros(len(nodes), dtype=table.dtype, device=table.device)
        free[number[rows]] = 1
        free = free.repeat_interleave(table.size(1))
        problem = Problem(
            old, new, lambda: trained(samples.select(forgotten)), old.parameters, new.parameters, None, free, nodes
        )
        return cls(problem, tilt, number[rows])


@dataclass(frozen=True)
class _Part:
    """Some nodes of a graph, with numbers of their own: users first, then items."""

    objective: Objective
    rows: Tensor
    nodes: Tensor
    number: Tensor
    size: tuple[int, int]
    num_users: int

    def of(
        self, form: LinearForm, adjacency: Adjacency, table: Tensor, final: Overlaid
    ) -> Callable[[Samples], LinearRisk]:
        """Return what makes the risk of samples whose nodes are all inside; final embeddings are exact at ``table``."""
        inner = LinearForm(form.parameter, form.alpha, self._incident(form, adjacency))
        own = table[self.nodes]
        offset = final.at(self.nodes) - inner.propagate(own)
        return lambda samples: LinearRisk(own, inner, self.objective, self._renumbered(samples), offset)

    def _renumbered(self, samples: Samples) -> Samples:
        users, items = self.number[samples.users], self._items(samples.items)
        negatives = None if samples.negatives is None else self._items(samples.negatives)
        return Samples(users, items, self.size, negatives, samples.target)

    def _items(self, items: Tensor) -> Tensor:
        return self.number[items + self.num_users] - self.size[0]

    def _incident(self, form: LinearForm, adjacency: Adjacency) -> Tensor | None:
        """Return the entries of the propagation matrix in the rows and in the columns of the chosen nodes."""
        if form.matrix is None:
            return None
        entries = adjacency.entries(self.rows)
        row = self.number[self.rows].repeat_interleave(adjacency.degree[self.rows].long())
        col, value = self.number[adjacency.col[entries].long()], form.matrix.values()[entries]
        chosen = torch.zeros(len(self.nodes), dtype=torch.bool, device=row.device)
        chosen[self.number[self.rows]] = True
        other = ~chosen[col]  # an entry between two chosen nodes is in the row of each
        row, col, value = torch.cat([row, col[other]]), torch.cat([col, row[other]]), torch.cat([value, value[other]])
        order = (row * len(self.nodes) + col).argsort()
        rowptr = torch.zeros(len(self.nodes) + 1, dtype=torch.int32, device=row.device)
        rowptr[1:] = torch.cumsum(torch.bincount(row, minlength=len(self.nodes)), 0)
        return csr(rowptr, col[order].int(), value[order], (len(self.nodes), len(self.nodes)))


def _redrawn(
    objective: Objective,
    samples: Samples,
    graph: InteractionGraph,
    retained: InteractionGraph,
    gone: Tensor,
    position: Tensor,
) -> Samples:
    """Return retained samples with new negatives for users who lost interactions, as these may be drawn now.

    Args:
        objective: The loss.
        samples: The samples as they were before.
        graph: The graph before forgetting.
        retained: The retained graph.
        gone: The forgotten interactions.
        position: The interactions of the samples in the retained graph.
    """
    if samples.negatives is None:
        return samples
    touched = torch.zeros(graph.num_users, dtype=torch.bool, device=gone.device)
    touched[graph.pairs[0, gone]] = True
    mask = touched[samples.users]
    if not bool(mask.any()):
        return samples
    drawn = objective.samples(retained, mask=position[mask]).negatives
    assert drawn is not None
    negatives = samples.negatives.clone()
    negatives[mask] = drawn
    return replace(samples, negatives=negatives)


def _follows(form: LinearForm, graph: InteractionGraph) -> bool:
    """Return whether a propagation matrix has its entries where the adjacency of a graph has them."""
    adjacency = graph.adjacency
    if form.matrix is None:
        return True
    return all(same(a, b) for a, b in zip(_parts(form.matrix), (adjacency.rowptr, adjacency.col)))


def _parts(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row pointers, columns and values of a CSR matrix."""
    return matrix.crow_indices(), matrix.col_indices(), matrix.values()
