"""What users are promised by name."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_geometric

import graphunlearn as gu

NOUNS = ["InteractionGraph", "SessionGraph", "ForgetRequest", "Encoded", "Unlearner", "UnlearningResult", "Ledger"]
LOSSES = ["Objective", "BPR", "BCE", "CrossEntropy", "SquaredError", "SampledBCE", "SampledSoftmax", "InBatchSoftmax"]
METHODS = ["IFRU", "UnlearnRec", "Calibrate", "CAU", "SISA", "SRU"]
BASELINES = ["Retrain", "Unlink", "FineTune", "GradientAscent", "AscentFineTune", "NegativeKL"]
VERBS = ["encode", "score", "recommend", "fit", "stationarity", "audit", "compact", "extend", "export"]
VERBS += ["load_export"]
PROMISED = [*NOUNS, *LOSSES, *METHODS, *BASELINES, *VERBS, "ArgumentError"]
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


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_are_there_and_documented(name):
    assert getattr(gu, name).__doc__


def test_the_top_level_offers_the_promised_names_alone():
    assert set(gu.__all__) == {*PROMISED, "__version__"}


def test_every_name_has_one_home_which_type_checkers_see():
    tree = ast.parse(Path(gu.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"graphunlearn.{home}" for name, home in gu._HOME.items()}
    assert {*seen, "__version__"} == set(gu.__all__) <= set(dir(gu))


def test_packages_are_there_at_first_use():
    packages = {m.name for m in pkgutil.iter_modules(gu.__path__) if m.ispkg} - {"cli"}
    assert packages == gu._PACKAGES <= set(dir(gu))
    with pytest.raises(AttributeError, match="module 'graphunlearn' has no attribute 'GRU4Rec'"):
        getattr(gu, "GRU4Rec")  # noqa: B009


SCIPY = {"scipy.stats", "scipy.optimize", "scipy.special", "scipy.cluster"}
"""Parts that take long to import, and that few commands need."""

FORGETTING = """
import torch_geometric, graphunlearn as gu, graphunlearn.cli.forget
graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6)
model = torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=2)
for method in gu.Unlink(), gu.Calibrate(), gu.IFRU():
    method.unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
"""


def loaded_after(code):
    """The modules that a fresh interpreter has loaded after running some code."""
    run = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "torch_geometric", "numpy", "pandas", "scipy", "matplotlib", "sympy", "networkx", "tyro", "pooch"}
    assert not heavy & loaded_after("import graphunlearn")


def test_a_graph_and_a_method_need_nothing_that_torch_geometric_does_not():
    late = {"matplotlib", "pandas", "torchmetrics", "tyro", "pooch", "torch._dynamo", "tqdm.notebook", *SCIPY}
    plain = loaded_after("import torch_geometric")
    assert not late & (loaded_after("import graphunlearn as gu; gu.InteractionGraph; gu.IFRU") - plain)
    assert not SCIPY & (loaded_after("from graphunlearn.eval.report.verdict import format_seconds") - plain)
    assert not SCIPY & (loaded_after(FORGETTING) - plain)


@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "forget --help", "bench --help"])
def test_help_is_shown_without_torch(words):
    code = f"from graphunlearn.cli import main\ntry: main({words.split()})\nexcept SystemExit: pass"
    assert not {"torch", "pandas", "matplotlib"} & loaded_after(code)


@pytest.mark.parametrize("name", UTILITIES)
def test_promised_utilities_are_there(name):
    assert name in gu.utils.__all__
    assert callable(getattr(gu.utils, name))


def test_everything_public_can_be_reached_and_nothing_else_is_listed():
    for name in gu.__all__:
        assert getattr(gu, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", gu.__version__)


@pytest.mark.parametrize("name", [*METHODS, *BASELINES])
def test_methods_are_dataclasses_of_keywords_with_their_own_documentation(name):
    cls = getattr(gu, name)
    assert dataclasses.is_dataclass(cls)
    assert all(f.kw_only for f in dataclasses.fields(cls) if f.init)
    documented = f"{cls.__doc__}\n{gu.Unlearner.__doc__}"  # with the options of every method
    for option in dataclasses.fields(cls):
        if option.init:
            assert re.search(rf"^\s+{option.name}: ", documented, re.M), f"{name}.{option.name} is not documented"


@pytest.mark.parametrize("name", ["BPR", "BCE", "SquaredError"])
def test_settings_are_frozen(name):
    settings = getattr(gu, name)()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.weight_decay = 3
    assert eval(repr(settings), {name: getattr(gu, name)}) == settings


@pytest.mark.parametrize("package", sorted(gu._PACKAGES))
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
