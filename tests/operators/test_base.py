"""The template that every method goes through, and the few lines that one costs."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch_geometric.nn import LightGCN
from toys import factors, light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions, synthetic_sessions
from graphunlearn.eval import audit
from graphunlearn.eval.auditing import own_figures
from graphunlearn.nn import FitSettings, GRU4Rec
from graphunlearn.operators import Unlearner, registry


@pytest.fixture(autouse=True)
def _registry_as_it_was():
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.fixture
def graph():
    return random_graph()


@pytest.fixture
def request_of_one():
    return ForgetRequest.internal("user", torch.tensor([2]))


def shrink():
    """The example in the documentation of Unlearner."""

    @dataclass(kw_only=True)
    class Shrink(Unlearner):
        """Scale the rows of the touched nodes."""

        name: ClassVar[str] = "shrink"
        factor: float = 0.5

        @torch.no_grad()
        def _unlearn(self, model, graph, retained, request):
            touched = graph.adjacency.degree != retained.adjacency.degree
            model.embedding.weight[touched] *= self.factor
            return {"touched_rows": int(touched.sum())}

    return Shrink


def test_a_new_method_is_a_dataclass_with_one_hook(graph, request_of_one):
    cls = shrink()
    assert registry["shrink"] is cls
    model = factors(graph)
    result = cls(factor=0.25).unlearn(model, graph, request_of_one)
    touched = graph.adjacency.degree != result.graph.adjacency.degree
    assert result.log.pop("acceptance")["accepted"]
    assert result.log == {"touched_rows": int(touched.sum())}
    assert torch.equal(result.model.embedding.weight[touched], 0.25 * model.embedding.weight[touched])
    assert torch.equal(result.model.embedding.weight[~touched], model.embedding.weight[~touched])
    with pytest.raises(TypeError, match="facter"):
        cls(facter=1.0)


def test_a_method_without_a_hook_cannot_be_made():
    @dataclass(kw_only=True)
    class Nothing(Unlearner):
        name: ClassVar[str] = "nothing"

    with pytest.raises(TypeError, match="_unlearn"):
        Nothing()


def test_only_named_classes_are_registered():
    before = set(registry)

    class Helper(Unlearner):
        """Shared by several methods, itself none."""

    class Variant(shrink()):
        """Inherits the name, and does not take it over."""

    assert set(registry) == before | {"shrink"}
    assert registry["shrink"] is not Variant


def test_the_hook_gets_an_evaluating_copy_and_both_graphs(graph, request_of_one):
    seen = {}

    @dataclass(kw_only=True)
    class Look(Unlearner):
        name: ClassVar[str] = "look"

        def _unlearn(self, model, graph, retained, request):
            seen.update(model=model, graph=graph, retained=retained, request=request, training=model.training)
            return {}

    model = light_gcn(graph).train()
    result = Look().unlearn(model, graph, request_of_one)
    assert seen["model"] is result.model is not model
    assert seen["graph"] is graph
    assert seen["retained"] is result.graph
    assert seen["request"] is request_of_one
    assert seen["training"] is False


def test_preparing_is_timed_and_checked(graph, request_of_one):
    prepared = []

    @dataclass(kw_only=True)
    class Ready(Unlearner):
        name: ClassVar[str] = "ready"

        def _prepare(self, model, graph, checkpoint, progress):
            prepared.append((model, graph))

        def _unlearn(self, model, graph, retained, request):
            return {}

    model, method = light_gcn(graph).train(), Ready()
    method.prepare(model, graph)
    assert prepared == [(model, graph)]
    assert model.training
    result = method.unlearn(model, graph, request_of_one)
    assert result.prepare_seconds == method.prepare_seconds > 0
    assert method == Ready()  # having prepared is no part of the configuration
    assert "prepare" not in repr(method)
    with pytest.raises(ValueError, match="'graph' must have as many nodes"):
        method.prepare(model, random_graph(8, 6))


def test_peak_memory_counts_what_the_hook_takes(graph, request_of_one):
    size = 64 * 2**20

    @dataclass(kw_only=True)
    class Greedy(Unlearner):
        name: ClassVar[str] = "greedy"

        def _unlearn(self, model, graph, retained, request):
            taken = torch.ones(size // 8, dtype=torch.float64)  # written to, so that it is really there
            return {"sum": float((taken @ taken).item())}

    result = Greedy().unlearn(light_gcn(graph), graph, request_of_one)
    assert 0.9 * size < result.peak_memory < 4 * size


def test_what_a_hook_returns_is_the_log(graph, request_of_one):
    @dataclass(kw_only=True)
    class Say(Unlearner):
        name: ClassVar[str] = "say"

        def _unlearn(self, model, graph, retained, request):
            return {"said": [1, 2]}

    log = Say().unlearn(light_gcn(graph), graph, request_of_one).log
    assert list(log) == ["said", "acceptance"]
    assert log["said"] == [1, 2]


# ---- hooks


def test_what_is_missing_is_filled_in_and_nothing_else():
    method = gu.FineTune(objective=gu.BPR())
    assert method.filled(objective=gu.BCE(), anything="else") is method
    filled = gu.FineTune().filled(objective=gu.BCE(), validation=None)
    assert (filled.objective, gu.FineTune().objective) == (gu.BCE(), None)
    kept = gu.UnlearnRec(settings=FitSettings(epochs=2))
    kept.preparation = object()
    again = kept.filled(objective=gu.BCE(), settings=FitSettings(epochs=9))
    assert again is not kept
    assert (again.preparation, again.settings.epochs, kept.objective) == (kept.preparation, 2, None)


def test_a_method_that_keeps_nothing_neither_saves_nor_loads(tmp_path):
    with pytest.raises(ValueError, match="unlink must be a method whose preparation can be saved"):
        gu.Unlink().load(tmp_path / "x")
    with pytest.raises(ValueError, match="unlink must be prepared"):
        gu.Unlink().save(tmp_path / "x")


def test_figures_are_those_of_the_first_method_that_has_any():
    graph = synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5, seed=0)
    torch.manual_seed(0)
    model, request = LightGCN(graph.num_nodes, 4, 1), gu.ForgetRequest("user", ["u3"])
    assert own_figures(model, graph, request, [gu.Unlink(), gu.IFRU(damping=1.0), gu.IFRU.as_published()]) == {}
    first, second = gu.IFRU(min_damping=7.0), gu.IFRU()
    found = own_figures(model, graph, request, [gu.Unlink(), first, second])
    assert found == {"damping": first.damping_curve(model, graph, request)}
    result = first.unlearn(model, graph, request)
    assert own_figures(model, graph, request, [result]) == {}


@pytest.mark.parametrize("cls", [gu.IFRU, gu.CAU, gu.UnlearnRec])
def test_as_published_is_the_class_that_is_registered(cls):
    made = cls.as_published(seed=3)
    assert type(made) is registry[f"{cls.name}-published"]
    assert (made.name, made.seed) == (f"{cls.name}-published", 3)
    with pytest.raises(ValueError, match="unlink must have a variant as published"):
        gu.Unlink.as_published()


@pytest.mark.parametrize("cls", [gu.UnlearnRec, gu.SISA, gu.SRU])
def test_an_audit_says_before_any_training_that_a_method_is_to_be_prepared(cls):
    if cls is gu.UnlearnRec:
        graph, objective = synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5), gu.BPR()
        model, request = LightGCN(graph.num_nodes, 4, 1), gu.ForgetRequest("user", ["u3"])
    else:
        graph, objective = synthetic_sessions(num_sessions=20, num_items=9), gu.CrossEntropy()
        model, request = GRU4Rec(graph.num_items, 4), gu.ForgetRequest("session", graph.session_ids[:1])
    sentence = rf"'methods' must be prepared \(got {cls.name} before its prepare\(model, graph\)\)"
    with pytest.raises(ValueError, match=sentence):
        audit(model, graph, request, [cls()], test=graph, objective=objective)
