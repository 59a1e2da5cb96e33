r"""The part of a graph that one rank holds: a range of the users with their interactions, and all items.

The parts have the interface of a graph. Users are numbered from 0 within a part, degrees of items are those of the
whole graph, and products with the adjacency matrix are those of the whole graph: the rows of the users are computed by
the rank that holds them, and the rows of the items are summed over all ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, SIDES
from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.distributed.ranks import Ranks, check_world
from graphunlearn.errors import ArgumentError
from graphunlearn.func import Adjacency, csr

__all__ = ["Part", "ShardGraph", "cuts_of_users", "made_part", "take_part"]

_SHARDED: MutableMapping[Tensor, ShardAdjacency] = WeakTensorKeyDictionary()


@dataclass(frozen=True)
class Part:
    """Where the part of a rank lies in the whole graph.

    Args:
        ranks: The ranks.
        bounds: The first user of every rank, and the number of all users ``[world + 1]``.
    """

    ranks: Ranks
    bounds: tuple[int, ...]

    @property
    def first_user(self) -> int:
        """The number of the first user of this rank in the whole graph."""
        return self.bounds[self.ranks.rank]

    @property
    def num_all_users(self) -> int:
        """The number of users of the whole graph."""
        return self.bounds[-1]

    def __deepcopy__(self, memo: dict[int, Any]) -> Part:
        return self


class ShardMatrix:
    r"""A matrix with the pattern of the adjacency of the whole graph, of which a rank holds the entries of its users.

    A product takes the rows of the users of this rank and those of all items, and returns the same rows of the product:

    .. math::
        y_u = \hat A_{ui} x_i, \qquad y_i = \sum_r \hat A^{(r)}_{iu} x^{(r)}_u

    Args:
        users: The rows of the users ``[num_users, num_items]``.
        items: The rows of the items ``[num_items, num_users]``.
        ranks: The ranks, over which the rows of the items are summed.
    """

    def __init__(self, users: Tensor, items: Tensor, ranks: Ranks) -> None:
        self.users, self.items, self.ranks = users, items, ranks

    def __matmul__(self, x: Tensor) -> Tensor:
        num_users = self.users.size(0)
        waiting = self.ranks.total_later(self.items @ x[:num_users])
        users = self.users @ x[num_users:]  # while the sum is under way
        return torch.cat([users, waiting()])

    def squared(self) -> ShardMatrix:
        """Return the matrix with squared entries."""
        return ShardMatrix(_squared(self.users), _squared(self.items), self.ranks)

    def row_squares(self) -> Tensor:
        """Return the sum of the squared entries of every row ``[num_users + num_items]`` (float64)."""
        squares = []
        for m in (self.users, self.items):
            ends = torch.cat([m.values().new_zeros(1).double(), m.values().double().square().cumsum(0)])
            squares.append(ends[m.crow_indices().long()].diff())
        return torch.cat([squares[0], self.ranks.total(squares[1])])


def _squared(m: Tensor) -> Tensor:
    return csr(m.crow_indices(), m.col_indices(), m.values().square(), (m.size(0), m.size(1)))


class ShardAdjacency(Adjacency):
    """The adjacency of the part of a rank; degrees and the normalised matrix are those of the whole graph.

    Args:
        local: The adjacency of the interactions of this rank.
        num_users: The number of users of this rank.
        ranks: The ranks.
    """

    def __init__(self, local: Adjacency, num_users: int, ranks: Ranks) -> None:
        super().__init__(local.rowptr, local.col, local.interaction)
        self.local, self.num_users, self.ranks = local, num_users, ranks

    @cached_property
    def degree(self) -> Tensor:
        own = self.local.degree
        return torch.cat([own[: self.num_users], self.ranks.total(own[self.num_users :])])

    def entries(self, nodes: Tensor) -> Tensor:
        return self.local.entries(nodes)

    def matrix(self, values: Tensor) -> ShardMatrix:
        """Return a matrix with the pattern of the adjacency.

        Args:
            values: The values of the entries of this rank ``[2 * num_interactions]``.
        """
        users, half = self.num_users, self.col.numel() // 2
        items = self.num_nodes - users
        own = csr(self.rowptr[: users + 1], self.col[:half] - users, values[:half], (users, items))
        back = csr(self.rowptr[users:] - half, self.col[half:], values[half:], (items, users))
        return ShardMatrix(own, back, self.ranks)

    def _normalize(self, dtype: torch.dtype) -> Tensor:
        scale = self.degree.to(dtype).rsqrt()
        values = torch.repeat_interleave(scale, self.local.degree) * scale[self.col]
        return cast(Tensor, self.matrix(values))  # a linear form only multiplies with it


class ShardGraph(InteractionGraph):
    r"""The users of one rank with their interactions, and all items.

    Every method that an :class:`~graphunlearn.InteractionGraph` has works. Numbers of users, pairs and raw ids of users
    are those of this rank; :attr:`adjacency` and :attr:`degree` tell of the whole graph for items. Methods that need a
    sum over the ranks, such as :attr:`degree`, must be called on all ranks.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
        >>> part = take_part(graph, Ranks())  # one rank holds all users
        >>> part.num_users, part.degree.tolist()
        (2, [1, 2, 2, 1])
    """

    @property
    def part(self) -> Part:
        """Where the part lies in the whole graph."""
        return cast(Part, self._global_store["part"])

    @property
    def ranks(self) -> Ranks:
        """The ranks."""
        return self.part.ranks

    @property
    def first_user(self) -> int:
        """The number of the first user of this rank in the whole graph."""
        return self.part.first_user

    @property
    def position(self) -> Tensor:
        """The position of every interaction in the whole graph, before any was forgotten ``[num_interactions]``."""
        return cast(Tensor, self._interactions["position"])

    @property
    def adjacency(self) -> Adjacency:
        local, known = super().adjacency, _SHARDED.get(self.pairs)
        if known is None or known.local is not local:
            known = ShardAdjacency(local, self.num_users, self.ranks)
            if not self.pairs.is_inference():
                _SHARDED[self.pairs] = known
        return known

    @property
    def degree(self) -> Tensor:
        """Number of interactions of every user of this rank, and of every item in the whole graph ``[num_nodes]``."""
        return self.adjacency.degree

    def fingerprint(self) -> str:
        """Return the fingerprint of the part of this rank; it changes with the number of ranks."""
        return f"{super().fingerprint()} {self.part.bounds}"

    def count(self) -> int:
        """Return the number of interactions of the whole graph."""
        return int(self.ranks.number(self.num_interactions))

    def mask_of(self, request: ForgetRequest) -> Tensor:
        """Return the forget set of a request among the interactions of this rank; it may be empty.

        Args:
            request: The request, the same on all ranks.

        Returns:
            A mask ``[num_interactions]``.

        Raises:
            ArgumentError: No rank holds an id or a pair of the request, or all interactions would be forgotten.
        """
        mask = torch.zeros(self.num_interactions, dtype=torch.bool, device=self.device)
        for part in request.parts:
            if part.level not in self.levels:
                raise ArgumentError("request", f"be of one of the levels {', '.join(self.levels)}", part.level)
            part = self._local(part)
            here = self.holds(part)
            held = self.ranks.total(here.int()) > 0
            if not bool(held.all()):
                unknown = [part.index[n] for n in (~held).nonzero().flatten().tolist()]
                raise ArgumentError("request", f"hold {part.level}s of the graph", preview(unknown))
            index = tuple(part.index[n] for n in here.nonzero().flatten().tolist())
            if index:
                mask[self.match(part.level, index, part.raw)] = True
        count, of = int(self.ranks.number(int(mask.sum()))), self.count()
        if not 0 < count < of:
            raise ArgumentError("request", "match some interactions of the graph, and leave some", f"{count} of {of}")
        return mask

    def _local(self, part: ForgetRequest) -> ForgetRequest:
        """Return a request with users numbered as in this part, if it holds numbers."""
        if part.raw or part.level == "item":
            return part
        first = self.first_user
        index: Iterable[Any] = part.index
        if part.level == "user":
            index = [user - first for user in index]
        else:
            index = [(user - first, item) for user, item in index]
        return ForgetRequest(part.level, tuple(index), raw=False)

    def whole(self) -> InteractionGraph | None:
        """Return the whole graph on rank 0, with its interactions in their order, and ``None`` on the others."""
        names = [name for name in ATTRIBUTES if name in self._interactions]
        pairs = self.pairs + torch.tensor([[self.first_user], [0]], device=self.device)
        columns = [self.ranks.gather(x) for x in (pairs.t().contiguous(), self.position)]
        values = [self.ranks.gather(self._interactions[name]) for name in names]
        ids = self.ranks.objects(self.user_ids)
        if columns[0] is None or columns[1] is None:
            return None
        order = columns[1].argsort()
        users = [text for part in ids for text in part]
        plain = Vocabulary(len(users))
        vocabulary = plain if users == plain.ids else Vocabulary(users)
        made = _made(InteractionGraph, columns[0][order].t().contiguous(), vocabulary, self.vocabulary("item"))
        made[EDGE_TYPE].update({name: value[order] for name, value in zip(names, values) if value is not None})
        return cast(InteractionGraph, made)


def cuts_of_users(count: Tensor, world: int) -> tuple[int, ...]:
    """Return ranges of users with about the same number of interactions, and at least one user each.

    Args:
        count: Number of interactions of every user ``[num_users]``.
        world: Number of ranges.

    Returns:
        The first user of every range, and the number of users ``[world + 1]``.

    Raises:
        ArgumentError: There are more ranges than users.

    Example:
        >>> cuts_of_users(torch.tensor([6, 1, 1, 4]), 2)
        (0, 1, 4)
    """
    num_users = len(count)
    check_world(world, num_users)
    ends, bounds = count.long().cumsum(0), [0]
    for rank in range(1, world):
        wanted = int(ends[-1]) * rank // world
        cut = int(torch.searchsorted(ends, wanted)) + 1
        if cut > 1 and int(ends[cut - 1]) - wanted > wanted - int(ends[cut - 2]):  # the cut before is closer
            cut -= 1
        bounds.append(min(max(cut, bounds[-1] + 1), num_users - (world - rank)))
    return (*bounds, num_users)


def take_part(graph: InteractionGraph, ranks: Ranks, *, like: ShardGraph | None = None) -> ShardGraph:
    """Return the part of a graph that this rank works on; all ranks pass the same graph.

    Args:
        graph: The whole graph.
        ranks: The ranks.
        like: A part whose users the result has too, such as that of the training graph for held-out data.

    Returns:
        The part, which shares no memory with the graph.

    Raises:
        ArgumentError: There are more ranks than users.
        RankError: The ranks pass different graphs.
    """
    ranks.same(data=graph.fingerprint())
    bounds = cuts_of_users(graph.degree[: graph.num_users], ranks.world) if like is None else like.part.bounds
    part = Part(ranks, bounds)
    first, last = part.first_user, bounds[ranks.rank + 1]
    position = ((graph.pairs[0] >= first) & (graph.pairs[0] < last)).nonzero().view(-1)
    pairs = graph.pairs.index_select(1, position)
    pairs[0] -= first
    values = {name: getattr(graph, name) for name in ATTRIBUTES if getattr(graph, name) is not None}
    own = {name: value.index_select(0, position) for name, value in values.items()}
    users, items = (graph.vocabulary(side) for side in SIDES)
    if not users.is_range or ranks.world > 1:
        users = users.take(torch.arange(first, last))
    return made_part(part, pairs, position, users, items, own)


def made_part(
    part: Part, pairs: Tensor, position: Tensor, users: Vocabulary, items: Vocabulary, values: Mapping[str, Tensor]
) -> ShardGraph:
    """Return the part of a rank from its columns.

    Args:
        part: Where the part lies in the whole graph.
        pairs: Users, numbered from 0 in this part, and items ``[2, num_interactions]``.
        position: The position of every interaction in the whole graph, ascending ``[num_interactions]``.
        users: Raw ids of the users of this rank.
        items: Raw ids of all items.
        values: Ratings, times and labels ``[num_interactions]``, by name.
    """
    made = _made(ShardGraph, pairs, users, items)
    made._global_store["part"] = part
    made[EDGE_TYPE]["position"] = position
    made[EDGE_TYPE].update(values)
    return cast(ShardGraph, made)


def _made(cls: type[InteractionGraph], pairs: Tensor, users: Vocabulary, items: Vocabulary) -> Any:
    graph = cls()
    for side, vocabulary in zip(SIDES, (users, items)):
        graph[side].num_nodes = len(vocabulary)
        graph[side].vocabulary = vocabulary
    graph[EDGE_TYPE].edge_index = pairs
    return graph
