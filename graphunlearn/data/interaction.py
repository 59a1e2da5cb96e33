"""User–item graphs as PyTorch Geometric objects."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
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
from graphunlearn.func.sparse import Adjacency

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EDGE_TYPE", "InteractionGraph"]

# An adjacency belongs to one state of a tensor of pairs: (version, users, items) and the adjacency, or how to make it.
# Kept outside the graphs, it is never copied, moved or pickled with one, and never stale.
_ADJACENCY: MutableMapping[Tensor, tuple[tuple[int, int, int], Adjacency | Callable[[], Adjacency]]] = (
    WeakTensorKeyDictionary()
)


class InteractionGraph(Conversions):
    r"""A bipartite graph of users, items and the interactions between them.

    Node types ``"user"`` and ``"item"``, one edge type ``("user", "interacts", "item")`` with optional ``rating``,
    ``time`` and ``label`` per interaction. Node ids never change and counts never shrink, so that embedding tables keep
    their shape whatever is forgotten. All of :class:`~torch_geometric.data.HeteroData` works.

    :class:`~torch_geometric.transforms.ToUndirected` adds a mirrored relation that nothing here needs:
    :attr:`adjacency` always has both directions, and :meth:`select` leaves the mirror out, since it would keep what was
    to be forgotten.

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
        """Return the raw ids of ``"user"`` or ``"item"`` nodes, with a fast lookup."""
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
        """Number of users, items and interactions, by these names."""
        return {"users": self.num_users, "items": self.num_items, "interactions": self.num_interactions}

    @property
    def num_rows(self) -> int:
        """Number of users plus items."""
        return self.num_nodes

    @property
    def active(self) -> Tensor:
        """Which users and items have an interaction ``[num_nodes]``."""
        return self.adjacency.degree > 0

    @property
    def device(self) -> torch.device:
        """Device of the interactions."""
        return self.pairs.device

    @property
    def pairs(self) -> Tensor:
        """User and item of every interaction, both numbered from 0 ``[2, num_interactions]``."""
        pairs = self._interactions.get("edge_index")
        return torch.empty(2, 0, dtype=torch.long) if pairs is None else pairs

    @property
    def _interactions(self) -> Any:
        return self._edge_store_dict.get(EDGE_TYPE, {})

    @property
    def rating(self) -> Tensor | None:
        """Rating of every interaction, or none."""
        return self._interactions.get("rating")

    @property
    def time(self) -> Tensor | None:
        """Time of every interaction, or none."""
        return self._interactions.get("time")

    @property
    def label(self) -> Tensor | None:
        """Label of every interaction, or none."""
        return self._interactions.get("label")

    @property
    def num_left_out(self) -> int:
        """How many rows were left out because the graph given as ``like`` did not know their user or item."""
        return int(self._global_store.get("num_left_out", 0))

    @property
    def adjacency(self) -> Adjacency:
        """Both directions of all interactions in CSR, items numbered after users; built once per state of the graph.

        A change of the pairs is noticed, unless it is hidden from torch (through ``.data`` or a NumPy view).
        """
        pairs, state = self.pairs, self._state
        known, adjacency = _ADJACENCY.get(pairs, (None, None))
        if adjacency is None or state is None or known != state:
            adjacency = partial(Adjacency.from_pairs, pairs, self.num_users, self.num_items)
        if not isinstance(adjacency, Adjacency):
            with torch.inference_mode(False), torch.no_grad():
                adjacency = adjacency()
            if state is not None:
                _ADJACENCY[pairs] = (state, adjacency)
        return adjacency

    @property
    def _state(self) -> tuple[int, int, int] | None:
        """What the adjacency depends on besides the tensor; tensors made in inference mode have no version."""
        return None if self.pairs.is_inference() else (self.pairs._version, self.num_users, self.num_items)

    def fingerprint(self) -> str:
        """Return a SHA-256 of the content: counts, raw ids, pairs and their values, in whatever order they lie."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for node_type in ("user", "item"):
            digest.update(self.vocabulary(node_type).fingerprint.encode())
        order = self.adjacency.interaction[: self.num_interactions].long()
        digest.update(self.pairs[:, order].cpu().numpy().tobytes())
        for name in ATTRIBUTES:
            value = self._interactions.get(name)
            if value is not None:
                digest.update(name.encode() + (value[order].double() + 0.0).cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode(False)  # what is cut in inference mode is for use outside it as well
    def select(self, index: Tensor) -> Self:
        """Return the graph of some of the interactions: same nodes, counts and raw ids, fewer interactions.

        Whatever could still name a dropped pair is left out: other relations between users and items, and the
        supervision pairs (``edge_label_index``) of a link split.

        Args:
            index: Boolean mask ``[num_interactions]``, or the indices to keep; they stay in the order of the graph.

        Raises:
            ValueError: If the mask has another length or an index is out of range.

        Example:
            >>> import torch
            >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> graph.select(torch.tensor([False, True, True])).pairs
            tensor([[1, 1],
                    [0, 1]])
        """
        keep = as_mask(index, self.num_interactions, self.pairs.device)
        kept = keep.nonzero().flatten()
        graph = self.__class__()
        graph._global_store.update(self._global_store)
        for node_type, store in self.node_items():
            graph[node_type].update(store)
        for edge_type, store in self.edge_items():
            if edge_type == EDGE_TYPE:
                graph[edge_type].edge_index = store.edge_index.index_select(1, kept)
                values = {k: v for k, v in store.items() if is_per_interaction(k, v, keep.numel())}
                graph[edge_type].update({k: v.index_select(0, kept) for k, v in values.items()})
            elif {edge_type[0], edge_type[2]} != {"user", "item"}:
                graph[edge_type].update(store)
        known, adjacency = _ADJACENCY.get(self.pairs, (None, None))
        if known is not None and known == self._state and graph._state is not None and isinstance(adjacency, Adjacency):
            _ADJACENCY[graph.pairs] = (graph._state, partial(adjacency.select, keep))  # without sorting again
        return graph

    def seen(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of some users: positions in ``queries`` ``[num]``, and items ``[num_seen]`` each."""
        adjacency = self.adjacency
        row = torch.arange(len(queries), device=queries.device).repeat_interleave(adjacency.degree[queries].long())
        return row, adjacency.neighbors(queries) - self.num_users

    def keep(self, mask: Tensor) -> Self:
        """Return the graph of the interactions where ``mask`` ``[num_interactions]`` is true; see :meth:`select`."""
        return self.select(mask)

    def ends(self, level: str) -> Tensor:
        """Return the user (``"user"``) or item (``"item"``) of every interaction ``[num_interactions]``."""
        return self.pairs[SIDES.index(level)]

    def match(self, level: str, index: tuple[Any, ...], raw: bool) -> Tensor:
        """Return the positions of the interactions that one part of a request names ``[num_matches]``.

        Raises:
            ValueError: The graph does not know an id or a pair, or does not serve the level.
        """
        if level not in self.levels:
            raise ArgumentError(
                "level", "be 'interaction', 'user' or 'item' for a graph of users and items", f"{level!r}"
            )
        adjacency = self.adjacency
        if level != "interaction":
            nodes = self._nodes(level, index, raw) + (self.num_users if level == "item" else 0)
            return adjacency.interaction[adjacency.entries(nodes)].long()
        users, items = (self._nodes(side, ends, raw) for side, ends in zip(SIDES, zip(*index)))
        position, missing = self._find(users * self.num_items + items)
        if missing.any():
            unknown = [index[i] for i in missing.nonzero().flatten().tolist()]
            are = "is" if len(unknown) == 1 else "are"
            raise ArgumentError(
                "index",
                "hold interactions of the graph",
                f"{preview(unknown)}, which {are} not among its {self.num_interactions} interactions",
            )
        return position

    def holds(self, part: ForgetRequest) -> Tensor:
        """Return which pairs are interactions of the graph, or which users or items it knows ``[len(part)]``."""
        if part.level != "interaction":
            return self._known(part.level, part.index, part.raw)
        ends = list(zip(*part.index))
        known = self._known("user", ends[0], part.raw) & self._known("item", ends[1], part.raw)
        names = [pair for pair, here in zip(part.index, known.tolist()) if here]
        if names:
            users, items = (self._nodes(side, side_ids, part.raw) for side, side_ids in zip(SIDES, zip(*names)))
            known[known.clone()] = ~self._find(users * self.num_items + items)[1].cpu()
        return known

    def _find(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of pairs given as ``user * num_items + item``, and which of them are not there."""
        order = self.adjacency.interaction[: self.num_interactions].long()
        known = self.pairs[0, order] * self.num_items + self.pairs[1, order]  # ascending
        if not known.numel():
            return torch.zeros_like(codes), torch.ones_like(codes, dtype=torch.bool)
        position = torch.searchsorted(known, codes).clamp(max=known.numel() - 1)
        return order[position], known[position] != codes

    def without_emptied(self, graph: InteractionGraph, retained: InteractionGraph) -> Self:
        """Return this graph without the interactions of users and items that have none left in ``retained``.

        Args:
            graph: The training graph before forgetting.
            retained: The training graph after it.
        """
        emptied = graph.emptied(retained)
        return self.select(~(emptied[self.pairs[0]] | emptied[self.pairs[1] + graph.num_users]))

    def random_split(self, fractions: Sequence[float], seed: int = 0) -> tuple[Self, ...]:
        """Return disjoint graphs of randomly drawn interactions, one per fraction.

        Args:
            fractions: Share of every part; they add up to 1.
            seed: Seed of the draw; the same on every device.

        Raises:
            ValueError: If the fractions are not positive or do not add up to 1.

        Example:
            >>> import torch
            >>> graph = InteractionGraph.from_edges(torch.arange(10).repeat(2, 1))
            >>> [part.num_interactions for part in graph.random_split([0.8, 0.1, 0.1], seed=0)]
            [8, 1, 1]
        """
        cuts = cuts_of(fractions, self.num_interactions)
        permutation = torch.randperm(self.num_interactions, generator=torch.Generator().manual_seed(seed))
        return tuple(self.select(part) for part in permutation.to(self.pairs.device).tensor_split(cuts))

    def binarize(self, threshold: float) -> Self:
        """Return the same graph with ``label`` 1 where the rating is above ``threshold``, 0 elsewhere.

        Args:
            threshold: Largest rating that is still a no.

        Raises:
            ValueError: If the graph has no ratings.

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
        """Return the induced subgraph, renumbered, as PyTorch Geometric does; the raw ids follow."""
        graph = super().subgraph(subset_dict)
        for node_type, subset in subset_dict.items():
            graph[node_type].vocabulary = self.vocabulary(node_type).take(subset)
        return graph

    def __setattr__(self, key: str, value: Any) -> None:
        if isinstance(getattr(type(self), key, None), property):
            raise AttributeError(f"'{key}' is read-only: it follows from the nodes and interactions of the graph")
        super().__setattr__(key, value)
