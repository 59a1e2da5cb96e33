"""The step that corrects what emptied users left in the rows of their items, and emptied items in those of users."""

import copy
import math

import pytest
import torch
from toys import factors, light_gcn, random_graph, two_tower

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import BCE, BPR, Encoded, InBatchSoftmax, SampledBCE, SquaredError, encode, fit
from graphunlearn.nn.encoding import linear_form
from graphunlearn.operators import Calibrate, UnlinkRedraw
from graphunlearn.operators.shared import block_step as module
from graphunlearn.operators.shared.block_step import block_step, emptied_rows_step
from graphunlearn.operators.shared.warm_start import warm_start

LOSSES = {"bpr": BPR(negatives=2, weight_decay=0.0), "bce": BCE(weight_decay=0.0), "squared": SquaredError()}


@pytest.fixture
def graph():
    return random_graph(8, 7, 30)


def request_of(level, graph):
    return ForgetRequest.internal(level, torch.tensor([2]))


def risk_in(rows, own, encoded, objective, samples):
    """The loss of the samples as a function of the final rows of one side."""
    users, items = (rows, encoded.items) if own == 0 else (encoded.queries, rows)
    return objective(Encoded(users, items), samples).sum()


def dense(model, graph, retained, removed, objective, before, own, factor):
    """The step computed with automatic differentiation and dense matrices, one node at a time."""
    after, form = encode(model, retained), linear_form(model, retained)
    first = (0, graph.num_users)[own]
    emptied = graph.emptied(retained)
    gone = emptied.split([graph.num_users, graph.num_items])
    lost = removed & gone[1 - own][graph.pairs[1 - own]]
    rows = (before.queries, before.items)[own].detach().clone().requires_grad_()
    gradient = torch.autograd.grad(risk_in(rows, own, before, objective, objective.samples(graph, mask=lost)), rows)[0]
    everything = objective.samples(graph)
    slopes = torch.autograd.grad(risk_in(rows, own, before, objective, everything), rows)[0]
    ridge = max(-float((slopes * rows).sum() / rows.square().sum()), 0.01)
    propagation = form.propagate(torch.eye(graph.num_nodes, dtype=torch.float64))
    table, kept = model.embedding.weight.detach().clone(), objective.samples(retained)
    now = (after.queries, after.items)[own].detach()
    for node in range(len(now)):
        if gone[own][node] or float(gradient[node].abs().sum()) == 0:
            continue

        def of_one(row, node=node):
            return risk_in(torch.cat([now[:node], row[None], now[node + 1 :]]), own, after, objective, kept)

        curvature = torch.autograd.functional.hessian(of_one, now[node])
        matrix = curvature + factor * ridge * torch.eye(len(curvature), dtype=torch.float64)
        weight = propagation[first + node, first + node]
        table[first + node] += torch.linalg.solve(matrix, gradient[node]) / weight
    return table, ridge


@pytest.mark.parametrize("level", ["user", "item"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", [factors, light_gcn])
def test_the_step_is_that_of_dense_matrices(make, loss, level, graph):
    model, objective, request = make(graph, scale=0.7), LOSSES[loss], request_of(level, graph)
    retained, _ = graph.split(request)
    before = Encoded(*(part.detach() for part in encode(model, graph)))
    warm_start(model, graph, retained, 0, scale=False)
    own = 1 if level == "user" else 0
    wanted, ridge = dense(model, graph, retained, request.mask(graph), objective, before, own, 3.0)
    log = emptied_rows_step(
        model, graph, retained, request.mask(graph), objective, before, negatives=1, most_rise=math.inf
    )
    torch.testing.assert_close(model.embedding.weight.detach(), wanted)
    side = ("users", "items")[own]
    assert log[f"corrected_{side}"] > 0
    assert log[f"ridge_{side}"] == pytest.approx(ridge)
    assert log[f"corrected_{('items', 'users')[own]}"] == 0


def test_parts_that_fit_into_memory_give_the_same(graph, monkeypatch):
    models = [factors(graph), factors(graph)]
    request = request_of("user", graph)
    retained, _ = graph.split(request)
    for model, pairs in zip(models, (1, 10**6)):
        monkeypatch.setattr(module, "_PAIRS", pairs)
        emptied_rows_step(model, graph, retained, request.mask(graph), BPR(), encode(model, graph))
    torch.testing.assert_close(models[0].embedding.weight, models[1].embedding.weight)


def test_the_ridge_of_some_samples_is_scaled_to_all_of_them(graph, monkeypatch):
    """With errors that are all the same, every sample tells the same."""
    model, request, objective = factors(graph), request_of("user", graph), SquaredError(weight_decay=0.0)
    with torch.no_grad():
        model.embedding.weight[:] = torch.tensor([0.5, 0.2, 0.1])
    graph["user", "interacts", "item"].rating = torch.full((30,), 4.0, dtype=torch.float64)
    retained, _ = graph.split(request)
    score = 0.5**2 + 0.2**2 + 0.1**2
    expected = 30 * (4 - score) * score / (7 * score)  # over seven items
    for most in (1, 7, 30):
        monkeypatch.setattr(module, "_SAMPLED", most)
        before = encode(model, graph)
        log = emptied_rows_step(copy.deepcopy(model), graph, retained, request.mask(graph), objective, before)
        assert log["ridge_items"] == pytest.approx(expected)


def test_with_fixed_users_and_squared_error_the_step_is_retraining(graph):
    """Items that minimise the squared error and a ridge: one step with the factor 1 gives the minimiser without."""
    model, ridge, request = factors(graph), 0.4, request_of("user", graph)
    users = model.embedding.weight.detach()[: graph.num_users]

    def minimiser(where):
        rows = torch.zeros(graph.num_items, users.size(1), dtype=torch.float64)
        for item in range(graph.num_items):
            own = where.pairs[1] == item
            x, y = users[where.pairs[0, own]], where.rating[own]
            rows[item] = torch.linalg.solve(x.t() @ x + ridge * torch.eye(users.size(1)).double(), x.t() @ y)
        return rows

    with torch.no_grad():
        model.embedding.weight[graph.num_users :] = minimiser(graph)
    retained, _ = graph.split(request)
    objective = SquaredError(weight_decay=0.0)
    log = emptied_rows_step(
        model,
        graph,
        retained,
        request.mask(graph),
        objective,
        encode(model, graph),
        factor=1.0,
        negatives=1,
        most_rise=math.inf,
    )
    assert log["ridge_items"] == pytest.approx(ridge)
    torch.testing.assert_close(model.embedding.weight.detach()[graph.num_users :], minimiser(retained))


def test_without_an_emptied_node_nothing_changes(graph):
    model, request = factors(graph), ForgetRequest.internal("interaction", graph.pairs[:, :1])
    retained, _ = graph.split(request)
    before = copy.deepcopy(model.state_dict())
    assert emptied_rows_step(model, graph, retained, request.mask(graph), BPR(), encode(model, graph)) == {}
    assert torch.equal(model.embedding.weight, before["embedding.weight"])


SKIPPED = {
    "nonlinear": (two_tower, BPR(), "TwoTower does not propagate one table linearly"),
    "no layer 0": (
        lambda graph: light_gcn(graph, alpha=torch.tensor([0.0, 0.5, 0.5])),
        BPR(),
        "LightGCN gives no weight to layer 0",
    ),
    "coupled": (light_gcn, InBatchSoftmax(batch_size=8), "the margins of one sample of InBatchSoftmax are coupled"),
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_what_has_no_such_step_is_left_alone_and_the_log_says_so(kind, graph):
    make, objective, reason = SKIPPED[kind]
    model, request = make(graph), request_of("user", graph)
    retained, _ = graph.split(request)
    before = copy.deepcopy(model.state_dict())
    log = emptied_rows_step(model, graph, retained, request.mask(graph), objective, encode(model, graph))
    assert log == {"skipped": reason}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("loss", [BPR(negatives=1), SampledBCE(negatives=1)], ids=["bpr", "sampled bce"])
def test_every_loss_with_negatives_draws_enough_of_them(loss):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1), request_of("user", graph)
    fit(model, graph, objective=loss, epochs=20)
    retained, _ = graph.split(request)
    before = Encoded(*(part.detach() for part in encode(model, graph)))
    found = []
    for objective in (loss, loss.with_negatives(16)):
        other = copy.deepcopy(model)
        log = emptied_rows_step(other, graph, retained, request.mask(graph), objective, before, most_rise=math.inf)
        found.append((other.embedding.weight.detach(), log))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert found[0][1]["corrected_items"] > 0


@pytest.mark.parametrize("make", [factors, light_gcn])
def test_the_retained_risk_limits_the_step(make, graph):
    objective, request = BPR(negatives=16, weight_decay=0.0), ForgetRequest.internal("user", torch.tensor([0]))
    retained, _ = graph.split(request)
    lengths = set()
    for scale in (0.1, 0.7, 1.5, 3.0):
        model = make(graph, scale=scale)
        before = Encoded(*(part.detach() for part in encode(model, graph)))
        samples, free = objective.samples(retained), copy.deepcopy(model)
        log = emptied_rows_step(model, graph, retained, request.mask(graph), objective, before, factor=0.01)
        whole = emptied_rows_step(
            free, graph, retained, request.mask(graph), objective, before, factor=0.01, most_rise=math.inf
        )
        moved = (free.embedding.weight != make(graph, scale=scale).embedding.weight).any(1).split([8, 7])
        near = samples.select(samples.touching(*moved))
        old, new = (
            float(objective(encode(part, retained), near).detach().sum()) for part in (make(graph, scale=scale), model)
        )
        assert new <= 1.05 * old + 1e-12
        assert log["rise_items"] == pytest.approx(new / old - 1, abs=1e-9)
        assert whole["length_items"] == 1.0
        expected = make(graph, scale=scale).embedding.weight.detach()
        change = free.embedding.weight.detach() - expected
        torch.testing.assert_close(model.embedding.weight.detach(), expected + log["length_items"] * change)
        assert (log["corrected_items"] > 0) == (log["length_items"] > 0)
        lengths.add(log["length_items"])
    assert min(lengths) < 1  # some step is shortened or left out


def test_labels_that_are_all_one_without_the_request_leave_the_step_out():
    pairs = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 0, 2]])
    graph = InteractionGraph.from_edges(pairs, label=torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    result = Calibrate(objective=BCE()).unlearn(factors(graph), graph, ForgetRequest.internal("user", [0]))
    reason = "the retained graph must hold an interaction with label 0 to be trained with BCE (got only label 1)"
    assert result.log["block_step"] == {"skipped": reason}
    with pytest.raises(
        ValueError,
        match=r"'request' must leave a graph that BCE can be trained on .got only label 1.; the retained graph must",
    ):
        Calibrate(objective=BCE(), epochs=1).unlearn(factors(graph), graph, ForgetRequest.internal("user", [0]))


def test_systems_are_solved_one_by_one():
    torch.manual_seed(0)
    factor = torch.randn(5, 4, 3, dtype=torch.float64)
    curvature, gradient = factor.transpose(1, 2) @ factor, torch.randn(5, 3, dtype=torch.float64)
    steps = block_step(gradient, curvature, 0.3)
    for matrix, right, step in zip(curvature, gradient, steps):
        torch.testing.assert_close((matrix + 0.3 * torch.eye(3)) @ step, right)


def test_calibrate_corrects_the_items_of_emptied_users_only(graph):
    model, request = light_gcn(graph, scale=0.5), request_of("user", graph)
    result = Calibrate(on_rejection="keep").unlearn(model, graph, request)
    redrawn = UnlinkRedraw().unlearn(model, graph, request)
    users = slice(0, graph.num_users)
    changed = (result.model.embedding.weight != redrawn.model.embedding.weight).any(1)
    assert not changed[users].any()
    assert int(changed[graph.num_users :].sum()) == result.log["block_step"]["corrected_items"] > 0
    assert result.log["steered"] == 0
