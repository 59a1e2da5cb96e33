"""Shards of users and items on the command line: benched, prepared, forgotten from again and again."""

import shutil

import pytest
import torch

from graphunlearn.nn import encode
from graphunlearn.operators.shards.interactions import InteractionEnsemble
from graphunlearn.runs.run import Run

SHORT = ("--dim", 4, "--epochs", 2)


def test_a_bench_measures_them_from_their_own_originals(ratings, tmp_path, parsed):
    names = ("sisa", "ultrare")
    words = ("bench", "users", "--data", ratings, "--methods", *names, "--retrain-seeds", 2, *SHORT)
    report = parsed(*words, "--model", "mf", "--out", tmp_path / "x")
    told = {method["name"]: method for method in report["methods"]}
    assert set(names) <= set(told)
    assert all("seconds_sum" in told[name] for name in names)
    assert any(all(name in note for name in names) for note in report["notes"])


@pytest.mark.parametrize("by", ["user", "interaction"])
def test_a_run_folder_keeps_the_ensemble_and_goes_on(by, trained, tmp_path, call, parsed):
    start = shutil.copytree(trained, tmp_path / "a")
    options = ("--option", "num_shards=2", f"by={by}")
    assert call("prepare", start, "--method", "receraser", *options)[0] == 0
    for number, user in enumerate(("u1", "u2")):
        source, out = tmp_path / "ab"[number], tmp_path / "bc"[number]
        words = ("--users", user, "--method", "receraser", "--out", out)
        parsed("forget", source, *words, *(options if number else ()))
        run = Run.load(out)
        assert isinstance(run.model, InteractionEnsemble)
        assert run.model.by == by
        assert user not in {run.train.user_ids[n] for n in run.train.pairs[0].tolist()}
        rows = encode(run.model, run.train).queries[run.train.user_ids.index(user)]
        assert torch.equal(rows, torch.zeros_like(rows))
