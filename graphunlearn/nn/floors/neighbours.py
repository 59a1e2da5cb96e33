"""Nearest neighbours: similar items for users, and similar sessions for sessions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.schema import check, check_sizes
from graphunlearn.func import csr
from graphunlearn.nn.floors.base import Floor, positives, rows_of
from graphunlearn.nn.floors.popularity import popularity

__all__ = ["ItemKNN", "SessionKNN"]

PART = 8192  # sessions whose shared items with all queries are held at a time
BLOCK = 256  # items whose similarities to all others are held at a time
ROWS = 4096  # items whose old and new neighbours are merged at a time
TOUCHED = 512  # items that may lose interactions before all similarities are computed anew


@dataclass(kw_only=True)
class ItemKNN(Floor):
    r"""Score an item by its similarity to the items that a user has.

    With :math:`c_{ij}` users who have both items and :math:`d_i` users who have item :math:`i`,

    .. math::
        w_{ij} = \frac{c_{ij}}{\sqrt{d_i d_j} + h}, \qquad
        s_{ui} = \sum_{j \in I_u \cap N_k(i)} w_{ij}

    where :math:`N_k(i)` are the :math:`k` items most similar to :math:`i`, the lower number first where they tie.

    Source: Deshpande and Karypis, *Item-based top-N recommendation algorithms*, TOIS 2004; shrinkage :math:`h` as in
    Ferrari Dacrema et al., *Are we really making much progress?*, RecSys 2019.

    Args:
        k: Neighbours per item.
        shrink: Shrinkage :math:`h`; larger values trust rare items less.

    Attributes:
        weights: The similarities to the neighbours of every item, sparse ``[num_items, num_items]``.
        pointer, near, exact: The same in double precision, by which neighbours are ranked: where those of every item
            start, their ids, and their similarities.

    Raises:
        ValueError: ``k`` is no whole number of at least 1, or ``shrink`` is negative or not finite.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 0, 1], [0, 1, 0]]), num_users=2, num_items=2)
        >>> ItemKNN(shrink=0).fit(graph).scores(graph, torch.tensor([1]))
        tensor([[0.0000, 0.7071]])
    """

    name: ClassVar[str] = "item-knn"
    kinds: ClassVar[tuple[Kind, ...]] = ("interactions",)
    stored: ClassVar[tuple[str, ...]] = ("pointer", "near", "exact")
    k: int = 100
    shrink: float = 10.0

    def __post_init__(self) -> None:
        check_sizes(k=self.k)
        check("be finite and not negative", lambda value: 0 <= value < math.inf, shrink=self.shrink)

    @torch.no_grad()
    def fit(self, graph: InteractionGraph) -> ItemKNN:
        """Find the neighbours of every item, a block of items at a time.

        Args:
            graph: The training graph.

        Returns:
            The floor itself.

        Raises:
            ValueError: The graph is of sessions.
        """
        self._check(graph)
        self.graph, items = graph, torch.arange(graph.num_items, device=graph.device)
        self._store(*self._ranked(positives(graph), items))
        return self

    def _store(self, count: Tensor, near: Tensor, exact: Tensor) -> None:
        """Store the neighbours of all items, one item after another: their number, their ids, their similarities."""
        pointer = torch.cat([count.new_zeros(1), count.cumsum(0)])
        self.pointer, self.near, self.exact = pointer, near, exact
        self.weights = csr(pointer, near, exact.to(torch.get_default_dtype()), (count.numel(), count.numel()))

    def restore(self, graph: InteractionGraph, tensors: dict[str, Tensor]) -> ItemKNN:
        """Take back the stored neighbours; see :meth:`Floor.restore`."""
        super().restore(graph, tensors)
        self._store(self.pointer.diff(), self.near, self.exact)
        return self

    def _similarities(self, known: InteractionGraph, items: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of items ``[num]`` with their similarities to all items ``[num, num_items]`` (float64)."""
        users, count, adjacency = known.num_users, known.num_items, known.adjacency
        pointer = adjacency.rowptr[users:] - adjacency.rowptr[users]
        column = adjacency.col[int(adjacency.rowptr[users]) :]
        of_items = csr(pointer, column, torch.ones(column.numel(), device=column.device), (count, users))
        degree = adjacency.degree[users:].double()
        for block in items.split(BLOCK):
            both = (of_items @ rows_of_items(known, block)).double().t()  # [block, num_items], whole numbers
            weight = both / ((degree[block, None] * degree).sqrt() + self.shrink).clamp(min=1e-12)
            weight[torch.arange(block.numel(), device=degree.device), block] = 0
            yield block, weight

    def _ranked(self, known: InteractionGraph, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the neighbours of some items: their numbers ``[num]``, their ids, and their similarities."""
        kept, parts = min(self.k, known.num_items), []
        for _, weight in self._similarities(known, items):
            used = first_largest(weight, kept) & (weight > 0)
            parts.append((used.sum(1), used.nonzero()[:, 1], weight[used]))
        if not parts:
            return items.new_zeros(0), items.new_zeros(0), torch.zeros(0, dtype=torch.double, device=items.device)
        count, near, exact = (torch.cat(part) for part in zip(*parts))
        return count, near, exact

    def _forget(self, other: ItemKNN, retained: InteractionGraph, forgotten: Tensor) -> ItemKNN:
        """Count the items that lost interactions anew, and rank the neighbours of others again where these changed.

        The similarities of an item that lost nothing change only to items that did. Its new neighbours are among the
        old ones and these, unless so many of them fall behind that an item that was none must take their place.
        """
        known, before = positives(retained), positives(self.graph)
        degree = [part.adjacency.degree[known.num_users :] for part in (before, known)]
        lost = degree[0] != degree[1]
        touched = lost.nonzero().flatten()
        if touched.numel() > min(TOUCHED, known.num_items // 2):
            return other.fit(retained)
        other.graph = retained
        items, kept = known.num_items, min(self.k, known.num_items)
        pointer, near = self.pointer, self.near
        count = pointer[1:] - pointer[:-1]
        row = torch.repeat_interleave(torch.arange(items, device=near.device), count)
        old_near = near.new_full((items, kept), items)
        old = self.exact.new_zeros(items, kept)
        place = torch.arange(row.numel(), device=near.device) - pointer[row]
        old_near[row, place], old[row, place] = near, self.exact
        last = torch.where(count == kept, old.masked_fill(old_near == items, torch.inf).amin(1), 0.0)
        fresh = torch.cat([old.new_zeros(0, items), *(w for _, w in self._similarities(known, touched))]).t()
        gone = torch.cat([lost, lost.new_zeros(1)])[old_near]
        again = lost | gone.any(1) | ((fresh > 0) & (fresh >= last[:, None])).any(1)
        keeps = ~again[row]
        parts, anew = [(row[keeps], near[keeps], self.exact[keeps])], [touched]
        for some in (again & ~lost).nonzero().flatten().split(ROWS):
            columns = torch.cat([old_near[some], touched.expand(some.numel(), -1)], 1)
            values = torch.cat([old[some].masked_fill(gone[some], 0), fresh[some]], 1)
            columns, order = columns.sort(1)
            values = values.gather(1, order)
            used = first_largest(values, min(kept, values.size(1))) & (values > 0)
            bound, worst = last[some, None], old_near[some].masked_fill(old[some] > last[some, None], -1).amax(1)
            ahead = (values > bound) | ((values == bound) & (columns <= worst[:, None]))
            whole = (count[some] < kept) | ((ahead & used).sum(1) >= kept)
            anew.append(some[~whole])
            used &= whole[:, None]
            parts.append((some[used.nonzero()[:, 0]], columns[used], values[used]))
        wanted = torch.cat(anew)
        number, ids, exact = self._ranked(known, wanted)
        parts.append((wanted.repeat_interleave(number), ids, exact))
        row, near, exact = (torch.cat(part) for part in zip(*parts))
        order = row.argsort(stable=True)
        other._store(torch.bincount(row, minlength=items), near[order], exact[order])
        return other

    @torch.no_grad()
    def scores(self, graph: InteractionGraph, queries: Tensor) -> Tensor:
        """Return the sums of the similarities to the items of every user.

        Args:
            graph: The graph with the interactions of the users.
            queries: The users ``[num]``.

        Returns:
            The scores ``[num, num_items]``.
        """
        self._check_fitted()
        rows = rows_of(positives(graph), queries, self.weights.dtype)
        return (self.weights @ rows.t().contiguous()).t().contiguous()


def first_largest(values: Tensor, k: int) -> Tensor:
    """Return a mask of the ``k`` largest values of every row, the first ones where they tie ``[num, width]``.

    Args:
        values: The values ``[num, width]``.
        k: The number, at most ``width``.

    Example:
        >>> first_largest(torch.tensor([[1.0, 3.0, 1.0, 1.0]]), 2)
        tensor([[ True,  True, False, False]])
    """
    least = values.topk(k).values[:, -1:]
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))


def rows_of_items(graph: InteractionGraph, items: Tensor) -> Tensor:
    """Return which users have some items, as the dense columns ``[num_users, num]`` of zeros and ones.

    Args:
        graph: Positive interactions.
        items: The items ``[num]``.
    """
    nodes = items + graph.num_users
    count = graph.adjacency.degree[nodes].long()
    column = torch.repeat_interleave(torch.arange(items.numel(), device=items.device), count)
    out = torch.zeros(graph.num_users, items.numel(), device=items.device)
    out[graph.adjacency.neighbors(nodes), column] = 1
    return out


@dataclass(kw_only=True)
class SessionKNN(Floor):
    r"""Score an item by the training sessions that hold it and are similar to the session so far.

    .. math::
        \text{sim}(q, s) = \frac{|q \cap s|}{\sqrt{|q|\,|s|}}, \qquad
        s_i = \sum_{s \in N_k(q),\, i \in s} \text{sim}(q, s)

    on sets of items. :math:`N_k(q)` are the :math:`k` most similar of the ``sample`` last sessions that share an item
    with :math:`q`, the later one first where they tie. Items with equal scores are ordered by popularity.

    Source: Jannach and Ludewig, *When recurrent neural networks meet the neighborhood for session-based
    recommendation*, RecSys 2017.

    Args:
        k: Neighbours per prefix.
        sample: Number of candidates, the last ones by time or, without times, by their order.

    Raises:
        ValueError: A number is below 1, or not a whole number.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1], [0, 2], [2, 1]])
        >>> SessionKNN().fit(graph).scores(graph, torch.tensor([0])).round(decimals=2)
        tensor([[1.4100, 0.7100, 0.7100]], dtype=torch.float64)
    """

    name: ClassVar[str] = "session-knn"
    kinds: ClassVar[tuple[Kind, ...]] = ("sessions",)
    k: int = 100
    sample: int = 1000

    def __post_init__(self) -> None:
        check_sizes(k=self.k, sample=self.sample)

    @torch.no_grad()
    def fit(self, graph: SessionGraph) -> SessionKNN:
        """Store the items of every session, the last sessions first.

        Args:
            graph: The training sessions.

        Returns:
            The floor itself.

        Raises:
            ValueError: The graph is of users and items.
        """
        self._check(graph)
        self.graph, count = graph, graph.num_sessions
        end = torch.arange(count, device=graph.device) if graph.time is None else graph.time[graph.click_ptr[1:] - 1]
        self._rank = torch.empty(count, dtype=torch.long, device=graph.device)
        self._rank[end.argsort(stable=True).flip(0)] = torch.arange(count, device=graph.device)
        session, item = self._rank[graph.batch], graph.x
        self._size = torch.bincount(session, minlength=count).float()
        self._holds = _matrix(session, item, (count, graph.num_items))
        self._tie = tie_breaker(graph)
        return self

    def _forget(self, other: SessionKNN, retained: SessionGraph, forgotten: Tensor) -> SessionKNN:
        """Drop the rows of sessions that are gone; where sessions lost single clicks, store all of them anew."""
        lost = torch.bincount(self.graph.session[forgotten], minlength=self.graph.num_sessions)
        gone = lost > 0
        if not bool((lost[gone] == self.graph.length[gone]).all()):
            return other.fit(retained)  # a session may now end, and thus rank, earlier
        other.graph, stays = retained, torch.empty_like(gone)
        stays[self._rank] = ~gone
        other._rank = (stays.cumsum(0) - 1)[self._rank[~gone]]
        first, held = self._holds.crow_indices(), self._holds.col_indices()
        count = first[1:] - first[:-1]
        item, count = held[stays.repeat_interleave(count)], count[stays]
        pointer = torch.cat([count.new_zeros(1), count.cumsum(0)])
        other._size = self._size[stays]
        other._holds = csr(pointer, item, torch.ones_like(item, dtype=torch.float), (count.numel(), retained.num_items))
        other._tie = tie_breaker(retained)
        return other

    @torch.no_grad()
    def scores(self, graph: SessionGraph, queries: Tensor) -> Tensor:
        """Return the sums of the similarities of the neighbours that hold every item.

        Args:
            graph: The graph of the sessions that are to be continued.
            queries: Positions of the last clicks of the prefixes ``[num]``.

        Returns:
            The scores ``[num, num_items]`` (float64).
        """
        self._check_fitted()
        prefixes = graph.prefixes(queries)
        asked = torch.zeros(self._holds.size(1), queries.numel(), device=graph.device)
        asked[prefixes.x, prefixes.batch] = 1
        session, query, both = self._candidates(asked)
        size = self._size[session].double()
        order = (both.square() / size).argsort(
            descending=True, stable=True
        )  # equal fractions are equal to the last bit
        order = order[query[order].argsort(stable=True)]
        width = torch.bincount(query, minlength=queries.numel())
        place = torch.arange(len(order), device=graph.device) - (width.cumsum(0) - width)[query[order]]
        near = order[place < self.k]
        alike = both[near] / (size[near] * asked.sum(0).double()[query[near]]).sqrt()
        first, held = self._holds.crow_indices(), self._holds.col_indices()
        count = (first[1:] - first[:-1])[session[near]]
        row = torch.arange(len(near), device=graph.device).repeat_interleave(count)
        within = torch.arange(len(row), device=graph.device) - (count.cumsum(0) - count)[row]
        item = held[first[session[near]][row] + within]
        out = self._tie.double().mul(1e-5).repeat(queries.numel(), 1)  # far below any difference of two sums
        return out.index_put_((query[near][row], item), alike[row], accumulate=True)

    def _candidates(self, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last sessions that share an item with each query, a part of the sessions at a time.

        Args:
            asked: Which items the queries hold, as zeros and ones ``[num_items, num]``.

        Returns:
            The sessions in ascending rank, the queries, and the numbers of shared items (float64) ``[num_found]``.
        """
        found, count = [], asked.new_zeros(asked.size(1), dtype=torch.long)
        first, held = self._holds.crow_indices(), self._holds.col_indices()
        for start in range(0, self._holds.size(0), PART):
            stop = min(start + PART, self._holds.size(0))
            pointer = first[start : stop + 1]
            column = held[int(pointer[0]) : int(pointer[-1])]
            ones = torch.ones(column.numel(), device=asked.device)
            both = csr(pointer - pointer[0], column, ones, (stop - start, asked.size(0))) @ asked
            shared = both > 0
            shared &= count + shared.cumsum(0) <= self.sample
            session, query = shared.nonzero(as_tuple=True)
            found.append((session + start, query, both[session, query].double()))
            count += shared.sum(0)
            if bool((count >= self.sample).all()):
                break
        session, query, both = (torch.cat(part) for part in zip(*found))
        return session, query, both


def _matrix(rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a sparse matrix of ones in CSR."""
    order = (rows * size[1] + columns).argsort()
    pointer = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=size[0]).cumsum(0)])
    return csr(pointer, columns[order], torch.ones(rows.numel(), device=rows.device), size)


def tie_breaker(graph: SessionGraph) -> Tensor:
    """Return numbers below 1e-4 that order items by popularity, to be added to scores ``[num_items]``.

    Args:
        graph: The training sessions.
    """
    counts = popularity(graph)
    return 1e-4 * counts / (counts.max() + 1)
