import errno
import os
import sys
from pathlib import Path

import pytest

from graphunlearn.data.io import folders
from graphunlearn.runs.folder import check_out, replaced


def write(out, text, overwrite=False):
    with replaced(out, overwrite) as folder:
        (folder / "run.json").write_text(text)
        (folder / "model.safetensors").write_text(text)


def content(out):
    return {path.name: path.read_text() for path in out.iterdir()}


def whole(text):
    return {"run.json": text, "model.safetensors": text}


def test_writes_and_replaces(tmp_path):
    out = tmp_path / "runs" / "deep" / "a"
    write(out, "one")
    assert content(out) == whole("one")
    write(out, "two", overwrite=True)
    assert content(out) == whole("two")
    assert [entry.name for entry in out.parent.iterdir()] == ["a"]


def test_what_a_replaced_folder_held_is_gone(tmp_path):
    write(tmp_path / "a", "one")
    (tmp_path / "a" / "report.json").write_text("of the earlier run")
    write(tmp_path / "a", "two", overwrite=True)
    assert content(tmp_path / "a") == whole("two")


def test_refuses_an_existing_folder(tmp_path):
    write(tmp_path / "a", "one")
    with pytest.raises(ValueError, match=r"'out' must be a new folder .*exists\); overwrite=True replaces it"):
        write(tmp_path / "a", "two")
    assert content(tmp_path / "a") == whole("one")


def test_never_replaces_what_no_command_wrote(tmp_path):
    write(tmp_path / "a", "one")
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex'"):
        write(tmp_path / "a", "two", overwrite=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("file", "link"):
        with pytest.raises(ValueError, match="a file or a symbolic link"):
            check_out(tmp_path / name, overwrite=True)
    with pytest.raises(ValueError, match="can be written to"):
        check_out(tmp_path / "file" / "below", overwrite=True)


def fail_with(error):
    def fail(*_args, **_keywords):
        raise error

    return fail


FAILURES = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()]


WHERE = ["inside", "fsync", "moving the earlier one away", "moving the new one in"]


@pytest.mark.parametrize("error", FAILURES, ids=["full disk", "Ctrl-C"])
@pytest.mark.parametrize(
    ("where", "existing"), [(w, e) for w in WHERE for e in (True, False) if e or w != "moving the earlier one away"]
)
def test_a_failure_leaves_the_earlier_folder_whole(where, existing, error, tmp_path, monkeypatch):
    out = tmp_path / "a"
    if existing:
        write(out, "one")
    rename = Path.rename

    def rename_or_fail(self, target):
        if self.name == "a" if where == WHERE[2] else self.name.endswith(".new"):
            raise error
        return rename(self, target)

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", fail_with(error))
    elif where != "inside":
        monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
        monkeypatch.setattr(Path, "rename", rename_or_fail)
    with pytest.raises(type(error)) as caught, replaced(out, overwrite=True) as folder:
        (folder / "run.json").write_text("tw")
        if where == "inside":
            raise error
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == (["a"] if existing else [])
    if existing:
        assert content(out) == whole("one")
    if isinstance(error, OSError):
        kept = " (the earlier one is unchanged)" if existing else ""
        assert str(caught.value) == f"'{out}' could not be written: No space left on device{kept}"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange folders")
def test_there_is_a_folder_at_every_moment(tmp_path, monkeypatch):
    """The new folder and the earlier one are exchanged, so that neither has to be moved away first."""
    out = tmp_path / "a"
    write(out, "one")
    monkeypatch.setattr(Path, "rename", fail_with(AssertionError("not needed")))
    write(out, "two", overwrite=True)
    assert content(out) == whole("two")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_the_cause_is_told_however_often_it_was_wrapped(tmp_path):
    with pytest.raises(OSError, match=r"could not be written: No space left on device$"), replaced(tmp_path / "a"):
        raise OSError("a long story") from FAILURES[0]
