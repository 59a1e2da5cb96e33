"""What the corrections of a part share: the start, and the fit of the neighbours of emptied users and items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.model import TABLE, drawn_rows
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.distributed.risk import shard_risk
from graphunlearn.func.blocks import inner
from graphunlearn.func.solve import Dot
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.shared.journal import Journal
from graphunlearn.operators.shared.refit import Noise, fit_rows, redrawn_risk
from graphunlearn.operators.shared.ridge import Ridges
from graphunlearn.operators.shared.right_hand_side import with_affordable
from graphunlearn.operators.shared.span import moments, without_span
from graphunlearn.operators.shared.warm_start import FEW, fresh_seed, kept_share

__all__ = ["any_emptied", "refit_part", "start_part"]

_AT_ONCE = 2_000  # small matrices that are summed over ranks at a time


def any_emptied(graph: ShardGraph, retained: ShardGraph) -> int:
    """Return how many users and items of the whole graph lost all their interactions.

    Args:
        graph: The part before forgetting.
        retained: The retained part.
    """
    users, items = graph.emptied(retained).split([graph.num_users, graph.num_items])
    return int(graph.ranks.number(int(users.sum()))) + int(items.sum())


@torch.no_grad()
def start_part(model: nn.Module, graph: ShardGraph, retained: ShardGraph, seed: int, *, scale: bool = True) -> int:
    """Scale the rows of touched users and items, and redraw those of emptied ones, in place.

    This is :func:`~graphunlearn.operators.shared.warm_start.warm_start` on several ranks.

    Args:
        model: The part of the model.
        graph: The part before forgetting.
        retained: The retained part.
        seed: Seed of the redrawn rows.
        scale: Whether to scale rows.

    Returns:
        The number of touched users and items of the whole graph.
    """
    ranks, table = graph.ranks, model.get_parameter(TABLE)
    share = kept_share(graph, retained)
    touched = share < 1
    if scale:
        own = graph.own_rows(share)
        table[own < 1] *= own[own < 1].to(table.dtype).unsqueeze(1)
    if any_emptied(graph, retained):
        fresh = drawn_rows(graph, table.size(1), fresh_seed(seed), table.dtype).to(table.device)
        emptied, active = graph.own_rows(graph.emptied(retained)), graph.own_rows(graph.active)
        for side, among in zip(_sides(graph), (ranks, ranks if graph.item_rows.divided else Ranks())):
            rows = emptied[side].nonzero().view(-1) + side.start
            idle = (~active[side]).nonzero().view(-1) + side.start
            table[rows] = fresh[rows] + _drift(table[idle], among)
    users, items = touched.split([graph.num_users, graph.num_items])
    return int(ranks.number(int(users.sum()))) + int(items.sum())


def _sides(graph: ShardGraph) -> tuple[slice, slice]:
    """Return where the rows of users and those of items are in the table of this rank."""
    return slice(0, graph.num_users), slice(graph.num_users, graph.num_rows)


def _drift(idle: Tensor, ranks: Ranks) -> Tensor:
    """Return the mean of rows that all ranks hold parts of; zero for few rows ``[dim]``."""
    number = ranks.number(len(idle))
    total = ranks.total(idle.sum(0))
    return total / number if number >= FEW else torch.zeros_like(total)


@torch.no_grad()
def refit_part(
    model: nn.Module,
    trained: nn.Module,
    graph: ShardGraph,
    retained: ShardGraph,
    removed: Tensor,
    objective: Objective,
    *,
    negatives: int = 32,
    noise: Noise = "projected",
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Fit the items of emptied users, and the users of emptied items, to what remains, in place.

    This is :func:`~graphunlearn.operators.shared.refit.refit_neighbours` on several ranks.

    Args:
        model: The part of the model, after rows of emptied nodes were redrawn.
        trained: The part of the trained model.
        graph: The part before forgetting.
        retained: The retained part.
        removed: Mask of the forgotten interactions of this rank ``[num_interactions]``.
        objective: The loss.
        negatives: Negatives per interaction, if the loss draws fewer.
        noise: As there.
        journal: As there.

    Returns:
        A log, as that of one process.
    """
    if not any_emptied(graph, retained):
        return {}
    ranks = graph.ranks
    objective = with_affordable(objective, graph.count(), negatives)
    risk, before = shard_risk(model, retained, objective), shard_risk(trained, graph, objective)
    table = trained.get_parameter(TABLE).detach()
    gradient = before.gradient(before.parameters).view_as(table)
    encoded = before.encode(before.parameters)
    share = graph.own_rows(kept_share(graph, retained))
    gone, items = graph.emptied(retained).split([graph.num_users, graph.num_items]), graph.item_rows
    ridges, log = Ridges(before, gradient), dict[str, Any]()
    for side, own in (("users", 0), ("items", 1)):
        divided = own == 0 or items.divided  # whether no two ranks hold the same rows
        dot = _dot_of(ranks, divided)
        lost = graph.pairs[:, removed & gone[1 - own][graph.pairs[1 - own]]]
        near = torch.zeros(len(gone[own]), dtype=torch.int32, device=lost.device)
        near[lost[own]] = 1
        if own == 1:
            ranks.total_(near)
        nodes = ((near > 0) & ~gone[own]).nonzero().view(-1)
        number = len(nodes) if own else int(ranks.number(len(nodes)))
        here = torch.ones_like(nodes, dtype=torch.bool)
        if own and items.divided:
            here = (nodes >= items.first) & (nodes < items.last)
        log[side] = number
        if not number:
            continue
        place = _sides(graph)[own]
        ridge = ridges(own, place, dot)
        rows = nodes[here] + place.start - (items.first if own else 0)
        whole = gradient[rows] + ridge * table[rows]
        terms = [whole] if noise != "projected" else []
        if noise != "whole":
            other = (encoded.items, encoded.queries)[own]
            parts, sizes = [table[:0]], [int(part.sum()) for part in here.split(_AT_ONCE)]
            for chosen, mine, some in zip(nodes.split(_AT_ONCE), here.split(_AT_ONCE), whole.split(sizes)):
                if not len(chosen):
                    continue
                moment = torch.cat([found for _, found in moments(lost, own, chosen, other)])
                parts.append(without_span(some, (ranks.total(moment) if own else moment)[mine]))
            terms.insert(0, torch.cat(parts))
        square = share[rows].to(table.dtype).square().unsqueeze(1)
        noises = [square * term for term in terms]
        others = redrawn_risk(risk, retained, own, nodes, ranks.number) if len(noises) > 1 else None
        fitted, steps = fit_rows(risk, model.get_parameter(TABLE), rows, ridge, noises, others, dot=dot)
        if journal is not None:
            journal.keep(model.get_parameter(TABLE), rows)
        model.get_parameter(TABLE)[rows] = fitted
        log |= {f"ridge_{side}": ridge} | {f"{name}_{side}": steps[name] for name in steps}
    return log


def _dot_of(ranks: Ranks, divided: bool) -> Dot:
    """Return the inner product of rows of which each rank holds some, or of rows that all ranks hold."""

    def dot(a: Tensor, b: Tensor) -> float:
        return ranks.number(inner(a, b) if divided or ranks.first else 0.0)

    return dot
