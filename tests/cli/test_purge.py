"""Purging a run: what goes and what stays, who is refused, and kills at every call that changes the disk."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from quick import QUICK
from safetensors import safe_open
from safetensors.torch import save_file

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs import plan_purge
from graphunlearn.runs.run import Run
from graphunlearn.runs.traces import search_traces

GONE = ["original.safetensors", "original_train.safetensors", "request.json"]
STAYS = ["model", "test", "train", "validation"]


@pytest.fixture(scope="module")
def made(ratings, tmp_path_factory):
    """A folder with a trained run a, and runs b and c after a request each; not to be changed."""
    folder = tmp_path_factory.mktemp("lineage")
    assert main(["train", "--data", str(ratings), "--out", str(folder / "a"), *QUICK]) == 0
    for source, user, out in (("a", "u1", "b"), ("b", "u2", "c")):
        words = ["forget", str(folder / source), "--users", user, "--out", str(folder / out)]
        assert main(words) == 0
    return folder


@pytest.fixture
def runs(made, tmp_path):
    """The same to change."""
    return shutil.copytree(made, tmp_path / "runs")


def state(folder):
    """Every file with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_originals_go_and_the_run_works_as_before(runs, made, call, parsed, refused, tmp_path):
    before = Run.load(made / "c")
    lists = parsed("recommend", runs / "c", "--users", "u5")
    figures = parsed("evaluate", runs / "c")
    told = parsed("purge", runs / "c", "--also", runs / "a", runs / "b", "--yes")
    assert told["deleted"] is True and told["gone"] == []
    assert [Path(entry["path"]).name for entry in told["removals"]][:2] == ["a", "b"]  # the earliest first
    assert [path.name for path in runs.iterdir()] == ["c"]
    files = sorted(path.name for path in (runs / "c").iterdir())
    assert files == sorted([*(f"{name}.safetensors" for name in STAYS), "run.json", "unlearning.json"])
    after = Run.load(runs / "c")
    assert after.forgotten is None
    assert (fingerprint(after.model), after.train.fingerprint()) == (
        fingerprint(before.model),
        before.train.fingerprint(),
    )
    assert parsed("recommend", runs / "c", "--users", "u5") == lists
    assert parsed("evaluate", runs / "c") == figures
    sentence = refused("audit", runs / "c")
    assert sentence.startswith("'run' must be a folder that 'forget' wrote, with the original still in it")
    assert ", purged on 20" in sentence
    assert call("forget", runs / "c", "--users", "u3", "--out", tmp_path / "d")[0] == 0
    assert call("purge", runs / "c", "--yes")[1] == "nothing to delete\n"


def test_no_trace_of_the_originals_is_left(runs, made):
    plan_purge(runs / "c", [runs / "a", runs / "b"]).carry_out()
    for original in ("a", "b"):
        found = search_traces(runs, ["u1", "u2"], original=made / original)
        assert {trace.place for trace in found.certain} == {"tensor user/vocabulary"}  # which 'erase' clears
    assert "row of the original model" in {
        t.place for t in search_traces(made / "c", ["u2"], original=made / "b").found
    }
    facts = json.loads((runs / "c" / "unlearning.json").read_text())
    kept = {"method", "seconds", "cpu_seconds", "prepare_seconds", "peak_memory", "options", "purged", "sha256"}
    assert facts.keys() == kept
    assert "fit" not in json.loads((runs / "c" / "run.json").read_text())["about"]


def test_without_yes_it_lists_and_changes_nothing(runs, call, refused):
    before = state(runs)
    words = ["purge", runs / "c", "--also", runs / "b", runs / "a"]
    status, out, _ = call(*words, "--dry-run")
    assert status == 0
    for name in (*GONE, "run.json", "unlearning.json"):
        assert str(runs / "c" / name) in out
    status, _, err = call(*words)
    assert status == 2 and out.splitlines()[0] in err
    assert refused(*words) == "'--yes' must be given to delete or rewrite these 7 entries (got none)"
    assert refused(*words, "--yes", "--dry-run") == "'--yes' must be left out with --dry-run (got both)"
    assert state(runs) == before


def test_runs_that_are_none_of_the_lineage_are_refused_by_name(runs, ratings, refused, tmp_path):
    assert main(["train", "--data", str(ratings), "--out", str(runs / "x"), *QUICK, "--seed", "5"]) == 0
    shutil.copytree(runs / "c", runs / "copy")
    (runs / "link").symlink_to(runs / "b")
    (runs / "own").mkdir()
    (runs / "own" / "thesis.tex").write_text("years of work")
    (runs / "empty").mkdir()
    before = state(runs)
    for also, sentence in (
        ([runs / "x"], f"must be earlier runs of '{runs / 'c'}' (got '{runs / 'x'}', which nothing shows to be one)"),
        ([runs / "b", runs / "x"], f"'{runs / 'x'}', which nothing shows to be one"),
        ([runs / "a"], "name the runs between them as well"),
        ([runs / "copy"], "which nothing shows to be one"),
        ([runs / "c"], "must be other folders than the run"),
        ([runs], "must be other folders than the run"),
        ([runs / "link"], "which is a symbolic link"),
        ([runs / "own"], "which holds 'thesis.tex'"),
        ([runs / "empty"], "without a run.json"),
        ([ratings], "which is no folder"),
    ):
        told = refused("purge", runs / "c", "--also", *also, "--yes")
        assert told.startswith("'--also' must ") and sentence in told, told
    assert state(runs) == before


def test_runs_that_hold_what_was_to_be_forgotten_are_refused(runs, refused):
    assert "must be a folder that 'forget' or 'erase' wrote" in refused("purge", runs / "a", "--yes")
    run = Run.load(runs / "c")
    run.train = run.forgotten.graph
    run.save(runs / "c", overwrite=True)
    before = state(runs)
    assert "must hold the training data that remain after its request" in refused("purge", runs / "c", "--yes")
    (runs / "c" / "model.safetensors").write_bytes(b"broken")
    assert refused("purge", runs / "c", "--yes").startswith("'run' must be a whole run folder")
    (runs.parent / "other").symlink_to(runs / "b")
    assert "which is a symbolic link" in refused("purge", runs.parent / "other", "--yes")
    assert state(runs) == before | {"c/model.safetensors": b"broken"}


def test_a_folder_that_is_gone_is_told_and_no_error(runs, parsed):
    plan_purge(runs / "c", [runs / "a", runs / "b"]).carry_out()
    told = parsed("purge", runs / "c", "--also", runs / "a", "--yes")
    assert (told["removals"], told["gone"]) == ([], [str(runs / "a")])


def test_leftovers_of_interrupted_commands_go(runs, parsed):
    for name in (".c.0123abcd.new", ".c.0123abcd.old", ".b.0123abcd.old"):
        (runs / name).mkdir()
        (runs / name / "model.safetensors").write_bytes(b"x")
    (runs / ".c.0123abcd.unlearnrec.0.safetensors").write_bytes(b"x")
    (runs / "c" / ".run.json.77.part").write_bytes(b"x")
    (runs / ".cc.0123abcd.new").mkdir()  # of another run
    parsed("purge", runs / "c", "--also", runs / "a", runs / "b", "--yes")
    assert sorted(path.name for path in runs.iterdir()) == [".cc.0123abcd.new", "c"]
    assert not (runs / "c" / ".run.json.77.part").exists()


def test_a_run_whose_originals_were_deleted_by_hand_is_cleaned_as_well(runs, parsed):
    for name in GONE[:2]:
        (runs / "c" / name).unlink()
    told = parsed("purge", runs / "c", "--yes")
    assert [Path(entry["path"]).name for entry in told["removals"]] == ["run.json", "unlearning.json", "request.json"]
    assert not (runs / "c" / "request.json").exists()


def test_runs_that_were_erased_are_purged_with_all_before_them(runs, parsed, call, refused, tmp_path):
    parsed("erase", runs / "c", "--out", runs / "clean")
    parsed("forget", runs / "clean", "--users", "u3", "--method", "unlink", "--out", runs / "d")
    parsed("erase", runs / "d", "--out", runs / "last")
    shutil.copytree(runs / "last", runs / "copy")
    other = Run.load(runs / "last")  # other weights for the same data
    other.model, other.about = other.spec.build(other.train), {}
    other.save(runs / "other")
    before = state(runs)
    for name in ("other", "copy"):
        assert "nothing shows to be one" in refused("purge", runs / "last", "--also", runs / name, "--yes")
    assert "nothing shows to be one" in refused("purge", runs / "clean", "--also", runs / "d", "--yes")  # a later one
    assert call("purge", runs / "last")[1] == "nothing to delete\n"
    words = ["--also", *(runs / name for name in ("a", "b", "c", "clean", "d"))]
    told = parsed("purge", runs / "last", *words, "--dry-run")
    assert [Path(entry["path"]).name for entry in told["removals"]] == ["a", "b", "c", "clean", "d"]
    assert state(runs) == before
    parsed("purge", runs / "last", *words, "--yes")
    assert sorted(path.name for path in runs.iterdir()) == ["copy", "last", "other"]
    (tmp_path / "ids.txt").write_text("u1\nu2\nu3\n")
    assert call("search-traces", runs, "--ids", tmp_path / "ids.txt")[0] == 0


def test_an_erased_run_of_sessions_is_purged(forgotten_sessions, tmp_path, call, parsed):
    shutil.copytree(forgotten_sessions, tmp_path / "b")
    parsed("erase", tmp_path / "b", "--out", tmp_path / "clean")
    parsed("purge", tmp_path / "clean", "--also", tmp_path / "b", "--yes")
    (tmp_path / "ids.txt").write_text("s1\ns2\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "ids.txt"]
    assert call("search-traces", tmp_path / "clean", "--ids", tmp_path / "ids.txt", "--level", "session")[0] == 0


def test_folders_may_be_named_from_inside_and_twice(runs, parsed, monkeypatch):
    for name in (".c.0123abcd.new", ".b.0123abcd.old"):
        (runs / name).mkdir()
    monkeypatch.chdir(runs / "b")
    told = parsed("purge", "../c", "--also", ".", "../b", "--dry-run")
    assert [entry["why"] for entry in told["removals"]].count("an earlier run") == 1
    monkeypatch.chdir(runs / "c")
    parsed("purge", ".", "--also", "../b", "--yes")
    assert sorted(path.name for path in runs.iterdir()) == ["a", "c"]


# ---- hashes of earlier versions


def test_plain_hashes_of_an_earlier_version_go(runs, parsed):
    facts = json.loads((runs / "c" / "unlearning.json").read_text())
    del facts["digests"]
    before = Run.load(runs / "c").forgotten
    prints = {"original": fingerprint(before.original), "original_train": before.graph.fingerprint()}
    (runs / "c" / "unlearning.json").write_bytes(sealed_json(facts | {"fingerprints": prints}))
    parsed("purge", runs / "c", "--yes")
    content = b"".join(state(runs / "c").values())
    assert not any(text.encode() in content for text in prints.values())
    assert Run.load(runs / "c").forgotten is None


def test_preparations_tell_of_the_present_model_alone(trained, tmp_path, call, parsed, monkeypatch):
    source = shutil.copytree(trained, tmp_path / "a")
    assert call("prepare", source, "--option", "probes=1", "requests=2", "epochs=1", "rounds=1")[0] == 0
    assert call("forget", source, "--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "b")[0] == 0
    path, run = tmp_path / "b" / "unlearnrec.safetensors", Run.load(tmp_path / "b")
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["graphunlearn"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    now = [facts["model"], facts["graph"]]
    assert now == [fingerprint(run.model), run.train.fingerprint()]
    old = Run.load(source)
    facts |= {"model": fingerprint(old.model), "graph": old.train.fingerprint(), "served": [now]}
    save_file(tensors, path, {"graphunlearn": json.dumps(facts | {"format": 1})})  # as earlier versions wrote it
    shutil.copy(source / "unlearnrec.safetensors", tmp_path / "b" / "unlearnrec-published.safetensors")
    told = parsed("purge", tmp_path / "b", "--also", source, "--yes")
    acts = {Path(entry["path"]).name: entry["what"] for entry in told["removals"]}
    assert acts["unlearnrec.safetensors"] == "rewrite" and acts["unlearnrec-published.safetensors"] == "delete"
    assert old.train.fingerprint().encode() not in path.read_bytes()
    words = ["--users", "u2", "--method", "unlearnrec", "--out", tmp_path / "c"]
    assert call("forget", tmp_path / "b", *words)[0] == 0


# ---- a ledger and a cache


@pytest.fixture
def entered(runs, tmp_path, parsed):
    """A ledger with the requests of runs d and e, from run c."""
    for source, user, out in (("c", "u3", "d"), ("d", "u4", "e")):
        words = ["--users", user, "--method", "unlink", "--ledger", tmp_path / "l.db", "--out", runs / out]
        parsed("forget", runs / source, *words)
    return tmp_path / "l.db"


def test_a_ledger_shows_what_is_earlier(entered, runs, parsed, refused):
    for name in GONE:
        (runs / "e" / name).unlink()  # which show it otherwise
    assert "a ledger can tell" in refused("purge", runs / "e", "--also", runs / "d", runs / "c", "--yes")
    assert "must have an entry of the run" in refused("purge", runs / "b", "--ledger", entered, "--yes")
    told = parsed("purge", runs / "d", "--ledger", entered, "--dry-run")
    assert told["deleted"] is False
    sentence = refused("purge", runs / "d", "--also", runs / "e", "--ledger", entered, "--yes")
    assert "which nothing shows to be one" in sentence  # it is a later one
    parsed("purge", runs / "e", "--also", runs / "d", runs / "c", "--ledger", entered, "--yes")
    assert sorted(path.name for path in runs.iterdir()) == ["a", "b", "e"]
    assert parsed("ledger", "verify", entered)["entries"] == 2


def test_a_pending_request_is_refused(entered, runs, refused, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "save", lambda *_: sys.exit(9))
        words = ["--users", "u6", "--method", "unlink", "--ledger", str(entered), "--out", str(runs / "f")]
        main(["forget", str(runs / "e"), *words])
    sentence = refused("purge", runs / "e", "--ledger", entered, "--yes")
    assert sentence.startswith("'--ledger' must have no pending request") and "'ledger drop'" in sentence
    key = refused("purge", runs / "e", "--key", entered, "--yes")
    assert key.startswith("'--key' must go with '--ledger'")


def test_cached_models_of_earlier_data_go_and_those_of_the_newest_stay(runs, call, parsed, cache, tmp_path):
    assert call("audit", runs / "b", "--retrain-seeds", "2")[0] == 0
    earlier = set(cache.iterdir())
    assert call("audit", runs / "c", "--retrain-seeds", "2")[0] == 0
    newest = set(cache.iterdir()) - earlier
    assert len(earlier) == len(newest) == 2
    other = gu.datasets.synthetic_interactions(num_users=9, num_items=8, interactions_per_user=4)
    other.to_frame().to_csv(tmp_path / "other.csv", index=False)
    assert main(["train", "--data", str(tmp_path / "other.csv"), "--out", str(tmp_path / "x"), *QUICK]) == 0
    assert call("forget", tmp_path / "x", "--users", "u1", "--method", "unlink", "--out", tmp_path / "y")[0] == 0
    assert call("audit", tmp_path / "y", "--retrain-seeds", "2")[0] == 0
    foreign = set(cache.iterdir()) - earlier - newest
    told = parsed("purge", runs / "c", "--no-cache", "--dry-run")
    assert not any("cache" in entry["why"] for entry in told["removals"])
    parsed("purge", runs / "c", "--also", runs / "b", runs / "a", "--yes")
    assert set(cache.iterdir()) == newest | foreign
    found = search_traces([runs / "c", cache], ["u2"])
    assert {trace.place for trace in found.certain} == {"tensor user/vocabulary"}  # not in report.json or report.html


# ---- kills


CALLS = ("unlink", "rmdir", "rename", "replace", "fsync", "chmod", "open")


def killed(plan, at):
    """Carry out a plan in a child that ends without any clearing up before its ``at``-th call; whether it did."""
    child = os.fork()
    if not child:
        count = 0

        def counting(call):
            def counted(*args, **kwargs):
                nonlocal count
                count += 1
                if count == at:
                    os._exit(9)
                return call(*args, **kwargs)

            return counted

        for name in CALLS:
            setattr(os, name, counting(getattr(os, name)))
        try:
            plan.carry_out()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_killed_at_every_call_that_changes_the_disk(runs, tmp_path):
    torch.set_num_threads(1)
    (runs / ".c.0123abcd.old").mkdir()
    also = [runs / "a", runs / "b"]
    whole, model = Run.load(runs / "c"), fingerprint(Run.load(runs / "c").model)
    shutil.copytree(runs, tmp_path / "stage")
    plan_purge(runs / "c", also).carry_out()
    wanted, at = state(runs), 0
    while True:
        at += 1
        shutil.rmtree(runs)
        shutil.copytree(tmp_path / "stage", runs)
        if not killed(plan_purge(runs / "c", also), at):
            break
        left = Run.load(runs / "c")
        assert fingerprint(left.model) == model and left.train.fingerprint() == whole.train.fingerprint()
        assert left.forgotten is None or left.forgotten.graph.fingerprint() == whole.forgotten.graph.fingerprint()
        plan_purge(runs / "c", also).carry_out()
        assert state(runs) == wanted, at
        assert [path.name for path in runs.iterdir()] == ["c"], at
    assert at > 30
