"""What every unlearning method keeps, whatever it does: the suite runs over the registry.

``tests/testing`` calls the suite that comes with the package; here are all models, all levels and every refusal.
"""

import copy
import json
from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch
from session_toys import random_sessions, session_graph
from torch import nn
from torch_geometric.nn import LightGCN
from toys import TwoTower, random_graph

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn import (
    SRGNN,
    FitSettings,
    GRU4Rec,
    MatrixFactorization,
    SASRec,
    encode,
    fit,
    recommend,
    reset_parameters,
)
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import EncoderSettings, PublishedSettings, Unlearner, UnlearningResult, registry
from graphunlearn.operators.shards.sharded import Sharded

BRIEF = FitSettings(epochs=4, batch_size=64)
SHORTEST = FitSettings(epochs=1, batch_size=64)
SESSIONS = random_sessions(24, 12, seed=1)
HELD_OUT = session_graph(random_sessions(10, 12, seed=2), 13)

# shorter than the defaults, where the defaults are long; what sessions are held out is asked for by some
QUICK = {
    "retrain": {"settings": BRIEF},
    "finetune": {"epochs": 2},
    "ascent": {"steps": 3},
    "ascent-finetune": {"steps": 3, "finetune_steps": 3},
    "negative-kl": {"steps": 4},
    "popularity-kl": {"steps": 3},
    "gnndelete": {"steps": 5},
    "gnndelete-published": {"steps": 5},
    "gif": {"max_iter": 10},
    "gif-published": {"max_iter": 10},
    "ceu": {"max_iter": 10},
    "idea": {"max_iter": 10},
    "scif": {"max_iter": 10},
    "sisa": {"num_shards": 2, "settings": SHORTEST},
    "receraser": {"num_shards": 2, "settings": SHORTEST},
    "ultrare": {"num_shards": 2, "settings": SHORTEST},
    "sru": {"num_shards": 2, "settings": SHORTEST, "validation": HELD_OUT},
    "cau": {"steps": 4, "epochs": 1, "validation": HELD_OUT},
    "cau-published": {"steps": 4, "epochs": 1, "validation": HELD_OUT},
    "unlearnrec-published": {"epochs": 1, "published": PublishedSettings(epochs=2)},
    "unlearnrec": {
        "settings": FitSettings(epochs=2),
        "share": 0.4,
        "requests": 2,
        "pretraining": EncoderSettings(steps=60),
    },
}

UNSERVED = {"alteraser": ("foreign",), "cova": ("foreign",), "ifru-published": ("foreign",)}
"""Models that a method refuses: without propagation there must be a linearly propagated table."""

SHARED = {"ultrare": ("mf", "foreign", "lightgcn with labels")}
"""Models with which a method does nothing else than another one: here, what RecEraser does after the partition."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:the influence system was solved"),
    pytest.mark.filterwarnings("ignore:the request takes"),
]

PREPARED = {}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
    ),
]

MODELS = {
    "interactions": {
        "lightgcn": lambda g: LightGCN(g.num_nodes, 4, 2),
        "mf": lambda g: MatrixFactorization(g.num_nodes, 4),
        "foreign": lambda g: TwoTower(g.num_users, g.num_items, 4),
        "lightgcn with labels": lambda g: LightGCN(g.num_nodes, 4, 2),
    },
    "sessions": {
        "gru4rec": lambda g: GRU4Rec(g.num_items, 4),
        "srgnn": lambda g: SRGNN(g.num_items, 4),
        "sasrec": lambda g: SASRec(g.num_items, 4),
    },
}

# of interactions: user 3 and item 5 lose everything when they are forgotten; node 13 never had anything
# of sessions: 3 and 8 go whole, item 5 goes everywhere, and first, last and neighbouring clicks go
REQUESTS = {
    "interactions": {
        "interaction": lambda g: ForgetRequest.internal("interaction", g.pairs[:, [0, 7, 20]]),
        "user": lambda g: ForgetRequest("user", ["3", "8"]),
        "item": lambda g: ForgetRequest("item", [5]),
        "mixed": lambda g: ForgetRequest("user", ["3"]) | ForgetRequest("item", ["2"]),
    },
    "sessions": {
        "click": lambda g: ForgetRequest.internal("click", clicks_of(g)[:, [0, 7, 8, 20, g.num_clicks - 1]]),
        "session": lambda g: ForgetRequest("session", ["3", "8"]),
        "item": lambda g: ForgetRequest("item", ["5"]),
        "user": lambda g: ForgetRequest("user", ["3"]),
        "mixed": lambda g: ForgetRequest("session", ["3"]) | ForgetRequest("item", ["2"]),
    },
}


def clicks_of(graph):
    """Session and position of every click."""
    return torch.stack([graph.session, graph.position])


def pytest_generate_tests(metafunc):
    """Run every method on graphs of every kind that it serves: on one model, or on all, and with one request or all."""
    if "method" not in metafunc.fixturenames:
        return
    cases = []
    for name in sorted(registry):
        for kind in registry[name].kinds:
            fitting = [model for model in MODELS[kind] if model not in (*UNSERVED.get(name, ()), *SHARED.get(name, ()))]
            models = fitting if "every_kind" in metafunc.fixturenames else fitting[:1]
            levels = list(REQUESTS[kind]) if "request_of" in metafunc.fixturenames else ["mixed"]
            cases += [(name, kind, models[0], level) for level in levels]
            others = levels if kind == "interactions" else ["mixed"]  # what clicks do is the same for all
            cases += [(name, kind, model, level) for model in models[1:] for level in others]
    ids = ["-".join(dict.fromkeys([name, model, level])) for name, _, model, level in cases]
    metafunc.parametrize("case", cases, ids=ids, scope="module")


@pytest.fixture
def method(case, trained):
    name = case[0]
    made = registry[name](**QUICK.get(name, {}))
    if made.needs_preparation:  # once per trained model: what is tested is what comes after
        if (key := (name, fingerprint(trained[0]))) not in PREPARED:
            made.prepare(*trained)
            PREPARED[key] = made
        made = copy.deepcopy(PREPARED[key])
        made.prepare_seconds = None
    return made


def make_graph(kind, model):
    if kind == "sessions":
        length = torch.tensor([len(session) for session in SESSIONS])
        ptr = torch.cat([length.new_zeros(1), length.cumsum(0)])
        items = torch.tensor([item for session in SESSIONS for item in session])
        return SessionGraph.from_sequences(items, ptr, num_items=13, user=torch.arange(len(SESSIONS)) // 2)
    graph = random_graph(14, 11, 60, seed=1, values=False)
    graph = graph.select(graph.pairs[0] != 13)
    if "labels" in model:
        label = (torch.rand(graph.num_interactions, generator=torch.Generator().manual_seed(2)) < 0.6).float()
        graph = InteractionGraph.from_edges(graph.pairs, 14, 11, label=label)
    return graph


TRAINED = {}


@pytest.fixture
def trained(case):
    """A trained model and its graph: of every kind where a test asks for it, else one of each kind of graph."""
    _, kind, name, _ = case
    if name not in TRAINED:
        graph = make_graph(kind, name)
        model = MODELS[kind][name](graph)
        reset_parameters(model, 0)
        fit(model, graph, epochs=10, lr=0.05)
        for parameter in model.parameters():
            parameter.grad = None
        TRAINED[name] = model, graph
    return TRAINED[name]


@pytest.fixture
def every_kind():
    """Asks for all models; see :func:`pytest_generate_tests`."""


@pytest.fixture
def model(trained):
    return copy.deepcopy(trained[0])


@pytest.fixture
def graph(trained):
    return trained[1]


@pytest.fixture
def request_of(case, graph):
    return REQUESTS[case[1]][case[3]](graph)


@pytest.fixture
def one_request(case, graph):
    return REQUESTS[case[1]]["mixed"](graph)


@pytest.fixture
def start(method, model):
    """What can be corrected in place: the model, or what the method serves in its place."""
    return copy.deepcopy(method.preparation.module) if isinstance(method, Sharded) else model


@dataclass
class Call:
    """A call of a method, and whether the model, the graph and the random state were kept."""

    method: Unlearner
    model: nn.Module
    request: ForgetRequest
    result: UnlearningResult
    kept: dict[str, bool]


CALLS = {}


@pytest.fixture
def called(case, method, model, graph, request_of):
    """One call for all tests of a case that look at what it did, and change nothing of it."""
    if case not in CALLS:
        before, held, named, random = state(model), content(graph), graph.fingerprint(), torch.random.get_rng_state()
        result = method.unlearn(model, graph, request_of)
        kept = {
            "model": same_state(before, state(model)),
            "gradients": all(p.grad is None for p in model.parameters()),
            "graph": graph.fingerprint() == named and same_state(held, content(graph)),
            "random state": torch.equal(random, torch.random.get_rng_state()),
        }
        CALLS.clear()
        CALLS[case] = Call(method, model, request_of, result, kept)
    return CALLS[case]


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_state(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def content(graph):
    """All that a graph holds, by name."""
    held = graph.to_dict() if isinstance(graph, SessionGraph) else dict(graph[EDGE_TYPE].items())
    return {name: value.clone() for name, value in held.items() if isinstance(value, torch.Tensor)}


def place(graph):
    return (graph.alias if isinstance(graph, SessionGraph) else graph.pairs).device


# ---- what is handed back


def test_every_method_is_a_dataclass_of_keywords_with_a_name():
    for name, cls in registry.items():
        assert cls.name == name
        assert is_dataclass(cls)
        assert all(f.kw_only for f in fields(cls) if f.init)
        assert issubclass(cls, Unlearner)
        assert set(cls.kinds) <= {"interactions", "sessions"}
        assert cls.kinds
        assert set(cls.levels) <= {*InteractionGraph.levels, *SessionGraph.levels}
        assert cls.__doc__
        assert cls() == cls()
        assert f"{cls.__name__}(" in repr(cls())


def test_the_model_before_and_the_graph_before_stay_as_they_were(every_kind, called):
    assert called.kept == dict.fromkeys(["model", "gradients", "graph", "random state"], True)
    model, after = called.model, called.result.model
    assert after is not model
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in after.parameters()}


def test_the_graph_after_is_the_graph_without_the_request(every_kind, called, graph, request_of):
    result = called.result
    mask, after = request_of.mask(graph), result.graph
    top = recommend(result.model, after, k=5)
    assert (after.num_items, after.item_ids) == (graph.num_items, graph.item_ids)
    if isinstance(graph, SessionGraph):
        assert torch.equal(after.items, graph.items[~mask])
        assert after.session_ids == [graph.session_ids[i] for i in graph.session[~mask].unique().tolist()]
        assert top.shape == (after.num_sessions, 5)
        return
    assert torch.equal(after.pairs, graph.pairs[:, ~mask])
    assert (after.num_users, after.user_ids) == (graph.num_users, graph.user_ids)
    if graph.label is not None:
        assert torch.equal(after.label, graph.label[~mask])
    assert top.shape == (14, 5)


def test_the_model_after_is_a_model_of_the_same_kind(every_kind, called, method, start):
    result = called.result
    assert (result.original is not None) == isinstance(method, Sharded)
    model = start  # which is another one where the method serves models of its own
    before, after = model.state_dict(), result.model.state_dict()
    assert type(result.model) is type(model)
    assert list(before) == list(after)
    for name in before:
        assert before[name].shape == after[name].shape
        assert before[name].dtype == after[name].dtype
        assert torch.isfinite(after[name]).all()
    assert [p.requires_grad for p in result.model.parameters()] == [p.requires_grad for p in model.parameters()]
    users, items, *_ = encode(result.model, result.graph)
    assert torch.isfinite(users).all()
    assert torch.isfinite(items).all()


def test_the_result_says_what_was_done(every_kind, called, method, graph):
    result = called.result
    assert isinstance(result, UnlearningResult)
    assert result.method == method.name
    assert result.request is called.request
    assert result.seconds > 0
    assert result.cpu_seconds >= 0
    assert result.prepare_seconds is None
    assert isinstance(result.peak_memory, int)
    assert result.peak_memory >= 0
    assert json.loads(json.dumps(result.log, allow_nan=False)) == result.log
    assert f"method={method.name!r}" in repr(result)
    what = "clicks" if isinstance(graph, SessionGraph) else "interactions"
    assert f"{result.graph.num_interactions} {what} kept" in repr(result)


def test_the_same_call_gives_the_same_model(every_kind, called, model, graph, request_of):
    torch.randn(7)
    again = copy.deepcopy(called.method).unlearn(model, graph, request_of)
    assert same_state(state(called.result.model), state(again.model))


def test_preparing_changes_no_answer(every_kind, method, model, graph, one_request):
    plain = method.unlearn(model, graph, one_request)
    before = state(model)
    prepared = copy.deepcopy(method)
    prepared.prepare(model, graph)
    assert same_state(before, state(model))
    result = prepared.unlearn(model, graph, one_request)
    assert result.prepare_seconds is not None
    assert result.prepare_seconds > 0
    assert same_state(state(plain.model), state(result.model))


def test_requests_can_follow_one_another(every_kind, method, model, graph):
    level = "session" if isinstance(graph, SessionGraph) else "user"
    first = method.unlearn(model, graph, ForgetRequest(level, ["3"]))
    second = method.unlearn(first.model, first.graph, ForgetRequest("item", ["2"]))
    if isinstance(graph, SessionGraph):
        assert "3" not in second.graph.session_ids
        assert not (second.graph.items == 2).any()
    else:
        assert not (second.graph.pairs[0] == 3).any()
        assert not (second.graph.pairs[1] == 2).any()
    assert all(torch.isfinite(p).all() for p in second.model.parameters())


@pytest.mark.parametrize("name", [name for name in sorted(registry) if "sessions" in registry[name].kinds])
@pytest.mark.parametrize("click", [(0, 0), (0, 1), (1, 1), (2, 0)], ids=str)
def test_next_to_nothing_is_served(name, click):
    """First clicks, last ones, whole sessions of one click; and what is left of a session is one click."""
    graph, held = session_graph([[0, 1], [2, 0, 0], [1], [1, 2]], 3), session_graph([[0, 2], [1]], 3)
    options = QUICK.get(name, {})
    method = registry[name](**options | ({"validation": held} if "validation" in options else {}))
    model = GRU4Rec(3, 4)
    if method.needs_preparation:
        method.prepare(model, graph)
    result = method.unlearn(model, graph, ForgetRequest.internal("click", torch.tensor([click]).t()))
    assert result.graph.num_clicks == 7
    assert torch.isfinite(encode(result.model, result.graph).queries).all()
    assert json.loads(json.dumps(result.log, allow_nan=False)) == result.log


# ---- modes, places and failures


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_training_mode_is_kept_part_by_part(every_kind, method, start, graph, one_request, training, inplace):
    model = start
    model.train(training)
    part = list(model.children())[-1]
    part.train(not training)
    result = method.unlearn(model, graph, one_request, inplace=inplace)
    for after in (model, result.model):
        assert after.training is training
        assert list(after.children())[-1].training is not training


def test_inplace_is_the_same_correction(every_kind, called, model, start, graph, request_of):
    method = called.method
    if start is not model:
        with pytest.raises(ValueError, match=rf"'inplace' must be False where {method.name} serves a model of its own"):
            method.unlearn(model, graph, request_of, inplace=True)
    model = start
    table = next(model.parameters())
    for parameter in model.parameters():  # as training leaves them behind
        parameter.grad = torch.randn_like(parameter)
    result = method.unlearn(model, graph, request_of, inplace=True)
    assert result.model is model
    assert all(p.grad is None for p in model.parameters())
    assert next(model.parameters()) is table  # an optimizer that holds the parameters still does
    assert same_state(state(called.result.model), state(model))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_model_as_it_was(method, start, graph, one_request, monkeypatch, error):
    model = start
    model.train()
    before = state(model)

    def fail(self, model, *_):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        raise error("on the way")

    monkeypatch.setattr(type(method), "_unlearn", fail)
    for inplace in (True, False):
        with pytest.raises(error, match="on the way"):
            method.unlearn(model, graph, one_request, inplace=inplace)
        assert same_state(before, state(model))
        assert model.training


@pytest.mark.parametrize("inplace", [True, False])
def test_a_result_that_is_not_finite_is_not_handed_back(method, start, graph, one_request, monkeypatch, inplace):
    model = start
    before = state(model)

    def spoil(self, model, *_):
        with torch.no_grad():
            list(model.parameters())[-1].fill_(float("inf"))
        return {}

    monkeypatch.setattr(type(method), "_unlearn", spoil)
    with pytest.raises(FloatingPointError, match=f"{method.name} left NaN or infinity in .*; the model is unchanged"):
        method.unlearn(model, graph, one_request, inplace=inplace)
    assert same_state(before, state(model))


# ---- bad input


def test_a_misspelt_option_is_refused(method):
    with pytest.raises(TypeError, match="objectiv"):
        type(method)(objectiv=None)
    with pytest.raises(TypeError):
        type(method)(None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_parameters_that_are_not_finite_are_refused(method, model, graph, one_request, bad):
    name, parameter = list(model.named_parameters())[-1]
    with torch.no_grad():
        parameter.view(-1)[2] = bad
    for call in (lambda: method.unlearn(model, graph, one_request), lambda: method.prepare(model, graph)):
        with pytest.raises(ValueError, match=f"'model' must have finite parameters.*{name}"):
            call()


def test_a_graph_that_does_not_fit_is_refused_and_the_model_left_alone(method, graph, one_request):
    if isinstance(graph, SessionGraph):
        model = GRU4Rec(graph.num_items + 1, 4).train()
        message = r"'graph' must have as many items as GRU4Rec has embeddings, 14 \(got 13\)"
    else:
        model = LightGCN(graph.num_nodes + 1, 4, 2).train()
        message = r"'graph' must have as many nodes as LightGCN has embeddings, 26 \(got 14 users"
    before = state(model)
    with pytest.raises(ValueError, match=message):
        method.unlearn(model, graph, one_request)
    assert model.training
    assert same_state(before, state(model))


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_graph_of_a_kind_that_is_not_served_is_refused(method, kind):
    name = next(iter(MODELS[kind]))
    graph = make_graph(kind, name)
    model = MODELS[kind][name](graph)
    calls = [lambda: method.prepare(model, graph), lambda: method.unlearn(model, graph, REQUESTS[kind]["mixed"](graph))]
    needed = "an InteractionGraph" if method.kinds[0] == "interactions" else "a SessionGraph"
    for call in calls if kind not in method.kinds else []:
        with pytest.raises(ValueError, match=rf"'graph' must be {needed} for {method.name} \(got an? \w+Graph\)"):
            call()


def test_a_model_of_the_other_kind_is_refused(method, case, graph, one_request):
    if case[1] == "sessions":
        model, message = LightGCN(25, 4, 2), r"'model' must be a session recommender .*\(got LightGCN\)"
    else:
        model, message = GRU4Rec(11, 4), r"'model' must be a user–item recommender .*\(got GRU4Rec\)"
    with pytest.raises(ValueError, match=message):
        method.unlearn(model, graph, one_request)


def test_a_model_that_nobody_knows_is_refused(method, graph, one_request):
    with pytest.raises(TypeError, match=r"'model' must be a recommender that 'encode' supports \(got Linear\)"):
        method.unlearn(nn.Linear(2, 2), graph, one_request)
    with pytest.raises(ValueError, match=r"'model' must have parameters \(got Identity with none\)"):
        method.unlearn(nn.Identity(), graph, one_request)


REFUSED = {
    "interactions": {
        "unknown id": (
            lambda g: ForgetRequest("user", ["nobody"]),
            r"'index' must hold users of the graph \(got 'nobody'",
        ),
        "unknown pair": (
            lambda g: ForgetRequest("interaction", [("13", "0")]),
            "'index' must hold interactions of the gr",
        ),
        "everything": (lambda g: ForgetRequest("user", g.user_ids), "'request' must leave some interactions"),
        "nothing": (lambda g: ForgetRequest("user", ["13"]), "'request' must match an interaction"),
    },
    "sessions": {
        "unknown id": (
            lambda g: ForgetRequest("session", ["no"]),
            r"'index' must hold sessions of the graph \(got 'no'",
        ),
        "unknown pair": (lambda g: ForgetRequest("click", [("3", 99)]), "'index' must hold clicks of the graph"),
        "everything": (lambda g: ForgetRequest("session", g.session_ids), "'request' must leave some"),
        "nothing": (lambda g: ForgetRequest("item", ["12"]), "'request' must match a click"),
    },
}


@pytest.mark.parametrize("why", list(REFUSED["sessions"]))
@pytest.mark.parametrize("inplace", [True, False])
def test_requests_that_cannot_be_served_are_refused(method, case, start, graph, why, inplace):
    model, (bad, message) = start, REFUSED[case[1]][why]
    before = state(model)
    model.train()
    with pytest.raises(ValueError, match=message):
        method.unlearn(model, graph, bad(graph), inplace=inplace)
    assert same_state(before, state(model))
    assert model.training


def test_a_level_that_is_not_served_is_refused(method, model, graph, one_request, monkeypatch):
    for levels in (InteractionGraph.levels, SessionGraph.levels):
        strange = set(levels) - set(graph.levels)
        for level in strange:  # of graphs of the other kind
            bad = ForgetRequest(level, [("3", 0)] if level in ("interaction", "click") else ["3"])
            with pytest.raises(ValueError, match=rf"must be of a level that {method.name} serves.*\(got {level}\)"):
                method.unlearn(model, graph, bad)
    monkeypatch.setattr(type(method), "levels", ("user",))
    with pytest.raises(ValueError, match=rf"must be of a level that {method.name} serves, user \(got (item|session)\)"):
        method.unlearn(model, graph, one_request)


@pytest.mark.parametrize("device", DEVICES)
def test_everything_stays_on_its_device(method, model, graph, one_request, device):
    result = method.unlearn(model.to(device), copy.copy(graph).to(device), one_request)
    assert {p.device.type for p in result.model.parameters()} == {device}
    assert place(result.graph).type == device


def test_a_graph_elsewhere_is_refused(method, model, graph, one_request):
    with pytest.raises(ValueError, match=r"'graph' must be on the model's device, cpu \(got meta\)"):
        method.unlearn(model, copy.copy(graph).to("meta"), one_request)
