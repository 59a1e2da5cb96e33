"""What every unlearning method keeps, whatever it does: the suite runs over the registry."""

import copy
import json
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import nn
from torch_geometric.nn import LightGCN
from toys import TwoTower, random_graph

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph
from graphunlearn.nn import FitSettings, MatrixFactorization, encode, fit, recommend, reset_parameters
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import Unlearner, UnlearningResult, registry

# shorter than the defaults, where the defaults are long
QUICK = {
    "retrain": {"settings": FitSettings(epochs=4)},
    "finetune": {"epochs": 2},
    "ascent": {"steps": 3},
    "unlearnrec": {"settings": FitSettings(epochs=2), "share": 0.4, "requests": 2},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the influence system was solved"),
    pytest.mark.filterwarnings("ignore:the request takes"),
]

PREPARED = {}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


@pytest.fixture(params=sorted(registry))
def method(request):
    made = registry[request.param](**QUICK.get(request.param, {}))
    if made.needs_preparation:  # once per trained model: what is tested is what comes after
        trained = request.getfixturevalue("trained")
        if (key := (request.param, fingerprint(trained[0]))) not in PREPARED:
            made.prepare(*trained)
            PREPARED[key] = made.preparation
        made.preparation = copy.deepcopy(PREPARED[key])
        made.prepare_seconds = None
    return made


def make_graph(labels):
    graph = random_graph(14, 11, 60, seed=1, values=False)
    # user 3 and item 5 lose everything when they are forgotten; node 13 never had anything
    graph = graph.select(graph.pairs[0] != 13)
    if labels:
        label = (torch.rand(graph.num_interactions, generator=torch.Generator().manual_seed(2)) < 0.6).float()
        graph = InteractionGraph.from_edges(graph.pairs, 14, 11, label=label)
    return graph


REQUESTS = {
    "interaction": lambda g: ForgetRequest.internal("interaction", g.pairs[:, [0, 7, 20]]),
    "user": lambda g: ForgetRequest("user", ["3", "8"]),
    "item": lambda g: ForgetRequest("item", [5]),
    "mixed": lambda g: ForgetRequest("user", ["3"]) | ForgetRequest("item", ["2"]),
}

MODELS = {
    "lightgcn": lambda g: LightGCN(g.num_nodes, 4, 2),
    "mf": lambda g: MatrixFactorization(g.num_nodes, 4),
    "foreign": lambda g: TwoTower(g.num_users, g.num_items, 4),
}


def train(kind):
    name, _, labels = kind.partition(" with ")
    graph = make_graph(bool(labels))
    model = MODELS[name](graph)
    reset_parameters(model, 0)
    fit(model, graph, epochs=10, lr=0.05)
    for parameter in model.parameters():
        parameter.grad = None
    return model, graph


@pytest.fixture(scope="module")
def lightgcn():
    return train("lightgcn")


@pytest.fixture(scope="module", params=["lightgcn", "mf", "foreign", "lightgcn with labels"])
def every_kind(request):
    return train(request.param)


@pytest.fixture
def trained(request):
    """Every kind of model where a test asks for it, else a LightGCN."""
    return request.getfixturevalue("every_kind" if "every_kind" in request.fixturenames else "lightgcn")


@pytest.fixture
def model(trained):
    return copy.deepcopy(trained[0])


@pytest.fixture
def graph(trained):
    return trained[1]


@pytest.fixture(params=list(REQUESTS))
def request_of(request, graph):
    return REQUESTS[request.param](graph)


@pytest.fixture
def one_request(graph):
    return REQUESTS["mixed"](graph)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_state(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# ---- what is handed back


def test_every_method_is_a_dataclass_of_keywords_with_a_name():
    for name, cls in registry.items():
        assert cls.name == name
        assert is_dataclass(cls)
        assert all(f.kw_only for f in fields(cls) if f.init)
        assert issubclass(cls, Unlearner)
        assert set(cls.levels) <= {"interaction", "user", "item"}
        assert cls.__doc__
        assert cls() == cls()
        assert f"{cls.__name__}(" in repr(cls())


def test_the_model_before_and_the_graph_before_stay_as_they_were(every_kind, method, model, graph, request_of):
    before, content = state(model), (graph.fingerprint(), graph.pairs.clone(), list(graph[EDGE_TYPE].keys()))
    random = torch.random.get_rng_state()
    result = method.unlearn(model, graph, request_of)
    assert result.model is not model
    assert same_state(before, state(model))
    assert all(p.grad is None for p in model.parameters())
    assert (graph.fingerprint(), list(graph[EDGE_TYPE].keys())) == (content[0], content[2])
    assert torch.equal(graph.pairs, content[1])
    assert torch.equal(random, torch.random.get_rng_state())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in result.model.parameters()}
    assert not shared


def test_the_graph_after_is_the_graph_without_the_request(every_kind, method, model, graph, request_of):
    result = method.unlearn(model, graph, request_of)
    mask = request_of.mask(graph)
    assert torch.equal(result.graph.pairs, graph.pairs[:, ~mask])
    assert (result.graph.num_users, result.graph.num_items) == (graph.num_users, graph.num_items)
    assert result.graph.user_ids == graph.user_ids
    if graph.label is not None:
        assert torch.equal(result.graph.label, graph.label[~mask])
    top = recommend(result.model, result.graph, k=5)
    assert top.shape == (14, 5)


def test_the_model_after_is_a_model_of_the_same_kind(every_kind, method, model, graph, request_of):
    result = method.unlearn(model, graph, request_of)
    before, after = model.state_dict(), result.model.state_dict()
    assert type(result.model) is type(model)
    assert list(before) == list(after)
    for name in before:
        assert before[name].shape == after[name].shape
        assert before[name].dtype == after[name].dtype
        assert torch.isfinite(after[name]).all()
    assert [p.requires_grad for p in result.model.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(torch.isfinite(rows).all() for rows in encode(result.model, result.graph))


def test_the_result_says_what_was_done(every_kind, method, model, graph, request_of):
    result = method.unlearn(model, graph, request_of)
    assert isinstance(result, UnlearningResult)
    assert result.method == method.name
    assert result.request is request_of
    assert result.seconds > 0
    assert result.cpu_seconds >= 0
    assert result.prepare_seconds is None
    assert isinstance(result.peak_memory, int)
    assert result.peak_memory >= 0
    assert json.loads(json.dumps(result.log, allow_nan=False)) == result.log
    assert f"method={method.name!r}" in repr(result)
    assert f"{result.graph.num_interactions} interactions kept" in repr(result)


def test_the_same_call_gives_the_same_model(every_kind, method, model, graph, request_of):
    first = method.unlearn(model, graph, request_of)
    torch.randn(7)
    second = copy.deepcopy(method).unlearn(copy.deepcopy(model), graph, request_of)
    assert same_state(state(first.model), state(second.model))


def test_the_configuration_is_not_changed_by_use(method, model, graph, one_request):
    before = copy.deepcopy(method)
    method.unlearn(model, graph, one_request)
    assert method == before
    assert repr(method) == repr(before)


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
    first = method.unlearn(model, graph, ForgetRequest("user", ["3"]))
    second = method.unlearn(first.model, first.graph, ForgetRequest("item", ["2"]))
    assert not (second.graph.pairs[0] == 3).any()
    assert not (second.graph.pairs[1] == 2).any()
    assert all(torch.isfinite(p).all() for p in second.model.parameters())


# ---- modes, places and failures


def test_it_works_inside_inference_mode(method, model, graph, one_request):
    expected = method.unlearn(model, graph, one_request)
    with torch.inference_mode():
        result = copy.deepcopy(method).unlearn(model, graph, one_request)
    assert same_state(state(expected.model), state(result.model))
    assert not any(p.is_inference() for p in result.model.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_training_mode_is_kept_part_by_part(every_kind, method, model, graph, one_request, training, inplace):
    model.train(training)
    part = list(model.children())[-1]
    part.train(not training)
    result = method.unlearn(model, graph, one_request, inplace=inplace)
    for after in (model, result.model):
        assert after.training is training
        assert list(after.children())[-1].training is not training


def test_inplace_is_the_same_correction(every_kind, method, model, graph, request_of):
    expected = method.unlearn(model, graph, request_of)
    table = next(model.parameters())
    result = method.unlearn(model, graph, request_of, inplace=True)
    assert result.model is model
    assert next(model.parameters()) is table  # an optimizer that holds the parameters still does
    assert same_state(state(expected.model), state(model))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_model_as_it_was(method, model, graph, one_request, monkeypatch, error):
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
def test_a_result_that_is_not_finite_is_not_handed_back(method, model, graph, one_request, monkeypatch, inplace):
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
    model = LightGCN(graph.num_nodes + 1, 4, 2).train()
    before = state(model)
    with pytest.raises(ValueError, match=r"'graph' must have as many nodes as LightGCN has rows, 26 \(got 14 users"):
        method.unlearn(model, graph, one_request)
    assert model.training
    assert same_state(before, state(model))


def test_a_model_that_nobody_knows_is_refused(method, graph, one_request):
    with pytest.raises(TypeError, match=r"'model' must be a recommender that 'encode' knows \(got Linear\)"):
        method.unlearn(nn.Linear(2, 2), graph, one_request)
    with pytest.raises(ValueError, match=r"'model' must have parameters \(got Identity with none\)"):
        method.unlearn(nn.Identity(), graph, one_request)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda g: ForgetRequest("user", ["nobody"]), r"'index' must hold users of the graph \(got 'nobody'"),
        (lambda g: ForgetRequest("interaction", [("13", "0")]), "'index' must hold interactions of the graph"),
        (lambda g: ForgetRequest("user", g.user_ids), "'request' must leave some interactions"),
        (lambda g: ForgetRequest("user", ["13"]), "'request' must match an interaction"),
    ],
    ids=["unknown id", "unknown pair", "everything", "nothing"],
)
@pytest.mark.parametrize("inplace", [True, False])
def test_requests_that_cannot_be_served_are_refused(method, model, graph, bad, message, inplace):
    before = state(model)
    model.train()
    with pytest.raises(ValueError, match=message):
        method.unlearn(model, graph, bad(graph), inplace=inplace)
    assert same_state(before, state(model))
    assert model.training


def test_a_level_that_is_not_served_is_refused(method, model, graph, one_request, monkeypatch):
    monkeypatch.setattr(type(method), "levels", ("user",))
    with pytest.raises(ValueError, match=rf"'request' must be of a level that {method.name} serves, user \(got item\)"):
        method.unlearn(model, graph, one_request)


@pytest.mark.parametrize("device", DEVICES)
def test_everything_stays_on_its_device(method, model, graph, one_request, device):
    result = method.unlearn(model.to(device), copy.copy(graph).to(device), one_request)
    assert {p.device.type for p in result.model.parameters()} == {device}
    assert result.graph.pairs.device.type == device


def test_a_graph_elsewhere_is_refused(method, model, graph, one_request):
    with pytest.raises(ValueError, match=r"'graph' must be on the model's device, cpu \(got meta\)"):
        method.unlearn(model, copy.copy(graph).to("meta"), one_request)
