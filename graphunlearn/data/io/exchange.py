"""Conversion between graphs of other libraries and pairs, raw ids and values per interaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphunlearn.data.schema import (
    ATTRIBUTES,
    SIDES,
    check_attribute,
    check_nodes,
    check_pairs,
    is_per_interaction,
    warn,
)
from graphunlearn.data.vocabulary import Vocabulary, preview
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    import networkx


EdgeType = tuple[str, str, str]


Parts = tuple[Tensor, Vocabulary, Vocabulary, dict[str, Tensor]]
"""Pairs of users and items ``[2, num_interactions]``, raw ids of users, raw ids of items, and attributes by name."""


NUMBERING = "items_offset=N says that items are numbered from N, and items_offset=0 that they are not"


def one_direction(pairs: Tensor, offset: int | None) -> Tensor:
    """Return the positions of the edges from users to items.

    Args:
        pairs: Edges in both directions ``[2, num_edges]``.
        offset: Number of the first item, which is the number of users.

    Raises:
        ValueError: There is no offset, or an edge is not there in the other direction.
    """
    if offset is None:
        raise ArgumentError("items_offset", "say with 'undirected' at which number items begin", "none")
    forth = pairs[1] >= offset
    there, back = pairs[:, forth], pairs[:, ~forth].flip(0)
    if not torch.equal(torch.unique(there, dim=1), torch.unique(back, dim=1)):
        raise ArgumentError("edge_index", "have every edge in both directions with 'undirected'", "some in one")
    return forth.nonzero().flatten()


def check_numbering(pairs: Tensor, num_users: int | None) -> None:
    """Raise ArgumentError if items are numbered after users, or edges are there in both directions.

    Args:
        pairs: Users and items as they were given ``[2, num_interactions]``.
        num_users: Number of users, if it was given.
    """
    if pairs.size(1) < 2 or int(pairs.min()) < 0:
        return
    low, high = pairs.min(0).values, pairs.max(0).values
    turned = pairs[0] > pairs[1]
    half = int(turned.sum())
    if 2 <= half == pairs.size(1) - half and int(low.max()) < int(high.min()):
        there, back = (torch.stack([low[side], high[side]]).unique(dim=1) for side in (~turned, turned))
        if torch.equal(there, back):
            got = "both, and items numbered after users"
            hint = f"items_offset={int(high.min())}, undirected=True takes one direction, items_offset=0 all of them"
            raise ArgumentError("edge_index", "hold every edge in one direction, from user to item", got, hint)
    users = int(pairs[0].max()) + 1 if num_users is None else num_users
    if users > 1 and int(pairs[1].min()) >= users:
        got = f"items from {int(pairs[1].min())} for {users} users, as if they were numbered after users"
        raise ArgumentError("edge_index", "hold items numbered from 0", got, NUMBERING)


def shifted(pairs: Tensor, offset: int) -> Tensor:
    """Return pairs with the items numbered from 0.

    Args:
        pairs: Users, and items numbered from ``offset`` ``[2, num_interactions]``.
        offset: Number of the first item.

    Raises:
        ValueError: The offset is negative, an item is below it, or a user is not.
    """
    if offset < 0:
        raise ArgumentError("items_offset", "not be negative", offset)
    if offset and pairs.numel():
        if int(pairs[1].min()) < offset:
            raise ArgumentError("edge_index", f"hold items from {offset}", f"item {int(pairs[1].min())}")
        if int(pairs[0].max()) >= offset:
            raise ArgumentError("edge_index", f"hold users below {offset}", f"user {int(pairs[0].max())}")
    return torch.stack([pairs[0], pairs[1] - offset])


def relation_of(data: HeteroData, relation: EdgeType | None) -> EdgeType:
    """Return the requested relation, or the only one between two node types, not counting mirrored ``rev_`` ones.

    Args:
        data: The heterogeneous graph.
        relation: The requested relation, or ``None``.

    Raises:
        ValueError: There is no such relation, or more than one.
    """
    fitting = [kind for kind in data.edge_types if kind[0] != kind[2] and not kind[1].startswith("rev_")]
    chosen = fitting if relation is None else [kind for kind in fitting if kind == tuple(relation)]
    if len(chosen) != 1:
        raise ArgumentError("relation", "name one bipartite relation of 'data'", f"{relation}; there are {fitting}")
    return chosen[0]


def hetero_parts(data: HeteroData, relation: EdgeType, rating: str, edges: str | None = None) -> Parts:
    """Return the parts of one relation with all its attributes per edge.

    Args:
        data: The heterogeneous graph.
        relation: The relation.
        rating: Name of the edge attribute that becomes ``"rating"``.
        edges: ``"edge_index"`` or ``"edge_label_index"``; ``None`` takes the former and warns if there are both.

    Raises:
        ValueError: There are no such edges, or pairs, node numbers or attributes are malformed.
    """
    store = data[relation]
    taken = _edges_of(store, edges)
    pairs = check_pairs(store[taken])
    users, items = (
        check_nodes(side, nodes, data[node_type].num_nodes, data[node_type].get("vocabulary"))
        for side, nodes, node_type in zip(SIDES, pairs, (relation[0], relation[2]))
    )
    if taken == "edge_label_index":
        values = {} if rating == "edge_label" else _supervision(store, pairs.size(1))
        rating = rating if rating == "edge_label" else ""
    else:
        values = {name: value for name, value in store.items() if is_per_interaction(name, value, pairs.size(1))}
    if rating and rating in store:
        values.pop(rating, None)
        values["rating"] = store[rating]
    for name in values.keys() & set(ATTRIBUTES):
        values[name] = check_attribute(name, values[name], pairs.size(1), pairs.device)
    return pairs, users, items, values


def _edges_of(store: Any, edges: str | None) -> str:
    """Return the name of the edges to take from a relation; warn if there are two kinds and neither was asked for."""
    present = [name for name in ("edge_index", "edge_label_index") if name in store]
    if edges is None and len(present) == 2:
        passing, supervised = (store[name].size(1) for name in present)
        if not torch.equal(store.edge_index, store.edge_label_index):
            warn(
                f"'data' has {passing} edges that pass messages (edge_index) and {supervised} to predict "
                f"(edge_label_index); edge_index was taken. Pass edges='edge_index' to confirm, or "
                f"edges='edge_label_index' for the others"
            )
        return "edge_index"
    chosen = edges or "edge_index"
    if chosen not in present:
        raise ArgumentError("edges", "name edges of the relation", f"{chosen!r}; it has {', '.join(present) or 'none'}")
    return chosen


def _supervision(store: Any, num: int) -> dict[str, Tensor]:
    """Return the label of the edges to predict, if their labels are 0 and 1 and both occur.

    Raises:
        ValueError: All labels are 0, so that every edge is a sampled negative.
    """
    label = store.get("edge_label")
    if label is None or label.shape != (num,) or not num:
        return {}
    values = label.unique().tolist()
    if values == [0]:
        raise ArgumentError("data", "have an edge to predict with label 1", f"{num} with label 0")
    if not set(values) <= {0, 1}:
        shown = preview(values)
        warn(
            f"the labels of the edges to predict (edge_label) are not 0 and 1 but {shown}, and were left out; "
            "pass rating='edge_label' to take them as ratings"
        )
        return {}
    return {"label": label} if values == [0, 1] else {}


def network_parts(graph: networkx.Graph) -> Parts:
    """Return the parts of a bipartite networkx graph.

    Args:
        graph: The networkx graph, whose nodes have the attribute ``bipartite``.

    Raises:
        ValueError: A node lacks ``bipartite``, an edge joins two users or two items, or only some edges have an
            attribute.
    """
    sides: dict[Any, Any] = dict(graph.nodes(data="bipartite"))
    odd = [node for node, side in sides.items() if side not in {0, 1}]
    if odd:
        raise ArgumentError("graph", "have nodes with bipartite=0 or 1", f"others, such as {preview(odd)}")
    edges = [(a, b, data) if sides[a] == 0 else (b, a, data) for a, b, data in graph.edges(data=True)]
    within = [(a, b) for a, b, _ in edges if sides[a] == sides[b]]
    if within:
        raise ArgumentError("graph", "join users with items only", f"edges {preview(within)}")
    nodes = [[node for node, side in sides.items() if side == wanted] for wanted in (0, 1)]
    position = {node: i for side in nodes for i, node in enumerate(side)}
    pairs = torch.tensor([[position[a], position[b]] for a, b, _ in edges], dtype=torch.long).view(-1, 2).t()
    raw = [[node[1] if isinstance(node, tuple) and len(node) == 2 else node for node in side] for side in nodes]
    users, items = (check_nodes(side, ends, None, ids) for side, ends, ids in zip(SIDES, pairs, raw))
    values = {}
    for name in ATTRIBUTES:
        column = [data[name] for _, _, data in edges if name in data]
        if column and len(column) < len(edges):
            raise ArgumentError(name, "be on all edges or on none", f"it on {len(column)} of {len(edges)}")
        if column:
            values[name] = check_attribute(name, np.asarray(column), len(edges), pairs.device)
    return check_pairs(pairs), users, items, values


def to_network(pairs: Tensor, raw: Mapping[str, list[str]], values: Mapping[str, Tensor]) -> networkx.Graph:
    """Return a networkx graph with nodes ``(side, id)`` and values as attributes of its edges.

    Args:
        pairs: Users and items ``[2, num_interactions]``.
        raw: Raw ids of ``"user"`` and ``"item"``.
        values: Attributes with one value per interaction, by name.
    """
    import networkx

    graph = networkx.Graph()
    labels = {side: [(side, text) for text in raw[side]] for side in SIDES}
    for bipartite, side in enumerate(SIDES):
        graph.add_nodes_from(labels[side], bipartite=bipartite)
    columns = [value.tolist() for value in values.values()]
    for position, (user, item) in enumerate(pairs.t().tolist()):
        edge = {name: column[position] for name, column in zip(values, columns)}
        graph.add_edge(labels["user"][user], labels["item"][item], **edge)
    return graph


def to_session_network(graph: Any) -> networkx.DiGraph:
    """Return a networkx graph with nodes ``(session, item)``, their positions, and the counts of transitions.

    Args:
        graph: A session graph.
    """
    import networkx

    network = networkx.DiGraph()
    items, sessions = graph.item_ids, graph.session_ids
    labels = [(sessions[s], items[i]) for s, i in zip(graph.batch.tolist(), graph.x.tolist())]
    for session, item in labels:
        network.add_node((session, item), session=session, item=item, positions=[])
    for a, b in graph.edge_index.t().tolist():
        network.add_edge(labels[a], labels[b], weight=0)
    clicks = graph.alias.tolist()
    for click, position in enumerate(graph.position.tolist()):
        network.nodes[labels[clicks[click]]]["positions"].append(position)
        if position:
            network.edges[labels[clicks[click - 1]], labels[clicks[click]]]["weight"] += 1
    return network
