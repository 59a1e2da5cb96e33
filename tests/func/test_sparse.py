"""Sparse products against dense ones and plain gathers, with all their derivatives."""

import copy
import gc
import pickle
import weakref
from itertools import chain

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_undirected
from toys import dense_adjacency, dense_normalized, random_graph

from graphunlearn.func import Adjacency, PairPattern, csr, spmm
from graphunlearn.func import adjacency as module

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, sums of a few dozen terms of size 1: errors of some 1e-15


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def matrix_and_dense(seed=0):
    graph = random_graph(seed=seed)
    return graph.adjacency.normalized(torch.float64), dense_normalized(graph)


# ---- csr and spmm


def test_csr_holds_what_it_is_given():
    rowptr, col = torch.tensor([0, 2, 2, 3], dtype=torch.int32), torch.tensor([0, 3, 1], dtype=torch.int32)
    dense = torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 0], [0, 3, 0, 0]])
    assert torch.equal(csr(rowptr, col, torch.tensor([1.0, 2.0, 3.0]), (3, 4)).to_dense(), dense)


@pytest.mark.parametrize("shape", [(13, 4), (13, 1), (13,)], ids=str)
def test_spmm_is_the_dense_product(shape):
    matrix, dense = matrix_and_dense()
    x = randn(*shape)
    torch.testing.assert_close(spmm(matrix, x), dense @ x, **EXACT)


def test_spmm_takes_strided_rows():
    matrix, dense = matrix_and_dense()
    x = randn(4, 13).t()
    assert not x.is_contiguous()
    torch.testing.assert_close(spmm(matrix, x), dense @ x, **EXACT)


def test_spmm_derivatives():
    matrix, _ = matrix_and_dense()
    x = randn(13, 2).requires_grad_()

    def bent(x):
        return spmm(matrix, x.square())  # a linear map alone has no second derivative to check

    assert gradcheck(bent, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(bent, x, check_fwd_over_rev=True)


def test_spmm_under_functional_transforms():
    matrix, dense = matrix_and_dense()
    x, t = randn(13, 2), randn(13, 2)

    def f(x):
        return (spmm(matrix, x).sin() ** 2).sum()

    def reference(x):
        return ((dense @ x).sin() ** 2).sum()

    torch.testing.assert_close(torch.func.jvp(f, (x,), (t,)), torch.func.jvp(reference, (x,), (t,)), **EXACT)
    torch.testing.assert_close(torch.func.grad(f)(x), torch.func.grad(reference)(x), **EXACT)
    torch.testing.assert_close(torch.func.hessian(f)(x), torch.func.hessian(reference)(x), **EXACT)


@pytest.mark.parametrize("in_dim", [0, 1, 2, -1])
def test_spmm_vmap_over_any_dimension(in_dim):
    matrix, dense = matrix_and_dense()
    shape = [13, 2]
    shape.insert(in_dim if in_dim >= 0 else 2, 5)
    x = randn(*shape)
    got = torch.vmap(lambda x: spmm(matrix, x), in_dims=in_dim)(x)
    expected = torch.stack([dense @ part for part in x.unbind(in_dim)])
    torch.testing.assert_close(got, expected, **EXACT)


def test_spmm_nested_vmap_and_vectors():
    matrix, dense = matrix_and_dense()
    x = randn(3, 4, 13)
    got = torch.vmap(torch.vmap(lambda x: spmm(matrix, x)))(x)
    torch.testing.assert_close(got, x @ dense, **EXACT)


# ---- adjacency


@given(graphs())
def test_adjacency_is_the_dense_matrix(graph):
    adjacency, dense = graph.adjacency, dense_adjacency(graph)
    ones = torch.ones(adjacency.col.numel(), dtype=torch.float64)
    size = (graph.num_nodes, graph.num_nodes)
    assert torch.equal(csr(adjacency.rowptr, adjacency.col, ones, size).to_dense(), dense)
    assert adjacency.degree.tolist() == dense.sum(1).long().tolist()
    assert adjacency.num_nodes == graph.num_nodes


@given(graphs(min_interactions=1))
def test_adjacency_knows_both_directions_and_their_interaction(graph):
    adjacency = graph.adjacency
    row = torch.repeat_interleave(torch.arange(graph.num_nodes), adjacency.degree.long()).tolist()
    entries = list(zip(row, adjacency.col.tolist(), adjacency.interaction.tolist()))
    expected = []
    for index, (user, item) in enumerate(graph.pairs.t().tolist()):
        expected += [(user, item + graph.num_users, index), (item + graph.num_users, user, index)]
    assert sorted(entries) == sorted(expected)
    assert entries == sorted(entries, key=lambda e: e[:2])  # rows in order, columns ascending within


@given(graphs())
def test_the_edge_index_holds_both_directions_sorted_by_target(graph):
    edges = [(user, item + graph.num_users) for user, item in graph.pairs.t().tolist()]
    edges += [(item, user) for user, item in edges]
    edge_index = graph.adjacency.edge_index
    assert edge_index.dtype == torch.long
    assert edge_index.shape == (2, 2 * graph.num_interactions)
    assert [tuple(edge) for edge in edge_index.t().tolist()] == sorted(edges, key=lambda edge: edge[::-1])


def test_the_edge_index_of_inference_can_be_trained_with():
    adjacency = random_graph().adjacency
    with torch.inference_mode():
        edge_index = adjacency.edge_index
    assert adjacency.edge_index is edge_index
    x = torch.randn(13, 2, requires_grad=True)
    x.index_select(0, edge_index[0]).sum().backward()  # which saves the index
    assert x.grad is not None


@given(graphs(min_interactions=1), st.data())
def test_select_is_building_anew(graph, data):
    count = graph.num_interactions
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    selected = graph.adjacency.select(mask)
    rebuilt = Adjacency.from_pairs(graph.pairs[:, mask], graph.num_users, graph.num_items)
    for name in ("rowptr", "col", "interaction", "degree"):
        got, expected = getattr(selected, name), getattr(rebuilt, name)
        assert torch.equal(got, expected), name
        assert got.dtype == expected.dtype == torch.int32, name


@given(graphs(min_interactions=1), st.data())
def test_select_around_the_nodes_that_lose_interactions_is_the_same(graph, data):
    count = graph.num_interactions
    mask = torch.ones(count, dtype=torch.bool)
    mask[data.draw(st.lists(st.integers(0, count - 1), max_size=5))] = False
    lost = graph.pairs[:, ~mask]
    nodes = torch.cat([lost[0], lost[1] + graph.num_users]).unique()
    expected = graph.adjacency.select(mask)
    for many in (0, 10**6):  # whether only their rows are looked at
        for known in (True, False):  # whether the matrix of the whole graph is
            source = Adjacency.from_pairs(graph.pairs, graph.num_users, graph.num_items)
            if known:
                source.normalized(torch.float64)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "_MANY", many)
                got = source.select(mask, nodes)
            assert got.normalized(torch.float64).values().equal(expected.normalized(torch.float64).values())
            assert got.normalized(torch.float32).values().equal(expected.normalized(torch.float32).values())
            for name in ("rowptr", "col", "interaction", "degree"):
                assert getattr(got, name).equal(getattr(expected, name)), name
                assert getattr(got, name).dtype == torch.int32, name


def test_the_adjacency_of_what_is_left_does_not_hold_the_one_before():
    graph = random_graph()
    source = Adjacency.from_pairs(graph.pairs, graph.num_users, graph.num_items)
    source.normalized()
    mask = torch.arange(graph.num_interactions) != 3
    left = source.select(mask, torch.tensor([int(graph.pairs[0, 3]), int(graph.pairs[1, 3]) + graph.num_users]))
    held = weakref.ref(source)
    del source
    gc.collect()
    assert held() is None
    expected = Adjacency.from_pairs(graph.pairs[:, mask], graph.num_users, graph.num_items)
    mask[:] = False  # what is left does not follow the mask
    assert left.normalized().values().equal(expected.normalized().values())
    assert pickle.loads(pickle.dumps(left)).interaction.equal(expected.interaction)
    assert left.interaction.equal(expected.interaction)


def test_a_copy_is_of_the_same_class_and_has_all_attributes():
    class Named(Adjacency):
        name = ""

    graph = random_graph()
    named = Named(*(getattr(graph.adjacency, part) for part in ("rowptr", "col", "interaction")))
    named.name = "mine"
    for twin in (copy.copy(named), copy.deepcopy(named)):
        assert type(twin) is Named
        assert twin.name == "mine"
        assert twin.interaction.equal(named.interaction)


def test_pairs_that_occur_twice_are_normalised_alike(monkeypatch):
    monkeypatch.setattr(module, "_MANY", 0)
    pairs = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 0, 1, 1]])
    for dropped in range(7):
        source, mask = Adjacency.from_pairs(pairs, 3, 2), torch.arange(7) != dropped
        source.normalized()
        left = source.select(mask, torch.stack([pairs[0, dropped], pairs[1, dropped] + 3]))
        expected = Adjacency.from_pairs(pairs[:, mask], 3, 2)
        assert left.normalized().values().equal(expected.normalized().values())
        assert left.col.equal(expected.col)


@given(graphs(min_interactions=1))
def test_places_are_those_of_the_entries(graph):
    adjacency = graph.adjacency
    row = torch.arange(graph.num_nodes).repeat_interleave(adjacency.degree)
    assert adjacency.places(row, adjacency.col.long()).equal(torch.arange(len(row)))
    before = adjacency.places(torch.arange(graph.num_nodes), torch.full((graph.num_nodes,), -1))
    assert before.equal(adjacency.rowptr[:-1].long())
    behind = adjacency.places(torch.arange(graph.num_nodes), torch.full((graph.num_nodes,), graph.num_nodes))
    assert behind.equal(adjacency.rowptr[1:].long())


@given(graphs())
def test_normalized_is_the_dense_normalisation(graph):
    got = graph.adjacency.normalized(torch.float64).to_dense()
    torch.testing.assert_close(got, dense_normalized(graph), **EXACT)
    assert torch.isfinite(got).all()


@given(graphs(min_interactions=1))
def test_normalized_is_gcn_norm_without_self_loops(graph):
    user, item = graph.pairs
    edges = to_undirected(torch.stack([user, item + graph.num_users]), num_nodes=graph.num_nodes)
    edges, weight = gcn_norm(edges, None, graph.num_nodes, add_self_loops=False, dtype=torch.float64)
    expected = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    expected[edges[0], edges[1]] = weight
    torch.testing.assert_close(graph.adjacency.normalized(torch.float64).to_dense(), expected, **EXACT)


def test_normalized_keeps_one_matrix_per_dtype():
    adjacency = random_graph().adjacency
    with torch.inference_mode():
        single = adjacency.normalized()
    assert single.dtype == torch.float32
    assert adjacency.normalized() is single
    assert adjacency.normalized(torch.float64).dtype == torch.float64
    x = torch.randn(13, 2, requires_grad=True)
    spmm(single, x).sum().backward()  # what was first asked for in inference mode still trains
    assert x.grad is not None


def test_repeated_pairs_count_as_often_as_they_occur():
    adjacency = Adjacency.from_pairs(torch.tensor([[0, 0, 1], [0, 0, 0]]), 2, 1)
    assert adjacency.degree.tolist() == [2, 1, 3]
    assert adjacency.neighbors(torch.tensor([0, 2])).tolist() == [2, 2, 0, 0, 1]


@given(graphs(min_interactions=1), st.data())
def test_entries_and_neighbors_read_rows_in_the_order_asked(graph, data):
    adjacency = graph.adjacency
    nodes = torch.tensor(data.draw(st.lists(st.integers(0, graph.num_nodes - 1), max_size=8)), dtype=torch.long)
    expected = [list(range(int(adjacency.rowptr[node]), int(adjacency.rowptr[node + 1]))) for node in nodes.tolist()]
    assert adjacency.entries(nodes).tolist() == list(chain(*expected))
    dense = dense_adjacency(graph)
    neighbors = [dense[node].nonzero().view(-1).tolist() for node in nodes.tolist()]
    assert adjacency.neighbors(nodes).tolist() == list(chain(*neighbors))
    assert adjacency.neighbors(nodes).dtype == torch.long


def test_adjacency_without_interactions():
    adjacency = Adjacency.from_pairs(torch.empty(2, 0, dtype=torch.long), 2, 3)
    assert adjacency.degree.tolist() == [0] * 5
    assert adjacency.neighbors(torch.arange(5)).numel() == 0
    assert adjacency.entries(torch.arange(0)).numel() == 0
    assert torch.equal(spmm(adjacency.normalized(), torch.ones(5, 2)), torch.zeros(5, 2))


def test_positions_are_those_of_a_loop_whatever_was_asked_before():
    adjacency = Adjacency.from_pairs(torch.tensor([[0, 1, 2], [0, 1, 1]]), 3, 4)
    generator = torch.Generator().manual_seed(0)
    for size in (7, 1, 4, 3):
        nodes = torch.randperm(7, generator=generator)[:size]
        values = nodes[torch.randint(size, (9,), generator=generator)]
        expected = [nodes.tolist().index(value) for value in values.tolist()]
        assert adjacency.positions(nodes, values).tolist() == expected
        assert adjacency.positions(nodes.int(), values.int()).tolist() == expected
        with torch.inference_mode():
            assert adjacency.positions(nodes, values).tolist() == expected


# ---- sampled products

PATTERNS = {
    "distinct": ([0, 2, 1, 4], [3, 0, 2, 1], (5, 6)),
    "repeated": ([2, 0, 2, 2, 4, 0], [1, 3, 1, 0, 5, 3], (5, 6)),
    "more pairs than cells": ([0, 1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 1, 1], (2, 2)),
    "one column": ([3, 0, 3], [0, 0, 0], (5, 1)),
    "empty": ([], [], (3, 4)),
}


@pytest.fixture(params=list(PATTERNS))
def pattern(request):
    rows, cols, size = PATTERNS[request.param]
    return PairPattern(torch.tensor(rows, dtype=torch.long), torch.tensor(cols, dtype=torch.long), size)


def naive_dots(pattern, a, b):
    return (
        torch.stack([a[r] @ b[c] for r, c in zip(pattern.rows, pattern.cols)]) if len(pattern.rows) else a.new_zeros(0)
    )


def naive_matmul(pattern, values, b):
    out = [b.new_zeros(b.size(1)) for _ in range(pattern.size[0])]
    for value, r, c in zip(values, pattern.rows.tolist(), pattern.cols.tolist()):
        out[r] = out[r] + value * b[c]
    return torch.stack(out)


def operands(pattern, dim=3):
    return randn(pattern.size[0], dim), randn(pattern.size[1], dim), randn(pattern.rows.numel())


def test_dots_and_matmul_are_gathers(pattern):
    a, b, values = operands(pattern)
    torch.testing.assert_close(pattern.dots(a, b), naive_dots(pattern, a, b), **EXACT)
    torch.testing.assert_close(pattern.matmul(values, b), naive_matmul(pattern, values, b), **EXACT)
    torch.testing.assert_close(pattern.transposed.dots(b, a), naive_dots(pattern, a, b), **EXACT)
    torch.testing.assert_close(
        pattern.transposed.matmul(values, a), naive_matmul(pattern.transposed, values, a), **EXACT
    )
    assert pattern.transposed.transposed is pattern


@pytest.mark.parametrize("dense", [True, False])
def test_both_products_are_gathers(pattern, dense, monkeypatch):
    if pattern.rows.numel() and pattern.rows.numel() <= pattern.size[0] * pattern.size[1]:
        monkeypatch.setattr(PairPattern, "_dense", dense)  # sampled products take no more entries than there are cells
    a, b, values = operands(pattern)
    wanted = naive_matmul(pattern, values, b), naive_matmul(pattern.transposed, values, a)
    with torch.no_grad():
        found = pattern.both(values, a, b)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    torch.testing.assert_close(pattern.dots(a, b), naive_dots(pattern, a, b), **EXACT)
    assert torch.autograd.gradcheck(pattern.both, [part.requires_grad_() for part in (values, a, b)])


def test_products_are_dense_where_pairs_are_more_than_half_the_cells():
    for num, dense in ((4, False), (5, True)):
        zeros = torch.zeros(num, dtype=torch.long)
        assert PairPattern(zeros, zeros, (2, 4))._dense == dense
        assert (PairPattern(zeros, zeros, (2, 4))._sums(torch.ones(num)) is not None) == dense


def test_dots_takes_strided_rows(pattern):
    a, b, values = operands(pattern, dim=6)
    a, b = a[:, ::2], b.t().contiguous().t()[:, 1::2]
    torch.testing.assert_close(pattern.dots(a, b), naive_dots(pattern, a, b), **EXACT)
    torch.testing.assert_close(pattern.matmul(values, b), naive_matmul(pattern, values, b), **EXACT)


@given(st.data())
def test_dots_of_any_pairs(data):
    size = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    cell = st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1))
    pairs = torch.tensor(data.draw(st.lists(cell, max_size=20)), dtype=torch.long).view(-1, 2)
    pattern = PairPattern(pairs[:, 0], pairs[:, 1], size)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    a, b, values = operands(pattern)
    torch.testing.assert_close(pattern.dots(a, b), naive_dots(pattern, a, b), **EXACT)
    torch.testing.assert_close(pattern.matmul(values, b), naive_matmul(pattern, values, b), **EXACT)


@pytest.mark.parametrize("kind", ["dots", "matmul"])
def test_first_and_second_derivatives_in_every_argument(pattern, kind):
    a, b, values = operands(pattern, dim=2)
    inputs = (a, b) if kind == "dots" else (values, b)
    inputs = tuple(x.requires_grad_() for x in inputs)
    function = getattr(pattern, kind)
    if values.numel() == 0:  # gradcheck refuses outputs without an element
        grads = torch.autograd.grad(function(*inputs).sum(), inputs)
        assert all(torch.equal(g, torch.zeros_like(g)) for g in grads)
        return
    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True)
    for k in range(2):  # one argument alone
        rest = tuple(x.detach() if i != k else x for i, x in enumerate(inputs))
        assert gradcheck(function, rest, check_forward_ad=True)


@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("kind", ["dots", "matmul"])
def test_forward_mode_in_each_argument(pattern, kind, which):
    a, b, values = operands(pattern)
    inputs = (a, b) if kind == "dots" else (values, b)
    tangents = tuple(torch.randn_like(x) for x in inputs)
    naive = naive_dots if kind == "dots" else naive_matmul
    expected = sum(
        naive(pattern, *(tangents[j] if j == k else inputs[j] for j in range(2))) for k in range(2) if which[k]
    )
    with dual_level():
        duals = [make_dual(x, t) if w else x for x, t, w in zip(inputs, tangents, which)]
        tangent = unpack_dual(getattr(pattern, kind)(*duals)).tangent
    torch.testing.assert_close(tangent, expected, **EXACT)


def test_dots_under_functional_transforms(pattern):
    a, b, _ = operands(pattern)
    t = torch.randn_like(a)

    def f(dots, a):
        return (dots(a, b).sin() * dots(a, b)).sum()

    def hvp(dots):
        return torch.func.jvp(torch.func.grad(lambda a: f(dots, a)), (a,), (t,))[1]

    def naive(a, b):
        return (a[pattern.rows] * b[pattern.cols]).sum(-1)

    torch.testing.assert_close(hvp(pattern.dots), hvp(naive), **EXACT)


def test_the_patterns_of_one_pair_of_tables_are_adjoint(pattern):
    a, b, values = operands(pattern)
    # <dots(a, b), y> = <a, matmul(y, b)> = <b, transposed.matmul(y, a)>
    left = pattern.dots(a, b) @ values
    torch.testing.assert_close((a * pattern.matmul(values, b)).sum(), left, **EXACT)
    torch.testing.assert_close((b * pattern.transposed.matmul(values, a)).sum(), left, **EXACT)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_cuda(pattern):
    a, b, values = operands(pattern)
    there = PairPattern(pattern.rows.cuda(), pattern.cols.cuda(), pattern.size)
    torch.testing.assert_close(there.dots(a.cuda(), b.cuda()).cpu(), naive_dots(pattern, a, b), **EXACT)
    torch.testing.assert_close(there.matmul(values.cuda(), b.cuda()).cpu(), naive_matmul(pattern, values, b), **EXACT)
    back = there.both(values.cuda(), a.cuda(), b.cuda())[1].cpu()
    torch.testing.assert_close(back, naive_matmul(pattern.transposed, values, a), **EXACT)
    graph = random_graph()
    x = randn(13, 4)
    moved = Adjacency.from_pairs(graph.pairs.cuda(), graph.num_users, graph.num_items)
    got = spmm(moved.normalized(torch.float64), x.cuda()).cpu()
    torch.testing.assert_close(got, dense_normalized(graph) @ x, **EXACT)


def test_patterns_end_with_their_last_use_without_the_garbage_collector():
    def used():
        pattern = PairPattern(torch.tensor([1, 0, 1]), torch.tensor([0, 1, 2]), (2, 3))
        a, b = (part.requires_grad_() for part in operands(pattern)[:2])
        pattern.dots(a, b).sum().backward()
        return weakref.ref(pattern), weakref.ref(pattern.transposed), pattern.transposed.transposed is pattern

    gc.disable()
    try:
        first, second, same = used()
        assert same
        assert first() is second() is None
    finally:
        gc.enable()


def test_a_transpose_outlives_its_pattern():
    other = PairPattern(torch.tensor([1, 0, 1]), torch.tensor([0, 1, 2]), (2, 3)).transposed
    assert other.transposed.rows.tolist() == [1, 0, 1]
    assert other.transposed.transposed is other
