import stat
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
import torch
from scenes import Clock, jobs_of, raw, returns, rows_of, saved, some_rows, unlink

import graphunlearn as gu
from graphunlearn.jobs import Jobs
from graphunlearn.jobs.store import JobStore
from graphunlearn.jobs.work import Work
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs import ModelSpec, Run
from graphunlearn.runs.erasing import erase
from graphunlearn.runs.run import Forgotten


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live(tmp_path):
    """A run folder in which reader-39 and book-11 are in the test data only."""
    rows = {row for row in some_rows() if row[0] < 39 and row[1] < 11}
    saved(tmp_path / "live", rows, {(0, 11), (39, 0), (39, 1), (3, 2)} - rows)
    return tmp_path / "live"


@pytest.fixture
def jobs(tmp_path, clock):
    return jobs_of(tmp_path, clock)


def told(jobs, number=1):
    return jobs.job(number).to_dict(jobs.clock())


# ---- due dates


@pytest.mark.parametrize(
    ("due", "sentence"),
    [
        ("2026-11-30", r"'due' must be today, 2026-12-01 \(UTC\), or later \(got 2026-11-30\)"),
        (date(2020, 1, 1), r"'due' must be today, .* \(got 2020-01-01\)"),
        ("20.12.2026", r"'due' must be a day such as 2026-12-20 \(got '20.12.2026'\)"),
        ("2026-02-30", "'due' must be a day such as"),
        (datetime(2026, 12, 20, 12), "'due' must be a day, whose end in UTC is meant"),
    ],
)
def test_a_due_date_is_a_day_that_is_not_over(due, sentence, jobs, live):
    with pytest.raises(ValueError, match=sentence):
        jobs.submit(["reader-1"], due, run=live)
    assert jobs.status() == []


def test_due_is_the_end_of_the_day(jobs, live, clock):
    jobs.submit(["reader-1"], "2026-12-01", run=live)
    for time, late in (("2026-12-01T23:59:59", False), ("2026-12-02T00:00:00", True)):
        clock.now = datetime.fromisoformat(f"{time}+00:00")
        assert told(jobs)["late"] is late
        assert jobs.report()["late"] == late
    jobs.run(method=unlink)
    assert (told(jobs)["state"], told(jobs)["late"]) == ("DONE", True)


@pytest.mark.parametrize(("within", "taken"), [(0, [1]), (None, [1, 2]), (2, [1, 2, 3]), ("all", [1, 2, 3, 4])])
def test_jobs_are_worked_off_before_they_are_due(within, taken, jobs, live, clock):
    for days in (0, 1, 2, 30):
        jobs.submit([f"reader-{days}"], clock.day(days), run=live)
    given = {} if within is None else {"everything": True} if within == "all" else {"within": within}
    batches = jobs.run(method=unlink, **given)
    assert [batch.jobs for batch in batches] == [tuple(taken)]
    assert [job.number for job in jobs.status() if job.state == "DONE"] == taken
    assert jobs.run(method=unlink, **given) == []


def test_a_daily_call_at_any_hour_misses_none(jobs, live, clock):
    """A call a day, an hour later each day: jobs that wait for a call are done by the end of their day."""
    for day in range(1, 25):
        jobs.submit([f"reader-{day}"], clock.day(1), run=live)
        clock.now += timedelta(hours=25 if clock.now.hour < 23 else 24)
        jobs.run(method=unlink)
    assert {job.state for job in jobs.status()} == {"DONE"}
    assert jobs.report()["late"] == 0


# ---- what a batch does


def test_due_jobs_are_one_request(jobs, live, clock, tmp_path):
    before = Run.load(live)
    jobs.submit(["reader-1", "reader-2", "reader-1"], clock.day(), run=live)
    jobs.submit([("reader-5", book(before, 5))], clock.day(1), run=live, level="interaction")
    jobs.submit(["reader-2", "reader-3", "nobody"], clock.day(1), run=live)
    batch = jobs.run(method=unlink)[0]
    request = gu.ForgetRequest("user", ["reader-1", "reader-2", "reader-3"])
    request |= gu.ForgetRequest("interaction", [("reader-5", book(before, 5))])
    entries = jobs.ledger.entries()
    assert [entry.kind for entry in entries] == ["forgotten", "erased"]
    assert entries[0].digest == jobs.ledger.digest(request)
    assert (batch.entry, batch.jobs, batch.interactions) == (
        1,
        (1, 2, 3),
        request.describe(before.train)["interactions"],
    )
    assert [(job.deleted, job.already_deleted, job.not_found, job.duplicates) for job in jobs.status()] == [
        (2, 0, 0, 1),
        (1, 0, 0, 0),
        (1, 1, 1, 0),
    ]
    after = Run.load(live)
    assert rows_of(after.train) == rows_of(before.train.split(request)[0])
    assert set(before.train.user_ids) - set(after.train.user_ids) == {"reader-1", "reader-2", "reader-3"}
    assert jobs.ledger.verify(after.model) == 2
    assert (after.forgotten, after.about["deleted"]) == (None, {"user": 3, "interaction": 1})
    assert sorted(path.name for path in live.iterdir()) == [
        *("model.safetensors", "run.json", "test.safetensors", "train.safetensors", "validation.safetensors")
    ]


def book(run, user):
    return next(row[1] for row in sorted(rows_of(run.train)) if row[0] == f"reader-{user}")


def test_the_model_of_those_who_stay_is_that_of_the_method(jobs, live, clock):
    before = Run.load(live)
    jobs.submit(["reader-4"], clock.day(), run=live)
    jobs.run(method=lambda run, folder: gu.GradientAscent(steps=2, objective=run.objective))
    method = gu.GradientAscent(steps=2, objective=before.objective)
    result = method.unlearn(before.model, before.train, gu.ForgetRequest("user", ["reader-4"]))
    small = gu.compact(result)
    after = Run.load(live)
    assert fingerprint(after.model) == fingerprint(small.model)
    assert after.train.fingerprint() == small.graph.fingerprint()


def test_ids_that_occur_nowhere_are_counted_and_change_nothing(jobs, live, clock):
    before = {path.name: path.read_bytes() for path in live.iterdir()}
    jobs.submit(["nobody", "nowhere", "nobody"], clock.day(), run=live)
    assert jobs.run(method=unlink)[0].entry is None
    assert (told(jobs)["state"], told(jobs)["notFound"], told(jobs)["duplicates"]) == ("DONE", 2, 1)
    assert before == {path.name: path.read_bytes() for path in live.iterdir()}
    assert jobs.ledger.entries() == []


def test_held_out_data_are_deleted_without_a_request(jobs, live, clock, tmp_path):
    model = Run.load(live).model
    jobs.submit(["reader-39"], clock.day(), run=live)
    jobs.submit(["book-11"], clock.day(), run=live, level="item")
    batch = jobs.run(method=unlink)[0]
    after = Run.load(live)
    assert (batch.entry, batch.method, told(jobs)["numDeleted"], told(jobs, 2)["numDeleted"]) == (None, None, 1, 1)
    assert not {row for row in rows_of(after.test) if row[0] == "reader-39" or row[1] == "book-11"}
    assert b"reader-39" not in raw(tmp_path)
    assert [entry.kind for entry in jobs.ledger.entries()] == ["erased"]
    kept = [*range(39), *range(40, 51)]
    assert torch.equal(after.model.embedding.weight, model.embedding.weight[kept])


def test_users_and_items_that_are_emptied_leave_the_run(jobs, tmp_path, clock):
    folder = tmp_path / "live"
    saved(folder, {(0, 0), (0, 1), (1, 1), (1, 2), (2, 1), (3, 2)}, users=6, items=4)
    jobs.submit(["reader-0"], clock.day(), run=folder)
    jobs.submit([("reader-2", "book-1")], clock.day(), run=folder, level="interaction")
    jobs.run(method=unlink)
    after = Run.load(folder).train
    assert after.user_ids == ["reader-1", "reader-3", "reader-4", "reader-5"]  # 4 and 5 never had any
    assert after.item_ids == ["book-1", "book-2", "book-3"]


def test_rows_can_stay(jobs, live, clock):
    jobs.submit(["reader-4"], clock.day(), run=live)
    jobs.run(method=unlink, compact=False, renumbered=lambda _: 1 / 0)
    assert "reader-4" in Run.load(live).train.user_ids
    assert [entry.kind for entry in jobs.ledger.entries()] == ["forgotten"]


def test_what_serves_is_told_how_rows_are_numbered(jobs, live, clock):
    seen = []
    jobs.submit(["reader-4"], clock.day(), run=live)
    jobs.run(method=unlink, renumbered=seen.append)
    assert seen[0].new("user")[3:6].tolist() == [3, -1, 4]


def test_one_id_in_several_spellings_is_one(jobs, tmp_path, clock):
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 0, 0]]), 3, 1, user_ids=["1", "2", "3"])
    spec = ModelSpec("lightgcn", 2, 1)
    Run(spec, spec.build(graph), graph, graph, graph, gu.BPR(), gu.nn.FitSettings()).save(tmp_path / "live")
    jobs.submit(["1", "1.0", 1, "7.0"], clock.day(), run=tmp_path / "live")
    assert (told(jobs)["numIds"], told(jobs)["duplicates"]) == (3, 1)
    jobs.run(method=unlink)
    expected = {"numIds": 2, "duplicates": 2, "numDeleted": 1, "notFound": 1}
    assert {name: told(jobs)[name] for name in expected} == expected


def test_sessions_go_the_same_way(jobs, tmp_path, clock):
    ids = {"session_ids": ["s0", "s1", "s2"], "item_ids": ["a", "b", "c", "d"]}
    graph = gu.SessionGraph.from_sequences([[0, 1, 2], [1, 2], [2, 3]], **ids)
    spec = ModelSpec("gru4rec", 4, 1)
    run = Run(spec, spec.build(graph), graph, graph, graph, gu.CrossEntropy(), gu.nn.FitSettings(epochs=1))
    run.save(tmp_path / "live")
    with pytest.raises(ValueError, match="'level' must be one that the data of the run have, user, item, session"):
        jobs.submit([("a", "b")], clock.day(), run=tmp_path / "live", level="interaction")
    jobs.submit(["a"], clock.day(), run=tmp_path / "live", level="user")
    failed = jobs.run(method=unlink)[0].error
    assert failed == "'level' must be one that the data of the run have (got 'user' for sessions without users)"
    jobs.withdraw(1)
    jobs.submit(["s2", "s9"], clock.day(), run=tmp_path / "live", level="session")
    jobs.run(method=unlink)
    assert (told(jobs, 2)["numDeleted"], told(jobs, 2)["notFound"]) == (1, 1)
    after = Run.load(tmp_path / "live")
    assert after.train.session_ids == ["s0", "s1"]
    assert after.train.item_ids == ["a", "b", "c"]  # only s2 had clicked on d


# ---- the drift


def test_a_batch_becomes_a_retraining_when_the_budget_is_spent(live, clock, tmp_path):
    jobs = Jobs(gu.Ledger(tmp_path / "ledger.db", budget=1e-6), clock=clock)
    jobs.submit(["reader-1"], clock.day(), run=live)
    with pytest.warns(UserWarning, match="retrain now"):
        first = jobs.run(method=unlink)[0]
    assert (first.method, first.retrained_because) == ("unlink", None)
    assert first.drift["spent"] > 1e-6
    before = Run.load(live)
    jobs.submit(["reader-2"], clock.day(), run=live)
    second = jobs.run(method=unlink)[0]
    assert second.method == "retrain"
    assert second.retrained_because == f"the drift is {first.drift['spent']:.3g} after 1 request, and its budget 1e-06"
    assert jobs.report()["batches"][1]["retrained_because"] == second.retrained_because
    retrain = gu.Retrain(objective=before.objective, validation=before.validation, settings=before.settings)
    result = retrain.unlearn(before.model, before.train, gu.ForgetRequest("user", ["reader-2"]))
    assert fingerprint(Run.load(live).model) == fingerprint(gu.compact(result).model)
    jobs.submit(["reader-3"], clock.day(), run=live)
    with pytest.warns(UserWarning, match="retrain now"):
        assert jobs.run(method=unlink)[0].drift["requests"] == 1  # the retraining has set it back


# ---- runs that are not the newest


def test_only_the_newest_run_of_the_ledger_is_worked_on(jobs, live, clock, tmp_path):
    (tmp_path / "old").mkdir()
    for path in live.iterdir():
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    jobs.submit(["reader-1"], clock.day(), run=live)
    jobs.submit(["reader-7"], clock.day(), run=tmp_path / "old")
    first, second = jobs.run(method=unlink)
    older = "'run' must hold the newest model of the ledger, that of entry 2, saved to 'live', with its graph"
    assert first.error is None
    assert second.error.startswith(older)
    assert (told(jobs, 2)["state"], told(jobs, 2)["numDeleted"]) == ("FAILED", 0)
    with pytest.raises(ValueError, match="^" + older):
        jobs.submit(["reader-8"], clock.day(), run=tmp_path / "old")
    with pytest.raises(ValueError, match="'run' must be a run folder"):
        jobs.submit(["reader-8"], clock.day(), run=tmp_path)


# ---- failures


def test_a_job_that_failed_is_tried_again_with_others(jobs, live, clock, tmp_path):
    def broken(run, folder):
        raise RuntimeError("no such thing as reader-1")

    jobs.submit(["reader-1", "nobody"], clock.day(), run=live)
    before = rows_of(Run.load(live).train)
    failed = jobs.run(method=broken)[0]
    assert failed.error == "RuntimeError, whose text names ids"
    expected = {"state": "FAILED", "error": failed.error, "numDeleted": 0, "notFound": 0, "batch": None}
    assert {name: told(jobs)[name] for name in expected} == expected
    assert rows_of(Run.load(live).train) == before
    jobs.submit(["reader-2"], clock.day(), run=live)
    batch = jobs.run(method=unlink)[0]
    assert (batch.jobs, batch.error, told(jobs)["error"]) == ((1, 2), None, None)
    assert (told(jobs)["state"], told(jobs)["numDeleted"], told(jobs)["notFound"]) == ("DONE", 1, 1)
    assert b'"reader-1"' not in raw(tmp_path)


def test_everybody_cannot_be_deleted(jobs, live, clock):
    jobs.submit([f"reader-{k}" for k in range(40)], clock.day(), run=live)
    assert "must leave some interactions" in jobs.run(method=unlink)[0].error
    assert told(jobs)["state"] == "FAILED"


def test_a_full_disk_is_waited_for(jobs, live, clock, monkeypatch):
    jobs.submit(["reader-1"], clock.day(), run=live)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert "No space left" in jobs.run(method=unlink)[0].error
    with pytest.raises(ValueError, match=r"'job' must be one that waits \(got 1, which is FAILED\)"):
        jobs.withdraw(1)  # its request is under way
    batch = jobs.run(method=unlink)[0]
    assert (batch.number, batch.error, told(jobs)["numDeleted"]) == (1, None, 1)
    assert len(jobs.ledger.entries()) == 2


def test_the_request_of_somebody_else_is_finished_first(jobs, live, clock):
    jobs.submit(["reader-1"], clock.day(), run=live)
    run = Run.load(live)

    def full(_):
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        jobs.ledger.unlearn(gu.Unlink(), run.model, run.train, gu.ForgetRequest("user", ["reader-9"]), save=full)
    with pytest.raises(ValueError, match="'ledger' must have no other pending request"):
        jobs.run(method=unlink)
    assert told(jobs)["state"] == "PENDING"
    jobs.submit(["reader-2"], clock.day(), run=live)
    jobs.ledger.drop()
    assert jobs.run(method=unlink)[0].jobs == (1, 2)


# ---- withdrawals and bad input


def test_withdrawn_ids_are_gone_at_once(jobs, live, clock, tmp_path):
    jobs.submit(["gone-1", "gone-2", "reader-3"], clock.day(), run=live)
    job, count = jobs.withdraw(1, ["gone-1", "gone-7"])
    assert (job.state, job.withdrawn, count) == ("PENDING", 1, 1)
    assert b"gone-1" not in raw(tmp_path)
    assert b"gone-2" in raw(tmp_path)
    job, count = jobs.withdraw(1)
    assert (job.state, job.withdrawn, count) == ("WITHDRAWN", 3, 2)
    assert b"gone-" not in raw(tmp_path)
    with pytest.raises(ValueError, match=r"'job' must be one that waits \(got 1, which is WITHDRAWN\)"):
        jobs.withdraw(1)
    assert jobs.run(method=unlink) == []
    for number in (0, 2):
        with pytest.raises(ValueError, match="'job' must be one of 1 to 1"):
            jobs.withdraw(number)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ids": []}, "'ids' must name at least one user to delete"),
        ({"ids": [-1]}, "'ids' must be text or whole numbers from 0"),
        ({"ids": ["a"], "level": "interaction"}, "'ids' must be pairs of user and item"),
        ({"ids": ["a"], "level": "click"}, "'level' must be one of user, item, session, interaction"),
        ({"ids": ["a"], "level": "session"}, "'level' must be one that the data of the run have, user, item, interact"),
    ],
)
def test_bad_input_is_told(given, sentence, jobs, live, clock):
    with pytest.raises(ValueError, match=sentence):
        jobs.submit(**{"due": clock.day(), "run": live} | given)
    with pytest.raises(ValueError, match="'within' must not be negative"):
        jobs.run(within=-1)
    with pytest.raises(ValueError, match="'job' must be one that was submitted"):
        jobs.job(1)


def test_the_file_is_for_its_owner_alone_and_can_be_moved_with_the_ledger(jobs, live, clock, tmp_path):
    jobs.submit(["reader-1"], clock.day(), run=live)
    assert stat.S_IMODE(jobs.store.path.stat().st_mode) == 0o600
    (tmp_path / "moved").mkdir()
    for path in [path for path in tmp_path.iterdir() if path.name != "moved"]:
        path.rename(tmp_path / "moved" / path.name)
    moved = jobs_of(tmp_path / "moved", clock)
    assert moved.run(method=unlink)[0].error is None
    assert moved.job(1).state == "DONE"


def test_a_returned_user_is_recognised(jobs, live, clock, tmp_path):
    for _ in range(2):
        jobs.submit(["reader-1"], clock.day(), run=live)
        jobs.run(method=unlink)
    returns(live, tmp_path / "ledger.db", {("reader-1", "book-3")})
    jobs.submit(["reader-1"], clock.day(), run=live)
    jobs.run(method=unlink)
    found = [(job.deleted, job.returned, job.already_deleted) for job in jobs.status()]
    assert found == [(1, 0, 0), (0, 0, 1), (1, 1, 0)]
    assert jobs.report()["totals"] == {
        **{"numIds": 3, "duplicates": 0, "withdrawn": 0, "numDeleted": 2},
        **{"returned": 1, "alreadyDeleted": 1, "notFound": 0},
    }


# ---- processes


WORKING = """
import sys
from pathlib import Path
from datetime import date, timedelta
import graphunlearn as gu
from graphunlearn.jobs import Jobs

folder, mine = Path(sys.argv[1]), int(sys.argv[2])
jobs = Jobs(gu.Ledger(folder / "ledger.db", budget=None))
for k in range(3):
    day = (date.today() + timedelta(days=1)).isoformat()
    jobs.submit([f"reader-{mine * 3 + k}", "reader-20"], day, run=folder / "live")
    for batch in jobs.run(method=lambda run, folder: gu.Unlink()):
        assert batch.error is None, batch.error
    assert jobs.report()["jobs"] > k
"""


def test_processes_work_off_every_job_once(live, tmp_path):
    command = [sys.executable, "-c", WORKING, str(tmp_path)]
    others = [subprocess.Popen([*command, str(k)], stderr=-1, text=True) for k in range(3)]
    for other in others:
        err = other.communicate()[1]
        assert other.returncode == 0, err[-2000:]
    jobs = jobs_of(tmp_path, Clock())
    found = jobs.status()
    assert [job.state for job in found] == ["DONE"] * 9
    assert (sum(job.deleted for job in found), sum(job.already_deleted for job in found)) == (10, 8)
    worked = [number for batch in jobs.store.batches() for number in batch.jobs]
    assert sorted(worked) == list(range(1, 10))
    assert not {row for row in rows_of(Run.load(live).train) if row[0] in {f"reader-{k}" for k in [*range(9), 20]}}


# ---- together with the other commands


def no_time(*_):
    raise KeyboardInterrupt


def test_ids_that_stayed_leave_with_the_next_job_or_with_erase(jobs, live, clock, tmp_path):
    jobs.submit(["reader-4"], clock.day(), run=live)
    jobs.run(method=unlink, compact=False)
    assert Run.load(live).emptied == {"user": ["reader-4"], "item": []}
    assert "reader-4" not in erase(Run.load(live)).run.train.user_ids
    jobs.submit(["reader-5"], clock.day(), run=live)
    jobs.run(method=unlink)
    assert {"reader-4", "reader-5"}.isdisjoint(Run.load(live).train.user_ids)
    assert b"reader-4" not in raw(tmp_path)
    assert Run.load(live).emptied == {}


def test_whom_forget_has_emptied_leaves_with_the_next_job(jobs, live, clock, tmp_path):
    run = Run.load(live)
    result = jobs.ledger.unlearn(gu.Unlink(), run.model, run.train, gu.ForgetRequest("user", ["reader-9"]))
    forgotten = Forgotten(run.model, run.train, result, {})
    replace(run, model=result.model, train=result.graph, forgotten=forgotten).save(live, overwrite=True)
    jobs.submit(["reader-5"], clock.day(), run=live)
    jobs.run(method=unlink)
    assert {"reader-9", "reader-5"}.isdisjoint(Run.load(live).train.user_ids)
    held = rows_of(Run.load(live).train)
    assert held == {row for row in rows_of(run.train) if row[0] not in ("reader-9", "reader-5")}


@pytest.mark.parametrize("until", ["the entry", "the erasure"])
def test_a_request_between_an_interrupted_job_and_its_repetition(until, jobs, live, clock, tmp_path, monkeypatch):
    """The chain goes on from the other request, whose model stays the newest, and the job is done."""
    jobs.submit(["reader-4"], clock.day(), run=live)
    with monkeypatch.context() as patch:
        patch.setattr(*((Work, "_compact") if until == "the entry" else (JobStore, "finish")), no_time)
        with pytest.raises(KeyboardInterrupt):
            jobs.run(method=unlink)
    run = Run.load(live)
    result = jobs.ledger.unlearn(gu.Unlink(), run.model, run.train, gu.ForgetRequest("user", ["reader-9"]))
    forgotten = Forgotten(run.model, run.train, result, {})
    after = replace(run, model=result.model, train=result.graph, forgotten=forgotten)
    after.save(tmp_path / "b")
    jobs.run(method=unlink)
    assert told(jobs)["state"] == "DONE"
    assert jobs.ledger.verify(result.model) == (2 if until == "the entry" else 3)
    assert {"reader-4", "reader-9"}.isdisjoint(erase(Run.load(tmp_path / "b")).run.train.user_ids)


def test_what_another_program_trained_stays_known(jobs, live, clock):
    imported = {"weights": "w.safetensors", "loss": {"verdict": "fits", "residual": 0.01}}
    run = Run.load(live)
    replace(run, about={"dataset": "d", "imported": imported, "fit": {"best": 0.5}}).save(live, overwrite=True)
    jobs.submit(["reader-4"], clock.day(), run=live)
    jobs.run(method=unlink)
    about = Run.load(live).about
    assert about == {"dataset": "d", "imported": {"weights": "w.safetensors"}, "erased": True, "deleted": {"user": 1}}
    jobs.submit(["reader-5"], clock.day(), run=live)
    jobs.run(method=lambda run, _: gu.Retrain(objective=run.objective, settings=run.settings))
    assert "imported" not in Run.load(live).about
