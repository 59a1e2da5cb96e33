"""User–item graphs as PyTorch Geometric objects."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data.events import Kind
from graphunlearn.data.io.interactions import Conversions
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, SIDES, as_mask, cuts_of, is_per_interaction
from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.errors import ArgumentError
from graphunlearn.func.adjacency import Adjacency
from graphunlearn.func.kept import Kept

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EDGE_TYPE", "InteractionGraph"]


class _Selected:
    """The adjacency of some interactions of a graph, built when it is called; the degrees are known before that."""

    def __init__(self, adjacency: Adjacency, keep: Tensor, degree: Tensor) -> None:
        self.adjacency, self.keep, self.degree = adjacency, keep, degree

    def __call__(self) -> Adjacency:
        return self.adjacency.select(self.keep, (self.degree != self.adjacency.degree).nonzero().view(-1))


# Cache of adjacencies by tensor of pairs: the state (version, users, items) that an adjacency was built for, and the
# adjacency or what builds it. The cache lies outside the graphs, so that an adjacency is never copied, moved
# or pickled with a graph; the state tells when it is out of date.
_ADJACENCY: MutableMapping[Tensor, tuple[tuple[int, int, int], Adjacency | _Selected]] = WeakTensorKeyDictionary()


class InteractionGraph(Conversions):
    r"""A bipartite graph of users, items and the interactions between them.

    The graph has the node types ``"user"`` and ``"item"`` and the edge type ``("user", "interacts", "item")``, with an
    optional ``rating``, ``time`` and ``label`` per interaction. Forgetting never changes node ids or the number of
    nodes, so embedding tables keep their shape. All methods of :class:`~torch_geometric.data.HeteroData` work.

    There is no need for :class:`~torch_geometric.transforms.ToUndirected`, since :attr:`adjacency` always holds both
    directions. :meth:`select` drops the mirrored relation that this transform adds, because the mirror would still
    contain the forgotten interactions.

    Attributes:
        kind: ``"interactions"``.
        unit: ``"interaction"``, the name of one event.
        query: ``"user"``, the node type that items are recommended to.
        levels: Levels of forget requests that the graph accepts.

    Example:
        >>> import torch
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=3)
        >>> graph.num_nodes, graph.num_interactions, graph.adjacency.degree.tolist()
        (5, 3, [1, 2, 2, 1, 0])
    """

    kind: ClassVar[Kind] = "interactions"
    unit: ClassVar[str] = "interaction"
    query: ClassVar[str] = "user"
    levels: ClassVar[tuple[str, ...]] = ("interaction", "user", "item")

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return the raw ids of the users or of the items.

        Args:
            kind: ``"user"`` or ``"item"``.

        Raises:
            ValueError: The graph is a batch, or the number of raw ids is not the number of nodes.
        """
        store = self._node_store_dict.get(kind, {})
        size, vocabulary = store.get("num_nodes", 0), store.get("vocabulary")
        if vocabulary is None:
            return Vocabulary(int(size))
        if isinstance(vocabulary, list):
            raise ValueError("a batch of graphs has no raw ids of its own; take it apart with 'get_example'")
        if len(vocabulary) != size:
            raise ValueError(f"graph['{kind}'] must have one raw id per node (got {len(vocabulary)} for {size})")
        return vocabulary

    @property
    def user_ids(self) -> list[str]:
        """Raw id of every user."""
        return self.vocabulary("user").ids

    @property
    def first_user(self) -> int:
        """Number of the first user in the graph that this one is a part of; 0 for a whole graph."""
        return 0

    @property
    def num_users(self) -> int:
        """Number of users, with or without interactions."""
        return int(self._node_store_dict.get("user", {}).get("num_nodes", 0))

    @property
    def num_items(self) -> int:
        """Number of items, with or without interactions."""
        return int(self._node_store_dict.get("item", {}).get("num_nodes", 0))

    @property
    def num_nodes(self) -> int:
        """Number of users plus items."""
        return self.num_users + self.num_items

    @property
    def num_interactions(self) -> int:
        """Number of interactions."""
        return self.pairs.size(1)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of ``"users"``, ``"items"`` and ``"interactions"``."""
        return {"users": self.num_users, "items": self.num_items, "interactions": self.num_interactions}

    @property
    def num_rows(self) -> int:
        """Number of rows of an embedding table: users plus items."""
        return self.num_nodes

    @property
    def sides(self) -> tuple[slice, ...]:
        """Rows of the users and rows of the items of a table with all nodes."""
        return slice(0, self.num_users), slice(self.num_users, self.num_nodes)

    @property
    def degree(self) -> Tensor:
        """Number of interactions of every user and item, users first ``[num_nodes]``."""
        known, adjacency = _ADJACENCY.get(self.pairs, (None, None))
        return adjacency.degree if adjacency is not None and known == self._state else self.adjacency.degree

    @property
    def device(self) -> torch.device:
        """Device of the interactions."""
        return self.pairs.device

    @property
    def pairs(self) -> Tensor:
        """User and item of every interaction, each numbered from 0 ``[2, num_interactions]``."""
        pairs = self._interactions.get("edge_index")
        return torch.empty(2, 0, dtype=torch.long) if pairs is None else pairs

    @property
    def _interactions(self) -> Any:
        return self._edge_store_dict.get(EDGE_TYPE, {})

    @property
    def rating(self) -> Tensor | None:
        """Rating of every interaction ``[num_interactions]``, or ``None``."""
        return self._interactions.get("rating")

    @property
    def time(self) -> Tensor | None:
        """Time of every interaction ``[num_interactions]``, or ``None``."""
        return self._interactions.get("time")

    @property
    def label(self) -> Tensor | None:
        """Label of every interaction ``[num_interactions]``, or ``None``."""
        return self._interactions.get("label")

    @property
    def num_left_out(self) -> int:
        """Number of rows dropped on reading because the graph given as ``like`` lacks their user or item."""
        return int(self._global_store.get("num_left_out", 0))

    @property
    def adjacency(self) -> Adjacency:
        """Adjacency in CSR with both directions of all interactions; items are numbered after users.

        The adjacency is built once and cached. It is rebuilt after the pairs change, unless the change bypasses
        PyTorch's version counter (through ``.data`` or a NumPy view).
        """
        pairs, state = self.pairs, self._state
        known, adjacency = _ADJACENCY.get(pairs, (None, None))
        if isinstance(adjacency, Adjacency) and state is not None and known == state:
            return adjacency
        with torch.inference_mode(False), torch.no_grad():
            if adjacency is None or state is None or known != state:
                adjacency = Adjacency.from_pairs(pairs, self.num_users, self.num_items)
            elif not isinstance(adjacency, Adjacency):
                adjacency = adjacency()
        if state is not None:
            _ADJACENCY[pairs] = (state, adjacency)
        return adjacency

    @property
    def _state(self) -> tuple[int, int, int] | None:
        """Version of the pairs and numbers of nodes, or ``None`` for tensors made in inference mode (no version)."""
        return None if self.pairs.is_inference() else (self.pairs._version, self.num_users, self.num_items)

    def fingerprint(self) -> str:
        """Return the SHA-256 fingerprint of the graph: its counts, raw ids, interactions and their attributes.

        The fingerprint does not depend on the order of the interactions.
        """
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for node_type in ("user", "item"):
            digest.update(self.vocabulary(node_type).fingerprint.encode())
        order = self.adjacency.interaction[: self.num_interactions].long()
        for ends in self.pairs:
            digest.update(ends.index_select(0, order).cpu().numpy())
        for name in ATTRIBUTES:
            value = self._interactions.get(name)
            if value is not None:
                digest.update(name.encode())
                digest.update((value.index_select(0, order).double() + 0.0).cpu().numpy())
        return digest.hexdigest()

    @torch.inference_mode(False)  # a graph selected in inference mode must be usable outside it as well
    def select(self, index: Tensor) -> Self:
        """Return the graph with a subset of the interactions; nodes, counts and raw ids stay the same.

        Data that could still contain a dropped pair are left out: other relations between users and items, and the
        supervision pairs (``edge_label_index``) of a link split.

        Args:
            index: Boolean mask ``[num_interactions]``, or the indices to keep. The kept interactions stay in the order
                of the graph.

        Returns:
            A new graph of the same class.

        Raises:
            ValueError: The mask has another length or an index is out of range.

        Example:
            >>> import torch
            >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> graph.select(torch.tensor([False, True, True])).pairs
            tensor([[1, 1],
                    [0, 1]])
        """
        keep = as_mask(index, self.num_interactions, self.pairs.device)
        kept = Kept(keep)
        graph = self.__class__()
        graph._global_store.update(self._global_store)
        for node_type, store in self.node_items():
            graph[node_type].update(store)
        for edge_type, store in self.edge_items():
            if edge_type == EDGE_TYPE:
                graph[edge_type].edge_index = kept.of(store.edge_index, 1)
                values = {k: v for k, v in store.items() if is_per_interaction(k, v, keep.numel())}
                graph[edge_type].update({k: kept.of(v) for k, v in values.items()})
            elif {edge_type[0], edge_type[2]} != {"user", "item"}:
                graph[edge_type].update(store)
        known, adjacency = _ADJACENCY.get(self.pairs, (None, None))
        if known is not None and known == self._state and graph._state is not None and isinstance(adjacency, Adjacency):
            few = 2 * kept.count < kept.size
            counted = graph.pairs if few else self.pairs.index_select(1, kept.dropped)
            nodes = (counted + counted.new_tensor([[0], [self.num_users]])).flatten()
            count = torch.bincount(nodes, minlength=self.num_nodes).int()
            degree = count if few else adjacency.degree - count
            _ADJACENCY[graph.pairs] = (graph._state, _Selected(adjacency, keep, degree))  # without sorting again
        return graph

    def seen(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items that the given users have interacted with.

        Args:
            queries: Internal user ids ``[num]``.

        Returns:
            For every seen item, the position of its user in ``queries`` ``[num_seen]`` and the item ``[num_seen]``.
        """
        adjacency = self.adjacency
        row = torch.arange(len(queries), device=queries.device).repeat_interleave(adjacency.degree[queries].long())
        return row, adjacency.neighbors(queries) - self.num_users

    def keep(self, mask: Tensor) -> Self:
        """Return the graph with a subset of the interactions; see :meth:`select`.

        Args:
            mask: Boolean mask of the interactions to keep ``[num_interactions]``.
        """
        return self.select(mask)

    def ends(self, level: str) -> Tensor:
        """Return the user or the item of every interaction.

        Args:
            level: ``"user"`` or ``"item"``.

        Returns:
            Node numbers ``[num_interactions]``.
        """
        return self.pairs[SIDES.index(level)]

    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the interactions that a request of one level names.

        Args:
            level: ``"interaction"``, ``"user"`` or ``"item"``.
            index: Ids, or pairs of user and item at level ``"interaction"``.
            raw: Whether the ids are raw ids rather than node numbers.

        Returns:
            Positions of the interactions ``[num_matches]``.

        Raises:
            ValueError: The graph lacks an id or a pair, or does not accept the level.
        """
        if level not in self.levels:
            expected = "be 'interaction', 'user' or 'item' for a graph of users and items"
            raise ArgumentError("level", expected, f"{level!r}")
        adjacency = self.adjacency
        if level != "interaction":
            nodes = self._nodes(level, index, raw) + (self.num_users if level == "item" else 0)
            return adjacency.interaction[adjacency.entries(nodes)].long()
        ends = ([pair[place] for pair in index] for place in (0, 1))  # zip(*index) makes an iterator per pair
        users, items = (self._nodes(side, ids, raw) for side, ids in zip(SIDES, ends))
        position, missing = self._find(users * self.num_items + items)
        if missing.any():
            unknown = [index[i] for i in missing.nonzero().flatten().tolist()]
            are = "is" if len(unknown) == 1 else "are"
            got = f"{preview(unknown)}, which {are} not among its {self.num_interactions} interactions"
            raise ArgumentError("index", "hold interactions of the graph", got)
        return position

    def holds(self, part: ForgetRequest) -> Tensor:
        """Return which entries of a request of one level the graph contains.

        Args:
            part: A request of one level.

        Returns:
            A mask on the CPU ``[len(part)]``: at level ``"interaction"`` the pairs that are interactions of the graph,
            otherwise the users or items that are nodes of it.
        """
        if part.level != "interaction":
            return self._lookup(part.level, part.index, part.raw)[1]
        ends = (self._lookup(side, ids, part.raw) for side, ids in zip(SIDES, zip(*part.index)))
        (users, known), (items, known_items) = ends
        missing = self._find((users * self.num_items + items).to(self.device))[1].cpu()
        return known & known_items & ~missing

    def _find(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of pairs given as ``user * num_items + item``, and a mask of the missing ones."""
        if not self.num_interactions:
            return torch.zeros_like(codes), torch.ones_like(codes, dtype=torch.bool)
        adjacency = self.adjacency
        users = codes.div(self.num_items, rounding_mode="floor").clamp(0, self.num_users - 1)
        wanted = codes - users * self.num_items + self.num_users
        low, end = adjacency.places(users, wanted), adjacency.rowptr[users + 1]
        place = low.clamp(max=self.num_interactions - 1)
        return adjacency.interaction[place].long(), (low >= end) | (adjacency.col[place] != wanted)

    def without_emptied(self, graph: InteractionGraph, retained: InteractionGraph) -> Self:
        """Return this graph without the interactions of users and items that forgetting left without interactions.

        Args:
            graph: The training graph before forgetting.
            retained: The retained training graph.

        Returns:
            This graph, usually of held-out data, with a subset of its interactions.
        """
        emptied = graph.emptied(retained)
        return self.select(~(emptied[self.pairs[0]] | emptied[self.pairs[1] + graph.num_users]))

    def random_split(self, fractions: Sequence[float], seed: int = 0) -> tuple[Self, ...]:
        """Split the interactions at random into disjoint graphs, one per fraction.

        Args:
            fractions: Share of the interactions in every part; the shares add up to 1.
            seed: Seed of the draw. The split is the same on every device.

        Returns:
            One graph per fraction, all with the nodes of this graph.

        Raises:
            ValueError: The fractions are not positive or do not add up to 1.

        Example:
            >>> import torch
            >>> graph = InteractionGraph.from_edges(torch.arange(10).repeat(2, 1))
            >>> [part.num_interactions for part in graph.random_split([0.8, 0.1, 0.1], seed=0)]
            [8, 1, 1]
        """
        cuts = cuts_of(fractions, self.num_interactions)
        permutation = torch.randperm(self.num_interactions, generator=torch.Generator().manual_seed(seed))
        return tuple(self.select(part) for part in permutation.to(self.pairs.device).tensor_split(cuts))

    def _units(self) -> tuple[int, Tensor | None, Tensor | None]:
        return self.num_interactions, self.pairs[0], self.time

    def shared(self, other: Self) -> int:
        """Return how many interactions are in another graph of the same users and items too.

        Example:
            >>> import torch
            >>> a, b = (InteractionGraph.from_edges(torch.tensor([[0, 1], [0, n]]), 2, 3) for n in (1, 2))
            >>> a.shared(b)
            1
        """
        codes = (graph.pairs[0].cpu() * self.num_items + graph.pairs[1].cpu() for graph in (self, other))
        return int(torch.isin(*codes).sum())

    def binarize(self, threshold: float) -> Self:
        """Return the graph with ``label`` 1 where the rating is above ``threshold`` and 0 elsewhere.

        Args:
            threshold: Largest rating that is labelled 0.

        Returns:
            A shallow copy of the graph with labels ``[num_interactions]``.

        Raises:
            ValueError: The graph has no ratings.

        Example:
            >>> import torch
            >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), rating=torch.tensor([3, 4]))
            >>> graph.binarize(3).label
            tensor([0., 1.])
        """
        if self.rating is None:
            raise ValueError("'binarize' needs a graph with ratings (got one without)")
        graph = copy.copy(self)
        graph[EDGE_TYPE].label = (self.rating > threshold).to(torch.get_default_dtype())
        return graph

    def subgraph(self, subset_dict: dict[str, Tensor]) -> Self:
        """Return the induced subgraph with nodes renumbered, as PyTorch Geometric does, and with their raw ids.

        Args:
            subset_dict: Node indices or masks to keep, by node type.
        """
        graph = super().subgraph(subset_dict)
        for node_type, subset in subset_dict.items():
            graph[node_type].vocabulary = self.vocabulary(node_type).take(subset)
        return graph

    def __setattr__(self, key: str, value: Any) -> None:
        if isinstance(getattr(type(self), key, None), property):
            raise AttributeError(f"'{key}' is read-only: it follows from the nodes and interactions of the graph")
        super().__setattr__(key, value)
