import json
import shutil

import pytest


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("user_id\nu1\nu2\n")
    return path


def test_traces_are_listed_without_ids(call, forgotten, trained, ids):
    status, out, err = call("search-traces", forgotten, "--ids", ids, "--original", trained)
    assert status == 1
    assert "request.json" in out and "row of the original model" in out and "traces found" in out
    assert "u1" not in out + err and "u2" not in out + err


def test_nothing_is_found_where_nothing_is(call, ids, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.txt").write_text("user u10 left")
    status, out, _ = call("search-traces", tmp_path / "a", "--ids", ids)
    assert (status, out) == (0, "1 file searched, 13 bytes: no traces found\n")


def test_a_file_that_cannot_be_searched_counts(call, ids, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8bbroken")
    status, out, _ = call("search-traces", tmp_path / "a.gz", "--ids", ids, "--json")
    told = json.loads(out)
    assert (status, told["clean"], len(told["unread"])) == (1, False, 1)


def test_figures_count_only_where_that_is_asked_for(call, tmp_path):
    (tmp_path / "ids.txt").write_text("7\n9\n")
    (tmp_path / "report.json").write_text('{"recall": 7}')
    words = ["search-traces", tmp_path / "report.json", "--ids", tmp_path / "ids.txt"]
    status, out, _ = call(*words)
    assert status == 0 and out.startswith("1 short number in 1 file may be figures")
    assert call(*words, "--strict")[0] == 1


def test_bad_input_gives_one_sentence(refused, forgotten, ids, tmp_path):
    assert refused("search-traces", tmp_path / "no", "--ids", ids).startswith("'PATH' must name existing files")
    assert refused("search-traces", forgotten, "--ids", tmp_path / "no.csv").startswith("'--ids' must ")
    assert refused("search-traces", forgotten, "--ids", ids, "--level", "click").startswith("'--level' must be one of")
    assert "--ids" in refused("search-traces", forgotten)
    assert refused("search-traces", "--ids", ids) == "'PATH' must name existing files or folders (got none)"
    nowhere = shutil.copytree(forgotten, tmp_path / "copy")
    (nowhere / "run.json").unlink()
    assert "run folder" in refused("search-traces", forgotten, "--ids", ids, "--original", nowhere)
