"""The audit on a synthetic set small enough to retrain in a blink."""

import dataclasses
import itertools
import json

import pytest
import torch

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import audit, removal
from graphunlearn.nn import FitSettings, build_model, reset_parameters, risk_of

SETTINGS = FitSettings(epochs=8, batch_size=512, lr=0.05)


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=1)


@pytest.fixture(scope="module")
def case(graph):
    return removal(graph, "user", share=0.05, seed=0)


@pytest.fixture(scope="module")
def model(case):
    model = build_model("lightgcn", case.train, 8, 2)
    reset_parameters(model, 3)
    gu.fit(model, case.train, validation=case.validation, settings=SETTINGS)
    return model


@pytest.fixture(scope="module")
def audited(case, model):
    return audit(
        model,
        case.train,
        case.request,
        [gu.IFRU(), gu.Unlink()],
        test=case.test,
        validation=case.validation,
        objective=gu.BPR(),
        settings=dataclasses.replace(SETTINGS, seed=50),
        retrain_seeds=3,
    )


def probabilities(model, graph, pairs):
    with torch.no_grad():
        encoded = gu.encode(model, graph)
        rows = zip(encoded.queries[pairs[0]], encoded.items[pairs[1]])
        return torch.stack([torch.sigmoid(torch.dot(u, i)) for u, i in rows])


def by_name(audited):
    return {method["name"]: method for method in audited.report["methods"]}


def test_report_is_complete_json(audited):
    report = json.loads(json.dumps(audited.report))
    for method in report["methods"]:
        assert {"name", "seconds", "speedup_vs_retrain", "peak_memory_mb", "utility", "forgetting"} <= set(method)
        for entry in method["forgetting"].values():
            assert set(entry) >= {"value", "original", "retrain_mean", "retrain_sd", "z", "gap_closed"}
    assert [m["name"] for m in report["methods"]] == ["original", "retrain", "ifru", "unlink", "unlink-redraw"]
    assert report["request"]["level"] == "user"


def test_distances_and_floor_against_a_naive_loop(audited, case):
    retained, forgotten = case.train.split(case.request)
    p = [probabilities(r.model, retained, forgotten.pairs) for r in audited.references]
    floor = sum((a - b).abs().mean() for a, b in itertools.combinations(p, 2)) / 3
    for name, result in zip(("ifru", "unlink"), audited.results):
        own = probabilities(result.model, retained, forgotten.pairs)
        distance = by_name(audited)[name]["distance_to_retrain"]
        # float32 embeddings: dot products in another order agree to about 1e-6
        assert distance["forget"] == pytest.approx(float(sum((own - q).abs().mean() for q in p) / 3), abs=1e-5)
        assert distance["noise_floor_forget"] == pytest.approx(float(floor), abs=1e-5)
    retrain = by_name(audited)["retrain"]["distance_to_retrain"]
    assert retrain["forget"] == retrain["noise_floor_forget"]


def test_retrained_models_differ_from_the_original_and_each_other(audited, model):
    tables = [r.model.embedding.weight for r in audited.references] + [model.embedding.weight]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(tables, 2))


def test_left_out_rows_are_counted(audited, case):
    gone = {case.train.vocabulary("user").ids[u] for u in torch.unique(case.train.split(case.request)[1].pairs[0])}
    rows = case.test.to_frame()
    known = set(case.train.to_frame()["user"]), set(case.train.to_frame()["item"])
    unseen = sum(u not in known[0] or i not in known[1] for u, i in zip(rows["user"], rows["item"]))
    forgotten = sum(u in gone and i in known[1] for u, i in zip(rows["user"], rows["item"]))
    stopping = sum(u in gone for u in case.validation.to_frame()["user"])
    counts = list(audited.report["left_out"].values())
    assert counts == [unseen, forgotten, 0, stopping]
    assert forgotten > 0
    assert stopping > 0


def test_gradient_residual_is_the_plain_one(audited, case, model):
    retained, _ = case.train.split(case.request)
    risk = risk_of(model, retained, gu.BPR())
    expected = float(risk.gradient(risk.parameters).norm()) / retained.num_interactions
    assert by_name(audited)["ifru"]["forgetting"]["gradient_residual"]["original"] == pytest.approx(expected)


def test_ifru_is_closer_to_retraining_than_the_original(audited):
    methods = by_name(audited)
    original = methods["original"]["distance_to_retrain"]["forget"]
    assert methods["ifru"]["distance_to_retrain"]["forget"] < 0.2 * original


def test_references_are_reused(audited, case, model):
    again = audit(
        model,
        case.train,
        case.request,
        audited.results,
        test=case.test,
        objective=gu.BPR(),
        references=audited.references,
        retrain_seeds=3,
    )
    assert all(a is b for a, b in zip(again.references, audited.references))
    for name in ("original", "ifru", "unlink"):
        assert by_name(again)[name]["distance_to_retrain"] == by_name(audited)[name]["distance_to_retrain"]
