"""Runs in folders, a clock, and a plain model of what deletion jobs are to do."""

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from random import Random

import torch

import graphunlearn as gu
from graphunlearn.jobs import Jobs
from graphunlearn.runs import ModelSpec, Run

SIDES = ("user", "item")
START = datetime(2026, 12, 1, 2, 30, tzinfo=timezone.utc)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now=START):
        self.now = now

    def __call__(self):
        return self.now

    def tomorrow(self):
        self.now += timedelta(days=1)

    def day(self, days=0):
        return (self.now.date() + timedelta(days=days)).isoformat()


def unlink(run, folder):
    return gu.Unlink()


def graph_of(rows, users=40, items=12):
    """A graph of pairs of user and item numbers, with the ids reader-0, reader-1, ... and book-0, ..."""
    names = sorted((f"reader-{u}", f"book-{i}") for u, i in rows)
    return named_graph(names, [f"reader-{k}" for k in range(users)], [f"book-{k}" for k in range(items)])


def some_rows(seed=0, users=40, items=12, each=4):
    random = Random(seed)
    return {(u, i) for u in range(users) for i in random.sample(range(items), each)}


def saved(folder, rows, held_out=(), users=40, items=12):
    """Write a run folder whose training data are ``rows``, and whose test data are ``held_out``."""
    train, test = graph_of(rows, users, items), graph_of(held_out, users, items)
    spec = ModelSpec("lightgcn", 4, 1)
    torch.manual_seed(0)
    run = Run(spec, spec.build(train), train, graph_of((), users, items), test, gu.BPR(), gu.nn.FitSettings(epochs=1))
    run.save(folder)
    return run


def rows_of(graph):
    return {(graph.user_ids[u], graph.item_ids[i]) for u, i in graph.pairs.t().tolist()}


def returns(folder, ledger, rows):
    """Add rows, by raw ids, to the training data of a run, as further training does, and record the newest model."""
    run = Run.load(folder)
    both = sorted(rows_of(run.train) | set(rows))
    ids = [
        list(dict.fromkeys([*run.train.vocabulary(name).ids, *(row[k] for row in both)]))
        for k, name in enumerate(SIDES)
    ]
    parts = {
        name: named_graph(both if name == "train" else sorted(rows_of(getattr(run, name))), *ids)
        for name in ("train", "validation", "test")
    }
    torch.manual_seed(len(both))
    after = replace(run, model=run.spec.build(parts["train"]), **parts)
    after.save(folder, overwrite=True)
    gu.Ledger(ledger).record_retrained(after.model, after.train, out=folder.name)


def named_graph(rows, user_ids, item_ids):
    """A graph of rows of raw ids, with users and items in the given order."""
    numbers = [{value: k for k, value in enumerate(ids)} for ids in (user_ids, item_ids)]
    pairs = torch.tensor([[numbers[0][u], numbers[1][i]] for u, i in rows], dtype=torch.long).reshape(-1, 2).t()
    return gu.InteractionGraph.from_edges(pairs, len(user_ids), len(item_ids), user_ids=user_ids, item_ids=item_ids)


def raw(folder, *, but=()):
    """All bytes in a folder and its subfolders, but those of some files."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but)


class Model:
    """What deletion jobs are to do, by sets: a user, a pair or an item is there as long as a row has it."""

    def __init__(self, train, test):
        self.train, self.test = set(train), set(test)
        self.jobs, self.served = [], set()

    def rows(self):
        return self.train | self.test

    @staticmethod
    def hits(level, value, row):
        return {"user": row[0], "item": row[1], "interaction": row}[level] == value

    def submit(self, level, ids, due):
        distinct = list(dict.fromkeys(ids))
        job = {"state": "PENDING", "level": level, "due": due, "numIds": len(distinct), "ids": distinct}
        job |= {"duplicates": len(ids) - len(distinct), "withdrawn": 0, "numDeleted": 0, "returned": 0}
        self.jobs.append(job | {"alreadyDeleted": 0, "notFound": 0})

    def withdraw(self, number, ids):
        job = self.jobs[number - 1]
        kept = [value for value in job["ids"] if ids is not None and value not in ids]
        job["withdrawn"] += len(job["ids"]) - len(kept)
        job["ids"] = kept
        if not kept:
            job["state"] = "WITHDRAWN"

    def run(self, today, within):
        last = (date.fromisoformat(today) + timedelta(days=within)).isoformat()
        before, in_batch = self.rows(), set()
        earlier = set(self.served)
        for job in self.jobs:
            if job["state"] != "PENDING" or job["due"] > last:
                continue
            for value in job["ids"]:
                name = (job["level"], value)
                if name in in_batch:
                    job["alreadyDeleted"] += 1
                elif any(self.hits(*name, row) for row in before):
                    job["numDeleted"] += 1
                    job["returned"] += name in earlier
                    in_batch.add(name)
                elif name in earlier:
                    job["alreadyDeleted"] += 1
                else:
                    job["notFound"] += 1
            job |= {"state": "DONE", "ids": []}
        self.served |= in_batch
        for name in in_batch:
            self.train = {row for row in self.train if not self.hits(*name, row)}
            self.test = {row for row in self.test if not self.hits(*name, row)}


def jobs_of(folder, clock):
    return Jobs(gu.Ledger(folder / "ledger.db", budget=None), clock=clock)
