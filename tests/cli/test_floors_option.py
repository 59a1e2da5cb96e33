"""``train --floors`` and ``bench --floors``: what needs no training stands beside the model."""

import json

import pytest
from quick import QUICK

import graphunlearn as gu
from graphunlearn.eval import removal
from graphunlearn.nn.floors import floor_metrics
from graphunlearn.runs.run import Run

NAMES = {"interactions": ["popularity", "item-knn", "ease", "als"], "sessions": ["popularity", "markov", "session-knn"]}


@pytest.mark.parametrize(
    ("kind", "words", "metrics"),
    [
        ("interactions", (), ("Recall@20", "NDCG@20")),
        ("interactions", ("--threshold", 3), ("AUROC", "Recall@20", "NDCG@20")),
        ("sessions", ("--model", "gru4rec"), ("Recall@20", "MRR@20", "NDCG@20")),
    ],
    ids=["interactions", "labels", "sessions"],
)
def test_train_measures_floors_beside_the_model(ratings, clicks, tmp_path, call, parsed, kind, words, metrics):
    source = ratings if kind == "interactions" else clicks
    words = ("train", "--data", source, *words, "--floors", *QUICK)
    told = parsed(*words, "--out", tmp_path / "a")
    run = Run.load(tmp_path / "a")
    held_out = {name: getattr(run, name).without_unseen(run.train) for name in ("validation", "test")}
    wanted = floor_metrics(run.train, held_out)
    assert list(told["floors"]) == list(wanted) == NAMES[kind]
    assert told["floors"] == wanted
    if kind == "interactions" and "auroc" not in told["validation"]:
        assert told["validation"]["recall@20"] == pytest.approx(run.about["fit"]["best"])
    status, out, _ = call(*words, "--out", tmp_path / "b")
    assert status == 0
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if ", validation" in line)
    for metric in metrics:
        assert f"{metric}, validation" in lines[first]
        assert f"{metric}, test" in lines[first]
    rows = [line.split() for line in lines[first + 1 : first + 2 + len(NAMES[kind])]]
    assert [row[0] for row in rows] == [run.spec.name, *NAMES[kind]]
    assert all(len(row) == 1 + 2 * len(metrics) and "–" not in row for row in rows)


def test_floors_are_measured_where_they_are_asked_for(ratings, tmp_path, parsed, monkeypatch):
    assert "floors" not in parsed("train", "--data", ratings, "--out", tmp_path / "a", *QUICK)
    monkeypatch.setattr(gu.nn.floors.EASE.__init__, "__kwdefaults__", {"l2": 250.0, "max_gib": 1e-9})
    told = parsed("train", "--data", ratings, "--out", tmp_path / "b", "--floors", *QUICK)
    assert "which take 0.0 GiB" in told["floors"]["ease"]["refused"]


@pytest.mark.parametrize("kind", NAMES)
def test_bench_puts_floors_into_the_report(ratings, clicks, tmp_path, call, kind):
    options = {"interactions": (ratings, "--data-seeds", 2), "sessions": (clicks, "--model", "gru4rec")}[kind]
    scenario = "users" if kind == "interactions" else "sessions"
    words = ("bench", scenario, "--data", *options, "--methods", "unlink", "--retrain-seeds", 2, "--no-cache", *QUICK)
    status, _, err = call(*words, "--floors", "--out", tmp_path / "a")
    assert status == 0, err
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert list(report["floors"]) == NAMES[kind]
    for found in report["floors"].values():
        assert list(found) == ["validation", "test"]
        assert 0 <= found["test"]["recall@20"] <= 1
    if kind == "interactions":  # the mean of two splits
        graph = gu.InteractionGraph.from_file(ratings)
        cases = [removal(graph, "user", seed=seed) for seed in (0, 1)]
        single = [floor_metrics(case.train, {"test": case.test})["ease"]["test"]["ndcg@20"] for case in cases]
        assert report["floors"]["ease"]["test"]["ndcg@20"] == pytest.approx(sum(single) / 2)
