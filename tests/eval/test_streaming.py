"""Lanes through a stream against the same steps taken one by one, with figures computed by hand."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from session_toys import random_sessions, session_graph

import graphunlearn as gu
from graphunlearn.eval import Lane, Scenario, arriving, follow, removal, sensitive, spam_sessions
from graphunlearn.eval.scenarios.stream import united
from graphunlearn.eval.streaming import LANES, REFERENCES
from graphunlearn.ledger.drift import Drift
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor
from graphunlearn.nn.training import anew

pytestmark = pytest.mark.filterwarnings("ignore:.*of recommending the items")
SETTINGS = gu.nn.FitSettings(epochs=3)


@pytest.fixture(scope="module")
def stream():
    graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12)
    return arriving(sensitive(graph, graph.item_ids[:15], share=0.5), count=8)


@pytest.fixture(scope="module")
def model(stream):
    made = gu.nn.build_model("mf", stream.scenario.train, 8)
    gu.nn.reset_parameters(made, 0)
    gu.fit(made, stream.scenario.train, validation=stream.scenario.validation, settings=SETTINGS, progress=False)
    return made


def retrained(stream, model, count, seed):
    settings = gu.nn.FitSettings(epochs=3, seed=seed)
    method = gu.Retrain(objective=gu.BPR(), validation=stream.scenario.validation, settings=settings)
    return method.unlearn(model, stream.scenario.train, stream.until(count))


def probabilities(model, graph, pairs):
    users, items, *_ = gu.encode(model, graph)
    return torch.sigmoid((users[pairs[0]] * items[pairs[1]]).sum(1)).detach()


def test_figures_are_those_of_single_steps(stream, model):
    lanes = [Lane(method=gu.Unlink(), batch=3), Lane(method=gu.IFRU(on_rejection="keep"), batch=4)]
    told = []
    shared = {"objective": gu.BPR(), "settings": SETTINGS, "retrain_seeds": 2, "looks": (0.5, 1.0)}
    looks = []
    found = follow(stream, model, lanes, **shared, deadline=1e-9, on_looks=looks.append, on_lane=told.append)
    assert looks == [{"deadline": 1e-9, "looks": found["looks"]}]
    assert [lane["lane"] for lane in found["lanes"]] == ["unlink, batches of 3", "ifru, batches of 4"]
    assert told == found["lanes"] and found["deadline"] == 1e-9
    assert [batch["requests"] for batch in told[0]["batches"]] == [3, 4, 7, 8]  # a batch ends at a look at the latest
    assert [row["late_batches"] for row in told[0]["rows"]] == [2, 4]
    assert [batch["outcome"] for batch in told[0]["batches"]] == [None] * 4
    outcomes = [batch["outcome"] for batch in told[1]["batches"]]
    case = stream.scenario
    gone = case.train.split(stream.until(8))[1].pairs
    references = [retrained(stream, model, 8, REFERENCES + k) for k in range(2)]
    probable = [probabilities(r.model, r.graph, gone) for r in references]
    state, drift = (model, case.train), None
    for half in (0, 4):
        request = stream.requests[half]
        for other in stream.requests[half + 1 : half + 4]:
            request = request | other
        method = gu.IFRU(objective=gu.BPR(), on_rejection="keep")
        result = method.unlearn(*state, request)
        drift = Drift.after(drift, *state, result.model, result.graph, gu.BPR(), 1e9)
        state = result.model, result.graph
        assert outcomes.pop(0) == result.log["acceptance"]["outcome"]
    row = told[1]["rows"][-1]
    away = distance_to_retrain(probabilities(*state, gone), probable) / noise_floor(probable)
    assert row["distance_forget"] == pytest.approx(away, rel=1e-5)
    assert row["drift"] == pytest.approx(drift.spent, rel=1e-6)
    assert row["cpu_seconds_in_all"] == pytest.approx(sum(b["cpu_seconds"] for b in told[1]["batches"]))
    users = {user for request in stream.requests for user, _ in request.index}
    held = 0
    for user in state[1].vocabulary("user").lookup(sorted(users)).tolist():
        lists = gu.recommend(*state, k=10, users=torch.tensor([user]))[0].tolist()
        held += any(item in case.category.tolist() for item in lists)
    assert row["sensitive@10"] == pytest.approx(held / len(users))
    look = found["looks"][-1]
    assert (look["requests"], look["forgotten"]) == (8, gone.size(1))
    before = distance_to_retrain(probabilities(model, case.train, gone), probable) / noise_floor(probable)
    assert look["original"]["distance_forget"] == pytest.approx(before, rel=1e-5)
    assert row["recall@20_over_retrain"] == pytest.approx(row["recall@20"] / look["retrained"]["recall@20"])


@pytest.mark.parametrize(
    ("options", "retrained_at"), [({"budget": 1e-12}, [2, 4, 6, 8]), ({"every": 4}, [4, 8]), ({"budget": 1e12}, [])]
)
def test_lanes_retrain_when_the_drift_or_the_schedule_says_so(stream, model, options, retrained_at):
    lane = Lane(method=gu.Unlink(), batch=2, **options)
    shared = {"objective": gu.BPR(), "settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,)}
    told = follow(stream, model, [lane], **shared)["lanes"][0]
    assert [batch["requests"] for batch in told["batches"] if batch["retrained"]] == retrained_at
    assert told["rows"][0]["retrainings"] == len(retrained_at)
    assert (told["rows"][0]["drift"] == 0) == bool(retrained_at)  # a model that was just trained has not drifted
    if retrained_at:  # the last batch is retrained on all that is retained
        gone = stream.scenario.train.split(stream.until(8))[1].pairs
        probable = [probabilities(r.model, r.graph, gone) for r in (retrained(stream, model, 8, s) for s in (50, 51))]
        own = retrained(stream, model, 8, LANES)
        away = distance_to_retrain(probabilities(own.model, own.graph, gone), probable) / noise_floor(probable)
        assert told["rows"][0]["distance_forget"] == pytest.approx(away, rel=1e-5)


def test_a_method_that_fails_says_when(stream, model):
    @dataclass(kw_only=True)
    class Breaking(gu.Unlearner):
        name: ClassVar[str] = "breaking"
        judged: ClassVar[bool] = False
        error: Exception

        def _unlearn(self, model, graph, retained, request):
            if graph.num_interactions < stream.scenario.train.num_interactions:
                raise self.error
            return {}

    try:
        shared = {"settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,)}
        for error, words in ((FloatingPointError("it broke"), "it broke"), (KeyError("key"), "KeyError: 'key'")):
            told = follow(stream, model, [Lane(method=Breaking(error=error)), Lane(method=gu.Unlink())], **shared)[
                "lanes"
            ]
            assert (
                told[0]["failed"] == f"after 1 request: {words}" and told[0]["rows"] == [] and len(told[1]["rows"]) == 1
            )
            assert [batch["requests"] for batch in told[0]["batches"]] == [1]
    finally:
        del gu.operators.registry["breaking"]


def test_sessions_are_followed_with_the_items_that_spam_promotes():
    graph = session_graph(random_sessions(120, 60, seed=0), 60)
    stream = arriving(spam_sessions(graph, share=0.05, targets=1), count=4)
    made = gu.nn.GRU4Rec(60, 8)
    settings = gu.nn.FitSettings(epochs=1, lr=0.01)
    shared = {"settings": settings, "retrain_seeds": 2, "looks": (1.0,)}
    told = follow(stream, made, [Lane(method=gu.Unlink(), batch=4)], **shared)
    row = told["lanes"][0]["rows"][0]
    assert row["distance_test"] > 0 and 0 <= row["target_exposure@20"] <= 1
    assert row["mrr@20_over_retrain"] == pytest.approx(row["mrr@20"] / told["looks"][0]["retrained"]["mrr@20"])


def test_settings_that_are_no_such_numbers_are_refused(stream, model):
    for options, expected in (
        *(({"batch": 0}, "'batch' must be at least 1"), ({"every": 0}, "'every' must be at least 1")),
        *(({"batch": None}, "'batch' must be a whole number"), ({"every": 1.5}, "'every' must be a whole number")),
        *(({"budget": -1.0}, "'budget' must be positive"), ({"budget": "half"}, "'budget' must be positive, or None")),
        ({"method": gu.Unlink}, "'method' must be an unlearning method"),
    ):
        with pytest.raises(ValueError, match=expected):
            Lane(**{"method": gu.Unlink(), **options})
    for looks in ((), (0.0, 1.0), (1.0, 0.5), (0.5, 1.5), "all"):
        with pytest.raises(ValueError, match="'looks' must be ascending shares"):
            follow(stream, model, [], looks=looks)
    for options, expected in (
        *(
            ({"retrain_seeds": 1}, "'retrain_seeds' must be at least 2"),
            ({"retrain_seeds": 2.5}, "'retrain_seeds' must"),
        ),
        *(({"deadline": -1.0}, "'deadline' must be positive"), ({"deadline": 0}, "'deadline' must be positive")),
    ):
        with pytest.raises(ValueError, match=expected):
            follow(stream, model, [], **options)
    with pytest.raises(ValueError, match="'lanes' must hold lanes"):
        follow(stream, model, [gu.Unlink()])


def test_lanes_are_named_by_what_they_do():
    assert str(Lane(method=gu.Unlink())) == "unlink"
    assert str(Lane(method=gu.IFRU(), batch=2, every=10)) == "ifru, batches of 2, retrained every 10"
    assert str(Lane(method=gu.IFRU(settle=True), label="ifru-settled", every=10)) == "ifru-settled, retrained every 10"


def test_whole_users_are_followed(model):
    graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12)
    stream = arriving(removal(graph, "user", share=0.1), count=3)
    told = follow(
        stream, model, [Lane(method=gu.operators.UnlinkRedraw())], settings=SETTINGS, retrain_seeds=2, looks=(1.0,)
    )
    assert "sensitive@10" not in told["lanes"][0]["rows"][0]
    assert [batch["requests"] for batch in told["lanes"][0]["batches"]] == [1, 2, 3]


def test_sharded_methods_are_followed_from_their_own_ensembles(stream, model):
    shared = {"objective": gu.BPR(), "settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,)}
    lanes = [Lane(method=gu.SISA(num_shards=2), batch=4, **more) for more in ({}, {"budget": 1e-12})]
    told = follow(stream, model, lanes, **shared)["lanes"]
    assert not any("failed" in lane for lane in told)
    method = gu.SISA(num_shards=2, validation=stream.scenario.validation, objective=gu.BPR(), settings=SETTINGS)
    method.prepare(model, stream.scenario.train)
    state, drift = (model, stream.scenario.train), None
    for half in (0, 4):
        result = method.unlearn(*state, united(stream.requests[half : half + 4]))
        start = state[0] if result.original is None else result.original
        drift = Drift.after(drift, start, state[1], result.model, result.graph, gu.BPR(), 1e9)
        state = result.model, result.graph
    gone = stream.scenario.train.split(stream.until(8))[1].pairs
    probable = [probabilities(r.model, r.graph, gone) for r in (retrained(stream, model, 8, s) for s in (50, 51))]
    found = [(*state, told[0]["rows"][0]), (*_pair(retrained(stream, model, 8, LANES)), told[1]["rows"][0])]
    for served, graph, row in found:  # the second is retrained after every batch, as one model without shards
        away = distance_to_retrain(probabilities(served, graph, gone), probable) / noise_floor(probable)
        assert row["distance_forget"] == pytest.approx(away, rel=1e-5)
    assert told[0]["rows"][0]["drift"] == pytest.approx(drift.spent, rel=1e-5)
    assert [batch["retrained"] for batch in told[1]["batches"]] == [True, True]


def _pair(result):
    return result.model, result.graph


def test_retraining_as_a_method_has_no_drift(stream, model):
    shared = {"settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,)}
    told = follow(stream, model, [Lane(method=gu.Retrain(), batch=4)], **shared)["lanes"][0]
    assert [(batch["retrained"], batch["drift"]) for batch in told["batches"]] == [(True, None), (True, None)]
    assert told["rows"][0]["retrainings"] == 2 and told["rows"][0]["drift"] == 0


def test_a_quality_of_zero_leaves_the_share_open(stream, model):
    shared = {"settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,)}

    def spoil(report):
        report["looks"][0]["retrained"]["recall@20"] = 0.0

    told = follow(stream, model, [Lane(method=gu.Unlink(), batch=8)], on_looks=spoil, **shared)["lanes"][0]
    assert "failed" not in told and told["rows"][0]["recall@20_over_retrain"] is None


def test_every_preparation_is_counted_once(stream, model, monkeypatch):
    clock = [0.0]

    @dataclass(kw_only=True)
    class Learning(gu.Unlearner):
        name: ClassVar[str] = "learning"
        needs_preparation: ClassVar[bool] = True

        def _prepare(self, model, graph, checkpoint, progress):
            clock[0] += 5.0

        def _unlearn(self, model, graph, retained, request):
            clock[0] += 1.0
            return {}

    shared = {"settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,), "deadline": 3.0}
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    try:
        told = follow(stream, model, [Lane(method=Learning(), batch=4, every=8)], **shared)["lanes"][0]
    finally:
        del gu.operators.registry["learning"]
    assert told["prepare_cpu_seconds"] == 5
    assert [batch["cpu_seconds"] for batch in told["batches"]] == [1, 5]  # the second: trained and prepared again
    assert told["rows"][0]["cpu_seconds_in_all"] == 6 and told["rows"][0]["late_batches"] == 1


def test_retraining_after_corrections_stops_early_without_all_who_were_emptied(model, monkeypatch):
    graph, held, test = gu.datasets.synthetic_interactions(
        num_users=60, num_items=40, interactions_per_user=12
    ).random_split([0.7, 0.2, 0.1], seed=0)
    gone = held.pairs[0].unique()[:4]
    request = gu.ForgetRequest.internal("user", gone)
    stream, given = arriving(Scenario("mine", graph, held, test, request)), []

    def watched(model, graph, *, validation=None, **rest):
        given.append(set(validation.pairs[0].tolist()))
        return gu.fit(model, graph, validation=validation, **rest)

    monkeypatch.setattr(anew, "fit", watched)
    shared = {"settings": SETTINGS, "retrain_seeds": 2, "looks": (1.0,)}
    follow(stream, model, [Lane(method=gu.Unlink(), every=2)], **shared)
    users, asked = set(held.pairs[0].tolist()), [graph.user_ids.index(request.index[0]) for request in stream.requests]
    assert set(asked) == set(gone.tolist())
    assert given == [users - set(asked)] * 2 + [users - set(asked[:2]), users - set(asked)]
