import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import pytest

from graphunlearn.ledger.lease import lease

HOLDING = """
import sys
from pathlib import Path
from graphunlearn.ledger.lease import lease

with lease(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def other(file):
    """A process that holds the lease until it is told to end."""
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(file)], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_waits_and_goes_on(file, other):
    def take():
        with lease(file):
            return other.poll()

    in_use = r"'ledger' must not be in use by another process \(got '.*ledger.db'\); try"
    with pytest.raises(ValueError, match=in_use), lease(file, 0.05):
        raise AssertionError("two have it")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(take)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        other.stdin.write("\n")
        other.stdin.flush()
        waiting.result()


def test_the_lease_ends_with_its_process(file, other):
    other.kill()
    other.wait()
    assert file.with_name(".ledger.db.lock").exists()
    with lease(file, 0):
        assert file.with_name(".ledger.db.lock").exists()
    assert list(file.parent.iterdir()) == []


def test_waiting_is_told(file, other, monkeypatch):
    monkeypatch.setattr("graphunlearn.ledger.lease._PATIENCE", 0.0)
    in_use = "is in use by another process; waiting until that one is done"
    with (
        pytest.warns(UserWarning, match=in_use) as told,
        pytest.raises(ValueError, match="must not be in use"),
        lease(file, 0.5),
    ):
        pass
    assert len(told) == 1


def test_a_thread_that_holds_it_does_not_wait_for_itself(file):
    once = "'ledger' must be written to through one object at a time"
    with lease(file), pytest.raises(ValueError, match=once), lease(file):
        pass
    with lease(file):
        pass


def test_threads_take_turns(file):
    inside, most = [], []

    def work(_):
        with lease(file):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert most == [1] * 200
    assert list(file.parent.iterdir()) == []


def test_ledgers_in_one_folder_do_not_wait_for_one_another(file):
    with lease(file), lease(file.with_name("other.db"), 0):
        assert len(list(file.parent.iterdir())) == 2


def test_the_lease_is_given_back_after_an_error(file):
    with pytest.raises(ZeroDivisionError), lease(file):
        1 / 0  # noqa: B018
    with lease(file, 0):
        pass
