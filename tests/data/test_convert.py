"""Graphs from tables, files, networkx and other heterogeneous graphs, and back."""

import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given
from strategies import graphs
from torch_geometric.data import HeteroData

from graphunlearn import datasets
from graphunlearn.data import EDGE_TYPE, InteractionGraph


def content(graph):
    """Pairs of raw ids with their values, in any order."""
    values = [getattr(graph, name) for name in ("rating", "time", "label")]
    columns = [[None] * graph.num_interactions if value is None else value.tolist() for value in values]
    names = ((graph.user_ids[u], graph.item_ids[i]) for u, i in graph.pairs.t().tolist())
    return dict(zip(names, zip(*columns)))


# Tables


@given(graphs(min_interactions=1))
def test_frame_round_trip(graph):
    frame = graph.to_frame()
    assert len(frame) == graph.num_interactions
    again = InteractionGraph.from_frame(frame)
    assert content(again) == content(graph)
    kept = InteractionGraph.from_frame(frame, like=graph)
    assert torch.equal(kept.pairs, graph.pairs)
    assert (kept.user_ids, kept.item_ids) == (graph.user_ids, graph.item_ids)
    assert kept.num_left_out == 0


def test_frame_is_in_order_of_first_appearance():
    df = pd.DataFrame({"uid": ["b", "a", "b"], "iid": [9, 8, 8], "val": [1.0, 2.0, 3.0]})
    graph = InteractionGraph.from_frame(df)
    assert graph.user_ids == ["b", "a"]
    assert graph.item_ids == ["9", "8"]
    assert graph.pairs.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert graph.rating.dtype == torch.float32


@pytest.mark.parametrize(
    "column",
    [
        [196, 22, 196],
        np.array([196, 22, 196], dtype=np.uint16),
        [196.0, 22.0, 196.0],
        ["196", "22", "196"],
        [196, "22", "196"],
        [196, 22.0, "196"],
        [torch.tensor(196), np.int8(22), " 196"],
        pd.Categorical([196, 22, 196], categories=[1, 22, 196]),
        pd.array([196, 22, 196], dtype="Int64"),
    ],
)
def test_one_id_in_many_types(column):
    graph = InteractionGraph.from_frame(pd.DataFrame({"user": column, "item": [1, 1, 2]}))
    assert graph.user_ids == ["196", "22"]
    assert graph.pairs[0].tolist() == [0, 1, 0]


def test_times_keep_their_precision():
    seconds = [881250949, 1700000001]
    whole = InteractionGraph.from_frame(pd.DataFrame({"user": [1, 2], "item": [1, 2], "time": seconds}))
    assert whole.time.tolist() == seconds
    assert whole.time.dtype == torch.int64
    dates = pd.DataFrame({"user": [1, 2], "item": [1, 2], "date": pd.to_datetime(seconds, unit="s")})
    assert InteractionGraph.from_frame(dates).time.tolist() == seconds
    parts = pd.DataFrame({"user": [1, 2], "item": [1, 2], "time": [0.5, 1700000001.25]})
    assert InteractionGraph.from_frame(parts).time.tolist() == [0.5, 1700000001.25]


def test_named_columns():
    df = pd.DataFrame({0: [1], 1: [2], "score": [3.0], "value": [1.0], "rating": [5.0]})
    graph = InteractionGraph.from_frame(df, user=0, item=1, rating="score", label="value")
    assert (graph.rating.item(), graph.label.item()) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        (
            {"user": [1], "thing": [2]},
            {},
            r"'df' must have a column of items \(got columns 'user', 'thing'\); name it with",
        ),
        ({"user": [1], "item": [2]}, {"rating": "ratng"}, r"'rating' must name a column of 'df' \(got 'ratng'"),
        (
            {"user": [1, -2], "item": [1, 2]},
            {},
            r"'df', row 1: user ids must be text or whole numbers from 0 \(got -2\)",
        ),
        (
            {"user": [1, 2], "item": [1, 2.5]},
            {},
            r"'df', row 1: item ids must be text or whole numbers from 0 \(got 2.5\)",
        ),
        ({"user": [1, None], "item": [1, 2]}, {}, r"'df', row 1: the user is missing"),
        ({"user": pd.Categorical(["a", None]), "item": [1, 2]}, {}, r"'df', row 1: the user is missing"),
        ({"user": ["a", ""], "item": [1, 2]}, {}, r"'df', row 1: user ids must be text"),
        (
            {"user": [1], "item": [2], "rating": [np.nan]},
            {},
            r"'df', row 0: the rating must be a finite number \(got 'nan'\)",
        ),
        (
            {"user": [1], "item": [2], "rating": ["good"]},
            {},
            r"'df', row 0: the rating must be a finite number \(got 'good'",
        ),
        ({"user": [], "item": []}, {}, r"'df' must hold at least one row \(got none\)"),
    ],
)
def test_bad_frames(columns, arguments, message):
    with pytest.raises(ValueError, match=message):
        InteractionGraph.from_frame(pd.DataFrame(columns), **arguments)


def test_repeated_rows_keep_the_last():
    df = pd.DataFrame({"user": [1, 1, 2], "item": [5, 5, 5], "rating": [1, 2, 3]})
    with pytest.warns(UserWarning, match=r"1 repeated \(user, item\) pairs were collapsed") as caught:
        graph = InteractionGraph.from_frame(df)
    assert [warning.filename for warning in caught] == [__file__]
    assert graph.rating.tolist() == [2.0, 3.0]


# Files


def test_from_file(tmp_path):
    path = tmp_path / "ratings.tsv"
    path.write_text("user_id\titem_id\trating\n196\t242\t3\n186\t302\t4\n196\t302\t5\n")
    graph = InteractionGraph.from_file(path)
    assert (graph.user_ids, graph.item_ids) == (["196", "186"], ["242", "302"])
    assert content(graph) == {
        ("196", "242"): (3.0, None, None),
        ("186", "302"): (4.0, None, None),
        ("196", "302"): (5.0, None, None),
    }
    named = InteractionGraph.from_file(str(path), user="item_id", item="user_id")
    assert named.user_ids == ["242", "302"]


@given(graphs(min_interactions=1))
def test_file_round_trip(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("files") / "graph.csv"
    graph.to_frame().assign(user=lambda df: df["user"].astype(str) + "x").to_csv(path, index=False)
    again = InteractionGraph.from_file(path)
    expected = {(user + "x", item): row for (user, item), row in content(graph).items()}
    assert content(again) == expected


def test_a_test_file_takes_over_the_ids_of_the_training_graph(tmp_path):
    train_path, test_path = tmp_path / "train.csv", tmp_path / "test.csv"
    train_path.write_text("user,item\na,1\nb,2\na,3\n")
    test_path.write_text("user,item,rating\nb,3,5\nnew,1,5\na,2,4\nb,99,1\n")
    train = InteractionGraph.from_file(train_path)
    with pytest.warns(
        UserWarning, match="^2 of 4 rows were left out: 'like' does not contain their user or item$"
    ) as caught:
        test = InteractionGraph.from_file(test_path, like=train)
    assert [warning.filename for warning in caught] == [__file__]
    assert test.num_left_out == 2
    assert (test.user_ids, test.item_ids) == (train.user_ids, train.item_ids)
    assert test.pairs.tolist() == [[1, 0], [2, 1]]
    assert test.rating.tolist() == [5.0, 4.0]
    assert test.select(torch.tensor([0])).num_left_out == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert InteractionGraph.from_file(train_path, like=train).num_left_out == 0
    test_path.write_text("user,item\nx,1\ny,2\n")
    with pytest.raises(
        ValueError, match=r"'like' must know some of the users and items \(got 2 rows, all of them unknown\)"
    ):
        InteractionGraph.from_file(test_path, like=train)


# networkx


@given(graphs())
def test_networkx_round_trip(graph):
    network = graph.to_networkx()
    assert nx.is_bipartite(network)
    assert network.number_of_nodes() == graph.num_nodes
    assert network.number_of_edges() == graph.num_interactions
    for (user, item), row in content(graph).items():
        edge = network.edges[("user", user), ("item", item)]
        assert [edge.get(name) for name in ("rating", "time", "label")] == list(row)
    again = InteractionGraph.from_networkx(network)
    assert content(again) == content(graph)
    assert (again.user_ids, again.item_ids) == (graph.user_ids, graph.item_ids)


def test_equal_raw_ids_do_not_collide():
    graph = InteractionGraph.from_edges([[0, 1], [1, 0]], user_ids=["1", "2"], item_ids=["1", "2"])
    network = graph.to_networkx()
    assert set(network) == {("user", "1"), ("user", "2"), ("item", "1"), ("item", "2")}
    assert InteractionGraph.from_networkx(network).fingerprint() == graph.fingerprint()


def test_any_bipartite_networkx_graph():
    network = nx.DiGraph()
    network.add_nodes_from(["dune", 5], bipartite=1)
    network.add_nodes_from(["ann", 7], bipartite=0)
    network.add_edge("dune", "ann", rating=2.0)
    network.add_edge(7, 5, rating=3.0)
    graph = InteractionGraph.from_networkx(network)
    assert (graph.user_ids, graph.item_ids) == (["ann", "7"], ["dune", "5"])
    assert content(graph) == {("ann", "dune"): (2.0, None, None), ("7", "5"): (3.0, None, None)}


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ({"a": 0, "b": None}, [], r"'graph' must have nodes with bipartite=0 or 1 \(got others, such as 'b'\)"),
        ({"a": 0, "b": 0}, [("a", "b", {})], r"'graph' must join users with items only \(got edges \('a', 'b'\)\)"),
        (
            {"a": 0, "b": 1, "c": 1},
            [("a", "b", {"rating": 1}), ("a", "c", {})],
            r"'rating' must be on all edges or on none \(got it on 1 of 2\)",
        ),
        ({"a": 0, "b": 1}, [("a", "b", {"rating": float("nan")})], r"'rating' must be finite \(got nan"),
        ({1: 0, "1": 0, "b": 1}, [], r"'user_ids' must be distinct \(got '1'"),
    ],
)
def test_bad_networkx_graphs(nodes, edges, message):
    network = nx.Graph()
    for node, side in nodes.items():
        network.add_node(node, **({} if side is None else {"bipartite": side}))
    network.add_edges_from(edges)
    with pytest.raises(ValueError, match=message):
        InteractionGraph.from_networkx(network)


# Other heterogeneous graphs


@pytest.fixture
def library():
    data = HeteroData(reader={"x": torch.randn(3, 2)}, book={"num_nodes": 4})
    relation = data["reader", "likes", "book"]
    relation.edge_index = torch.tensor([[0, 1, 2], [3, 0, 1]])
    relation.edge_label = torch.tensor([1, 2, 3])
    relation.time = torch.tensor([5, 6, 7])
    relation.edge_attr = torch.randn(3, 2)
    return data


def test_from_hetero(library):
    graph = InteractionGraph.from_hetero(T.ToUndirected()(library), rating="edge_label")
    assert (graph.num_users, graph.num_items) == (3, 4)
    assert graph.pairs.tolist() == [[0, 1, 2], [3, 0, 1]]
    assert graph.rating.tolist() == [1.0, 2.0, 3.0]
    assert graph.time.tolist() == [5, 6, 7]
    assert torch.equal(graph["user"].x, library["reader"].x)
    assert torch.equal(graph[EDGE_TYPE].edge_attr, library["reader", "likes", "book"].edge_attr)
    assert graph.edge_types == [EDGE_TYPE]
    assert InteractionGraph.from_hetero(library).rating is None


@given(graphs())
def test_from_hetero_of_our_own(graph):
    again = InteractionGraph.from_hetero(graph)
    assert again.fingerprint() == graph.fingerprint()
    assert again.pairs is not graph.pairs


def test_from_hetero_of_several_relations(library):
    library["reader", "owns", "book"].edge_index = torch.tensor([[0], [0]])
    library["reader", "knows", "reader"].edge_index = torch.tensor([[0], [0]])
    with pytest.raises(
        ValueError, match=r"'relation' must name one bipartite relation of 'data' \(got None; there are"
    ):
        InteractionGraph.from_hetero(library)
    graph = InteractionGraph.from_hetero(library, ("reader", "owns", "book"))
    assert graph.pairs.tolist() == [[0], [0]]
    for relation in (("reader", "knows", "reader"), ("reader", "sells", "book")):
        with pytest.raises(ValueError, match="'relation' must name one bipartite relation"):
            InteractionGraph.from_hetero(library, relation)


@pytest.fixture
def split_parts():
    """The parts of PyG's RandomLinkSplit: the edges to predict are not among those that pass messages."""
    graph = datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=6, seed=0)
    data = HeteroData(user={"num_nodes": 40}, item={"num_nodes": 30})
    data["user", "rates", "item"].edge_index = graph.pairs
    torch.manual_seed(0)
    split = T.RandomLinkSplit(
        num_val=0.1,
        num_test=0.1,
        disjoint_train_ratio=0.3,
        neg_sampling_ratio=1.0,
        edge_types=[("user", "rates", "item")],
        rev_edge_types=[("item", "rev_rates", "user")],
    )
    return split(T.ToUndirected()(data))


def test_from_hetero_says_which_edges_it_took(split_parts):
    for part in split_parts:
        store = part["user", "rates", "item"]
        with pytest.warns(UserWarning, match=r"edges that pass messages \(edge_index\) .*; edge_index was taken"):
            default = InteractionGraph.from_hetero(part)
        asked = InteractionGraph.from_hetero(part, edges="edge_index")
        assert torch.equal(default.pairs, store.edge_index)
        assert torch.equal(asked.pairs, store.edge_index)
        supervised = InteractionGraph.from_hetero(part, edges="edge_label_index")
        rows = zip(*store.edge_label_index.tolist(), store.edge_label.tolist())
        wanted = {tuple(pair): label for *pair, label in rows}
        assert dict(zip(map(tuple, supervised.pairs.t().tolist()), supervised.label.tolist())) == wanted
    relation = split_parts[2]["user", "rates", "item"]
    relation.edge_label_index, relation.edge_label = relation.edge_label_index[:, :5], torch.ones(5)
    assert InteractionGraph.from_hetero(split_parts[2], edges="edge_label_index").label is None
    relation.edge_label = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    rated = InteractionGraph.from_hetero(split_parts[2], edges="edge_label_index", rating="edge_label")
    assert rated.rating.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_from_hetero_names_labels_that_it_leaves_out(split_parts):
    relation = split_parts[2]["user", "rates", "item"]
    num = relation.edge_label_index.size(1)
    relation.edge_label = torch.zeros(num)
    with pytest.raises(ValueError, match=rf"'data' must have an edge to predict with label 1 \(got {num} with"):
        InteractionGraph.from_hetero(split_parts[2], edges="edge_label_index")
    relation.edge_label = torch.arange(num) % 5 + 1
    with pytest.warns(UserWarning, match=r"\(edge_label\) are not 0 and 1 but 1, 2, 3 and 2 more.*rating='edge_label'"):
        graph = InteractionGraph.from_hetero(split_parts[2], edges="edge_label_index")
    assert graph.label is None
    assert graph.rating is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rated = InteractionGraph.from_hetero(split_parts[2], edges="edge_label_index", rating="edge_label")
    assert rated.rating.tolist() == relation.edge_label.tolist()


def test_from_hetero_needs_the_edges_that_it_is_asked_for(library):
    with pytest.raises(ValueError, match=r"'edges' must name edges of the relation \(got 'edge_label_index'; it has"):
        InteractionGraph.from_hetero(library, edges="edge_label_index")


def test_from_hetero_checks_ids(library):
    library["reader", "likes", "book"].edge_index[1, 0] = 9
    with pytest.raises(ValueError, match=r"'edge_index' must hold items below 4 \(got item 9\)"):
        InteractionGraph.from_hetero(library)
