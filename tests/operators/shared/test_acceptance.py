"""Corrections are compared with deleting the edges: figures against naive loops, and what happens to bad steps."""

import copy
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from toys import REQUESTS, factors, light_gcn, random_graph, two_tower

import graphunlearn as gu
from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions, synthetic_sessions
from graphunlearn.errors import ArgumentError, RejectedError
from graphunlearn.nn import BPR, CrossEntropy, build_model, risk_of
from graphunlearn.operators import Unlearner, UnlinkRedraw, registry
from graphunlearn.operators.shared import acceptance, accepting
from graphunlearn.operators.shared.acceptance import Acceptance, lowest


@pytest.fixture(autouse=True)
def _registry_as_it_was():
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


def worse(**kwargs):
    """A method whose step only makes the model worse: it multiplies all embeddings by a factor."""

    @dataclass(kw_only=True)
    class Worse(Unlearner):
        name: ClassVar[str] = "worse"
        kinds: ClassVar[tuple[str, ...]] = ("interactions", "sessions")
        factor: float = -30.0
        gentler: tuple[float, ...] = ()
        steps: list = field(default_factory=list, repr=False)

        @torch.no_grad()
        def _unlearn(self, model, graph, retained, request):
            self.steps.append(self.factor)
            for p in model.parameters():
                p *= self.factor
            return {"factor": self.factor} | ({"first": True} if len(self.steps) == 1 else {})

        def milder(self, log):
            for factor in self.gentler:
                other = copy.copy(self)
                other.factor = factor
                yield f"factor {factor:g}", other

    return Worse(**kwargs)


def state(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def trained():
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    model = build_model("lightgcn", graph, 8)
    gu.fit(model, graph, epochs=40, progress=False)
    return model, graph, ForgetRequest("user", graph.user_ids[:3])


def judged(model, graph, request, corrected, objective, **kwargs):
    retained, _ = graph.split(request)
    deleted = UnlinkRedraw().unlearn(model, graph, request).model
    judge = Acceptance(objective, model, deleted, graph, retained, request, **kwargs)
    return judge, judge.judge(corrected), retained, deleted


@pytest.mark.parametrize("make", [light_gcn, factors, two_tower], ids=lambda f: f.__name__)
@pytest.mark.parametrize("level", sorted(REQUESTS))
def test_risk_and_tilted_risk_are_those_of_all_samples(make, level):
    graph = random_graph()
    model, corrected, request = make(graph).double(), make(graph, seed=5).double(), REQUESTS[level](graph)
    objective = BPR(negatives=16, weight_decay=0.1)
    judge, found, retained, deleted = judged(model, graph, request, corrected, objective)
    theta = state(corrected)
    risk = risk_of(corrected, retained, objective)
    tilt = risk_of(model, graph, objective).gradient(state(model))
    emptied = graph.emptied(retained)
    rows = torch.cat(
        [
            torch.full((p.numel(),), -1) if p.size(0) not in sizes(graph) else owners(p, name, graph)
            for name, p in model.named_parameters()
        ]
    )
    tilt[(rows >= 0) & emptied[rows.clamp(min=0)]] = 0
    num = retained.num_interactions
    assert judge.whole
    assert found.risk == pytest.approx(risk.value(theta) / num, rel=1e-9)
    assert found.tilted == pytest.approx((risk.value(theta) - float(tilt @ theta)) / num, rel=1e-9)
    assert found.gradient == pytest.approx(float((risk.gradient(theta) - tilt).norm()) / num, rel=1e-9)
    start, step = state(deleted), theta - state(deleted)
    slopes = [float((risk.gradient(at) - tilt) @ step) / num for at in (start, theta)]
    assert (found.share, found.beyond) == pytest.approx(lowest(*slopes), rel=1e-6)
    losses = objective.losses(deleted, retained, objective.samples(retained)).detach()
    error = float(losses.std(correction=0)) / num**0.5
    assert judge.limit == pytest.approx(float(losses.mean()) * 1.04 + 2 * error, rel=1e-9)


@pytest.mark.parametrize("slopes", [(-1, 3), (-3, 1), (-2, -1), (-1, -2), (1, 2), (2, 1), (1, -3), (3, -1), (0, 0)])
def test_the_lowest_point_along_a_step_is_that_of_a_grid(slopes):
    grid = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    values = slopes[0] * grid + (slopes[1] - slopes[0]) * grid.square() / 2
    share, beyond = lowest(*map(float, slopes))
    assert beyond == pytest.approx(float(values[-1] - values.min()), abs=1e-7)
    if any(slopes):
        assert share == pytest.approx(float(grid[values.argmin()]), abs=1e-3)


def sizes(graph):
    return (graph.num_users, graph.num_items, graph.num_nodes)


def owners(p, name, graph):
    start = graph.num_users if "item" in name else 0
    return (torch.arange(p.size(0)) + start).repeat_interleave(p.numel() // p.size(0))


def test_a_sample_estimates_what_all_samples_give_and_all_are_looked_at_in_doubt(trained, monkeypatch):
    model, graph, request = trained
    corrected = copy.deepcopy(model)
    with torch.no_grad():
        corrected.embedding.weight *= 0.97
    objective = BPR(negatives=16)
    whole, exact, *_ = judged(model, graph, request, corrected, objective)
    monkeypatch.setitem(acceptance.SAMPLED, "interactions", (100, 5))
    part, found, *_ = judged(model, graph, request, corrected, objective, seed=1)
    assert len(part.chosen) == 105 < part.number == whole.number
    assert not part.whole
    assert float(part.weight.sum()) == pytest.approx(part.number)
    assert part.judge(corrected).risk - part.risk == pytest.approx(exact.risk - whole.risk, abs=0.3 * part.error)
    assert found.risk == pytest.approx(exact.risk, abs=4 * part.error * (part.number / 105) ** 0.5)
    rise = (found.risk - part.risk - 2 * part.error) / part.risk  # the sample then finds the model at the limit
    monkeypatch.setattr(acceptance, "RISE", rise)
    judge, found, *_ = judged(model, graph, request, corrected, objective, seed=1)
    assert judge.whole
    assert (found.risk, judge.risk) == pytest.approx((exact.risk, whole.risk), rel=1e-9)


def test_four_times_as_many_are_looked_at_until_the_answer_is_clear(trained, monkeypatch):
    model, graph, request = trained
    corrected = copy.deepcopy(model)
    with torch.no_grad():
        corrected.embedding.weight *= 0.97
    monkeypatch.setitem(acceptance.SAMPLED, "interactions", (10, 3))
    looks = []

    def undecided(found, deleted, limit, margin, solves, times):
        looks.append((times, margin))
        return times < 16

    monkeypatch.setattr(acceptance, "undecided", undecided)
    judge, found, *_ = judged(model, graph, request, corrected, BPR(negatives=16))
    assert [times for times, _ in looks] == [1, 4, 16]
    assert looks[0][1] > looks[2][1]
    affected = len(judge.affected)
    assert len(judge.chosen) == min(160, affected) + min(48, judge.number - affected) < judge.number
    assert float(judge.weight.sum()) == pytest.approx(judge.number)
    assert found.accepted == judge.judge(corrected).accepted


@pytest.mark.parametrize(("times", "open_yet"), [(1, True), (4, True), (16, False)])
def test_figures_of_more_samples_are_clear_nearer_to_the_limit(times, open_yet):
    deleted = acceptance.Judged(1.0, 1.0, 1.0, True)
    found = acceptance.Judged(1.01, 1.0, 1.04, True, share=0.5, beyond=0.0025 * 1.1)
    # 4 % above a gradient of 1, within 10 % / sqrt(times); 1.1 within 1.25^(1/sqrt(times))
    for solves in (True, False):
        assert acceptance.undecided(found, deleted, 2.0, 0.0, solves, times) is open_yet
    assert acceptance.undecided(found, deleted, 1.01, 0.0, None, times)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_bad_step_leaves_the_model_with_edges_deleted(trained, inplace):
    model, graph, request = trained
    before = copy.deepcopy(model)
    expected = UnlinkRedraw().unlearn(model, graph, request).model
    with pytest.warns(UserWarning, match="worse made a step that is worse than deleting the edges: the mean loss"):
        result = worse().unlearn(model, graph, request, inplace=inplace)
    assert not result.accepted
    assert torch.equal(state(result.model), state(expected))
    record = result.log["acceptance"]
    assert record["outcome"] == "unlink-redraw"
    assert record["corrected"]["risk"] > record["limit"] > record["deleted"]["risk"]
    assert record["tried"] == []  # the tilted risk is lowest after less than a tenth of the step
    assert record["corrected"]["share"] < 0.1
    assert result.log == {"refused_step": {"factor": -30.0, "first": True}, "acceptance": record}
    assert torch.equal(state(model), state(expected if inplace else before))


def test_keep_keeps_it_and_raise_raises(trained):
    model, graph, request = trained
    before = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = worse(on_rejection="keep").unlearn(model, graph, request)
    assert (kept.accepted, kept.log["acceptance"]["outcome"]) == (False, "kept")
    assert torch.equal(state(kept.model), before * -30)
    for inplace in (False, True):
        with pytest.raises(RejectedError, match="worse than deleting the edges"):
            worse(on_rejection="raise").unlearn(model, graph, request, inplace=inplace)
        assert torch.equal(state(model), before)
    assert "refused_step" not in kept.log


@pytest.mark.parametrize("name", sorted(registry))
def test_every_operator_checks_what_to_do_with_a_refused_step_at_once(name):
    sentence = r"'on_rejection' must be one of unlink, keep, raise \(got 'drop'\)"
    with pytest.raises(ArgumentError, match=sentence):
        registry[name](on_rejection="drop")
    method = registry[name](on_rejection="raise")
    with pytest.raises(ArgumentError, match=sentence):
        method.on_rejection = "drop"
    assert method.on_rejection == "raise"


def test_milder_steps_are_tried_in_order_and_then_shorter_ones(trained):
    model, graph, request = trained
    method = worse(gentler=(-20.0, 1.0, 2.0))
    result = method.unlearn(model, graph, request)
    assert result.accepted
    assert result.log["acceptance"]["outcome"] == "milder"
    assert [entry["what"] for entry in result.log["acceptance"]["tried"]] == ["factor -20", "factor 1"]
    assert method.steps == [-30.0, -20.0, 1.0]
    refused = {"factor": -30.0, "first": True}
    assert result.log == {"factor": 1.0, "refused_step": refused, "acceptance": result.log["acceptance"]}
    assert torch.equal(state(result.model), state(model))


def test_what_only_deletes_or_retrains_is_not_judged(trained):
    model, graph, request = trained
    for name in ("unlink", "unlink-redraw", "retrain"):
        result = registry[name]().unlearn(model, graph, request)
        assert result.accepted
        assert "acceptance" not in result.log


def test_sessions_are_judged_by_a_sample_of_kept_clicks():
    graph = synthetic_sessions(num_sessions=40, num_items=20, seed=0)
    model = build_model("gru4rec", graph, 8)
    gu.fit(model, graph, epochs=5, progress=False)
    request = ForgetRequest("session", graph.session_ids[:3])
    with pytest.warns(UserWarning, match="worse than deleting"):
        result = worse().unlearn(model, graph, request)
    retained, _ = graph.split(request)
    loss = CrossEntropy()
    deleted = UnlinkRedraw().unlearn(model, graph, request).model
    losses = loss.losses(deleted.eval(), retained, loss.samples(retained))
    record = result.log["acceptance"]
    assert record["deleted"] == {
        "risk": pytest.approx(float(losses.mean()), rel=1e-5),
        "tilted": None,
        "gradient": None,
    }
    assert record["of"] == record["samples"] == len(losses)
    assert torch.equal(state(result.model), state(deleted))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_four_times_as_many_clicks_are_looked_at_in_doubt(monkeypatch):
    graph = synthetic_sessions(num_sessions=40, num_items=20, seed=0)
    model = build_model("gru4rec", graph, 8)
    gu.fit(model, graph, epochs=5, progress=False)
    request = ForgetRequest("session", graph.session_ids[:3])
    monkeypatch.setitem(acceptance.SAMPLED, "sessions", (5, 2))
    for times, samples in ((1, 7), (4, 28)):
        monkeypatch.setattr(acceptance, "undecided", lambda *given, most=times: given[-1] < most)
        record = worse(on_rejection="keep").unlearn(model, graph, request).log["acceptance"]
        assert record["samples"] == samples < record["of"]
    monkeypatch.setattr(acceptance, "undecided", lambda *_: True)
    record = worse(on_rejection="keep").unlearn(model, graph, request).log["acceptance"]
    assert record["samples"] == record["of"]


def test_the_loss_that_fits_better_judges(trained, monkeypatch):
    model, graph, request = trained
    other = gu.SampledBCE(negatives=2)
    method = worse(on_rejection="keep")
    plain = method.unlearn(model, graph, request).log["acceptance"]["deleted"]["risk"]
    monkeypatch.setattr(accepting, "fitting_loss", lambda *_: other)
    changed = method.unlearn(model, graph, request).log["acceptance"]["deleted"]["risk"]
    retained, _ = graph.split(request)
    deleted, loss = UnlinkRedraw().unlearn(model, graph, request).model, other.with_negatives(16)
    losses = loss.losses(deleted, retained, loss.samples(retained))
    assert changed == pytest.approx(float(losses.mean()), rel=1e-5)
    assert changed != plain


def test_ifru_offers_no_scaled_start_and_then_more_damping():
    log = {"damping": 0.2}
    tried = list(gu.IFRU().milder(log))
    assert [(m.warm_start, m.damping) for _, m in tried] == [(False, None), (False, 1.0), (False, 5.0)]
    assert [m._least_gradient for _, m in tried] == [True, False, False]
    given = gu.IFRU(damping=0.2)
    assert [(m.warm_start, m.damping) for _, m in given.milder(log)] == [(False, 0.2), (False, 1.0), (False, 5.0)]
    assert [m.damping for _, m in gu.IFRU(damping=0.2, warm_start=False).milder(log)] == [1.0, 5.0]


def test_without_a_loss_of_what_remains_nothing_is_judged():
    graph = random_graph()
    label = torch.ones(graph.num_interactions)
    label[:2] = 0
    graph = gu.InteractionGraph.from_edges(graph.pairs, label=label, num_users=7, num_items=6)
    request = ForgetRequest.internal("interaction", graph.pairs[:, graph.label == 0])
    method = worse()
    method.objective = gu.BCE()
    result = method.unlearn(light_gcn(graph), graph, request)
    assert result.accepted
    assert result.log["acceptance"]["outcome"] == "not judged"
    assert "label 0" in result.log["acceptance"]["reason"]


@pytest.mark.parametrize(
    ("tilted", "steepness", "accepted"),
    [
        (0.9, 2.0, True),  # the tilted risk falls
        (1.1, 0.5, True),  # its gradient falls
        (1.1, 2.0, False),
        (float("nan"), 2.0, False),
    ],
)
def test_a_method_that_minimises_the_tilted_risk_must_lower_it_or_its_gradient(
    trained, monkeypatch, tilted, steepness, accepted
):
    model, graph, request = trained
    judge, *_ = judged(model, graph, request, model, BPR(negatives=16), solves=True)
    judge.tilted, judge.steepness = 1.0, 1.0
    monkeypatch.setattr(judge, "_tilted", lambda *_: tilted)
    monkeypatch.setattr(acceptance, "_norm", lambda *_: steepness)
    found = judge.judge(model)
    assert found.accepted is accepted
    assert ("the gradient of the tilted risk" in found.reason) is not accepted


@pytest.mark.parametrize(
    ("beyond", "accepted"), [(0.0, True), (0.00249, True), (0.00251, False), (float("nan"), False)]
)
def test_another_method_must_not_step_far_beyond_the_minimum(trained, monkeypatch, beyond, accepted):
    model, graph, request = trained
    for solves, rise in ((False, 1.01), (False, 0.99), (True, 1.01), (None, 1.01)):
        judge, *_ = judged(model, graph, request, model, BPR(negatives=16), solves=solves)
        monkeypatch.setattr(acceptance, "lowest", lambda *_, most=judge.risk: (0.4, beyond * most))
        measured = judge._measured(model)._replace(losses=judge.losses * rise, encoded=None)
        monkeypatch.setattr(judge, "_measured", lambda *_, found=measured: found)
        found = judge.judge(model)
        assert found.accepted is (accepted or solves is not False or rise < 1)
        assert ("lowest after 0.4 of the step" in found.reason) is not found.accepted


@pytest.mark.parametrize(("best", "tried"), [(1.0, [0.5, 0.25]), (0.8, [0.4, 0.2]), (0.3, [0.15]), (0.02, [])])
def test_a_rejected_step_is_shortened_to_half_of_where_the_tilted_risk_is_lowest(trained, monkeypatch, best, tried):
    model, graph, request = trained
    found = acceptance.Judged(1.0, 1.0, 1.0, False, "of a test", share=best)
    monkeypatch.setattr(Acceptance, "judge", lambda *_: found)
    with pytest.warns(UserWarning, match="of a test"):
        record = worse().unlearn(model, graph, request).log["acceptance"]
    assert [entry["what"] for entry in record["tried"]] == [f"{share:g} of the step" for share in tried]


def test_a_shortened_step_is_that_part_of_the_step(trained, monkeypatch):
    model, graph, request = trained
    answers = [acceptance.Judged(1.0, 1.0, 1.0, accepted, "of a test", share=0.3) for accepted in (False, True)]
    monkeypatch.setattr(Acceptance, "judge", lambda *_: answers.pop(0))
    result = worse(factor=2.0).unlearn(model, graph, request)
    assert (result.accepted, result.log["acceptance"]["outcome"], result.log["factor"]) == (True, "shortened", 2.0)
    deleted = state(UnlinkRedraw().unlearn(model, graph, request).model)
    torch.testing.assert_close(state(result.model), torch.lerp(deleted, state(model) * 2.0, 0.15))


@pytest.mark.parametrize("size", [50, 100_000])  # a part of a permutation, and draws with repetition
def test_subsets_are_distinct_and_uniform(size):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([acceptance.subset(size, 40, generator) for _ in range(2_000)])
    assert bool((drawn.diff(dim=1) > 0).all())
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < size
    below = float((drawn < size // 4).double().mean())
    assert below == pytest.approx((size // 4) / size, abs=5 * (0.25 * 0.75 / drawn.numel()) ** 0.5)
