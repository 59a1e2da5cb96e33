"""Sessions as one disjoint graph."""

import copy
import pickle
from itertools import pairwise

import networkx
import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given
from hypothesis import strategies as st
from strategies import session_graphs
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_add_pool
from torch_geometric.utils import unbatch

import graphunlearn as gu
from graphunlearn.data import SessionGraph

STORED = ("x", "edge_index", "alias", "batch", "length")


def sequences(graph):
    return [part.tolist() for part in graph.items.split(graph.length.tolist())]


def naive(sequences):
    """Nodes, edges and aliases of sessions, one click at a time."""
    x, alias, batch, edges = [], [], [], []
    for number, session in enumerate(sequences):
        nodes = {item: len(x) + i for i, item in enumerate(sorted(set(session)))}
        x += nodes
        batch += [number] * len(nodes)
        alias += [nodes[item] for item in session]
        edges += sorted({(nodes[a], nodes[b]) for a, b in pairwise(session)})
    edge_index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
    lengths = [len(session) for session in sequences]
    return {"x": x, "edge_index": edge_index.tolist(), "alias": alias, "batch": batch, "length": lengths}


def same(first, second):
    for name in (*STORED, "time", "user", "target"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None), name
        assert a is None or (torch.equal(a, b) and a.dtype == b.dtype), name
    assert (first.item_ids, first.session_ids) == (second.item_ids, second.session_ids)
    assert first.num_items == second.num_items


def single(graph, number):
    """The graph of one session, made on its own."""
    begin, end = graph.click_ptr[number : number + 2].tolist()
    users = {} if graph.user is None else {"user": graph.user[[number]], "user_ids": graph.vocabulary("user").ids}
    return SessionGraph.from_sequences(
        [graph.items[begin:end].tolist()],
        item_ids=graph.item_ids,
        session_ids=[graph.session_ids[number]],
        time=None if graph.time is None else graph.time[begin:end],
        **users,
    )


# What a graph is made of


@given(session_graphs())
def test_nodes_and_edges_are_those_of_a_loop(graph):
    expected = naive(sequences(graph))
    for name in STORED:
        value = getattr(graph, name)
        assert value.dtype == torch.long
        assert value.tolist() == expected[name], name
    assert graph.num_nodes == len(expected["x"])
    assert graph.validate()
    assert graph.is_coalesced()


@given(session_graphs(min_sessions=1))
def test_a_graph_is_the_batch_of_its_sessions(graph):
    batch = Batch.from_data_list([single(graph, number) for number in range(graph.num_sessions)])
    same(batch, graph)
    assert torch.equal(batch["batch"], graph.batch)
    assert batch.fingerprint() == graph.fingerprint()
    for number in range(graph.num_sessions):
        same(batch.get_example(number), single(graph, number))
        same(graph.select(torch.tensor([number])), single(graph, number))


@given(session_graphs(min_sessions=1, extras=False), session_graphs(min_sessions=1, extras=False))
def test_batches_of_graphs_of_several_sessions(first, second):
    first, second = (SessionGraph.from_sequences(sequences(graph), num_items=5) for graph in (first, second))
    whole = SessionGraph.from_sequences(sequences(first) + sequences(second), num_items=5)
    batch = Batch.from_data_list([first, second])
    for name in STORED:
        assert torch.equal(getattr(batch, name), getattr(whole, name)), name
    assert torch.equal(batch.items, whole.items)
    assert batch.num_sessions == whole.num_sessions
    same(batch.get_example(1), second)
    for part, expected in (
        (batch.prefixes(), whole.prefixes()),
        (batch.collapse(), whole.collapse()),
        (batch.select(batch.length > 2), whole.select(whole.length > 2)),
    ):
        assert type(part) is SessionGraph
        assert torch.equal(part.edge_index, expected.edge_index)
        assert torch.equal(part.alias, expected.alias)


def test_batches_of_graphs_with_other_items_have_no_raw_ids():
    graphs = [SessionGraph.from_sequences([[0]], num_items=size, session_ids=["a"]) for size in (1, 2)]
    batch = Batch.from_data_list(graphs)
    with pytest.raises(ValueError, match=r"graphs of a batch must share their items to have raw ids \(got different"):
        _ = batch.item_ids
    with pytest.raises(ValueError, match=r"'ids' must be distinct \(got 'a' more than once\)"):
        _ = batch.session_ids


@given(session_graphs())
def test_what_follows_from_the_clicks(graph):
    rows = sequences(graph)
    assert graph.session.tolist() == [s for s, row in enumerate(rows) for _ in row]
    assert graph.position.tolist() == [p for row in rows for p, _ in enumerate(row)]
    assert graph.click_ptr.tolist() == [sum(map(len, rows[:k])) for k in range(len(rows) + 1)]
    assert (graph.num_sessions, graph.num_clicks) == (len(rows), sum(map(len, rows)))
    assert graph.num_interactions == graph.num_clicks
    assert graph.device == torch.device("cpu")


@given(session_graphs())
def test_lists_and_one_tensor_are_the_same(graph):
    for items in (graph.items, graph.items.int(), graph.items.numpy()):
        again = SessionGraph.from_sequences(items, graph.click_ptr, num_items=graph.num_items)
        for name in STORED:
            assert torch.equal(getattr(again, name), getattr(graph, name))


def test_item_numbers_beyond_what_32_bits_hold():
    large = 2**31
    graph = SessionGraph.from_sequences([[0, large - 1], [1]] * 3, num_items=large)
    assert graph.x.tolist() == [0, large - 1, 1] * 3
    assert graph.batch.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5]


def test_a_graph_owns_its_tensors():
    items, ptr, time, user = torch.tensor([0, 1, 2]), torch.tensor([0, 2, 3]), torch.arange(3), torch.tensor([0, 0])
    graph = SessionGraph.from_sequences(items, ptr, time=time, user=user)
    before = graph.fingerprint()
    for tensor in (items, ptr, time, user):
        tensor += 1
    assert graph.fingerprint() == before


def test_no_session_at_all():
    empty = SessionGraph.from_sequences([], num_items=3)
    assert (empty.num_sessions, empty.num_clicks, empty.num_items, empty.num_nodes) == (0, 0, 3, 0)
    assert empty.click_ptr.tolist() == [0]
    assert empty.edge_index.shape == (2, 0)
    assert empty.prefixes().num_sessions == empty.select(torch.tensor([]).long()).num_sessions == 0
    assert [part.num_sessions for part in empty.time_split([0.5, 0.5])] == [0, 0]
    assert empty.collapse().num_clicks == 0
    assert empty.validate()
    assert len(empty.fingerprint()) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": [[0], []]}, r"'items' must hold a click of every session \(got none of session 1\)"),
        ({"items": [[0.5]]}, r"'items' must hold whole numbers \[num_clicks\] \(got torch.float32, \[1\]\)"),
        ({"items": [[-1]]}, r"'items' must not hold negative ids \(got item -1\)"),
        ({"items": [[3]], "num_items": 3}, r"'items' must hold items below 3 \(got item 3\)"),
        ({"items": torch.tensor([1])}, r"'ptr' must say where sessions begin .* \(got none\)"),
        ({"items": [1, 2], "ptr": [0, 1]}, r"'ptr' must run from 0 to 2 \(got 0 to 1\)"),
        ({"items": [1, 2], "ptr": [1, 2]}, r"'ptr' must run from 0 to 2 \(got 1 to 2\)"),
        (
            {"items": [1, 2], "ptr": [0.0, 2.0]},
            r"'ptr' must hold whole numbers \[num_sessions \+ 1\] \(got torch.float",
        ),
        ({"items": [1, 2], "ptr": []}, r"'ptr' must hold whole numbers"),
        ({"items": [1, 2], "ptr": [0, 2, 1, 2]}, r"must hold a click of every session \(got none of session 1\)"),
        (
            {"items": [[0]], "item_ids": ["a", "b"], "num_items": 1},
            r"'item_ids' must hold one raw id per item, 1 \(got",
        ),
        ({"items": [[0]], "session_ids": ["a", "b"]}, r"'session_ids' must hold one raw id per session, 1 \(got 2\)"),
        (
            {"items": [[0], [0]], "session_ids": ["a", "a"]},
            r"'session_ids' must be distinct",
        ),
        ({"items": [[0]], "time": [1, 2]}, r"'time' must hold one value per click, 1 \(got \[2\]\)"),
        ({"items": [[0, 1]], "time": [1, float("nan")]}, r"'time' must be finite \(got nan at click 1\)"),
        (
            {"items": [[0]], "user": [0, 1]},
            r"'user' must hold a whole number per session, 1 \(got torch.int64, \[2\]\)",
        ),
        (
            {"items": [[0]], "user": [0.0]},
            r"'user' must hold a whole number per session, 1 \(got torch.float32, \[1\]\)",
        ),
        ({"items": [[0]], "user": [-2]}, r"'user' must hold users from 0, or -1 where unknown \(got -2\)"),
        ({"items": [[0]], "user": [1], "user_ids": ["a"]}, r"'user' must hold users below 1 \(got user 1\)"),
        ({"items": [[0]], "user_ids": ["a"]}, r"'user' must hold the user of every session where .* 'user_ids'"),
    ],
)
def test_wrong_sequences(arguments, message):
    with pytest.raises(ValueError, match=message):
        SessionGraph.from_sequences(**arguments)


@pytest.mark.parametrize("name", ["items", "num_items", "session", "position", "batch", "session_ids", "num_clicks"])
def test_what_follows_cannot_be_set(name):
    graph = SessionGraph.from_sequences([[0, 1]])
    with pytest.raises(AttributeError, match=f"'{name}' is read-only"):
        setattr(graph, name, 3)


def test_graphs_changed_by_hand_are_not_valid():
    graph = SessionGraph.from_sequences([[0, 1], [1, 0]])
    for name, value in (("alias", torch.tensor([1, 0, 3, 3])), ("edge_index", graph.edge_index.flip(0)[:, :1])):
        wrong = copy.copy(graph)
        wrong[name] = value
        assert not wrong.validate(raise_on_error=False)
        with pytest.raises(ValueError, match="must have the nodes and edges of its clicks"):
            wrong.validate()


# Cutting


@given(session_graphs(), st.data())
def test_select(graph, data):
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=graph.num_sessions, max_size=graph.num_sessions)))
    mask = mask.bool()
    part = graph.select(mask)
    rows = sequences(graph)
    kept = mask.nonzero().flatten().tolist()
    assert sequences(part) == [rows[s] for s in kept]
    assert part.session_ids == [graph.session_ids[s] for s in kept]
    assert (part.num_items, part.item_ids) == (graph.num_items, graph.item_ids)
    if graph.time is not None:
        assert torch.equal(part.time, graph.time[mask[graph.session]])
    if graph.user is not None:
        assert torch.equal(part.user, graph.user[mask])
    assert part.validate()
    for index in (mask.nonzero().flatten(), mask.nonzero().flatten().flip(0).int()):
        assert graph.select(index).fingerprint() == part.fingerprint()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([True]), r"'index' must be a mask of 2 sessions \(got shape \[1\]\)"),
        (torch.tensor([2]), r"'index' must lie between 0 and 1 \(got 2 to 2\)"),
        (torch.tensor([0.5]), r"'index' must be a mask or a list of indices \(got torch.float32, shape \[1\]\)"),
    ],
)
def test_wrong_selections(index, message):
    with pytest.raises(ValueError, match=message):
        SessionGraph.from_sequences([[0], [1]]).select(index)


@given(session_graphs(), st.data())
def test_prefixes(graph, data):
    every = st.lists(st.integers(0, max(graph.num_clicks - 1, 0)), max_size=5 if graph.num_clicks else 0)
    ends = data.draw(st.none() | every)
    rows, session, position = sequences(graph), graph.session.tolist(), graph.position.tolist()
    chosen = [c for c in range(graph.num_clicks) if position[c] + 1 < len(rows[session[c]])] if ends is None else ends
    part = graph.prefixes(None if ends is None else torch.tensor(ends, dtype=torch.int32))
    assert sequences(part) == [rows[session[c]][: position[c] + 1] for c in chosen]
    following = [rows[session[c]][position[c] + 1 :] for c in chosen]
    assert part.target.tolist() == [rest[0] if rest else -1 for rest in following]
    assert part.validate()
    assert part.num_items == graph.num_items
    assert part.item_ids == graph.item_ids
    assert part.session_ids == [str(k) for k in range(len(chosen))]
    assert part.time is part.user is None
    some = part.select(part.length > 1)
    assert torch.equal(some.target, part.target[part.length > 1])


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (torch.tensor([3]), r"'ends' must lie between 0 and 2 \(got 3 to 3\)"),
        (torch.tensor([-1]), r"'ends' must lie between 0 and 2 \(got -1 to -1\)"),
        (torch.tensor([True, True, False]), r"'ends' must be a list of clicks \(got torch.bool, shape \[3\]\)"),
        (torch.tensor([1.0]), r"'ends' must be a list of clicks \(got torch.float32"),
        (torch.tensor([[1]]), r"'ends' must be a list of clicks \(got torch.int64, shape \[1, 1\]\)"),
    ],
)
def test_wrong_ends(ends, message):
    with pytest.raises(ValueError, match=message):
        SessionGraph.from_sequences([[0, 1], [1]]).prefixes(ends)


@given(session_graphs())
def test_collapse(graph):
    rows = [[item for k, item in enumerate(row) if not k or row[k - 1] != item] for row in sequences(graph)]
    short = graph.collapse()
    assert sequences(short) == rows
    assert short.session_ids == graph.session_ids
    assert not (short.edge_index[0] == short.edge_index[1]).any()
    assert short.collapse().fingerprint() == short.fingerprint()
    if graph.time is not None:  # the first of a run stays
        first = [k == 0 or row[k - 1] != row[k] for row in sequences(graph) for k in range(len(row))]
        assert short.time.tolist() == [t for t, keep in zip(graph.time.tolist(), first) if keep]


@given(session_graphs(), st.sampled_from([(1.0,), (0.5, 0.5), (0.2, 0.3, 0.5), (0.9, 0.05, 0.05)]))
def test_time_split(graph, fractions):
    order = list(range(graph.num_sessions))
    if graph.time is not None:
        last = graph.time[graph.click_ptr[1:] - 1].tolist()
        order.sort(key=lambda s: last[s])
    parts = graph.time_split(fractions)
    bounds = [round(sum(fractions[:k]) * len(order)) for k in range(len(fractions) + 1)]
    for part, (begin, end) in zip(parts, pairwise(bounds)):
        assert part.session_ids == [graph.session_ids[s] for s in sorted(order[begin:end])]
        assert part.num_items == graph.num_items
    assert sum(part.num_clicks for part in parts) == graph.num_clicks


@pytest.mark.parametrize("fractions", [[], [0.5], [1.5, -0.5], [0.5, 0.6]])
def test_wrong_fractions(fractions):
    with pytest.raises(ValueError, match=r"'fractions' must be positive and add up to 1 \(got \["):
        SessionGraph.from_sequences([[0]]).time_split(fractions)


@given(session_graphs(min_sessions=1))
def test_without_unseen(graph):
    train, test = graph.time_split([0.5, 0.5])
    seen = set(train.items.tolist())
    part = test.without_unseen(train)
    rows = [[item for item in row if item in seen] for row in sequences(test)]
    assert sequences(part) == [row for row in rows if row]
    assert part.num_left_out == test.num_clicks - part.num_clicks
    assert part.select(torch.zeros(part.num_sessions, dtype=torch.bool)).num_left_out == part.num_left_out
    assert part.without_unseen(train).num_left_out == part.num_left_out
    assert part.num_items == graph.num_items


def test_without_unseen_needs_the_same_items():
    with pytest.raises(ValueError, match=r"'train' must have the same 2 items \(got others, 3\)"):
        SessionGraph.from_sequences([[0, 1]]).without_unseen(SessionGraph.from_sequences([[0, 2]]))


@given(session_graphs(), st.data())
def test_subgraphs_keep_the_clicks_of_their_nodes(graph, data):
    size = graph.num_nodes
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool)
    part = graph.subgraph(mask)
    assert torch.equal(part.items, graph.items[mask[graph.alias]])
    assert torch.equal(part.x, graph.x[mask])
    assert part.validate()


# As an object of PyTorch Geometric


@given(session_graphs(min_sessions=1))
def test_copies(graph):
    for again in (copy.copy(graph), copy.deepcopy(graph), graph.clone(), pickle.loads(pickle.dumps(graph))):
        same(again, graph)
        assert again.fingerprint() == graph.fingerprint()
        assert type(again) is SessionGraph
    moved = graph.to("cpu")
    assert moved.fingerprint() == graph.fingerprint()
    assert copy.deepcopy(graph).x.data_ptr() != graph.x.data_ptr()


def test_to_another_device():
    graph = SessionGraph.from_sequences([[0, 1, 1], [1]], time=torch.arange(4), user=torch.tensor([0, 0]))
    moved = copy.copy(graph).to("meta")
    assert {moved[name].device.type for name in ("x", "edge_index", "alias", "length", "time", "user")} == {"meta"}
    assert moved.batch.device.type == moved.device.type == "meta"
    assert graph.device.type == "cpu"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@given(session_graphs(min_sessions=2))
def test_everything_on_a_gpu(graph):
    moved = copy.copy(graph).to("cuda")
    cuts = [
        lambda g: g.select(torch.arange(1, g.num_sessions)),
        lambda g: g.prefixes(),
        lambda g: g.prefixes(torch.arange(0, g.num_clicks, 2)),
        lambda g: g.collapse(),
        lambda g: g.time_split([0.5, 0.5])[1],
        lambda g: g.split(gu.ForgetRequest.internal("session", torch.tensor([1])))[0],
        lambda g: g.split(gu.ForgetRequest.internal("click", torch.tensor([[1], [0]])))[1],
        lambda g: g.without_unseen(g.select(torch.tensor([0]))),
    ]
    for cut in cuts:
        part = cut(moved)
        assert part.device.type == "cuda"
        assert part.validate()
        same(part.to("cpu"), cut(graph))
    assert moved.fingerprint() == graph.fingerprint()


def test_a_loader_of_sessions():
    graph = SessionGraph.from_sequences([[0, 1], [2], [1, 1, 0], [2, 0]])
    singles = [graph.select(torch.tensor([s])) for s in range(4)]
    batches = list(DataLoader(singles, batch_size=3))
    assert [batch.num_sessions for batch in batches] == [3, 1]
    assert torch.equal(batches[0].items, graph.items[:6])
    assert batches[0].session_ids == ["0", "1", "2"]
    assert batches[0].num_graphs == 3
    assert isinstance(batches[0], SessionGraph)
    assert "length=[3]" in repr(batches[0])


def test_functions_of_pytorch_geometric():
    graph = SessionGraph.from_sequences([[0, 2, 0], [1]])
    assert [part.tolist() for part in unbatch(graph.x, graph.batch)] == [[0, 2], [1]]
    assert global_add_pool(graph.x.view(-1, 1), graph.batch).flatten().tolist() == [2, 1]
    assert isinstance(graph, Data)
    assert graph.has_self_loops() is False
    looped = T.AddSelfLoops()(graph)
    assert looped.num_edges == graph.num_edges + graph.num_nodes
    assert torch.equal(looped.items, graph.items)


def test_graphs_cut_in_inference_mode_can_be_trained_on():
    graph = SessionGraph.from_sequences([[0, 1, 2], [1]])
    with torch.inference_mode():
        parts = [graph.select(torch.tensor([0])), graph.prefixes(), graph.collapse(), *graph.time_split([0.5, 0.5])]
        parts.append(SessionGraph.from_sequences([[0, 1]]))
        parts += graph.split(gu.ForgetRequest("item", [1]))
    assert not any(tensor.is_inference() for part in parts for tensor in (part.x, part.alias, part.length, part.batch))


@given(session_graphs())
def test_networkx(graph):
    network = graph.to_networkx()
    assert isinstance(network, networkx.DiGraph)
    assert (network.number_of_nodes(), network.number_of_edges()) == (graph.num_nodes, graph.num_edges)
    rows = {}
    for (session, item), data in network.nodes(data=True):
        assert (data["session"], data["item"]) == (session, item)
        rows.setdefault(session, {}).update(dict.fromkeys(data["positions"], item))
    named = [[graph.item_ids[i] for i in row] for row in sequences(graph)]
    assert [[row[k] for k in sorted(row)] for row in rows.values()] == named
    weights = sum(weight for _, _, weight in network.edges(data="weight"))
    assert weights == graph.num_clicks - graph.num_sessions


def test_fingerprints_tell_graphs_apart():
    make = SessionGraph.from_sequences
    graphs = [
        make([[0, 1], [1]]),
        make([[0, 1, 1]]),
        make([[1], [0, 1]]),
        make([[1, 0], [1]]),
        make([[0, 1], [1]], num_items=3),
        make([[0, 1], [1]], item_ids=["1", "0"]),
        make([[0, 1], [1]], session_ids=["1", "0"]),
        make([[0, 1], [1]], time=torch.tensor([0, 1, 2])),
        make([[0, 1], [1]], time=torch.tensor([0, 2, 2])),
        make([[0, 1], [1]], user=torch.tensor([0, -1])),
        make([[0, 1], [1]], user=torch.tensor([0, 0])),
        make([[0, 1], [1]], user=torch.tensor([0, 0]), user_ids=["ann"]),
        make([[0, 1], [1]]).prefixes(torch.tensor([1, 2])),
    ]
    assert len({graph.fingerprint() for graph in graphs}) == len(graphs)
    assert make([[0, 1], [1]]).fingerprint() == graphs[0].fingerprint()
