"""The README is short and its Python runs as it stands, each block on data and models made for it."""

import re
from pathlib import Path

import pytest
import torch
import torch_geometric

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge
from graphunlearn.operators import registry

ROOT = Path(__file__).parents[1]
README, OWN_MODEL = ROOT / "README.md", ROOT / "docs" / "own-model.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason="the README is not part of this installation")


def blocks():
    """Every Python block with the heading above it, and RecBole's of the page on models of one's own."""
    found = [
        pytest.param(match[2], README, TEXT[: match.start(2)].count("\n"), id=match[1])
        for match in re.finditer(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", TEXT, re.M | re.S)
    ]
    page = OWN_MODEL.read_text(encoding="utf-8") if OWN_MODEL.exists() else ""
    for match in re.finditer(r"^```py\n(.*?)^```$", page, re.M | re.S):
        if "adapters.recbole" in match[1]:
            line = page[: match.start(1)].count("\n")
            found.append(pytest.param(match[1], OWN_MODEL, line, id=f"own-model.md, line {line}"))
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


def given_for(block, folder):
    """Return the variables that a block takes for granted, and write the files that it reads."""
    made().to_frame()[["user", "item"]].to_csv(folder / "ratings.tsv", sep="\t", index=False)
    clicks().to_csv(folder / "clicks.tsv", sep="\t", index=False)
    given = {"__name__": "readme"}
    if ".from_file(" in block:
        return given
    given |= {"gu": gu, "torch": torch, "torch_geometric": torch_geometric}
    if "graphunlearn.adapters.recbole" in block:
        return given | (recbole_sessions if "gu.CAU(" in block else recbole_interactions)(folder)
    train_graph, validation = made().random_split([0.9, 0.1], seed=0)
    given |= {"train": train_graph, "validation": validation}
    return given | (trained_elsewhere(train_graph) if "gu.Ledger(" in block else {})


@pytest.fixture
def methods():
    """Methods that a block adds are taken away again."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.mark.parametrize(("block", "path", "line"), blocks())
@pytest.mark.filterwarnings("ignore:the influence system was solved")
def test_the_readme_runs(block, path, line, tmp_path, monkeypatch, methods):
    monkeypatch.chdir(tmp_path)
    given = given_for(block, tmp_path)
    exec(compile("\n" * line + block, str(path), "exec"), given)  # so that a failure names the file's line
    results = [given[name] for name in ("result", "after") if name in given]
    for result in (getattr(r, "result", r) for r in results):
        if all(part.level != "click" for part in result.request.parts):  # whose positions others have taken
            with pytest.raises(ValueError, match=r"'request' must match|'index' must hold"):
                result.request.mask(result.graph)


def test_every_block_of_the_readme_is_run():
    assert TEXT.count("```python") == sum(param.values[1] == README for param in blocks())
    for text in ("encode.register", "gu.BPR", "Bridge", "gu.CAU", "gu.Ledger"):
        assert any(text in param.values[0] for param in blocks())


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 200


def section(heading):
    return TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_table_of_operators_is_short_and_names_what_is_there():
    rows = re.findall(r"^\| (?!you want|-)(.*) \|$", section("Which operator when"), re.M)
    assert 1 <= len(rows) <= 8
    for row in rows:
        named = re.findall(r"`(\w+)\(", row)
        assert named, row
        for name in named:
            known = Bridge if name == "Bridge" else getattr(gu, name)
            assert known in (gu.Ledger, Bridge) or issubclass(known, gu.Unlearner)


def test_eight_limits_and_the_gpu_first():
    limits = re.findall(r"^\d\. (.*)$", section("Limits"), re.M)
    assert len(limits) == 8
    assert "GPU" in limits[0]


def test_numbers_have_a_leading_zero():
    assert not re.search(r"(?<![\w.`*])\.\d", re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S))


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
