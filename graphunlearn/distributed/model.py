"""The part of a model that one rank holds: the rows of its users, and those of all items or of a part of them."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.ranks import RankError
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import LinearForm, linear_form
from graphunlearn.nn.models.build import build_model

__all__ = ["build_part", "check_items", "drawn_rows", "form_of", "model_part", "reset_part", "whole_model"]

TABLE = "embedding.weight"
_AT_ONCE = 1 << 22  # entries drawn at a time


def form_of(model: nn.Module, graph: InteractionGraph) -> LinearForm:
    """Return the linear form of a model whose table can be divided between ranks.

    Args:
        model: The model, or the part of it.
        graph: Its graph.

    Raises:
        ArgumentError: The model has other parameters than one table of all nodes, or does not propagate it linearly.
    """
    form = linear_form(model, graph)
    names = [name for name, _ in model.named_parameters()]
    if form is None or names != [TABLE] or form.parameter != TABLE:
        raise ArgumentError("model", "be lightgcn, lightgcn-positives or mf on several ranks", type(model).__name__)
    return form


@torch.no_grad()
def check_items(model: nn.Module, graph: ShardGraph) -> None:
    """Check that all ranks hold the same rows of items, up to rounding errors, by a weighted sum of them.

    Where each holds the rows of other items, there is nothing to check.

    Args:
        model: The part of the model.
        graph: The part of the graph.

    Raises:
        RankError: A rank holds others.
    """
    if graph.item_rows.divided:
        return
    items = model.get_parameter(TABLE)[graph.num_users :].double()
    weight = torch.arange(len(items), dtype=torch.float64, device=items.device).cos()
    found = graph.ranks.objects(((weight @ items).cpu(), float(items.norm())))
    for rank, (sketch, _) in enumerate(found):
        if float((sketch - found[0][0]).norm()) > 1e-3 * found[0][1]:
            raise RankError(f"all ranks must hold the same rows of items (got others on rank {rank} than on rank 0)")


def build_part(name: str, graph: ShardGraph, dim: int = 64, layers: int | None = None, *, seed: int = 0) -> nn.Module:
    """Return the part of an untrained model, with the rows that one process would draw.

    Args:
        name: Name of the model; see :func:`~graphunlearn.nn.build_model`.
        graph: The part of the graph.
        dim: Width of the table.
        layers: Number of layers.
        seed: Seed of the rows.

    Raises:
        ArgumentError: The model cannot be divided; see :func:`form_of`.
    """
    model = build_model(name, graph, dim, layers)
    form_of(model, graph)
    reset_part(model, graph, seed)
    return model


def drawn_rows(graph: ShardGraph, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    r"""Return the rows of this rank of a table that is drawn for all users and items, uniform as Glorot & Bengio draw.

    The numbers of the whole table are drawn one after another and those of other ranks are passed over, so that the
    rows do not depend on the number of ranks.

    Args:
        graph: The part of the graph.
        dim: Width of the table.
        seed: Seed of the whole table.
        dtype: Type of the table.

    Returns:
        The rows ``[num_rows, dim]``, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    users, held = graph.part.num_all_users, graph.item_rows
    total = users + graph.num_items
    bound = math.sqrt(3.0) * math.sqrt(2.0 / (total + dim))
    out = torch.empty(graph.num_rows, dim, dtype=dtype)
    first, last = graph.first_user, graph.first_user + graph.num_users
    at_once = max(1, _AT_ONCE // dim)
    for start in range(0, total, at_once):
        stop = min(start + at_once, total)
        rows = torch.empty(stop - start, dim, dtype=dtype).uniform_(-bound, bound, generator=generator)
        for own, low, high in ((0, first, last), (graph.num_users, users + held.first, users + held.last)):
            a, b = max(start, low), min(stop, high)
            if a < b:
                out[own + a - low : own + b - low] = rows[a - start : b - start]
    return out


@torch.no_grad()
def reset_part(model: nn.Module, graph: ShardGraph, seed: int) -> None:
    """Draw the rows of the part of a model anew, in place.

    Args:
        model: The part of the model.
        graph: The part of the graph.
        seed: Seed of the whole table.
    """
    table = model.get_parameter(TABLE)
    table.copy_(drawn_rows(graph, table.size(1), seed, table.dtype))


@torch.no_grad()
def model_part(model: nn.Module, graph: ShardGraph) -> nn.Module:
    """Return the part of a whole model.

    Args:
        model: The whole model, the same on all ranks.
        graph: The part of the graph.

    Raises:
        ArgumentError: The model does not fit the graph, or cannot be divided.
    """
    table = _table(model)
    wanted = graph.part.num_all_users + graph.num_items
    if len(table) != wanted:
        raise ArgumentError("model", f"have a row for each of the {wanted} users and items", len(table))
    first = graph.first_user
    items = graph.item_rows.own(table[graph.part.num_all_users :])
    part = _sized(model, torch.cat([table[first : first + graph.num_users], items]))
    form_of(part, graph)
    return part


@torch.no_grad()
def whole_model(model: nn.Module, graph: ShardGraph) -> nn.Module | None:
    """Return the whole model on rank 0, and ``None`` on the others.

    Args:
        model: The part of the model.
        graph: The part of the graph.
    """
    table = _table(model).detach()
    users, items = graph.ranks.gather(table[: graph.num_users]), table[graph.num_users :]
    whole = graph.ranks.gather(items) if graph.item_rows.divided else items
    return None if users is None or whole is None else _sized(model, torch.cat([users, whole]))


def _table(model: nn.Module) -> nn.Parameter:
    names = [name for name, _ in model.named_parameters()]
    if names != [TABLE]:
        raise ArgumentError("model", "be lightgcn, lightgcn-positives or mf on several ranks", type(model).__name__)
    return model.get_parameter(TABLE)


def _sized(model: nn.Module, table: Tensor) -> nn.Module:
    """Return a copy of a model with another table."""
    made = copy.deepcopy(model, {id(_table(model)): nn.Parameter(table)})
    for module in (made, made.get_submodule(TABLE.partition(".")[0])):
        for name in ("num_nodes", "num_embeddings"):
            if hasattr(module, name):
                setattr(module, name, len(table))
    return made
