r"""Curvatures of the risk in single embeddings, and Newton steps of many small systems."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphunlearn.nn.encoding import Encoded
from graphunlearn.nn.training.objective import Objective, Samples

__all__ = ["block_step", "node_curvatures"]

_PAIRS = 1_000_000  # most pairs whose embeddings are gathered at a time


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


def _margins(objective: Objective, samples: Samples, encoded: Encoded) -> Tensor:
    return objective.margins(samples.pattern.dots(encoded.queries, encoded.items), samples)
