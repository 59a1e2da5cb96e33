"""Trained models come back bit for bit, and only where nothing that went into them has changed."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import adversarial_edges, audit, bench, removal
from graphunlearn.eval.cache import earlier_models, facts_of_training, recall, remember, retrained
from graphunlearn.nn import FitSettings, build_model, reset_parameters
from graphunlearn.nn.origin import Origin, give_origin
from graphunlearn.nn.training import anew

SETTINGS = FitSettings(epochs=2, batch_size=512, lr=0.05)


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=1)


@pytest.fixture
def trap(monkeypatch):
    """Let every training fail from here on."""

    def fail(*_args, **_keywords):
        raise AssertionError("trained again")

    def set_():
        monkeypatch.setattr(anew, "fit", fail)

    return set_


def run(graph, cache, **changes):
    keywords = {"dim": 4, "layers": 1, "settings": SETTINGS, "retrain_seeds": 2, "progress": False} | changes
    scenario = lambda seed, clean: adversarial_edges(graph, clean, seed=seed)  # noqa: E731
    return bench(scenario, [gu.Unlink()], cache=cache, **keywords)


def numbers(result):
    """What a report measures, without what the clock measures."""
    kept = ("name", "utility", "utility_sd", "forgetting", "forgetting_sd", "distance_to_retrain")
    return [{name: method.get(name) for name in kept} for method in result.report["methods"]]


def test_a_second_bench_trains_nothing(graph, tmp_path, trap):
    first = run(graph, tmp_path / "new" / "folder", data_seeds=2)
    trap()
    second = run(graph, str(tmp_path / "new" / "folder"), data_seeds=2)
    assert numbers(second) == numbers(first)
    times = [[method["seconds"] for method in r.report["methods"][:2]] for r in (first, second)]
    assert times[0] == times[1]  # of retraining: those of when it was trained
    assert first.report["notes"][-1] == "Judged against 4 retrained models."
    assert second.report["notes"][-3:] == [
        "4 of 4 models before forgetting came from the cache.",
        "Judged against 4 retrained models.",
        "4 of the 4 retrained models came from the cache; their times and memory were measured when they were trained.",
    ]
    with pytest.raises(AssertionError, match="trained again"):
        run(graph, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": dataclasses.replace(SETTINGS, lr=0.04)},
        {"objective": gu.BPR(negatives=2)},
        {"dim": 5},
        {"layers": 2},
        {"model": "mf"},
        {"seed": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_any_change_trains_anew(graph, tmp_path, trap, changes):
    run(graph, tmp_path)
    trap()
    with pytest.raises(AssertionError, match="trained again"):
        run(graph, tmp_path, **changes)


def test_more_retrained_models_reuse_those_that_are_there(graph, tmp_path):
    run(graph, tmp_path, retrain_seeds=2)
    result = run(graph, tmp_path, retrain_seeds=3)
    assert result.report["notes"][-1].startswith("2 of the 3 retrained models came from the cache")


def test_methods_and_reports_do_not_matter(graph, tmp_path, trap):
    scenario = lambda seed: removal(graph, "user", seed=seed)  # noqa: E731
    keywords = {"dim": 4, "settings": SETTINGS, "retrain_seeds": 2, "cache": tmp_path}
    bench(scenario, [gu.Unlink()], **keywords)
    trap()
    bench(scenario, [gu.IFRU(), gu.Unlink()], dataset="another name", **keywords)


def parts(graph):
    train, validation = graph.random_split([0.9, 0.1], seed=0)
    built = build_model("lightgcn", train, 4, 2)
    keywords = {"role": "retrain", "model": built, "graph": train, "validation": validation}
    return keywords | {"objective": gu.BPR(), "settings": SETTINGS}


def changed_label(graph):
    graph = graph.binarize(3)
    graph["user", "interacts", "item"].label[0] = 1 - graph.label[0]
    return graph


def one_less(graph):
    return graph.select(torch.arange(graph.num_interactions) > 0)


def other_order(graph):
    same = copy.copy(graph)
    same["user", "interacts", "item"].edge_index = graph.pairs.flip(1)
    return same


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {"role": "original"},
        lambda p: {"graph": one_less(p["graph"])},
        lambda p: {"graph": p["graph"].binarize(3)},
        lambda p: {"graph": changed_label(p["graph"])},
        lambda p: {"graph": other_order(p["graph"])},
        lambda p: {"validation": one_less(p["validation"])},
        lambda p: {"validation": None},
        lambda p: {"objective": gu.BPR(seed=1)},
        lambda p: {"objective": gu.BCE()},
        *(
            lambda p, field=field, value=value: {"settings": dataclasses.replace(SETTINGS, **{field: value})}
            for field, value in (("seed", 1), ("epochs", 3), ("patience", 3), ("refresh_negatives", False))
        ),
        lambda p: {"model": build_model("mf", p["graph"], 4, 1)},
        lambda p: {"model": build_model("lightgcn", p["graph"], 4, 3)},
        lambda p: {"model": build_model("lightgcn", p["graph"], 4, 2).double()},
        lambda p: {"model": gu.nn.SGL(p["graph"].num_nodes, 4, 2)},
    ],
)
def test_facts_tell_trainings_apart(graph, change):
    same, other = parts(graph), parts(graph)
    assert facts_of_training(**same) == facts_of_training(**parts(graph))
    assert facts_of_training(**same) != facts_of_training(**other | change(other))


@pytest.mark.parametrize("option", ["drop", "temperature", "weight", "contrast"])
def test_options_that_are_no_parameters_count(graph, option):
    values = {"drop": 0.3, "temperature": 0.5, "weight": 0.2, "contrast": 7}
    one, other = (gu.nn.SGL(graph.num_nodes, 4, 2, **more) for more in ({}, {option: values[option]}))
    facts = [facts_of_training(**parts(graph) | {"model": model}) for model in (one, other)]
    assert facts[0] != facts[1]


def test_trained_parameters_do_not_count_but_fixed_ones_do(graph):
    same, other = parts(graph), parts(graph)
    with torch.no_grad():
        other["model"].embedding.weight += 1
    assert facts_of_training(**same) == facts_of_training(**other)
    other["model"].embedding.weight.requires_grad_(False)
    assert facts_of_training(**same) != facts_of_training(**other)
    third = parts(graph)
    third["model"].alpha[0] += 0.1  # a buffer: nothing draws it anew
    assert facts_of_training(**same) != facts_of_training(**third)


def test_the_number_of_threads_counts(graph, monkeypatch):
    keywords = parts(graph)
    before = facts_of_training(**keywords)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert facts_of_training(**keywords) != before


class Own(nn.Module):
    """A model of one's own, with options of all kinds."""

    def __init__(self, graph, **options):
        super().__init__()
        self.table = nn.Embedding(graph.num_nodes, 2)
        self.options = options


def test_options_of_ones_own_model_count(graph):
    keywords = parts(graph)
    settings = dataclasses.make_dataclass("Options", [("depth", int)])
    kinds = [
        {},
        {"a": 1},
        {"a": 1.0},
        {"a": "1"},
        {"a": [1, 2]},
        {"a": torch.tensor([1, 2])},
        {"a": torch.tensor([1, 3])},
        {"a": settings(1)},
        {"a": settings(2)},
        {"a": torch.float32},
        {"a": torch.relu},
    ]
    facts = [repr(facts_of_training(**keywords | {"model": Own(graph, **options)})) for options in kinds]
    assert len(set(facts)) == len(kinds)
    again = [repr(facts_of_training(**keywords | {"model": Own(graph, **options)})) for options in kinds]
    assert facts == again


def test_models_come_back_bit_for_bit_with_their_record(graph, tmp_path):
    keywords = parts(graph)
    facts, model = facts_of_training(**keywords), keywords["model"]
    record = {"seconds": 1.5, "log": {"best_epoch": 3, "settings": {"lr": 0.1}}}
    assert recall(tmp_path, facts, model) is None
    remember(tmp_path, facts, model, record)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    other = build_model("lightgcn", keywords["graph"], 4, 2).train()
    reset_parameters(other, 5)
    assert recall(tmp_path, facts, other) == record
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert not other.training


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "foreign", "other", "folder"])
def test_broken_and_foreign_files_are_ignored_and_written_anew(graph, tmp_path, damage):
    keywords = parts(graph)
    facts, model = facts_of_training(**keywords), keywords["model"]
    remember(tmp_path, facts, model, {"seconds": 1.0})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "other":  # a good file under a wrong name
        remember(tmp_path, facts | {"role": "else"}, model, {"seconds": 2.0})
        next(p for p in tmp_path.iterdir() if p != path).replace(path)
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.ones(2)}, path)
    else:
        bad = {"empty": b"", "cut": whole[:-9], "bit": whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]}[damage]
        path.write_bytes(bad)
    before = model.embedding.weight.clone()
    assert recall(tmp_path, facts, model) is None
    assert torch.equal(before, model.embedding.weight)
    if damage != "folder":
        remember(tmp_path, facts, model, {"seconds": 1.0})
        assert recall(tmp_path, facts, model) == {"seconds": 1.0}


def test_a_folder_that_cannot_be_written_is_warned_of(graph, tmp_path):
    keywords = parts(graph)
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="a trained model could not be kept for later"):
        remember(tmp_path / "file", facts_of_training(**keywords), keywords["model"], {})


def test_an_audit_reuses_what_a_bench_retrained(graph, tmp_path, trap):
    case = removal(graph, "user")
    keywords = {"dim": 4, "layers": 1, "settings": SETTINGS, "retrain_seeds": 2, "cache": tmp_path}
    first = bench(lambda seed: case, [gu.Unlink()], objective=gu.BPR(), **keywords)
    model = build_model("lightgcn", case.train, 4, 1)
    trap()
    judged = audit(
        model, case.train, case.request, [gu.Unlink()], test=case.test, validation=case.validation, objective=gu.BPR(),
        settings=dataclasses.replace(SETTINGS, seed=50), retrain_seeds=2, cache=tmp_path,
    )  # fmt: skip
    for one, other in zip(judged.references, first.references):
        assert torch.equal(one.model.embedding.weight, other.model.embedding.weight)
        assert torch.equal(one.graph.pairs, other.graph.pairs)
        assert (one.seconds, one.cpu_seconds, one.peak_memory) == (
            other.seconds, other.cpu_seconds, other.peak_memory,
        )  # fmt: skip
        assert one.log == other.log | {"cached": True}
    assert judged.report["notes"][-1].startswith("2 of the 2 retrained models came from the cache")


def test_two_requests_on_one_graph_are_two_trainings(graph, tmp_path):
    model, requests = (
        build_model("lightgcn", graph, 4, 2),
        [gu.ForgetRequest.internal("user", torch.tensor([u])) for u in (1, 2)],
    )
    method = gu.Retrain(objective=gu.BPR(), settings=SETTINGS)
    first, second, again = (retrained(method, model, graph, r, tmp_path) for r in (*requests, requests[0]))
    plain = method.unlearn(model, graph, requests[1])
    assert "cached" not in second.log
    assert torch.equal(second.model.embedding.weight, plain.model.embedding.weight)
    assert not torch.equal(second.model.embedding.weight, first.model.embedding.weight)
    assert again.log["cached"] is True
    assert torch.equal(again.model.embedding.weight, first.model.embedding.weight)
    assert sorted(set(graph.pairs[0].tolist()) - set(second.graph.pairs[0].tolist())) == [2]


def test_models_of_earlier_data_are_told_apart_from_the_newest_and_from_others(tmp_path):
    graph = synthetic_interactions(num_users=12, num_items=9, interactions_per_user=4, seed=0)
    retained, _ = graph.split(gu.ForgetRequest("user", ["u3"]))
    model, wider = (build_model("mf", graph, dim, 1) for dim in (4, 5))
    files = {}
    for name, kind, data in (("earlier", model, graph), ("newest", model, retained), ("other", wider, graph)):
        before = set(tmp_path.iterdir())
        facts = facts_of_training("retrain", kind, data, None, gu.BPR(), FitSettings(epochs=1))
        remember(tmp_path, facts, kind, {})
        (files[name],) = set(tmp_path.iterdir()) - before
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    assert earlier_models(tmp_path, [model], retained) == [files["earlier"]]
    assert set(earlier_models(tmp_path, [model, wider], retained)) == {files["earlier"], files["other"]}
    assert earlier_models(tmp_path / "nowhere", [model], retained) == []


def test_models_of_another_origin_are_other_models(graph):
    facts = []
    for identity in (None, "a", "a", "b"):
        model = build_model("mf", graph, 4)
        if identity is not None:
            give_origin(model, Origin(lambda: build_model("mf", graph, 4), identity=identity))
        facts.append(facts_of_training("retrain", model, graph, None, gu.BPR(), SETTINGS))
    assert facts[1] == facts[2]
    assert facts[0] != facts[1] != facts[3] != facts[0]
