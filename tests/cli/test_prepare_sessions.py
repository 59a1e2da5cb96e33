"""Prepare shards of sessions, and forget from them: on disk, again and again, and judged."""

import shutil

import pytest
import torch
from safetensors import safe_open

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.cli.prepare import file_of
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators.shards.ensemble import ShardEnsemble
from graphunlearn.operators.shared.preparation import Preparation
from graphunlearn.runs.folder import WRITTEN
from graphunlearn.runs.run import Run

NAMES = ("sisa", "sru")
SMALL = ("--option", "num_shards=3")


@pytest.fixture(scope="module")
def ready(trained_sessions, tmp_path_factory):
    """A run folder of a session model with both preparations; not to be changed."""
    out = shutil.copytree(trained_sessions, tmp_path_factory.mktemp("prepared") / "a")
    for name in NAMES:
        assert main(["prepare", str(out), "--method", name, *SMALL]) == 0
    return out


def method_of(name, run):
    """The method as the command line makes it."""
    given = {
        "validation": run.validation.without_unseen(run.train),
        "settings": run.settings,
        "objective": run.objective,
    }
    return {"sisa": gu.SISA, "sru": gu.SRU}[name](**given, num_shards=3)


def same(one, other):
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


@pytest.mark.parametrize("name", NAMES)
def test_forgets_as_the_method_does_and_goes_on(name, ready, tmp_path, parsed):
    run = Run.load(ready)
    method = method_of(name, run)
    method.prepare(run.model, run.train)
    kept = Preparation.load(ready / file_of(name), ShardEnsemble, kind=name, like=run.model)
    assert same(kept.module, method.preparation.module)
    told = parsed("forget", ready, "--sessions", "s1", "s2", "--method", name, "--out", tmp_path / "b")
    expected = method.unlearn(run.model, run.train, gu.ForgetRequest("session", ["s1", "s2"]))
    after = Run.load(tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir()} <= WRITTEN - {file_of(name)}
    assert same(after.model, expected.model)
    assert after.model.shape() == expected.model.shape()
    assert same(after.forgotten.result.original, expected.original)
    assert fingerprint(after.forgotten.original) == fingerprint(run.model)
    assert told["prepare_seconds"] == kept.seconds
    assert told["options"]["num_shards"] == 3
    parsed("forget", tmp_path / "b", "--sessions", "s4", "--method", name, "--out", tmp_path / "c")
    again = method.unlearn(expected.model, expected.graph, gu.ForgetRequest("session", ["s4"]))
    last = Run.load(tmp_path / "c")
    assert same(last.model, again.model)
    assert last.forgotten.result.original is None
    assert same(last.forgotten.original, expected.model)


def test_audits_measure_from_the_shards_and_against_models_like_the_trained_one(ready, tmp_path, call, parsed):
    last = ready
    for number, session in enumerate(("s1", "s4")):
        out = tmp_path / str(number)
        assert call("forget", last, "--sessions", session, "--method", "sisa", "--out", out)[0] == 0
        report = parsed("audit", out, "--retrain-seeds", 2)
        rows = {method["name"]: method for method in report["methods"]}
        assert list(rows) == ["original", "retrain", "sisa", "unlink", "unlink-redraw"]
        assert ("Measured from an original of its own: sisa." in report["notes"]) == (number == 0)
        assert "seconds_sum" in rows["sisa"]
        last = out


def test_a_ledger_knows_shards(ready, tmp_path, call, parsed):
    last, ledger = ready, tmp_path / "ledger.db"
    for number, session in enumerate(("s1", "s4"), 1):
        out = tmp_path / str(number)
        words = ("--sessions", session, "--method", "sisa", "--out", out, "--ledger", ledger)
        status, _, err = call("forget", last, *words)
        assert status == 0, err
        last = out
    assert parsed("ledger", "verify", ledger)["entries"] == 2


def test_other_methods_forget_from_shards_as_well(ready, tmp_path, call):
    words = ("--sessions", "s1", "--out", tmp_path / "b")
    assert call("forget", ready, *words, "--method", "sisa")[0] == 0
    words = ("--sessions", "s4", "--out", tmp_path / "c")
    assert call("forget", tmp_path / "b", *words, "--method", "unlink")[0] == 0
    assert isinstance(Run.load(tmp_path / "c").model, ShardEnsemble)


def test_what_is_refused(ready, trained_sessions, tmp_path, call, refused):
    assert refused("prepare", trained_sessions) == (
        "'--method' must be one for models of sessions such as gru4rec, sisa or sru (got 'unlearnrec')"
    )
    sentence = refused("prepare", trained_sessions, "--method", "sisa", "--option", "num_shards=999")
    assert "'num_shards' must not be larger than the number of sessions" in sentence
    words = ("--sessions", "s1", "--method", "sisa")
    sentence = refused("forget", ready, *words, "--option", "num_shards=4", "--out", tmp_path / "x")
    assert "'--option num_shards' must be 3, as the method was prepared with (got 4); " in sentence
    assert call("forget", ready, *words, "--out", tmp_path / "b")[0] == 0
    assert refused("prepare", tmp_path / "b", "--method", "sisa") == (
        f"'run' must hold a model that needs a preparation for sisa (got '{tmp_path / 'b'}', whose model it serves "
        "without another one)"
    )
    other = shutil.copytree(trained_sessions, tmp_path / "other")
    run = Run.load(other)
    with torch.no_grad():
        next(run.model.parameters()).mul_(1.5)
    run.save(other, overwrite=True)
    shutil.copy(ready / "sisa.safetensors", other)
    assert refused("forget", other, *words, "--out", tmp_path / "x") == (
        f"'run' must hold a preparation for its own model (got '{other / 'sisa.safetensors'}', for another); prepare "
        f"it again: graphunlearn prepare {other} --method sisa --overwrite"
    )
    assert not (tmp_path / "x").exists()


def test_a_preparation_that_lives_in_memory_alone_is_none_here(trained_sessions, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(gu.SISA, "keeps", None)
    words = ("--sessions", "s1", "--method", "sisa", "--out", tmp_path / "x")
    assert refused("forget", trained_sessions, *words) == (
        "'--method' must need no preparation, or one that can be saved (got 'sisa', whose preparation is kept in "
        "memory only); 'graphunlearn bench' can run it"
    )
    assert "(got 'sisa', which has none to save)" in refused("prepare", trained_sessions, "--method", "sisa")


def test_a_run_folder_says_what_its_shards_are_made_of(ready, tmp_path, call, refused):
    assert call("forget", ready, "--sessions", "s1", "--method", "sisa", "--out", tmp_path / "b")[0] == 0
    with safe_open(str(tmp_path / "b" / "model.safetensors"), framework="pt") as file:
        assert set(file.metadata()) == {"shards", "sha256"}
        assert {"members", "left_out"} < set(file.keys())
    with safe_open(str(tmp_path / "b" / "original.safetensors"), framework="pt") as file:
        assert set(file.metadata()) == {"sha256"}
    shutil.copy(tmp_path / "b" / "own_original.safetensors", tmp_path / "b" / "model.safetensors")
    assert "the fingerprint of model.safetensors differs from the one in run.json" in refused("audit", tmp_path / "b")
