"""The fit of the items of emptied users, and of the users of emptied items, to what remains."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from toys import factors, light_gcn, random_graph, two_tower

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import (
    BCE,
    BPR,
    FitSettings,
    InBatchSoftmax,
    SampledBCE,
    SampledSoftmax,
    SquaredError,
    fit,
    risk_of,
)
from graphunlearn.nn.encoding import linear_form
from graphunlearn.nn.training.negatives import draw_negatives
from graphunlearn.operators import IFRU, Calibrate, UnlearnRec, UnlinkRedraw
from graphunlearn.operators.shared import accepting, span
from graphunlearn.operators.shared import refit as module
from graphunlearn.operators.shared.acceptance import Judged
from graphunlearn.operators.shared.refit import refit_neighbours
from graphunlearn.operators.shared.ridge import Ridges
from graphunlearn.operators.shared.span import without_span
from graphunlearn.operators.shared.warm_start import warm_start
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings

LOSSES = {
    "bpr": BPR(negatives=2, weight_decay=0.0),
    "bce": BCE(weight_decay=0.01),
    "squared": SquaredError(),
    "coupled": InBatchSoftmax(batch_size=8, negatives=3),
}


@pytest.fixture
def graph():
    return random_graph(8, 7, 30)


@pytest.fixture(params=[True, False], ids=["projected", "whole"])
def projected(request, monkeypatch):
    """Whether the noise is projected, whatever the risk of other negatives does; the second noise is not, either."""
    monkeypatch.setattr(module, "_RISE", math.inf)
    if not request.param:
        monkeypatch.setattr(module, "without_span", lambda vector, _: vector)
    return request.param


def request_of(level, graph):
    return ForgetRequest.internal(level, torch.tensor([2]))


def refitted(model, graph, request, objective, **options):
    """The redrawn model before and after the fit, and the log."""
    retained, _ = graph.split(request)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, 0, scale=False)
    done = copy.deepcopy(started)
    options = {"noise": "judged"} | options
    log = refit_neighbours(done, model, graph, retained, request.mask(graph), objective, **options)
    return started, done, log


def dense_problem(model, graph, request, objective, own, projected=True):
    """The neighbours of emptied nodes, the ridge and the linear term, node by node with dense projections or none."""
    retained, _ = graph.split(request)
    first, place = (0, graph.num_users)[own], graph.sides[own]
    table = model.embedding.weight.detach()
    gradient = risk_of(model, graph, objective).gradient(table.flatten()).view_as(table)
    risk = risk_of(model, graph, objective)
    ridge = max(-float((gradient[place] * table[place]).sum() / table[place].square().sum()), 0.01)
    if risk.form.matrix is None:  # the ridge of factors has a test of its own against dense matrices
        ridge = Ridges(risk, gradient)(own, place)
    final = risk_of(model, graph, objective).encode(table.flatten())
    other = (final.items, final.queries)[own].detach()
    gone, removed = graph.emptied(retained), request.mask(graph)
    rows, noise = [], []
    for node in range(place.stop - place.start):
        far = graph.pairs[1 - own, removed & (graph.pairs[own] == node)]
        far = [k for k in far.tolist() if gone[k + (graph.num_users, 0)[own]]]
        if not far or gone[first + node]:
            continue
        span = other[far]
        moment = sum(torch.outer(z, z) for z in span)
        tau = 0.01 * moment.trace() / len(moment)
        share = retained.degree[first + node] / graph.degree[first + node]
        part = gradient[first + node] + ridge * table[first + node]
        kept = tau * torch.linalg.solve(moment + tau * torch.eye(len(moment), dtype=torch.float64), part)
        rows.append(first + node)
        noise.append(share**2 * (kept if projected else part))
    return torch.tensor(rows), ridge, torch.stack(noise)


@pytest.mark.parametrize("level", ["user", "item"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", [factors, light_gcn])
def test_two_steps_are_those_of_dense_matrices(make, loss, level, graph, projected, monkeypatch):
    monkeypatch.setattr(module, "_TOLERANCE", 1e-12)
    model, objective, request = make(graph, scale=0.7), LOSSES[loss], request_of(level, graph)
    own = 1 if level == "user" else 0
    started, done, log = refitted(model, graph, request, objective, negatives=1)
    rows, ridge, noise = dense_problem(model, graph, request, objective, own, projected)
    retained, _ = graph.split(request)
    risk = risk_of(started, retained, objective)
    table = started.embedding.weight.detach().clone()
    free = (rows.unsqueeze(1) * 3 + torch.arange(3)).flatten()
    side = ("users", "items")[own]
    for length in log[f"lengths_{side}"]:
        theta = table.flatten()
        product = risk.curvature(theta)
        curvature = torch.stack([product(v) for v in torch.eye(len(theta), dtype=torch.float64)])[free][:, free]
        slope = risk.gradient(theta)[free] + ridge * theta[free] - noise.flatten()
        step = torch.linalg.solve(curvature + ridge * torch.eye(len(free), dtype=torch.float64), -slope)
        table.view(-1)[free] += length * step
    torch.testing.assert_close(done.embedding.weight.detach(), table, rtol=1e-5, atol=1e-6)  # shares are float32
    assert log[f"ridge_{side}"] == pytest.approx(ridge)
    assert log[side] == len(rows) > 0
    assert log[("items", "users")[own]] == 0
    assert log[f"lengths_{side}"][0] > 0
    assert log[f"projected_{side}"]


@pytest.mark.parametrize("make", [factors, light_gcn])
def test_many_steps_end_in_the_minimiser(make, graph, projected, monkeypatch):
    """SciPy minimises the same function of the same rows."""
    monkeypatch.setattr(module, "_STEPS", 60)
    monkeypatch.setattr(module, "_TOLERANCE", 1e-8)
    model, objective, request = make(graph, scale=0.5), BPR(negatives=2, weight_decay=0.01), request_of("user", graph)
    started, done, log = refitted(model, graph, request, objective, negatives=1)
    rows, ridge, noise = dense_problem(model, graph, request, objective, 1, projected)
    retained, _ = graph.split(request)
    risk, table = risk_of(started, retained, objective), started.embedding.weight.detach()

    def function(x):
        at = table.index_copy(0, rows, torch.from_numpy(x).view_as(noise)).flatten()
        slope = risk.gradient(at).view_as(table)[rows] + ridge * at.view_as(table)[rows] - noise
        own = at.view_as(table)[rows]
        return risk.value(at) + float((ridge / 2 * own.square() - noise * own).sum()), slope.flatten().numpy()

    found = minimize(function, table[rows].flatten().numpy(), jac=True, method="L-BFGS-B", options={"gtol": 1e-9})
    ours = done.embedding.weight.detach()[rows].flatten()
    torch.testing.assert_close(ours, torch.from_numpy(found.x), rtol=1e-3, atol=1e-4)
    assert len(log["lengths_items"]) > 2


def test_with_fixed_users_and_squared_error_the_fit_is_retraining(graph):
    """Items that minimise the squared error and a ridge: the fit is the minimiser without the user."""
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
    _, done, log = refitted(model, graph, request, SquaredError(weight_decay=0.0))
    assert log["ridge_items"] == pytest.approx(ridge)
    torch.testing.assert_close(
        done.embedding.weight.detach()[graph.num_users :], minimiser(retained), rtol=1e-2, atol=1e-2
    )


def test_the_projection_is_that_on_the_complement_of_the_span():
    torch.manual_seed(0)
    rows = torch.linalg.qr(torch.randn(6, 3, dtype=torch.float64)).Q.t() * torch.tensor([[1.0], [2.0], [3.0]])
    vector = torch.randn(2, 6, dtype=torch.float64)
    moment = torch.stack([rows.t() @ rows, torch.zeros(6, 6, dtype=torch.float64)])
    orthogonal = vector[0] - torch.linalg.lstsq(rows.t(), vector[0].unsqueeze(1)).solution.squeeze(1) @ rows
    found = without_span(vector, moment)
    torch.testing.assert_close(found[0], orthogonal, atol=0.04, rtol=0)  # 0.023 / 1.023 of the first row
    torch.testing.assert_close(found[1], vector[1])
    assert float((rows @ found[0]).norm()) < 0.03 * float((rows @ vector[0]).norm())
    torch.testing.assert_close(without_span(vector, 1e6 * moment), found)  # the scale of the embeddings is irrelevant


def test_a_step_that_does_not_lower_the_objective_is_shortened_or_left_out(graph):
    lengths = set()
    for scale in (0.1, 0.7, 1.5, 3.0, 6.0):
        for seed in range(4):
            model, objective = light_gcn(graph, scale=scale, seed=seed), BPR(negatives=4, weight_decay=0.0)
            request = ForgetRequest.internal("user", torch.tensor([0]))
            started, done, log = refitted(model, graph, request, objective, negatives=1)
            rows, ridge, noise = dense_problem(model, graph, request, objective, 1, log["projected_items"])
            retained, _ = graph.split(request)
            risk = risk_of(started, retained, objective)

            def function(at, risk=risk, rows=rows, ridge=ridge, noise=noise):
                own = at.embedding.weight.detach()
                return risk.value(own.flatten()) + float((ridge / 2 * own[rows] ** 2 - noise * own[rows]).sum())

            assert function(done) <= function(started)
            lengths |= set(log["lengths_items"])
    assert min(lengths) < 1


def loss_of_others(table, model, retained, rows):
    """The loss of interactions with one of some nodes and two other negatives, summed pair by pair."""
    final, first = linear_form(model, retained).propagate(table), retained.num_users
    users, items = retained.pairs.tolist()
    drawn = draw_negatives(retained, *retained.pairs, 2, 1_000_003).tolist()
    total = 0.0
    for user, item, others in zip(users, items, drawn):
        if first + item not in rows and user not in rows:
            continue
        total += 0.01 / 2 * float(table[user].square().sum() + table[first + item].square().sum())
        for other in others:
            if other != item:
                gap = final[user] @ (final[first + item] - final[first + other])
                total += float(F.softplus(-gap)) / 2 + 0.01 / 4 * float(table[first + other].square().sum())
    return total


@pytest.mark.parametrize("limit", [module._RISE, -math.inf])
@pytest.mark.parametrize("make", [factors, light_gcn])
def test_a_fit_that_raises_the_risk_of_other_negatives_keeps_the_noise(make, limit, monkeypatch):
    monkeypatch.setattr(module, "_RISE", limit)
    taken, objective = [], BPR(negatives=2, weight_decay=0.01)
    for seed, scale in itertools.product(range(6), (0.2, 0.7, 1.5)):
        graph = random_graph(12, 9, 60, seed=seed)
        model, request = make(graph, scale=scale, seed=seed), ForgetRequest.internal("user", torch.tensor([0, 3, 5]))
        retained, _ = graph.split(request)
        started, _, log = refitted(model, graph, request, objective, negatives=1)
        terms = terms_of(model, graph, objective)
        (_, rows, ridge, noises), *_ = module._linear_terms(graph, retained, request.mask(graph), *terms, "judged")
        table, risk = started.embedding.weight.detach(), risk_of(started, retained, objective)
        before, rises = loss_of_others(table, started, retained, rows.tolist()), []
        for noise in noises:
            fitted = table.index_copy(0, rows, module.minimise(risk, table, rows, ridge, noise)[0])
            rises.append(loss_of_others(fitted, started, retained, rows.tolist()) / before - 1)
        expected = rises[0] <= module._RISE or rises[0] <= rises[1]
        assert log["projected_items"] == expected
        assert log["rise_items"] == pytest.approx(rises[0 if expected else 1], abs=1e-6)
        taken.append(expected)
    assert any(taken)
    assert limit > 0 or not all(taken)


@pytest.mark.parametrize("noise", ["projected", "whole"])
@pytest.mark.parametrize("make", [factors, light_gcn])
def test_noise_that_is_not_judged_is_projected_or_whole(make, noise, graph, monkeypatch):
    monkeypatch.setattr(module, "_RISE", -math.inf)
    model, request, objective = make(graph), request_of("user", graph), BPR(negatives=2, weight_decay=0.01)
    retained, _ = graph.split(request)
    started, done, log = refitted(model, graph, request, objective, negatives=1, noise=noise)
    terms = terms_of(model, graph, objective)
    (_, rows, ridge, noises), *_ = module._linear_terms(graph, retained, request.mask(graph), *terms, "judged")
    table, risk = started.embedding.weight.detach(), risk_of(started, retained, objective)
    mine, other = noises if noise == "projected" else noises[::-1]
    expected = module.minimise(risk, table, rows, ridge, mine)[0]
    torch.testing.assert_close(done.embedding.weight.detach()[rows], expected)
    assert not torch.allclose(expected, module.minimise(risk, table, rows, ridge, other)[0])
    assert not {"rise_items", "projected_items"} & set(log)


@pytest.mark.parametrize("own", [0, 1])
def test_other_negatives_are_those_of_some_interactions_evenly_spaced(own, monkeypatch):
    monkeypatch.setattr(module, "_OTHERS", 10)
    graph, nodes = random_graph(12, 9, 60), torch.tensor([1, 4, 6])
    risk = risk_of(factors(graph), graph, BPR(negatives=3))
    mine = torch.isin(graph.pairs[own], nodes).nonzero().view(-1)
    step = -(-len(mine) // 10)
    assert step > 1
    found = module.redrawn_risk(risk, graph, own, nodes)
    expected = {tuple(graph.pairs[:, k].tolist()) for k in mine[::step].tolist()}
    assert {*zip(found.samples.users.tolist(), found.samples.items.tolist())} == expected
    drawn = draw_negatives(graph, found.samples.users, found.samples.items, 3, 1_000_003)
    assert torch.equal(found.samples.negatives, drawn)
    assert len(module.redrawn_risk(risk, graph, own, nodes, lambda count: 2 * count).samples) < len(expected)
    squared = risk_of(factors(graph), graph, SquaredError())
    assert module.redrawn_risk(squared, graph, own, nodes) is squared


def terms_of(model, graph, objective):
    """The trained table, the gradient of the risk, the final embeddings and the ridges."""
    risk = risk_of(model, graph, objective)
    gradient = risk.gradient(risk.parameters).view_as(risk.table)
    return risk.table, gradient, risk.at(risk.parameters)[0], Ridges(risk, gradient)


def test_parts_that_fit_into_memory_give_the_same(graph, monkeypatch):
    found = []
    request = ForgetRequest.internal("user", torch.tensor([1, 2]))
    for pairs, matrices in ((1, 10**6), (10**6, 2), (10**6, 10**6)):
        monkeypatch.setattr(span, "_PAIRS", pairs)
        monkeypatch.setattr(span, "_MATRICES", matrices)
        found.append(refitted(factors(graph), graph, request, BPR())[1].embedding.weight)
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


def test_without_an_emptied_node_nothing_changes(graph):
    model, request = factors(graph), ForgetRequest.internal("interaction", graph.pairs[:, :1])
    started, done, log = refitted(model, graph, request, BPR())
    assert log == {}
    assert torch.equal(started.embedding.weight, done.embedding.weight)


def test_a_model_that_is_not_linear_is_left_alone_and_the_log_says_so(graph):
    started, done, log = refitted(two_tower(graph), graph, request_of("user", graph), BPR())
    assert log == {"skipped": "TwoTower does not propagate one table linearly"}
    before = started.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in done.state_dict().items())


def test_only_neighbours_of_emptied_nodes_change(graph):
    request = request_of("user", graph)
    started, done, log = refitted(light_gcn(graph), graph, request, BPR())
    changed = (started.embedding.weight != done.embedding.weight).any(1).nonzero().view(-1) - graph.num_users
    retained, _ = graph.split(request)
    own = graph.pairs[1, graph.pairs[0] == 2].unique()
    own = own[~graph.emptied(retained)[own + graph.num_users]]
    assert torch.equal(changed, own)
    assert log["items"] == len(own)


@pytest.mark.parametrize("loss", [BPR(negatives=1), SampledBCE(negatives=1)], ids=["bpr", "sampled bce"])
def test_every_loss_with_negatives_draws_enough_of_them(loss):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1), request_of("user", graph)
    fit(model, graph, objective=loss, epochs=20)
    found = [refitted(model, graph, request, objective) for objective in (loss, loss.with_negatives(32))]
    torch.testing.assert_close(found[0][1].embedding.weight, found[1][1].embedding.weight)
    assert found[0][2] == found[1][2]
    assert found[0][2]["items"] > 0


def test_labels_that_are_all_one_without_the_request_leave_the_fit_out():
    pairs = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 0, 2]])
    graph = InteractionGraph.from_edges(pairs, label=torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    result = Calibrate(objective=BCE()).unlearn(factors(graph), graph, ForgetRequest.internal("user", [0]))
    reason = "the retained graph must hold an interaction with label 0 to be trained with BCE (got only label 1)"
    assert result.log["refit"] == {"skipped": reason}
    with pytest.raises(
        ValueError,
        match=r"'request' must leave a graph that BCE can be trained on .got only label 1.; the retained graph must",
    ):
        Calibrate(objective=BCE(), epochs=1).unlearn(factors(graph), graph, ForgetRequest.internal("user", [0]))


def test_calibrate_changes_the_items_of_emptied_users_only(graph):
    model, request = light_gcn(graph, scale=0.5), request_of("user", graph)
    result = Calibrate(on_rejection="keep").unlearn(model, graph, request)
    redrawn = UnlinkRedraw().unlearn(model, graph, request)
    users = slice(0, graph.num_users)
    changed = (result.model.embedding.weight != redrawn.model.embedding.weight).any(1)
    assert not changed[users].any()
    assert int(changed[graph.num_users :].sum()) == result.log["refit"]["items"] > 0
    assert result.log["steered"] == 0


@pytest.mark.parametrize("rejection", ["keep", "unlink"])
def test_ifru_fits_the_items_after_its_step(rejection):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1).float(), request_of("user", graph)
    fit(model, graph, objective=BPR(), epochs=20)
    step, whole = (
        IFRU(refit=refit, on_rejection=rejection, within_noise=0.0).unlearn(model, graph, request)
        for refit in (False, True)
    )
    assert step.accepted
    assert "refit" not in step.log
    expected = copy.deepcopy(step.model)
    removed, objective = request.mask(graph), IFRU()._objective(graph)
    log = refit_neighbours(expected, model, graph, step.graph, removed, objective, noise="judged")
    torch.testing.assert_close(whole.model.embedding.weight, expected.embedding.weight)
    assert whole.log["refit"] == log
    assert log["items"] > 0
    assert "refit" not in IFRU(prune=0.5, on_rejection="keep").unlearn(model, graph, request).log


class Judging:
    """Verdicts in the order of the models that are judged; the steps that were judged are kept."""

    solves, number = False, 1

    def __init__(self, *verdicts):
        self.verdicts, self.steps = list(verdicts), []

    def judge(self, model):
        self.steps.append(copy.deepcopy(model.embedding.weight.detach()))
        return Judged(None, None, None, self.verdicts.pop(0), "so it was said")

    def record(self, _):
        return {}


def prepared(method, model, graph):
    if method.needs_preparation:
        method.prepare(model, graph, progress=False)
    return method


FITTED = [Calibrate(), UnlearnRec(settings=FitSettings(epochs=3), pretraining=EncoderSettings(steps=20), requests=2)]


@pytest.mark.parametrize("method", FITTED, ids=lambda m: m.name)
def test_where_the_fit_is_rejected_one_that_keeps_the_noise_is_tried_first(method, monkeypatch):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1).float(), request_of("user", graph)
    fit(model, graph, objective=BPR(), epochs=20)
    judging = Judging(False, True)
    monkeypatch.setattr(accepting, "judging_of", lambda *_, **__: judging)
    method = prepared(method, model, graph)
    result = method.unlearn(model, graph, request)
    assert result.log["acceptance"]["outcome"] == "milder"
    assert [tried["what"] for tried in result.log["acceptance"]["tried"]] == [
        "the fit that keeps the noise of training"
    ]
    assert {"refit", "refused_step"} <= set(result.log)
    retained, _ = graph.split(request)
    for noise, step in zip(("projected", "whole"), judging.steps, strict=True):
        started = copy.deepcopy(model)
        warm_start(started, graph, retained, 0, scale=False)
        refit_neighbours(started, model, graph, retained, request.mask(graph), BPR(), noise=noise)
        torch.testing.assert_close(step[graph.num_users :], started.embedding.weight[graph.num_users :])
    assert torch.equal(result.model.embedding.weight, judging.steps[1])
    assert not torch.equal(*judging.steps)


@pytest.mark.parametrize("method", FITTED, ids=lambda m: m.name)
def test_where_nothing_was_fitted_a_rejected_step_is_shortened_at_once(method, monkeypatch):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1).float(), ForgetRequest.internal("interaction", graph.pairs[:, ::50])
    fit(model, graph, objective=BPR(), epochs=20)
    monkeypatch.setattr(accepting, "judging_of", lambda *_, **__: Judging(False, True))
    method = prepared(method, model, graph)
    with pytest.warns(UserWarning, match="took 0.5 of the step"):
        result = method.unlearn(model, graph, request)
    assert result.log["acceptance"]["outcome"] == "shortened"


def test_a_fit_that_is_worse_than_deleting_the_edges_is_taken_back(monkeypatch):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1).float(), request_of("user", graph)
    fit(model, graph, objective=BPR(), epochs=20)

    def harmful(model, *_, journal, **__):
        journal.keep(model.embedding.weight, torch.arange(graph.num_users))
        with torch.no_grad():
            model.embedding.weight[: graph.num_users].mul_(-1)
        return {"items": 3}

    monkeypatch.setattr("graphunlearn.operators.ifru.method.refit_neighbours", harmful)
    result = IFRU().unlearn(model, graph, request)
    step = dataclasses.replace(IFRU(), refit=False).unlearn(model, graph, request)
    assert result.accepted
    assert torch.equal(result.model.embedding.weight, step.model.embedding.weight)
    assert "is" in result.log["refit"]["skipped"]


@pytest.mark.parametrize(("loss", "drawn"), [(BPR(), 32), (SampledBCE(), 32), (SampledSoftmax(negatives=3), 3)])
def test_the_fit_draws_its_own_negatives_where_the_step_has_fewer(loss, drawn, monkeypatch):
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model, request = factors(graph, scale=0.1).float(), request_of("user", graph)
    fit(model, graph, objective=loss, epochs=20)
    seen = []
    minimise = module.minimise

    def watched(risk, *args, **options):
        seen.append((risk.objective.negatives, risk.samples.negatives.size(1)))
        return minimise(risk, *args, **options)

    monkeypatch.setattr(module, "minimise", watched)
    assert "refit" in IFRU(objective=loss, negatives=3, within_noise=0.001).unlearn(model, graph, request).log
    assert seen
    assert set(seen) == {(drawn, drawn)}
