"""Simulated requests whose outcome is known: one more model, trained without some interactions and with some others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from graphunlearn.data import EDGE_TYPE, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.unlearnrec.features import Removal

__all__ = ["Pool", "Probe", "design_probe"]

_CHUNK, _MOST_ODD = 256, 2000  # users ranked at a time, and in all


@dataclass(frozen=True)
class Probe:
    """A graph to train one more model on, in place of the many that were retrained for real requests.

    The probe model never saw the former, so it tells how those score once they are forgotten; and the original never
    saw the latter, so it tells the same of them to the probe.

    Args:
        graph: The original graph without ``scattered`` and ``bundled``, with ``lowest`` and ``others``.
        scattered: Interactions of the original graph, chosen one by one ``[2, num_scattered]``.
        bundled: Interactions of users and items that lose much of what they have ``[2, num_bundled]``.
        bundle: Whose loss they belong to ``[num_bundled]``.
        lowest: Pairs that the original graph does not hold, and the original ranks lowest ``[2, num_lowest]``.
        others: Pairs that it does not hold, from anywhere in the ranking ``[2, num_others]``.
    """

    graph: InteractionGraph
    scattered: Tensor
    bundled: Tensor
    bundle: Tensor
    lowest: Tensor
    others: Tensor

    @property
    def left_out(self) -> Tensor:
        """All that the probe does without ``[2, num_left_out]``."""
        return torch.cat([self.scattered, self.bundled], 1)


@dataclass(frozen=True)
class Pool:
    """Interactions that can be forgotten from a model, and what they score once they are.

    Args:
        model: A model that learned them.
        graph: What it was trained on.
        pairs: The interactions ``[2, num]``.
        target: Their scores by a model that never saw them ``[num]``.
        group: Interactions of the same number ``[num]`` are forgotten together or not at all, since the target knows
            nothing of those that stay.
    """

    model: nn.Module
    graph: InteractionGraph
    pairs: Tensor
    target: Tensor
    group: Tensor

    def split(self, share: float, generator: torch.Generator) -> tuple[Pool, Pool]:
        """Return two pools, the second with about ``share`` of the groups."""
        groups, group = torch.unique(self.group, return_inverse=True)
        drawn = torch.rand(len(groups), generator=generator)
        second = drawn < share
        if len(groups) > 1:  # neither part may be empty
            second[drawn.argmin()], second[drawn.argmax()] = True, False
        chosen = second.to(group.device)[group]
        return self.only(~chosen), self.only(chosen)

    def only(self, mask: Tensor) -> Pool:
        """Return the pool of the interactions in a boolean mask ``[num]``."""
        return replace(self, pairs=self.pairs[:, mask], target=self.target[mask], group=self.group[mask])

    def requests(self, sizes: Sequence[float], generator: torch.Generator) -> Iterator[tuple[Removal, Tensor]]:
        """Yield simulated requests, each with the scores that its interactions should end at.

        Args:
            sizes: Number of interactions to forget for every request, at least; up to 1 it is a share of the pool.
            generator: Draws what is forgotten.
        """
        with torch.no_grad():
            before = encode(self.model, self.graph)
        where = _positions(self.graph, self.pairs)
        target = torch.full((self.graph.num_interactions,), torch.nan, device=where.device)
        target[where] = self.target.to(target.dtype)
        for size in sizes:
            wanted = max(1, round(size * len(where)) if size <= 1 else min(round(size), len(where)))
            mask = torch.zeros(self.graph.num_interactions, dtype=torch.bool, device=where.device)
            mask[where[_pick(self.group, wanted, generator)]] = True
            removal = Removal.of(self.model, self.graph, self.graph.select(~mask), mask, before)
            yield removal, target[mask][removal.kept]


@torch.no_grad()
def design_probe(model: nn.Module, graph: InteractionGraph, *, share: float, odd_users: float, seed: int) -> Probe:
    """Choose what the probe leaves out and what it adds.

    Half of ``share`` is left out at random, the other half from random users and items that lose much of what they
    have, so that every removed share occurs. A share ``odd_users`` of the users gets one pair of its own: for half of
    them the item that ``model`` ranks lowest, for the others one from anywhere in the ranking, low ranks more often.

    Args:
        model: The original model.
        graph: The graph it was trained on.
        share: Share of the interactions to leave out.
        odd_users: Share of the users who get a pair.
        seed: Seed of every choice.

    Returns:
        The :class:`Probe`.

    Raises:
        ValueError: The shares leave nothing to learn from, or nothing to simulate.
    """
    generator = torch.Generator().manual_seed(seed)
    if not 0 < share <= 0.5:
        raise ArgumentError("share", "be above 0 and at most 0.5", share)
    if not 0 <= odd_users <= 1:
        raise ArgumentError("odd_users", "be between 0 and 1", odd_users)
    device, count = graph.pairs.device, graph.num_interactions
    bundle = torch.full((count,), -1, device=device)
    nodes = torch.randperm(graph.num_nodes, generator=generator).to(device)
    losses = (0.3 + 0.6 * torch.rand(graph.num_nodes, generator=generator)).to(device)
    degree = graph.adjacency.degree[nodes]
    size = torch.cumsum((degree * losses).cpu().double(), 0)  # on a GPU its rounding would not repeat itself
    heavy = nodes[(size <= 0.5 * share * count).to(device)]
    entries = graph.adjacency.entries(heavy)
    owner = torch.repeat_interleave(torch.arange(len(heavy), device=device), graph.adjacency.degree[heavy].long())
    hit = torch.rand(len(entries), generator=generator).to(device) < losses[owner]
    bundle[graph.adjacency.interaction[entries[hit]].long()] = owner[hit]
    scattered = torch.zeros(count, dtype=torch.bool)
    scattered[torch.randperm(count, generator=generator)[: round(0.5 * share * count)]] = True
    scattered = scattered.to(device) & (bundle < 0)
    removed = scattered | (bundle >= 0)
    removed &= ~_only(graph, removed)
    scattered &= removed
    bundled = removed & ~scattered
    lowest, others = _odd_pairs(model, graph, odd_users, generator)
    added = torch.cat([lowest, others], 1)
    left = count - int(removed.sum())
    if left < 1 or int(removed.sum()) < 8:
        raise ArgumentError(
            "share",
            "leave out at least 8 interactions and keep some",
            f"{share} of {count}, which would leave out {int(removed.sum())} and keep {left}",
        )
    pairs = torch.cat([graph.pairs[:, ~removed], added], 1)
    probe = InteractionGraph.from_edges(
        pairs, graph.num_users, graph.num_items, **_attributes(graph, ~removed, added.size(1), generator)
    )
    probe = probe.to(device)
    for side in ("user", "item"):  # features, which encoders may read
        probe[side].update({name: value for name, value in graph[side].items() if name not in probe[side]})
    return Probe(probe, graph.pairs[:, scattered], graph.pairs[:, bundled], bundle[bundled], lowest, others)


def _only(graph: InteractionGraph, removed: Tensor) -> Tensor:
    """Return the interactions of nodes that would lose everything ``[num_interactions]``."""
    kept = torch.bincount(graph.pairs[0, ~removed], minlength=graph.num_users) == 0
    kept_items = torch.bincount(graph.pairs[1, ~removed], minlength=graph.num_items) == 0
    return kept[graph.pairs[0]] | kept_items[graph.pairs[1]]


def _odd_pairs(
    model: nn.Module, graph: InteractionGraph, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return one pair that the graph does not hold for some users: the lowest ranked, and others ``[2, num]``."""
    device, degree = graph.pairs.device, graph.adjacency.degree
    users = torch.randperm(graph.num_users, generator=generator)[: min(round(share * graph.num_users), _MOST_ODD)]
    users = users.to(device)
    users = users[degree[users] > 1]
    depth = torch.rand(len(users), generator=generator).square().to(device)  # 0 is the bottom of the ranking
    depth[: len(users) // 2] = 0
    encoded, out = encode(model, graph), []
    rare = degree[graph.num_users :] < 2
    for batch, quantile in zip(users.split(_CHUNK), depth.split(_CHUNK)):
        scores = encoded.queries[batch] @ encoded.items.t()
        row = torch.repeat_interleave(torch.arange(len(batch), device=device), degree[batch].long())
        scores[row, graph.adjacency.neighbors(batch) - graph.num_users] = torch.inf
        scores[:, rare] = torch.inf
        order, eligible = scores.argsort(dim=1), scores.isfinite().sum(1)
        place = (quantile * (eligible - 1).clamp(min=0)).long()
        out.append(torch.stack([batch, order.gather(1, place[:, None]).view(-1)]).masked_fill(eligible == 0, -1))
    pairs = torch.cat(out, 1) if out else graph.pairs[:, :0]
    first, second = pairs[:, : len(users) // 2], pairs[:, len(users) // 2 :]
    return first[:, first[0] >= 0], second[:, second[0] >= 0]


def _attributes(graph: InteractionGraph, kept: Tensor, added: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return ratings and labels of what is kept, followed by those of interactions drawn from it."""
    drawn = torch.randint(int(kept.sum()), (added,), generator=generator).to(kept.device)
    values = {name: graph[EDGE_TYPE].get(name) for name in ("rating", "label")}
    return {name: torch.cat([v[kept], v[kept][drawn]]) for name, v in values.items() if v is not None}


def _pick(group: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    """Return the positions of whole groups at random, as many as it takes for ``wanted`` positions."""
    ids, group, count = torch.unique(group, return_inverse=True, return_counts=True)
    order = torch.randperm(len(ids), generator=generator).to(group.device)
    taken = torch.zeros(len(ids), dtype=torch.bool, device=group.device)
    taken[order[torch.cumsum(count[order], 0) - count[order] < wanted]] = True
    return taken[group].nonzero().view(-1)


def _positions(graph: InteractionGraph, pairs: Tensor) -> Tensor:
    """Return where ``pairs`` lie among the interactions of the graph ``[num]``."""
    keys = graph.pairs[0] * graph.num_items + graph.pairs[1]
    order = keys.argsort()
    return order[torch.searchsorted(keys[order], pairs[0] * graph.num_items + pairs[1])]
