import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta

import crashing_jobs
import pytest
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.jobs.job import utc_now
from graphunlearn.ledger.store import Store
from graphunlearn.runs.run import Run


@pytest.fixture(scope="module")
def live(ratings, tmp_path_factory):
    """A trained run folder whose users are reader-0, reader-1, ...; not to be changed."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "ratings.csv").write_text(ratings.read_text().replace("\nu", "\nreader-"))
    words = ["train", "--data", str(folder / "ratings.csv"), "--out", str(folder / "live"), *QUICK]
    assert main(words) == 0
    return folder / "live"


def test_killed_at_every_write(live, shim, tmp_path):
    """Every sixth write of a run, and every third of the others."""
    work = []
    for what, every in (("run", 6), ("submit", 3), ("withdraw", 3)):
        shutil.copytree(live, tmp_path / what / "live")
        work.append((str(tmp_path / what), what, every, 0))
    environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, crashing_jobs.__file__, json.dumps(work)], env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-3000:]
    run, submit, withdraw = json.loads(made.stdout)
    assert (run["calls"] > 100, submit["calls"] > 10, withdraw["calls"] > 10) == (True, True, True)
    assert {"PENDING,PENDING,PENDING", "RUNNING,RUNNING,PENDING", "DONE,DONE,PENDING"} == set(run["seen"])
    assert submit["seen"] == [""]  # the last write is the one that adds the job
    assert withdraw["seen"] == ["PENDING,PENDING,PENDING"]


@pytest.fixture
def scene(live, tmp_path):
    """A copy of the run folder, a ledger's name, and files of ids."""
    shutil.copytree(live, tmp_path / "live")
    (tmp_path / "users.csv").write_text("user\nreader-1\nreader-2\nreader-2\nnobody\n")
    (tmp_path / "more.csv").write_text("name;visitor;note\nA;reader-3;x\nB;reader-2;y\n")
    return tmp_path


def day(days=0):
    return (utc_now().date() + timedelta(days=days)).isoformat()


def given(scene, *words, ids="users.csv", days=0):
    return ("job", "submit", "--ids", scene / ids, "--due", day(days), "--run", scene / "live", *words)


def test_from_submission_to_report(scene, parsed, call):
    ledger = scene / "l.db"
    told = parsed(*given(scene, "--ledger", ledger))
    assert (told["job"], told["state"], told["numIds"], told["duplicates"], told["run"]) == (1, "PENDING", 3, 1, "live")
    columns = ("--user-column", "visitor", "--sep", ";")
    assert parsed(*given(scene, "--ledger", ledger, *columns, ids="more.csv", days=1))["numIds"] == 2
    assert parsed(*given(scene, "--ledger", ledger, days=20))["job"] == 3
    assert "PENDING" in call("job", "status", ledger)[1]
    table = scene / "rows.csv"
    words = ("--method", "ascent", "--option", "steps=2", "--seed", "3", "--id-map", table)
    told = parsed("job", "run", "--ledger", ledger, *words)
    assert [job["numDeleted"] for job in told["jobs"]] == [2, 1]
    assert told["batches"][0]["method"] == "ascent"
    assert told["next_due"] == day(20)
    rows = table.read_text().splitlines()
    assert rows[0] == "type,id,old_row,new_row"
    assert not [row for row in rows if row.split(",")[1] in ("reader-1", "reader-2", "reader-3")]
    report = parsed("job", "report", ledger)
    assert report["states"] == {"PENDING": 1, "RUNNING": 0, "DONE": 2, "FAILED": 0, "WITHDRAWN": 0}
    assert report["totals"]["numDeleted"] == 3
    status, out, _ = call("job", "report", ledger)
    assert (status, out.splitlines()[0]) == (0, "3 jobs: 1 PENDING, 2 DONE")
    assert "batch 1, job 1 and 2 on live: 3 deleted, 1 already deleted, 1 not found; " in out
    assert call("job", "run", "--ledger", ledger)[1] == f"nothing is due; the next job is due on {day(20)}\n"
    assert parsed("job", "run", "--ledger", ledger, "--all")["jobs"][0]["alreadyDeleted"] == 2
    assert parsed("ledger", "verify", ledger)["entries"] == 2
    assert (
        "audit"
        not in call("forget", scene / "live", "--users", "reader-9", "--ledger", ledger, "--out", scene / "b")[2]
    )


def test_withdrawing(scene, parsed, call, refused):
    ledger = scene / "l.db"
    parsed(*given(scene, "--ledger", ledger))
    assert call("job", "withdraw", ledger, "1", "--ids", scene / "more.csv", "--sep", ";", "--user-column", "1")[1] == (
        "job 1: 1 user withdrawn; 2 users left\n"
    )
    assert call("job", "withdraw", ledger, "1")[1] == "job 1: 2 users withdrawn; the job is withdrawn\n"
    assert refused("job", "withdraw", ledger, "1").startswith("'job' must be one that waits (got 1, which is WITHDRAWN")
    assert refused("job", "withdraw", ledger) == "'JOB' must be the number of a job (got none)"
    assert call("job", "run", "--ledger", ledger)[1] == "nothing is due\n"


def test_bad_input(scene, refused, parsed, tmp_path):
    ledger = scene / "l.db"
    words = ("--ledger", ledger)
    for action in ("run", "status", "report", "withdraw"):
        named = words if action == "run" else (ledger,)
        assert refused("job", action, *named) in (
            f"'--ledger' must be an existing file (got '{ledger}')",
            "'JOB' must be the number of a job (got none)",
        )
    past = refused(*given(scene, *words, days=-1))
    assert past == f"'--due' must be today, {day()} (UTC), or later (got {day(-1)})"
    assert refused("job", "submit", "--run", scene / "live", *words).startswith(
        "'--due' must name the day by whose end"
    )
    assert refused("job", "submit", "--due", day(), *words) == "'--run' must name the run folder (got none)"
    assert refused(*given(scene, "--level", "session", *words)).startswith("'--level' must be one that the data of the")
    assert "'--ids' must be an existing file" in refused(*given(scene, *words, ids="none.csv"))
    assert refused("job", "status") == "'--ledger' must name the ledger (got none)"
    assert refused("job", "status", ledger, "--within", "2") == "'--within' must go with 'run' (got it with 'status')"
    assert refused("job", "run", ledger, "--all", "--due", day()) == "'--due' must go with 'submit' (got it with 'run')"
    parsed(*given(scene, *words))
    assert "'--method' must be one of" in refused("job", "run", *words, "--method", "none")
    assert refused("job", "run", *words, "--compact", "--no-compact").startswith("'--compact' must be left out")
    assert refused("job", "run", *words, "--id-map", scene / "rows.txt").startswith("'--id-map' must end with")


def test_a_run_that_is_not_the_newest_is_refused_in_a_sentence(scene, parsed, refused):
    ledger = scene / "l.db"
    shutil.copytree(scene / "live", scene / "old")
    parsed(*given(scene, "--ledger", ledger))
    parsed("job", "run", "--ledger", ledger, "--method", "unlink")
    due = ("--due", day(), "--ledger", ledger)
    sentence = refused("job", "submit", "--ids", scene / "users.csv", "--run", scene / "old", *due)
    assert sentence.startswith("'--run' must hold the newest model of the ledger, that of entry 2, saved to 'live'")


def test_a_failed_job_is_told_and_tried_again(scene, parsed, refused, call, monkeypatch):
    ledger = scene / "l.db"
    parsed(*given(scene, "--ledger", ledger))
    words = ("job", "run", "--ledger", ledger, "--method", "unlearnrec")
    sentence = refused(*words)
    assert sentence.startswith("job 1 failed: 'run' must hold a preparation for unlearnrec (got none)")
    assert sentence.endswith("the next 'job run' tries again")
    assert "job 1 failed: 'run' must hold" in call("job", "status", ledger)[1]
    assert parsed("job", "run", "--ledger", ledger, "--method", "unlink")["jobs"][0]["state"] == "DONE"


def test_the_commands_of_the_ledger_know_jobs(scene, parsed, refused, call, monkeypatch):
    """A job that was interrupted before its run was written is named where it is in the way, and can be dropped."""
    ledger = scene / "l.db"
    parsed(*given(scene, "--ledger", ledger))
    run = ("job", "run", "--ledger", ledger, "--method", "unlink")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "save", lambda *_, **__: sys.exit("killed"))
        call(*run)
    assert parsed("job", "status", ledger)[0]["state"] == "RUNNING"
    assert refused("ledger", "resume", ledger).endswith(f"; 'graphunlearn job run --ledger {ledger}' finishes it")
    parsed("ledger", "drop", ledger)
    assert parsed(*run)["jobs"][0]["numDeleted"] == 2
    assert parsed("ledger", "verify", ledger)["entries"] == 2


def test_a_request_of_forget_goes_on_after_a_job_that_was_only_to_be_entered(scene, parsed, call, monkeypatch):
    ledger = scene / "l.db"
    parsed(*given(scene, "--ledger", ledger))
    run = ("job", "run", "--ledger", ledger, "--method", "unlink")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Store, "append", lambda *_: sys.exit("killed"))
        call(*run)
    words = ("--method", "unlink", "--ledger", ledger, "--out", scene / "b")
    parsed("forget", scene / "live", "--users", "reader-9", *words)
    assert [entry.out for entry in gu.Ledger(ledger).entries()] == ["live", "b"]
    told = parsed(*run, "--no-compact")
    assert (told["jobs"][0]["state"], told["batches"][0]["entry"]) == ("DONE", 1)


def test_the_preparation_of_a_method_goes_on(scene, parsed, call):
    """Its rows are those of the run as it is, so that ids stay unless they are told to go."""
    ledger, options = scene / "l.db", ("--option", "probes=1", "epochs=1")
    assert call("prepare", scene / "live", "--method", "unlearnrec", *options)[0] == 0
    parsed(*given(scene, "--ledger", ledger))
    status, _, err = call("job", "run", "--ledger", ledger, "--method", "unlearnrec")
    assert (status, "the ids of emptied users and items stay in the run" in err) == (0, True)
    assert (scene / "live" / "unlearnrec.safetensors").exists()
    assert "reader-1" in Run.load(scene / "live").train.user_ids
    parsed(*given(scene, "--ledger", ledger, "--user-column", "1", "--sep", ";", ids="more.csv"))
    parsed("job", "run", "--ledger", ledger, "--method", "unlearnrec", "--compact")
    assert "reader-3" not in Run.load(scene / "live").train.user_ids
    assert not (scene / "live" / "unlearnrec.safetensors").exists()
