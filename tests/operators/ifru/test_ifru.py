"""IFRU against retraining where retraining is a formula, and against its own definition in dense algebra."""

import copy
import json
import math
import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from toys import (
    REQUESTS,
    ConstantItems,
    Wrapped,
    factors,
    light_gcn,
    normal_equations,
    parameters,
    random_graph,
    two_tower,
)

import graphunlearn as gu
from graphunlearn import operators
from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import (
    BCE,
    BPR,
    LinearRisk,
    Sampled,
    SquaredError,
    build_model,
    default_objective,
    encode,
    fit,
    reset_parameters,
    risk_of,
)
from graphunlearn.operators.ifru.active_rows import solve_on_rows
from graphunlearn.operators.shared.correction import Tilted, equivalent_ridge
from graphunlearn.operators.shared.right_hand_side import _MOST_NEGATIVES, global_problem
from graphunlearn.operators.shared.warm_start import fresh_seed, warm_start


@dataclass(kw_only=True)
class IFRU(operators.IFRU):
    """Steps are compared with their definition here, whether or not they would be accepted."""

    on_rejection: str = "keep"
    refit: bool = False


def scores(model, graph):
    encoded = encode(model, graph)
    return (encoded.queries @ encoded.items.t()).detach()


def as_matrix(product, size):
    return torch.stack([product(column) for column in torch.eye(size, dtype=torch.float64)], 1)


# ---- first oracle: a quadratic problem, where one undamped step is retraining


@pytest.fixture
def quadratic():
    graph = random_graph()
    torch.manual_seed(3)
    return ConstantItems(graph).double(), graph


SOLVERS = [
    ("gauss-newton", "cg"),
    ("gauss-newton", "krylov"),
    ("hessian", "cg"),
    ("hessian", "krylov"),
    ("absolute", "auto"),
]


@pytest.mark.parametrize("at_optimum", [True, False], ids=["converged", "early-stopped"])
@pytest.mark.parametrize(("curvature", "solver"), SOLVERS)
def test_one_undamped_step_is_retraining_where_the_risk_is_quadratic(
    quadratic, make_request, curvature, solver, at_optimum
):
    model, graph = quadratic
    request, weight_decay = make_request(graph), 0.2
    retained, _ = graph.split(request)
    before = normal_equations(model, graph, weight_decay)
    after = normal_equations(model, retained, weight_decay)
    if at_optimum:
        with torch.no_grad():
            model.embedding.weight.copy_(torch.linalg.solve(*before).view_as(model.embedding.weight))
    # retraining stops where its gradient is the one left over at the trained model (zero where that had converged)
    leftover = before[0] @ parameters(model) - before[1]
    rows = (retained.adjacency.degree > 0).repeat_interleave(2)
    expected = torch.zeros_like(leftover)
    expected[rows] = torch.linalg.solve(after[0][rows][:, rows], (after[1] + leftover)[rows])
    operator = IFRU(
        objective=SquaredError(weight_decay=weight_decay),
        curvature=curvature,
        damping=0.0,
        warm_start=False,
        solver=solver,
        tol=1e-12,
        max_iter=300,
    )
    result = operator.unlearn(model, graph, request)
    got = parameters(result.model)
    # condition numbers below 1e3 and residuals of 1e-12
    torch.testing.assert_close(got[rows], expected[rows], rtol=1e-8, atol=1e-8)
    if at_optimum:
        torch.testing.assert_close(
            after[0] @ got, after[1], rtol=1e-8, atol=1e-8
        )  # the gradient of what remains vanishes, for every node
    assert (parameters(model)[rows] - expected[rows]).abs().max() > 1e-2  # and there was something to do


@pytest.mark.parametrize("options", [{"warm_start": True}, {"max_steps": 3}], ids=str)
def test_on_a_quadratic_neither_start_nor_further_steps_matter(quadratic, make_request, options):
    model, graph = quadratic
    request = make_request(graph)
    common = {"objective": SquaredError(weight_decay=0.2), "damping": 0.0, "tol": 1e-12, "max_iter": 300}
    plain = IFRU(**common, warm_start=False).unlearn(model, graph, request)
    other = IFRU(**common, **({"warm_start": False} | options)).unlearn(model, graph, request)
    rows = plain.graph.adjacency.degree > 0
    torch.testing.assert_close(
        other.model.embedding.weight[rows], plain.model.embedding.weight[rows], rtol=1e-8, atol=1e-8
    )


def test_without_the_spillover_it_is_not_retraining(quadratic):
    model, graph = quadratic
    request = REQUESTS["interaction"](graph)
    hessian, rhs = normal_equations(model, graph, 0.2)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.linalg.solve(hessian, rhs).view_as(model.embedding.weight))
    retained, _ = graph.split(request)
    expected = torch.linalg.solve(*normal_equations(model, retained, 0.2))
    common = {"objective": SquaredError(weight_decay=0.2), "damping": 0.0, "warm_start": False, "tol": 1e-12}
    direct = parameters(IFRU(**common, max_iter=300, spillover=False).unlearn(model, graph, request).model)
    # (H_k)^-1 applied to the forgotten samples' gradient alone, on the graph that still has them
    samples = SquaredError(weight_decay=0.2).samples(graph).select(request.mask(graph))
    gradient = risk_of(model, graph, SquaredError(weight_decay=0.2), samples).gradient(parameters(model))
    step = torch.linalg.solve(normal_equations(model, retained, 0.2)[0], gradient)
    torch.testing.assert_close(direct, parameters(model) + step, rtol=1e-8, atol=1e-8)
    assert (direct - expected).norm() > 0.1 * (parameters(model) - expected).norm()


# ---- second oracle: LightGCN at its optimum


def structured_graph(seed):
    """20 users, 24 items, 240 labels that two latent factors explain."""
    plain = random_graph(20, 24, 240, seed=seed, values=False)
    generator = torch.Generator().manual_seed(100 + seed)
    users, items = torch.randn(20, 2, generator=generator), torch.randn(24, 2, generator=generator)
    label = ((users[plain.pairs[0]] * items[plain.pairs[1]]).sum(1) > 0).double()
    return InteractionGraph.from_edges(plain.pairs, 20, 24, label=label)


def optimum(model, graph, objective):
    """The minimiser of the risk near the model's parameters."""
    risk = risk_of(model, graph, objective)
    theta = risk.parameters.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta], max_iter=1500, history_size=50, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        theta.grad = risk.gradient(theta)
        return torch.tensor(risk.value(theta.detach()), dtype=torch.float64)

    optimizer.step(closure)
    assert risk.gradient(theta).norm() < 1e-5  # of about 100 forgotten-sample gradients of size .1
    out = copy.deepcopy(model)
    with torch.no_grad():
        out.embedding.weight.copy_(theta.view_as(out.embedding.weight))
    return out


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_direct_and_spillover_come_closer_to_retraining_than_direct_alone(seed):
    graph, objective = structured_graph(seed), BCE(weight_decay=0.02)
    model = optimum(light_gcn(graph, dim=3, layers=2, seed=seed, scale=0.5), graph, objective)
    for request in (
        ForgetRequest.internal("interaction", graph.pairs[:, :10]),
        ForgetRequest.internal("user", torch.tensor([3])),
        ForgetRequest.internal("item", torch.tensor([5])),
    ):
        retained, _ = graph.split(request)
        users, items = (retained.adjacency.degree > 0).split([20, 24])  # emptied nodes are drawn anew
        reference = scores(optimum(model, retained, objective), retained)[users][:, items]
        nothing = (scores(model, retained)[users][:, items] - reference).norm()

        def error(spillover, request=request, retained=retained, users=users, items=items, reference=reference):
            # the damping only removes the rotations, along which nothing changes
            operator = IFRU(
                objective=objective, damping=1e-6, warm_start=False, spillover=spillover, tol=1e-8, max_iter=300
            )
            after = operator.unlearn(model, graph, request).model
            return (scores(after, retained)[users][:, items] - reference).norm()

        direct, both = error(False) / nothing, error(True) / nothing
        # measured over these nine cases: .47 to 1.1 for direct alone, .33 to .48 with the spillover
        assert both < 0.6
        assert both < direct


# ---- the definition, in dense algebra

OBJECTIVES = {"bpr": BPR(weight_decay=0.05, negatives=3), "bce": BCE(weight_decay=0.05)}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


def definition(model, graph, request, objective, curvature, damping, scale):
    """θ₀ − (H + δI)⁻¹ ∇Φ(θ₀) with explicit matrices."""
    retained, _ = graph.split(request)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, 0, scale=scale)
    theta0 = parameters(started)
    leftover = risk_of(model, graph, objective).gradient(parameters(model))
    emptied = (graph.adjacency.degree > 0) & (retained.adjacency.degree == 0)
    leftover[emptied.repeat_interleave(theta0.numel() // graph.num_nodes)] = 0
    risk = risk_of(started, retained, objective)
    kind = "gauss-newton" if curvature == "gauss-newton" else "hessian"
    hessian = as_matrix(risk.curvature(theta0, kind), len(theta0))
    if curvature == "absolute":
        values, vectors = torch.linalg.eigh(hessian)
        hessian = vectors @ torch.diag(values.abs()) @ vectors.t()
    damped = hessian + damping * torch.eye(len(theta0), dtype=torch.float64)
    return theta0 - torch.linalg.solve(damped, risk.gradient(theta0) - leftover)


@pytest.mark.parametrize("model_of", [light_gcn, factors])
@pytest.mark.parametrize(("curvature", "solver"), [*SOLVERS, ("gauss-newton", "auto")])
def test_the_step_is_the_definition(make_request, objective, curvature, solver, model_of):
    graph = random_graph()
    model, request = model_of(graph, dim=2, scale=0.5), make_request(graph)
    damping = 10.0 if curvature == "hessian" else 0.3  # enough to make the Hessian definite
    for scale in (True, False):
        expected = definition(model, graph, request, objective, curvature, damping, scale)
        operator = IFRU(
            objective=objective,
            curvature=curvature,
            solver=solver,
            damping=damping,
            warm_start=scale,
            negatives=3,
            tol=1e-12,
            max_iter=200,
            within_noise=0.0,
        )
        result = operator.unlearn(model, graph, request)
        torch.testing.assert_close(parameters(result.model), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("curvature", ["gauss-newton", "absolute", "hessian"])
def test_a_foreign_model_takes_the_same_step(make_request, objective, curvature):
    graph = random_graph()
    inner, request = light_gcn(graph, dim=2, scale=0.5), make_request(graph)
    operator = IFRU(
        objective=objective, curvature=curvature, negatives=3, damping=3.0, tol=1e-12, max_iter=200, max_steps=2
    )
    known, foreign = operator.unlearn(inner, graph, request), operator.unlearn(Wrapped(inner), graph, request)
    # residuals of 1e-12; the paths differ in preconditioner and rounding
    torch.testing.assert_close(foreign.model.inner.embedding.weight, known.model.embedding.weight, rtol=1e-7, atol=1e-8)
    assert len(foreign.log["steps"]) == len(known.log["steps"])


def test_a_foreign_model_is_given_the_same_damping(objective):
    graph = random_graph()
    inner, request = light_gcn(graph, dim=2, scale=0.5), REQUESTS["user"](graph)
    known, foreign = (IFRU(objective=objective).unlearn(m, graph, request).log for m in (inner, Wrapped(inner)))
    assert foreign["ridge"] == pytest.approx(known["ridge"], rel=1e-9)
    assert foreign["damping"] == pytest.approx(known["damping"], rel=1e-9)


# ---- the right-hand side


@pytest.mark.parametrize("level", ["user", "interaction"])
def test_a_model_that_is_not_linear_is_damped_until_the_step_can_be_trusted(level):
    graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=2)
    model = gu.nn.NGCF(graph.num_nodes, 8, 2)
    gu.fit(model, graph, epochs=20, lr=0.02, progress=False)
    request = gu.ForgetRequest.internal(level, torch.tensor([1, 2]) if level == "user" else graph.pairs[:, :20])
    method = IFRU(tol=1e-3, max_iter=200)
    log = method.unlearn(model, graph, request).log
    assert log["damping_rule"] == "trust"
    ridge = max(method.min_damping, log["ridge"])
    raised = math.log(log["damping"] / ridge, 3)
    assert raised == pytest.approx(round(raised), abs=1e-6)
    tried = [ridge * 3.0**k for k in range(round(raised) + 1)]
    rho = method.damping_curve(model, graph, request, tried)["rho"]
    assert max(rho[:-1], default=-math.inf) < 0.5 <= rho[-1]
    assert log["rho"] == pytest.approx(rho[-1], abs=1e-3)
    assert round(raised) > 0  # the ridge alone would have been too bold here


# ---- damping


def test_the_ridge_is_recovered_where_training_had_one(objective):
    graph = structured_graph(0)
    model, ridge = light_gcn(graph, dim=3, layers=2, scale=0.5), 0.37
    free = type(objective)(**{**vars(objective), "weight_decay": 0.0})
    risk = risk_of(model, graph, free)
    theta = risk.parameters.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta], max_iter=1000, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        theta.grad = risk.gradient(theta) + ridge * theta.detach()
        return torch.tensor(risk.value(theta.detach()) + ridge / 2 * float(theta.detach().square().sum())).double()

    optimizer.step(closure)
    assert theta.norm() > 0.1
    with torch.no_grad():
        model.embedding.weight.copy_(theta.view_as(model.embedding.weight))
    none = torch.zeros(graph.num_interactions, dtype=torch.bool)
    problem = global_problem(model, model, graph, graph, none, free, None)
    got, cosine = equivalent_ridge(problem, problem.tilt())
    assert got == pytest.approx(ridge, rel=1e-3)  # as far as the optimiser came
    assert cosine == pytest.approx(1.0, rel=1e-3)
    method, request = IFRU(objective=free, negatives=3), REQUESTS["user"](graph)
    log = method.unlearn(model, graph, request).log
    assert log["ridge"] == pytest.approx(ridge, rel=0.1)  # the emptied user's row is left out of the tilt
    if isinstance(free, Sampled):
        assert (log["damping_rule"], log["damping"]) == ("ridge", log["ridge"])
        return
    assert log["damping_rule"] == "norms"
    slope = risk_of(model, graph, method._objective(graph)).gradient(parameters(model)).view(graph.num_nodes, -1)
    slope[graph.emptied(graph.split(request)[0])] = 0
    assert log["damping"] == pytest.approx(float(slope.norm() / parameters(model).norm()), rel=1e-6)
    assert log["damping"] > log["ridge"]


def test_the_ridge_has_a_floor_and_can_be_given(objective):
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["interaction"](graph)
    log = IFRU(objective=objective, min_damping=1e3).unlearn(model, graph, request).log
    assert log["damping"] == 1e3 > log["ridge"]
    log = IFRU(objective=objective, damping=0.7).unlearn(model, graph, request).log
    assert (log["damping"], log["damping_rule"]) == (0.7, "given")
    assert "ridge" not in log


def test_more_damping_moves_less(objective):
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["interaction"](graph)
    moved = []
    for damping in (0.1, 1.0, 10.0, 1e6):
        operator = IFRU(objective=objective, damping=damping, warm_start=False, tol=1e-8, max_iter=200)
        moved.append(float((parameters(operator.unlearn(model, graph, request).model) - parameters(model)).norm()))
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-3


@pytest.mark.filterwarnings("ignore:the influence system was solved")  # an indefinite Hessian at the chosen damping
@pytest.mark.parametrize("curvature", ["gauss-newton", "absolute", "hessian"])
def test_the_damping_curve_is_what_the_steps_do(objective, curvature):
    graph = random_graph()
    model, request = light_gcn(graph, scale=0.5), REQUESTS["interaction"](graph)
    options = {"objective": objective, "curvature": curvature, "tol": 1e-11, "max_iter": 200, "negatives": 3}
    options |= {"warm_start": False, "within_noise": 0.0}  # every damping starts from the same embeddings
    before = parameters(model)
    dampings = [5.0, 20.0, 80.0]
    curve = IFRU(**options).damping_curve(model, graph, request, dampings)
    assert torch.equal(before, parameters(model))
    assert curve["damping"] == dampings
    assert curve["chosen"] == IFRU(**options).unlearn(model, graph, request).log["damping"]
    json.dumps(curve, allow_nan=False)

    retained, _ = graph.split(request)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, 0, scale=False)
    risk, theta0 = risk_of(started, retained, objective), parameters(started)
    leftover = risk_of(model, graph, objective).gradient(before)

    def phi(theta):
        return risk.value(theta) - float(leftover @ theta)

    kind = "gauss-newton" if curvature == "gauss-newton" else "hessian"
    product = risk.curvature(theta0, kind)
    slope = risk.gradient(theta0) - leftover
    for k, damping in enumerate(dampings):
        after = parameters(IFRU(**options, damping=damping).unlearn(model, graph, request).model)
        step = after - theta0
        predicted = float(-slope @ step - 0.5 * step @ product(step))
        assert curve["rho"][k] == pytest.approx((phi(theta0) - phi(after)) / predicted, rel=1e-5)
        tilted, plain = risk.gradient(after) - leftover, risk.gradient(after)
        assert curve["residual"][k] == pytest.approx(float(tilted.norm() / slope.norm()), rel=1e-5)
        expected = float(plain.norm() / risk.gradient(theta0).norm())
        assert curve["plain_residual"][k] == pytest.approx(expected, rel=1e-5)


def test_the_damping_curve_has_the_chosen_damping_in_its_middle():
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["user"](graph)
    curve = IFRU(objective=BCE()).damping_curve(model, graph, request)
    assert len(curve["damping"]) == len(curve["rho"]) == len(curve["residual"]) == len(curve["plain_residual"]) == 9
    assert curve["damping"] == sorted(curve["damping"])
    assert curve["damping"][4] == pytest.approx(curve["chosen"])


@pytest.fixture(scope="module")
def factored():
    """Matrix factorisation whose ridge has no meaning, and a request of its most active users."""
    graph = synthetic_interactions(num_users=120, num_items=90, interactions_per_user=15, seed=4)
    model = build_model("mf", graph, 8).double()
    reset_parameters(model, 0)
    fit(model, graph, epochs=30, lr=0.03)
    users = graph.degree[: graph.num_users].argsort(descending=True)[:12]
    return model, graph, ForgetRequest.internal("user", users)


@pytest.mark.parametrize("solver", ["cg", "krylov"])
def test_without_a_meaning_of_the_ridge_the_step_with_the_least_gradient_is_taken(factored, solver):
    model, graph, request = factored
    options = {"negatives": 4, "tol": 1e-8, "max_iter": 200, "solver": solver, "within_noise": 0}
    result = operators.IFRU(**options, refit=False).unlearn(model, graph, request)
    log, left = result.log, []
    assert (log["damping_rule"], log["acceptance"]["outcome"]) == ("gradient", "milder")
    first = max(0.01, log["ridge"])
    ridge = IFRU(**options, damping=first).unlearn(model, graph, request)
    assert not ridge.accepted
    assert ridge.log["acceptance"]["corrected"] == log["acceptance"]["corrected"]
    for k in range(11):  # one damping at a time, the gradient of the definition
        plain = IFRU(**options, warm_start=False, damping=first * 3**k)
        problem, _, tilt, *_ = plain._problem(model, graph, result.graph, request)
        slopes = [problem.new.gradient(problem.start) - tilt]
        moved = parameters(plain.unlearn(model, graph, request).model)
        left.append(float((problem.new.gradient(moved) - tilt).norm() / slopes[0].norm()))
        if len(left) > 1 and left[-1] >= left[-2]:
            break
    assert 1 < len(left) < 11
    assert log["damping"] == pytest.approx(first * 3 ** (len(left) - 2))
    assert log["gradient_left"] == pytest.approx(left[-2], rel=1e-4)
    plain = IFRU(**options, warm_start=False, damping=log["damping"]).unlearn(model, graph, request)
    torch.testing.assert_close(parameters(result.model), parameters(plain.model))
    assert log["gradient_left"] < 1


# ---- further steps


def test_further_steps_are_taken_only_while_they_help(objective):
    graph = structured_graph(1)
    model = build_model("lightgcn", graph, 3, 2).double()
    reset_parameters(model, 0)
    fit(model, graph, objective=objective, epochs=40, lr=0.05)
    request = ForgetRequest.internal("interaction", graph.pairs[:, :40])
    retained, _ = graph.split(request)
    one = IFRU(objective=objective, negatives=3, warm_start=False).unlearn(model, graph, request)
    many = IFRU(objective=objective, negatives=3, warm_start=False, max_steps=5).unlearn(model, graph, request)
    leftover = risk_of(model, graph, objective).gradient(parameters(model))
    risk = risk_of(model, retained, objective)

    def residual(result):
        return float((risk.gradient(parameters(result.model)) - leftover).norm())

    assert residual(many) <= residual(one)
    steps = many.log["steps"]
    assert 1 <= len(steps) <= 5
    assert all(step["tilted_residual"] < 1 and step["rho"] >= 1 for step in steps[:-2])


@pytest.mark.parametrize("solver", ["cg", "krylov"])
def test_the_log_of_a_step_is_its_definition(objective, solver):
    graph = random_graph()
    model, request = light_gcn(graph, scale=0.5), REQUESTS["interaction"](graph)
    options = {"objective": objective, "solver": solver, "negatives": 3, "damping": 2.0, "tol": 1e-11, "max_iter": 200}
    options["within_noise"] = 0.0
    (step, *_) = IFRU(**options, warm_start=False, max_steps=2).unlearn(model, graph, request).log["steps"]
    after = parameters(IFRU(**options, warm_start=False).unlearn(model, graph, request).model)
    retained, theta = graph.split(request)[0], parameters(model)
    risk, leftover = risk_of(model, retained, objective), risk_of(model, graph, objective).gradient(theta)
    slope, moved = risk.gradient(theta) - leftover, after - theta
    predicted = -float(slope @ moved + 0.5 * moved @ risk.curvature(theta)(moved))  # by the undamped quadratic
    true = risk.value(theta) - risk.value(after) + float(leftover @ moved)
    assert step["rho"] == pytest.approx(true / predicted, rel=1e-6)
    assert step["tilted_residual"] == pytest.approx(float((risk.gradient(after) - leftover).norm() / slope.norm()))


# ---- solving honestly


def test_not_converging_is_told_where_it_was_asked_for():
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["user"](graph)
    for curvature in ("gauss-newton", "absolute"):
        operator = IFRU(objective=BCE(), curvature=curvature, tol=1e-9, max_iter=2)
        with pytest.warns(
            UserWarning, match=r"solved to a relative residual of .*, not 1e-09, in 2 products"
        ) as caught:
            result = operator.unlearn(model, graph, request)
        assert caught[0].filename == __file__
        assert result.log["steps"][0]["residual"] > 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IFRU(objective=BCE(), tol=1e-3, max_iter=200).unlearn(model, graph, request)


def test_the_residual_in_the_log_is_that_of_the_step(objective):
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["interaction"](graph)
    retained, _ = graph.split(request)
    for solver in ("cg", "krylov"):
        operator = IFRU(
            objective=objective, damping=1.0, warm_start=False, solver=solver, negatives=3, tol=1e-2, within_noise=0.0
        )
        result = operator.unlearn(model, graph, request)
        theta = parameters(model)
        risk = risk_of(model, retained, objective)
        rhs = risk_of(model, graph, objective).gradient(theta) - risk.gradient(theta)
        step = parameters(result.model) - theta
        left = rhs - risk.curvature(theta)(step) - step
        assert result.log["steps"][0]["residual"] == pytest.approx(float(left.norm() / rhs.norm()), rel=1e-6)
        assert result.log["steps"][0]["residual"] <= 1e-2


# ---- pruning


@pytest.fixture(scope="module", params=[False, True], ids=["bpr", "bce"])
def trained(request):
    graph = synthetic_interactions(num_users=150, num_items=120, interactions_per_user=5, seed=0)
    graph = graph.binarize(3) if request.param else graph
    model = build_model("lightgcn", graph, 6, 2).double()
    reset_parameters(model, 0)
    fit(model, graph, epochs=25, lr=0.02)
    return model, graph


def test_nothing_pruned_and_everything_in_reach_is_the_whole_problem(objective):
    graph = random_graph()  # two hops from any interaction reach every node
    model, request = light_gcn(graph, scale=0.5), REQUESTS["interaction"](graph)
    common = {
        "objective": objective,
        "tol": 1e-11,
        "max_iter": 300,
        "negatives": 3,
        "damping": 5.0,
        "within_noise": 0.0,
    }
    whole = IFRU(**common).unlearn(model, graph, request)
    part = IFRU(**common, prune=0.0).unlearn(model, graph, request)
    assert part.log["pruning"]["nodes_kept"] == graph.num_nodes
    assert part.log["steps"][0]["length"] == 1
    assert part.log["relative_error"] < 1e-9
    torch.testing.assert_close(part.model.embedding.weight, whole.model.embedding.weight, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("level", ["user", "interaction"])
def test_the_price_of_pruning_rises_with_what_is_pruned(trained, level):
    model, graph = trained
    request = REQUESTS[level](graph)
    common = {"damping": 0.3, "tol": 1e-9, "max_iter": 300}
    whole = IFRU(**common).unlearn(model, graph, request)
    base = scores(model, whole.graph)
    moved = scores(whole.model, whole.graph) - base
    errors, kept, shares = [], [], []
    for prune in (0.0, 0.4, 0.9):
        result = IFRU(**common, prune=prune).unlearn(model, graph, request)
        errors.append(float((scores(result.model, whole.graph) - base - moved).norm() / moved.norm()))
        kept.append(result.log["pruning"]["nodes_kept"])
        shares.append(result.log["relative_error"])
        # the full system from its definition, with the rows that were not chosen
        problem, _, tilt, *_ = IFRU(**common)._problem(model, graph, whole.graph, request)
        tilted = Tilted(problem, tilt)
        step = parameters(result.model) - problem.start
        slope = tilted.gradient(problem.start)
        left = problem.product(problem.start, "gauss-newton")(step) + 0.3 * step + slope
        assert shares[-1] == pytest.approx(float(left.norm() / slope.norm()), rel=1e-6)
        assert tilted.value(parameters(result.model)) < tilted.value(problem.start)
    assert errors == sorted(errors)
    assert shares == sorted(shares)
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize("kind", ["closed form", "autograd"])
def test_pruned_rows_stay_where_they_were(trained, kind):
    inner, graph = trained
    model = inner if kind == "closed form" else Wrapped(inner)
    request = REQUESTS["user"](graph)
    result = IFRU(prune=0.6, negatives=2).unlearn(model, graph, request)
    after = result.model if kind == "closed form" else result.model.inner
    changed = (after.embedding.weight != inner.embedding.weight).any(1)
    log = result.log["pruning"]
    endpoints = torch.cat([graph.pairs[0, request.mask(graph)], graph.pairs[1, request.mask(graph)] + graph.num_users])
    assert changed[endpoints].all()  # their rows are scaled or drawn anew
    assert 0 < int(changed.sum()) <= log["nodes_kept"] + len(endpoints.unique())
    assert log["nodes_kept"] < log["nodes_reached"] < graph.num_nodes
    assert set(log) == {"nodes_reached", "nodes_kept", "endpoints_ignored", "largest_degree_change_ignored"}
    assert (log["endpoints_ignored"], log["largest_degree_change_ignored"]) == (0, 0.0)


def test_small_degree_changes_can_be_ignored(trained):
    model, graph = trained
    popular = int(graph.adjacency.degree[graph.num_users :].argmax())
    share = 1 / int(graph.adjacency.degree[graph.num_users + popular])
    user = int(graph.pairs[0, graph.pairs[1] == popular][0])
    request = ForgetRequest.internal("interaction", torch.tensor([[user], [popular]]))
    log = IFRU(prune=0.0, min_degree_change=share * 1.001).unlearn(model, graph, request).log["pruning"]
    assert log["endpoints_ignored"] == 1
    assert log["largest_degree_change_ignored"] == pytest.approx(share)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_removal_too_small_to_count_changes_nothing_but_the_start(trained, foreign):
    inner, graph = trained
    model = Wrapped(inner) if foreign else inner
    request = REQUESTS["interaction"](graph)
    result = IFRU(prune=0.0, min_degree_change=0.99, warm_start=False).unlearn(model, graph, request)
    assert torch.equal(parameters(result.model), parameters(model))
    assert result.log["steps"] == []
    assert result.log["pruning"]["nodes_kept"] == 0
    assert result.log["pruning"]["endpoints_ignored"] > 0


@pytest.mark.parametrize("kind", ["closed form", "autograd"])
@pytest.mark.parametrize("scale", [1.0, 40.0, -1.0], ids=["good", "too long", "uphill"])
def test_a_pruned_step_that_would_raise_the_tilted_risk_is_shortened_or_not_taken(trained, kind, scale, monkeypatch):
    inner, graph = trained
    model, request = inner if kind == "closed form" else Wrapped(inner), REQUESTS["user"](graph)

    def scaled(*args, **options):
        found = solve_on_rows(*args, **options)
        steps.append(scale * found.x)
        return replace(found, x=steps[-1], product=scale * found.product)

    steps = []

    monkeypatch.setattr("graphunlearn.operators.ifru.active_rows.solve_on_rows", scaled)
    operator = IFRU(prune=0.5, negatives=2)
    result = operator.unlearn(model, graph, request)
    problem, _, tilt, *_ = operator._problem(model, graph, result.graph, request)
    phi = Tilted(problem, tilt).value
    before, after = phi(problem.start), phi(parameters(result.model))
    length = result.log["steps"][0]["length"]
    assert length == next((0.5**k for k in range(7) if phi(problem.start + 0.5**k * steps[0]) < before), 0)
    assert (length == 0) == (scale < 0)
    assert after < before if length else after == before
    assert result.log["relative_error"] == (pytest.approx(1) if length == 0 else result.log["steps"][0]["residual"])


# ---- emptied nodes


@pytest.mark.parametrize("options", [{}, {"prune": 0.3}, {"warm_start": False}, {"spillover": False}], ids=str)
def test_nodes_left_without_interactions_are_drawn_anew(trained, options):
    model, graph = trained
    request = REQUESTS["user"](graph) | REQUESTS["item"](graph)
    result = IFRU(seed=5, **options).unlearn(model, graph, request)
    fresh = copy.deepcopy(model)
    reset_parameters(fresh, fresh_seed(5))
    assert int((result.graph.adjacency.degree[[2, graph.num_users + 3]] > 0).sum()) == 0
    assert result.log["emptied_nodes"] >= 2
    # a user that nothing mentions any more stays exactly where it was drawn
    torch.testing.assert_close(result.model.embedding.weight[2], fresh.embedding.weight[2], rtol=0, atol=1e-12)
    other = IFRU(seed=6, **options).unlearn(model, graph, request)
    assert not torch.allclose(other.model.embedding.weight[2], result.model.embedding.weight[2])


# ---- preparing


def test_preparing_gives_the_same_answer(make_request, objective):
    graph = random_graph()
    model, request = light_gcn(graph), make_request(graph)
    plain = IFRU(objective=objective).unlearn(model, graph, request)
    operator = IFRU(objective=objective)
    operator.prepare(model, graph)
    result = operator.unlearn(model, graph, request)
    assert torch.equal(parameters(result.model), parameters(plain.model))
    assert result.log == plain.log
    assert result.prepare_seconds > 0


@pytest.mark.parametrize("change", ["model in place", "another model", "graph", "labels", "objective"])
def test_what_was_prepared_for_something_else_is_not_used(objective, change):
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["user"](graph)
    operator = IFRU(objective=objective)
    operator.prepare(model, graph)
    if change == "model in place":
        with torch.no_grad():
            model.embedding.weight.mul_(1.3)
    elif change == "another model":
        model = light_gcn(graph, seed=9)
    elif change == "graph":
        graph = graph.select(torch.arange(4, 20))
    elif change == "labels":  # the same pairs, as binarising at another threshold gives
        graph = copy.copy(graph)
        graph[EDGE_TYPE].label = 1 - graph.label
    else:
        operator.objective = SquaredError(weight_decay=0.1)
    expected = IFRU(objective=operator.objective).unlearn(model, graph, request)
    result = operator.unlearn(model, graph, request)
    assert torch.equal(parameters(result.model), parameters(expected.model))


# ---- as published


def test_the_published_choices_run_and_report_their_residual(trained):
    model, graph = trained
    operator = IFRU.as_published(max_iter=20)
    assert (operator.propagation, operator.warm_start, operator.damping) == (False, False, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fixed number of steps promises nothing that a warning could break
        result = operator.unlearn(model, graph, REQUESTS["interaction"](graph))
    (step,) = result.log["steps"]
    assert step["iterations"] == 20
    assert step["residual"] > 0
    assert result.log["curvature"] == "hessian"
    assert result.log["pruning"]["nodes_kept"] > 0
    # its error, from the curvature of the whole problem with propagation
    plain = IFRU(curvature="hessian", warm_start=False)
    problem, _, tilt, *_ = plain._problem(model, graph, result.graph, REQUESTS["interaction"](graph))
    slope, d = Tilted(problem, tilt).gradient(problem.start), parameters(result.model) - problem.start
    left = problem.curved.curvature(problem.start, "hessian")(d) + slope
    assert result.log["relative_error"] == pytest.approx(float(left.norm() / slope.norm()), rel=1e-6)
    again = IFRU.as_published(default_objective(graph), max_iter=20).unlearn(
        model, graph, REQUESTS["interaction"](graph)
    )
    assert torch.equal(parameters(again.model), parameters(result.model))


def test_the_published_curvature_needs_a_table():
    graph = random_graph()
    with pytest.raises(ValueError, match="'propagation' must be True where tables are not propagated linearly"):
        IFRU.as_published(BCE()).unlearn(two_tower(graph), graph, REQUESTS["user"](graph))


def test_curvature_without_propagation_is_that_of_matrix_factorisation(objective):
    graph = random_graph()
    model = light_gcn(graph)
    none = torch.zeros(20, dtype=torch.bool)
    problem = global_problem(model, model, graph, graph, none, objective, None)
    plain = factors(graph)
    plain.load_state_dict({"embedding.weight": model.embedding.weight})
    risk = risk_of(plain, graph, objective)
    assert isinstance(risk, LinearRisk)
    theta, v = parameters(model), torch.randn(model.embedding.weight.numel(), dtype=torch.float64)
    for kind in ("gauss-newton", "hessian"):
        got = problem.product(theta, kind, propagation=False)(v)
        torch.testing.assert_close(got, risk.curvature(theta, kind)(v))


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -0.1}, r"'damping' must not be negative \(got -0.1\)"),
        ({"damping": float("nan")}, "'damping'"),
        ({"min_damping": -1.0}, "'min_damping'"),
        ({"prune": 1.0}, r"'prune' must be a quantile in \[0, 1\) \(got 1.0\)"),
        ({"prune": -0.1}, "'prune'"),
        ({"min_degree_change": 1.0}, "'min_degree_change'"),
        ({"max_steps": 0}, r"'max_steps' must be at least 1 \(got 0\)"),
        ({"max_iter": 0}, r"'max_iter' must be at least 1 \(got 0\)"),
        ({"tol": 0.0}, "'tol'"),
        ({"negatives": 0}, "'negatives'"),
        ({"curvature": "gauss_newton"}, "'curvature'"),
        ({"solver": "kyrlov"}, "'solver'"),
        ({"prune": 0.5, "curvature": "absolute"}, "'prune' must be None unless conjugate gradients solve the system"),
        ({"prune": 0.5, "solver": "adam"}, "'prune' must be None unless conjugate gradients solve the system"),
        ({"curvature": "absolute", "solver": "cg"}, "'solver' must be 'krylov' for curvature 'absolute'"),
        ({"curvature": "absolute", "solver": "adam"}, "'solver' must be 'krylov' for curvature 'absolute'"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IFRU(**options)


def test_the_number_of_negatives_follows_the_budget():
    graph = random_graph()
    model, request = light_gcn(graph), REQUESTS["user"](graph)
    # the most there are where the graph is small; more than the objective's never hurts, fewer are never taken
    many = IFRU(objective=BPR(negatives=4)).unlearn(model, graph, request)
    same = IFRU(objective=BPR(negatives=4), negatives=_MOST_NEGATIVES).unlearn(model, graph, request)
    few = IFRU(objective=BPR(negatives=4), negatives=4).unlearn(model, graph, request)
    assert torch.equal(parameters(many.model), parameters(same.model))
    assert not torch.equal(parameters(many.model), parameters(few.model))


def test_the_damping_of_a_pruned_problem_is_that_of_the_whole_model(trained):
    model, graph = trained
    request = REQUESTS["interaction"](graph)
    whole = IFRU().unlearn(model, graph, request).log["ridge"]
    pruned = IFRU(prune=0.5).unlearn(model, graph, request).log["ridge"]
    # the same sum over samples, with as many negatives: all samples are taken on a graph this small
    assert pruned == pytest.approx(whole, rel=1e-6, abs=1e-12)


def test_pruning_everything_away_is_told(trained):
    model, graph = trained
    user, item = graph.pairs[:, int((graph.adjacency.degree[: graph.num_users][graph.pairs[0]]).argmax())].tolist()
    request = ForgetRequest.internal("interaction", torch.tensor([[user], [item]]))
    operator = IFRU(prune=0.5, min_degree_change=0.95)
    with pytest.warns(UserWarning, match="pruning left no node to correct"):
        result = operator.unlearn(model, graph, request)
    assert result.log["steps"] == []
    with pytest.warns(UserWarning, match="pruning left no node to correct"):
        assert operator.damping_curve(model, graph, request)["damping"] == []
