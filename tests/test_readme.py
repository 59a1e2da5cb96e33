"""The README's Python runs as it stands, each block on data and models made for it."""

import re
from pathlib import Path

import pytest
import torch
import torch_geometric
from adapters.test_plain_module import TwoTowers, train

import graphunlearn as gu
from graphunlearn.operators import registry

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason="the README is not part of this installation")


def blocks():
    """Every Python block with the heading above it."""
    found, counts = [], {}
    for part in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        heading = part.splitlines()[0]
        for match in re.finditer(r"^```python\n(.*?)^```$", part, re.M | re.S):
            counts[heading] = counts.get(heading, 0) + 1
            line = TEXT[: TEXT.index(match.group(1))].count("\n")
            found.append(pytest.param(match.group(1), line, id=f"{heading} {counts[heading]}"))
    return found


def made(**options):
    """A graph whose raw ids are those that the README names."""
    sizes = {"num_users": 60, "num_items": 80, "interactions_per_user": 15, "activity_spread": 0.3}
    pairs = gu.datasets.synthetic_interactions(**sizes | options, seed=0).pairs
    users = ["196", "186", "22", *map(str, range(1000, 1057))]
    return gu.InteractionGraph.from_edges(pairs, user_ids=users, item_ids=["242", "377", *map(str, range(2000, 2078))])


def clicks():
    """Sessions whose raw ids are those that the README names; those of the README are among the first."""
    graph = gu.datasets.synthetic_sessions(num_sessions=200, num_items=60, seed=1)
    frame = graph.to_frame()[["session", "item", "time"]].astype({"session": str, "item": str})
    length, first = frame.groupby("session").size(), frame.groupby("session")["time"].min()
    early = [name for name in first.sort_values().index if length[name] > 4][:2]
    frame["session"] = frame["session"].replace(dict(zip(early, ["11562", "11564"])))
    frame["item"] = frame["item"].replace({frame.loc[frame["session"] == "11562", "item"].iloc[0]: "242"})
    return frame


def trained_elsewhere(graph):
    """What was trained before the block begins."""
    model = torch_geometric.nn.LightGCN(graph.num_nodes, 32, num_layers=2)
    gu.fit(model, graph, epochs=10)
    return {"model": model}


def plain(graph):
    return {"TwoTowers": TwoTowers, "model": train(TwoTowers(graph.num_users, graph.num_items, 8), *graph.pairs)}


def exported(graph):
    given = trained_elsewhere(graph)
    given["method"] = gu.Calibrate()
    given["result"] = given["method"].unlearn(given["model"], graph, gu.ForgetRequest("user", ["196"]))
    return given


def recbole(folder, name, frame, options):
    """A model that RecBole trained, its configuration and its loaders, by the names that RecBole's users give them."""
    from adapters.recbole_project import RecBole, without_recbole

    without_recbole()
    project = RecBole(folder, frame, {"metrics": ["Recall"], "topk": [5], "valid_metric": "Recall@5"} | options)
    config, loaders = project.prepare(name)
    names = ("train_data", "valid_data", "test_data")
    return {"config": config, "model": project.train(config, loaders), **dict(zip(names, loaders))}


def recbole_interactions(folder):
    frame = made().to_frame()[["user", "item"]].set_axis(["user_id:token", "item_id:token"], axis=1)
    return recbole(folder, "LightGCN", frame, {"embedding_size": 8})


def recbole_sessions(folder):
    frame = clicks().set_axis(["session_id:token", "item_id:token", "timestamp:float"], axis=1)
    options = {"USER_ID_FIELD": "session_id", "MAX_ITEM_LIST_LENGTH": 10, "train_neg_sample_args": None}
    split = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}}
    return recbole(folder, "GRU4Rec", frame, options | split | {"embedding_size": 8, "hidden_size": 8})


SETUPS = {  # by what a block says
    "encode.register(TwoTowers)": plain,
    "result.model.recommend(": trained_elsewhere,
    "gu.export(": exported,
}


def given_for(block, folder):
    """Return the variables that a block takes for granted, and write the files that it reads."""
    made().to_frame()[["user", "item"]].to_csv(folder / "ratings.tsv", sep="\t", index=False)
    clicks().to_csv(folder / "clicks.tsv", sep="\t", index=False)
    given = {"__name__": "readme"}
    if "import graphunlearn as gu" in block or "import torch_geometric, graphunlearn as gu" in block:
        return given
    given |= {"gu": gu, "torch": torch, "torch_geometric": torch_geometric}
    if "graphunlearn.adapters.recbole" in block:
        return given | (recbole_sessions if "gu.CAU(" in block else recbole_interactions)(folder)
    train_graph, validation = made().random_split([0.9, 0.1], seed=0)
    given |= {"train": train_graph, "validation": validation}
    for text, setup in SETUPS.items():
        if text in block:
            given |= setup(train_graph)
    return given


@pytest.fixture
def methods():
    """Methods that a block adds are taken away again."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.mark.parametrize(("block", "line"), blocks())
@pytest.mark.filterwarnings("ignore:the influence system was solved")
def test_the_readme_runs(block, line, tmp_path, monkeypatch, methods):
    monkeypatch.chdir(tmp_path)
    given = given_for(block, tmp_path)
    exec(compile("\n" * line + block, str(README), "exec"), given)  # so that a failure names the README's line
    results = [given[name] for name in ("result", "after") if name in given]
    for result in (getattr(r, "result", r) for r in results):
        if all(part.level != "click" for part in result.request.parts):  # whose positions others have taken
            with pytest.raises(ValueError, match=r"'request' must match|'index' must hold"):
                result.request.mask(result.graph)


def test_every_adapter_has_a_snippet():
    section = TEXT.split("## Bring your own model\n")[1].split("\n## ")[0]
    found = "".join(re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S))
    for text in (
        "encode.register",
        "BipartiteRecommender",
        "edge_index",
        "Bridge",
        "gu.CAU",
        "gu.export",
        "load_export",
    ):
        assert text in found
    assert section.count("```python") == sum(param.id.startswith("Bring your own model") for param in blocks())
