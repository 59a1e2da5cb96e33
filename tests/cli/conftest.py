"""Small files of ratings and of clicks, run folders trained on them, and the command line as a function."""

import json
import shutil
import subprocess
import sys

import crashing
import pytest
from click_files import rows_of, walks, write_rows
from quick import QUICK

from graphunlearn.cli import main
from graphunlearn.datasets import synthetic_interactions


@pytest.fixture(scope="session")
def ratings(tmp_path_factory):
    """A file of ratings of 50 users."""
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    graph = synthetic_interactions(num_users=50, num_items=30, interactions_per_user=10, seed=3)
    graph.to_frame().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def trained(ratings, tmp_path_factory):
    """A trained run folder; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(["train", "--data", str(ratings), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="session")
def forgotten(trained):
    """A run folder after forgetting two users and an item; not to be changed."""
    out = trained.with_name("b")
    assert main(["forget", str(trained), "--users", "u1", "u2", "--items", "i3", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def clicks(tmp_path_factory):
    """A file of clicks of 120 sessions, s0 to s119, on items i0 to i19; the later ones are held out by time."""
    return write_rows(tmp_path_factory.mktemp("clicks") / "clicks.csv", rows_of(walks(120)))


@pytest.fixture(scope="session")
def trained_sessions(clicks, tmp_path_factory):
    """A run folder of a session model; not to be changed."""
    out = tmp_path_factory.mktemp("session-runs") / "a"
    assert main(["train", "--data", str(clicks), "--model", "gru4rec", "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="session")
def forgotten_sessions(trained_sessions):
    """A run folder after forgetting two sessions and an item; not to be changed."""
    out = trained_sessions.with_name("b")
    words = ["--sessions", "s1", "s2", "--items", "i3", "--method", "unlink", "--out", str(out)]
    assert main(["forget", str(trained_sessions), *words]) == 0
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder of trained models, fresh for every test; no test writes into anybody's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GRAPHUNLEARN_CACHE", str(folder))
    return folder


@pytest.fixture
def run_copy(trained, tmp_path):
    """A trained run folder to break."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def call(capsys):
    """Run a command and return its status, standard output and standard error."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(call):
    """Run a command that must fail as bad input does, and return its sentence."""

    def run(*words):
        status, out, err = call(*words)
        *notes, sentence = err.splitlines()
        assert (status, out) == (2, ""), err
        assert sentence.startswith("graphunlearn: ")
        assert "Traceback" not in err
        assert not any(line.startswith("graphunlearn: ") and "note: " not in line for line in notes), err
        return sentence.removeprefix("graphunlearn: ")

    return run


@pytest.fixture
def parsed(call):
    """Run a command with ``--json`` and return what it printed."""

    def run(*words):
        status, out, err = call(*words, "--json")
        assert status == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="session")
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
