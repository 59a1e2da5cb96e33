import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import crashing
import pytest
import torch

import graphunlearn as gu
from graphunlearn.ledger.keys import key_file
from graphunlearn.ledger.store import Store
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def forget(file, tmp_path, parsed):
    """Forget with a ledger: the run, words, and the name of the new run, which are in the same folder."""

    def run(source, *words, out):
        words = words if "--method" in words else (*words, "--method", "unlink")
        return parsed("forget", source, *words, "--ledger", file, "--out", tmp_path / out)

    return run


@pytest.fixture
def killed(monkeypatch, forget):
    """Forget as a process does that is killed before its run is written, or before the entry is."""

    def run(*args, at, **kwargs):
        target = {"save": (Run, "save"), "entry": (Store, "append")}[at]
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(*target, lambda *_: sys.exit("killed"))
            forget(*args, **kwargs)

    return run


def both(file):
    """What lies beside the ledger but run folders."""
    return sorted(path.name for path in file.parent.iterdir() if path.is_file())


# ---- one request after another


def test_requests_are_entered_one_after_another(trained, forget, file, parsed, call, tmp_path):
    words = ("--method", "ifru", "--option", "damping=0.3")
    first = forget(trained, "--users", "u1", "--items", "i3", *words, out="b")
    second = forget(tmp_path / "b", "--users", "u4", out="c")
    assert [told["log"]["ledger"]["entry"] for told in (first, second)] == [1, 2]
    one, two = parsed("ledger", "show", file)["entries"]
    runs = [Run.load(path) for path in (trained, tmp_path / "b", tmp_path / "c")]
    for entry, before, after in ((one, *runs[:2]), (two, *runs[1:])):
        prints = [gu.Ledger(file).fingerprints(run.model, run.train) for run in (before, after)]
        assert (entry["model_before"], entry["graph_before"]) == prints[0]
        assert (entry["model_after"], entry["graph_after"]) == prints[1]
    assert (one["out"], one["settings"]["damping"], one["method"]) == ("b", 0.3, "ifru")
    removed = runs[0].train.num_interactions - runs[1].train.num_interactions
    assert one["request"]["interactions"] == removed
    assert one["request"]["parts"] == [{"level": "user", "size": 1}, {"level": "item", "size": 1}]
    status, out, _ = call("ledger", "show", file)
    assert status == 0
    header, row, *_ = out.splitlines()
    assert header.split() == ["entry", "time", "what", "removed", "method", "seconds", "drift", "model"]
    assert "1 user, 1 item" in row
    assert one["model_after"][:12] in row
    assert f"last hash: {two['hash']}" in out
    told = parsed("ledger", "verify", file)
    assert told["entries"] == 2
    assert sorted(Path(folder).name for folder in told["folders"]) == ["b", "c"]
    assert both(file) == ["ledger.db"]


def test_the_run_is_the_one_without_a_ledger(trained, forget, tmp_path, parsed):
    words = ("--users", "u1", "u2", "--method", "ifru")
    parsed("forget", trained, *words, "--out", tmp_path / "plain")
    forget(trained, *words, out="b")
    one, two = (Run.load(tmp_path / name) for name in ("plain", "b"))
    assert fingerprint(one.model) == fingerprint(two.model)
    assert one.train.fingerprint() == two.train.fingerprint()
    assert one.forgotten.result.request == two.forgotten.result.request
    assert one.forgotten.token is None
    assert len(two.forgotten.token) == 32


def test_a_request_that_is_done_is_answered_as_done(trained, forget, file, call, tmp_path):
    forget(trained, "--users", "u1", "u2", out="b")
    before = crashing.files(tmp_path / "b")
    for source, out in ((trained, "b"), (trained, "elsewhere"), (tmp_path / "b", "c")):
        words = ("--users", "u2", "u1", "u1", "--ledger", file, "--out", tmp_path / out)
        status, said, _ = call("forget", source, *words)
        assert status == 0
        assert said.startswith(f"done already: entry 1 of {file}, 20")
        assert said.endswith("b\n")
    assert crashing.files(tmp_path / "b") == before
    assert not (tmp_path / "c").exists()
    assert len(gu.Ledger(file).entries()) == 1


def test_older_models_are_refused(trained, forget, file, refused, tmp_path):
    forget(trained, "--users", "u1", out="b")
    sentence = refused("forget", trained, "--users", "u2", "--ledger", file, "--out", tmp_path / "c")
    assert sentence.startswith("'model' must be the newest model of the ledger, that of entry 1, saved to 'b', with")
    assert not (tmp_path / "c").exists()


def test_held_out_rows_are_part_of_the_request(trained, forget, file, parsed, tmp_path):
    run = Run.load(trained)
    rows = [part.to_frame()[["user", "item"]].astype(str).values.tolist()[0] for part in (run.train, run.test)]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    told = forget(trained, "--pairs", pairs, out="b")
    assert told["request"]["held_out_pairs"] == 1
    assert parsed("ledger", "show", file)["entries"][0]["request"]["interactions"] == 1
    key = bytes.fromhex(key_file(file).read_text())
    asked = gu.ForgetRequest("interaction", [tuple(row) for row in rows])
    assert gu.Ledger(file).entries()[0].digest == asked.digest(key)


def test_no_id_is_left_in_the_file(trained, forget, file, killed, tmp_path):
    user = Run.load(trained).train.user_ids[7]
    killed(trained, "--users", user, out="b", at="save")
    assert f'"{user}"'.encode() in file.read_bytes()
    forget(trained, "--users", user, out="b")
    assert f'"{user}"'.encode() not in b"".join((tmp_path / name).read_bytes() for name in both(file))


def test_sessions_go_the_same_way(trained_sessions, forget, file, parsed, tmp_path):
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("session,position\ns3,0\ns4,1\n")
    one = forget(trained_sessions, "--clicks", clicks, "--sessions", "s1", out="b")
    assert one["log"]["ledger"]["entry"] == 1
    again = forget(trained_sessions, "--clicks", clicks, "--sessions", "s1", out="b")
    assert again["done"]
    forget(tmp_path / "b", "--clicks", clicks, out="c")  # the clicks that are in those places now
    entries = parsed("ledger", "show", file)["entries"]
    assert [entry["request"]["clicks"] > 1 for entry in entries] == [True, True]
    assert entries[1]["drift"]["requests"] == 2
    assert parsed("ledger", "verify", file)["entries"] == 2


def test_the_drift_is_told_with_its_budget(trained, file, tmp_path, call, monkeypatch):
    monkeypatch.setattr("graphunlearn.ledger.drift.distance", lambda *_: 1e9)
    status, out, err = call("forget", trained, "--users", "u1", "--ledger", file, "--out", tmp_path / "b")
    assert status == 0
    assert "graphunlearn: note: retrain now: the drift is" in err
    assert "after 1 request, and its budget 0.5" in err
    assert f"entry 1 of {file}, drift " in out
    assert "retrain now: the drift exceeds its budget" in call("ledger", "show", file)[1]


def test_an_audit_does_not_hide_that_it_is_time_to_retrain(trained, forget, file, parsed, call, monkeypatch):
    monkeypatch.setattr("graphunlearn.ledger.drift.distance", lambda *_: 1e9)
    forget(trained, "--users", "u1", out="b")
    gu.Ledger(file).record_audit(1, {"verdict": "fine"})
    assert "retrain now: the drift exceeds its budget" in call("ledger", "show", file)[1]


def test_onto_itself(run_copy, forget, file, parsed):
    for user in ("u4", "u5"):
        forget(run_copy, "--users", user, "--overwrite", out="copy")
    assert parsed("ledger", "verify", file) == {
        "entries": 2,
        "folders": [str(Path(os.path.relpath(run_copy)))],
        "folders_missing": [],
        "key": True,
        "pending": None,
    }


def test_without_its_key_models_are_compared_alone(run_copy, forget, file, parsed, call, refused):
    forget(run_copy, "--users", "u4", "--overwrite", out="copy")
    key_file(file).unlink()
    told = parsed("ledger", "verify", file)
    assert (told["key"], len(told["folders"])) == (False, 1)
    assert (
        "the key is missing: models were compared, but graphs cannot be compared" in call("ledger", "verify", file)[1]
    )
    other = Run.load(run_copy)
    torch.nn.init.zeros_(next(other.model.parameters()))
    other.save(run_copy, overwrite=True)
    assert "must hold the model of entry 1" in refused("ledger", "verify", file)


@pytest.mark.parametrize("action", ["show", "resume", "drop"])
def test_an_empty_file_is_no_ledger_and_does_not_become_one(action, file, refused):
    file.write_bytes(b"")
    assert "must have a first entry" in refused("ledger", action, file)
    assert file.read_bytes() == b""


def test_what_was_not_made_whole_yet_has_no_entries(file, parsed, refused):
    file.write_bytes(b"")
    assert parsed("ledger", "verify", file) == {"entries": 0, "key": False, "pending": None}
    assert file.read_bytes() == b""
    assert "(got 'ledger.db', which is empty)" in refused("ledger", "verify", file, "--holds", "0" * 64).replace(
        str(file), "ledger.db"
    )


def test_runs_and_ledger_can_be_moved_together(trained, forget, file, parsed, tmp_path):
    (tmp_path / "all").mkdir()
    parsed("forget", trained, "--users", "u1", "--ledger", tmp_path / "all" / "l", "--out", tmp_path / "all" / "b")
    shutil.move(tmp_path / "all", tmp_path / "moved")
    told = parsed("ledger", "verify", tmp_path / "moved" / "l")
    assert [Path(folder).resolve() for folder in told["folders"]] == [tmp_path / "moved" / "b"]


# ---- interruptions


@pytest.mark.parametrize("at", ["save", "entry"])
@pytest.mark.parametrize("how", ["again", "resume"])
def test_an_interrupted_request_is_finished(at, how, trained, forget, killed, file, parsed, call, tmp_path):
    killed(trained, "--users", "u1", "--method", "ascent", "--option", "steps=2", "--seed", "3", out="b", at=at)
    assert (tmp_path / "b").exists() == (at == "entry")
    told = parsed("ledger", "verify", file)
    assert (told["entries"], told["pending"]["method"]) == (0, "ascent")
    status, out, _ = call("ledger", "show", file)
    assert status == 0
    assert f"'graphunlearn ledger resume {file}' finishes it" in out
    before = crashing.files(tmp_path / "b") if at == "entry" else None
    if how == "again":
        words = ("--method", "ascent", "--option", "steps=2", "--seed", "3")
        told = forget(trained, "--users", "u1", *words, out="b")
        assert told.get("done", False) == (at == "entry")
    else:
        parsed("ledger", "resume", file)
    entry = parsed("ledger", "show", file)["entries"][0]
    assert (entry["settings"]["steps"], entry["model_after"]) == (2, fingerprint(Run.load(tmp_path / "b").model))
    assert before is None or crashing.files(tmp_path / "b") == before
    assert parsed("ledger", "verify", file)["pending"] is None


def test_another_request_waits(trained, forget, killed, file, refused, tmp_path):
    killed(trained, "--users", "u1", out="b", at="save")
    sentence = refused("forget", trained, "--users", "u2", "--ledger", file, "--out", tmp_path / "c")
    assert sentence.startswith("'--ledger' must have no other pending request (got")
    assert f"'graphunlearn ledger resume {file}'" in sentence


def test_another_request_goes_on_from_a_run_that_was_only_to_be_entered(trained, forget, killed, file, tmp_path):
    killed(trained, "--users", "u1", out="b", at="entry")
    forget(tmp_path / "b", "--users", "u2", out="c")
    assert [entry.out for entry in gu.Ledger(file).entries()] == ["b", "c"]


def test_giving_up(trained, forget, killed, file, call, refused, tmp_path):
    killed(trained, "--users", "u1", out="b", at="save")
    assert call("ledger", "drop", file)[0] == 0
    assert refused("ledger", "drop", file).startswith("'ledger' must have a pending request to drop")
    assert refused("ledger", "resume", file).startswith("'ledger' must have a pending request to resume")
    killed(trained, "--users", "u1", out="b", at="entry")
    assert "as entry 1" in refused("ledger", "drop", file)  # it was done
    assert len(gu.Ledger(file).entries()) == 1


def test_a_run_that_was_damaged_before_it_was_entered(trained, forget, killed, file, refused, tmp_path):
    killed(trained, "--users", "u1", out="b", at="entry")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"")
    for action in ("resume", "drop"):
        sentence = refused("ledger", action, file)
        assert sentence.endswith(f"pending request wrote '{tmp_path / 'b'}': move it away to repeat the request")
    shutil.move(tmp_path / "b", tmp_path / "broken")
    forget(trained, "--users", "u1", out="b")
    assert len(gu.Ledger(file).entries()) == 1


def test_a_request_of_a_program_is_finished_by_it(trained, file, refused, monkeypatch):
    run, ledger = Run.load(trained), gu.Ledger(file)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Store, "append", lambda *_: sys.exit("killed"))
        ledger.unlearn(gu.Unlink(), run.model, run.train, gu.ForgetRequest("user", ["u1"]))
    assert "its call of Ledger.unlearn" in refused("ledger", "resume", file)


def test_a_full_disk_leaves_a_request_to_be_finished(trained, forget, file, refused, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        words = ("--users", "u1", "--method", "unlink", "--ledger", file, "--out", tmp_path / "b")
        assert "No space left on device" in refused("forget", trained, *words)
    assert not (tmp_path / "b").exists()
    forget(trained, "--users", "u1", out="b")
    assert len(gu.Ledger(file).entries()) == 1


def test_ctrl_c_takes_the_request_back(trained, file, call, monkeypatch, tmp_path):
    def interrupted(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gu.Unlink, "_unlearn", interrupted)
    words = ("--users", "u1", "--method", "unlink", "--ledger", file, "--out", tmp_path / "b")
    assert call("forget", trained, *words)[0] == 130
    assert gu.Ledger(file).pending is None


def test_what_is_wrong_is_not_taken_up(trained, file, refused, tmp_path):
    elsewhere = tmp_path / "none" / "ledger.db"
    sentence = refused("forget", trained, "--users", "u1", "--ledger", elsewhere, "--out", tmp_path / "b")
    assert sentence == f"'--ledger' must be in a folder that exists (got '{elsewhere}')"
    for words in (("--users", "nobody"), ("--sessions", "s1"), ("--users", "u1", "--method", "cau")):
        refused("forget", trained, *words, "--ledger", file, "--out", tmp_path / "b")
    refused("forget", trained, "--users", "u1", "--ledger", file, "--out", trained)
    ledger = gu.Ledger(file)
    assert (ledger.pending, ledger.entries()) == (None, [])


# ---- the other commands


def test_broken_ledgers_are_told_in_a_sentence(trained, forget, file, refused, tmp_path):
    forget(trained, "--users", "u1", out="b")
    whole = file.read_bytes()
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TRIGGER entry_stays")
        connection.execute("UPDATE entry SET content = replace(content, 'unlink', 'retrai') WHERE number = 1")
    connection.close()
    assert refused("ledger", "verify", file) == (
        f"'ledger' must be as it was written (got '{file}', where entry 1 was changed)"
    )
    file.write_bytes(whole)
    key_file(file).write_text("00" * 32)
    assert refused("ledger", "verify", file).startswith("'ledger' must have its own key")
    file.write_text("user,item\n")
    assert refused("ledger", "verify", file).startswith(f"'ledger' must be a whole ledger (got '{file}': file is not")
    file.unlink()
    for action in ("show", "verify", "resume", "drop"):
        assert refused("ledger", action, file) == f"'ledger' must be an existing file (got '{file}')"
    assert not file.exists()


def test_folders_that_hold_something_else_are_told(trained, forget, file, refused, parsed, tmp_path):
    forget(trained, "--users", "u1", out="b")
    forget(tmp_path / "b", "--users", "u2", out="c")
    shutil.rmtree(tmp_path / "b")
    told = parsed("ledger", "verify", file)
    assert [Path(folder).name for folder in told["folders_missing"]] == ["b"]
    run = Run.load(tmp_path / "c")
    with torch.no_grad():
        run.model.embedding.weight[0, 0] += 1
    run.save(tmp_path / "c", overwrite=True)
    assert "must hold the model of entry 2 (got another)" in refused("ledger", "verify", file)
    (tmp_path / "c" / "model.safetensors").write_bytes(b"")
    assert refused("ledger", "verify", file).startswith("'run' must be a whole run folder")


def test_an_entry_that_must_be_there(trained, forget, file, parsed, refused, tmp_path):
    forget(trained, "--users", "u1", out="b")
    last = parsed("ledger", "show", file)["entries"][-1]["hash"]
    forget(tmp_path / "b", "--users", "u2", out="c")
    assert parsed("ledger", "verify", file, "--holds", last)["entries"] == 2
    assert refused("ledger", "verify", file, "--holds", "0" * 64).startswith("'ledger' must hold the entry given with")
    assert refused("ledger", "show", file, "--holds", last).startswith("'--holds' must go with 'verify'")


def test_going_on_from_a_run_that_was_trained_anew(trained, forget, file, parsed, refused, call, tmp_path):
    forget(trained, "--users", "u1", out="b")
    parsed("forget", tmp_path / "b", "--users", "u2", "--method", "retrain", "--out", tmp_path / "new")
    assert refused("ledger", "retrained", file) == "'--run' must name the run of the retrained model (got none)"
    status, out, _ = call("ledger", "retrained", file, "--run", tmp_path / "new")
    assert status == 0
    assert "entry 2" in out
    assert "retrained on other data" in out
    told = forget(tmp_path / "new", "--users", "u3", out="c")
    assert told["log"]["ledger"] == {"entry": 3, "drift": told["log"]["ledger"]["drift"] | {"requests": 1}}
    assert "retrained" in call("ledger", "show", file)[1]
    assert parsed("ledger", "verify", file)["entries"] == 3


def test_audits_are_entered(trained, forget, file, parsed, refused, call, tmp_path):
    forget(trained, "--users", "u1", "u2", out="b")
    words = ("--retrain-seeds", "2", "--ledger", file)
    report = parsed("audit", tmp_path / "b", *words)
    entry = parsed("ledger", "show", file)["entries"][1]
    method = next(method for method in report["methods"] if method["name"] == "unlink")
    assert (entry["kind"], entry["of"]) == ("audited", 1)
    assert entry["figures"]["utility"] == method["utility"]
    assert entry["figures"]["distance_to_retrain"] == method["distance_to_retrain"]
    assert entry["figures"]["forgetting"]["membership_auroc"].keys() <= method["forgetting"]["membership_auroc"].keys()
    assert "audit of 1" in call("ledger", "show", file)[1]
    assert parsed("ledger", "verify", file)["entries"] == 2
    forget(tmp_path / "b", "--users", "u3", out="c")
    parsed("forget", tmp_path / "c", "--users", "u4", "--method", "unlink", "--out", tmp_path / "d")
    sentence = refused("audit", tmp_path / "d", *words)
    assert sentence == f"'--ledger' must have an entry of the run (got '{file}' without one)"
    assert refused("audit", tmp_path / "c", "--ledger", tmp_path / "none").endswith(f"file (got '{tmp_path / 'none'}')")


def test_a_report_is_kept_where_the_ledger_cannot_be_written(trained, forget, file, refused, monkeypatch, tmp_path):
    forget(trained, "--users", "u1", out="b")

    def locked(*_):
        raise ValueError("'ledger' must not be in use by another process")

    monkeypatch.setattr(gu.Ledger, "record_audit", locked)
    refused("audit", tmp_path / "b", "--retrain-seeds", "2", "--ledger", file)
    assert (tmp_path / "b" / "report.json").is_file()


def test_an_empty_ledger(file, call, parsed):
    gu.Ledger(file)
    assert call("ledger", "show", file) == (0, "no entries yet\n", "")
    assert parsed("ledger", "verify", file)["entries"] == 0


# ---- kill -9 at every write


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The library that counts calls and kills; skipped where none can be made."""
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    source = tmp_path_factory.mktemp("shim") / "shim.c"
    source.write_text(crashing.SHIM)
    library = source.with_suffix(".so")
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"the C compiler cannot make a shared library: {made.stderr[-200:]}")
    return library


def test_killed_at_every_write(trained, trained_sessions, shim, tmp_path, call, monkeypatch):
    """A new ledger at every call; a run replaced in place, and sessions, at every seventh."""
    stages = [tmp_path / name for name in ("new", "onto-itself", "sessions")]
    for stage, run in zip(stages, (trained, trained, trained_sessions)):
        shutil.copytree(run, stage / "a")
    monkeypatch.setenv("GRAPHUNLEARN_KEYS", str(stages[1] / "keys"))
    words = ("--method", "unlink", "--ledger", stages[1] / "l.db")
    assert call("forget", trained, "--users", "u2", *words, "--out", stages[1] / "b")[0] == 0
    shutil.rmtree(stages[1] / "a")
    common = ["--method", "unlink", "--ledger", "l.db"]
    new = (["a", "--users", "u1", *common, "--out", "b"], "a", "b", 1)
    onto = (["b", "--users", "u1", *common, "--out", "b", "--overwrite"], "b", "b", 2)
    sessions = (["a", "--sessions", "s1", *common, "--out", "b"], "a", "b", 1)
    shutil.copytree(stages[0], tmp_path / "even")
    shares = [  # of two processes: every other call of a new ledger each
        [(str(stages[0]), *new, 2, 0)],
        [(str(tmp_path / "even"), *new, 2, 1), (str(stages[1]), *onto, 7, 0), (str(stages[2]), *sessions, 7, 0)],
    ]
    environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, crashing.__file__, json.dumps(share)], env=environment, stdout=-1, stderr=-1, text=True
        )
        for share in shares
    ]
    told = []
    for process in started:
        out, err = process.communicate()
        assert process.returncode == 0, err[-3000:]
        told += json.loads(out)
    odd, even, onto, sessions = told
    assert odd["calls"] == even["calls"] > 80
    assert odd["kills"] + even["kills"] > odd["calls"]
    assert odd["seen"] == even["seen"] == sessions["seen"] == ["new", "old"]
    assert {"new", "old"} <= set(onto["seen"]) <= {"aside", "new", "old"}


# ---- the key


def test_a_key_file_is_named_on_every_command(trained, file, tmp_path, parsed, call, refused):
    key = tmp_path / "secret.key"
    words = ["--users", "u1", "--method", "unlink", "--ledger", file, "--key", key, "--out", tmp_path / "b"]
    parsed("forget", trained, *words)
    assert key.is_file()
    assert parsed("ledger", "verify", file, "--key", key)["key"] is True
    assert call("ledger", "show", file, "--key", key)[0] == 0
    assert parsed("audit", tmp_path / "b", "--ledger", file, "--key", key, "--retrain-seeds", "2")["methods"]
    assert len(parsed("ledger", "show", file, "--key", key)["entries"]) == 2
    sentence = refused("forget", trained, "--users", "u1", "--key", key, "--out", tmp_path / "c")
    assert sentence == f"'--key' must go with '--ledger' (got '{key}' without it)"
    assert refused("audit", tmp_path / "b", "--key", key, "--out", tmp_path / "d").startswith("'--key' must go with")


def test_a_ledger_that_lost_its_entries_is_refused_by_every_command(trained, forget, file, refused, tmp_path):
    forget(trained, "--users", "u1", out="b")
    file.write_bytes(b"")
    for words in (["ledger", "verify", file], ["ledger", "show", file], ["audit", tmp_path / "b", "--ledger", file]):
        assert "must hold the entries that its key" in refused(*words)
    words = ["--users", "u2", "--ledger", file, "--out", tmp_path / "c"]
    assert "to start a new one, delete that key or name another" in refused("forget", tmp_path / "b", *words)
    assert not (tmp_path / "c").exists()
