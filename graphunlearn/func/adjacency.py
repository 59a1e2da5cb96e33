"""The adjacency matrix of a bipartite graph, and that of what is left of the graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphunlearn.func.column_blocks import factors_of, keep_factors
from graphunlearn.func.compressed import csr, ranges
from graphunlearn.func.kept import Kept

__all__ = ["Adjacency"]

_MANY = 8  # where some rows hold more than one in so many of all entries, all entries are looked at


class Adjacency:
    r"""The symmetric adjacency matrix of a bipartite graph in CSR, with items numbered after users.

    Args:
        rowptr: Row pointers ``[num_nodes + 1]`` (int32).
        col: Neighbours of every node, ascending within a row ``[2 * num_interactions]`` (int32).
        interaction: Index of the interaction of every entry ``[2 * num_interactions]`` (int32), or a function that
            computes it when it is asked for.

    Example:
        >>> import torch
        >>> adjacency = Adjacency.from_pairs(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
        >>> adjacency.neighbors(torch.tensor([1]))
        tensor([2, 3])
    """

    def __init__(self, rowptr: Tensor, col: Tensor, interaction: Tensor | Callable[[], Tensor]) -> None:
        self.rowptr, self.col, self._interaction = rowptr, col, interaction
        self._normalized: dict[torch.dtype, Tensor] = {}
        self._before: tuple[weakref.ref[Adjacency], Kept, Tensor] | None = None
        self._table: list[Tensor] = []

    @classmethod
    def from_pairs(cls, pairs: Tensor, num_users: int, num_items: int) -> Adjacency:
        """Return the adjacency of the given interactions.

        Args:
            pairs: User and item of every interaction, each numbered from 0 ``[2, num_interactions]``.
            num_users: Number of users.
            num_items: Number of items.
        """
        user, item = pairs
        num_nodes = num_users + num_items
        by_item = torch.argsort(item.int(), stable=True)  # stable sorts of int32 are radix sorts, three times as fast
        by_user = by_item[torch.argsort(user[by_item].int(), stable=True)]
        by_item = by_user[torch.argsort(item[by_user].int(), stable=True)]
        count = torch.bincount(torch.cat([user, item + num_users]), minlength=num_nodes)
        rowptr = torch.zeros(num_nodes + 1, dtype=torch.int32, device=pairs.device)
        torch.cumsum(count, 0, out=rowptr[1:])
        col = torch.cat([item[by_user] + num_users, user[by_item]])
        return cls(rowptr, col.int(), torch.cat([by_user, by_item]).int())

    @property
    def interaction(self) -> Tensor:
        """Index of the interaction of every entry ``[2 * num_interactions]`` (int32)."""
        if not isinstance(self._interaction, Tensor):
            with torch.inference_mode(False), torch.no_grad():
                self._interaction = self._interaction()
        return self._interaction

    def select(self, mask: Tensor, nodes: Tensor | None = None) -> Adjacency:
        """Return the adjacency of a subset of the interactions; no sorting is needed.

        Args:
            mask: Boolean mask of the interactions to keep ``[num_interactions]``.
            nodes: The users and items of the interactions that are dropped, ascending ``[num]``. If they have few
                interactions, entries are looked up in their rows alone, and all others are copied in stretches.
        """
        if nodes is not None and _MANY * int(self.degree[nodes].sum()) < self.col.numel():
            return self._without(mask, nodes)
        keep = mask.index_select(0, self.interaction)
        kept_before = torch.zeros(keep.numel() + 1, dtype=torch.int32, device=keep.device)
        torch.cumsum(keep, 0, dtype=torch.int32, out=kept_before[1:])
        renumber, kept = torch.cumsum(mask, 0, dtype=torch.int32) - 1, Kept(keep)
        interaction = renumber.index_select(0, kept.of(self.interaction))
        return Adjacency(kept_before.index_select(0, self.rowptr), kept.of(self.col), interaction)

    def _without(self, mask: Tensor, nodes: Tensor) -> Adjacency:
        """Return the adjacency of a subset, given the few nodes that lose interactions."""
        entries = self.entries(nodes)
        lost = ~mask[self.interaction[entries]]
        kept = Kept.without(entries[lost], self.col.numel())
        degree = self.degree.clone()
        row = nodes.repeat_interleave(self.degree[nodes].long())[lost]
        degree.index_add_(0, row, torch.ones_like(row, dtype=degree.dtype), alpha=-1)
        rowptr = torch.zeros_like(self.rowptr)
        torch.cumsum(degree, 0, dtype=rowptr.dtype, out=rowptr[1:])

        mask, before = mask.clone(), self.interaction

        def interaction() -> Tensor:
            return (torch.cumsum(mask, 0, dtype=torch.int32) - 1).index_select(0, kept.of(before))

        found = Adjacency(rowptr, kept.of(self.col), interaction)
        if kept.few:
            found._before = weakref.ref(self), kept, nodes  # weak: the graph before forgetting may be freed
        return found

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_interaction": self.interaction, "_before": None}  # what computes them cannot be copied

    @property
    def num_nodes(self) -> int:
        """Number of users plus items."""
        return self.rowptr.numel() - 1

    @cached_property
    def degree(self) -> Tensor:
        """Number of interactions of every node ``[num_nodes]`` (int32)."""
        return self.rowptr.diff()

    @cached_property
    def edge_index(self) -> Tensor:
        """Source and target of every interaction in both directions, sorted by target ``[2, 2 * num_interactions]``."""
        with torch.inference_mode(False):  # the cached tensor must be usable in training as well
            target = torch.arange(self.num_nodes, device=self.col.device).repeat_interleave(self.degree)
            return torch.stack([self.col.long(), target])

    def normalized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        r"""Return :math:`D^{-1/2} A D^{-1/2}` in CSR, with a zero row for every isolated node.

        Args:
            dtype: Data type of the values.

        Returns:
            The matrix ``[num_nodes, num_nodes]``, which is cached.
        """
        if dtype not in self._normalized:
            with torch.inference_mode(False):  # the cached tensor must be usable in training as well
                self._normalized[dtype] = self._normalize(dtype)
        return self._normalized[dtype]

    def _normalize(self, dtype: torch.dtype) -> Tensor:
        scale = self.degree.to(dtype).rsqrt()
        source, kept, nodes = self._before or (None, None, None)
        before, self._before = None if source is None else source(), None
        if before is not None and dtype in before._normalized and factors_of(before._normalized[dtype]) is not None:
            assert kept is not None
            assert nodes is not None
            values = kept.of(before._normalized[dtype].values())
            row, entries = nodes.repeat_interleave(self.degree[nodes].long()), self.entries(nodes)
            col = self.col.index_select(0, entries).long()
            found = scale[row] * scale[col]
            values[entries] = found
            low, high = self.places(col, row), self.places(col, row + 1)  # a pair that occurs twice has two entries
            values[ranges(low, high - low)] = found.repeat_interleave(high - low)
        else:
            values = torch.repeat_interleave(scale, self.degree, output_size=self.col.numel())
            values *= scale.index_select(0, self.col)
        matrix = csr(self.rowptr, self.col, values, (self.num_nodes, self.num_nodes))
        return keep_factors(matrix, scale, scale)

    def entries(self, nodes: Tensor) -> Tensor:
        """Return the CSR positions of all entries in the rows of the given nodes.

        The running time is proportional to the number of these entries.

        Args:
            nodes: Node numbers ``[num]``.

        Returns:
            Positions in :attr:`col`, row by row ``[num_entries]``.
        """
        if nodes.numel() == 1:
            node = int(nodes)
            return torch.arange(*self.rowptr[node : node + 2].tolist(), device=nodes.device)
        return ranges(self.rowptr[nodes], self.degree[nodes])

    def places(self, row: Tensor, col: Tensor) -> Tensor:
        """Return the CSR positions of entries, by binary search in their rows.

        Args:
            row: The row of every entry ``[num]``.
            col: The column of every entry ``[num]``.

        Returns:
            Positions in :attr:`col`; for an entry that does not exist, the position of the next larger column, which
            may be in the next row ``[num]``.
        """
        low, high = self.rowptr[row].long(), self.rowptr[row + 1].long()
        longest = int((high - low).max()) if len(row) else 0
        for _ in range(longest.bit_length()):
            middle = (low + high).div(2, rounding_mode="floor")
            below = (self.col[middle.clamp(max=self.col.numel() - 1)] < col) & (low < high)
            low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
        return low

    def neighbors(self, nodes: Tensor) -> Tensor:
        """Return the neighbours of the given nodes; a neighbour of several nodes appears several times.

        Args:
            nodes: Node numbers ``[num]``.

        Returns:
            Node numbers, row by row ``[num_entries]`` (int64).
        """
        return self.col.index_select(0, self.entries(nodes)).long()

    def interactions(self, nodes: Tensor) -> Tensor:
        """Return the interactions of the given nodes, each once.

        Args:
            nodes: Distinct node numbers ``[num]``.

        Returns:
            Indices of interactions, ascending ``[num_found]`` (int64).

        Example:
            >>> import torch
            >>> adjacency = Adjacency.from_pairs(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
            >>> adjacency.interactions(torch.tensor([0, 2]))
            tensor([0, 1])
        """
        found = self.interaction.index_select(0, self.entries(nodes)).long()
        if _MANY * len(found) < self.col.numel():
            return found.unique()
        inside = torch.zeros(self.col.numel() // 2, dtype=torch.bool, device=found.device)
        inside[found] = True
        return inside.nonzero().view(-1)

    def positions(self, nodes: Tensor, values: Tensor) -> Tensor:
        """Return the position in ``nodes`` of every value, in time proportional to their numbers.

        The positions are looked up in a table over all nodes, which is kept from call to call. Only the places of
        ``nodes`` are written in it, so that the position of a value that is not in ``nodes`` is arbitrary.

        Args:
            nodes: Distinct node numbers ``[num]``.
            values: Some of them, with repeats ``[num_values]``.

        Returns:
            Positions ``[num_values]`` (int32).

        Example:
            >>> import torch
            >>> adjacency = Adjacency.from_pairs(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
            >>> adjacency.positions(torch.tensor([1, 3]), torch.tensor([3, 3, 1]))
            tensor([1, 1, 0], dtype=torch.int32)
        """
        try:
            table = self._table.pop()  # taken from its place, so that another thread makes one of its own
        except IndexError:
            with torch.inference_mode(False):  # a table made in inference mode could not be written outside of it
                table = torch.empty(self.num_nodes, dtype=torch.int32, device=self.rowptr.device)
        table.index_copy_(0, nodes.long(), torch.arange(len(nodes), dtype=torch.int32, device=nodes.device))
        found = table.index_select(0, values)
        self._table[:] = [table]
        return found
