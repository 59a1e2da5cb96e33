"""Nearest neighbours: similar items for users, and similar sessions for sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.schema import check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.func.sparse import csr
from graphunlearn.nn.floors.base import Floor, positives, rows_of
from graphunlearn.nn.floors.popularity import popularity

__all__ = ["ItemKNN", "SessionKNN"]

BLOCK = 256  # items whose similarities to all others are held at a time


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

    Raises:
        ValueError: ``k`` is below 1, or ``shrink`` is negative.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 0, 1], [0, 1, 0]]), num_users=2, num_items=2)
        >>> ItemKNN(shrink=0).fit(graph).scores(graph, torch.tensor([1]))
        tensor([[0.0000, 0.7071]])
    """

    name: ClassVar[str] = "item-knn"
    kinds: ClassVar[tuple[Kind, ...]] = ("interactions",)
    k: int = 100
    shrink: float = 10.0

    def __post_init__(self) -> None:
        check_sizes(k=self.k)
        if self.shrink < 0:
            raise ArgumentError("shrink", "not be negative", self.shrink)

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
        graph = positives(graph)
        users, items, adjacency = graph.num_users, graph.num_items, graph.adjacency
        pointer = adjacency.rowptr[users:] - adjacency.rowptr[users]
        column = adjacency.col[int(adjacency.rowptr[users]) :]
        of_items = csr(pointer, column, torch.ones(column.numel(), device=column.device), (items, users))
        degree = adjacency.degree[users:].double()
        kept, parts = min(self.k, items), []
        order = 1e-12 * torch.arange(items, dtype=torch.double, device=degree.device)
        for first in range(0, items, BLOCK):
            block = torch.arange(first, min(first + BLOCK, items), device=degree.device)
            both = (of_items @ rows_of_items(graph, block)).double().t()  # [block, num_items], whole numbers
            weight = both / ((degree[block, None] * degree).sqrt() + self.shrink).clamp(min=1e-12)
            weight[torch.arange(block.numel(), device=degree.device), block] = 0
            near = (weight - order).topk(kept).indices
            parts.append((near, weight.gather(1, near)))
        near, weight = (torch.cat(part) for part in zip(*parts))
        used = weight > 0
        pointer = torch.cat([used.new_zeros(1, dtype=torch.long), used.sum(1).cumsum(0)])
        self.weights = csr(pointer, near[used], weight[used].to(torch.get_default_dtype()), (items, items))
        return self

    @torch.no_grad()
    def scores(self, graph: InteractionGraph, queries: Tensor) -> Tensor:
        """Return the sums of the similarities to the items of every user.

        Args:
            graph: The graph with the interactions of the users.
            queries: The users ``[num]``.

        Returns:
            The scores ``[num, num_items]``.
        """
        rows = rows_of(positives(graph), queries, self.weights.dtype)
        return (self.weights @ rows.t().contiguous()).t().contiguous()


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
        ValueError: A number is below 1.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1], [0, 2], [2, 1]])
        >>> SessionKNN().fit(graph).scores(graph, torch.tensor([0])).round(decimals=2)
        tensor([[1.4100, 0.7100, 0.7100]])
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
        count = graph.num_sessions
        end = torch.arange(count, device=graph.device) if graph.time is None else graph.time[graph.click_ptr[1:] - 1]
        rank = torch.empty(count, dtype=torch.long, device=graph.device)
        rank[end.argsort(stable=True).flip(0)] = torch.arange(count, device=graph.device)
        session, item = rank[graph.batch], graph.x
        self._size = torch.bincount(session, minlength=count).float()
        self._holds = _matrix(session, item, (count, graph.num_items))
        self._held = _matrix(item, session, (graph.num_items, count))
        self._tie = tie_breaker(graph)
        return self

    @torch.no_grad()
    def scores(self, graph: SessionGraph, queries: Tensor) -> Tensor:
        """Return the sums of the similarities of the neighbours that hold every item.

        Args:
            graph: The graph of the sessions that are to be continued.
            queries: Positions of the last clicks of the prefixes ``[num]``.

        Returns:
            The scores ``[num, num_items]``.
        """
        prefixes = graph.prefixes(queries)
        asked = torch.zeros(self._held.size(0), queries.numel(), device=graph.device)
        asked[prefixes.x, prefixes.batch] = 1
        alike = self._holds @ asked  # [num_sessions, num]
        alike[(alike > 0).cumsum(0) > self.sample] = 0
        alike /= (self._size[:, None] * asked.sum(0)).sqrt()
        kept = min(self.k, alike.size(0))
        order = 1e-9 * torch.arange(alike.size(0), device=graph.device, dtype=torch.double)
        near = (alike.double() - order[:, None]).topk(kept, dim=0).indices
        neighbours = torch.zeros_like(alike).scatter_(0, near, alike.gather(0, near))
        return (self._held @ neighbours).t() + self._tie


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
