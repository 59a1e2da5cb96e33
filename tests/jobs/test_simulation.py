"""A month of random days beside a plain model of what is to happen: sets of rows, and loops over them."""

import json
from random import Random

import pytest
from scenes import Clock, Model, jobs_of, raw, returns, rows_of, saved, some_rows, unlink

import graphunlearn as gu
from graphunlearn.runs import Run
from graphunlearn.runs.erasing import erase

COUNTED = ("state", "numIds", "duplicates", "withdrawn", "numDeleted", "returned", "alreadyDeleted", "notFound")


def a_request(random, model):
    """A level and ids, some of them unknown, deleted before, or named twice."""
    level = random.choice(["user", "user", "user", "item", "interaction"])
    if level == "user":
        ids = [f"reader-{random.randrange(45)}" for _ in range(random.randint(1, 6))]
    elif level == "item":
        ids = [f"book-{random.randrange(14)}"]
    else:
        rows = sorted(model.rows())
        ids = [random.choice(rows) for _ in range(3)] + [(f"reader-{random.randrange(40)}", "book-99")]
    return level, ids + random.sample(ids, random.randint(0, 1))


@pytest.mark.parametrize(("seed", "compact"), [(0, None), (1, None), (2, True), (3, False)])
def test_a_month(seed, compact, tmp_path):
    random, clock = Random(seed), Clock()
    all_rows = some_rows(seed)
    held_out = set(random.sample(sorted(all_rows), 25))
    folder = tmp_path / "live"
    start = saved(folder, all_rows - held_out, held_out)
    model = Model(rows_of(start.train), rows_of(start.test))
    jobs = jobs_of(tmp_path, clock)
    for _ in range(14):
        for _ in range(random.randint(0, 2)):
            level, ids = a_request(random, model)
            due = clock.day(random.randint(0, 5))
            model.submit(level, ids, due)
            assert jobs.submit(ids, due, run=folder, level=level).state == "PENDING"
        waiting = [n for n, job in enumerate(model.jobs, 1) if job["state"] == "PENDING"]
        if waiting and random.random() < 0.3:
            number = random.choice(waiting)
            held = model.jobs[number - 1]["ids"]
            ids = None
            if random.random() < 0.6:
                others = [value for value in a_request(random, model)[1] if type(value) is type(held[0])]
                ids = [*random.sample(held, 1), held[0], *others]
            before = model.jobs[number - 1]["withdrawn"]
            model.withdraw(number, ids)
            gone = jobs.withdraw(number, ids)[1]
            assert gone == model.jobs[number - 1]["withdrawn"] - before
        if random.random() < 0.3:  # some come back, some are new
            rows = {(random.randrange(40), random.randrange(12)) for _ in range(3)}
            rows = {(f"reader-{u}", f"book-{i}") for u, i in rows}
            returns(folder, tmp_path / "ledger.db", rows)
            model.train |= rows
        within = random.choice([0, 1, 1, 2])
        model.run(clock.day(), within)
        for batch in jobs.run(within=within, method=unlink, compact=compact):
            assert batch.error is None
        run = Run.load(folder)
        assert (rows_of(run.train), rows_of(run.test)) == (model.train, model.test)
        told = [job.to_dict(clock()) for job in jobs.status()]
        assert [{name: job[name] for name in COUNTED} for job in told] == [
            {name: job[name] for name in COUNTED} for job in model.jobs
        ]
        held, everything = raw(tmp_path, but=[path.name for path in folder.iterdir()]), raw(tmp_path)
        waiting_for = json.dumps([job["ids"] for job in model.jobs])
        for k in range(45):
            name = f'"reader-{k}"'
            assert (name in waiting_for) == (name.encode() in held)
            if ("user", f"reader-{k}") in model.served and not any(row[0] == name[1:-1] for row in model.train):
                assert compact is False or name in waiting_for or name.encode() not in everything
        clock.tomorrow()
    for job in jobs.status():
        assert job.ids == job.withdrawn + job.deleted + job.already_deleted + job.not_found or job.state == "PENDING"
    assert gu.Ledger(tmp_path / "ledger.db").verify(run.model) > 0
    idle = {name for name, degree in zip(run.train.user_ids, run.train.degree.tolist()) if not degree}
    stayed = {name for level, name in model.served if level == "user"} & idle
    assert (folder / "request.json").exists() == (compact is False)
    assert stayed <= set((run.emptied or {}).get("user", []))
    assert bool(stayed) == (compact is False)
    assert not stayed & set(erase(run).run.train.user_ids if stayed else [])
    assert not list(folder.glob("original*"))
