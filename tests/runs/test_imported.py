"""Weights of other programs, and models that keep something of the interactions that they were built for."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import graphunlearn as gu
from graphunlearn.runs import ModelSpec, code
from graphunlearn.runs.code import Code, CodeError, trust
from graphunlearn.runs.imported import built_with, check_graph_use, read_weights


@pytest.fixture
def graph():
    return gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=4, seed=0)


class Tables(nn.Module):
    def __init__(self, graph):
        super().__init__()
        self.user, self.item = nn.Embedding(graph.num_users, 3), nn.Embedding(graph.num_items, 3)


class Buffered(Tables):
    """Stores a matrix of the interactions among its tensors."""

    def __init__(self, graph):
        super().__init__(graph)
        matrix = torch.zeros(graph.num_users, graph.num_items)
        matrix[tuple(graph.pairs)] = 1
        self.register_buffer("matrix", matrix)


class Counting(Tables):
    """Draws its parameters by popularity."""

    def __init__(self, graph):
        super().__init__(graph)
        with torch.no_grad():
            self.item.weight *= torch.bincount(graph.pairs[1], minlength=graph.num_items).unsqueeze(1)


class Sized(Tables):
    """Has one parameter per interaction."""

    def __init__(self, graph):
        super().__init__(graph)
        self.edge = nn.Parameter(torch.zeros(graph.num_interactions))


class Cached(Tables):
    """Propagates over the matrix of the graph that it was built for."""

    def __init__(self, graph):
        super().__init__(graph)
        self.kept = graph.adjacency.normalized(torch.float)


class Tidy(Cached):
    """Keeps the matrix as well, but does not compute with it."""


def rows(model, graph):
    return model.user.weight, model.item.weight


def propagated(matrix, model, graph):
    table = torch.cat([model.user.weight, model.item.weight])
    return (table + matrix @ table).split([graph.num_users, graph.num_items])


def kept_rows(model, graph):
    return propagated(model.kept, model, graph)


def given_rows(model, graph):
    return propagated(graph.adjacency.normalized(torch.float), model, graph)


def train(graph, seed):
    return Counting(graph)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = ModuleType("kept_models")
    monkeypatch.setitem(sys.modules, "kept_models", made)
    monkeypatch.setattr(code, "_trusted", set())
    for thing in (Buffered, Counting, Sized, Cached, Tidy, rows, kept_rows, given_rows, train):
        monkeypatch.setattr(thing, "__module__", "kept_models")
        setattr(made, thing.__name__, thing)
    trust("kept_models")


def spec_of(build, encoding, **more):
    name = f"kept_models:{build}"
    return ModelSpec(name, None, None, Code(name, f"kept_models:{encoding}", **more))


def check(spec, graph):
    model = built_with(spec, graph, spec.build(graph).state_dict())
    check_graph_use(spec, graph, model)
    return model


@pytest.mark.parametrize(
    ("build", "encoding", "what", "hint"),
    [
        ("Buffered", "rows", "the buffer 'matrix' depends on the interactions", "persistent=False"),
        ("Counting", "rows", "the parameter 'item.weight' depends on the interactions", "a training of its own"),
        ("Sized", "rows", "the parameter 'edge' depends on the interactions", "make it in 'encode'"),
        ("Cached", "kept_rows", "other query embeddings for a part of the data", "must keep nothing of the graph"),
    ],
)
def test_a_model_that_depends_on_the_interactions_is_refused(graph, build, encoding, what, hint):
    with pytest.raises(CodeError, match=what) as found:
        check(spec_of(build, encoding), graph)
    assert hint in found.value.hint


def test_what_does_no_harm_is_accepted(graph):
    check(spec_of("Tidy", "given_rows"), graph)
    check(spec_of("Counting", "rows", retrain="kept_models:train"), graph)
    model = check(ModelSpec("lightgcn", 3, 2), graph)
    assert not model.training


def test_an_encoding_is_not_replaced(graph):
    check(spec_of("Tidy", "given_rows"), graph)
    with pytest.raises(CodeError, match="'encode' must be left out for Tidy, which has an encoding"):
        check(spec_of("Tidy", "rows"), graph)
    trust("torch_geometric")
    spec = ModelSpec("x", None, None, Code("torch_geometric.nn:LightGCN", "kept_models:rows", None, {}))
    with pytest.raises(CodeError, match="for LightGCN, which has an encoding"):
        Code(spec.code.build, spec.code.encode, None, {"embedding_dim": 3, "num_layers": 2}).model(graph)


def test_shared_tensors_and_integers_are_read(tmp_path, graph):
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(3), "b": torch.tensor([True]), "c": torch.ones(2, dtype=torch.double)}
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        found = read_weights(tmp_path / name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("content", [{}, {"a": 3}, [torch.ones(2)], {"state_dict": {"a": "text"}}, {1: torch.ones(2)}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"'weights' must hold a state_dict, tensors by their names"):
        read_weights(tmp_path / "w.pt")


def test_bfloat16_and_infinity_are_refused(tmp_path):
    for value, expected in (
        (torch.ones(2, dtype=torch.bfloat16), r"single or double precision \(got bfloat16 in 'a'\)"),
        (torch.tensor([1.0, torch.inf, torch.nan]), r"NaN or infinity in 2 of the 3 entries of 'a'"),
    ):
        torch.save({"a": value}, tmp_path / "w.pt")
        with pytest.raises(ValueError, match=expected):
            read_weights(tmp_path / "w.pt")


def test_a_model_without_parameters_is_refused(graph, monkeypatch):
    spec = ModelSpec("lightgcn", 3, 2)
    model = spec.build(graph)
    weights = model.state_dict()
    model.requires_grad_(False)
    monkeypatch.setattr(ModelSpec, "build", lambda self, graph: model)
    with pytest.raises(ValueError, match="have a parameter that is trained"):
        built_with(spec, graph, weights)
