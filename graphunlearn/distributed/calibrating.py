"""Calibrate on several ranks: every rank steers the forgotten pairs of its users."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from graphunlearn.distributed.adjacency import ShardMatrix
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.model import TABLE, form_of
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.distributed.starting import any_emptied, refit_part, start_part
from graphunlearn.distributed.targets import shard_targets
from graphunlearn.errors import ArgumentError
from graphunlearn.func import PairPattern, conjugate_gradients
from graphunlearn.nn.encoding import Encoded, LinearForm, encode
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators import Calibrate

__all__ = ["calibrate_part", "check_calibrate", "steer_part"]

_ITERATIONS = 15


def check_calibrate(method: Calibrate) -> None:
    """Check that all options of a method have a form on several ranks.

    Args:
        method: The method.

    Raises:
        ArgumentError: An option has none.
    """
    if method.epochs:
        raise ArgumentError("epochs", "be 0 on several ranks", method.epochs)


def calibrate_part(
    method: Calibrate, model: nn.Module, graph: ShardGraph, retained: ShardGraph, removed: Tensor
) -> dict[str, Any]:
    """Correct the part of a model in place, as :class:`~graphunlearn.Calibrate` corrects a whole one.

    Args:
        method: The method.
        model: The part to correct, which is that of the trained model.
        graph: The part before forgetting.
        retained: The retained part.
        removed: Mask of the forgotten interactions of this rank ``[num_interactions]``.

    Returns:
        The log, the same on all ranks.
    """
    ranks, objective = graph.ranks, method.objective or default_objective(graph)
    pairs, emptied = graph.pairs[:, removed], graph.emptied(retained)
    pairs = pairs[:, ~(emptied[pairs[0]] | emptied[pairs[1] + graph.num_users])]
    number, gone = int(ranks.number(pairs.size(1))), any_emptied(graph, retained)
    trained = copy.deepcopy(model) if gone else None
    log: dict[str, Any] = {"touched_rows": start_part(model, graph, retained, method.seed, scale=method.shrink)}
    log |= {"steered": number, "emptied_nodes": gone}
    if trained is not None:
        log["refit"] = refit_part(model, trained, graph, retained, removed, objective, noise=method._noise)
    log["rounds"] = []
    for _ in range(method.rounds if number else 0):
        with torch.no_grad():
            encoded = encode(model, retained)
        target = shard_targets(retained, encoded, pairs, seed=method.seed)
        log["rounds"].append(steer_part(model, retained, pairs, target, encoded, number))
    return log


@torch.no_grad()
def steer_part(
    model: nn.Module,
    graph: ShardGraph,
    pairs: Tensor,
    target: Tensor,
    encoded: Encoded,
    number: int,
    *,
    rounds: int = 2,
    floor: float = 0.3,
    damping: float = 0.01,
) -> list[float]:
    """Move the scores of pairs of all ranks to targets, in place, as ``steer`` of one process does.

    Args:
        model: The part of the model.
        graph: The part to propagate on.
        pairs: The pairs of this rank ``[2, num_pairs]``.
        target: Their targets ``[num_pairs]``.
        encoded: The encoding of the part.
        number: The number of pairs of all ranks.
        rounds: Number of steps.
        floor: As in ``steer``.
        damping: As in ``steer``.

    Returns:
        The mean absolute error of the scores of all ranks before every step and at the end.

    Raises:
        ArgumentError: The model has no layer 0 in its embeddings.
    """
    ranks, form, table = graph.ranks, form_of(model, graph), model.get_parameter(TABLE)
    if form.alpha[0] <= 0:
        raise ArgumentError("model", "have a share of layer 0 to be calibrated on several ranks", f"{form.alpha}")
    rows = torch.cat([encoded.queries, encoded.items])
    sizes, held = [graph.num_users, graph.num_item_rows], graph.item_rows
    weight = 1.0 + graph.own_rows(graph.degree).to(table.dtype)
    diagonal = _own_weight(form, table)
    gain = diagonal.square() / weight
    step = (diagonal / weight).unsqueeze(1)
    pattern = PairPattern(pairs[0], pairs[1], (graph.num_users, graph.num_items))
    image = _metric(rows, graph, floor)

    def dot(a: Tensor, b: Tensor) -> float:
        return ranks.number(float(a @ b))

    def two(x: Tensor) -> tuple[Tensor, Tensor]:
        users, items = x.split(sizes)
        return users.contiguous(), held.whole(items.contiguous())

    errors = []
    for _ in range(rounds):
        users, items = two(rows)
        user_images, item_images = two(rows @ image)

        def wanted(y: Tensor, item_images: Tensor = item_images, user_images: Tensor = user_images) -> Tensor:
            back = held.summed_(pattern.transposed.matmul(y, user_images).contiguous())
            return torch.cat([pattern.matmul(y, item_images), back])

        def kernel(y: Tensor, users: Tensor = users, items: Tensor = items) -> Tensor:
            to_users, to_items = two(gain.unsqueeze(1) * wanted(y))
            return pattern.dots(to_users, items) + pattern.dots(users, to_items)

        residual = target - pattern.dots(users, items)
        errors.append(ranks.number(float(residual.abs().sum())) / number)
        own, other = two(gain)
        of_pairs = own[pairs[0]] * (items * item_images).sum(1)[pairs[1]]
        of_pairs += other[pairs[1]] * (users * user_images).sum(1)[pairs[0]]
        ridge = damping * ranks.number(float(of_pairs.sum())) / number
        inverse = (of_pairs + ridge).clamp(min=torch.finfo(of_pairs.dtype).tiny).reciprocal()
        solved = conjugate_gradients(
            kernel,
            residual,
            damping=ridge,
            preconditioner=lambda r, inverse=inverse: inverse * r,  # type: ignore[misc]
            tol=0.05,
            max_iter=_ITERATIONS,
            dot=dot,
        )
        change = step * wanted(solved.x)
        effect = form.propagate(change)
        moved = two(effect)
        first = pattern.dots(moved[0], items) + pattern.dots(users, moved[1])
        length = _length(residual, first, pattern.dots(*moved), ranks)
        table.add_(length * change)
        rows = rows + length * effect
    errors.append(ranks.number(float((target - pattern.dots(*two(rows))).abs().sum())) / number)
    return errors


def _own_weight(form: LinearForm, table: Tensor) -> Tensor:
    r"""Return :math:`\alpha_0 + \alpha_2 (\hat A^2)_{vv}` ``[num_nodes]``."""
    diagonal = table.new_full((len(table),), form.alpha[0])
    if form.matrix is not None and len(form.alpha) > 2:
        diagonal += form.alpha[2] * cast(ShardMatrix, form.matrix).row_squares().to(table.dtype)
    return diagonal


def _metric(rows: Tensor, graph: ShardGraph, floor: float) -> Tensor:
    """Return the inverse of the mean outer product over users of all ranks and over items ``[dim, dim]``."""
    users, items = rows[: graph.num_users], rows[graph.num_users :]
    of_users = graph.ranks.total(users.t() @ users) / graph.part.num_all_users
    of_items = items.t() @ items
    if graph.item_rows.divided:
        of_items = graph.ranks.total(of_items)
    mean = 0.5 * (of_users + of_items / graph.num_items)
    scale = mean.trace() / len(mean)
    identity = torch.eye(len(mean), dtype=rows.dtype, device=rows.device)
    return torch.linalg.inv(mean / scale.clamp(min=torch.finfo(rows.dtype).tiny) + floor * identity)


def _length(residual: Tensor, first: Tensor, second: Tensor, ranks: Ranks) -> float:
    """Return the step near 1 that brings the scores of all ranks nearest to their targets."""
    length = 1.0
    for _ in range(4):
        slope = first + 2 * length * second
        square = ranks.number(float(slope @ slope))
        if square == 0:
            return 1.0
        length += ranks.number(float((residual - length * first - length**2 * second) @ slope)) / square
        length = min(max(length, 0.001), 2.0)
    return length
