"""Commands as processes whose output is closed, full or not read: what is done stays done, and is no failure."""

import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from graphunlearn.cli._streams import put, tell
from graphunlearn.runs.run import Run

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


def shell(words, redirection, folder):
    """Run a command with a redirection; its status counts, not that of its reader."""
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m graphunlearn {shlex.join(map(str, words))} {redirection}"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


@pytest.mark.parametrize(
    "redirection",
    ["<&- >&- 2>&-", "2>&1 | head -0"],
)
def test_what_was_forgotten_stays_forgotten_whoever_reads_of_it(redirection, trained, tmp_path):
    out = tmp_path / "b"
    done = shell(["forget", trained, "--users", "u7", "--method", "unlink", "--out", out], redirection, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Run.load(out).forgotten is not None
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@full
def test_a_full_output_is_told_where_it_can_be(trained, tmp_path):
    words = ["forget", trained, "--users", "u7", "--method", "unlink", "--out", tmp_path / "b"]
    done = shell(words, ">/dev/full", tmp_path)
    said, reason = done.stderr.splitlines()[-1], os.strerror(28)
    assert done.returncode == 0
    assert said == f"graphunlearn: note: the work is done, and only its result could not be printed: {reason}"


@full
@pytest.mark.parametrize("words", [["datasets"], ["--version"]])
def test_a_command_that_only_prints_has_failed_where_it_cannot(words, tmp_path):
    done = shell(words, ">/dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"graphunlearn: standard output could not be written: {os.strerror(28)}\n"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
@pytest.mark.parametrize("redirection", ["| head -0", ">&-"])
def test_a_reader_that_goes_away_is_no_failure(words, redirection, tmp_path):
    done = shell(words, redirection, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failure_is_one_even_where_nobody_reads_of_it(tmp_path):
    assert shell(["forget", "nowhere", "--users", "1", "--out", "x"], ">&- 2>&-", tmp_path).returncode == 2
    assert shell([], "2>&-", tmp_path).returncode == 2


def test_a_broken_pipe_within_the_work_is_a_failure(call, monkeypatch):
    def fail(self):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("graphunlearn.cli.datasets.Datasets.run", fail)
    assert call("datasets") == (2, "", "graphunlearn: Broken pipe\n")


def test_a_request_that_is_served_does_not_fail_where_warnings_are_errors(trained, tmp_path, call, monkeypatch):
    from graphunlearn.ledger import Ledger

    monkeypatch.setattr(sys, "warnoptions", ["error::UserWarning"])
    ledger, out = tmp_path / "ledger.db", tmp_path / "b"
    users = [f"u{n}" for n in range(1, 30)]  # of 50, far beyond any budget
    words = ["forget", trained, "--users", *users, "--method", "unlink", "--ledger", ledger, "--out", out]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        status, said, err = call(*words)
    assert status == 0, err
    (entry,) = Ledger(ledger).entries()
    assert entry.drift["spent"] > entry.drift["budget"]
    assert f"entry {entry.number} of {ledger}" in said
    assert Run.load(out).forgotten is not None


class Closed:
    """A stream that is closed."""

    def write(self, text):
        raise ValueError("I/O operation on closed file")

    def fileno(self):
        raise ValueError("I/O operation on closed file")


def test_streams_that_a_program_closed_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(OSError, match="standard output could not be written: I/O operation on closed file"):
        put("text", done=False)
    put("text", done=True)
    assert "the work is done" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Closed())
    tell("text")
    put("text", done=True)
