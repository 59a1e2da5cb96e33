"""Models that forget exactly on the command line: the run after forgetting is the one fitted without the data."""

import csv
import shutil

import pytest
import torch

from graphunlearn.data import ForgetRequest
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.nn.floors import ALS, EASE, ItemKNN
from graphunlearn.runs.exact import ExactRun, exact_name
from graphunlearn.runs.run import Run

FLOORS = {"ease": EASE(l2=20.0), "itemknn": ItemKNN(), "als": ALS(dim=4, l2=2.0, tolerance=1e-2)}
WORDS = {"ease": ["--weight-decay", 20], "itemknn": [], "als": ["--dim", 4, "--weight-decay", 2]}


@pytest.fixture(params=list(FLOORS))
def name(request):
    return request.param


def test_a_run_forgets_recommends_and_is_evaluated(name, ratings, tmp_path, parsed):
    told = parsed("train", "--data", ratings, "--model", name, *WORDS[name], "--out", tmp_path / "a")
    assert told["model"] == {"name": name} and 0 < told["test"]["recall@20"] <= 1
    before = ExactRun.load(tmp_path / "a")
    told = parsed("forget", tmp_path / "a", "--users", "u1", "u2", "--items", "i3", "--out", tmp_path / "b")
    assert told["exact"] == (name != "als")
    assert ("sweeps" in told) == (name == "als")
    assert told["request"]["interactions"] > 0
    run = ExactRun.load(tmp_path / "b")
    request = ForgetRequest("user", ["u1", "u2"]) | ForgetRequest("item", ["i3"])
    retained, _ = before.train.split(request)
    assert run.train.fingerprint() == retained.fingerprint()
    gone = run.test.vocabulary("user").lookup(["u1", "u2"])
    assert not bool(torch.isin(run.test.pairs[0], gone).any()) and not bool((run.test.pairs[1] == 3).any())
    again = before.floor.forget(request) if name == "als" else FLOORS[name].fit(retained)
    users = torch.arange(50)
    torch.testing.assert_close(run.floor.scores(retained, users), again.scores(retained, users), rtol=1e-8, atol=1e-10)

    lists = parsed("recommend", tmp_path / "b", "--users", "u7", "u4", "--k", 5)["lists"]
    rows = run.train.vocabulary("user").lookup(["u7", "u4"])
    items, _ = again.recommend(5, rows, candidates=run.train.active[50:])
    assert [entry["items"] for entry in lists] == [[run.train.item_ids[item] for item in row] for row in items.tolist()]
    assert not any("i3" in entry["items"] for entry in lists)
    found = parsed("evaluate", tmp_path / "b", "--ks", 20)
    assert found["counts"]["num_pairs"] > 0 and 0 < found["metrics"]["recall@20"] <= 1


def test_what_does_not_go_with_them_is_refused(ratings, trained, tmp_path, parsed, refused):
    out = tmp_path / "a"
    parsed("train", "--data", ratings, "--model", "itemknn", "--out", out)
    for words, message in (
        (["train", "--data", ratings, "--model", "ease", "--lr", 0.1, "--out", tmp_path / "c"], "'--lr' must go with"),
        (["train", "--data", ratings, "--model", "als", "--dim", 0, "--out", tmp_path / "c"], "'--dim' must be at"),
        (
            ["bench", "users", "--data", ratings, "--model", "ease", "--out", tmp_path / "c"],
            "'--model' must be a model",
        ),
        (["forget", out, "--users", "u1", "--method", "ifru", "--out", tmp_path / "c"], "'--method' must be left out"),
        (["forget", out, "--sessions", "u1", "--out", tmp_path / "c"], "'--sessions' must go with"),
        (["forget", out, "--users", "nobody", "--out", tmp_path / "c"], "'--users' must"),
        (["audit", out], "which 'forget', 'recommend' and 'evaluate' take"),
        (["recommend", out, "--sessions", "s1"], "'--sessions' must go with"),
    ):
        assert message in refused(*words)
    assert not (tmp_path / "c").exists()
    with pytest.raises(ValueError, match="'run' must be a run of ease, itemknn, als"):
        ExactRun.load(trained)
    with pytest.raises(ValueError, match="'run' must be a run of a model with trained embeddings"):
        Run.load(out)


def test_a_catalogue_too_large_for_ease_is_refused_with_the_size(tmp_path, refused):
    path = tmp_path / "wide.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item"), *((number % 9, number) for number in range(18_000))])
    said = refused("train", "--data", path, "--model", "ease", "--out", tmp_path / "a")
    assert "'--data' must have at most 13,377 items for EASE with max_gib=4 (got 18,000, which take 7.2 GiB)" in said


def test_a_broken_folder_is_refused(ratings, tmp_path, parsed, refused):
    parsed("train", "--data", ratings, "--model", "itemknn", "--out", tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"broken")
    assert "must be a whole run folder" in refused("recommend", tmp_path / "a", "--users", "u1")


def test_parts_of_two_runs_are_not_taken_for_one(ratings, tmp_path, parsed, refused):
    for name, seed in (("a", 0), ("b", 1)):
        parsed("train", "--data", ratings, "--model", "itemknn", "--seed", seed, "--out", tmp_path / name)
    for part in ("train", "test", "model"):
        mixed = tmp_path / part
        shutil.copytree(tmp_path / "a", mixed)
        shutil.copy(tmp_path / "b" / f"{part}.safetensors", mixed)
        said = refused("recommend", mixed, "--users", "u1")
        assert f"the fingerprint of {part}.safetensors differs from the one in run.json" in said


def test_a_name_that_is_none_is_no_exact_run(tmp_path):
    for name in (["als"], {"als": 1}, 3, None):
        (tmp_path / "run.json").write_bytes(sealed_json({"format": 2, "exact": {"name": name}}))
        assert exact_name(tmp_path) is None
