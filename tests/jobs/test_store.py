import re
import sqlite3
from random import Random

import pytest

from graphunlearn.jobs.store import JobStore, all_jobs, chunked, open_batch, withdraw
from graphunlearn.ledger.store import WRITING

TIME = "2026-12-01T02:30:00+00:00"


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "l.db.jobs")


def add(store, ids):
    job = {"level": "user", "run": "live", "due": "2026-12-20", "submitted": TIME, "state": "PENDING"}
    return store.add(job | {"ids": len(ids), "duplicates": 0}, [chunk for chunk, _ in chunked(ids)])


def found(folder):
    """The ids that any file holds."""
    files = (path.read_bytes() for path in folder.iterdir())
    return {name.decode() for content in files for name in re.findall(rb"reader-\d+-\d+", content)}


@pytest.mark.parametrize("seed", range(2))
def test_no_byte_of_an_id_outlives_its_job(seed, store, tmp_path, monkeypatch):
    """Jobs of 1 to 3,000 ids are added, withdrawn in part and finished at random; every time, bytes are looked at."""
    monkeypatch.setattr("graphunlearn.jobs.store.CHUNK", 200)
    random, held = Random(seed), {}
    for step in range(30):
        waiting = list(held)
        action = random.choice(["add", "add", "withdraw", "finish"]) if waiting else "add"
        if action == "add":
            ids = [f"reader-{step}-{k}" for k in random.sample(range(10**6), random.choice([1, 2, 20, 300, 3000]))]
            held[add(store, ids)] = ids
        elif action == "withdraw":
            number = random.choice(waiting)
            some = random.sample(held[number], (len(held[number]) + 1) // 2)
            with store.writing() as connection:
                assert withdraw(connection, number, some, TIME) == len(some)
            held[number] = [value for value in held[number] if value not in set(some)]
        else:
            numbers = random.sample(waiting, random.randint(1, len(waiting)))
            with store.writing() as connection:
                jobs = [job for job in all_jobs(connection) if job.number in numbers]
                batch = open_batch(connection, jobs, TIME, {"token": "t"})
            digests = [("user", random.randbytes(32)) for number in numbers for _ in held[number]]
            store.plan(batch, {}, {}, digests, {"user": held[numbers[0]], "item": ["reader-0-0"]})
            assert store.emptied(batch)["user"] == held[numbers[0]]
            store.finish(batch, TIME, {})
            for number in numbers:
                held[number] = []
        held = {number: ids for number, ids in held.items() if ids}
        assert found(tmp_path) == {value for ids in held.values() for value in ids}
        assert {number: store.ids(number) for number in held} == held


def test_rows_without_padding_leave_copies(tmp_path):
    """What the padding is for: in rows of their own, with the same settings, SQLite leaves copies of moved ids."""
    connection = sqlite3.connect(tmp_path / "rows", isolation_level=None)
    for statement in WRITING:
        connection.execute(statement)
    connection.execute("CREATE TABLE ids (job INTEGER, id TEXT, PRIMARY KEY (job, id)) WITHOUT ROWID")
    random, left = Random(0), set()
    for job in range(30):
        rows = [(job, f"reader-{job}-{k}") for k in random.sample(range(10**6), 500)]
        connection.executemany("INSERT INTO ids VALUES (?, ?)", rows)
        connection.execute("DELETE FROM ids WHERE job = ?", (job - 1,))
        if left := found(tmp_path) - {name for _, name in rows}:
            break
    connection.close()
    assert left


def test_what_failed_is_as_it_was(store):
    number = add(store, ["reader-1-1"])
    with store.writing() as connection:
        batch = open_batch(connection, all_jobs(connection), TIME, {"token": "t"})
    counts = {number: {"deleted": 1, "returned": 1, "already_deleted": 0, "not_found": 0}}
    store.plan(batch, {"digest": "d"}, counts, [("user", b"x" * 32)], {"user": ["reader-1-1"]})
    assert store.known("user", [b"x" * 32], batch) == set()
    assert store.known("user", [b"x" * 32], batch + 1) == {b"x" * 32}
    store.fail(batch, TIME, "no", free=False)
    assert (store.jobs()[0].state, store.jobs()[0].batch, store.jobs()[0].deleted) == ("FAILED", batch, 1)
    assert store.batches()[0].finished is None
    store.fail(batch, TIME, "no", free=True)
    job = store.jobs()[0]
    assert (job.state, job.batch, job.deleted, job.returned, job.error) == ("FAILED", None, 0, 0, "no")
    assert store.known("user", [b"x" * 32], batch + 1) == set()
    assert (store.ids(number), store.emptied(batch)) == (["reader-1-1"], {})


def test_a_failing_transaction_changes_nothing(store):
    def broken():
        yield next(chunked(["reader-1-1"]))[0]
        raise ZeroDivisionError

    add(store, ["reader-2-2"])
    job = {"level": "user", "run": "live", "due": "2026-12-20", "submitted": TIME, "state": "PENDING"}
    with pytest.raises(ZeroDivisionError):
        store.add(job | {"ids": 1, "duplicates": 0}, broken())
    assert [one.number for one in store.jobs()] == [1]
    assert found(store.path.parent) == {"reader-2-2"}


def test_other_files_are_told(store, tmp_path):
    assert (store.exists(), store.jobs(), store.batches(), store.erasing()) == (False, [], [], [])
    store.path.write_text("user,item\n" * 100)
    with pytest.raises(ValueError, match="'ledger' must have a whole file of jobs"):
        store.jobs()
    store.path.unlink()
    connection = sqlite3.connect(store.path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(ValueError, match="'ledger' must have a file of jobs beside it"):
        add(store, ["a"])
    store.path.unlink()
    add(store, ["a"])
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ValueError, match="'ledger' must have jobs of format 1"):
        store.jobs()


def test_another_transaction_is_waited_for_and_then_told(store, monkeypatch):
    add(store, ["a"])
    monkeypatch.setattr("graphunlearn.jobs.store.BUSY", 0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ValueError, match=r"'ledger' must have jobs that no other process holds .*try again"):
        store.jobs()
    other.execute("ROLLBACK")
    other.close()
    assert len(store.jobs()) == 1
