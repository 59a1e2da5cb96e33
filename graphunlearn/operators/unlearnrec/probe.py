"""Simulated requests with known outcomes: a probe model is trained without some interactions and with others added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import EDGE_TYPE, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.unlearnrec.features import Removal

__all__ = ["Pool", "Probe", "check_shares", "design_probe"]

_CHUNK, _MOST_ODD = 256, 2000  # users ranked at a time, and users ranked in total


@dataclass(frozen=True)
class Probe:
    """The training graph of a probe model, which replaces the many models that would be retrained for real requests.

    The probe model is trained without some interactions of the original graph, so its scores for them show how they
    score once the original has forgotten them. The original model is trained without the pairs added to the probe's
    graph, so its scores for them show how they score once the probe has forgotten them.

    Args:
        graph: The original graph without ``scattered`` and ``bundled``, and with ``lowest`` and ``others`` added.
        scattered: Interactions of the original graph, chosen independently of each other ``[2, num_scattered]``.
        bundled: Interactions of users and items that lose a large share of their interactions ``[2, num_bundled]``.
        bundle: The number of the user or item that each bundled interaction was removed for ``[num_bundled]``.
        lowest: Added pairs that the original model ranks lowest ``[2, num_lowest]``.
        others: Added pairs from anywhere in the ranking of the original model ``[2, num_others]``.
    """

    graph: InteractionGraph
    scattered: Tensor
    bundled: Tensor
    bundle: Tensor
    lowest: Tensor
    others: Tensor

    @property
    def left_out(self) -> Tensor:
        """All interactions that the probe is trained without ``[2, num_left_out]``."""
        return torch.cat([self.scattered, self.bundled], 1)


@dataclass(frozen=True)
class Pool:
    """Interactions that a model can forget in a simulated request, and their scores after forgetting.

    Args:
        model: A model that was trained on the interactions.
        graph: The training graph of the model.
        pairs: The interactions ``[2, num]``.
        target: Their scores by a model that was not trained on them ``[num]``.
        group: Group number of every interaction ``[num]``. A group is forgotten as a whole or not at all, because the
            model that provides the targets was trained without the whole group.
    """

    model: nn.Module
    graph: InteractionGraph
    pairs: Tensor
    target: Tensor
    group: Tensor

    def split(self, share: float, generator: torch.Generator) -> tuple[Pool, Pool]:
        """Split the pool by groups.

        Args:
            share: Approximate share of the groups in the second pool.
            generator: Generator of the random split.

        Returns:
            Two pools without a common group.
        """
        groups, group = torch.unique(self.group, return_inverse=True)
        drawn = torch.rand(len(groups), generator=generator)
        second = drawn < share
        if len(groups) > 1:  # neither part may be empty
            second[drawn.argmin()], second[drawn.argmax()] = True, False
        chosen = second.to(group.device)[group]
        return self.only(~chosen), self.only(chosen)

    def only(self, mask: Tensor) -> Pool:
        """Return the pool restricted to the interactions in a boolean ``mask`` ``[num]``."""
        return replace(self, pairs=self.pairs[:, mask], target=self.target[mask], group=self.group[mask])

    def requests(self, sizes: Sequence[float], generator: torch.Generator) -> Iterator[tuple[Removal, Tensor]]:
        """Yield simulated requests with the target scores of their interactions.

        Args:
            sizes: The least number of interactions to forget in each request; values up to 1 are shares of the pool.
            generator: Generator of the random choice of interactions.

        Yields:
            The :class:`Removal` of each request, and the targets ``[num_forgotten]``.
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


def check_shares(share: float, odd_users: float) -> None:
    """Raise a ``ValueError`` if one of the shares that :func:`design_probe` takes is out of range."""
    check("be above 0 and at most 0.5", lambda value: 0 < value <= 0.5, share=share)
    check("be between 0 and 1", lambda value: 0 <= value <= 1, odd_users=odd_users)


@torch.no_grad()
def design_probe(model: nn.Module, graph: InteractionGraph, *, share: float, odd_users: float, seed: int) -> Probe:
    """Choose the interactions that the probe leaves out and the pairs that it adds.

    Half of ``share`` is removed at random. The other half is removed from random users and items that each lose a large
    share of their interactions, so that the simulated requests cover all removed shares. Each of a share ``odd_users``
    of the users gets one added pair: half of them the item that ``model`` ranks lowest, the others an item from
    anywhere in the ranking, low ranks being more likely.

    Args:
        model: The original model.
        graph: The training graph of the original model.
        share: Share of the interactions to leave out.
        odd_users: Share of the users who get an added pair.
        seed: Seed of all random choices.

    Returns:
        The :class:`Probe`.

    Raises:
        ValueError: The shares leave no interaction to train on, or none to simulate requests with.
    """
    generator = torch.Generator().manual_seed(seed)
    check_shares(share, odd_users)
    device, count = graph.pairs.device, graph.num_interactions
    bundle = torch.full((count,), -1, device=device)
    nodes = torch.randperm(graph.num_nodes, generator=generator).to(device)
    losses = (0.3 + 0.6 * torch.rand(graph.num_nodes, generator=generator)).to(device)
    degree = graph.adjacency.degree[nodes]
    size = torch.cumsum((degree * losses).cpu().double(), 0)  # rounding on a GPU is not reproducible
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
        got = f"{share} of {count}, which would leave out {int(removed.sum())} and keep {left}"
        raise ArgumentError("share", "leave out at least 8 interactions and keep some", got)
    pairs = torch.cat([graph.pairs[:, ~removed], added], 1)
    values = _attributes(graph, ~removed, added.size(1), generator)
    probe = InteractionGraph.from_edges(pairs, graph.num_users, graph.num_items, **values).to(device)
    for side in ("user", "item"):  # copy node features, which the model may use
        probe[side].update({name: value for name, value in graph[side].items() if name not in probe[side]})
    return Probe(probe, graph.pairs[:, scattered], graph.pairs[:, bundled], bundle[bundled], lowest, others)


def _only(graph: InteractionGraph, removed: Tensor) -> Tensor:
    """Return a mask of the interactions of nodes that would lose all interactions ``[num_interactions]``."""
    kept = torch.bincount(graph.pairs[0, ~removed], minlength=graph.num_users) == 0
    kept_items = torch.bincount(graph.pairs[1, ~removed], minlength=graph.num_items) == 0
    return kept[graph.pairs[0]] | kept_items[graph.pairs[1]]


def _odd_pairs(
    model: nn.Module, graph: InteractionGraph, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return one pair not in the graph for some users: the lowest-ranked pairs and other pairs, each ``[2, num]``."""
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


def _attributes(graph: InteractionGraph, kept: Tensor, added: int, generator: torch.Generator) -> dict[str, Any]:
    """Return ratings and labels of the kept interactions, followed by values drawn from them for the added pairs."""
    drawn = torch.randint(int(kept.sum()), (added,), generator=generator).to(kept.device)
    values = {name: graph[EDGE_TYPE].get(name) for name in ("rating", "label")}
    return {name: torch.cat([v[kept], v[kept][drawn]]) for name, v in values.items() if v is not None}


def _pick(group: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    """Return the positions of randomly chosen whole groups, with enough groups for at least ``wanted`` positions."""
    ids, group, count = torch.unique(group, return_inverse=True, return_counts=True)
    order = torch.randperm(len(ids), generator=generator).to(group.device)
    taken = torch.zeros(len(ids), dtype=torch.bool, device=group.device)
    taken[order[torch.cumsum(count[order], 0) - count[order] < wanted]] = True
    return taken[group].nonzero().view(-1)


def _positions(graph: InteractionGraph, pairs: Tensor) -> Tensor:
    """Return the indices of ``pairs`` among the interactions of the graph ``[num]``."""
    keys = graph.pairs[0] * graph.num_items + graph.pairs[1]
    order = keys.argsort()
    return order[torch.searchsorted(keys[order], pairs[0] * graph.num_items + pairs[1])]
