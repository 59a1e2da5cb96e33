"""User–item graphs as PyTorch Geometric objects."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphunlearn.data.io.interactions import Conversions
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, as_mask, cuts_of, is_per_interaction
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError
from graphunlearn.func.sparse import Adjacency

if TYPE_CHECKING:
    from typing_extensions import Self

    from graphunlearn.data.request import ForgetRequest

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

    def vocabulary(self, node_type: str) -> Vocabulary:
        """Return the raw ids of ``"user"`` or ``"item"`` nodes, with a fast lookup."""
        store = self._node_store_dict.get(node_type, {})
        size, vocabulary = store.get("num_nodes", 0), store.get("vocabulary")
        if vocabulary is None:
            return Vocabulary(int(size))
        if isinstance(vocabulary, list):
            raise ValueError("a batch of graphs has no raw ids of its own; take it apart with 'get_example'")
        if len(vocabulary) != size:
            raise ValueError(f"graph['{node_type}'] must have one raw id per node (got {len(vocabulary)} for {size})")
        return vocabulary

    @property
    def user_ids(self) -> list[str]:
        """Raw id of every user."""
        return self.vocabulary("user").ids

    @property
    def item_ids(self) -> list[str]:
        """Raw id of every item."""
        return self.vocabulary("item").ids

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
    def device(self) -> torch.device:
        """Where the interactions lie."""
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

    def split(self, *requests: ForgetRequest) -> tuple[Self, Self]:
        """Return the graph without what the requests name, and the graph of what they name.

        Args:
            requests: One request or several.

        Returns:
            The retained and the forgotten interactions, as two graphs over the same nodes.

        Raises:
            ValueError: If a request does not fit the graph, or all of it would be removed.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> retain, forget = graph.split(gu.ForgetRequest("user", ["0"]))
            >>> retain.num_interactions, forget.num_interactions
            (2, 1)
        """
        if not requests:
            raise ArgumentError("requests", "hold at least one request", "none")
        forget = reduce(or_, requests).mask(self)
        return self.select(~forget), self.select(forget)

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
