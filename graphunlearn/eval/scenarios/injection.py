"""Common parts of the scenarios of injected data: targets, and graphs with added users, interactions and ids."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from graphunlearn.data import EDGE_TYPE, InteractionGraph, Vocabulary
from graphunlearn.data.schema import ATTRIBUTES
from graphunlearn.errors import ArgumentError

__all__ = [
    "RARE",
    "check_count",
    "draw_targets",
    "fresh_ids",
    "generator_of",
    "popular_first",
    "with_interactions",
    "with_users",
]

RARE = (5, 12)
"""Fewest and most training interactions (or clicks) of an item that can be a target."""


def generator_of(seed: int) -> torch.Generator:
    """Return the generator of a scenario's draws, which differ from those of the split with the same seed."""
    return torch.Generator().manual_seed(15_485_863 + seed)


def check_count(argument: str, count: int, available: int, what: str) -> None:
    """Check that a number is positive and not larger than what is available.

    Args:
        argument: Name of the argument in error messages.
        count: Its value.
        available: Largest possible value.
        what: Plural noun for the things counted.

    Raises:
        ValueError: The number is out of range, or nothing is available.
    """
    if count < 1:
        raise ArgumentError(argument, "be at least 1", count)
    if not available:
        raise ArgumentError("graph", f"have {what}", "none")
    if count > available:
        raise ArgumentError(argument, f"be at most {available}, the number of {what}", count)


def draw_targets(counts: Tensor, number: int, generator: torch.Generator, unit: str = "interaction") -> Tensor:
    """Draw target items among the rare ones, which have 5 to 12 training interactions.

    Args:
        counts: Training interactions (or clicks) of every item, on the CPU ``[num_items]``.
        number: Number of targets.
        generator: Generator of the draw.
        unit: Name of one interaction in error messages.

    Returns:
        The items in ascending order ``[number]``.

    Raises:
        ValueError: There are fewer such items, or the number is not positive.

    Example:
        >>> draw_targets(torch.tensor([4, 5, 12, 13]), 2, torch.Generator())
        tensor([1, 2])
    """
    low, high = RARE
    rare = ((counts >= low) & (counts <= high)).nonzero().flatten()
    check_count("targets", number, len(rare), f"items with {low} to {high} training {unit}s")
    return rare[torch.randperm(len(rare), generator=generator)[:number]].sort().values


def popular_first(counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return the positions with a positive count, the largest count first; equal counts are in random order.

    Args:
        counts: Counts, on the CPU ``[num]``.
        generator: Generator of the random order.

    Example:
        >>> popular_first(torch.tensor([2, 0, 7, 1]), torch.Generator())
        tensor([2, 0, 3])
    """
    order = torch.randperm(len(counts), generator=generator)
    order = order[counts[order].argsort(descending=True, stable=True)]
    return order[counts[order] > 0]


def fresh_ids(prefix: str, count: int, taken: Collection[str]) -> list[str]:
    """Return new raw ids: ``prefix`` and a number, with underscores in front if one of these ids is taken.

    Example:
        >>> fresh_ids("fake-", 2, {"ann", "fake-1"})
        ['_fake-0', '_fake-1']
    """
    taken = set(taken)
    while any(f"{prefix}{number}" in taken for number in range(count)):
        prefix = f"_{prefix}"
    return [f"{prefix}{number}" for number in range(count)]


def with_users(*graphs: InteractionGraph, count: int) -> list[InteractionGraph]:
    """Return the graphs with ``count`` users without interactions at the end; other values per user are left out.

    If the users have raw ids, the new users get the ids ``"fake-0"``, ``"fake-1"`` and so on; see :func:`fresh_ids`.

    Args:
        graphs: Graphs with the same users.
        count: Number of new users.
    """
    more = []
    old = graphs[0].vocabulary("user")
    size = len(old) + count
    users = Vocabulary(size if old.is_range else [*old.ids, *fresh_ids("fake-", count, old.ids)])
    for graph in graphs:
        made = graph.select(torch.ones(graph.num_interactions, dtype=torch.bool))
        store = made["user"]
        for name, value in list(store.items()):
            if isinstance(value, Tensor) and value.dim() and value.size(0) == len(old):
                del store[name]  # new users have no value of it
        store.num_nodes, store.vocabulary = size, users
        more.append(made)
    return more


def with_interactions(graph: InteractionGraph, pairs: Tensor) -> InteractionGraph:
    """Return the graph with ``pairs`` added, with label 1, the highest rating and the latest time of the graph.

    Args:
        graph: The graph; it has none of the pairs.
        pairs: Users and items ``[2, num_pairs]``.
    """
    more = graph.select(torch.ones(graph.num_interactions, dtype=torch.bool))
    store, count = more[EDGE_TYPE], pairs.size(1)
    for name in [name for name in store if name != "edge_index"]:
        value = store[name]
        if name not in ATTRIBUTES:
            del store[name]  # an injected interaction has no value of it
        else:
            new = torch.ones_like(value[:1]) if name == "label" else value.max().view(1)
            store[name] = torch.cat([value, new.expand(count)])
    store.edge_index = torch.cat([graph.pairs, pairs.to(graph.pairs.device)], 1)
    return more
