"""GIF, CEU and IDEA against retraining where it is a linear system, and sessions against dense second derivatives."""

import math
from dataclasses import replace

import pytest
import torch
from toys import factors, light_gcn, parameters, random_graph, two_tower

from graphunlearn.data import ForgetRequest
from graphunlearn.nn import BPR, SquaredError, risk_of
from graphunlearn.nn.session_risk import SessionRisk
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.operators import CEU, GIF, IDEA, UnlinkRedraw
from graphunlearn.operators.published.certified import strong_convexity

LOSS = SquaredError(weight_decay=0.2)
EXACT = {
    "gif": GIF(objective=LOSS, damping=0.0, max_iter=1200),
    "ceu": CEU(objective=LOSS, damping=0.0, tol=1e-13, max_iter=500),
    "idea": IDEA(objective=LOSS, damping=0.0, tol=1e-13, max_iter=500),
}


def distance(got, expected, rows):
    return float((got - expected)[rows].norm() / expected[rows].norm())


# ---- a quadratic risk, where the step is retraining


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
@pytest.mark.parametrize("name", list(EXACT))
def test_one_step_is_retraining_where_the_risk_is_quadratic(quadratic, retrained, make_request, name, curvature):
    model, graph = quadratic
    request = make_request(graph)
    expected, rows = retrained(request)
    result = replace(EXACT[name], curvature=curvature).unlearn(model, graph, request)
    assert distance(parameters(result.model), expected, rows) < 1e-8
    before = distance(parameters(model), expected, rows)
    assert before > 1e-2  # there was something to do
    wrong_sign = 2 * parameters(model) - parameters(result.model)
    assert distance(wrong_sign, expected, rows) == pytest.approx(2 * before, rel=1e-6)


def test_the_hessian_of_all_data_leaves_a_bias(quadratic, retrained):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    expected, rows = retrained(request)
    biased = replace(EXACT["gif"], system="original").unlearn(model, graph, request)
    left = distance(parameters(biased.model), expected, rows) / distance(parameters(model), expected, rows)
    assert 1e-3 < left < 0.9


def test_gif_stops_short_where_iterations_are_few(quadratic, retrained):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    expected, rows = retrained(request)
    left, residual = [], []
    for steps in (1, 10, 100):
        result = replace(EXACT["gif"], max_iter=steps).unlearn(model, graph, request)
        left.append(distance(parameters(result.model), expected, rows))
        residual.append(result.log["residual"])
    assert left == sorted(left, reverse=True)
    assert residual == sorted(residual, reverse=True)
    assert residual[0] > 0.1


def test_a_scale_with_which_gif_diverges_is_refused(quadratic):
    model, graph = quadratic
    request = ForgetRequest.internal("user", torch.tensor([2]))
    largest = GIF(objective=LOSS, damping=0.0).unlearn(model, graph, request).log["largest_eigenvalue"]
    with pytest.raises(ValueError, match=r"'scale' must be above .*, half the largest eigenvalue, .* \(got 0.1\)"):
        GIF(objective=LOSS, scale=0.1).unlearn(model, graph, request)
    result = GIF(objective=LOSS, scale=0.6 * largest, damping=0.0, max_iter=1200).unlearn(model, graph, request)
    assert result.log["residual"] < 1e-8


def test_as_published_is_the_truncated_series_of_the_whole_hessian(quadratic):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    retained, _ = graph.split(request)
    old, new = (risk_of(model, part, LOSS) for part in (graph, retained))
    theta = old.parameters
    identity = torch.eye(theta.numel(), dtype=torch.float64)
    product = old.curvature(theta, "hessian")
    matrix = torch.stack([product(column) for column in identity], 1)
    series = sum(torch.linalg.matrix_power(identity - matrix / 500, k) for k in range(101)) / 500
    expected = theta + series @ (old.gradient(theta) - new.gradient(theta))
    result = GIF.as_published(LOSS).unlearn(model, graph, request)
    torch.testing.assert_close(parameters(result.model), expected, rtol=1e-10, atol=1e-12)


# ---- other models, against dense algebra


@pytest.mark.parametrize("method", [GIF(max_iter=2000), CEU(tol=1e-12), IDEA(tol=1e-12)], ids=lambda m: m.name)
@pytest.mark.parametrize("make", [light_gcn, factors, two_tower], ids=lambda f: f.__name__)
def test_the_step_is_the_dense_solution(method, make):
    graph = random_graph(values=False)
    model = make(graph)
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    retained, _ = graph.split(request)
    method = replace(method, objective=BPR(weight_decay=0.05), damping=0.3)
    old, new = (risk_of(model, part, method.objective) for part in (graph, retained))
    theta = old.parameters
    kept = old.objective.samples(graph).select(~request.mask(graph))
    redrawn = old.objective.samples(retained)
    touched = torch.isin(redrawn.users, graph.pairs[0, request.mask(graph)])
    kept.negatives[touched] = redrawn.negatives[touched]
    new = risk_of(model, retained, method.objective, kept)
    product = new.curvature(theta)
    matrix = torch.stack([product(column) for column in torch.eye(theta.numel(), dtype=torch.float64)], 1)
    matrix += 0.3 * torch.eye(theta.numel(), dtype=torch.float64)
    expected = theta + torch.linalg.solve(matrix, old.gradient(theta) - new.gradient(theta))
    result = method.unlearn(model, graph, request)
    torch.testing.assert_close(parameters(result.model), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
@pytest.mark.parametrize("method", [GIF(max_iter=400), CEU(tol=1e-12, max_iter=500)], ids=lambda m: m.name)
def test_sessions_take_the_dense_solution(sessions, method, curvature):
    model, graph, request = sessions
    retained, _ = graph.split(request)
    old, new = (SessionRisk(model, part, CrossEntropy()) for part in (graph, retained))
    theta, damping = old.parameters, 5.0 if curvature == "gauss-newton" else 70.0
    product = new.curvature(theta, curvature)
    matrix = torch.stack([product(column) for column in torch.eye(theta.numel(), dtype=torch.float64)], 1)
    matrix += damping * torch.eye(theta.numel(), dtype=torch.float64)
    assert torch.linalg.eigvalsh((matrix + matrix.t()) / 2).min() > 0
    expected = theta + torch.linalg.solve(matrix, old.gradient(theta) - new.gradient(theta))
    result = replace(method, damping=damping, curvature=curvature).unlearn(model, graph, request)
    torch.testing.assert_close(parameters(result.model), expected, rtol=1e-7, atol=1e-8)
    assert result.log["curvature"] == curvature


def test_rows_that_nothing_determines_are_redrawn_and_the_rest_is_the_step():
    graph = random_graph(values=False)
    model = light_gcn(graph)
    request = ForgetRequest.internal("user", torch.tensor([2]))
    first, second = (CEU(seed=seed).unlearn(model, graph, request) for seed in (0, 1))
    rows = first.model.embedding.weight[2], second.model.embedding.weight[2], model.embedding.weight[2]
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert first.log["emptied_nodes"] >= 1


# ---- certificates


def test_the_certificate_of_ceu_holds_with_enough_noise_in_training(quadratic):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    method = replace(EXACT["ceu"], tol=1e-3, epsilon=0.5, delta=0.02)
    retained, _ = graph.split(request)
    certificate = method.unlearn(model, graph, request).log["certificate"]
    after = method.unlearn(model, graph, request).model
    left = risk_of(after, retained, LOSS).gradient(parameters(after)).norm()  # training had converged
    assert certificate["gradient_left"] == pytest.approx(float(left), rel=1e-6)
    needed = math.sqrt(2 * math.log(1.5 / 0.02)) * float(left) / 0.5
    assert certificate["sigma_needed"] == pytest.approx(needed, rel=1e-6)
    assert certificate["missing"] == [f"the training loss must contain noise of {needed:.3g} (got 0)"]
    for noise, holds in ((1.01 * needed, True), (0.99 * needed, False)):
        log = replace(method, training_noise=noise).unlearn(model, graph, request).log
        assert log["certificate"]["holds"] is holds


def test_the_noise_of_idea_covers_the_distance_to_retraining(quadratic, retrained):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    expected, rows = retrained(request)
    method = IDEA(objective=LOSS, damping=0.0, tol=0.05, epsilon=0.5, delta=0.02)
    exact = replace(method, noise=0.0).unlearn(model, graph, request)
    certificate = exact.log["certificate"]
    away = float((parameters(exact.model) - expected)[rows].norm())
    assert 0 < away <= certificate["bound"]
    assert certificate["sigma_needed"] == pytest.approx(
        certificate["bound"] / 0.5 * math.sqrt(2 * math.log(1.25 / 0.02))
    )
    assert not certificate["holds"]
    noisy = method.unlearn(model, graph, request)
    assert noisy.log["certificate"]["holds"]
    assert noisy.log["certificate"]["sigma"] == certificate["sigma_needed"]
    added = parameters(noisy.model) - parameters(exact.model)
    drawn = torch.randn(len(added), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(added, certificate["sigma_needed"] * drawn)


def test_strong_convexity_is_below_the_smallest_eigenvalue(quadratic):
    model, graph = quadratic
    risk = risk_of(model, graph, LOSS)
    product = risk.curvature(risk.parameters, "hessian")
    matrix = torch.stack([product(c) for c in torch.eye(risk.parameters.numel(), dtype=torch.float64)], 1)
    constant, missing = strong_convexity(risk)
    assert missing == []
    assert 0 < constant <= float(torch.linalg.eigvalsh(matrix).min()) + 1e-12
    assert constant == pytest.approx(0.2 * int(graph.adjacency.degree.min()))


def test_nothing_is_certified_where_the_assumptions_fail(quadratic, sessions):
    graph = random_graph(values=False)
    for make in (light_gcn, factors, two_tower):
        _, missing = strong_convexity(risk_of(make(graph), graph, BPR()))
        assert "scores are not linear in the parameters" in missing
    model, graph = quadratic
    assert strong_convexity(risk_of(model, graph, SquaredError()))[1] == ["a parameter has no L2 penalty"]
    model, graph, request = sessions
    for method in (CEU(training_noise=1e9), IDEA()):
        log = method.unlearn(model, graph, request).log["certificate"]
        assert not log["holds"]
        assert log["missing"] == ["scores are not linear in the parameters", "a parameter has no L2 penalty"]


# ---- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GIF(damping=-1.0), "'damping' must be finite and not negative"),
        (lambda: GIF(curvature="absolute"), "'curvature' must be one of gauss-newton, hessian"),
        (lambda: GIF(max_iter=0), "'max_iter' must be a positive integer"),
        (lambda: GIF(scale=0.0), "'scale' must be positive and finite"),
        (lambda: GIF(system="both"), "'system' must be one of retained, original"),
        (lambda: CEU(epsilon=1.0), "'epsilon' must be between 0 and 1"),
        (lambda: CEU(training_noise=-1.0), "'training_noise' must be finite and not negative"),
        (lambda: IDEA(noise=float("inf")), "'noise' must be finite and not negative"),
        (lambda: IDEA(tol=0.0), "'tol' must be positive"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_losses_whose_curvature_is_not_known_are_refused(quadratic, sessions):
    model, graph = quadratic
    request = ForgetRequest.internal("user", torch.tensor([2]))
    with pytest.raises(ValueError, match=r"'objective' must be an Objective, whose curvature is known .*CrossEntropy"):
        CEU(objective=CrossEntropy()).unlearn(model, graph, request)
    model, graph, request = sessions
    with pytest.raises(ValueError, match=r"'objective' must be CrossEntropy \(got BPR\)"):
        GIF(objective=BPR()).unlearn(model, graph, request)


def test_the_default_damping_is_that_of_the_sum_or_of_the_mean(quadratic, sessions):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    for method in (CEU(objective=LOSS), GIF(objective=LOSS)):
        given = replace(method, damping=0.01).unlearn(model, graph, request)
        left = method.unlearn(model, graph, request)
        assert torch.equal(parameters(given.model), parameters(left.model))
        assert left.log["damping"] == 0.01
    model, graph, request = sessions
    number = len(CrossEntropy().samples(graph.split(request)[0]))
    given = CEU(damping=0.01 * number).unlearn(model, graph, request)
    assert torch.equal(parameters(given.model), parameters(CEU().unlearn(model, graph, request).model))


def test_the_published_gif_leaves_redrawn_embeddings_as_they_are_drawn():
    graph = random_graph(values=False)
    model, request = light_gcn(graph), ForgetRequest.internal("user", torch.tensor([2]))
    redrawn = UnlinkRedraw().unlearn(model, graph, request).model.embedding.weight
    rows = graph.emptied(graph.split(request)[0])
    for system, unmoved in (("original", rows), ("retained", torch.arange(graph.num_nodes) == 2)):
        after = GIF(system=system).unlearn(model, graph, request).model.embedding.weight
        assert torch.equal(after[unmoved], redrawn[unmoved])
        assert not torch.equal(after[~rows], redrawn[~rows])
