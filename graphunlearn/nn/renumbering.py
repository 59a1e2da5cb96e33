"""Models without the rows of some users and items."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.renumbering import keep_nodes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.origin import give_origin, origin_of
from graphunlearn.nn.tables import node_rows

__all__ = ["keep_rows", "with_tables"]

SIZES = ("num_{}s", "n_{}s", "{}_num", "{}_count")
"""Names under which models hold the numbers of users, items and nodes."""
OWN = ("torch_geometric", "graphunlearn")
"""Packages whose models hold nothing of a graph but tables that are known, and whose layers are of other sizes."""
CONTAINERS = (list, tuple, dict, set, frozenset)
DEEPEST = 4
"""How deep containers of containers are looked into."""


@singledispatch
def keep_rows(model: nn.Module, graph: InteractionGraph | SessionGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model with the rows of some users and items only, in a given order.

    The rows are those of :func:`~graphunlearn.nn.tables.node_rows`. Attributes such as ``num_items`` get the new
    numbers. Register a function for your own model class if it holds embeddings elsewhere, or anything else with an
    entry for every user or item::

        @graphunlearn.nn.keep_rows.register
        def _(model: MyModel, graph, kept):
            return MyModel(model.users[kept["user"]], model.items[kept["item"]])

    Args:
        model: The model; it is not changed.
        graph: The graph of the model.
        kept: Numbers of the users and items that stay, in their new order ``[num_new]``, by node type. In a graph of
            sessions, ``"session"`` may hold the numbers of all sessions in their new order.

    Returns:
        The copy, whose other parameters and buffers are the same.

    Raises:
        ValueError: The model holds something with as many entries as there are users or items, and nothing tells to
            which of them they belong; or it holds a graph, or integers that may be the events of one.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
        >>> model = gu.nn.MatrixFactorization(4, 8)
        >>> kept = {"user": torch.tensor([1]), "item": torch.tensor([0, 1])}
        >>> torch.equal(keep_rows(model, graph, kept).embedding.weight, model.embedding.weight[1:])
        True
    """
    counts, index = _counts(graph, kept), _rows(graph, kept)
    new: dict[int, nn.Parameter] = {}
    for name, nodes in node_rows(model, graph).items():
        table = model.get_parameter(name)
        rows = index[(index >= nodes.start) & (index < nodes.stop)].to(table.device) - nodes.start
        new[id(table)] = nn.Parameter(table.detach()[rows].clone(), requires_grad=table.requires_grad)
    moved = _moved(kept)
    made = with_tables(model, graph, new, counts, "keep_rows", moved, events=graph.num_interactions)
    origin = origin_of(made)
    if origin is not None:
        give_origin(made, origin.resized(keep_nodes(graph, dict(kept))))
    return made


def with_tables(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    tables: Mapping[int, nn.Parameter],
    counts: Mapping[str, tuple[int, int]],
    rule: str,
    moved: Collection[str] = (),
    events: int | None = None,
) -> nn.Module:
    """Return a copy of a model with tables of other sizes, or of the same rows in another order.

    Args:
        model: The model.
        graph: The graph of the model.
        tables: The new tables, by the ``id`` of the parameter that each replaces.
        counts: The numbers of users, items and nodes before and after, by node type.
        rule: Name of the function that a model of another kind is registered with, for error messages.
        moved: The node types of which some get other numbers.
        events: Number of events of the graph, if nothing that may hold them is allowed to stay in the model.

    Raises:
        ValueError: The model holds something else with as many entries as there are users or items, or a graph; or,
            with ``events``, pairs of integers or at least as many integers.
    """
    made = copy.deepcopy(model, dict[int, Any](tables))  # copies all but the tables, for which the new ones stand
    ours = {id(table) for table in tables.values()}
    for module in made.modules():
        if isinstance(module, nn.Embedding) and id(module.weight) in ours:
            if module.padding_idx is not None:
                raise _unclear(model, "an embedding with a row for padding", rule)
            module.num_embeddings = module.weight.size(0)
        for name, (before, after) in counts.items():
            for attribute in (form.format(name) for form in SIZES):
                if type(vars(module).get(attribute)) is int and vars(module)[attribute] == before:
                    setattr(module, attribute, after)
    other = {name for name, (before, after) in counts.items() if before != after or name in moved}
    changed = {counts[name][0] for name in other}
    for what in _left(made, changed, {before for before, _ in counts.values()}, ours, events):
        raise _unclear(model, what, rule)
    rows = node_rows(model, graph).values()
    for side, nodes in _sides(graph, other).items():
        if not any(own.start <= nodes.start and nodes.stop <= own.stop for own in rows):
            raise _unclear(model, f"no table of {side}s that is found", rule)
    return made


def _counts(graph: InteractionGraph | SessionGraph, kept: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return the numbers of users, items and nodes before and after."""
    counts = {name: (len(graph.vocabulary(name)), len(kept[name])) for name in kept}
    if graph.kind == "sessions":
        return counts
    return counts | {"node": (graph.num_rows, sum(after for _, after in counts.values()))}


def _moved(kept: Mapping[str, Tensor]) -> set[str]:
    """Return the node types of which some get other numbers."""
    moved = {name for name, index in kept.items() if not torch.equal(index.cpu(), torch.arange(len(index)))}
    return moved | ({"node"} if moved & {"user", "item"} else set())


def _sides(graph: InteractionGraph | SessionGraph, other: Collection[str]) -> dict[str, slice]:
    """Return the rows of a table with all users and items that belong to a side of which some go or move."""
    sides = zip(("item",) if graph.kind == "sessions" else ("user", "item"), graph.sides)
    return {name: rows for name, rows in sides if name in other}


def _rows(graph: InteractionGraph | SessionGraph, kept: Mapping[str, Tensor]) -> Tensor:
    """Return the rows that stay of a table with all users and items (only items for sessions) ``[num_new]``."""
    if graph.kind == "sessions":
        return kept["item"].cpu()
    return torch.cat([kept["user"].cpu(), kept["item"].cpu() + len(graph.vocabulary("user"))])


def _left(
    module: nn.Module,
    changed: set[int],
    every: set[int],
    smaller: set[int],
    events: int | None,
    path: str = "",
    own: bool = False,
) -> Iterator[str]:
    """Yield descriptions of what still has an entry per user or item (or one more, for padding), or per pair."""
    package = type(module).__module__.partition(".")[0]
    own = package in OWN or (own and package == "torch")  # the layers of a known model are known
    held = {} if own else {**module._parameters, **module._buffers, **vars(module)}
    for name, content in held.items():
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        for where, value in _leaves(f"{path}{name}", content):
            if id(value) in smaller:
                continue
            if isinstance(value, BaseData):
                yield f"a graph as '{where}'"
                continue
            shape = getattr(value, "shape", None)
            sizes = tuple(size for size in shape if isinstance(size, int)) if isinstance(shape, tuple) else ()
            if isinstance(value, CONTAINERS):
                sizes = (len(value),)
            per_node = {*sizes, *(size - 1 for size in sizes)} & changed or (len(sizes) > 1 and {*sizes} <= every)
            if per_node or (events is not None and _may_hold(value, sizes, events)):
                yield f"'{where}' of {' × '.join(map(str, sizes))} entries"
    for name, child in module.named_children():
        yield from _left(child, changed, every, smaller, events, f"{path}{name}.", own)


def _leaves(path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield a value and, if it is a container, what is in it, each with its name."""
    yield path, value
    if depth < DEEPEST and isinstance(value, CONTAINERS):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            if isinstance(part, (*CONTAINERS, BaseData)) or hasattr(part, "shape"):
                yield from _leaves(f"{path}[{name!r}]", part, depth + 1)


def _may_hold(value: Any, sizes: tuple[int, ...], events: int) -> bool:
    """Return whether a value may hold the events of a graph from which some were deleted: it has as many or more."""
    if isinstance(value, CONTAINERS):
        return 0 < events <= len(value)
    kind = str(getattr(value, "dtype", ""))
    whole = "int" in kind
    pairs = len(sizes) == 2 and 2 in sizes and max(sizes) > 2
    return whole and (pairs or (0 < events <= max(sizes, default=0)))


def _unclear(model: nn.Module, what: str, rule: str) -> ArgumentError:
    name = type(model).__name__
    hint = f"tell how it changes its size with @graphunlearn.nn.{rule}.register({name})"
    expected = "hold nothing but embedding tables with an entry per user or item"
    return ArgumentError("model", expected, f"{name} with {what}", hint)
