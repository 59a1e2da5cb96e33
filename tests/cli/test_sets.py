import pytest

from graphunlearn.cli.common import columns
from graphunlearn.datasets import available


def test_lists_every_set_and_what_is_found(tmp_path, call, parsed, monkeypatch):
    monkeypatch.delenv("GRAPHUNLEARN_DATA", raising=False)
    status, out, err = call("datasets")
    assert (status, err) == (0, "")
    assert all(card.name in out and card.source in out for card in available())
    assert "names no folder to look in" in out
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_text("")
    told = parsed("datasets", "--root", tmp_path)
    assert {card["name"]: card["found"] for card in told} == {card.name: card.name == "ml-100k" for card in available()}
    monkeypatch.setenv("GRAPHUNLEARN_DATA", str(tmp_path))
    assert parsed("datasets") == told


def test_root_must_be_a_folder(tmp_path, refused):
    assert refused("datasets", "--root", tmp_path / "x") == f"'--root' must be a folder (got '{tmp_path / 'x'}')"


def test_finds_the_real_ones(data_root, parsed):
    found = {card["name"] for card in parsed("datasets", "--root", data_root) if card["found"]}
    if not found:
        pytest.skip("GRAPHUNLEARN_DATA holds none of the named data sets")
    assert found <= {card.name for card in available()}


def test_columns():
    assert columns([["a", "1"], ["bcd", "22"]], right=[1]) == "a     1\nbcd  22"
