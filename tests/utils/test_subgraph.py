"""Balls, subgraphs and affected sets against PyG, breadth-first search in plain Python, and dense propagation."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import k_hop_subgraph as pyg_k_hop_subgraph
from torch_geometric.utils import to_undirected

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph
from graphunlearn.func import Adjacency, spmm
from graphunlearn.utils import (
    affected_interactions,
    affected_nodes,
    k_hop_ball,
    k_hop_subgraph,
    node_map,
    removed_share,
    subgraph,
)

quick = settings(max_examples=60, deadline=None)


@pytest.fixture(params=["sorted", "marked"])
def _either_way(request, monkeypatch):
    """Found nodes are sorted where they are few and marked where they are many: both must agree on small graphs."""
    monkeypatch.setattr(subgraph, "_SPARSE_SHARE", 1e9 if request.param == "sorted" else 0.0)


@st.composite
def graphs(draw, min_interactions=1):
    num_users, num_items = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    cells = [(u, i) for u in range(num_users) for i in range(num_items)]
    minimum = min(min_interactions, len(cells))
    chosen = draw(st.lists(st.sampled_from(cells), unique=True, min_size=minimum, max_size=min(len(cells), 16)))
    pairs = torch.tensor(chosen, dtype=torch.long).view(-1, 2).t()
    rating = torch.arange(len(chosen), dtype=torch.float)
    return InteractionGraph.from_edges(pairs, num_users, num_items, rating=rating)


@st.composite
def graphs_with_removal(draw):
    graph = draw(graphs(min_interactions=2))
    size = graph.num_interactions
    removed = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=max(1, size // 2)))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(removed)] = True
    return graph, mask


def homogeneous_edges(graph):
    user, item = graph.pairs
    return to_undirected(torch.stack([user, item + graph.num_users]), num_nodes=graph.num_nodes)


def distances(graph, start):
    neighbors = {node: set() for node in range(graph.num_nodes)}
    for user, item in graph.pairs.t().tolist():
        neighbors[user].add(item + graph.num_users)
        neighbors[item + graph.num_users].add(user)
    found, queue = dict.fromkeys(start, 0), deque(start)
    while queue:
        node = queue.popleft()
        for other in neighbors[node] - found.keys():
            found[other] = found[node] + 1
            queue.append(other)
    return found


def random_graph(num_users=40, num_items=50, num_interactions=150, seed=0):
    cells = torch.randperm(num_users * num_items, generator=torch.Generator().manual_seed(seed))[:num_interactions]
    return InteractionGraph.from_edges(torch.stack([cells // num_items, cells % num_items]), num_users, num_items)


def embeddings(graph, rows, weights):
    """z = sum_l alpha_l P^l e, layer by layer."""
    matrix, layer = graph.adjacency.normalized(rows.dtype), rows
    total = weights[0] * layer
    for weight in weights[1:]:
        layer = spmm(matrix, layer)
        total = total + weight * layer
    return total


@pytest.fixture
def rows_read(monkeypatch):
    """The nodes whose rows were read, call by call: what a function costs."""
    read, entries = [], Adjacency.entries
    monkeypatch.setattr(Adjacency, "entries", lambda self, nodes: read.append(nodes) or entries(self, nodes))
    return read


# k_hop_ball


@pytest.mark.usefixtures("_either_way")
@quick
@given(graph=graphs(min_interactions=0), data=st.data(), num_hops=st.integers(0, 5))
def test_ball_is_that_of_breadth_first_search(graph, data, num_hops):
    start = data.draw(st.lists(st.integers(0, graph.num_nodes - 1), max_size=4))
    expected = sorted(node for node, hops in distances(graph, start).items() if hops <= num_hops)
    ball = k_hop_ball(graph, start, num_hops)
    assert ball.dtype == torch.long
    assert ball.tolist() == expected


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("num_hops", [0, 1, 2, 3])
def test_ball_is_that_of_pyg(num_hops):
    graph = random_graph()
    edges = homogeneous_edges(graph)
    for start in ([0], [3, 3, 41], list(range(40, 50))):
        expected = pyg_k_hop_subgraph(start, num_hops, edges, num_nodes=graph.num_nodes)[0]
        assert k_hop_ball(graph, torch.tensor(start), num_hops).equal(expected)


@pytest.mark.usefixtures("_either_way")
def test_ball_reads_no_row_twice_and_none_at_its_rim(rows_read):
    graph = random_graph()
    k_hop_ball(graph, [0, 1], 3)
    rows = torch.cat(rows_read).sort().values
    assert rows.equal(k_hop_ball(graph, [0, 1], 2))


def test_ball_of_an_isolated_node_is_the_node():
    graph = InteractionGraph.from_edges(torch.tensor([[0], [0]]), num_users=2, num_items=2)
    assert k_hop_ball(graph, [1], 3).tolist() == [1]
    assert k_hop_ball(graph, [], 3).tolist() == []


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([90], r"'nodes' must lie in \[0, 90\), the nodes of the graph \(got 90\)"),
        ([0, -1], r"'nodes' must lie in \[0, 90\), the nodes of the graph \(got -1\)"),
        ([0.0, 1.0], r"'nodes' must be a list of integer node ids \(got torch.float32"),
        (torch.ones(90, dtype=torch.bool), r"'nodes' must be a list of integer node ids \(got torch.bool"),
        (torch.ones(2, 2, dtype=torch.long), r"'nodes' must be a list of integer .* shape \[2, 2\]\)"),
    ],
)
def test_wrong_nodes_are_refused(nodes, message):
    for function in (k_hop_ball, k_hop_subgraph):
        with pytest.raises(ValueError, match=message):
            function(random_graph(), nodes, 1)


@pytest.mark.parametrize("num_hops", [-1, 1.5, True, "2"])
def test_wrong_number_of_hops_is_refused(num_hops):
    graph = random_graph()
    removed = torch.arange(graph.num_interactions) == 0
    for call in (
        lambda: k_hop_ball(graph, [0], num_hops),
        lambda: k_hop_subgraph(graph, [0], num_hops),
        lambda: affected_nodes(graph, removed, num_hops),
        lambda: affected_interactions(graph, removed, num_hops),
    ):
        with pytest.raises(ValueError, match="'num_hops' must be a non-negative integer"):
            call()


# k_hop_subgraph


@quick
@given(graph=graphs(), data=st.data(), num_hops=st.integers(0, 4))
def test_subgraph_is_the_one_induced_by_pyg(graph, data, num_hops):
    start = data.draw(st.lists(st.integers(0, graph.num_nodes - 1), min_size=1, max_size=4))
    edges = homogeneous_edges(graph)
    ball, inside, _, _ = pyg_k_hop_subgraph(start, num_hops, edges, num_nodes=graph.num_nodes)
    sub = k_hop_subgraph(graph, start, num_hops)

    original = node_map(graph, sub)
    assert original.equal(ball)
    assert sub.num_users == int((ball < graph.num_users).sum())
    ends = torch.stack([original[sub.pairs[0]], original[sub.pairs[1] + sub.num_users]])
    assert to_undirected(ends, num_nodes=graph.num_nodes).equal(to_undirected(inside, num_nodes=graph.num_nodes))


@quick
@given(graph=graphs(), data=st.data(), num_hops=st.integers(0, 4))
def test_subgraph_knows_where_it_comes_from(graph, data, num_hops):
    start = data.draw(st.lists(st.integers(0, graph.num_nodes - 1), min_size=1, max_size=4))
    sub = k_hop_subgraph(graph, start, num_hops)
    users, items, interactions = sub["user"].n_id, sub["item"].n_id, sub[EDGE_TYPE].e_id
    assert torch.stack([users[sub.pairs[0]], items[sub.pairs[1]]]).equal(graph.pairs[:, interactions])
    assert interactions.equal(interactions.unique())
    assert sub.rating.equal(graph.rating[interactions])
    assert sub.user_ids == [graph.user_ids[u] for u in users.tolist()]
    assert sub.item_ids == [graph.item_ids[i] for i in items.tolist()]
    assert sub.validate()


@quick
@given(graph=graphs(), data=st.data(), num_hops=st.integers(0, 4))
def test_around_one_side_the_subgraph_is_what_walks_can_use(graph, data, num_hops):
    low, high = data.draw(st.sampled_from([(0, graph.num_users), (graph.num_users, graph.num_nodes)]))
    start = data.draw(st.lists(st.integers(low, high - 1), min_size=1, max_size=3))
    sub = k_hop_subgraph(graph, start, num_hops)
    near = distances(graph, start)
    usable = [
        index
        for index, (user, item) in enumerate(graph.pairs.t().tolist())
        if min(near.get(user, 99), near.get(item + graph.num_users, 99)) < num_hops
    ]
    assert sub[EDGE_TYPE].e_id.tolist() == usable


@pytest.mark.parametrize("num_hops", [1, 2, 3])
@pytest.mark.parametrize("start", [[0, 1], [45, 46]])
def test_subgraph_around_one_side_reads_only_what_the_ball_reads(start, num_hops, rows_read):
    graph = random_graph()
    k_hop_subgraph(graph, start, num_hops)
    rows = torch.cat(rows_read).sort().values
    assert rows.equal(k_hop_ball(graph, start, num_hops - 1).int())


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("num_hops", [0, 1, 2, 3])
@pytest.mark.parametrize("start", [[0], [30, 7, 7], [300], list(range(300, 420)), [0, 5, 310], list(range(250, 350))])
def test_subgraph_of_a_larger_graph_is_that_of_a_mask_over_it(start, num_hops):
    graph = random_graph(300, 400, 3000)
    graph[EDGE_TYPE].time = torch.arange(3000) * 7
    ball = k_hop_ball(graph, start, num_hops)
    near = torch.zeros(graph.num_nodes, dtype=torch.bool)
    near[ball] = True
    user, item = graph.pairs
    inside = (near[user] & near[item + graph.num_users]).nonzero().view(-1)
    renumber = near.cumsum(0) - 1
    num_users = int(near[: graph.num_users].sum())

    sub = k_hop_subgraph(graph, start, num_hops)
    assert sub[EDGE_TYPE].e_id.equal(inside)
    assert sub.pairs.equal(torch.stack([renumber[user], renumber[item + graph.num_users] - num_users])[:, inside])
    assert sub.time.equal(graph.time[inside])
    assert (sub.num_users, sub.num_items) == (num_users, len(ball) - num_users)
    assert node_map(graph, sub).equal(ball)
    assert sub.adjacency.col.dtype == torch.int32


def test_subgraphs_one_after_the_other_do_not_disturb_each_other():
    graph = random_graph(300, 400, 3000)
    with torch.inference_mode():
        first = k_hop_subgraph(graph, [0], 2)
    second = k_hop_subgraph(graph, [40, 350], 1)
    fresh = random_graph(300, 400, 3000)
    assert second.pairs.equal(k_hop_subgraph(fresh, [40, 350], 1).pairs)
    assert first.pairs.equal(k_hop_subgraph(fresh, [0], 2).pairs)


def test_subgraph_has_all_interactions_that_are_stored_twice():
    graph = random_graph()
    graph[EDGE_TYPE].edge_index = graph.pairs.repeat(1, 2)
    sub = k_hop_subgraph(graph, [0], 1)
    assert sub[EDGE_TYPE].e_id.equal((graph.pairs[0] == 0).nonzero().view(-1))
    assert graph.pairs[1, sub[EDGE_TYPE].e_id].equal(sub["item"].n_id[sub.pairs[1]])


def test_subgraph_keeps_raw_ids_times_and_other_values():
    pairs = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]])
    graph = InteractionGraph.from_edges(
        pairs, user_ids=["ann", "bob", "cat"], item_ids=["x", "y", "z"], time=torch.tensor([5, 6, 7, 8])
    )
    graph[EDGE_TYPE].price = torch.tensor([1.0, 2.0, 3.0, 4.0])
    sub = k_hop_subgraph(graph, [1], 1)
    assert (sub.user_ids, sub.item_ids, sub.time.tolist()) == (["bob"], ["y"], [7])
    assert sub[EDGE_TYPE].price.tolist() == [3.0]
    assert sub.rating is None


def test_propagation_on_the_subgraph_reaches_the_start_nodes_as_on_the_graph():
    # The plain sum over neighbours: degrees, and with them the normalisation, are cut at the rim.
    graph, start, num_hops = random_graph(), torch.tensor([4, 60]), 2
    sub = k_hop_subgraph(graph, start, num_hops)
    original = node_map(graph, sub)
    rows = torch.randn(graph.num_nodes, 3, dtype=torch.double)

    def walk(graph, rows):
        for _ in range(num_hops):
            rows = torch.zeros_like(rows).index_add_(0, *_flow(graph, rows))
        return rows

    def _flow(graph, rows):
        user, item = graph.pairs[0], graph.pairs[1] + graph.num_users
        return torch.cat([user, item]), rows[torch.cat([item, user])]

    inside = torch.isin(original, start)
    torch.testing.assert_close(walk(sub, rows[original])[inside], walk(graph, rows)[start])


def test_node_map_of_another_graph_is_refused():
    graph = random_graph()
    with pytest.raises(ValueError, match="'subgraph' must carry original ids"):
        node_map(graph, graph)


# what a removal reaches


@quick
@given(graphs_with_removal())
def test_removed_share_is_that_of_a_loop(graph_and_mask):
    graph, mask = graph_and_mask
    lost, degree = {}, {}
    for removed, (user, item) in zip(mask.tolist(), graph.pairs.t().tolist()):
        for node in (user, item + graph.num_users):
            degree[node] = degree.get(node, 0) + 1
            lost[node] = lost.get(node, 0) + removed
    expected = {node: lost[node] / degree[node] for node in lost if lost[node]}
    nodes, share = removed_share(graph, mask)
    assert dict(zip(nodes.tolist(), share.tolist())) == expected
    assert nodes.tolist() == sorted(expected)

    nodes, share = removed_share(graph, mask, min_degree_change=0.4)
    assert dict(zip(nodes.tolist(), share.tolist())) == {node: x for node, x in expected.items() if x > 0.4}


@settings(max_examples=100, deadline=None)
@given(graphs_with_removal(), st.integers(0, 4), st.integers(0, 2**31))
def test_affected_nodes_are_exactly_those_whose_embedding_changes(graph_and_mask, num_hops, seed):
    graph, mask = graph_and_mask
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(graph.num_nodes, 4, generator=random, dtype=torch.double)
    weights = torch.rand(num_hops + 1, generator=random, dtype=torch.double) + 0.5
    before, after = embeddings(graph, rows, weights), embeddings(graph.select(~mask), rows, weights)
    changed = (before != after).any(1).nonzero().view(-1)
    assert affected_nodes(graph, mask, num_hops).equal(changed)


@pytest.mark.parametrize("num_hops", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_affected_set_is_exact_on_a_larger_graph(num_hops, dtype):
    graph = random_graph(300, 400, 900)
    mask = torch.zeros(graph.num_interactions, dtype=torch.bool)
    mask[:3] = True
    rows = torch.randn(graph.num_nodes, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    weights = torch.full((num_hops + 1,), 1 / (num_hops + 1), dtype=dtype)
    before, after = embeddings(graph, rows, weights), embeddings(graph.select(~mask), rows, weights)
    same = (before == after).all(1)
    inside = torch.zeros(graph.num_nodes, dtype=torch.bool)
    inside[affected_nodes(graph, mask, num_hops)] = True
    assert 0 < inside.sum() < graph.num_nodes  # neither half of the claim is empty
    assert same[~inside].all()
    if dtype == torch.double:  # in single precision a small change may be rounded away
        assert not same[inside].any()

    user, item = graph.pairs[0], graph.pairs[1] + graph.num_users
    marked = affected_interactions(graph, mask, num_hops)
    assert marked.equal((inside[user] | inside[item]) & ~mask)
    scores = [(z[user] * z[item]).sum(1) for z in (before, after)]
    assert (scores[0] == scores[1])[~marked & ~mask].all()
    if dtype == torch.double:
        assert (scores[0] != scores[1])[marked].all()


@quick
@given(graphs_with_removal(), st.integers(0, 4))
def test_affected_set_is_the_same_seen_from_the_remaining_graph(graph_and_mask, num_hops):
    graph, mask = graph_and_mask
    endpoints, _ = removed_share(graph, mask)
    expected = k_hop_ball(graph.select(~mask), endpoints, num_hops) if num_hops else endpoints[:0]
    assert affected_nodes(graph, mask, num_hops).equal(expected)


def test_without_propagation_nothing_else_changes():
    graph = random_graph()
    mask = torch.arange(graph.num_interactions) < 20
    assert affected_nodes(graph, mask, 0).numel() == 0
    assert not affected_interactions(graph, mask, 0).any()


def test_a_request_and_its_mask_are_the_same():
    graph = random_graph()
    request = ForgetRequest("user", ["3"]) | ForgetRequest("item", ["7"])
    mask = request.mask(graph)
    assert affected_interactions(graph, request, 2).equal(affected_interactions(graph, mask, 2))
    assert affected_nodes(graph, request, 2).equal(affected_nodes(graph, mask, 2))
    assert not affected_interactions(graph, request, 2)[mask].any()


def test_empty_removal_affects_nothing():
    graph = random_graph()
    mask = torch.zeros(graph.num_interactions, dtype=torch.bool)
    assert affected_nodes(graph, mask, 2).numel() == 0
    assert not affected_interactions(graph, mask, 2).any()


def test_endpoints_that_hardly_change_can_be_left_out():
    # Item 0 has 200 users and loses one of them, who had nothing else.
    pairs = torch.stack([torch.arange(200), torch.zeros(200, dtype=torch.long)])
    graph = InteractionGraph.from_edges(pairs, 200, 1)
    mask = torch.arange(200) == 5
    assert affected_interactions(graph, mask, 1).sum() == 199
    assert affected_nodes(graph, mask, 1, min_degree_change=0.01).tolist() == [5, 200]  # around user 5 alone
    assert removed_share(graph, mask, min_degree_change=0.01)[0].tolist() == [5]


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (torch.ones(3, dtype=torch.bool), r"torch.bool of shape \[3\]"),
        (torch.ones(150), r"torch.float32 of shape \[150\]"),
        (torch.tensor([0, 1]), r"torch.int64 of shape \[2\]"),
    ],
)
def test_wrong_masks_are_refused(mask, got):
    for function in (affected_nodes, affected_interactions):
        with pytest.raises(ValueError, match=rf"'request' must be .* mask of the 150 interactions \(got {got}\)"):
            function(random_graph(), mask, 1)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_wrong_degree_change_is_refused(share):
    graph = random_graph()
    mask = torch.arange(graph.num_interactions) == 0
    with pytest.raises(ValueError, match=r"'min_degree_change' must be a share in \[0, 1\)"):
        affected_interactions(graph, mask, 1, min_degree_change=share)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    graph = random_graph()
    other = random_graph().to("cuda")
    mask = torch.arange(graph.num_interactions) < 3
    assert k_hop_ball(other, [0, 50], 2).cpu().equal(k_hop_ball(graph, [0, 50], 2))
    assert affected_interactions(other, mask, 2).cpu().equal(affected_interactions(graph, mask, 2))
    sub = k_hop_subgraph(other, [0], 2)
    assert sub.pairs.is_cuda
    assert sub.pairs.cpu().equal(k_hop_subgraph(graph, [0], 2).pairs)
    assert sub.user_ids == k_hop_subgraph(graph, [0], 2).user_ids
    for start in ([0], [50], [3, 41, 60]):
        for num_hops in range(4):
            there, here = (k_hop_subgraph(g, start, num_hops) for g in (other, graph))
            assert there.pairs.cpu().equal(here.pairs)
            assert there[EDGE_TYPE].e_id.cpu().equal(here[EDGE_TYPE].e_id)
            assert node_map(other, there).cpu().equal(node_map(graph, here))
