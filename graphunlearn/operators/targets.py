"""What a forgotten interaction should score, estimated from pairs that the model never saw."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encode import Encoded, score
from graphunlearn.nn.negatives import draw_negatives
from graphunlearn.operators.removal import neighbour_means

__all__ = ["neighbourhood_targets", "unseen_pairs"]


@torch.no_grad()
def neighbourhood_targets(
    graph: InteractionGraph, encoded: Encoded, pairs: Tensor, *, seed: int = 0, num_pairs: int = 16384
) -> Tensor:
    r"""Predict the scores of ``pairs`` as if the model had never been trained on them.

    A forgotten pair is one among the never-seen pairs of a retrained model. So the scores of pairs that are not in
    ``graph`` (a few forgotten ones may be among them) are regressed, by a ridge with squares, products and some cubes,
    on what the two neighbourhoods say: with the mean :math:`m_v` of the neighbours' rows and the mean :math:`m^2_v` of
    those, the products of the :math:`m`'s of both ends, the norms of :math:`m`, and the degrees. The rows of the two
    ends themselves, which remember the pair, are not looked at.

    Args:
        graph: The retained graph.
        encoded: The model on it.
        pairs: Pairs ``[2, num]`` whose ends have neighbours left.
        seed: Seed of the pairs that the regression is fitted to.
        num_pairs: How many of those, half uniform, half reached by a walk of three steps.

    Returns:
        The scores ``[num]``.
    """
    if pairs.size(1) == 0:
        return encoded.users.new_zeros(0)
    rows = torch.cat([encoded.users, encoded.items])
    mean = neighbour_means(graph, rows)
    second, norm = neighbour_means(graph, mean), mean.norm(dim=1)
    degree = torch.log1p(graph.adjacency.degree.to(rows.dtype))

    def describe(pairs: Tensor) -> Tensor:
        u, i = pairs[0], pairs[1] + graph.num_users
        dots = [(a[u] * b[i]).sum(1) for a in (mean, second) for b in (mean, second)]
        return torch.stack([*dots, norm[u], norm[i], degree[u], degree[i]], 1)

    unseen = unseen_pairs(graph, num_pairs, seed)
    known = describe(unseen)
    center, scale = known.mean(0), known.std(0).clamp(min=1e-6)

    def design(features: Tensor) -> Tensor:
        x = ((features - center) / scale).clamp(-4, 4).double()
        a, b = torch.triu_indices(x.size(1), x.size(1), device=x.device)
        return torch.cat([torch.ones_like(x[:, :1]), x, x[:, a] * x[:, b], x[:, :4] ** 3], 1)

    x, y = design(known), score(encoded, unseen).double()
    normal = x.t() @ x / len(x) + 1e-3 * torch.eye(x.size(1), dtype=x.dtype, device=x.device)
    return (design(describe(pairs)) @ torch.linalg.solve(normal, x.t() @ y / len(x))).to(rows.dtype)


def unseen_pairs(graph: InteractionGraph, num: int, seed: int) -> Tensor:
    """Draw up to ``num`` pairs that the graph does not hold: half uniform, half near to what users have.

    Args:
        graph: Its users count by their interactions.
        num: Number of pairs; those that turn out to be interactions are left out.
        seed: Seed of the draw.

    Returns:
        Pairs ``[2, at most num]``.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1], [0, 1, 1]]))
        >>> unseen_pairs(graph, 8, seed=0).unique(dim=1)
        tensor([[1],
                [0]])
    """
    generator, adjacency = torch.Generator().manual_seed(seed), graph.adjacency
    chosen = torch.randint(graph.num_interactions, (num,), generator=generator).to(graph.pairs.device)
    users, items = graph.pairs[:, chosen]
    uniform = draw_negatives(graph, users[: num // 2], items[: num // 2], 1, seed).view(-1)
    node = items[num // 2 :] + graph.num_users
    for _ in range(2):  # to someone with the item, to something they have
        place = (torch.rand(len(node), generator=generator).to(node.device) * adjacency.degree[node]).long()
        node = adjacency.col[adjacency.rowptr[node].long() + place].long()
    pairs = torch.stack([users, torch.cat([uniform, node - graph.num_users])])
    held = graph.pairs[0] * graph.num_items + graph.pairs[1]
    return pairs[:, ~torch.isin(pairs[0] * graph.num_items + pairs[1], held)]
