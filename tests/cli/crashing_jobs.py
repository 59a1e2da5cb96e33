"""Kills ``graphunlearn job`` at every write, and looks at what is left: run by ``test_job.py``; see ``crashing.py``."""

import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

from crashing import call, kill

import graphunlearn as gu
from graphunlearn.cli.job import DeletionJob
from graphunlearn.cli.ledger import ShowLedger
from graphunlearn.jobs import Jobs
from graphunlearn.jobs.job import utc_now
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run

LEDGER = Path("l.db")
TIMES = ("submitted", "finished")


def ids_file(name, ids):
    Path(name).write_text("".join(f"{value}\n" for value in ids))
    return Path(name)


def submit(name, ids, days):
    due = (utc_now().date() + timedelta(days=days)).isoformat()
    return DeletionJob(action="submit", ids=ids_file(name, ids), due=due, run_folder=Path("live"), ledger=LEDGER)


class Scene:
    """A folder with jobs, one command that is killed in copies of it, and how it ends if it is not.

    Args:
        stage: The folder, which holds a run folder ``live``.
        what: The command: ``"run"``, ``"submit"`` or ``"withdraw"``.
    """

    def __init__(self, stage, what):
        self.stage, self.what, self.scene = stage, what, stage.with_name(f"{stage.name}.scene")
        os.chdir(stage)
        gu.Ledger(LEDGER)
        if what != "submit":
            call(submit("one.csv", ["reader-1", "reader-2", "reader-2", "reader-none"], 0))
            call(submit("two.csv", ["reader-2", "reader-3"], 1))
            call(submit("later.csv", ["reader-5"], 30))
        self.commands = {
            "run": DeletionJob(action="run", ledger=LEDGER, method="unlink"),
            "submit": submit("one.csv", ["reader-1", "reader-2"], 0),
            "withdraw": DeletionJob(action="withdraw", file=LEDGER, number=1),
        }
        self.verify = ShowLedger(action="verify", file=LEDGER)
        for path in stage.glob("*.csv"):
            path.unlink()
        if what == "submit":
            ids_file("one.csv", ["reader-1", "reader-2"])
        self.set_up()
        self.begin = self.state()
        call(self.commands[what])
        self.end = self.state()
        assert self.begin != self.end

    def set_up(self):
        os.chdir(self.stage)
        shutil.rmtree(self.scene, ignore_errors=True)
        shutil.copytree(self.stage, self.scene)
        os.chdir(self.scene)

    def state(self):
        """Everything that must be the same however often the command was killed."""
        jobs, run = Jobs(LEDGER), Run.load(Path("live"))
        told = jobs.report()
        for job in told["all_jobs"]:
            job.update(dict.fromkeys(TIMES))
        batches = [
            {name: batch[name] for name in ("jobs", "entry", "method", "interactions")} for batch in told["batches"]
        ]
        entries = [(e.number, e.kind, e.digest, e.request, e.model_after, e.graph_after) for e in jobs.ledger.entries()]
        prints = [fingerprint(run.model), run.train.fingerprint(), run.test.fingerprint(), run.about.get("deleted")]
        served = []
        if jobs.store.exists():
            with jobs.store.reading() as connection:
                served = sorted(connection.execute("SELECT * FROM served").fetchall())
        return told["all_jobs"], batches, entries, prints, served

    def look(self):
        """Look at what a killed command left, repeat it, and look again; return how far it had come."""
        call(self.verify)
        jobs = Jobs(LEDGER).status()
        states = [job.state for job in jobs]
        done = {"submit": states == ["PENDING"], "withdraw": states[:1] == ["WITHDRAWN"]}.get(self.what, False)
        if not done:
            call(self.commands[self.what])
        assert self.state() == self.end
        call(self.verify)
        names = {path.name for path in Path().iterdir()}
        assert names == {path.name for path in self.stage.iterdir()} | {"l.db.jobs"}
        asked = {
            "run": ["reader-5"],
            "submit": ["reader-1", "reader-2"],
            "withdraw": ["reader-2", "reader-3", "reader-5"],
        }
        raw = b"".join(path.read_bytes() for path in Path().iterdir() if path.is_file() and path.suffix != ".csv")
        for name in ("reader-1", "reader-2", "reader-3", "reader-5", "reader-none"):
            assert (name.encode() in raw) == (name in asked[self.what]), name
        assert gu.Ledger(LEDGER).pending is None
        return ",".join(states)


def crash_everywhere(stage, what, every, start):
    """Kill the command at every ``every``-th call from ``start`` on and at the last ones, some of them half done."""
    scene = Scene(stage, what)
    scene.set_up()
    total, seen, kills = kill(lambda: call(scene.commands[what]), -1, 0), set(), 0
    places = [at for at in range(1, total + 1) if (at - 1) % every == start or at > total - 3]
    for place, at in enumerate(places):
        for half in range(2 if place % 3 == 0 else 1):
            try:
                scene.set_up()
                assert kill(lambda: call(scene.commands[what]), at, half) is None, "not killed"
                seen.add(scene.look())
            except BaseException:
                sys.stderr.write(f"{what}, at call {at} of {total}, half done: {bool(half)}\n")
                raise
            kills += 1
    return {"what": what, "calls": total, "kills": kills, "seen": sorted(seen)}


if __name__ == "__main__":
    told = [crash_everywhere(Path(stage), *others) for stage, *others in json.loads(sys.argv[1])]
    sys.stdout.write(json.dumps(told))
