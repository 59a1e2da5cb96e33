"""What users are promised by name."""

import dataclasses
import importlib
import inspect
import re

import pytest
import torch
import torch_geometric

import graphunlearn as gu

NOUNS = [
    "InteractionGraph",
    "SessionGraph",
    "ForgetRequest",
    "BPR",
    "BCE",
    "SquaredError",
    "Encoded",
    "FitSettings",
    "UnlearningResult",
]
METHODS = ["IFRU", "Retrain", "Unlink", "FineTune", "GradientAscent"]
VERBS = ["encode", "score", "recommend", "fit", "linear_form"]
UTILITIES = [
    "k_hop_ball",
    "k_hop_subgraph",
    "node_map",
    "affected_interactions",
    "affected_nodes",
    "removed_share",
    "spread_importance",
    "prune_by_importance",
]


@pytest.mark.parametrize("name", [*NOUNS, *METHODS, *VERBS, "MatrixFactorization", "Unlearner", "Objective"])
def test_promised_names_are_there_and_documented(name):
    assert name in gu.__all__
    assert getattr(gu, name).__doc__


@pytest.mark.parametrize("name", UTILITIES)
def test_promised_utilities_are_there(name):
    assert name in gu.utils.__all__
    assert callable(getattr(gu.utils, name))


def test_everything_public_can_be_reached_and_nothing_else_is_listed():
    assert gu.__all__ == sorted(gu.__all__, key=lambda n: (not n.isupper(), n.startswith("_") or n[0].islower(), n))
    for name in gu.__all__:
        assert getattr(gu, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", gu.__version__)


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_dataclasses_of_keywords_with_their_own_documentation(name):
    cls = getattr(gu, name)
    assert dataclasses.is_dataclass(cls)
    assert all(f.kw_only for f in dataclasses.fields(cls) if f.init)
    documented = cls.__doc__
    for option in dataclasses.fields(cls):
        if option.init:
            assert re.search(rf"^\s+{option.name}: ", documented, re.M), f"{name}.{option.name} is not documented"


@pytest.mark.parametrize("name", ["BPR", "BCE", "SquaredError", "FitSettings"])
def test_settings_are_frozen(name):
    settings = getattr(gu, name)()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 3
    assert eval(repr(settings), vars(gu)) == settings


@pytest.mark.parametrize("package", ["func", "data", "utils", "nn", "datasets", "operators", "eval", "testing"])
def test_public_functions_have_hints_and_words(package):
    module = importlib.import_module(f"graphunlearn.{package}")
    assert module.__doc__
    for name in module.__all__:
        value = getattr(module, name)
        if (
            not (inspect.isfunction(value) or inspect.isclass(value))
            or value.__module__.split(".")[0] != "graphunlearn"
        ):
            continue
        assert value.__doc__, f"{package}.{name} has no docstring"
        assert not value.__doc__.startswith(f"{name}("), f"{package}.{name} has the docstring that dataclass made up"
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
            assert not untyped, f"{package}.{name} has no hints for {', '.join(untyped)}"
            assert signature.return_annotation is not signature.empty, f"{package}.{name}"


def test_the_whole_path(tmp_path):
    # as a user would write it
    rows = gu.datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    path = tmp_path / "ratings.tsv"
    lines = [f"{rows.user_ids[u]}\t{rows.item_ids[i]}\n" for u, i in rows.pairs.t().tolist()]
    path.write_text("user\titem\n" + "".join(lines))

    graph = gu.InteractionGraph.from_file(path)
    train, validation, _ = graph.random_split([0.8, 0.1, 0.1], seed=0)
    model = torch_geometric.nn.LightGCN(train.num_nodes, 8, num_layers=2)
    objective = gu.BPR(weight_decay=1e-4, negatives=4)
    gu.fit(model, train, validation=validation, objective=objective, epochs=5)
    user = train.user_ids[int(train.pairs[0, 0])]
    request = gu.ForgetRequest("user", [user])
    result = gu.IFRU(objective=objective).unlearn(model, train, request)
    assert result.seconds > 0
    assert result.log["emptied_nodes"] >= 1
    assert gu.recommend(result.model, result.graph, k=10).shape == (graph.num_users, 10)
    pairs = torch.tensor([[0, 1], [2, 3]])
    assert gu.score(gu.encode(result.model, result.graph), pairs).shape == (2,)

    nodes = torch.tensor([5])
    ball = gu.utils.k_hop_ball(train, nodes, num_hops=2)
    assert torch.equal(ball, ball.sort().values)
    assert gu.utils.k_hop_subgraph(train, nodes, num_hops=2).num_nodes == ball.numel()
    mask = gu.utils.affected_interactions(train, request, num_hops=2)
    assert mask.shape == (train.num_interactions,)
