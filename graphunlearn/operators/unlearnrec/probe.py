"""Simulated requests with known outcomes: a probe model is trained without some interactions and with others added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import EDGE_TYPE, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.unlearnrec.features import Removal
from graphunlearn.operators.unlearnrec.kinds import Drawn, draw_injected, draw_removed

__all__ = ["Pool", "Probe", "check_shares", "design_probe"]

_MOST = 2000  # most pairs that every rule adds; bursts and erratic users may exceed it a little
_RULES = 0.5  # pairs that every rule adds, as a multiple of the users that get one


@dataclass(frozen=True)
class Probe:
    """The training graph of a probe model, which replaces the many models that would be retrained for real requests.

    The probe model is trained without some interactions of the original graph, so its scores for them show how they
    score once the original has forgotten them. The original model is trained without the pairs added to the probe's
    graph, so its scores for them show how they score once the probe has forgotten them.

    Args:
        graph: The original graph without the interactions of ``removed``, and with the pairs of ``injected`` added.
        removed: Interactions of the original graph that the probe is trained without, by kind.
        injected: Pairs that the original graph lacks, by rule.
    """

    graph: InteractionGraph
    removed: dict[str, Drawn]
    injected: dict[str, Drawn]


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
        judge: Function from pairs ``[2, num]`` to their target scores ``[num]``; ``None`` if only those of ``pairs``
            are known.
    """

    model: nn.Module
    graph: InteractionGraph
    pairs: Tensor
    target: Tensor
    group: Tensor
    judge: Callable[[Tensor], Tensor] | None = None

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

    @staticmethod
    def joined(pools: Sequence[Pool]) -> Pool:
        """Return one pool of all interactions of pools of the same model; their groups stay apart."""
        starts = [0]
        for pool in pools:
            starts.append(starts[-1] + (int(pool.group.max()) + 1 if len(pool.group) else 0))
        return replace(
            pools[0],
            pairs=torch.cat([pool.pairs for pool in pools], 1),
            target=torch.cat([pool.target for pool in pools]),
            group=torch.cat([pool.group + start for pool, start in zip(pools, starts)]),
        )

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
def design_probe(graph: InteractionGraph, *, share: float, odd_users: float, seed: int) -> Probe:
    """Choose the interactions that the probe leaves out and the pairs that are added.

    The kinds of :func:`~graphunlearn.operators.unlearnrec.kinds.draw_removed` have equal parts of ``share``, and every
    rule of :func:`~graphunlearn.operators.unlearnrec.kinds.draw_injected` adds about half as many pairs as a share
    ``odd_users`` of the users is. Every user and every item keeps at least one interaction.

    Args:
        graph: The training graph of the original model.
        share: Share of the interactions to leave out.
        odd_users: Number of pairs that two rules add together, as a share of the users.
        seed: Seed of all random choices.

    Returns:
        The :class:`Probe`.

    Raises:
        ValueError: The shares leave no interaction to train on, or none to simulate requests with.
    """
    generator = torch.Generator().manual_seed(seed)
    check_shares(share, odd_users)
    removed = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.pairs.device)
    drawn = draw_removed(graph, share, generator)
    for index, _ in drawn.values():
        removed[index] = True
    removed &= ~_only(graph, removed)
    kinds = {}
    for name, (index, group) in drawn.items():
        still = removed[index]
        kinds[name] = Drawn(graph.pairs[:, index[still]], group[still])
    rules = draw_injected(graph, min(round(_RULES * odd_users * graph.num_users), _MOST), generator)
    added = torch.cat([rule.pairs for rule in rules.values()], 1)
    left = graph.num_interactions - int(removed.sum())
    if left < 1 or int(removed.sum()) < 8:
        got = f"{share} of {graph.num_interactions}, which would leave out {int(removed.sum())} and keep {left}"
        raise ArgumentError("share", "leave out at least 8 interactions and keep some", got)
    pairs = torch.cat([graph.pairs[:, ~removed], added], 1)
    values = _attributes(graph, ~removed, added.size(1), generator)
    probe = InteractionGraph.from_edges(pairs, graph.num_users, graph.num_items, **values).to(graph.pairs.device)
    for side in ("user", "item"):  # copy node features, which the model may use
        probe[side].update({name: value for name, value in graph[side].items() if name not in probe[side]})
    return Probe(probe, kinds, rules)


def _only(graph: InteractionGraph, removed: Tensor) -> Tensor:
    """Return a mask of the interactions of nodes that would lose all interactions ``[num_interactions]``."""
    kept = torch.bincount(graph.pairs[0, ~removed], minlength=graph.num_users) == 0
    kept_items = torch.bincount(graph.pairs[1, ~removed], minlength=graph.num_items) == 0
    return kept[graph.pairs[0]] | kept_items[graph.pairs[1]]


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
