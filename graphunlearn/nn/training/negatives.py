"""Negatives that are a fixed function of seed, user, item and number, independent of order and device."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph

__all__ = ["draw_negatives"]

# With 12 attempts, a user who holds 90 % of all items finds a negative with probability 0.72. If all attempts fail, the
# last item drawn is used.
_ATTEMPTS = 12
_MASK = (1 << 63) - 1


def _mix(x: Tensor) -> Tensor:
    """Return a hash of int64 values: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), modulo 2**64."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _signed(x: int) -> int:
    """Wrap a Python integer into int64."""
    return ((x + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def draw_negatives(graph: InteractionGraph, users: Tensor, items: Tensor, num: int, seed: int) -> Tensor:
    """Return ``num`` items for every pair of user and item, avoiding the items of the user in ``graph``.

    If a drawn item is one of the user's items, the next hash value is used, up to twelve times. The negatives of a pair
    therefore depend on the graph only through the interactions of the user.

    Args:
        graph: The graph whose interactions are avoided.
        users: Internal user ids ``[num_pairs]``.
        items: Internal item ids ``[num_pairs]``.
        num: Number of negatives per pair.
        seed: Any integer.

    Returns:
        Internal item ids ``[num_pairs, num]``.
    """
    adjacency, num_items = graph.adjacency, graph.num_items
    edges = graph.num_interactions
    degree = adjacency.degree[: graph.num_users].long()
    row = torch.arange(graph.num_users, device=users.device).repeat_interleave(degree)
    keys = row * num_items + (adjacency.col[:edges] - graph.num_users)  # ascending: rows are sorted
    base = _mix(_mix(users.new_full((1,), _signed(seed + 0x1E3779B97F4A7C15))) + users * 0x100000001B3)
    state = (_mix(base + items)[:, None] + torch.arange(num, device=users.device) * 0x2545F4914F6CDD1D).flatten()
    owner = (users * num_items).repeat_interleave(num)
    drawn = (_mix(state) & _MASK) % num_items
    open_ = _taken(keys, owner + drawn).nonzero().view(-1)
    for attempt in range(1, _ATTEMPTS):
        if open_.numel() == 0:
            break
        candidate = (_mix(state[open_] + _signed(attempt * 0x632BE59BD9B4E019)) & _MASK) % num_items
        drawn[open_] = candidate
        open_ = open_[_taken(keys, owner[open_] + candidate)]
    return drawn.view(-1, num)


def _taken(keys: Tensor, wanted: Tensor) -> Tensor:
    """Return a mask of the entries of ``wanted`` that occur in the ascending ``keys``."""
    if keys.numel() == 0:
        return torch.zeros_like(wanted, dtype=torch.bool)
    return keys[torch.searchsorted(keys, wanted).clamp_(max=keys.numel() - 1)] == wanted
