r"""Correct the embeddings that emptied users left a trace in, by one Newton step per item (and the same for items)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, encode, linear_form
from graphunlearn.nn.training.objective import Objective, Sampled, Samples
from graphunlearn.operators.shared.steer import own_weight

__all__ = ["block_step", "emptied_rows_step", "node_curvatures"]

_SAMPLED = 50_000  # most interactions that the ridge is estimated from
_PAIRS = 1_000_000  # most pairs whose embeddings are gathered at a time
_SMALLEST = 0.01  # smallest ridge
_LENGTHS = (1.0, 0.5, 0.25, 0.125)  # lengths of a step, of which the first that the retained risk allows is taken


@torch.no_grad()
def block_step(gradient: Tensor, curvature: Tensor, ridge: float) -> Tensor:
    r"""Return the Newton steps :math:`(H_v + \rho I)^{-1} g_v` of many small systems.

    Args:
        gradient: The right-hand sides :math:`g_v` ``[num, dim]``.
        curvature: The positive semi-definite matrices :math:`H_v` ``[num, dim, dim]``.
        ridge: The ridge :math:`\rho`, which must be positive.

    Returns:
        The steps ``[num, dim]``.

    Raises:
        RuntimeError: The ridge is not positive, and a matrix is singular.

    Example:
        >>> import torch
        >>> block_step(torch.tensor([[4.0]]), torch.tensor([[[3.0]]]), 1.0)
        tensor([[1.]])
    """
    identity = torch.eye(gradient.size(1), dtype=gradient.dtype, device=gradient.device)
    factor = torch.linalg.cholesky(curvature + ridge * identity)
    return torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)


@torch.no_grad()
def emptied_rows_step(
    model: nn.Module,
    graph: InteractionGraph,
    retained: InteractionGraph,
    removed: Tensor,
    objective: Objective,
    before: Encoded,
    *,
    factor: float = 3.0,
    negatives: int = 16,
    most_rise: float = 0.05,
) -> dict[str, Any]:
    r"""Correct the items of emptied users, and the users of emptied items, by one step per embedding, in place.

    Redrawing the embedding of a forgotten user removes what the model knows in that embedding. The items of the user
    were pulled towards it, and keep this trace. For every such item :math:`i`, the final embedding is moved by the
    Newton step that removes the samples of the emptied users, with all other embeddings fixed:

    .. math::
        e_i \leftarrow e_i + \frac{1}{P_{ii}}\,(H_i + \kappa\delta I)^{-1} g_i, \qquad
        g_i = \nabla_{z_i} \sum_{z \in D_r} \ell(z; \hat\theta, G), \qquad
        H_i = \sum_{s \in D_k,\, i \in s} \varphi''_s\, z_u z_u^\top

    * :math:`g_i` is the gradient at the final embedding :math:`z_i` of the trained model on the graph before
      forgetting, and includes the samples in which :math:`i` is a negative.
    * :math:`H_i` is the curvature that the retained samples with item :math:`i` have in :math:`z_i`; a sample in which
      :math:`i` is one of :math:`n` negatives has the weight :math:`1/n`.
    * :math:`\delta = -\sum_i \langle\nabla_{z_i} R, z_i\rangle / \sum_i \|z_i\|^2` is the ridge that is equivalent to
      early stopping, over all items.
    * :math:`P_{ii} = \alpha_0 + \alpha_2 (\hat A^2)_{ii}` is the share of a change of the layer-0 embedding that
      arrives in the final embedding of the same node.

    The factor :math:`\kappa = 3` was chosen on MovieLens-100K and confirmed on Last.fm; with 1 the step forgets too
    much, because neighbouring items correct the same trace. Where many active users are forgotten at once, up to a
    third of the trace is left. For emptied items the roles of users and items are exchanged. Models that do not
    propagate one table linearly are left unchanged, and so are models whose loss couples the margins of a sample, or
    cannot be computed on the retained graph.

    The quadratic model of the risk holds near the trained embeddings only. If the retained samples with a corrected
    node would lose more than ``most_rise`` of their risk, the step of that side is halved up to three times, and left
    out after that.

    Args:
        model: The model, after the embeddings of emptied nodes were redrawn; it is changed in place.
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        objective: The loss that the model was trained with.
        before: The encoding of the trained model on ``graph``.
        factor: The factor :math:`\kappa` of the ridge.
        negatives: Negatives per interaction, if the objective draws negatives and draws fewer.
        most_rise: Largest relative rise of the retained risk of the samples with a corrected node.

    Returns:
        A log: for each side, the number of corrected nodes, the ridge :math:`\delta`, the length of the step (0 if it
        was left out) and the relative rise of the retained risk; or the reason why nothing was corrected under
        ``"skipped"``. Empty if no node was emptied.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> request = gu.ForgetRequest("user", [graph.user_ids[3]])
        >>> retained, _ = graph.split(request)
        >>> before = gu.encode(model, graph)
        >>> log = emptied_rows_step(model, graph, retained, request.mask(graph), gu.BPR(), before)
        >>> log["corrected_users"], log["corrected_items"] > 0
        (0, True)
    """
    emptied = graph.emptied(retained)
    gone = emptied.split([graph.num_users, graph.num_items])
    if not bool(emptied.any()):
        return {}
    form = linear_form(model, retained)
    if form is None or form.alpha[0] <= 0:
        what = "does not propagate one table linearly" if form is None else "gives no weight to layer 0"
        return {"skipped": f"{type(model).__name__} {what}"}
    if type(objective).second is not Objective.second:
        return {"skipped": f"the margins of one sample of {type(objective).__name__} are coupled"}
    if isinstance(objective, Sampled) and objective.negatives < negatives:
        objective = objective.with_negatives(negatives)
    try:
        kept = objective.samples(retained).by_user()
    except ArgumentError as error:
        return {"skipped": f"the retained graph must {error.expected} (got {error.got})"}
    after, table = encode(model, retained), model.get_parameter(form.parameter)
    weight = own_weight(form, table)
    slope = _radial_slope(graph, objective, before)
    log: dict[str, Any] = {}
    for side, own, first in (("users", 0, 0), ("items", 1, graph.num_users)):
        log[f"corrected_{side}"] = 0
        lost = removed & gone[1 - own][graph.pairs[1 - own]]
        if not bool(lost.any()):
            continue
        gradient = _gradient(objective, objective.samples(graph, mask=lost), before, own)
        nodes = (gradient.abs().sum(1) > 0).logical_and(~gone[own]).nonzero().view(-1)
        ridge = max(slope / float((before.queries, before.items)[own].double().square().sum()), _SMALLEST)
        parts = node_curvatures(objective, kept, after, own, nodes)
        steps = [block_step(gradient[part], curvature, factor * ridge) for part, curvature in parts]
        change = torch.cat(steps) / weight[nodes + first].unsqueeze(1) if steps else table[:0]
        near = [torch.zeros(size, dtype=torch.bool, device=table.device) for size in kept.size]
        near[own][nodes] = True
        touched = kept.select(kept.touching(*near))
        length, rise = _move(model, retained, table, nodes + first, change, objective, touched, most_rise)
        log |= {f"corrected_{side}": len(nodes) if length else 0, f"ridge_{side}": ridge}
        log |= {f"length_{side}": length, f"rise_{side}": rise}
    return log


def _move(
    model: nn.Module,
    graph: InteractionGraph,
    table: Tensor,
    rows: Tensor,
    change: Tensor,
    objective: Objective,
    samples: Samples,
    most: float,
) -> tuple[float, float]:
    """Change rows of a table in place, as far as the risk of some samples allows.

    Returns:
        The length of the step, and the relative rise of the risk.
    """

    def risk() -> float:
        return float(objective(encode(model, graph), samples).double().sum())

    start, base = table[rows], risk()
    scale = max(abs(base), torch.finfo(torch.double).tiny)
    for length in _LENGTHS:
        table[rows] = start + length * change
        rise = (risk() - base) / scale
        if rise <= most or math.isinf(most):
            return length, rise
    table[rows] = start
    return 0.0, 0.0


def _margins(objective: Objective, samples: Samples, encoded: Encoded) -> Tensor:
    return objective.margins(samples.pattern.dots(encoded.queries, encoded.items), samples)


def _radial_slope(graph: InteractionGraph, objective: Objective, before: Encoded) -> float:
    r"""Return :math:`-\sum_i \langle\nabla_{z_i} R, z_i\rangle`, which is the same over users as over items.

    Margins are linear in the scores, so the sum is :math:`-\sum_s \frac1n \sum_k \varphi'(m_{sk})\,m_{sk}`.
    """
    mask = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.pairs.device)
    mask[:: max(1, graph.num_interactions // _SAMPLED)] = True
    samples = objective.samples(graph, mask=mask)
    margins = _margins(objective, samples, before)
    slope = (objective.phi(margins, samples)[1] * margins).double().mean(1).sum()
    return -float(slope) * graph.num_interactions / max(len(samples), 1)


def _gradient(objective: Objective, samples: Samples, encoded: Encoded, own: int) -> Tensor:
    """Return the gradient of the samples' loss in the final embeddings of users (``own`` 0) or items (1)."""
    margins = _margins(objective, samples, encoded)
    first = objective.phi(margins, samples)[1] / margins.size(1)
    values = objective.margins_transposed(first, samples)
    pattern = samples.pattern
    return pattern.matmul(values, encoded.items) if own == 0 else pattern.transposed.matmul(values, encoded.queries)


def node_curvatures(
    objective: Objective, samples: Samples, encoded: Encoded, own: int, nodes: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Yield nodes and their curvatures :math:`H_v`, without the L2 penalty, in parts that fit into memory.

    Args:
        objective: The loss; the margins of one sample must not interact.
        samples: The samples, sorted by user.
        encoded: The final embeddings.
        own: 0 for users, 1 for items.
        nodes: Internal ids of users or items, ascending ``[num]``.

    Yields:
        Some of the nodes ``[part]``, and the curvature in the final embedding of each ``[part, dim, dim]``.
    """
    if own == 0:
        size = encoded.queries.size(0)
        samples = samples.select(torch.isin(samples.users, nodes))
    else:
        size = encoded.items.size(0)
    margins = _margins(objective, samples, encoded)
    second = objective.phi(margins, samples)[2] / margins.size(1)
    if own == 0:
        owner, scale = samples.users.repeat_interleave(margins.size(1)), second.flatten()
        place = torch.arange(len(owner), device=owner.device)
    else:
        owner = samples.pattern.cols
        scale = objective.margins_transposed(second, samples).abs()
        place = torch.isin(owner, nodes).nonzero().view(-1)
        owner, scale = owner[place], scale[place]
    order = owner.argsort(stable=True)
    owner, scale, place = owner[order], scale[order].clamp(min=0).sqrt().unsqueeze(1), place[order]
    count = torch.bincount(owner, minlength=size)[nodes]
    ends = torch.cumsum(count, 0)
    start = 0
    while start < len(nodes):
        base = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, base + _PAIRS)))
        inside = slice(base, int(ends[stop - 1]))
        rows = _factors(objective, samples, encoded, own, place[inside]) * scale[inside]
        blocks = [block.t() @ block for block in rows.split(count[start:stop].tolist())]
        yield nodes[start:stop], torch.stack(blocks)
        start = stop


def _factors(objective: Objective, samples: Samples, encoded: Encoded, own: int, place: Tensor) -> Tensor:
    """Return the derivatives of margins in the embedding of their user, or of pairs in that of their item.

    The item of a pair is in one margin or, where it is the positive of a ranking, in each with the same user. The user
    of a sample is in all of its margins, whose derivatives are differences of items.
    """
    if own == 1:
        return encoded.queries.index_select(0, samples.pattern.rows[place])
    items = encoded.items[samples.pattern.cols]
    columns = [objective.margins(column, samples).flatten()[place] for column in items.unbind(1)]
    return torch.stack(columns, 1)
