"""Blocks of Newton steps against alternating least squares, one embedding at a time, and against its limit."""

from dataclasses import replace

import pytest
import torch
from toys import dense_normalized, factors, light_gcn, naive_encode, parameters, random_graph, two_tower

from graphunlearn.data import ForgetRequest
from graphunlearn.nn import BPR, InBatchSoftmax, SquaredError, encode, risk_of
from graphunlearn.operators import AltEraser

LOSS = SquaredError(weight_decay=0.3)


def least_squares(graph, table, nodes, tilt=None):
    """One pass over some nodes of alternating least squares, users before items, in place."""
    edges = [(u, i + graph.num_users, y) for (u, i), y in zip(graph.pairs.t().tolist(), graph.rating.tolist())]
    for node in sorted(nodes):
        own = [(b if a == node else a, y) for a, b, y in edges if node in (a, b)]
        other = table[[n for n, _ in own]]
        matrix = other.t() @ other + 0.3 * len(own) * torch.eye(table.size(1), dtype=torch.float64)
        rhs = other.t() @ torch.tensor([y for _, y in own], dtype=torch.float64)
        table[node] = torch.linalg.solve(matrix, rhs if tilt is None else rhs + tilt[node])


@pytest.fixture
def trained():
    """A factorisation at a stationary point, by many passes of least squares; some ratings are forgotten."""
    graph = random_graph(8, 7, 40, seed=2)
    model = factors(graph, dim=2)
    with torch.no_grad():
        for _ in range(600):
            least_squares(graph, model.embedding.weight, range(graph.num_nodes))
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    return model, graph, request


@pytest.mark.parametrize("scope", ["touched", "all"])
@pytest.mark.parametrize("sweeps", [1, 2])
def test_sweeps_are_alternating_least_squares(trained, scope, sweeps):
    model, graph, request = trained
    retained, _ = graph.split(request)
    touched = (graph.degree != retained.degree).nonzero().flatten().tolist()
    expected = model.embedding.weight.detach().clone()
    for _ in range(sweeps):
        least_squares(retained, expected, touched if scope == "touched" else range(graph.num_nodes))
    result = AltEraser(objective=LOSS, sweeps=sweeps, damping=0.0, scope=scope).unlearn(model, graph, request)
    torch.testing.assert_close(result.model.embedding.weight.detach(), expected, rtol=1e-8, atol=1e-9)
    assert (result.model.embedding.weight - model.embedding.weight).abs().max() > 1e-2


def test_many_sweeps_are_retraining_from_the_same_start(trained):
    model, graph, request = trained
    retained, _ = graph.split(request)
    retrained = model.embedding.weight.detach().clone()
    for _ in range(600):
        least_squares(retained, retrained, range(graph.num_nodes))
    result = AltEraser(objective=LOSS, sweeps=600, damping=0.0, scope="all").unlearn(model, graph, request)
    got = parameters(result.model)
    assert float((got - retrained.flatten()).norm() / retrained.norm()) < 1e-8
    assert float(risk_of(result.model, retained, LOSS).gradient(got).norm()) < 1e-7
    assert result.log["gradient"][-1] < 1e-7 < result.log["gradient"][0]


def test_a_model_that_was_stopped_early_keeps_its_remaining_gradient(trained):
    _, graph, request = trained
    model, (retained, _) = factors(graph, dim=2, seed=4), graph.split(request)
    tilt = risk_of(model, graph, LOSS).gradient(parameters(model)).view(-1, 2)
    expected = model.embedding.weight.detach().clone()
    for _ in range(2):
        least_squares(retained, expected, range(graph.num_nodes), tilt)
    result = AltEraser(objective=LOSS, sweeps=2, damping=0.0, scope="all").unlearn(model, graph, request)
    torch.testing.assert_close(result.model.embedding.weight.detach(), expected, rtol=1e-8, atol=1e-9)


def test_steps_of_other_losses_are_dense_newton_steps():
    graph = random_graph(values=False)
    model, loss = factors(graph), BPR(weight_decay=0.1)
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    retained, _ = graph.split(request)
    result = AltEraser(objective=loss, sweeps=1, damping=0.2).unlearn(model, graph, request)
    kept, redrawn = loss.samples(graph).select(~request.mask(graph)), loss.samples(retained)
    mask = torch.isin(redrawn.users, graph.pairs[0, request.mask(graph)])
    kept.negatives[mask] = redrawn.negatives[mask]
    risk, theta = risk_of(model, retained, loss, kept), parameters(model).clone()
    tilt = risk_of(model, graph, loss).gradient(theta)
    touched = (graph.degree != retained.degree).nonzero().flatten()
    users = touched[touched < graph.num_users]
    for user in users.tolist():  # users do not meet in a sample, so that their blocks are those of the matrix
        rows = slice(3 * user, 3 * user + 3)
        product = risk.curvature(theta)
        identity = torch.eye(theta.numel(), dtype=torch.float64)
        block = torch.stack([product(identity[k])[rows] for k in range(rows.start, rows.stop)])
        step = torch.linalg.solve(block + 0.2 * identity[:3, :3], (risk.gradient(theta) - tilt)[rows])
        after = result.model.embedding.weight[user]
        torch.testing.assert_close(after, (theta[rows] - step), rtol=1e-8, atol=1e-9)


def test_propagated_embeddings_are_reached_through_the_retained_graph():
    graph = random_graph()
    model, request = light_gcn(graph), ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    retained, _ = graph.split(request)
    encoded = torch.cat(encode(model, graph)[:2]).detach()
    plain = factors(graph)
    with torch.no_grad():
        plain.embedding.weight.copy_(encoded)
    method = AltEraser(objective=LOSS, damping=0.1)
    wanted = method.unlearn(plain, graph, request).model.embedding.weight.detach()
    result = method.unlearn(model, graph, request)
    table = result.model.embedding.weight.detach()
    got = torch.cat(naive_encode(table, model.alpha.tolist(), dense_normalized(retained), graph.num_users))
    left = float((got - wanted).norm() / (wanted - torch.cat(encode(model, retained)[:2]).detach()).norm())
    assert result.log["left_by_propagation"] == pytest.approx(left, rel=1e-4)
    assert left < 1e-2


def test_models_and_losses_that_do_not_fit_are_refused():
    graph = random_graph(values=False)
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0]])
    with pytest.raises(ValueError, match=r"'model' must propagate one table linearly for alteraser \(got TwoTower\)"):
        AltEraser().unlearn(two_tower(graph), graph, request)
    with pytest.raises(ValueError, match=r"'objective' must be a loss whose margins do not interact.*InBatchSoftmax"):
        AltEraser(objective=InBatchSoftmax()).unlearn(factors(graph), graph, request)
    for options, message in (
        ({"sweeps": 0}, "'sweeps' must be a positive integer"),
        ({"damping": -0.1}, "'damping' must not be negative"),
        ({"scope": "some"}, "'scope' must be one of touched, all"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(AltEraser(), **options)
