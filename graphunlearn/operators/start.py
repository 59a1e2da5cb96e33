"""Where a correction starts: rows scaled by what is kept, emptied nodes drawn anew."""

from __future__ import annotations

import copy
from typing import Any, overload

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn.encode import linear_form
from graphunlearn.nn.fit import reset_parameters
from graphunlearn.nn.prefixes import CrossEntropy

__all__ = [
    "clicked_items",
    "emptied_nodes",
    "fresh_seed",
    "initial_table",
    "judges_left",
    "kept_share",
    "node_rows",
    "table_names",
    "warm_start",
    "without_emptied_nodes",
    "write_table",
]

_FEW = 5  # rows that a mean is taken of, at least: what is random in them must cancel


def kept_share(graph: InteractionGraph, retained: InteractionGraph) -> Tensor:
    """Return the share of its interactions that every node keeps ``[num_nodes]``; 1 where it never had any."""
    before, after = graph.adjacency.degree, retained.adjacency.degree
    return torch.where(before > 0, after / before.clamp(min=1), 1.0)


def emptied_nodes(graph: InteractionGraph, retained: InteractionGraph) -> Tensor:
    """Return the mask of nodes that lose their last interaction ``[num_nodes]``."""
    return (graph.adjacency.degree > 0) & (retained.adjacency.degree == 0)


@overload
def without_emptied_nodes(
    heldout: InteractionGraph, graph: InteractionGraph, retained: InteractionGraph
) -> InteractionGraph: ...


@overload
def without_emptied_nodes(heldout: SessionGraph, graph: SessionGraph, retained: SessionGraph) -> SessionGraph: ...


def without_emptied_nodes(heldout: Any, graph: Any, retained: Any) -> Any:
    """Return ``heldout`` without the users and items that forgetting left without any interaction.

    Of sessions those of such users go, who are the same where their raw ids are, and the clicks on such items, as if
    they were to be forgotten: their neighbours join. A prefix that such a click follows goes.
    """
    if isinstance(heldout, SessionGraph):
        heldout = _without_emptied_users(heldout, graph, retained)
        emptied = clicked_items(graph) & ~clicked_items(retained)
        if heldout.target is not None:
            gone = (heldout.target >= 0) & emptied[heldout.target]
            heldout = heldout.select(~gone) if bool(gone.any()) else heldout
        clicked = clicked_items(heldout)
        emptied = emptied & clicked
        if not bool(emptied.any()):
            return heldout
        if not bool((clicked & ~emptied).any()):
            return heldout.select(torch.zeros_like(heldout.length, dtype=torch.bool))
        return heldout.split(ForgetRequest.internal("item", emptied.nonzero().flatten()))[0]
    emptied = emptied_nodes(graph, retained)
    return heldout.select(~(emptied[heldout.pairs[0]] | emptied[heldout.pairs[1] + graph.num_users]))


def judges_left(heldout: Any, graph: Any, retained: Any) -> Any:
    """Return what training again is stopped by: ``heldout`` :func:`without_emptied_nodes`.

    ``None`` where there is none, or where forgetting leaves no session of two clicks of it, and so nothing to predict.
    """
    if heldout is None:
        return None
    left = without_emptied_nodes(heldout, graph, retained)
    if isinstance(left, SessionGraph) and left is not heldout and not len(CrossEntropy().samples(left)):
        return None
    return left


def clicked_items(graph: SessionGraph) -> Tensor:
    """Return which items are clicked at all ``[num_items]``."""
    return torch.bincount(graph.x, minlength=graph.num_items) > 0


def _without_emptied_users(heldout: SessionGraph, graph: SessionGraph, retained: SessionGraph) -> SessionGraph:
    """Return ``heldout`` without the sessions of users whom forgetting left without any session."""
    if heldout.user is None or graph.user is None or retained.user is None:
        return heldout
    emptied = torch.unique(graph.user[~torch.isin(graph.user, retained.user)])
    names, known = graph.vocabulary("user"), heldout.vocabulary("user")
    gone = known.lookup(names[number] for number in emptied.tolist() if number >= 0)
    gone = torch.isin(heldout.user, gone[gone >= 0].to(heldout.device))
    return heldout.select(~gone) if bool(gone.any()) else heldout


def node_rows(model: nn.Module, graph: InteractionGraph) -> dict[str, slice]:
    """Return the parameters with one row per node: their names, and which nodes (users, then items) the rows are.

    These are the table of a linear form, else every ``nn.Embedding`` with as many rows as there are nodes, users or
    items. Where users and items are equally many, the name has to say which it is.
    """
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
        raise ValueError(
            "'model' must have one table of initial embeddings for all nodes, or one for users and one for items "
            f"of the same width: those of {type(model).__name__} cannot be reached"
            + (f" (found {', '.join(names)})" if names else "")
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
        raise ValueError(f"'table' must be {list(shape)} (got {list(table.shape)})")
    for weight, part in zip(weights, table.split([len(weight) for weight in weights]), strict=True):
        weight.copy_(part)


def fresh_seed(seed: int) -> int:
    """Return the seed that rows are drawn anew with: never one that a model is likely to have been trained with.

    The trained model's own seed would give a forgotten user the very row that the others were trained against.
    """
    return (seed * 0x9E3779B97F4A7C15 + 0x1F83D9ABFB41BD6B) % (1 << 63)


@torch.no_grad()
def warm_start(
    model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, seed: int, *, scale: bool = True
) -> int:
    r"""Move the rows of the touched nodes to where retraining tends to have them, before any correction.

    :math:`e_v \leftarrow \frac{\deg_k(v)}{\deg(v)}\, e_v`; a node that keeps nothing has no curvature left to
    correct it by, and is drawn anew from the model's own initialisation, as retraining would. Training moves rows
    without interactions as well (an item is still drawn as a negative): where there are such nodes, their mean row is
    added.

    Args:
        model: Changed in place.
        graph: The graph before.
        retained: The graph after.
        seed: Seed of the new rows.
        scale: Whether to scale rows; emptied nodes are drawn anew in either case.

    Returns:
        The number of nodes touched.
    """
    share, emptied = kept_share(graph, retained), emptied_nodes(graph, retained)
    touched = (share < 1).nonzero().view(-1)
    tables = node_rows(model, graph)
    fresh: dict[str, Tensor] = {}
    if bool(emptied.any()) and tables:
        other = copy.deepcopy(model)
        reset_parameters(other, fresh_seed(seed))
        fresh = dict(other.named_parameters())
    for name, nodes in tables.items():
        weight = model.get_parameter(name)
        if not weight.requires_grad:
            continue
        own = touched[(touched >= nodes.start) & (touched < nodes.stop)]
        if scale:
            weight[own - nodes.start] *= share[own].to(weight.dtype).unsqueeze(1)
        if fresh:
            for side in (slice(0, graph.num_users), slice(graph.num_users, graph.num_nodes)):
                new = own[emptied[own] & (own >= side.start) & (own < side.stop)]
                weight[new - nodes.start] = fresh[name][new - nodes.start] + _drift(weight, graph, nodes, side)
    return touched.numel()


def _drift(weight: Tensor, graph: InteractionGraph, nodes: slice, side: slice) -> Tensor:
    """Return where training has moved the rows of users, or items, that never had an interaction ``[dim]``."""
    start, stop = max(nodes.start, side.start), min(nodes.stop, side.stop)
    idle = (graph.adjacency.degree[start:stop] == 0).nonzero().view(-1) + start - nodes.start
    return weight[idle].mean(0) if len(idle) >= _FEW else weight.new_zeros(weight.shape[1:])
