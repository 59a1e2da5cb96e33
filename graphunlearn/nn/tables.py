"""Which parameters hold one row per user, item or node, and which rows belong to whom."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import linear_form
from graphunlearn.nn.models.session import SessionModel

__all__ = ["initial_table", "item_tables", "node_rows", "table_names", "write_table"]


def node_rows(model: nn.Module, graph: InteractionGraph | SessionGraph) -> dict[str, slice]:
    """Return the parameters with one row per node: their names, and which nodes (users, then items) the rows are.

    These are the table of a linear form, else every ``nn.Embedding`` with as many rows as there are nodes, users or
    items. Where users and items are equally many, the name has to say which it is. Of session models they are the
    :func:`item_tables`.
    """
    if isinstance(graph, SessionGraph):
        tables = {id(table) for table in item_tables(model, graph.num_items)}
        return {name: slice(0, graph.num_rows) for name, p in model.named_parameters() if id(p) in tables}
    form = linear_form(model, graph)
    if form is not None:
        return {form.parameter: slice(0, graph.num_nodes)}
    sides = {"user": slice(0, graph.num_users), "item": slice(graph.num_users, graph.num_nodes)}
    sizes = {"user": graph.num_users, "item": graph.num_items}
    rows: dict[str, slice] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding):
            continue
        parameter = f"{name}.weight" if name else "weight"
        fitting = [side for side in sides if sizes[side] == module.num_embeddings]
        if len(fitting) > 1:
            fitting = [side for side in fitting if side in name.lower()]
        if module.num_embeddings == graph.num_nodes:
            rows[parameter] = slice(0, graph.num_nodes)
        elif len(fitting) == 1:
            rows[parameter] = sides[fitting[0]]
    return rows


def table_names(model: nn.Module, graph: InteractionGraph) -> list[str]:
    """Return the parameters whose rows, one under the other, are the layer-0 table of all nodes.

    Raises:
        ValueError: There is no such table: neither one for all nodes, nor one for users and one for items.
    """
    rows = node_rows(model, graph)
    names = sorted(rows, key=lambda name: rows[name].start)
    spans = [(rows[name].start, rows[name].stop) for name in names]
    whole = spans in ([(0, graph.num_nodes)], [(0, graph.num_users), (graph.num_users, graph.num_nodes)])
    if not whole or len({model.get_parameter(name).shape[1:] for name in names}) > 1:
        raise ArgumentError(
            "model",
            "have one table of initial embeddings for all nodes, or one for users and one for items of the same width",
            f"{type(model).__name__} with {', '.join(names) or 'none that can be reached'}",
        )
    return names


def initial_table(model: nn.Module, graph: InteractionGraph) -> Tensor:
    """Return a detached copy of the model's layer-0 rows ``[num_nodes, dim]``, users first.

    Raises:
        ValueError: The model's initial embeddings cannot be reached.
    """
    return torch.cat([model.get_parameter(name).detach() for name in table_names(model, graph)])


@torch.no_grad()
def write_table(model: nn.Module, graph: InteractionGraph, table: Tensor) -> None:
    """Write ``table`` ``[num_nodes, dim]`` into the layer-0 rows of ``model``: the reverse of :func:`initial_table`.

    Raises:
        ValueError: The model's initial embeddings cannot be reached, or ``table`` has another shape.
    """
    weights = [model.get_parameter(name) for name in table_names(model, graph)]
    shape = (graph.num_nodes, *weights[0].shape[1:])
    if table.shape != shape:
        raise ArgumentError("table", f"be {list(shape)}", list(table.shape))
    for weight, part in zip(weights, table.split([len(weight) for weight in weights]), strict=True):
        weight.copy_(part)


@singledispatch
def item_tables(model: nn.Module, num_items: int) -> list[Tensor]:
    """Return the parameters of ``model`` with one row per item; by default its embeddings of ``num_items`` rows.

    Register a function for your own class where it keeps items elsewhere.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return [module.weight for module in embeddings if module.num_embeddings == num_items]


@item_tables.register
def _(model: SessionModel, num_items: int) -> list[Tensor]:
    tables = [model.embedding.weight, None if model.output is None else model.output.weight, model.bias]
    return [table for table in tables if table is not None]
