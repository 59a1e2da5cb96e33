"""Pulling embeddings back through the propagation, against dense least squares."""

import torch
from toys import dense_normalized, factors, light_gcn, random_graph

from graphunlearn.nn import linear_form
from graphunlearn.operators.shared.pull_back import pull_back


def test_it_is_the_damped_least_squares_solution():
    graph = random_graph(values=False)
    model = light_gcn(graph)
    form, table = linear_form(model, graph), model.embedding.weight.detach()
    matrix, power, dense = dense_normalized(graph), torch.eye(graph.num_nodes, dtype=torch.float64), 0
    for alpha in form.alpha:
        dense, power = dense + alpha * power, matrix @ power
    target = torch.randn_like(table)
    for damping in (1e-4, 0.5):
        expected = table + torch.linalg.solve(
            dense @ dense + damping * torch.eye(graph.num_nodes, dtype=torch.float64), dense @ (target - dense @ table)
        )
        got, left = pull_back(form, table, target, damping=damping)
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)
        norms = (target - dense @ expected).norm() / (target - dense @ table).norm()
        assert abs(left - float(norms)) < 1e-8
    reached, left = pull_back(form, table, dense @ target, damping=0.0)
    torch.testing.assert_close(reached, target, rtol=1e-7, atol=1e-7)
    assert left < 1e-9


def test_without_propagation_it_is_exact():
    graph = random_graph(values=False)
    model = factors(graph)
    target = torch.randn_like(model.embedding.weight)
    got, left = pull_back(linear_form(model, graph), model.embedding.weight.detach(), target)
    torch.testing.assert_close(got, target)
    assert left == 0
    assert torch.equal(pull_back(linear_form(model, graph), target, target)[0], target)
