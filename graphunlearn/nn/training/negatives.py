"""Negatives that are a fixed function of seed, user, item and number, independent of order and device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.func.compressed import ranges

__all__ = ["draw_negatives", "draw_popular"]

# With 12 attempts, a user who holds 90 % of all items finds a negative with probability 0.72. If all attempts fail, one
# exact draw among the items that the user does not hold follows.
_ATTEMPTS = 12
_PROPOSALS = 256  # proposals of a popular item, which nearly always suffice
_HEAD = 16  # most items whose popularity exceeds the levels of proposals
_PART = 1 << 17  # draws at a time, so that they fit into the cache
_MASK = (1 << 63) - 1
_STEP = 0x632BE59BD9B4E019  # between the hash values of two attempts
_CELLS_PER_KEY, _CELL_BITS = 8, 23  # cells of the table that rules out most items; at most 8 MiB
_SPREAD = -0x61C8864680B583EB  # the golden ratio times 2**64, as a signed number (Knuth, TAOCP 3, 6.4)


def _mix(x: Tensor) -> Tensor:
    """Return a hash of int64 values: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), modulo 2**64."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _exponential(x: Tensor) -> Tensor:
    """Return exponential variates of rate 1 (float64) as a function of int64 values."""
    uniform = (((_mix(x) >> 11) & ((1 << 53) - 1)).double() + 0.5) / (1 << 53)
    return -uniform.log()


def _signed(x: int) -> int:
    """Wrap a Python integer into int64."""
    return ((x + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def draw_negatives(graph: InteractionGraph, users: Tensor, items: Tensor, num: int, seed: int) -> Tensor:
    """Return ``num`` items for every pair of user and item, avoiding the items of the user in ``graph``.

    If a drawn item is one of the user's items, the next hash value is used, up to twelve times; after that, one of the
    items that the user does not hold is chosen. The negatives of a pair therefore depend on the graph only through the
    interactions of the user. If the user holds every item, there is no negative, and the item of the pair stands in
    its place.

    Args:
        graph: The graph whose interactions are avoided.
        users: Internal user ids ``[num_pairs]``.
        items: Internal item ids ``[num_pairs]``.
        num: Number of negatives per pair.
        seed: Any integer.

    Returns:
        Internal item ids ``[num_pairs, num]``.
    """
    return _avoiding(graph, users, items, num, seed, lambda state: (_mix(state) & _MASK) % graph.num_items, _next)


def draw_popular(
    graph: InteractionGraph, users: Tensor, items: Tensor, num: int, seed: int, *, avoid: bool = False
) -> Tensor:
    r"""Return ``num`` items for every pair of user and item, in proportion to the interactions of the items.

    A draw proposes an item :math:`j` and a level below :math:`T`, both uniform, and takes the item if the level is
    below its number of interactions :math:`q_j`; otherwise the next hash value proposes. The 16 items at most with
    :math:`q_j > T` also take part in a race: every proposal takes an exponential time with the rate :math:`T` times the
    number of items, and the draw takes such an item once a time with the rate :math:`q_j - T` has passed. Draws are
    therefore independent. If interactions are removed, a draw changes only if its item lost interactions, as if it had
    taken one of those removed. All draws are new if :math:`T`, the smallest power of two, becomes smaller.

    After 256 proposals, an interaction is taken by the order of hash values, the next larger one; these few draws are
    not independent.

    Args:
        graph: The graph whose interactions are drawn; it must hold one if there are pairs.
        users: Internal user ids ``[num_pairs]``.
        items: Internal item ids ``[num_pairs]``.
        num: Number of items per pair.
        seed: Any integer.
        avoid: Whether to avoid the items of the user, as :func:`draw_negatives` does; a draw then also changes if an
            item that it passed over loses interactions.

    Returns:
        Internal item ids ``[num_pairs, num]``.
    """
    if users.numel() == 0:
        return users.new_zeros(0, num)
    popular = _Popular(graph, seed)
    if avoid:
        return _avoiding(graph, users, items, num, seed, popular, lambda state, attempt: _mix(_next(state, attempt)))
    parts = zip((users + graph.first_user).split(_per_part(num)), items.split(_per_part(num)), strict=True)
    return torch.cat([popular(_states(*part, num, seed)).view(-1, num) for part in parts])


def _per_part(num: int) -> int:
    """Return how many pairs have their ``num`` draws made at a time."""
    return max(1, _PART // num)


def _next(state: Tensor, attempt: int) -> Tensor:
    """Return the hash values of a further attempt."""
    return state + _signed(attempt * _STEP)


def _avoiding(
    graph: InteractionGraph,
    users: Tensor,
    items: Tensor,
    num: int,
    seed: int,
    propose: Callable[[Tensor], Tensor],
    again: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Return draws of ``propose`` that avoid the items of the user, by attempts and at last by one exact draw.

    Besides the result, memory holds one value per pair and per interaction of its users, and the hash values of one
    part of the draws.

    Args:
        graph: The graph whose interactions are avoided.
        users: Internal user ids ``[num_pairs]``.
        items: Internal item ids ``[num_pairs]``.
        num: Draws per pair.
        seed: Any integer.
        propose: A function of hash values that returns as many items.
        again: A function of hash values and of the number of an attempt that returns the next hash values.

    Returns:
        Internal item ids ``[num_pairs, num]``.
    """
    num_items, held = graph.num_items, _Held.of(graph, users, users.numel() * num)
    out, size, left = users.new_empty(users.numel() * num), _per_part(num), []
    parts = zip(users.split(size), items.split(size), held.row.split(size), strict=True)
    for number, (user, item, own) in enumerate(parts):
        state, owner = _states(user + graph.first_user, item, num, seed), (own * num_items).repeat_interleave(num)
        drawn = propose(state)
        open_ = held.positions(owner + drawn)
        for attempt in range(1, _ATTEMPTS):
            if open_.numel() == 0:
                break
            candidate = propose(again(state[open_], attempt))
            drawn[open_] = candidate
            open_ = open_[held.positions(owner[open_] + candidate)]
        out[number * size * num : (number * size + user.numel()) * num] = drawn
        if open_.numel():
            left.append(open_ + number * size * num)
    if left:
        open_ = torch.cat(left)
        out[open_] = _exact(graph, held, users, items, open_, num, seed)
    return out.view(-1, num)


class _Popular:
    """Draws of items in proportion to their interactions; see :func:`draw_popular`."""

    def __init__(self, graph: InteractionGraph, seed: int) -> None:
        self.graph, self.seed = graph, seed
        self.count = graph.adjacency.degree[graph.num_users :].long()
        highest = self.count.topk(min(_HEAD + 1, graph.num_items)).values
        least = int(highest[_HEAD]) if len(highest) > _HEAD else 1
        self.levels = 1 << max(least - 1, 0).bit_length()
        self.head = (self.count > self.levels).nonzero().view(-1)
        self.salt = _mix(self.head + 0x51ED2701A5F3C9B7)

    def __call__(self, state: Tensor) -> Tensor:
        """Return one item per hash value ``[num]``."""
        return torch.cat([self._part(part) for part in state.split(_PART)])

    def _part(self, state: Tensor) -> Tensor:
        drawn, num_items = torch.empty_like(state), self.graph.num_items
        open_ = torch.arange(len(state), device=state.device)
        if len(self.head):
            rate = (self.count[self.head] - self.levels).double()
            limit, first = (_exponential(state[:, None] ^ self.salt) / rate).min(1)
            winner, clock = self.head[first], torch.zeros_like(limit)
        for _ in range(_PROPOSALS):
            if open_.numel() == 0:
                return drawn
            value = _mix(state) & _MASK
            item = value % num_items
            level = value.div_(num_items, rounding_mode="floor") & (self.levels - 1)
            again = level >= self.count[item]
            if len(self.head):
                clock += _exponential(state ^ _signed(_STEP)) / (self.levels * num_items)
                late = clock > limit
                item, again = torch.where(late, winner, item), again & ~late
            drawn[open_] = item
            rest = again.nonzero().view(-1)
            open_, state = open_[rest], state[rest] + _signed(_STEP)
            if len(self.head):
                limit, winner, clock = limit[rest], winner[rest], clock[rest]
        if open_.numel():
            ring, taken = self._ring
            drawn[open_] = taken[torch.searchsorted(ring, _mix(state) & _MASK) % len(ring)]
        return drawn

    @cached_property
    def _ring(self) -> tuple[Tensor, Tensor]:
        """The hash values of all interactions in ascending order, and their items."""
        pairs = self.graph.pairs
        ring, order = (_mix(_states(pairs[0], pairs[1], 1, ~self.seed)) & _MASK).sort()
        return ring, pairs[1, order]


class _Held(NamedTuple):
    """What some users hold.

    Args:
        rows: The distinct users, ascending ``[num_rows]``.
        row: The position of every user among them ``[num]``.
        keys: ``position * num_items + item`` of their interactions, ascending.
        cells: Which hash values of :func:`_cell` the keys have; ``None`` where few keys are asked for.
    """

    rows: Tensor
    row: Tensor
    keys: Tensor
    cells: Tensor | None = None

    @classmethod
    def of(cls, graph: InteractionGraph, users: Tensor, asked: int = 0) -> _Held:
        """Return what users hold, at the cost of their interactions; users ``[num]`` may occur several times.

        Args:
            graph: The graph.
            users: Internal user ids ``[num]``.
            asked: About how many keys :meth:`positions` is asked for.
        """
        adjacency, inside = graph.adjacency, torch.zeros(graph.num_users, dtype=torch.bool, device=users.device)
        inside[users] = True
        rows, position = inside.nonzero().view(-1), torch.cumsum(inside, 0) - 1
        degree = adjacency.degree[rows].long()
        every = len(rows) == graph.num_users
        entries = slice(0, graph.num_interactions) if every else ranges(adjacency.rowptr[rows], degree)
        row = torch.arange(len(rows), device=users.device).repeat_interleave(degree)
        keys = row * graph.num_items + (adjacency.col[entries] - graph.num_users)  # columns of a row are ascending
        cells = None
        if asked > len(keys):
            bits = min((_CELLS_PER_KEY * len(keys)).bit_length(), _CELL_BITS)
            cells = torch.zeros(1 << bits, dtype=torch.bool, device=keys.device)
            for part in keys.split(_PART):
                cells[_cell(part, bits)] = True
        return cls(rows, position[users], keys, cells)

    def positions(self, wanted: Tensor) -> Tensor:
        """Return the positions of the entries of ``wanted`` that occur in the keys.

        A search takes as long as passing over several levels of the memory. Where many keys are wanted, most are
        therefore ruled out by a table of hash values, which is small enough for the cache.
        """
        if self.cells is None:
            return _taken(self.keys, wanted).nonzero().view(-1)
        maybe = self.cells.index_select(0, _cell(wanted, len(self.cells).bit_length() - 1)).nonzero().view(-1)
        return maybe[_taken(self.keys, wanted[maybe])]


def _cell(keys: Tensor, bits: int) -> Tensor:
    """Return the first bits of a product of keys with an odd number, by which they are spread evenly."""
    return (keys * _SPREAD >> (64 - bits)) & ((1 << bits) - 1)


def _states(users: Tensor, items: Tensor, num: int, seed: int) -> Tensor:
    """Return one hash value per pair and number ``[num_pairs * num]``."""
    return _state(users[:, None], items[:, None], torch.arange(num, device=users.device), seed).flatten()


def _state(users: Tensor, items: Tensor, number: Tensor, seed: int) -> Tensor:
    """Return the hash value of every user, item and number, which are broadcast."""
    base = _mix(_mix(users.new_full((1,), _signed(seed + 0x1E3779B97F4A7C15))) + users * 0x100000001B3)
    return _mix(base + items) + number * 0x2545F4914F6CDD1D


def _exact(
    graph: InteractionGraph, held: _Held, users: Tensor, items: Tensor, open_: Tensor, num: int, seed: int
) -> Tensor:
    """Return one item that the user does not hold for the draws at ``open_``; the item of the pair if there is none."""
    pair = open_.div(num, rounding_mode="floor")
    keys, user, own = held.keys, held.row[pair], items[pair]
    state = _state(users[pair] + graph.first_user, own, open_ % num, seed)
    degree = graph.adjacency.degree[held.rows].long()
    start, free = degree.cumsum(0) - degree, graph.num_items - degree
    # The r-th free item is r + #{j: c_j - j <= r} for the sorted items c_0 < c_1 < ... of the user.
    holder, item = keys.div(graph.num_items, rounding_mode="floor"), keys % graph.num_items
    before = item - (torch.arange(len(keys), device=keys.device) - start[holder])
    rank = (_mix(_next(state, _ATTEMPTS)) & _MASK) % free[user].clamp(min=1)
    stride = graph.num_items + 1
    skipped = torch.searchsorted(holder * stride + before, user * stride + rank, right=True) - start[user]
    return torch.where(free[user] > 0, rank + skipped, own)


def _taken(keys: Tensor, wanted: Tensor) -> Tensor:
    """Return a mask of the entries of ``wanted`` that occur in the ascending ``keys``."""
    if keys.numel() == 0:
        return torch.zeros_like(wanted, dtype=torch.bool)
    return keys[torch.searchsorted(keys, wanted).clamp_(max=keys.numel() - 1)] == wanted
