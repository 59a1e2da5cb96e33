"""The kinds of simulated requests: the interactions that a probe leaves out, and the pairs that are added to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.func import csr
from graphunlearn.operators.shared.neighbours import random_walk

__all__ = ["INJECTED", "REMOVED", "Drawn", "draw_injected", "draw_removed"]

_CHUNK = 256  # users whose similarities to all items are computed at a time
_POPULAR, _NICHE = 0.5, 0.2  # shares of the interactions that belong to popular and to niche items
_BURSTS = 12  # fewest items that are promoted
_WALKS = 8  # random walks per plausible pair, since most of them end at an item that the user holds
_FACTOR = (0.3, 4.0)  # added interactions of a promoted item, as a multiple of those that it has


@dataclass(frozen=True)
class Drawn:
    """Drawn pairs in groups. A group is forgotten as a whole or not at all.

    Args:
        pairs: The pairs ``[2, num]``.
        group: The number of the group of each pair ``[num]``.
    """

    pairs: Tensor
    group: Tensor

    def only(self, mask: Tensor) -> Drawn:
        """Return the pairs in a boolean ``mask`` ``[num]``."""
        return Drawn(self.pairs[:, mask], self.group[mask])


# ---- left out


def draw_removed(graph: InteractionGraph, share: float, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw interactions of the graph to leave out, by kind; no interaction belongs to two kinds.

    * ``scattered``: interactions chosen independently of each other;
    * ``users``: 30 % or more of the interactions of random users;
    * ``items``: 30 % or more of the interactions of random items, so that the request is concentrated on few items;
    * ``popular``: scattered interactions of the most popular items, which hold half of all interactions;
    * ``niche``: scattered interactions of the least popular items, which hold a fifth of all interactions;
    * ``clustered``: interactions between users of one item and items of one of these users.

    Args:
        graph: The graph.
        share: Approximate share of all interactions to draw, the same for every kind.
        generator: Generator of all draws.

    Returns:
        For every kind, the indices of the interactions ``[num]`` and their groups ``[num]``. The indices of one kind
        may be empty on small graphs.
    """
    budget = round(share * graph.num_interactions / len(REMOVED))
    taken = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.pairs.device)
    drawn = {}
    for name, draw in REMOVED.items():
        index, group = draw(graph, budget, generator) if budget else (graph.pairs[0, :0], graph.pairs[0, :0])
        fresh = ~taken[index]
        drawn[name] = index[fresh], group[fresh]
        taken[index] = True
    return drawn


def _users(graph: InteractionGraph, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _of_nodes(graph, 0, graph.num_users, budget, generator)


def _items(graph: InteractionGraph, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _of_nodes(graph, graph.num_users, graph.num_nodes, budget, generator)


def _of_nodes(
    graph: InteractionGraph, start: int, stop: int, budget: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a large share of the interactions of random nodes; the nodes are the groups."""
    device, degree = graph.pairs.device, graph.adjacency.degree
    nodes = start + torch.randperm(stop - start, generator=generator)
    losses = 0.3 + 0.65 * torch.rand(len(nodes), generator=generator)
    size = torch.cumsum(degree[nodes.to(device)].cpu() * losses.double(), 0)
    few = int((size <= budget).sum())
    nodes, losses = nodes[: max(1, few)].to(device), losses[: max(1, few)].to(device)
    owner = torch.repeat_interleave(torch.arange(len(nodes), device=device), degree[nodes].long())
    hit = torch.rand(len(owner), generator=generator).to(device) < losses[owner]
    return graph.adjacency.interaction[graph.adjacency.entries(nodes)[hit]].long(), owner[hit]


def _scattered(graph: InteractionGraph, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _some(torch.arange(graph.num_interactions, device=graph.pairs.device), budget, generator)


def _popular(graph: InteractionGraph, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _some((_rank(graph) <= _POPULAR * graph.num_interactions).nonzero().view(-1), budget, generator)


def _niche(graph: InteractionGraph, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _some((_rank(graph) > (1 - _NICHE) * graph.num_interactions).nonzero().view(-1), budget, generator)


def _rank(graph: InteractionGraph) -> Tensor:
    """Return how many interactions the item of each interaction and more popular items have ``[num_interactions]``."""
    degree = graph.adjacency.degree[graph.num_users :].long()
    order = degree.argsort(descending=True, stable=True)
    rank = torch.empty_like(degree)
    rank[order] = torch.cumsum(degree[order], 0)
    return rank[graph.pairs[1]]


def _some(index: Tensor, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return some of the interactions, each in a group of its own."""
    chosen = index[torch.randperm(len(index), generator=generator)[:budget].to(index.device)]
    return chosen, torch.arange(len(chosen), device=index.device)


def _clustered(graph: InteractionGraph, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return interactions within neighbourhoods; the neighbourhoods are the groups."""
    found, groups, count, adjacency = [], [], 0, graph.adjacency
    for number, seed in enumerate(torch.randperm(graph.num_interactions, generator=generator).tolist()):
        user, item = graph.pairs[:, seed]
        users = _sample(adjacency.neighbors(item.view(1) + graph.num_users), 24, generator)
        items = _sample(adjacency.neighbors(user.view(1)), 24, generator)
        entries = adjacency.entries(users)
        entries = entries[torch.isin(adjacency.col[entries], items.to(adjacency.col.dtype))]
        hit = torch.rand(len(entries), generator=generator) < 0.3 + 0.6 * torch.rand(1, generator=generator)
        found.append(adjacency.interaction[entries[hit.to(entries.device)]].long())
        groups.append(torch.full_like(found[-1], number))
        count += len(found[-1])
        if count >= budget:
            break
    index, inverse = torch.unique(torch.cat(found), return_inverse=True)
    group = torch.full_like(index, graph.num_interactions)  # the first group keeps what two groups hold
    group = group.scatter_reduce(0, inverse, torch.cat(groups), "amin")
    return index, group


def _sample(nodes: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return nodes[torch.randperm(len(nodes), generator=generator)[:most].to(nodes.device)].long()


REMOVED: dict[str, Callable[[InteractionGraph, int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "scattered": _scattered,
    "users": _users,
    "items": _items,
    "clustered": _clustered,
    "popular": _popular,
    "niche": _niche,
}
"""How the interactions of each kind that a probe leaves out are drawn; see :func:`draw_removed`."""


# ---- injected


def draw_injected(graph: InteractionGraph, budget: int, generator: torch.Generator) -> dict[str, Drawn]:
    """Draw pairs that are not in the graph to add to it, by rule; no pair is drawn twice.

    * ``random``: a random user and a random item;
    * ``popular``: a random user and an item drawn in proportion to its interactions;
    * ``dissimilar``: a random user and one of the third of all items that are least similar to those of the user;
    * ``plausible``: the ends of random walks of three steps;
    * ``bursts``: random users who all get the same random item, 0.3 to 4 times as many as the item has already;
    * ``erratic``: random items for a user, up to as many as the user has.

    Items with a single interaction and users with a single interaction get none. No rule looks at the scores of a
    model.

    Args:
        graph: The graph.
        budget: Approximate number of pairs of every rule; there are more of ``bursts``, where it takes more to promote
            several items.
        generator: Generator of all draws.

    Returns:
        The pairs of every rule. Promoted items and erratic users are groups; any other pair is a group of its own. A
        rule may find no pair on small or dense graphs.
    """
    held = graph.pairs[0] * graph.num_items + graph.pairs[1]
    drawn = {}
    for name, draw in INJECTED.items():
        found = draw(graph, budget, generator) if budget else Drawn(graph.pairs[:, :0], graph.pairs[0, :0])
        keys = found.pairs[0] * graph.num_items + found.pairs[1]
        found = found.only(_first_of(keys) & ~torch.isin(keys, held))
        if name not in ("bursts", "erratic"):
            found = found.only(torch.arange(len(found.group), device=keys.device) < budget)
        drawn[name] = replace(found, group=torch.unique(found.group, return_inverse=True)[1])
        held = torch.cat([held, found.pairs[0] * graph.num_items + found.pairs[1]])
    return drawn


def _first_of(keys: Tensor) -> Tensor:
    """Return a mask of the first occurrence of every key ``[num]``."""
    order = keys.argsort(stable=True)
    mask = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    mask[order[1:]] = keys[order[1:]] != keys[order[:-1]]
    return mask


def _able(graph: InteractionGraph) -> tuple[Tensor, Tensor]:
    """Return the users and the items with at least two interactions."""
    users, items = (graph.adjacency.degree > 1).split([graph.num_users, graph.num_items])
    return users.nonzero().view(-1), items.nonzero().view(-1)


def _draw(nodes: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Return ``num`` of the nodes, drawn with repetition; none if there are no nodes."""
    if not len(nodes):
        return nodes
    return nodes[torch.randint(len(nodes), (num,), generator=generator).to(nodes.device)]


def _single(users: Tensor, items: Tensor) -> Drawn:
    num = min(len(users), len(items))
    return Drawn(torch.stack([users[:num], items[:num]]), torch.arange(num, device=users.device))


def _random(graph: InteractionGraph, budget: int, generator: torch.Generator) -> Drawn:
    users, items = _able(graph)
    return _single(_draw(users, 2 * budget, generator), _draw(items, 2 * budget, generator))


def _by_popularity(graph: InteractionGraph, budget: int, generator: torch.Generator) -> Drawn:
    users, items = _able(graph)
    held = graph.pairs[1][torch.isin(graph.pairs[1], items)]
    return _single(_draw(users, 2 * budget, generator), _draw(held, 2 * budget, generator))


def _plausible(graph: InteractionGraph, budget: int, generator: torch.Generator) -> Drawn:
    users, items = _able(graph)
    users = _draw(users, _WALKS * budget, generator)
    node = random_walk(graph, users, 3, generator)
    ends = torch.isin(node - graph.num_users, items)
    return _single(users[ends], node[ends] - graph.num_users)


def _dissimilar(graph: InteractionGraph, budget: int, generator: torch.Generator) -> Drawn:
    r"""Rank items by :math:`(\hat A^3)_{ui} / \sqrt{d_i}`, the normalised number of paths of three steps."""
    able, items = _able(graph)
    users = _draw(able, budget, generator)
    if not len(users) or not len(items):
        return _single(users, items)
    adjacency = graph.adjacency
    scale = adjacency.degree.clamp(min=1).double().rsqrt()
    rows = torch.repeat_interleave(scale, adjacency.degree)
    size = (graph.num_nodes, graph.num_nodes)
    matrix = csr(adjacency.rowptr, adjacency.col, rows * scale[adjacency.col.long()], size)
    depth = torch.rand(len(users), generator=generator).to(users.device) / 3
    chosen = []
    for batch, quantile in zip(users.split(_CHUNK), depth.split(_CHUNK)):
        paths = torch.zeros(graph.num_nodes, len(batch), dtype=torch.double, device=users.device)
        paths[batch, torch.arange(len(batch), device=users.device)] = 1
        for _ in range(3):
            paths = matrix @ paths
        order = (paths * scale.unsqueeze(1))[items + graph.num_users].argsort(dim=0, stable=True)
        place = (quantile * len(items)).long()
        chosen.append(items[order.gather(0, place.unsqueeze(0)).squeeze(0)])
    return _single(users, torch.cat(chosen))


def _bursts(graph: InteractionGraph, budget: int, generator: torch.Generator) -> Drawn:
    users, items = _able(graph)
    degree = graph.adjacency.degree[graph.num_users :]
    low, high = (torch.tensor(value).log() for value in _FACTOR)
    parts, count = [], 0
    for item in _sample(items, len(items), generator).tolist():
        factor = (low + (high - low) * torch.rand(1, generator=generator)).exp()
        num = min(max(2, round(float(factor) * int(degree[item]))), len(users) // 4)
        chosen = _sample(users, num, generator)
        parts.append(torch.stack([chosen, torch.full_like(chosen, item)]))
        count += num
        if count >= budget and len(parts) >= _BURSTS:
            break
    pairs = torch.cat(parts, 1) if parts else graph.pairs[:, :0]
    return Drawn(pairs, pairs[1])


def _erratic(graph: InteractionGraph, budget: int, generator: torch.Generator) -> Drawn:
    users, items = _able(graph)
    parts, count = [], 0
    for user in _sample(users, len(users), generator).tolist():
        most = int(graph.adjacency.degree[user])
        num = max(1, round(most * float(torch.rand(1, generator=generator))))
        chosen = _sample(items, num, generator)
        parts.append(torch.stack([torch.full_like(chosen, user), chosen]))
        count += num
        if count >= budget:
            break
    pairs = torch.cat(parts, 1) if parts else graph.pairs[:, :0]
    return Drawn(pairs, pairs[0])


INJECTED: dict[str, Callable[[InteractionGraph, int, torch.Generator], Drawn]] = {
    "random": _random,
    "popular": _by_popularity,
    "dissimilar": _dissimilar,
    "plausible": _plausible,
    "bursts": _bursts,
    "erratic": _erratic,
}
"""How the pairs of each rule that are added to a probe are drawn; see :func:`draw_injected`."""
