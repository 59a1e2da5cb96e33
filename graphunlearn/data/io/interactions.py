"""Conversion of interaction graphs from and to tensors, tables, files and graphs of other libraries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage, NodeStorage

from graphunlearn.data.events import EventGraph
from graphunlearn.data.io import exchange
from graphunlearn.data.io import files as io
from graphunlearn.data.io.columns import Column
from graphunlearn.data.io.frame import categories, numbered
from graphunlearn.data.io.left_out import tell_left_out
from graphunlearn.data.io.tables import read_table
from graphunlearn.data.schema import ATTRIBUTES, EDGE_TYPE, SIDES, check_attribute, check_nodes, check_pairs, warn
from graphunlearn.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import networkx
    from typing_extensions import Self

__all__ = ["Conversions"]


class Conversions(EventGraph, HeteroData):
    """The conversions of :class:`~graphunlearn.data.InteractionGraph`."""

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        num_users: int | None = None,
        num_items: int | None = None,
        *,
        items_offset: int | None = None,
        undirected: bool = False,
        user_ids: Iterable[Any] | None = None,
        item_ids: Iterable[Any] | None = None,
        rating: Tensor | None = None,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Self:
        """Make a graph from pairs of users and items. Repeated pairs count once, with the values of the last one.

        Args:
            edge_index: Users and items, each numbered from 0 ``[2, num_interactions]``.
            num_users: Number of users (default: the number of raw ids, or the largest user plus one).
            num_items: Number of items (default: the number of raw ids, or the largest item plus one).
            items_offset: Number of the first item in ``edge_index``, such as ``num_users`` where items are numbered
                after users (default: 0). Without it, and without a number of items, numbers that are plainly those of
                nodes are refused.
            undirected: Whether ``edge_index`` has every edge in both directions, of which the one from the user to the
                item is taken.
            user_ids: Raw id of every user (default: its number).
            item_ids: Raw id of every item (default: its number).
            rating: Ratings ``[num_interactions]``.
            time: Times ``[num_interactions]``.
            label: Binary labels ``[num_interactions]``, 1 for positive and 0 for negative interactions.

        Returns:
            The graph, with copies of the tensors.

        Raises:
            ValueError: Types, ranges or lengths do not fit, a rating, time or label is not finite, or items are
                numbered after users or edges are in both directions although the arguments do not say so.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), user_ids=["ann", "bob"])
            >>> graph.user_ids, graph.item_ids
            (['ann', 'bob'], ['0', '1'])
            >>> nodes = torch.tensor([[0, 0, 1, 2, 3, 3], [2, 3, 3, 0, 0, 1]])  # items are the nodes 2 and 3
            >>> gu.InteractionGraph.from_edges(nodes, items_offset=2, undirected=True).pairs
            tensor([[0, 0, 1],
                    [0, 1, 1]])
        """
        pairs = check_pairs(edge_index)
        given = {"rating": rating, "time": time, "label": label}
        values = {name: value for name, value in given.items() if value is not None}
        checked = {name: check_attribute(name, v, pairs.size(1), pairs.device) for name, v in values.items()}
        if undirected:
            items_offset = num_users if items_offset is None else items_offset
            forth = exchange.one_direction(pairs, items_offset)
            pairs, checked = pairs[:, forth], {name: value[forth] for name, value in checked.items()}
        known = len(item_ids) if isinstance(item_ids, Sized) else num_items
        if items_offset is None and (known is None or (pairs.numel() and int(pairs[1].max()) >= known)):
            exchange.check_numbering(pairs, num_users)
        pairs = exchange.shifted(pairs, items_offset or 0)
        users = check_nodes("user", pairs[0], num_users, user_ids)
        items = check_nodes("item", pairs[1], num_items, item_ids)
        return cls._from_parts(pairs, users, items, checked)

    @classmethod
    def _assembled(cls, nodes: dict[str, dict[str, Any]], interactions: dict[str, Any]) -> Self:
        """Return a graph of distinct pairs, given what its stores hold.

        The stores are filled at once; PyTorch Geometric checks every name and value, which takes three times as long.
        """
        graph = cls()
        for node_type, values in nodes.items():
            store = graph._node_store_dict[node_type] = NodeStorage(_parent=graph, _key=node_type)
            store._mapping.update({"num_nodes": len(values["vocabulary"]), **values})
        edges = graph._edge_store_dict[EDGE_TYPE] = EdgeStorage(_parent=graph, _key=EDGE_TYPE)
        edges._mapping.update(interactions)
        return graph

    @classmethod
    def _from_parts(cls, pairs: Tensor, users: Vocabulary, items: Vocabulary, attributes: dict[str, Tensor]) -> Self:
        nodes = {side: {"vocabulary": vocabulary} for side, vocabulary in zip(SIDES, (users, items))}
        graph = cls._assembled(nodes, {"edge_index": pairs, **attributes})
        codes = (pairs[0] * max(len(items), 1) + pairs[1]).cpu().numpy()
        repeated = pd.Series(codes).duplicated(keep="last").to_numpy()
        if not repeated.any():
            return graph
        warn(f"{int(repeated.sum())} repeated (user, item) pairs were collapsed; the last occurrence of each was kept")
        keep = torch.from_numpy(~repeated).to(pairs.device)
        return graph.select(keep)

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        user: Column = None,
        item: Column = None,
        rating: Column = None,
        time: Column = None,
        label: Column = None,
        *,
        like: Self | None = None,
    ) -> Self:
        """Make a graph from the rows of a table.

        Args:
            df: The table.
            user: Name or position of the column of users. By default, all columns are found by their names.
            item: Name or position of the column of items.
            rating: Name or position of the column of ratings, if there is one.
            time: Name or position of the column of times, if there is one; dates become seconds since 1970.
            label: Name or position of the column of labels, if there is one.
            like: A graph whose users and items, with their numbers, the new graph uses. Rows with other users or items
                are left out and counted in :attr:`num_left_out`.

        Returns:
            The graph; without ``like``, nodes are numbered in order of first appearance.

        Raises:
            ValueError: A column does not exist, or an id or number is missing or malformed.

        Example:
            >>> import pandas as pd, graphunlearn as gu
            >>> df = pd.DataFrame({"user_id": [196, 186, 196], "movie": ["a", "a", "b"], "stars": [3, 4, 5]})
            >>> graph = gu.InteractionGraph.from_frame(df)
            >>> graph.user_ids, graph.item_ids, graph.rating.tolist()
            (['196', '186'], ['a', 'b'], [3.0, 4.0, 5.0])
        """
        given = {"user": user, "item": item, "rating": rating, "time": time, "label": label}
        return cls._from_tidy(read_table(df, "df", given, numeric=numbered(like, SIDES)), like)

    @classmethod
    def _from_tidy(cls, frame: pd.DataFrame, like: Self | None) -> Self:
        codes = torch.stack([torch.from_numpy(frame[side].cat.codes.to_numpy(dtype=np.int64)) for side in SIDES])
        users, items = (Vocabulary(frame[side].cat.categories) for side in SIDES)
        values = {name: torch.tensor(frame[name].to_numpy()) for name in ATTRIBUTES if name in frame}
        for name in values.keys() - {"time"}:  # times keep their type: seconds do not fit in single precision
            values[name] = values[name].to(torch.get_default_dtype())
        if like is None:
            return cls._from_parts(codes, users, items, values)
        known_users, known_items = like.vocabulary("user"), like.vocabulary("item")
        pairs = torch.stack([known_users.lookup(users.ids)[codes[0]], known_items.lookup(items.ids)[codes[1]]])
        known = (pairs >= 0).all(0)
        left_out = int((~known).sum())
        tell_left_out(left_out, len(known))
        values = {name: value[known] for name, value in values.items()}
        graph = cls._from_parts(pairs[:, known], known_users, known_items, values)
        graph._global_store["num_left_out"] = left_out
        return graph

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        user: Column = None,
        item: Column = None,
        rating: Column = None,
        time: Column = None,
        label: Column = None,
        *,
        like: Self | None = None,
        **reading: Any,
    ) -> Self:
        """Make a graph from the rows of a file; see :func:`~graphunlearn.data.io.files.read_frame` for the formats.

        Args:
            path: The file. What is not given is detected.
            user: Name or number of the column of users.
            item: Name or number of the column of items.
            rating: Name or number of the column of ratings.
            time: Name or number of the column of times.
            label: Name or number of the column of labels.
            like: A graph whose users and items, with their numbers, the new graph uses, as for a test file. Ids mean
                what they mean in that graph, and lines without a header are lists if those of its file were. Rows with
                other users or items are left out and counted in :attr:`num_left_out`.
            **reading: The arguments of :class:`~graphunlearn.data.io.options.Reading`: ``sep``, ``decimal``,
                ``header``, ``lists`` (whether each line is a user followed by any number of items) and ``max_size``.

        Returns:
            The graph; without ``like``, nodes are numbered in order of first appearance.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file cannot be read as such a table; the message names the line.
        """
        form = None if like is None else like._global_store.get("lists")
        form = "lists" if form is True else form  # as older files have it
        given = {"user": user, "item": item, "rating": rating, "time": time, "label": label}
        frame = io.read_frame(path, numeric=numbered(like, SIDES), form=form, **given, **reading)
        graph = cls._from_tidy(frame, like)
        if frame.attrs["read"]["form"].startswith("lists"):
            graph._global_store["lists"] = frame.attrs["read"]["form"]
        return graph

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per interaction: raw ids (as categories), and rating, time and label if present.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), user_ids=["ann", "bob"])
            >>> graph.to_frame().values.tolist()
            [['ann', '1'], ['bob', '0']]
        """
        columns = {side: categories(ends, self.vocabulary(side)) for side, ends in zip(SIDES, self.pairs)}
        return pd.DataFrame(columns | {name: value.cpu().numpy() for name, value in self._values().items()})

    def _values(self) -> dict[str, Tensor]:
        store = self[EDGE_TYPE]
        return {name: store[name] for name in ATTRIBUTES if name in store}

    @classmethod
    def from_hetero(
        cls,
        data: HeteroData,
        relation: tuple[str, str, str] | None = None,
        *,
        rating: str = "rating",
        edges: Literal["edge_index", "edge_label_index"] | None = None,
    ) -> Self:
        """Make a graph from one bipartite relation of a heterogeneous graph.

        The graph keeps the node features, all attributes with one value per edge, and raw ids if ``data`` has them.

        The transform :class:`~torch_geometric.transforms.RandomLinkSplit` separates the edges that pass messages,
        ``edge_index``, from the edges to predict, ``edge_label_index``. In its test part, the test edges are only among
        the latter. If a relation has both, ``edges`` says which to take; without it, ``edge_index`` is taken and a
        warning tells so.

        Args:
            data: The heterogeneous graph.
            relation: The relation (default: the only one between two node types, not counting mirrored ``rev_`` ones).
            rating: Name of the edge attribute with the ratings, if there is one.
            edges: ``"edge_index"`` or ``"edge_label_index"``. With the latter, ``edge_label`` becomes the label if its
                values are 0 and 1 and both occur; edges that are all labelled 1 have no label.

        Returns:
            The graph.

        Raises:
            ValueError: There is no such relation, or more than one, or the relation has no such edges.

        Example:
            >>> import torch, graphunlearn as gu
            >>> from torch_geometric.data import HeteroData
            >>> data = HeteroData(reader={"num_nodes": 2}, book={"num_nodes": 3})
            >>> data["reader", "likes", "book"].edge_index = torch.tensor([[0, 1], [2, 0]])
            >>> graph = gu.InteractionGraph.from_hetero(data)
            >>> graph.num_users, graph.num_items, graph.num_interactions
            (2, 3, 2)
        """
        chosen = exchange.relation_of(data, relation)
        graph = cls._from_parts(*exchange.hetero_parts(data, chosen, rating, edges))
        for side, node_type in zip(SIDES, (chosen[0], chosen[2])):
            graph[side].update({k: v for k, v in data[node_type].items() if k not in {"num_nodes", "vocabulary"}})
        return graph

    @classmethod
    def from_networkx(cls, graph: networkx.Graph) -> Self:
        """Make a graph from a bipartite networkx graph, such as one from :meth:`to_networkx`.

        Args:
            graph: Its nodes have an attribute ``bipartite``, 0 for users and 1 for items; its edges may have the
                attributes ``rating``, ``time`` and ``label``. The raw id of a node is the node itself, or ``id`` if
                the node is a tuple ``(side, id)``.

        Raises:
            ValueError: A node lacks ``bipartite``, an edge joins two users or two items, or only some edges have an
                attribute.
        """
        return cls._from_parts(*exchange.network_parts(graph))

    def to_networkx(self) -> networkx.Graph:
        """Return a networkx graph with nodes ``("user", id)`` and ``("item", id)``, and attributes on its edges.

        The tuples keep users and items with equal raw ids apart.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 0], [0, 1]]), rating=torch.tensor([3.0, 5.0]))
            >>> list(graph.to_networkx().edges(data=True))
            [(('user', '0'), ('item', '0'), {'rating': 3.0}), (('user', '0'), ('item', '1'), {'rating': 5.0})]
        """
        raw = {side: self.vocabulary(side).ids for side in SIDES}
        return exchange.to_network(self.pairs, raw, self._values())
