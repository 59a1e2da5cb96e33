import json
import os
import shutil
import subprocess
import sys

import crashing_jobs
import pytest
from quick import QUICK

from graphunlearn.cli import main


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
