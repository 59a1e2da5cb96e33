"""The spans of the embeddings of one side with which the nodes of the other side interact."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["moments", "without_span"]

_PAIRS = 1_000_000  # most pairs whose embeddings are gathered at a time
_MATRICES = 2_000  # most small matrices at a time
_TIGHT = 0.01  # regularisation of the projection, as a share of the mean eigenvalue


@torch.no_grad()
def without_span(vector: Tensor, moment: Tensor) -> Tensor:
    r"""Return many vectors without their components in the spans of some embeddings.

    With :math:`C = \sum_k z_k z_k^\top`, the vector :math:`\tau(C + \tau I)^{-1} v` is nearly the projection of
    :math:`v` on what is orthogonal to all :math:`z_k`; :math:`\tau` is a hundredth of the mean eigenvalue of :math:`C`.

    Args:
        vector: The vectors :math:`v` ``[num, dim]``.
        moment: The matrices :math:`C` ``[num, dim, dim]``; a vector whose matrix is zero is returned as it is.

    Returns:
        The vectors ``[num, dim]``.

    Example:
        >>> import torch
        >>> moment = torch.tensor([[[4.0, 0.0], [0.0, 0.0]]])
        >>> without_span(torch.tensor([[1.0, 1.0]]), moment)
        tensor([[0.0050, 1.0000]])
    """
    mean = moment.diagonal(dim1=1, dim2=2).mean(1)
    scaled = moment / torch.where(mean > 0, mean, 1.0).view(-1, 1, 1)
    identity = _TIGHT * torch.eye(vector.size(1), dtype=vector.dtype, device=vector.device)
    factor = torch.linalg.cholesky(scaled + identity)
    return _TIGHT * torch.cholesky_solve(vector.unsqueeze(2), factor).squeeze(2)


def moments(pairs: Tensor, own: int, nodes: Tensor, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    r"""Yield slices of ``nodes`` and their :math:`\sum zz^\top` ``[num, dim, dim]`` in parts that fit into memory.

    Args:
        pairs: Pairs of users and items ``[2, num_pairs]``.
        own: The side of the nodes: 0 for users, 1 for items.
        nodes: The nodes, ascending ``[num_nodes]``.
        rows: The embeddings of the other side.
    """
    size = int(nodes.max()) + 1
    keep = torch.isin(pairs[own], nodes)
    owner, other = pairs[own, keep], pairs[1 - own, keep]
    other = other[owner.argsort(stable=True)]
    count = torch.bincount(owner, minlength=size)[nodes]
    ends = torch.cumsum(count, 0)
    start = 0
    while start < len(nodes):
        base = int(ends[start - 1]) if start else 0
        stop = int(torch.searchsorted(ends, base + _PAIRS, right=True))
        stop = min(max(start + 1, stop), start + _MATRICES, len(nodes))
        found = rows.index_select(0, other[base : int(ends[stop - 1])])
        yield slice(start, stop), torch.stack([z.t() @ z for z in found.split(count[start:stop].tolist())])
        start = stop
