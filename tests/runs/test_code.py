"""Names of the user's code: what is found, what is trusted, and which arguments a function receives."""

import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import nn

import graphunlearn as gu
from graphunlearn.runs import ModelSpec, code
from graphunlearn.runs.code import Code, CodeError, names_of, resolve, trust, trusted


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """A module of the user, which nothing trusts yet."""
    made = ModuleType("my_models")
    monkeypatch.setitem(sys.modules, "my_models", made)
    monkeypatch.setattr(code, "_trusted", set())
    monkeypatch.delenv(code.TRUST, raising=False)
    return made


@pytest.fixture
def graph():
    return gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 2]]), 2, 4)


def put(module, function, name="build"):
    function.__module__ = module.__name__
    setattr(module, name, function)
    trust(module.__name__)


class Noted(nn.Module):
    """A model that notes what it was built with."""

    def __init__(self, *given, **named):
        super().__init__()
        self.given, self.named, self.weight = given, named, nn.Parameter(torch.rand(3))


def test_trust_is_by_the_name_of_a_module_or_its_package(monkeypatch):
    assert not trusted("my_models")
    monkeypatch.setenv(code.TRUST, "other, my_models")
    assert trusted("my_models")
    assert trusted("my_models.towers")
    assert not trusted("my_models_2")
    assert not trusted("my")
    monkeypatch.setenv(code.TRUST, "1")
    assert not trusted("my_models")
    trust("pkg.models")
    assert trusted("pkg.models.deep")
    assert not trusted("pkg")


@pytest.mark.parametrize(
    "name",
    [
        *("my_models", "my_models.build", ":build", "my_models:", "my models:build", "my_models:build;x", "a:b:c"),
        *("my_models:a b", "my_models:__class__", "__main__:build", "my_models:build.__globals__", "my-models:build"),
        *("a..b:c", 3, "my_models:build\n", "./my_models:build"),
    ],
)
def test_only_plain_names_are_resolved(name, monkeypatch):
    monkeypatch.setenv(code.TRUST, "my_models,my,__main__,a")
    with pytest.raises(CodeError, match=r"'run' must be of the form module:name"):
        resolve(name, "run")


def test_what_a_module_has_imported_is_not_its_own(module):
    import os

    module.system, module.Linear, module.partial = os.system, nn.Linear, partial(print, 3)
    trust("my_models")
    for name in ("system", "Linear", "partial"):
        with pytest.raises(CodeError, match=f"'run' must name a function or a class of my_models itself .*{name}"):
            resolve(f"my_models:{name}", "run")


def test_models_of_this_package_need_no_trust():
    assert resolve("graphunlearn.nn:SGL", "run") is gu.nn.SGL
    for name in ("graphunlearn:fit", "graphunlearn.cli:main", "graphunlearn.nn.encoding:encode"):
        with pytest.raises(CodeError, match="name a model where it names code of this package"):
            resolve(name, "run")


def test_sizes_and_the_graph_are_filled_in_by_name(module, graph):
    built = partial(Code, "my_models:build")
    put(module, lambda graph: Noted(graph))
    assert built().model(graph).given == (graph,)
    put(module, lambda data, dim=3: Noted(data, dim))
    assert built().model(graph).given == (graph, 3)
    assert built(arguments={"dim": 5}).model(graph).given == (graph, 5)
    put(module, lambda num_users, num_items, dim: Noted(num_users, num_items, dim))
    assert built(arguments={"dim": 5}).model(graph).given == (2, 4, 5)
    assert built(arguments={"dim": 5, "num_items": 9}).model(graph).given == (2, 9, 5)
    put(module, lambda num_nodes, *, width=2: Noted(num_nodes, width))
    assert built().model(graph).given == (6, 2)
    put(module, lambda **named: Noted(**named))
    assert built(arguments={"dim": 5}).model(graph).named == {"dim": 5}
    put(module, lambda: Noted())
    assert built().model(graph).given == ()
    put(module, lambda dim=4: Noted(dim))
    assert built().model(graph).given == (4,)
    sessions = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
    put(module, lambda num_items: Noted(num_items))
    assert Code("my_models:build", kind="sessions").model(sessions).given == (sessions.num_items,)


def test_arguments_that_lack_or_are_unknown_are_named(module, graph):
    put(module, lambda num_users, dim, depth: Noted())
    with pytest.raises(
        CodeError, match=r"all arguments of my_models:build that have no default \(got none for depth\)"
    ):
        Code("my_models:build", arguments={"dim": 3}).model(graph)
    with pytest.raises(
        CodeError, match=r"be arguments of the model \(got 'deep', and my_models:build has num_users, dim"
    ):
        Code("my_models:build", arguments={"deep": 3}).model(graph)


def test_draws_are_seeded_in_all_libraries_and_leave_no_trace(module, graph):
    import random

    import numpy as np

    def build(graph):
        model = Noted()
        model.weight.data = torch.tensor([torch.rand(()), np.random.rand(), random.random()])  # noqa: NPY002
        return model

    put(module, build)
    model = Code("my_models:build").model(graph)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    drawn = []
    for seed in (3, 3, 4):
        gu.nn.reset_parameters(model, seed)
        drawn.append(model.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert bool((drawn[0] != drawn[2]).all())
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


def test_a_description_is_read_as_it_was_written():
    spec = ModelSpec("my_models:build", None, None, Code("my_models:build", "my_models:rows", None, {"dim": 3}))
    assert ModelSpec.read(spec.facts()) == spec
    old = {"name": "lightgcn", "dim": 8, "layers": 2}
    assert ModelSpec.read(old).facts() == old
    assert (spec.kind, ModelSpec.read(old).kind) == ("interactions", "interactions")


def test_the_identity_changes_with_what_is_called(module, graph):
    put(module, lambda graph: Noted())
    put(module, lambda graph, seed: Noted(), "train")
    same = Code("my_models:build", arguments={"dim": 3})
    others = [Code("my_models:build"), Code("my_models:build", retrain="my_models:train", arguments={"dim": 3})]
    assert same.identity() == Code("my_models:build", arguments={"dim": 3}).identity()
    assert len({same.identity(), *(other.identity() for other in others)}) == 3


def test_names_of_modules_are_listed_once():
    assert names_of(["a.b:c", None, "a.b:d", "x:y", "plain"]) == ["a.b", "x"]
