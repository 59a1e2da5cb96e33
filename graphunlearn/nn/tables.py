"""Access to embedding tables: the parameters with one row per user, item or node."""

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
    """Return the parameters with one row per node.

    If the model has a linear form, this is the table of the linear form. Otherwise, it is every ``nn.Embedding`` with
    as many rows as there are nodes, users or items. If there are as many users as items, only embeddings whose name
    contains "user" or "item" count. For session models, the result is the :func:`item_tables`.

    Args:
        model: The recommender.
        graph: The graph of the recommender.

    Returns:
        The name of every such parameter, with the slice of its nodes, where items are numbered after users.
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
    """Return the names of the parameters whose concatenation is the layer-0 table of all nodes.

    Args:
        model: The recommender.
        graph: The graph of the recommender.

    Returns:
        One name, or the name of the user table followed by that of the item table.

    Raises:
        ValueError: The model has neither one table for all nodes, nor one for users and one for items.
    """
    rows = node_rows(model, graph)
    names = sorted(rows, key=lambda name: rows[name].start)
    spans = [(rows[name].start, rows[name].stop) for name in names]
    whole = spans in ([(0, graph.num_nodes)], [(0, graph.num_users), (graph.num_users, graph.num_nodes)])
    if not whole or len({model.get_parameter(name).shape[1:] for name in names}) > 1:
        both = "one for users and one for items of the same width"
        got = f"{type(model).__name__} with {', '.join(names) or 'none that can be reached'}"
        raise ArgumentError("model", f"have one table of initial embeddings for all nodes, or {both}", got)
    return names


def initial_table(model: nn.Module, graph: InteractionGraph) -> Tensor:
    """Return a detached copy of the layer-0 embeddings of ``model``.

    Args:
        model: The recommender.
        graph: The graph of the recommender.

    Returns:
        The embeddings, users first ``[num_nodes, dim]``.

    Raises:
        ValueError: The model has neither one table for all nodes, nor one for users and one for items.
    """
    return torch.cat([model.get_parameter(name).detach() for name in table_names(model, graph)])


@torch.no_grad()
def write_table(model: nn.Module, graph: InteractionGraph, table: Tensor) -> None:
    """Overwrite the layer-0 embeddings of ``model`` with ``table``; the inverse of :func:`initial_table`.

    Args:
        model: The recommender; it is changed in place.
        graph: The graph of the recommender.
        table: The embeddings, users first ``[num_nodes, dim]``.

    Raises:
        ValueError: The model has neither one table for all nodes, nor one for users and one for items, or ``table`` has
            another shape.
    """
    weights = [model.get_parameter(name) for name in table_names(model, graph)]
    shape = (graph.num_nodes, *weights[0].shape[1:])
    if table.shape != shape:
        raise ArgumentError("table", f"be {list(shape)}", list(table.shape))
    for weight, part in zip(weights, table.split([len(weight) for weight in weights]), strict=True):
        weight.copy_(part)


@singledispatch
def item_tables(model: nn.Module, num_items: int) -> list[Tensor]:
    """Return the parameters of ``model`` with one row per item.

    By default, these are the weights of every ``nn.Embedding`` with ``num_items`` rows. Register a function for your
    own model class if it stores item embeddings elsewhere.

    Args:
        model: The recommender.
        num_items: Number of items.

    Returns:
        The parameters, each with ``num_items`` rows.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return [module.weight for module in embeddings if module.num_embeddings == num_items]


@item_tables.register
def _(model: SessionModel, num_items: int) -> list[Tensor]:
    tables = [model.embedding.weight, None if model.output is None else model.output.weight, model.bias]
    return [table for table in tables if table is not None]
