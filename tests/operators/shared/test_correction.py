"""Newton corrections against dense algebra and closed forms, and the ridge that early stopping amounts to."""

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.nn.utils import vector_to_parameters
from toys import REQUESTS, factors, light_gcn, random_graph, two_tower

from graphunlearn.func import conjugate_gradients, lanczos
from graphunlearn.nn import BCE, BPR, SquaredError, encode, risk_of
from graphunlearn.operators.shared.correction import (
    Tilted,
    adam_quadratic,
    equivalent_ridge,
    inverse_diagonal,
    sampled_ridge,
)
from graphunlearn.operators.shared.right_hand_side import Problem, global_problem
from graphunlearn.operators.shared.warm_start import warm_start

MODELS = pytest.mark.parametrize("model_of", [light_gcn, two_tower])
OBJECTIVE = BPR(negatives=2, weight_decay=0.3)


def case(model_of):
    """A model, both graphs and the problem of a forgotten user, started where IFRU starts."""
    graph = random_graph(8, 7, 30)
    request, model = REQUESTS["user"](graph), model_of(graph)
    retained, _ = graph.split(request)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, 0)
    problem = global_problem(model, started, graph, retained, request.mask(graph), OBJECTIVE, None)
    return model, graph, retained, problem


def whole(model, graph, theta):
    """The risk of a graph at given parameters and its gradient, from the losses themselves."""
    model = copy.deepcopy(model)
    vector_to_parameters(theta, model.parameters())
    loss = OBJECTIVE(encode(model, graph), OBJECTIVE.samples(graph)).sum()
    return float(loss.detach()), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@MODELS
def test_the_tilted_risk_and_its_curve_are_their_definitions(model_of):
    model, _, retained, problem = case(model_of)
    tilt, theta = problem.tilt(), problem.start
    tilted = Tilted(problem, tilt)
    value, gradient = whole(model, retained, theta)
    assert tilted.value(theta) == pytest.approx(value - float(tilt @ theta))
    torch.testing.assert_close(tilted.gradient(theta), gradient - tilt)
    space = lanczos(problem.product(theta, "gauss-newton"), tilt - gradient, damping=0.5, max_iter=6)
    curve = tilted.curve(theta, space, [0.5, 20.0], False)
    assert curve["damping"] == [0.5, 20.0]
    for place, damping in enumerate(curve["damping"]):
        moved = theta + space.solve(damping).x
        after, slope = whole(model, retained, moved)
        fall = value - after + float(tilt @ (moved - theta))
        assert curve["rho"][place] == pytest.approx(fall / space.predicted_decrease(damping))
        assert curve["residual"][place] == pytest.approx(float((slope - tilt).norm() / (gradient - tilt).norm()))
        assert curve["plain_residual"][place] == pytest.approx(float(slope.norm() / gradient.norm()))


class Parabola:
    """The risk of one parameter with the value c x^2 / 2 - x."""

    def __init__(self, curvature):
        self.curvature = curvature

    def value(self, theta):
        return float(self.curvature * theta**2 / 2 - theta)


@pytest.mark.parametrize(("curvature", "raises"), [(1.0, 0), (3.0, 3), (190.0, 7), (5000.0, 10), (1e6, 10)])
def test_the_damping_is_raised_by_threes_until_the_step_is_trusted(curvature, raises):
    """With the curvature 1 in the model and c in truth, a step is trusted from the damping c - 3/2 on."""
    one = torch.ones(1, dtype=torch.float64)
    risk, space = Parabola(curvature), lanczos(lambda v: v, one, damping=0.1)
    tilted = Tilted(Problem(risk, risk, lambda: risk, 0 * one, 0 * one, None, None), 0 * one)
    damping, rho = tilted.trusted(0 * one, space, 0.1, False)
    assert damping == pytest.approx(0.1 * 3**raises)
    total = 1 + damping
    assert rho == pytest.approx((2 * total - curvature) / (2 * total - 1), abs=1e-9)
    assert (rho >= 0.5) == (curvature < 1e6)  # ten are the most
    assert raises in (0, 10) or damping / 3 < curvature - 1.5


@MODELS
def test_the_equivalent_ridge_is_the_least_squares_fit_of_the_gradient(model_of):
    _, _, _, problem = case(model_of)
    tilt, theta = problem.tilt(), problem.trained
    ridge, cosine = equivalent_ridge(problem, tilt)
    assert ridge == pytest.approx(float(torch.linalg.lstsq(theta[:, None], -tilt[:, None]).solution))
    assert cosine == pytest.approx(float(cosine_similarity(-tilt, theta, dim=0)))
    assert equivalent_ridge(problem, -0.7 * theta) == pytest.approx((0.7, 1.0))
    assert equivalent_ridge(problem, 0 * theta) == (0.0, 0.0)


@MODELS
def test_the_preconditioner_does_not_change_the_solution(model_of):
    _, _, _, problem = case(model_of)
    theta, rhs = problem.start, torch.randn_like(problem.start)
    product = problem.product(theta, "gauss-newton")
    dense = torch.stack([product(e) for e in torch.eye(len(theta), dtype=torch.float64)], 1)
    how = {"damping": 0.5, "preconditioner": inverse_diagonal(problem, theta, 0.5), "tol": 1e-10}
    solution = conjugate_gradients(product, rhs, **how, max_iter=300)
    assert solution.converged
    expected = torch.linalg.solve(dense + 0.5 * torch.eye(len(theta), dtype=torch.float64), rhs)
    torch.testing.assert_close(solution.x, expected, rtol=1e-7, atol=1e-8)
    assert not conjugate_gradients(product, rhs, **how, max_iter=1).converged


def naive_adam(matrix, rhs, damping, lr, steps):
    """Adam with its default constants, after the formulas of the paper."""
    x, first, second = 0 * rhs, 0 * rhs, 0 * rhs
    for t in range(1, steps + 1):
        gradient = matrix @ x + damping * x - rhs
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        x = x - lr * first / (1 - 0.9**t) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    return x


def test_adam_takes_its_steps_and_says_how_far_it_came():
    half, rhs = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    matrix, reached = half @ half.t(), []
    for steps in (1, 5, *range(60, 160, 10)):
        solution = adam_quadratic(lambda v: matrix @ v, rhs, 0.5, 0.02, steps)
        x = naive_adam(matrix, rhs, 0.5, 0.02, steps)
        torch.testing.assert_close(solution.x, x)
        reached.append(float((matrix @ x + 0.5 * x - rhs).norm() / rhs.norm()))
        assert solution.residual == pytest.approx(reached[-1])
        assert (solution.iterations, solution.converged) == (steps, reached[-1] <= 0.01)
    assert any(0.01 < residual < 0.02 for residual in reached)
    assert min(reached) < 0.01


# ---- the ridge from a part of the samples


def ridge_of_every(step, model, graph, objective):
    """The ridge from every so many interactions, scaled to all of them."""
    mask = torch.arange(graph.num_interactions) % step == 0
    theta = model.embedding.weight
    loss = objective(encode(model, graph), objective.samples(graph, mask=mask)).sum()
    (gradient,) = torch.autograd.grad(loss, theta)
    gradient, theta = gradient * graph.num_interactions / int(mask.sum()), theta.detach()
    return -float((gradient * theta).sum() / theta.square().sum())


@pytest.mark.parametrize("objective", [BPR(negatives=3), BCE(weight_decay=0.1)], ids=["bpr", "bce"])
@pytest.mark.parametrize("most", [1, 10, 30, 45, 1000])
def test_the_sum_over_some_samples_is_scaled_to_all_of_them(objective, most):
    graph = random_graph(15, 12, 90)
    model = light_gcn(graph)
    expected = ridge_of_every(max(1, 90 // most), model, graph, objective)
    assert sampled_ridge(model, graph, objective, most) == pytest.approx(expected, rel=1e-9)


def test_some_fifty_thousand_samples_are_enough_by_default():
    graph = random_graph(400, 400, 100_000)
    model, objective = factors(graph, dim=2), SquaredError()
    assert sampled_ridge(model, graph, objective) == pytest.approx(ridge_of_every(2, model, graph, objective))


def test_without_interactions_the_ridge_is_zero():
    graph = random_graph()
    empty = graph.select(torch.zeros(graph.num_interactions, dtype=torch.bool))
    assert sampled_ridge(light_gcn(graph), empty, SquaredError(weight_decay=0.0)) == 0


def test_the_ridge_of_all_samples_is_the_equivalent_ridge():
    model, graph, _, problem = case(light_gcn)
    tilt = risk_of(model, graph, OBJECTIVE).gradient(problem.trained)
    assert sampled_ridge(model, graph, OBJECTIVE) == pytest.approx(equivalent_ridge(problem, tilt)[0])
