"""Moving scores to targets: against dense algebra, closed forms and brute force."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from toys import Wrapped, dense_adjacency, factors, light_gcn, random_graph, two_tower

from graphunlearn.data import InteractionGraph
from graphunlearn.func import PairPattern
from graphunlearn.nn import SGL, LinearForm, SimGCL, encode, linear_form, score
from graphunlearn.nn.tables import initial_table, write_table
from graphunlearn.operators.shared.steer import (
    _Differentiable,
    _dual,
    _length,
    _Linear,
    _Local,
    _metric,
    _two,
    own_weight,
    steer,
)


def case(seed=0, layers=2, num=8):
    graph = random_graph(12, 10, 60, seed=seed, values=False)
    model = light_gcn(graph, dim=4, layers=layers, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(120, generator=generator)[:num]
    pairs = torch.stack([cells // 10, cells % 10])
    with torch.no_grad():
        target = score(encode(model, graph), pairs) + torch.randn(num, dtype=torch.float64, generator=generator)
    return graph, model, pairs, target


def error(model, graph, pairs, target):
    with torch.no_grad():
        return float((score(encode(model, graph), pairs) - target).abs().mean())


def test_scores_reach_their_targets():
    graph, model, pairs, target = case()
    log = steer(model, graph, pairs, target, rounds=12, damping=1e-6)
    assert log["errors"][-1] == pytest.approx(error(model, graph, pairs, target))
    assert log["errors"][-1] < 0.02 * log["errors"][0]


@pytest.mark.parametrize("kind", ["wrapped", "two-tower", "simgcl", "sgl", "mf"])
def test_any_model_with_reachable_rows_is_served(kind):
    graph, _, pairs, _ = case()
    torch.manual_seed(0)
    made = {
        "wrapped": lambda: Wrapped(light_gcn(graph, dim=4)),
        "two-tower": lambda: two_tower(graph, dim=4),
        "simgcl": lambda: SimGCL(graph.num_nodes, 4, 2).double(),
        "sgl": lambda: SGL(graph.num_nodes, 4, 2).double(),
        "mf": lambda: factors(graph, dim=4),
    }[kind]()
    if kind in ("simgcl", "sgl"):
        torch.nn.init.normal_(made.embedding.weight)
    with torch.no_grad():
        target = score(encode(made, graph), pairs) + 0.3 * torch.randn(8, dtype=torch.float64)
    before = error(made, graph, pairs, target)
    steer(made, graph, pairs, target, rounds=10, damping=1e-4)
    assert error(made, graph, pairs, target) < 0.3 * before


def test_by_default_there_are_two_rounds_with_little_damping():
    graph, model, pairs, target = case()
    other = copy.deepcopy(model)
    log = steer(model, graph, pairs, target)
    assert log == steer(other, graph, pairs, target, rounds=2, floor=0.3, damping=0.01)
    assert torch.equal(model.embedding.weight, other.embedding.weight)


def test_no_pairs_change_nothing_bit_for_bit():
    graph, model, pairs, target = case()
    before = initial_table(model, graph)
    assert steer(model, graph, pairs[:, :0], target[:0]) == {"errors": [], "lengths": []}
    assert torch.equal(initial_table(model, graph), before)


def test_only_the_ends_of_the_pairs_move():
    graph, model, pairs, target = case()
    before = initial_table(model, graph)
    steer(model, graph, pairs, target)
    moved = (initial_table(model, graph) != before).any(1).nonzero().view(-1)
    assert set(moved.tolist()) == set(pairs[0].tolist()) | {12 + i for i in pairs[1].tolist()}


def two_components():
    """Users 0-5 and items 0-4, and apart from them users 6-11 and items 5-9."""
    one, two = random_graph(6, 5, 18, seed=1, values=False), random_graph(6, 5, 18, seed=2, values=False)
    pairs = torch.cat([one.pairs, two.pairs + torch.tensor([[6], [5]])], 1)
    return InteractionGraph.from_edges(pairs, 12, 10)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_component_without_pairs_stays_as_it_is_bit_for_bit(wrap):
    graph = two_components()
    model = light_gcn(graph, dim=4)
    model = Wrapped(model) if wrap else model
    with torch.no_grad():
        before = encode(model, graph)
        target = score(before, graph.pairs[:, :3]) - 2
    assert bool((graph.pairs[0, :3] < 6).all())
    steer(model, graph, graph.pairs[:, :3], target)
    with torch.no_grad():
        after = encode(model, graph)
    assert torch.equal(before.queries[6:], after.queries[6:]) and torch.equal(before.items[5:], after.items[5:])
    assert not torch.equal(before.queries[:6], after.queries[:6])


def test_permuting_the_nodes_permutes_the_result():
    graph, model, pairs, target = case()
    users, items = torch.randperm(12), torch.randperm(10)
    turned = InteractionGraph.from_edges(torch.stack([users[graph.pairs[0]], items[graph.pairs[1]]]), 12, 10)
    where = torch.cat([users, 12 + items])
    other = copy.deepcopy(model)
    table = torch.empty_like(model.embedding.weight)
    table[where] = model.embedding.weight.detach()
    write_table(other, turned, table)
    steer(model, graph, pairs, target)
    steer(other, turned, torch.stack([users[pairs[0]], items[pairs[1]]]), target)
    torch.testing.assert_close(other.embedding.weight[where], model.embedding.weight)


def dense_form(model, graph):
    """The propagation as a dense matrix."""
    dense = dense_adjacency(graph)
    scale = dense.sum(1).clamp(min=1).rsqrt()
    matrix, power = scale[:, None] * dense * scale, torch.eye(len(dense), dtype=torch.float64)
    total = torch.zeros_like(matrix)
    for weight in model.alpha.tolist():
        total += weight * power
        power = matrix @ power
    return total


def test_the_own_share_is_the_diagonal_of_the_propagation():
    for layers in (1, 2, 3):
        graph, model, _, _ = case(layers=layers)
        form = linear_form(model, graph)
        torch.testing.assert_close(own_weight(form, initial_table(model, graph)), dense_form(model, graph).diagonal())
    plain = LinearForm("x", (0.5,), None)
    assert own_weight(plain, torch.zeros(3, 2)).tolist() == [0.5, 0.5, 0.5]


def test_the_metric_is_the_inverse_of_mean_outer_products():
    rows = torch.randn(9, 3, dtype=torch.float64)
    users = sum(torch.outer(r, r) for r in rows[:5]) / 5
    items = sum(torch.outer(r, r) for r in rows[5:]) / 4
    mean = (users + items) / 2
    expected = torch.linalg.inv(mean / (mean.trace() / 3) + 0.3 * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(_metric(rows, 5, 0.3), expected)


def test_the_direction_of_a_round_is_the_least_change_that_reaches_the_targets():
    """One round in z, without propagation: min tr(dZ' W dZ M^-1) such that A dZ = r, by the dense KKT conditions."""
    graph, _, pairs, target = case()
    model = factors(graph, dim=4)
    table, num = model.embedding.weight.detach(), pairs.size(1)
    with torch.no_grad():
        residual = target - score(encode(model, graph), pairs)
    weight = 1.0 + graph.adjacency.degree.double()
    space, pattern = _Local(linear_form(model, graph), table, weight, table), PairPattern(pairs[0], pairs[1], (12, 10))
    metric = _metric(table, 12, 0.3)
    rows, images = _two(table, [12, 10]), _two(table @ metric, [12, 10])
    dual = _dual(pattern, rows, images, space, residual, 1e-9)
    wanted = torch.cat([pattern.matmul(dual, images[1]), pattern.transposed.matmul(dual, images[0])])
    got = space.direction(wanted)
    jacobian = torch.zeros(num, 22, 4, dtype=torch.float64)
    for k, (u, i) in enumerate(pairs.t().tolist()):
        jacobian[k, u] += table[12 + i]
        jacobian[k, 12 + i] += table[u]
    inverse = torch.kron(torch.diag(1 / weight), metric.contiguous())  # of the quadratic form, rows by columns
    flat = jacobian.flatten(1)
    kernel = flat @ inverse @ flat.t()
    expected = (inverse @ flat.t() @ torch.linalg.solve(kernel, residual)).view(22, 4)
    torch.testing.assert_close(got, expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))  # CG stops at 5 %
    torch.testing.assert_close(flat @ got.flatten(), residual, rtol=0.1, atol=0.06 * float(residual.norm()))


def test_the_catalogue_changes_less_than_with_the_plain_metric():
    changes = {}
    for floor in (0.1, 1e6):  # a huge floor makes the metric the identity
        total = 0.0
        for seed in range(6):
            graph, model, pairs, target = case(seed, num=4)
            with torch.no_grad():
                before = torch.mm(*(e if k == 0 else e.t() for k, e in enumerate(encode(model, graph)[:2])))
                steer(model, graph, pairs, target, floor=floor, rounds=4)
                after = torch.mm(*(e if k == 0 else e.t() for k, e in enumerate(encode(model, graph)[:2])))
            total += float((after - before).square().mean())
        changes[floor] = total
    assert changes[0.1] < changes[1e6]


def test_derivatives_agree_with_the_dense_propagation():
    graph, model, _, _ = case()
    table, weight = initial_table(model, graph), 1.0 + graph.adjacency.degree.double()
    metric = torch.eye(4, dtype=torch.float64)
    space, dense = _Differentiable(Wrapped(model), graph, table, weight, metric), dense_form(model, graph)
    change = torch.randn_like(table)
    torch.testing.assert_close(space.effect(change), dense @ change)
    torch.testing.assert_close(space.direction(change), (dense.t() @ change) / weight[:, None])
    exact = (dense.square() / weight).sum(1)  # the probes estimate it
    assert float(((space.gain - exact) / exact).abs().mean()) < 0.4


def without_layer_0():
    graph, _, pairs, target = case()
    return graph, light_gcn(graph, dim=4, alpha=torch.tensor([0.0, 0.5, 0.5]).double()), pairs, target


def test_without_layer_0_the_maps_are_those_of_the_dense_propagation():
    graph, model, _, _ = without_layer_0()
    table, weight = initial_table(model, graph), 1.0 + graph.adjacency.degree.double()
    space, dense = _Linear(linear_form(model, graph), table, weight, table), dense_form(model, graph)
    change = torch.randn_like(table)
    torch.testing.assert_close(space.effect(change), dense @ change)
    torch.testing.assert_close(space.direction(change), (dense.t() @ change) / weight[:, None])
    torch.testing.assert_close(space.response(change), dense @ torch.diag(1 / weight) @ dense.t() @ change)


def test_scores_reach_their_targets_without_layer_0():
    graph, model, pairs, target = without_layer_0()
    before = error(model, graph, pairs, target)
    log = steer(model, graph, pairs, target, rounds=12, damping=1e-6)
    assert log["errors"][-1] == pytest.approx(error(model, graph, pairs, target))
    assert log["errors"][-1] < 0.1 * before


@pytest.mark.parametrize("dim", [1, 16, 32, 33, 80])
def test_the_estimate_of_a_diagonal_is_near_it_whatever_the_width(dim):
    graph = random_graph(12, 10, 60, values=False)
    model = light_gcn(graph, dim=dim, alpha=torch.tensor([0.0, 0.5, 0.5]).double())
    table, weight = initial_table(model, graph), 1.0 + graph.adjacency.degree.double()
    space = _Linear(linear_form(model, graph), table, weight, table)
    exact = (dense_form(model, graph).square() / weight).sum(1)
    assert space.gain.shape == exact.shape
    assert float(((space.gain - exact) / exact).abs().mean()) < 0.4


def kernel_of(pattern, rows, images, gain):
    """The matrix of the dual problem, pair by pair, where the response is diagonal."""
    num, (users, items) = len(pattern.rows), rows
    kernel = torch.zeros(num, num, dtype=torch.float64)
    for a, (u, i) in enumerate(zip(pattern.rows.tolist(), pattern.cols.tolist())):
        for b, (v, j) in enumerate(zip(pattern.rows.tolist(), pattern.cols.tolist())):
            kernel[a, b] += gain[u] * (items[i] @ images[1][j]) if u == v else 0.0
            kernel[a, b] += gain[len(users) + i] * (users[u] @ images[0][v]) if i == j else 0.0
    return kernel


def test_the_multipliers_solve_the_damped_dual_problem_with_embeddings_of_any_size():
    """Also with a pair of two zero embeddings, which no change of them can move to first order."""
    graph, model, _, _ = case()
    pairs = torch.tensor([[0, 0, 1, 2, 3, 11], [0, 1, 1, 2, 3, 9]])
    table, weight = initial_table(model, graph), 1.0 + graph.adjacency.degree.double()
    space = _Local(linear_form(model, graph), table, weight, table)
    scale = torch.logspace(0, -3, 12, dtype=torch.float64)
    scale[11] = 0
    rows = table[:12] * scale[:, None], table[12:] * scale[[0, 1, 2, 3, 4, 5, 6, 7, 8, 11], None]
    images = rows[0] @ _metric(table, 12, 0.3), rows[1] @ _metric(table, 12, 0.3)
    pattern, residual = PairPattern(pairs[0], pairs[1], (12, 10)), torch.randn(6, dtype=torch.float64)
    kernel = kernel_of(pattern, rows, images, space.gain)
    ridge = 0.01 * kernel.diagonal().mean()
    dual = _dual(pattern, rows, images, space, residual, 0.01)
    assert torch.isfinite(dual).all()
    assert float((kernel @ dual + ridge * dual - residual).norm() / residual.norm()) <= 0.05
    assert float(dual[5] / (residual[5] / ridge)) == pytest.approx(1, abs=0.15)


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_length_is_the_best_near_one(seed):
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(12, dtype=torch.float64, generator=generator)
    first = residual + 0.3 * torch.randn(12, dtype=torch.float64, generator=generator)
    second = 0.1 * torch.randn(12, dtype=torch.float64, generator=generator)
    length = _length(residual, first, second)

    def loss(a):
        return float((residual - a * first - a * a * second).square().sum())

    best = minimize_scalar(loss, bounds=(0.001, 2.0), method="bounded").x
    assert loss(length) <= loss(best) * 1.02 + 1e-9


def test_the_length_is_the_minimum_even_where_products_of_two_changes_are_large():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        first, second = (torch.randn(12, dtype=torch.float64, generator=generator).abs() for _ in range(2))
        length = float(0.3 + 1.5 * torch.rand(1, generator=generator))
        assert _length(length * first + length**2 * second, first, second) == pytest.approx(length, abs=1e-3)


def test_the_length_stays_between_a_thousandth_and_two():
    first, nothing = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert _length(5 * first, first, nothing) == 2.0
    assert _length(-5 * first, first, nothing) == 0.001


def test_a_step_without_effect_keeps_its_length():
    nothing = torch.zeros(3)
    assert _length(torch.ones(3), nothing, nothing) == 1.0


def test_rows_with_more_interactions_move_less():
    """One pair, no propagation: each end moves along the other end's row by the inverse metric, over its weight."""
    pairs = torch.tensor([[0, i] for i in range(9)] + [[1, 0], [2, 1], [2, 2]]).t()  # user 0 has nine items
    graph = InteractionGraph.from_edges(pairs, 4, 10)
    model = factors(graph, dim=4, seed=2)
    before = initial_table(model, graph)
    mean = sum(torch.outer(r, r) for r in before[:4]) / 4 + sum(torch.outer(r, r) for r in before[4:]) / 10
    mean = mean / mean.trace() * 4
    metric = torch.linalg.inv(mean + 0.3 * torch.eye(4, dtype=torch.float64))
    degree = {0: 9, 1: 1, 3: 0}
    for user, item, of_item in ((0, 9, 0), (1, 2, 2), (3, 0, 2)):
        moved = copy.deepcopy(model)
        steer(moved, graph, torch.tensor([[user], [item]]), torch.tensor([2.5], dtype=torch.float64), rounds=1)
        change = initial_table(moved, graph) - before
        per_user = change[user] * (1 + degree[user]) / (before[4 + item] @ metric)
        per_item = change[4 + item] * (1 + of_item) / (before[user] @ metric)
        torch.testing.assert_close(per_user, per_user[:1].expand(4))
        torch.testing.assert_close(per_item, per_user)  # one multiplier for both ends
        assert float(per_user[0].abs()) > 1e-3
