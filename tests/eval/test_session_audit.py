"""Audit and bench of sessions, small enough to retrain in a blink."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from walks import walks

import graphunlearn as gu
from graphunlearn.eval import audit, bench, removal, session_clicks
from graphunlearn.eval.cache import facts_of_training
from graphunlearn.eval.report.verdict import judge, primary_metric, ratio_to_floor
from graphunlearn.nn import FitSettings, build_model, reset_parameters

SETTINGS = FitSettings(epochs=25, batch_size=128, lr=0.02, patience=25)


@pytest.fixture(scope="module")
def case():
    return session_clicks(walks(num_sessions=400, num_items=60, step=0.5), share=0.5)


@pytest.fixture(scope="module")
def original(case):
    model = build_model("gru4rec", case.train, 24)
    reset_parameters(model, 3)
    gu.fit(model, case.train, validation=case.validation, settings=SETTINGS)
    return model


@pytest.fixture(scope="module")
def audited(case, original):
    keywords = {"test": case.test, "validation": case.validation, "objective": gu.CrossEntropy(), "retrain_seeds": 4}
    settings = dataclasses.replace(SETTINGS, seed=77)
    references = audit(original, case.train, case.request, [], settings=settings, **keywords).references
    far = gu.GradientAscent(objective=gu.CrossEntropy(), steps=60, lr=0.05)
    methods = [dataclasses.replace(references[0], method="another"), gu.Unlink(), far]
    return audit(original, case.train, case.request, methods, references=references, **keywords)


def by_name(audited):
    return {method["name"]: method for method in audited.report["methods"]}


def test_report_is_complete_json(audited):
    report = json.loads(json.dumps(audited.report, allow_nan=False))
    assert report["distance_unit"] == "log p"
    assert report["request"]["level"] == "click"
    for method in report["methods"]:
        assert {"hit_u@5", "hit_u@10", "hit_u@20", "log_p_forgotten", "log_p_deleted_transition"} <= set(
            method["forgetting"]
        )
        assert {"recall@20", "mrr@20", "ndcg@10"} <= set(method["utility"])
        for entry in method["forgetting"].values():
            assert set(entry) >= {"value", "original", "retrain_mean", "retrain_sd", "z", "gap_closed"}
    assert primary_metric(report) == "log_p_forgotten"


def test_outcomes_that_are_known(audited):
    """Unlinking changes nothing, a retrained model is inside its own ensemble, and ascent goes too far."""
    methods = by_name(audited)
    unlink, another, ascent = (methods[name] for name in ("unlink", "another", "ascent"))
    for metric in ("log_p_forgotten", "hit_u@10", "rank_forgotten"):
        assert unlink["forgetting"][metric]["gap_closed"] == pytest.approx(0, abs=1e-6)
    assert unlink["distance_to_retrain"]["forget"] == pytest.approx(
        methods["original"]["distance_to_retrain"]["forget"], abs=1e-5
    )
    assert ratio_to_floor(another, "forget") < 1.25
    assert ratio_to_floor(another, "test") < 1.25
    assert judge(another).status in ("like", "undecided"), another["verdict"]
    assert ascent["forgetting"]["log_p_forgotten"]["gap_closed"] > 1.5
    assert judge(ascent).status == "over", ascent["verdict"]
    assert judge(unlink).status == "under", unlink["verdict"]
    assert ascent["forgetting"]["u_score"]["value"] < another["forgetting"]["u_score"]["value"]


def test_distances_are_of_log_probabilities(audited, case):
    forgotten = case.request.mask(case.train)
    clicks = (forgotten & (case.train.position > 0)).nonzero().flatten()

    def log_p(model):
        samples = gu.CrossEntropy().samples(case.train, mask=forgotten)
        assert torch.equal(samples.ends + 1, clicks)
        with torch.no_grad():
            return -gu.CrossEntropy().losses(model, case.train, samples)

    p = [log_p(r.model) for r in audited.references]
    own = log_p(audited.results[2].model)
    found = by_name(audited)["ascent"]["distance_to_retrain"]
    assert found["forget"] == pytest.approx(float(torch.stack([(own - q).abs().mean() for q in p]).mean()), rel=1e-4)
    floor = [float((a - b).abs().mean()) for a, b in itertools.combinations(p, 2)]
    assert found["noise_floor_forget"] == pytest.approx(sum(floor) / len(floor), rel=1e-4)


def test_a_method_is_measured_from_an_original_of_its_own(audited, case, original):
    """Told that its original is a retrained model, a method has less of a way to go."""
    result = dataclasses.replace(
        audited.results[0], method="own", original=audited.references[0].model,
        log={"seconds_sum": 2.0, "seconds_slowest_shard": 0.5, "shards": 4},
    )  # fmt: skip
    again = audit(
        original, case.train, case.request, [result, audited.results[1]], test=case.test, validation=case.validation,
        objective=gu.CrossEntropy(), references=audited.references, retrain_seeds=4,
    )  # fmt: skip
    own, unlink = by_name(again)["own"], by_name(again)["unlink"]
    reference = by_name(audited)["retrain"]
    assert own["forgetting"]["log_p_forgotten"]["original"] != unlink["forgetting"]["log_p_forgotten"]["original"]
    assert unlink["forgetting"] == by_name(audited)["unlink"]["forgetting"]
    assert own["distance_to_retrain"] == by_name(audited)["another"]["distance_to_retrain"]
    spread = 3 * reference["forgetting_sd"]["log_p_forgotten"]["value"]
    mean = reference["forgetting"]["log_p_forgotten"]["value"]
    assert own["forgetting"]["log_p_forgotten"]["original"] == pytest.approx(mean, abs=spread)
    assert "Measured from an original of its own: own." in again.report["notes"]
    assert (own["seconds_sum"], own["seconds_slowest_shard"]) == (2.0, 0.5)
    assert "shards" not in own
    assert own["own_original"] is True
    assert "own_original" not in unlink
    assert "seconds_sum" not in unlink


@pytest.mark.parametrize("level", ["session", "item"])
def test_whole_sessions_and_items_can_be_judged(level):
    case = removal(walks(num_sessions=200, num_items=20), level, share=0.1)
    result = bench(
        lambda seed: case, [gu.Unlink(), gu.FineTune(epochs=1)], model="gru4rec", dim=8,
        settings=dataclasses.replace(SETTINGS, epochs=3), retrain_seeds=2,
    )  # fmt: skip
    json.dumps(result.report, allow_nan=False)
    rows = by_name(result)
    assert rows["finetune"]["forgetting"]["hit_u@10"]["value"] is not None
    assert ("log_p_deleted_transition" in rows["finetune"]["forgetting"]) == (level == "item")
    left = result.report["left_out"]
    assert left["forgotten clicks that start their session, and follow nothing"] > 0
    assert (left["test clicks of items forgotten everywhere"] > 0) == (level == "item")


def test_bench_fills_in_what_suits_sessions(tmp_path):
    graph = walks(num_sessions=120, num_items=20)
    keywords = {"model": "srgnn", "retrain_seeds": 2, "original_seeds": 2, "dataset": "walks", "cache": tmp_path}
    settings = dataclasses.replace(SETTINGS, epochs=2)
    result = bench(lambda seed: session_clicks(graph, seed=seed), [gu.Unlink()], settings=settings, **keywords)
    report = result.report
    assert report["model"]["dim"] == 64
    assert report["model"]["layers"] == 1
    assert "CrossEntropy" in report["model"]["objective"]
    assert report["scenario"] == "session-clicks"
    assert {"train_sessions", "validation_clicks", "test_sessions", "items"} <= set(report["dataset"])
    assert report["dataset"]["items"] == 20
    gaps = [
        {m["name"]: m["forgetting"]["log_p_forgotten"]["gap_closed"] for m in run}["unlink"] for run in report["runs"]
    ]
    assert len(gaps) == 2  # one per original
    again = bench(lambda seed: session_clicks(graph, seed=seed), [gu.Unlink()], settings=settings, **keywords)
    assert any("4 of the 4" in note or "2 of the 2 retrained" in note for note in again.report["notes"])
    assert [m["forgetting"] for m in again.report["methods"]] == [m["forgetting"] for m in report["methods"]]


def test_sessions_and_their_order_decide_what_the_cache_finds():
    lists = [[0, 1, 2], [3, 4], [5, 0]]
    model = build_model("gru4rec", gu.SessionGraph.from_sequences(lists), 4)

    def facts(lists, **changes):
        graph = gu.SessionGraph.from_sequences(lists, num_items=6)
        keywords = {"validation": None, "objective": gu.CrossEntropy(), "settings": SETTINGS} | changes
        return repr(facts_of_training("retrain", model, graph, **keywords))

    assert facts(lists) == facts(lists)
    others = [lists[::-1], lists[:2], [[0, 2, 1], [3, 4], [5, 0]], [[0, 1, 2, 3], [4, 5], [0]]]
    assert len({facts(lists), *map(facts, others)}) == 5
    held = gu.SessionGraph.from_sequences([[0, 1]], num_items=6)
    assert facts(lists, validation=held) != facts(lists)


def test_the_code_of_all_that_trains_counts(monkeypatch):
    from graphunlearn.eval import cache

    read = []
    before = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(f"{path.parent.name}/{path.name}") or before(path))
    cache._code()
    assert {
        "func/adjacency.py",
        "func/kept.py",
        "func/sparse.py",
        "data/request.py",
        "training/fitting.py",
        "nn/prefixes.py",
        "metrics/next_item.py",
    } <= set(read)


def test_graphs_of_different_kinds_are_refused(case, original):
    other = gu.InteractionGraph.from_edges(torch.tensor([[0], [0]]))
    keywords = {"objective": gu.CrossEntropy(), "retrain_seeds": 1}
    with pytest.raises(
        ValueError, match=r"'test' must be of the kind of 'graph', SessionGraph \(got InteractionGraph\)"
    ):
        audit(original, case.train, case.request, [], test=other, **keywords)
    with pytest.raises(ValueError, match="'trained_labels' must go with interactions"):
        audit(original, case.train, case.request, [], test=case.test, trained_labels=True, **keywords)
