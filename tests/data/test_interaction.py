"""Graphs of interactions: building, cutting, adjacency, and behaving as HeteroData."""

import copy
import gc
import pickle
import warnings

import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs
from torch_geometric.data import Batch, HeteroData

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph
from graphunlearn.data.interaction import _ADJACENCY
from graphunlearn.func import Adjacency


@pytest.fixture
def graph():
    return InteractionGraph.from_edges(
        torch.tensor([[0, 1, 1, 2], [0, 0, 1, 2]]),
        num_users=4,
        num_items=3,
        user_ids=["ann", "bob", "cy", "di"],
        rating=torch.tensor([1, 2, 3, 4]),
        time=torch.tensor([10, 20, 30, 40]),
    )


def dense(graph):
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.long)
    for user, item in graph.pairs.t().tolist():
        matrix[user, graph.num_users + item] += 1
        matrix[graph.num_users + item, user] += 1
    return matrix


def dense_of(adjacency):
    size = adjacency.num_nodes
    matrix = torch.zeros(size, size, dtype=torch.long)
    for node in range(size):
        for entry in range(int(adjacency.rowptr[node]), int(adjacency.rowptr[node + 1])):
            matrix[node, int(adjacency.col[entry])] += 1
    return matrix


def same(a: Adjacency, b: Adjacency):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("rowptr", "col", "interaction"))


def rebuilt(graph):
    return Adjacency.from_pairs(graph.pairs, graph.num_users, graph.num_items)


# Building


def test_is_a_hetero_data_with_one_relation(graph):
    assert isinstance(graph, HeteroData)
    assert graph.node_types == ["user", "item"]
    assert graph.edge_types == [EDGE_TYPE]
    assert (graph.num_users, graph.num_items, graph.num_nodes, graph.num_interactions) == (4, 3, 7, 4)
    assert graph.user_ids == ["ann", "bob", "cy", "di"]
    assert graph.item_ids == ["0", "1", "2"]
    assert graph.rating.dtype == torch.float32
    assert graph.time.dtype == torch.int64
    assert graph.label is None
    assert graph.num_left_out == 0
    assert graph.validate()


def test_counts_default_to_what_is_given():
    graph = InteractionGraph.from_edges([[0, 2], [1, 0]], item_ids=["a", "b", "c", "d"])
    assert (graph.num_users, graph.num_items) == (3, 4)
    assert InteractionGraph.from_edges(torch.empty(2, 0), 3, 2).num_nodes == 5
    assert InteractionGraph.from_edges([[], []]).num_nodes == 0


def test_float64_values_stay():
    graph = InteractionGraph.from_edges([[0], [0]], label=torch.tensor([0.25], dtype=torch.float64))
    assert graph.label.dtype == torch.float64


def test_owns_its_tensors():
    pairs, rating = torch.tensor([[0, 1], [0, 1]]), torch.tensor([1.0, 2.0])
    graph = InteractionGraph.from_edges(pairs, rating=rating)
    pairs.zero_()
    rating.zero_()
    assert graph.pairs.tolist() == [[0, 1], [0, 1]]
    assert graph.rating.tolist() == [1.0, 2.0]


def test_repeated_pairs_keep_the_last_occurrence():
    with pytest.warns(UserWarning, match=r"^2 repeated \(user, item\) pairs were collapsed") as caught:
        graph = InteractionGraph.from_edges([[0, 1, 0, 0, 1], [0, 0, 0, 1, 0]], rating=[1, 2, 3, 4, 5])
    assert [warning.filename for warning in caught] == [__file__]  # once, and at the caller's line
    assert graph.pairs.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert graph.rating.tolist() == [3.0, 4.0, 5.0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_collapsing_is_a_dictionary(pairs):
    expected = {}
    for position, pair in enumerate(pairs):
        expected.pop(pair, None)  # the last occurrence also gives the place
        expected[pair] = float(position)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        graph = InteractionGraph.from_edges(torch.tensor(pairs).t(), rating=torch.arange(len(pairs)))
    assert [tuple(pair) for pair in graph.pairs.t().tolist()] == list(expected)
    assert graph.rating.tolist() == list(expected.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"edge_index": torch.zeros(3, 2).long()},
            r"'edge_index' must have shape \[2, num_interactions\] \(got \[3, 2\]",
        ),
        ({"edge_index": [[0.5], [1.0]]}, r"'edge_index' must hold whole numbers \(got torch.float32\)"),
        ({"edge_index": torch.ones(2, 1).bool()}, r"'edge_index' must hold whole numbers \(got torch.bool\)"),
        ({"edge_index": [[0, -1], [0, 0]]}, r"'edge_index' must not hold negative ids \(got user -1\)"),
        ({"edge_index": [[0], [5]], "num_items": 5}, r"'edge_index' must hold items below 5 \(got item 5\)"),
        ({"edge_index": [[0], [2]], "item_ids": ["a"]}, r"'edge_index' must hold items below 1 \(got item 2\)"),
        (
            {"edge_index": [[0], [0]], "num_users": 3, "user_ids": ["a"]},
            r"'user_ids' must hold one raw id per user, 3 \(got 1\)",
        ),
        (
            {"edge_index": [[0], [0]], "user_ids": ["7", 7]},
            r"'user_ids' must be distinct \(got '7'",
        ),
        ({"edge_index": [[0], [0]], "user_ids": [-7]}, r"'user_ids' must be text or whole numbers from 0 \(got -7\)"),
        (
            {"edge_index": [[0], [0]], "rating": [1.0, 2.0]},
            r"'rating' must hold one value per interaction, 1 \(got \[2\]\)",
        ),
        (
            {"edge_index": [[0, 1], [0, 0]], "rating": [1, float("nan")]},
            r"'rating' must be finite \(got nan at interaction 1",
        ),
        ({"edge_index": [[0], [0]], "label": [float("inf")]}, r"'label' must be finite \(got inf at interaction 0\)"),
    ],
)
def test_bad_edges(arguments, message):
    with pytest.raises(ValueError, match=message):
        InteractionGraph.from_edges(**arguments)


def test_a_misspelt_attribute_is_an_error():
    with pytest.raises(TypeError, match="ratings"):
        InteractionGraph.from_edges([[0], [0]], ratings=[1.0])


@pytest.mark.parametrize(
    "name",
    [
        "num_users",
        "num_items",
        "num_nodes",
        "num_interactions",
        "pairs",
        "rating",
        "time",
        "label",
        "adjacency",
        "user_ids",
        "item_ids",
        "num_left_out",
    ],
)
def test_properties_are_read_only(graph, name):
    with pytest.raises(AttributeError, match=f"'{name}' is read-only"):
        setattr(graph, name, 9)
    graph.note = "free"
    assert graph.note == "free"


# Cutting


@given(graphs(), st.data())
def test_select_keeps_nodes_and_cuts_interactions(graph, data):
    mask = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=graph.num_interactions, max_size=graph.num_interactions))
    )
    part = graph.select(mask.bool())
    assert (part.num_users, part.num_items) == (graph.num_users, graph.num_items)
    assert (part.user_ids, part.item_ids) == (graph.user_ids, graph.item_ids)
    assert torch.equal(part.pairs, graph.pairs[:, mask.bool()])
    for name in ("rating", "time", "label"):
        whole, cut = getattr(graph, name), getattr(part, name)
        assert (cut is None) == (whole is None)
        assert whole is None or torch.equal(cut, whole[mask.bool()])
    by_index = graph.select(mask.bool().nonzero().flatten().flip(0))
    assert torch.equal(by_index.pairs, part.pairs)


@given(graphs(), st.data())
def test_selected_adjacency_is_the_rebuilt_one(graph, data):
    assert same(graph.adjacency, rebuilt(graph))
    assert torch.equal(dense_of(graph.adjacency), dense(graph))
    mask = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=graph.num_interactions, max_size=graph.num_interactions))
    )
    part = graph.select(mask.bool())
    assert same(part.adjacency, rebuilt(part))
    assert same(
        part.select(torch.arange(part.num_interactions // 2)).adjacency,
        rebuilt(part.select(torch.arange(part.num_interactions // 2))),
    )


def test_select_does_not_sort_again(graph, monkeypatch):
    whole = graph.adjacency
    monkeypatch.setattr(Adjacency, "from_pairs", None)
    part = graph.select(torch.tensor([True, False, True, True]))
    assert part.adjacency.degree.tolist() == [1, 1, 1, 0, 1, 1, 1]
    assert whole.degree.tolist() == [1, 2, 1, 0, 2, 1, 1]


def test_a_mask_changed_afterwards_changes_nothing(graph):
    mask = torch.tensor([True, False, True, True])
    part = graph.select(mask)
    mask.fill_(False)
    assert same(part.adjacency, rebuilt(part))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([True]), r"'index' must be a mask of 4 interactions \(got shape \[1\]\)"),
        (torch.tensor([4]), r"'index' must lie between 0 and 3 \(got 4 to 4\)"),
        (torch.tensor([-1]), r"'index' must lie between 0 and 3"),
        (torch.tensor([0.0]), r"'index' must be a mask or a list of indices"),
        (torch.tensor([[0]]), r"'index' must be a mask or a list of indices"),
    ],
)
def test_bad_select(graph, index, message):
    with pytest.raises(ValueError, match=message):
        graph.select(index)


def test_select_carries_features_and_leaves_out_what_names_dropped_pairs(graph):
    graph["user"].x = torch.randn(4, 2)
    graph[EDGE_TYPE].edge_attr = torch.arange(8).view(4, 2)
    graph["user", "trusts", "user"].edge_index = torch.tensor([[0], [1]])
    graph.source = "somewhere"
    graph = T.ToUndirected(merge=False)(graph)
    graph[EDGE_TYPE].edge_label_index = graph.pairs.clone()
    graph[EDGE_TYPE].edge_label = torch.ones(4)
    part = graph.select(torch.tensor([0, 3]))
    assert part["user"].x is graph["user"].x
    assert part[EDGE_TYPE].edge_attr.tolist() == [[0, 1], [6, 7]]
    assert part.source == "somewhere"
    assert set(part[EDGE_TYPE].keys()) == {"edge_index", "rating", "time", "edge_attr"}
    assert ("user", "trusts", "user") in part.edge_types
    assert not any({kind[0], kind[2]} == {"user", "item"} for kind in part.edge_types if kind != EDGE_TYPE)


@given(graphs(min_interactions=2), st.data())
def test_split_is_mask_and_complement(graph, data):
    if graph.num_interactions < 2:
        return
    some = data.draw(
        st.sets(st.integers(0, graph.num_interactions - 1), min_size=1, max_size=graph.num_interactions - 1)
    )
    request = ForgetRequest.internal("interaction", graph.pairs[:, sorted(some)])
    retain, forget = graph.split(request)
    mask = request.mask(graph)
    assert torch.equal(retain.pairs, graph.pairs[:, ~mask])
    assert torch.equal(forget.pairs, graph.pairs[:, mask])
    assert retain.num_interactions + forget.num_interactions == graph.num_interactions
    assert retain.num_nodes == forget.num_nodes == graph.num_nodes


def test_split_of_several_requests(graph):
    retain, forget = graph.split(ForgetRequest("user", ["ann"]), ForgetRequest("item", [2]))
    assert retain.pairs.tolist() == [[1, 1], [0, 1]]
    assert forget.rating.tolist() == [1.0, 4.0]
    with pytest.raises(ValueError, match="'requests' must hold at least one request"):
        graph.split()


@given(graphs(), st.integers(0, 3))
def test_random_split_is_a_partition(graph, seed):
    parts = graph.random_split([0.6, 0.2, 0.2], seed=seed)
    positions = [set(map(tuple, part.pairs.t().tolist())) for part in parts]
    assert sum(map(len, positions)) == graph.num_interactions
    assert set().union(*positions) == set(map(tuple, graph.pairs.t().tolist()))
    assert abs(len(positions[0]) - 0.6 * graph.num_interactions) <= 0.5
    again = graph.random_split([0.6, 0.2, 0.2], seed=seed)
    assert all(torch.equal(a.pairs, b.pairs) for a, b in zip(parts, again))


def test_random_split_follows_its_seed_alone():
    graph = InteractionGraph.from_edges(torch.arange(50).repeat(2, 1))
    first = graph.random_split([0.5, 0.5], seed=1)[0].pairs
    torch.manual_seed(7)
    assert torch.equal(graph.random_split([0.5, 0.5], seed=1)[0].pairs, first)
    assert not torch.equal(graph.random_split([0.5, 0.5], seed=2)[0].pairs, first)


@pytest.mark.parametrize("fractions", [[], [0.5], [0.8, 0.1], [1.2, -0.2], [1.0, 0.0]])
def test_bad_fractions(graph, fractions):
    with pytest.raises(ValueError, match="'fractions' must be positive and add up to 1"):
        graph.random_split(fractions)


def test_binarize(graph):
    labelled = graph.binarize(2)
    assert labelled.label.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert labelled.label.dtype == torch.float32
    assert graph.label is None
    assert labelled.rating is graph.rating
    with pytest.raises(ValueError, match="'binarize' needs a graph with ratings"):
        InteractionGraph.from_edges([[0], [0]]).binarize(1)


# The adjacency is never stale


def test_adjacency_is_built_once(graph):
    assert graph.adjacency is graph.adjacency
    assert graph.binarize(2).adjacency is graph.adjacency


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g[EDGE_TYPE].edge_index.copy_(g.pairs.flip(1)),
        lambda g: g.pairs.__setitem__((1, 0), 2),
        lambda g: g[EDGE_TYPE].__setitem__("edge_index", g.pairs[:, :2].clone()),
        lambda g: setattr(g[EDGE_TYPE], "edge_index", g.pairs.flip(1)),
        lambda g: setattr(g["user"], "num_nodes", 6),
        lambda g: setattr(g["item"], "num_nodes", 5),
        lambda g: g.pairs.resize_(2, 2),
    ],
)
def test_a_changed_graph_has_a_new_adjacency(graph, change):
    before, part = graph.adjacency, graph.select(torch.arange(4))
    change(graph)
    assert graph.adjacency is not before
    assert same(graph.adjacency, rebuilt(graph))
    assert torch.equal(dense_of(graph.adjacency), dense(graph))
    assert same(part.adjacency, rebuilt(part))


def test_changed_in_inference_mode(graph):
    assert graph.adjacency is graph.adjacency
    with torch.inference_mode():
        graph.pairs[1, 0] = 2
        assert same(graph.adjacency, rebuilt(graph))
        part = graph.select(torch.tensor([0, 1]))
        assert part.adjacency is part.adjacency
        part.pairs[1, 0] = 0
        assert same(part.adjacency, rebuilt(part))
        inside = InteractionGraph.from_edges([[0, 1], [0, 1]])
        cut = part.select(torch.tensor([0]))
        assert same(cut.adjacency, rebuilt(cut))
    # what was built in inference mode still takes part in training
    x = torch.randn(inside.num_nodes, 2, requires_grad=True)
    (torch.repeat_interleave(inside.adjacency.degree, 2).view(-1, 2) * x).sum().backward()
    assert not graph.adjacency.col.is_inference()


def test_a_selection_changed_before_its_adjacency_is_asked_for(graph):
    assert graph.adjacency is graph.adjacency
    part = graph.select(torch.arange(3))
    part.pairs[1, 0] = 2
    assert same(part.adjacency, rebuilt(part))


def test_copies_go_their_own_way(graph):
    assert graph.adjacency is graph.adjacency
    for twin in (copy.copy(graph), copy.deepcopy(graph), graph.clone()):
        twin[EDGE_TYPE].edge_index = twin.pairs[:, :1].clone()
        assert same(twin.adjacency, rebuilt(twin))
        assert same(graph.adjacency, rebuilt(graph))


def test_the_adjacency_is_in_no_store_copy_or_pickle(graph):
    assert graph.adjacency is graph.adjacency

    for twin in (graph, copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        held = [
            *vars(twin).values(),
            *(value for store in twin.stores for value in (*store.values(), *vars(store).values())),
        ]
        assert not any(isinstance(value, Adjacency) for value in held)
    assert b"Adjacency" not in pickle.dumps(graph)


def test_the_adjacency_goes_with_its_graph():
    graph = InteractionGraph.from_edges([[0], [0]])
    assert graph.adjacency is graph.adjacency
    gc.collect()
    before = len(_ADJACENCY)
    del graph
    gc.collect()
    assert len(_ADJACENCY) == before - 1


# Fingerprint


@given(graphs(), st.randoms(use_true_random=False))
def test_fingerprint_ignores_order_and_nothing_else(graph, random):
    order = list(range(graph.num_interactions))
    random.shuffle(order)
    values = {n: getattr(graph, n)[order] for n in ("rating", "time", "label") if getattr(graph, n) is not None}
    again = InteractionGraph.from_edges(
        graph.pairs[:, order],
        graph.num_users,
        graph.num_items,
        user_ids=graph.user_ids,
        item_ids=graph.item_ids,
        **values,
    )
    assert again.fingerprint() == graph.fingerprint()
    assert len(graph.fingerprint()) == 64
    if graph.num_interactions:
        assert graph.select(torch.arange(1, graph.num_interactions)).fingerprint() != graph.fingerprint()


def test_fingerprint_sees_every_part(graph):
    def made(**changes):
        parts = {"edge_index": [[0, 1], [0, 1]], "num_users": 2, "num_items": 2, "rating": [1.0, 2.0]}
        return InteractionGraph.from_edges(**(parts | changes)).fingerprint()

    prints = [
        made(),
        made(rating=None),
        made(rating=[2.0, 1.0]),
        made(rating=None, label=[1.0, 2.0]),
        made(num_items=3),
        made(edge_index=[[0, 1], [1, 0]]),
        made(user_ids=["a", "b"]),
        made(item_ids=["a", "b"]),
    ]
    assert len(set(prints)) == len(prints)
    assert made(user_ids=["0", "1"]) == made()


# Behaving as HeteroData


def test_repr_names_the_class_and_parts(graph):
    assert repr(graph).startswith("InteractionGraph(")
    assert "edge_index=[2, 4]" in repr(graph)
    assert "vocabulary=Vocabulary(4)" in repr(graph)
    assert repr(InteractionGraph()) == "InteractionGraph()"
    assert InteractionGraph().num_nodes == 0


def test_copies_and_pickles(graph):
    for twin in (copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.clone()):
        assert type(twin) is InteractionGraph
        assert twin.fingerprint() == graph.fingerprint()
        assert twin.user_ids == graph.user_ids
    assert copy.deepcopy(graph).pairs is not graph.pairs
    assert copy.deepcopy(graph).vocabulary("user") is graph.vocabulary("user")


def test_to_device_and_back(graph):
    moved = graph.to("meta")
    assert moved.pairs.device.type == "meta"
    assert moved.user_ids == ["ann", "bob", "cy", "di"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(graph):
    moved = copy.copy(graph).to("cuda")
    assert moved.adjacency.rowptr.is_cuda
    assert moved.fingerprint() == graph.fingerprint()
    retain, forget = moved.split(ForgetRequest("user", ["bob"]) | ForgetRequest("interaction", [("ann", 0)]))
    assert retain.pairs.is_cuda and forget.pairs.tolist() == [[0, 1, 1], [0, 0, 1]]
    for a, b in zip(moved.random_split([0.5, 0.5]), graph.random_split([0.5, 0.5])):
        assert torch.equal(a.pairs.cpu(), b.pairs)


def test_batch_and_back(graph):
    batch = Batch.from_data_list([graph, graph.select(torch.arange(2))])
    assert (batch.num_users, batch.num_items, batch.pairs.size(1)) == (8, 6, 6)
    assert batch.pairs[:, 4:].tolist() == [[4, 5], [3, 3]]
    assert same(batch.adjacency, rebuilt(batch))
    assert batch[0].fingerprint() == graph.fingerprint()
    assert batch[1].user_ids == graph.user_ids
    with pytest.raises(ValueError, match="a batch of graphs has no raw ids of its own"):
        batch.user_ids  # noqa: B018


def test_random_link_split(graph):
    train, _, test = T.RandomLinkSplit(num_val=0.25, num_test=0.25, edge_types=[EDGE_TYPE])(graph)
    assert isinstance(train, InteractionGraph)
    assert train.num_interactions == 2
    assert train.rating.numel() == 2
    assert train.num_users == 4
    assert same(train.adjacency, rebuilt(train))
    assert test[EDGE_TYPE].edge_label_index.size(0) == 2


def test_to_undirected_changes_nothing_here(graph):
    both = T.ToUndirected()(graph)
    assert ("item", "rev_interacts", "user") in both.edge_types
    assert both.fingerprint() == graph.fingerprint()
    assert same(both.adjacency, graph.adjacency)
    assert both.validate()


def test_subgraph_takes_the_raw_ids_along(graph):
    part = graph.subgraph({"user": torch.tensor([2, 1])})
    assert part.user_ids == ["cy", "bob"]
    assert part.num_users == 2
    assert graph.subgraph({"user": torch.tensor([False, True, True, False])}).user_ids == ["bob", "cy"]


def test_raw_ids_that_do_not_fit_are_an_error(graph):
    graph["user"].num_nodes = 3
    with pytest.raises(ValueError, match=r"graph\['user'\] must have one raw id per node \(got 4 for 3\)"):
        graph.user_ids  # noqa: B018


def test_both_directions_are_there(graph):
    neighbors = graph.adjacency.neighbors(torch.tensor([1])).tolist()
    assert neighbors == [4, 5]
    assert graph.adjacency.neighbors(torch.tensor([4])).tolist() == [0, 1]
