"""The noise of training in probabilities, the movement by a step, and the rule by which IFRU stops."""

import copy

import pytest
import torch
from torch.func import jvp
from toys import factors, light_gcn, parameters, random_graph

import graphunlearn as gu
from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import BCE, BPR, risk_of
from graphunlearn.operators import IFRU
from graphunlearn.operators.shared import noise, propagation
from graphunlearn.operators.shared.noise import DRAWS, Movement, noise_of_draws, pairs_near
from graphunlearn.operators.shared.propagation import Rows
from graphunlearn.operators.shared.refit import first_step, refit_neighbours
from graphunlearn.operators.shared.ridge import Ridges
from graphunlearn.operators.shared.warm_start import warm_start


def probabilities(risk, theta, pairs):
    encoded = risk.encode(theta)
    return torch.sigmoid((encoded.queries[pairs[0]] * encoded.items[pairs[1]]).sum(1))


@pytest.mark.parametrize("model_of", [light_gcn, factors])
def test_the_movement_is_the_derivative_of_the_probabilities(model_of):
    graph = random_graph()
    risk = risk_of(model_of(graph), graph, BPR(negatives=2))
    theta, step = risk.parameters, torch.randn_like(risk.parameters)
    groups = graph.pairs[:, :5], graph.pairs[:, 5:12], graph.pairs[:, :0]
    expected = [jvp(lambda t, q=q: probabilities(risk, t, q), (theta,), (step,))[1].abs().mean() for q in groups[:2]]
    movement = Movement(risk.form, risk.at(theta)[0], groups)
    assert movement(step) == pytest.approx(float(max(expected)), rel=1e-10)
    nodes = torch.tensor([0, 2, graph.num_users])
    part = torch.zeros_like(risk.table)
    part[nodes] = step.view_as(part)[nodes]
    assert movement.of_rows(Rows(nodes, part[nodes]), graph) == pytest.approx(movement(part.flatten()), rel=1e-10)


@pytest.mark.parametrize("looked_at", [10.0, 0.0])
def test_the_movement_in_a_large_graph_is_that_of_fewer_pairs(looked_at, monkeypatch):
    """If the step is not spread, it is the mean over evenly spaced pairs, or of all if these cost too much."""
    monkeypatch.setattr(propagation, "_DENSE", 0.0)
    monkeypatch.setattr(propagation, "_LOOKED_AT", looked_at)
    monkeypatch.setattr(noise, "_FEWER", 4)
    graph = random_graph(12, 30, 60)
    model = light_gcn(graph)
    risk = risk_of(model, graph, BPR(negatives=2))
    rows = Rows(torch.tensor([1, 14, 20]), torch.randn(3, risk.table.size(1), dtype=torch.float64))
    pairs = graph.pairs[:, :20], graph.pairs[:, 20:23]
    fewer = (pairs[0][:, ::5], pairs[1]) if looked_at else pairs
    step = torch.zeros_like(risk.table).index_copy_(0, *rows).flatten()
    expected = Movement(risk.form, risk.at(risk.parameters)[0], fewer)(step)
    found = Movement(risk.form, risk.at(risk.parameters)[0], pairs).of_rows(rows, graph)
    assert found == pytest.approx(expected, rel=1e-10)
    assert found != pytest.approx(Movement(risk.form, risk.at(risk.parameters)[0], (pairs[1],))(step), rel=1e-6)


@pytest.mark.parametrize("draws", [4, 5])
def test_the_noise_is_that_of_two_halves_of_the_draws(draws):
    graph = random_graph(12, 30, 60)
    objective = BPR(negatives=draws, weight_decay=0.0)
    risk = risk_of(light_gcn(graph), graph, objective)
    theta, samples, used = risk.parameters, risk.samples, draws - draws % 2
    diagonal = torch.rand_like(theta)
    halves = [
        risk_of(light_gcn(graph), graph, BPR(negatives=used // 2, weight_decay=0.0), part).gradient(theta)
        for part in (
            type(samples)(samples.users, samples.items, samples.size, samples.negatives[:, k:used:2]) for k in (0, 1)
        )
    ]  # each is a mean over half of the draws
    step = (2 * used / DRAWS) ** 0.5 * 0.5 * (halves[1] - halves[0]) / (diagonal + 0.1)
    unseen = torch.stack([graph.pairs[0], BPR(negatives=1, seed=1).samples(graph).negatives[:, 0]])
    expected = Movement(risk.form, risk.at(theta)[0], (unseen,))(step)
    assert noise_of_draws(risk, theta, diagonal, 0.1, graph) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("objective", [BCE(), BPR(negatives=1)])
def test_losses_with_fewer_than_two_draws_have_no_known_noise(objective):
    graph = random_graph()
    risk = risk_of(light_gcn(graph), graph, objective)
    assert noise_of_draws(risk, risk.parameters, torch.ones_like(risk.parameters), 0.1, graph) is None


def test_pairs_near_a_request_are_those_of_a_loop():
    graph = random_graph(9, 8, 30)
    removed = torch.zeros(30, dtype=torch.bool)
    removed[[3, 17]] = True
    forgotten, kept, unseen = pairs_near(graph, graph.select(~removed), removed)
    lost, held = [tuple(p) for p in graph.pairs[:, removed].t().tolist()], set(map(tuple, graph.pairs.t().tolist()))
    users, items = {u for u, _ in lost}, {i for _, i in lost}
    assert [tuple(p) for p in forgotten.t().tolist()] == lost
    near = [tuple(p) for p in graph.pairs.t().tolist() if (p[0] in users or p[1] in items) and tuple(p) not in lost]
    assert [tuple(p) for p in kept.t().tolist()] == near
    assert torch.equal(unseen[0], kept[0])
    assert not held & set(map(tuple, unseen.t().tolist()))


@pytest.fixture(scope="module")
def trained():
    graph = synthetic_interactions(num_users=60, num_items=50, interactions_per_user=10, seed=0)
    torch.manual_seed(0)
    model = gu.nn.build_model("lightgcn", graph, 8, 2)
    gu.fit(model, graph, objective=BPR(negatives=2), epochs=40)
    return model.double(), graph


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.9])
def test_what_the_solver_leaves_moves_probabilities_by_less_than_the_share(trained, share):
    model, graph = trained
    request = ForgetRequest.internal("interaction", graph.pairs[:, [2, 99, 205, 300]])
    options = {"objective": BPR(negatives=2), "refit": False, "negatives": 8}
    full = IFRU(**options, within_noise=0.0, tol=1e-10, max_iter=300).unlearn(model, graph, request)
    result = IFRU(**options, within_noise=share, tol=1e-10, max_iter=300).unlearn(model, graph, request)
    groups = pairs_near(graph, result.graph, request.mask(graph))
    risks = [risk_of(found.model, found.graph, BPR(negatives=8)) for found in (full, result)]
    left = max(
        float(
            (probabilities(risks[0], parameters(full.model), q) - probabilities(risks[1], parameters(result.model), q))
            .abs()
            .mean()
        )
        for q in groups
    )
    assert result.log["steps"][0]["iterations"] < full.log["steps"][0]["iterations"]
    assert left <= 2 * result.log["within_noise"]["limit"]  # the rule has the diagonal in place of the curvature


def test_the_noise_that_is_assumed_is_bounded(trained):
    model, graph = trained
    request = ForgetRequest.internal("user", torch.tensor([4]))
    log = IFRU(objective=BPR(negatives=2), within_noise=0.5).unlearn(model, graph, request).log["within_noise"]
    assert log["limit"] == 0.5 * min(log["noise"], 0.01)


def test_a_preparation_gives_what_a_call_without_one_gives(trained):
    model, graph = trained
    request = ForgetRequest.internal("user", torch.tensor([4]))
    method = IFRU(objective=BPR(negatives=2))
    plain = method.unlearn(model, graph, request)
    method.prepare(model, graph)
    result = method.unlearn(model, graph, request)
    torch.testing.assert_close(result.model.state_dict(), plain.model.state_dict(), rtol=1e-12, atol=1e-12)
    assert result.log["within_noise"] == plain.log["within_noise"]


def test_a_fit_of_neighbours_that_moves_little_is_left_out(trained, monkeypatch):
    model, graph = trained
    monkeypatch.setattr("graphunlearn.operators.ifru.prepared.noise_of_draws", lambda *_: 1.0)
    monkeypatch.setattr("graphunlearn.operators.ifru.prepared.LARGEST", 1.0)
    request = ForgetRequest.internal("user", torch.tensor([4]))
    done = [
        IFRU(objective=BPR(negatives=2), within_noise=share).unlearn(model, graph, request) for share in (0.0, 0.99)
    ]
    assert done[0].log["refit"]["items"] == int(graph.degree[4])
    movement = done[1].log["refit"]["movement"]
    assert movement <= done[1].log["within_noise"]["limit"]
    step = IFRU(objective=BPR(negatives=2), within_noise=0.99, refit=False).unlearn(model, graph, request)
    assert torch.equal(done[1].model.embedding.weight, step.model.embedding.weight)


def test_the_first_step_of_the_fit_is_its_first_newton_step_with_the_diagonal(trained, monkeypatch):
    model, graph = trained
    request, objective = ForgetRequest.internal("user", torch.tensor([4])), BPR(negatives=2)
    retained, removed = graph.split(request)[0], request.mask(graph)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, 0, scale=False)
    before, now = risk_of(model, graph, objective), risk_of(started, retained, objective)
    table, moved = model.embedding.weight.detach(), started.embedding.weight.detach()
    gradient, slope = (r.gradient(r.parameters).view_as(table) for r in (before, now))
    diagonal = torch.full_like(table, 2.0)
    encoded = before.at(before.parameters)[0]
    step = first_step(
        graph, retained, removed, (table, gradient, encoded, Ridges(before, gradient)), (moved, slope, diagonal)
    )
    wanted = {}

    def solve(product, b, *, damping, **_):
        wanted["step"] = b / (2.0 + damping)
        return gu.func.Solution(0 * b, 0.0, 0, True)

    monkeypatch.setattr("graphunlearn.operators.shared.refit.conjugate_gradients", solve)
    refit_neighbours(started, model, graph, retained, removed, objective, negatives=2)
    rows = step.abs().sum(1).nonzero().view(-1)
    assert len(rows) == int(graph.degree[4])
    torch.testing.assert_close(step[rows].flatten(), wanted["step"], rtol=1e-10, atol=1e-12)


def test_a_movement_that_is_not_a_number_is_not_small():
    graph = random_graph()
    model = light_gcn(graph)
    risk = risk_of(model, graph, BPR(), BPR().samples(graph))
    movement = Movement(risk.form, risk.encode(risk.parameters), (graph.pairs,))
    assert not movement(torch.full_like(risk.parameters, float("nan"))) <= 1.0


def test_a_graph_made_in_inference_mode_is_served_and_its_preparation_is_not_reused():
    with torch.inference_mode():
        graph = synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5, seed=0)
    assert graph.pairs.is_inference()
    model, method = light_gcn(graph), IFRU(objective=BPR(), on_rejection="keep")
    method.unlearn(model, graph, ForgetRequest("user", [graph.user_ids[3]]))
    method.prepare(model, graph)
    assert not method._prepared.serves(model, graph, method._prepared.objective)
