"""GNNDelete against dense least squares where it is linear, and against naive steps elsewhere."""

import pytest
import torch
from toys import dense_normalized, factors, light_gcn, naive_encode, random_graph, two_tower

from graphunlearn.data import ForgetRequest
from graphunlearn.nn import encode
from graphunlearn.operators import GNNDelete
from graphunlearn.operators.published.gnndelete import _random_pairs


@pytest.fixture
def case():
    graph = random_graph(12, 10, 40, seed=1, values=False)
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5]])
    return graph, request


def ball(graph, nodes, hops):
    """All nodes within some hops, edge by edge."""
    edges = [(u, i + graph.num_users) for u, i in graph.pairs.t().tolist()]
    found = set(nodes)
    for _ in range(hops):
        found |= {b for a, b in edges if a in found} | {a for a, b in edges if b in found}
    return found


def naive_loss(rows, before, graph, request, hops, alpha, seed):
    """Both terms, one pair and one node at a time."""
    pairs = [(u, i + graph.num_users) for u, i in graph.pairs[:, request.mask(graph)].t().tolist()]
    random = [(p, q + graph.num_users) for p, q in _random_pairs(graph, len(pairs), seed).t().tolist()]
    first = sum(
        (rows[a] - before[p]).square().sum() + (rows[b] - before[q]).square().sum()
        for (a, b), (p, q) in zip(pairs, random, strict=True)
    )
    ends = {node for pair in pairs for node in pair}
    others = ball(graph, ends, hops) - ends
    second = sum((rows[node] - before[node]).square().sum() for node in others)
    return alpha * first / len(pairs) + (1 - alpha) * second / len(others)


@pytest.mark.parametrize("alpha", [0.2, 0.5])
@pytest.mark.parametrize(("make", "hops"), [(light_gcn, 2), (factors, 1)], ids=["lightgcn", "mf"])
def test_the_matrix_is_the_dense_least_squares_solution(case, make, hops, alpha):
    graph, request = case
    model, (retained, _) = make(graph), graph.split(request)
    before = torch.cat(encode(model, graph)[:2]).detach()
    table, weights = model.embedding.weight.detach(), model.alpha.tolist() if make is light_gcn else [1.0]
    ends = set(graph.pairs[0, request.mask(graph)].tolist())
    ends |= {i + graph.num_users for i in graph.pairs[1, request.mask(graph)].tolist()}
    near = sorted(ball(graph, ends, hops))
    matrix = dense_normalized(retained)

    def moved(flat):
        rows = table.clone()
        rows[near] = table[near] @ flat.view(3, 3)
        return rows

    def loss(flat):
        rows = torch.cat(naive_encode(moved(flat), weights, matrix, graph.num_users))
        return naive_loss(rows, before, graph, request, hops, alpha, 4)

    identity = torch.eye(3, dtype=torch.float64).flatten()
    gradient = torch.autograd.functional.jacobian(loss, identity)
    hessian = torch.autograd.functional.hessian(loss, identity)
    best = identity - torch.linalg.solve(hessian, gradient)  # the loss is quadratic
    result = GNNDelete(alpha=alpha, seed=4).unlearn(model, graph, request)
    expected = moved(best)
    got = result.model.embedding.weight.detach()
    assert float((got - expected).norm() / expected.norm()) < 1e-8
    assert result.log["loss"] == [pytest.approx(float(loss(identity))), pytest.approx(float(loss(best)))]
    assert result.log["changed_rows"] == len(near)
    wrong_sign = 2 * identity - best
    assert loss(wrong_sign) > loss(identity) > loss(best)


def test_steps_are_adam_from_the_identity(case):
    graph, request = case
    model = two_tower(graph)
    before = torch.cat(encode(model, graph)[:2]).detach()
    result = GNNDelete(steps=4, lr=0.05, seed=2).unlearn(model, graph, request)
    matrix = torch.eye(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([matrix], lr=0.05)
    ends = set(graph.pairs[0, request.mask(graph)].tolist())
    ends |= {i + graph.num_users for i in graph.pairs[1, request.mask(graph)].tolist()}
    near = sorted(ball(graph, ends, 1))
    users, items = model.user_table.weight.detach(), model.item_table.weight.detach()
    for _ in range(4):
        table = torch.cat([users, items])
        rows = [row @ matrix if node in near else row for node, row in enumerate(table)]
        u, i = torch.stack(rows).split([graph.num_users, graph.num_items])
        final = torch.cat([u + torch.tanh(model.tower(u)), i])
        optimizer.zero_grad()
        naive_loss(final, before, graph, request, 1, 0.5, 2).backward()
        optimizer.step()
    table = torch.cat([users, items])
    table[near] = table[near] @ matrix.detach()
    got = torch.cat([result.model.user_table.weight, result.model.item_table.weight]).detach()
    torch.testing.assert_close(got, table, rtol=1e-8, atol=1e-10)
    assert torch.equal(result.model.tower.weight, model.tower.weight)


def test_as_published_approaches_the_exact_matrix(case):
    graph, request = case
    model = light_gcn(graph)
    exact = GNNDelete().unlearn(model, graph, request)
    stepped = GNNDelete.as_published(steps=3000, lr=0.02).unlearn(model, graph, request)
    assert stepped.log["loss"][1] == pytest.approx(exact.log["loss"][1], rel=1e-6)
    torch.testing.assert_close(
        stepped.model.embedding.weight, exact.model.embedding.weight, rtol=1e-3, atol=1e-3, check_dtype=False
    )


def test_random_pairs_have_no_interaction(case):
    graph, _ = case
    known = set(zip(*graph.pairs.tolist(), strict=True))
    drawn = _random_pairs(graph, 200, 3)
    assert not known & set(zip(*drawn.tolist(), strict=True))
    assert len(drawn[0].unique()) == graph.num_users
    assert len(drawn[1].unique()) == graph.num_items


def test_rows_out_of_reach_keep_their_embeddings(case):
    graph, _ = case
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0]])
    model = factors(graph)
    after = GNNDelete().unlearn(model, graph, request).model
    near = ball(graph, {int(graph.pairs[0, 0]), int(graph.pairs[1, 0]) + graph.num_users}, 1)
    changed = (after.embedding.weight != model.embedding.weight).any(1).nonzero().flatten().tolist()
    assert set(changed) == near
    assert len(near) < graph.num_nodes


def test_what_cannot_be_served_is_refused(case):
    graph, request = case
    with pytest.raises(ValueError, match=r"'solver' must be 'auto' or 'adam' .*\(got 'exact' for TwoTower\)"):
        GNNDelete(solver="exact").unlearn(two_tower(graph), graph, request)
    for options, message in (
        ({"alpha": 1.5}, "'alpha' must be between 0 and 1"),
        ({"solver": "cg"}, "'solver' must be one of auto, exact, adam"),
        ({"steps": 0}, "'steps' must be a positive integer"),
        ({"lr": 0.0}, "'lr' must be positive and finite"),
    ):
        with pytest.raises(ValueError, match=message):
            GNNDelete(**options)
