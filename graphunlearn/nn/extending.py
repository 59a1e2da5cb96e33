"""Models with rows for new users and items."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import singledispatch
from typing import TypeVar

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.growing import grown, numbered_in
from graphunlearn.nn.models.gcegnn import GCEGNN
from graphunlearn.nn.origin import give_origin, origin_of
from graphunlearn.nn.renumbering import with_tables
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.fitting import reset_parameters

__all__ = ["Extended", "add_rows", "extend"]

G = TypeVar("G", InteractionGraph, SessionGraph)


@dataclass(frozen=True)
class Extended:
    """A model and a graph with the events, users and items of new data.

    Args:
        model: The model with a row for every new user and item; other rows are the same.
        graph: The graph with the new events.
        parts: Further graphs, such as validation data, with the numbers of ``graph``.
        added: Numbers of new users, items and events, by their name in ``graph.sizes``.
    """

    model: nn.Module
    graph: InteractionGraph | SessionGraph
    parts: tuple[InteractionGraph | SessionGraph, ...]
    added: dict[str, int]


def extend(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    new: InteractionGraph | SessionGraph,
    *parts: InteractionGraph | SessionGraph,
    seed: int = 0,
) -> Extended:
    """Add new data to a graph, and rows for their users and items to the model, which :func:`~graphunlearn.fit` trains.

    Users and items keep their numbers and rows; new ones follow after them, with embeddings drawn as at the start of a
    training. Nothing is trained here. If a user whose data were forgotten is in the new data, the row that was redrawn
    is used again. A preparation of an unlearning method is for the model before, and must be made again.

    Args:
        model: The trained or corrected model; it is not changed.
        graph: The graph of the model.
        new: The new data, with numbers of their own; see :func:`~graphunlearn.data.growing.grown`.
        *parts: Further graphs to number in the same way, such as validation data. Their users and items must be in
            ``graph`` or ``new``.
        seed: Seed of the new rows.

    Returns:
        The :class:`Extended`.

    Raises:
        ValueError: The graphs do not go together, or the rows of the model are not known; see :func:`add_rows`.
        TypeError: The model cannot draw parameters anew.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), user_ids=["ann", "bob"])
        >>> new = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), user_ids=["bob", "eve"])
        >>> extended = gu.extend(gu.nn.MatrixFactorization(4, 8), graph, new)
        >>> extended.graph.user_ids, extended.added
        (['ann', 'bob', 'eve'], {'users': 1, 'items': 0, 'interactions': 2})
        >>> result = gu.fit(extended.model, extended.graph, epochs=2)
    """
    whole = grown(graph, new)
    numbered = tuple(numbered_in(part, whole) for part in parts)
    added = {name: size - graph.sizes[name] for name, size in whole.sizes.items()}
    return Extended(add_rows(model, graph, whole, seed), whole, numbered, added)


@singledispatch
def add_rows(
    model: nn.Module, graph: InteractionGraph | SessionGraph, whole: InteractionGraph | SessionGraph, seed: int = 0
) -> nn.Module:
    """Return a copy of a model with rows for the users and items that a larger graph has at its end.

    The rows are those of :func:`~graphunlearn.nn.tables.node_rows`. New ones are drawn by the model's
    ``reset_parameters``. Register a function for your own model class if it holds embeddings elsewhere.

    Args:
        model: The model; it is not changed.
        graph: The graph of the model.
        whole: The larger graph, in which the users and items of ``graph`` have the same numbers.
        seed: Seed of the new rows.

    Returns:
        The copy, whose other parameters and buffers are the same.

    Raises:
        ValueError: The model holds something else with as many entries as there are users or items.
        TypeError: The model cannot draw parameters anew.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graphs = [gu.InteractionGraph.from_edges(torch.tensor([[0], [0]]), users, 2) for users in (1, 3)]
        >>> model = gu.nn.MatrixFactorization(3, 8)
        >>> larger = gu.nn.add_rows(model, *graphs)
        >>> torch.equal(larger.embedding.weight[[0, 3, 4]], model.embedding.weight)
        True
    """
    sides = ("user", "item")[-len(graph.sides) :]  # sessions have rows of items alone
    counts = {side: (len(graph.vocabulary(side)), len(whole.vocabulary(side))) for side in sides}
    if len(sides) > 1:
        counts["node"] = graph.num_rows, whole.num_rows
    if all(before == after for before, after in counts.values()):
        return copy.deepcopy(model)
    place = _places(graph, whole)
    rows = node_rows(model, graph)
    tables, moved = {}, {}
    for name, nodes in rows.items():
        table = model.get_parameter(name)
        start, stop = _span(nodes, graph, whole)
        moved[name] = (place[nodes] - start).to(table.device)
        larger = table.detach().new_zeros(stop - start, *table.shape[1:])
        larger[moved[name]] = table.detach()
        tables[id(table)] = nn.Parameter(larger, requires_grad=table.requires_grad)
    made = with_tables(model, graph, tables, counts, "add_rows")
    origin = origin_of(made)
    if origin is not None:
        give_origin(made, origin.resized(whole))
    fresh = copy.deepcopy(made)
    reset_parameters(fresh, seed)
    with torch.no_grad():
        for name, index in moved.items():
            table = made.get_parameter(name)
            new = torch.ones(len(table), dtype=torch.bool, device=table.device)
            new[index] = False
            table[new] = fresh.get_parameter(name)[new]
    return made


def _places(graph: InteractionGraph | SessionGraph, whole: InteractionGraph | SessionGraph) -> Tensor:
    """Return the row of every node of a graph in a table of a larger one ``[num_rows]``."""
    parts = zip(graph.sides, whole.sides)
    return torch.cat([torch.arange(old.start, old.stop) - old.start + new.start for old, new in parts])


def _span(
    nodes: slice, graph: InteractionGraph | SessionGraph, whole: InteractionGraph | SessionGraph
) -> tuple[int, int]:
    """Return the first row and the end of the same table for a larger graph, in its numbers of nodes."""
    ends = dict(zip((side.stop for side in graph.sides), (side.stop for side in whole.sides)))
    return (0 if nodes.start == 0 else ends[nodes.start]), ends[nodes.stop]


@add_rows.register
def _(model: GCEGNN, graph: SessionGraph, whole: SessionGraph, seed: int = 0) -> GCEGNN:
    made = add_rows.dispatch(nn.Module)(model, graph, whole, seed)
    assert isinstance(made, GCEGNN)
    new = whole.num_items - graph.num_items
    for name in ("neighbours", "strength"):
        held = model.get_buffer(name)
        setattr(made, name, torch.cat([held, held.new_zeros(new, held.size(1))]))
    return made
