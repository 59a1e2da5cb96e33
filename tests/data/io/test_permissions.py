"""Files with personal data are for their owner alone, unless the owner has decided otherwise."""

import os
import stat

import pytest

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.folders import replaced_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def permissive():
    """A process whose new files everybody may read."""
    before = os.umask(0o000)
    yield
    os.umask(before)


def test_a_new_file_is_for_its_owner_also_while_it_is_written(tmp_path):
    seen = []
    path = write_atomic(tmp_path / "a", lambda file: seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)))
    assert seen == [0o600] and mode(path) == 0o600


def test_an_existing_file_keeps_its_permissions(tmp_path):
    path = write_atomic(tmp_path / "a", b"one")
    path.chmod(0o640)
    write_atomic(path, b"two")
    assert mode(path) == 0o640


def test_a_new_folder_is_for_its_owner_also_while_it_is_written(tmp_path):
    with replaced_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("one")
        assert mode(folder) == 0o700
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "file")) == (0o700, 0o600)


def test_a_folder_that_replaces_another_has_its_permissions(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o750)
    with replaced_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("one")
        assert mode(folder) == 0o700
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "file")) == (0o750, 0o640)
