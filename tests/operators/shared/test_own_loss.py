"""Whether a model is near stationary for a loss, and the warning of methods that are given another loss."""

import copy
import math
import re
import warnings

import pytest
import torch
from toys import factors, random_graph, two_tower

import graphunlearn as gu
from graphunlearn.errors import RejectedError
from graphunlearn.nn import BPR, InBatchSoftmax, MatrixFactorization, SampledBCE, SquaredError, losses_by_fit, risk_of
from graphunlearn.operators.shared.checks import check_precision
from graphunlearn.operators.shared.own_loss import check_loss


@pytest.fixture(scope="module")
def graph():
    return gu.datasets.synthetic_interactions(num_users=150, num_items=80, interactions_per_user=12, seed=0)


@pytest.fixture(scope="module")
def ranked(graph):
    torch.manual_seed(0)
    model = MatrixFactorization(graph.num_nodes, 8)
    gu.fit(model, graph, objective=BPR(), epochs=80)
    return model


def told(method, model, graph):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_loss(method, model, graph)
    return [str(w.message) for w in caught]


def test_the_figures_are_those_of_the_risk():
    graph = random_graph(20, 15, 100)
    for model in (factors(graph), two_tower(graph)):
        got = gu.stationarity(model, graph, SquaredError())
        risk = risk_of(model, graph, SquaredError())
        theta, slope = risk.parameters, risk.gradient(risk.parameters)
        cosine = torch.nn.functional.cosine_similarity(-slope, theta, dim=0)
        assert got.ridge_cosine == pytest.approx(float(cosine), rel=1e-9)
        assert got.gradient == pytest.approx(float(slope.norm()), rel=1e-9)
        assert got.num_samples == 100
        rest = slope + max(0.0, -float(slope @ theta) / float(theta @ theta)) * theta
        assert got.residual == pytest.approx(float(rest.norm()) / got.shuffled, rel=1e-9)


def test_the_verdict_of_trained_models(graph, ranked):
    own, other = gu.stationarity(ranked, graph, BPR()), gu.stationarity(ranked, graph, SampledBCE(negatives=4))
    assert own.verdict == "near stationary"
    assert own.ridge_cosine > 0.1
    assert other.verdict == "far from stationary"
    fits = losses_by_fit(ranked, graph)
    assert [fit.residual for fit in fits] == sorted(fit.residual for fit in fits)
    assert fits[0].objective == BPR(weight_decay=0.0)


def test_the_mean_over_draws_is_that_of_the_gradients(graph, ranked):
    losses = [BPR(seed=k * 7_919) for k in range(3)]
    got = gu.stationarity(ranked, graph, BPR(), draws=3)
    risks = [risk_of(ranked, graph, loss) for loss in losses]
    slope = torch.stack([risk.gradient(risk.parameters).double() for risk in risks]).mean(0)
    assert got.gradient == pytest.approx(float(slope.norm()), rel=1e-5)
    assert got.residual < gu.stationarity(ranked, graph, BPR()).residual
    assert gu.stationarity(ranked, graph, SquaredError(), draws=3) == gu.stationarity(ranked, graph, SquaredError())


@pytest.mark.parametrize("negatives", [2, 4])
def test_the_mean_over_draws_finds_a_loss_of_few_negatives(graph, negatives):
    torch.manual_seed(1)
    model = MatrixFactorization(graph.num_nodes, 8)
    gu.fit(model, graph, objective=SampledBCE(negatives=negatives), epochs=80)
    assert type(losses_by_fit(model, graph, draws=1)[0].objective) is not SampledBCE  # one draw is not enough
    assert losses_by_fit(model, graph)[0].objective == SampledBCE(weight_decay=0.0, negatives=negatives)


def test_the_warning_lists_every_loss_that_is_near(graph):
    torch.manual_seed(1)
    model = MatrixFactorization(graph.num_nodes, 8)
    gu.fit(model, graph, objective=gu.SampledSoftmax(negatives=8), epochs=80)
    near = [fit for fit in losses_by_fit(model, graph) if fit.verdict == "near stationary"]
    assert len(near) > 1
    (said,) = told(gu.IFRU(objective=SampledBCE(negatives=4)), model, graph)
    names = re.search("fit better: (.*), among which the order does not tell", said)[1]
    wanted = [type(fit.objective).__name__ for fit in near]
    assert [name.split(" (")[0].split("(")[0] for name in names.split(", ")] == wanted


def test_a_sample_of_users_gives_the_same_verdict(graph, ranked):
    few = gu.stationarity(ranked, graph, BPR(), num_samples=700)
    assert 600 < few.num_samples <= 700
    assert few.verdict != "far from stationary"
    assert few == gu.stationarity(ranked, graph, BPR(), num_samples=700)
    assert few != gu.stationarity(ranked, graph, BPR(), num_samples=700, seed=1)
    assert gu.stationarity(ranked, graph, BPR(), num_samples=1).num_samples > 1  # one user at least
    far = gu.stationarity(ranked, graph, SampledBCE(negatives=4), num_samples=700)
    assert far.verdict == "far from stationary"


def test_nothing_is_changed_and_no_random_number_drawn(graph, ranked):
    before, state, slope = ranked.embedding.weight.detach().clone(), torch.random.get_rng_state(), torch.zeros(230, 8)
    ranked.embedding.weight.grad = slope
    ranked.train()
    trained = gu.stationarity(ranked, graph)
    assert ranked.training
    ranked.eval()
    assert trained == gu.stationarity(ranked, graph)
    assert torch.equal(before, ranked.embedding.weight)
    assert torch.equal(state, torch.random.get_rng_state())
    assert ranked.embedding.weight.grad is slope
    assert not slope.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"graph": gu.SessionGraph.from_sequences([[0, 1]])},
            r"'graph' must be an InteractionGraph \(got a Session",
        ),
        ({"graph": 3}, r"'graph' must be an InteractionGraph \(got a int\)"),
        (
            {"objective": gu.CrossEntropy()},
            r"'objective' must be a loss of interactions, an Objective \(got Cross",
        ),
        ({"objective": "bpr"}, r"'objective' must be a loss of interactions, an Objective \(got 'bpr'\)"),
        ({"num_samples": 0}, r"'num_samples' must be at least 1 \(got 0\)"),
        ({"num_samples": 1.5}, r"'num_samples' must be a whole number \(got 1.5\)"),
        ({"model": math.nan}, r"'model' must have finite parameters \(got NaN or infinity in embedding.weight\)"),
    ],
)
def test_arguments_of_stationarity(change, message):
    graph = random_graph()
    model = factors(graph)
    if "model" in change:
        model.embedding.weight.data[3] = change["model"]
    given = {"graph": graph, "objective": SquaredError(), "num_samples": 100} | change | {"model": model}
    with pytest.raises(ValueError, match=message):
        gu.stationarity(**given)


def test_labels_and_ratings_add_their_losses():
    graph = random_graph(20, 15, 100)
    kinds = [type(fit.objective).__name__ for fit in losses_by_fit(factors(graph), graph)]
    assert {"BCE", "SquaredError"} < set(kinds)
    bare = random_graph(20, 15, 100, values=False)
    kinds = [type(fit.objective).__name__ for fit in losses_by_fit(factors(bare), bare)]
    assert not {"BCE", "SquaredError"} & set(kinds)


WRONG, REQUEST = SampledBCE(negatives=4), gu.ForgetRequest("user", ["u3"])
REASON = r"the model does not look trained with SampledBCE\(negatives=4\), the loss that {}.* fit better: .*BPR \("


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, expected):
    return all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [gu.IFRU, gu.Calibrate])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_step_with_a_loss_that_does_not_fit_is_refused_and_not_computed(graph, ranked, kind, inplace, monkeypatch):
    model, method = copy.deepcopy(ranked), kind(objective=WRONG)
    expected = gu.operators.UnlinkRedraw().unlearn(model, graph, REQUEST).model.state_dict()
    monkeypatch.setattr(kind, "_unlearn", lambda *_: pytest.fail("a step was computed"))
    monkeypatch.setattr(kind, "_finish", lambda *_: pytest.fail("a step was finished"))
    with pytest.warns(UserWarning) as caught:
        result = method.unlearn(model, graph, REQUEST, inplace=inplace)
    (said,) = caught  # one warning, at the beginning or at the end
    assert said.filename == __file__
    assert re.match(REASON.format(method.name), str(said.message))
    assert f"{method.name} then only deletes the edges; pass the loss" in str(said.message)
    assert not result.accepted
    record = {"accepted": False, "outcome": "unlink-redraw", "corrected": None, "tried": []}
    assert result.log == {"acceptance": record | {"reason": str(said.message).split(f"; {method.name} then")[0]}}
    assert same(result.model, expected)
    assert same(model, expected if inplace else state(ranked))


def test_the_next_requests_are_refused_without_another_check(graph, ranked, monkeypatch):
    method, model = gu.IFRU(objective=WRONG), ranked
    for user in ("u3", "u5", "u7"):
        with pytest.warns(UserWarning, match=REASON.format("ifru")) as caught:
            result = method.unlearn(model, graph, gu.ForgetRequest("user", [user]))
        assert len(caught) == 1
        assert not result.accepted
        model, graph = result.model, result.graph
        monkeypatch.setattr("graphunlearn.operators.shared.own_loss.stationarity", lambda *_: pytest.fail("checked"))
    few = graph.select(torch.arange(999))  # too few to be checked, but the model is known
    with pytest.warns(UserWarning, match=REASON.format("ifru")):
        assert not method.unlearn(model, few, gu.ForgetRequest.internal("interaction", few.pairs[:, :3])).accepted


def test_keep_keeps_a_step_with_a_loss_that_does_not_fit(graph, ranked, monkeypatch):
    method = gu.IFRU(objective=WRONG, on_rejection="keep")
    with pytest.warns(UserWarning, match=REASON.format("ifru")) as caught:
        result = method.unlearn(ranked, graph, REQUEST)
    assert "only deletes" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is told once
        again = method.unlearn(result.model, result.graph, gu.ForgetRequest("user", ["u5"]))
    for found in (result, again):
        record = found.log["acceptance"]
        assert (found.accepted, record["outcome"], record["tried"]) == (False, "kept", [])
        assert re.match(REASON.format("ifru"), record["reason"])
        assert record["corrected"]["risk"] > 0
    monkeypatch.setattr(gu.IFRU, "checks_loss", False)
    plain = gu.IFRU(objective=WRONG, on_rejection="keep").unlearn(ranked, graph, REQUEST)
    assert same(result.model, plain.model.state_dict())
    assert "damping" in result.log


def test_raise_raises_before_anything_is_computed(graph, ranked):
    model, method = copy.deepcopy(ranked), gu.UnlearnRec(objective=WRONG, on_rejection="raise")
    for _ in range(2):
        with pytest.raises(RejectedError, match=REASON.format("unlearnrec") + ".*; pass the loss"):
            method.prepare(model, graph)
    method = gu.IFRU(objective=WRONG, on_rejection="raise")
    for inplace in (False, True):
        with warnings.catch_warnings(), pytest.raises(RejectedError, match=REASON.format("ifru")):
            warnings.simplefilter("error")
            method.unlearn(model, graph, REQUEST, inplace=inplace)
        assert same(model, state(ranked))


def test_the_loss_of_the_training_and_an_untrained_model_are_not_refused(graph, ranked):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gu.IFRU(objective=BPR()).unlearn(ranked, graph, REQUEST).accepted
    torch.manual_seed(0)
    untrained = MatrixFactorization(graph.num_nodes, 8)
    assert gu.stationarity(untrained, graph, WRONG).verdict == "far from stationary"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the model does not look trained")
        log = gu.IFRU(objective=WRONG).unlearn(untrained, graph, REQUEST).log
    assert log["acceptance"]["corrected"]["risk"] is not None  # a step was judged by its figures


def test_which_methods_are_told(graph, ranked):
    for epochs in (0, 1):  # the step for the neighbours of emptied nodes uses the loss, as fine-tuning does
        assert told(gu.Calibrate(objective=SampledBCE(negatives=4), epochs=epochs), ranked, graph)
    assert told(gu.UnlearnRec(objective=SampledBCE(negatives=4)), ranked, graph)


def test_graphs_are_checked_from_a_thousand_interactions_on():
    graph = gu.datasets.synthetic_interactions(num_users=90, num_items=50, interactions_per_user=16, seed=0)
    method, graph = gu.IFRU(objective=SampledBCE(negatives=4)), graph.select(torch.arange(1000))
    model = MatrixFactorization(graph.num_nodes, 8)
    gu.fit(model, graph, objective=BPR(), epochs=20, lr=0.05)
    assert not told(method, model, graph.select(torch.arange(999)))
    assert told(method, model, graph)


@pytest.mark.parametrize(
    "objective", [BPR(), SampledBCE(), InBatchSoftmax(batch_size=256)], ids=["bpr", "bce", "batch"]
)
@pytest.mark.parametrize("epochs", [0, 5, 60])
def test_no_warning_on_a_models_own_loss(graph, objective, epochs):
    torch.manual_seed(1)
    model = MatrixFactorization(graph.num_nodes, 8)
    if epochs:
        gu.fit(model, graph, objective=objective, epochs=epochs)
    assert not told(gu.IFRU(objective=objective), model, graph)


def test_what_is_not_checked(graph, ranked):
    wrong = SampledBCE(negatives=4)
    assert not told(gu.FineTune(objective=wrong), ranked, graph)
    small = random_graph()
    assert not told(gu.IFRU(objective=wrong), factors(small), small)
    frozen = MatrixFactorization(graph.num_nodes, 8).requires_grad_(False)
    assert not told(gu.IFRU(objective=wrong), frozen, graph)


# ---- bad input


def test_half_precision_is_refused(graph):
    model = MatrixFactorization(graph.num_nodes, 8)
    for dtype in (torch.half, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        with pytest.raises(ValueError, match=rf"single or double precision \(got {kind} in embedding.weight\)"):
            gu.IFRU().unlearn(model.to(dtype), graph, gu.ForgetRequest("user", ["u3"]))
    check_precision(model.double())


@pytest.mark.parametrize("objective", ["BCE", "SampledBCE"])
def test_labels_that_are_all_one(objective):
    graph = random_graph(20, 15, 100)
    graph["user", "interacts", "item"].label = torch.ones(100)
    if objective == "BCE":
        with pytest.raises(ValueError, match=r"'graph' must hold an interaction with label 0.*SampledBCE"):
            gu.fit(factors(graph), graph, epochs=1)
    else:
        gu.fit(factors(graph), graph, objective=SampledBCE(), epochs=1)


@pytest.mark.parametrize(("row", "where"), [(2, "1 of 7 user"), (9, "1 of 6 item")])
def test_nan_in_recommend(row, where):
    graph = random_graph()
    model = factors(graph)
    with torch.no_grad():
        model.embedding.weight[row] = torch.nan
    with pytest.raises(ValueError, match=rf"'model' must give finite embeddings \(got NaN or infinity in {where}"):
        gu.recommend(model, graph, 2)
