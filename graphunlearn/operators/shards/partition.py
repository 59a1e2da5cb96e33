"""Balanced partitions of rows: k-means with a capacity, and clusters by optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.operators.shared.checks import check

__all__ = ["balanced_kmeans", "fill", "sinkhorn", "squared_distances", "transport_clusters"]

CHUNK = 1 << 16  # rows whose distances are computed at a time


def squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """Return the squared Euclidean distances ``[num, num_centres]``.

    Args:
        rows: The rows ``[num, dim]``.
        centres: The centres ``[num_centres, dim]``.
    """
    return torch.cat([torch.cdist(part, centres).square() for part in rows.split(CHUNK)])


def fill(closeness: Tensor, capacity: int) -> Tensor:
    """Assign rows to clusters, the closest pairs first, with at most ``capacity`` rows in a cluster.

    This equals a pass over all pairs of row and cluster in descending order of closeness that assigns a row to the
    cluster if the row is free and the cluster is not full.

    Args:
        closeness: Closeness of every row to every cluster ``[num, num_clusters]``.
        capacity: Largest number of rows in a cluster.

    Returns:
        The cluster of every row ``[num]``.

    Raises:
        ValueError: The clusters have fewer places than there are rows.

    Example:
        >>> import torch
        >>> fill(torch.tensor([[3.0, 0.0], [2.0, 1.0], [4.0, 0.0]]), 2)
        tensor([0, 1, 0])
    """
    num, width = closeness.shape
    wanted = f"be at least {-(-num // width)}, so that all rows have a place"
    check(wanted, lambda value: value * width >= num, capacity=capacity)
    members = torch.full((num,), -1, device=closeness.device)
    room, left = torch.full((width,), capacity, device=closeness.device), closeness.clone()
    waiting = torch.arange(num, device=closeness.device)
    while waiting.numel():
        best, cluster = left[waiting].max(1)
        order = best.argsort(descending=True, stable=True)
        cluster, waiting = cluster[order], waiting[order]
        one_hot = torch.nn.functional.one_hot(cluster, width)
        place = (one_hot.cumsum(0) * one_hot).sum(1)  # among those that want the same cluster, from 1
        last = (place == room[cluster]).nonzero().flatten()  # the first cluster that becomes full ends the round
        taken = waiting.numel() if not last.numel() else int(last[0]) + 1
        members[waiting[:taken]] = cluster[:taken]
        room -= torch.bincount(cluster[:taken], minlength=width)
        left[:, room == 0] = -torch.inf
        waiting = waiting[taken:].sort().values
    return members


def balanced_kmeans(
    sides: list[Tensor], num_clusters: int, *, seed: int, capacity: float = 1.2, rounds: int = 50
) -> Tensor:
    r"""Cluster rows by k-means with clusters of at most ``capacity`` times the mean size.

    .. math:: \operatorname{closeness}(x, c) = -\prod_j \|x^{(j)} - c^{(j)}\|^2

    A row has one part, or two as an interaction has: its user and its item. The centres start at random rows. Every
    round assigns the rows by :func:`fill` and moves the centres to the means of their rows, until nothing changes.

    Args:
        sides: The parts of the rows, each ``[num, dim]``.
        num_clusters: Number of clusters.
        seed: Seed of the first centres.
        capacity: Largest size of a cluster, relative to the mean size, at least 1.
        rounds: Largest number of rounds.

    Returns:
        The cluster of every row ``[num]``.

    Source: Chen et al., "Recommendation Unlearning", WWW 2022; its public code takes one number as the centre, the
    mean over all dimensions, and here it is the mean row.

    Example:
        >>> import torch
        >>> balanced_kmeans([torch.tensor([[0.0], [5.0], [0.1], [5.1]])], 2, seed=0, capacity=1.0).diff().abs()
        tensor([1, 1, 1])
    """
    num = len(sides[0])
    start = torch.randperm(num, generator=torch.Generator().manual_seed(seed))[:num_clusters]
    centres = [rows[start.to(rows.device)] for rows in sides]
    most, members = -int(-capacity * num // num_clusters), torch.full((num,), -1, device=sides[0].device)
    for _ in range(rounds):
        closeness = -squared_distances(sides[0], centres[0])
        for rows, centre in zip(sides[1:], centres[1:]):
            closeness = closeness * squared_distances(rows, centre)
        before, members = members, fill(closeness, most)
        if torch.equal(before, members):
            break
        centres = [_means(rows, members, centre) for rows, centre in zip(sides, centres)]
    return members


def _means(rows: Tensor, members: Tensor, centres: Tensor) -> Tensor:
    """Return the mean row of every cluster, and the centre given for a cluster without rows."""
    count = torch.bincount(members, minlength=len(centres)).unsqueeze(1)
    total = torch.zeros_like(centres).index_add(0, members, rows)
    return torch.where(count > 0, total / count.clamp(min=1), centres)


def sinkhorn(cost: Tensor, epsilon: float, iterations: int = 50) -> Tensor:
    r"""Return the entropic transport plan between uniform weights of rows and of columns.

    .. math::
        \min_P \langle P, C \rangle - \epsilon H(P) \quad\text{with}\quad
        P \mathbf 1 = \tfrac1n \mathbf 1, \; P^\top \mathbf 1 = \tfrac1k \mathbf 1

    Args:
        cost: The cost :math:`C` ``[n, k]``.
        epsilon: The weight :math:`\epsilon` of the entropy.
        iterations: Number of scalings of the rows and the columns, in logarithms.

    Returns:
        The plan ``[n, k]``; its columns have the exact sums.

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013.

    Example:
        >>> import torch
        >>> sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1).round(decimals=3)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    n, k = cost.shape
    kernel = -cost / epsilon
    rows, columns = -kernel.new_tensor(n).log(), -kernel.new_tensor(k).log()
    g = kernel.new_zeros(k)
    for _ in range(iterations):
        f = rows - torch.logsumexp(kernel + g, 1)
        g = columns - torch.logsumexp(kernel + f.unsqueeze(1), 0)
    return (kernel + f.unsqueeze(1) + g).exp()


def transport_clusters(
    rows: Tensor, num_clusters: int, *, seed: int, epsilon: float = 0.05, rounds: int = 10
) -> Tensor:
    """Cluster rows into clusters of about equal size by entropic optimal transport.

    The centres start at random rows. Every round computes the transport plan (:func:`sinkhorn`) between rows and
    centres for the squared distances, assigns every row to the centre that receives most of it, and moves the centres
    to the means of their rows, until nothing changes.

    Args:
        rows: The rows ``[num, dim]``.
        num_clusters: Number of clusters.
        seed: Seed of the first centres.
        epsilon: Weight of the entropy, relative to the mean cost.
        rounds: Largest number of rounds.

    Returns:
        The cluster of every row ``[num]``.

    Source: Li et al., "UltraRE: Enhancing RecEraser for Recommendation Unlearning via Error Decomposition", NeurIPS
    2023, from its abstract and summaries; the weight of the entropy is a choice of this package.

    Example:
        >>> import torch
        >>> transport_clusters(torch.tensor([[0.0], [5.0], [0.1], [5.1]]), 2, seed=0).diff().abs()
        tensor([1, 1, 1])
    """
    start = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:num_clusters]
    centres, members = rows[start.to(rows.device)], torch.full((len(rows),), -1, device=rows.device)
    for _ in range(rounds):
        cost = squared_distances(rows, centres)
        plan = sinkhorn(cost, epsilon * max(float(cost.mean()), torch.finfo(cost.dtype).tiny))
        before, members = members, plan.argmax(1)
        if torch.equal(before, members):
            break
        centres = _means(rows, members, centres)
    return members
