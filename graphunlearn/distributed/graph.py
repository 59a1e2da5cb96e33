r"""The part of a graph that one rank holds: a range of the users with their interactions, and all items.

The parts have the interface of a graph. Users are numbered from 0 within a part, degrees of items are those of the
whole graph, and products with the adjacency matrix are those of the whole graph: the rows of the users are computed by
the rank that holds them, and the rows of the items are summed over all ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, SIDES
from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.distributed.adjacency import ShardAdjacency
from graphunlearn.distributed.items import DividedItems, Items
from graphunlearn.distributed.ranks import Ranks, check_world
from graphunlearn.errors import ArgumentError
from graphunlearn.func import Adjacency

__all__ = ["ItemRows", "Part", "ShardGraph", "cuts_of_items", "cuts_of_users", "made_part", "take_part"]

ItemRows = Literal["replicated", "sharded"]
"""Which rows of items a rank holds."""

_SHARDED: MutableMapping[Tensor, ShardAdjacency] = WeakTensorKeyDictionary()


@dataclass(frozen=True)
class Part:
    """Where the part of a rank lies in the whole graph.

    Args:
        ranks: The ranks.
        bounds: The first user of every rank, and the number of all users ``[world + 1]``.
        item_bounds: The first item of every rank whose row it holds, and the number of items ``[world + 1]``; ``None``
            if every rank holds the rows of all items.
    """

    ranks: Ranks
    bounds: tuple[int, ...]
    item_bounds: tuple[int, ...] | None = None

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
    def item_rows(self) -> Items:
        """The rows of items that this rank holds."""
        bounds = self.part.item_bounds
        return Items(self.ranks, self.num_items) if bounds is None else DividedItems(self.ranks, bounds)

    @property
    def num_item_rows(self) -> int:
        """Number of rows of items in the table of this rank."""
        return self.item_rows.held

    @property
    def num_rows(self) -> int:
        """Number of rows in the table of this rank: those of its users, then the rows of items that it holds."""
        return self.num_users + self.num_item_rows

    def own_rows(self, x: Tensor) -> Tensor:
        """Return the rows of the table of this rank from an array with a row for each of its users and for all items.

        Args:
            x: Such as degrees ``[num_nodes, ...]``.

        Returns:
            The rows ``[num_rows, ...]``.
        """
        return torch.cat([x[: self.num_users], self.item_rows.own(x[self.num_users :])]) if self.part.item_bounds else x

    @property
    def position(self) -> Tensor:
        """The position of every interaction in the whole graph, before any was forgotten ``[num_interactions]``."""
        return cast(Tensor, self._interactions["position"])

    @property
    def adjacency(self) -> Adjacency:
        local, known = super().adjacency, _SHARDED.get(self.pairs)
        if known is None or known.local is not local:
            known = ShardAdjacency(local, self.num_users, self.item_rows)
            if not self.pairs.is_inference():
                _SHARDED[self.pairs] = known
        return known

    @property
    def degree(self) -> Tensor:
        """Number of interactions of every user of this rank, and of every item in the whole graph ``[num_nodes]``."""
        return self.adjacency.degree

    def fingerprint(self) -> str:
        """Return the fingerprint of the part of this rank; it changes with the number of ranks."""
        held = "" if self.part.item_bounds is None else f" {self.part.item_bounds}"
        return f"{super().fingerprint()} {self.part.bounds}{held}"

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


def cuts_of_items(num_items: int, ranks: Ranks, items: ItemRows) -> tuple[int, ...] | None:
    """Return ranges of items of about the same size whose rows a rank each holds; ``None`` if all ranks hold all rows.

    Args:
        num_items: The number of items.
        ranks: The ranks.
        items: ``"replicated"`` or ``"sharded"``.

    Raises:
        ArgumentError: ``items`` is neither.

    Example:
        >>> cuts_of_items(5, Ranks(1, 2), "sharded")
        (0, 2, 5)
    """
    if items not in get_args(ItemRows):
        raise ArgumentError("items", f"be one of {', '.join(get_args(ItemRows))}", f"{items!r}")
    if items == "replicated" or ranks.world == 1:
        return None
    return tuple(num_items * rank // ranks.world for rank in range(ranks.world + 1))


def take_part(
    graph: InteractionGraph, ranks: Ranks, *, items: ItemRows = "replicated", like: ShardGraph | None = None
) -> ShardGraph:
    """Return the part of a graph that this rank works on; all ranks pass the same graph.

    Args:
        graph: The whole graph.
        ranks: The ranks.
        items: Whether every rank holds the rows of all items in its table (``"replicated"``), or every rank those of a
            contiguous part (``"sharded"``), which takes less memory with many items.
        like: A part whose users and rows of items the result has too, such as that of the training graph for held-out
            data; ``items`` is not used then.

    Returns:
        The part, which shares no memory with the graph.

    Raises:
        ArgumentError: There are more ranks than users, or ``items`` is neither of the two.
        RankError: The ranks pass different graphs, or different values of ``items``.
    """
    if like is None:
        cuts = cuts_of_items(graph.num_items, ranks, items)
        part = Part(ranks, cuts_of_users(graph.degree[: graph.num_users], ranks.world), cuts)
    else:
        part = like.part
    ranks.same(data=graph.fingerprint(), items=part.item_bounds)
    first, last = part.first_user, part.bounds[ranks.rank + 1]
    position = ((graph.pairs[0] >= first) & (graph.pairs[0] < last)).nonzero().view(-1)
    pairs = graph.pairs.index_select(1, position)
    pairs[0] -= first
    values = {name: getattr(graph, name) for name in ATTRIBUTES if getattr(graph, name) is not None}
    own = {name: value.index_select(0, position) for name, value in values.items()}
    users, known_items = (graph.vocabulary(side) for side in SIDES)
    if not users.is_range or ranks.world > 1:
        users = users.take(torch.arange(first, last))
    return made_part(part, pairs, position, users, known_items, own)


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
