"""The key of a ledger: where it is, who can read it, and what becomes of a ledger without its entries."""

import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from toys import light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.ledger import keys
from graphunlearn.ledger.keys import key_file, keys_folder
from graphunlearn.ledger.store import Store


@pytest.fixture
def file(tmp_path):
    (tmp_path / "ledgers").mkdir()
    return tmp_path / "ledgers" / "ledger.db"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of keys, fresh for every test; none was chosen before."""
    monkeypatch.setenv("GRAPHUNLEARN_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(keys, "_chosen", {})
    return tmp_path / "keys"


def start():
    torch.manual_seed(0)
    graph = random_graph(12, 9, 60, values=False)
    return light_gcn(graph), graph


def forget(ledger, user):
    return ledger.unlearn(gu.Unlink(), *start(), gu.ForgetRequest("user", [user]))


def found(ledger, user):
    """Whether a ledger recognises a request, which takes its key."""
    return ledger.find(gu.ForgetRequest("user", [user]), *start()) is not None


def test_the_key_is_apart_from_the_ledger_and_for_its_owner_alone(file, folder):
    gu.Ledger(file, budget=None)
    assert [path.name for path in file.parent.iterdir()] == ["ledger.db"]
    (key,) = folder.iterdir()
    assert key == key_file(file) and key.name.startswith("ledger.db-") and key.suffix == ".key"
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(key.stat().st_mode)) == (0o700, 0o600)


def test_every_ledger_has_a_key_of_its_own(file, folder):
    for path in (file, file.with_name("other.db")):
        gu.Ledger(path, budget=None)
    assert len({key.read_text() for key in folder.iterdir()}) == 2


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"GRAPHUNLEARN_KEYS": "/k", "XDG_CONFIG_HOME": "/x"}, "/k"),
        ({"XDG_CONFIG_HOME": "/x"}, "/x/graphunlearn"),
        ({"HOME": "/h"}, "/h/.config/graphunlearn"),
    ],
)
def test_the_folder_of_keys(variables, place, monkeypatch):
    for name in ("GRAPHUNLEARN_KEYS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert keys_folder() == Path(place)


def test_a_key_file_can_be_named(file, folder, tmp_path):
    key = tmp_path / "secret" / "a.key"
    forget(gu.Ledger(file, budget=None, key=key), "3")
    assert key.is_file() and not folder.exists()
    assert found(gu.Ledger(file, budget=None, key=str(key)), "3")
    other = gu.Ledger(file.with_name("b.db"), budget=None).path
    with pytest.raises(ValueError, match="'ledger' must have its own key"):
        found(gu.Ledger(file, budget=None, key=key_file(other)), "3")
    with pytest.raises(ValueError, match="'key' must be a file of its own"):
        gu.Ledger(file, budget=None, key=file)
    with pytest.raises(ValueError, match="'key' must be a file of its own"):
        gu.Ledger(file, budget=None, key=tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="'key' must lie outside run folders"):
        gu.Ledger(file, budget=None, key=tmp_path / "run" / "a.key")


def test_a_key_beside_the_ledger_still_works_and_is_warned_of(file, folder):
    gu.Ledger(file, budget=None)
    shutil.move(key_file(file), file.with_name("ledger.db.key"))
    with pytest.warns(UserWarning, match=r"'ledger.db.key' lies beside its ledger, .*: move it to '.*/keys/ledger.db-"):
        ledger = gu.Ledger(file, budget=None)
    assert forget(ledger, "3").log["ledger"]["entry"] == 1
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_key_that_others_can_read_is_warned_of(file):
    gu.Ledger(file, budget=None)
    key_file(file).chmod(0o640)
    with pytest.warns(UserWarning, match="others can read the key .* 'chmod 600' prevents that"):
        gu.Ledger(file, budget=None)


def test_a_ledger_that_was_moved_finds_its_key(file, tmp_path):
    forget(gu.Ledger(file, budget=None), "3")
    moved = shutil.move(file, tmp_path / "moved.db")
    assert gu.Ledger(moved, budget=None).has_key
    assert found(gu.Ledger(moved, budget=None), "3") and not found(gu.Ledger(moved, budget=None), "4")


def test_without_its_key_it_can_be_read(file):
    forget(gu.Ledger(file, budget=None), "3")
    key_file(file).unlink()
    ledger = gu.Ledger(file, budget=None)
    assert not ledger.has_key and ledger.verify() == 1
    with pytest.raises(ValueError, match=r"'ledger' must have its key to accept requests .*; name the file of the key"):
        forget(ledger, "4")


@pytest.mark.parametrize("lost", ["emptied", "deleted"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_ledger_that_lost_its_entries_is_refused_and_left_alone(lost, beside, file):
    forget(gu.Ledger(file, budget=None), "3")
    if beside:
        shutil.move(key_file(file), file.with_name("ledger.db.key"))
    before = key_file(file).read_text()
    file.write_bytes(b"") if lost == "emptied" else file.unlink()
    with pytest.raises(ValueError, match=r"'ledger' must hold the entries that its key .* without entries"):
        if beside:
            with pytest.warns(UserWarning, match="lies beside"):
                gu.Ledger(file, budget=None)
        else:
            gu.Ledger(file, budget=None)
    assert key_file(file).read_text() == before
    assert file.exists() == (lost == "emptied") and (lost == "deleted" or not file.read_bytes())


@pytest.mark.parametrize("at", ["before the key", "after the key", "before its place"])
def test_a_creation_that_was_killed_is_begun_anew_or_finished(at, file, folder, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    target = {
        "before the key": "graphunlearn.ledger.store.write_key",
        "after the key": "graphunlearn.ledger.store._append",
        "before its place": "graphunlearn.ledger.store.settle",
    }[at]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(target, kill)
        gu.Ledger(file, budget=None)
    assert not list(folder.glob("*.key"))
    assert forget(gu.Ledger(file, budget=None), "3").log["ledger"]["entry"] == 1
    assert [path.suffix for path in folder.iterdir()] == [".key"]


def test_two_processes_put_a_new_key_in_its_place(tmp_path, monkeypatch):
    """The other process moves the file at the last moment, or has made the whole ledger between two looks at it."""
    gu.Ledger(tmp_path / "l.db")
    file = key_file(tmp_path / "l.db")
    part, content = keys._part(file), keys._content
    file.rename(part)

    def late(path):
        found = content(path)
        if path == part:
            part.rename(file)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(keys, "_content", late)
        gu.Ledger(tmp_path / "l.db")
    assert file.exists()
    assert not part.exists()
    made = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(Store, "is_made", staticmethod(lambda path: next(made)))
        gu.Ledger(tmp_path / "l.db")
