"""Ids behind escapes, other encodings, names, numbers and rarer formats are found, or what hides them is named."""

import json
import os
import sqlite3
import zlib
from contextlib import closing

import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch

from graphunlearn.runs.traces import search_traces

NAMES = ["jürgen müller", "user-003@x.org", "Ann Lee", "b&b+1"]


def count(path, ids, **options):
    """Number of certain hits, where everything could be searched."""
    found = search_traces(path, ids, **options)
    assert not found.unread
    return sum(trace.count for trace in found.certain)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r'INFO served {"user": "j\u00fcrgen m\u00fcller", "k": 5}', 1),
        (r'INFO served {"user": "j\u00fcrgen m\u00fcllers"}', 0),
        (r'WARN "lost\nuser-003@x.org\tagain"', 1),
        ("GET /rec?user=user-003%40x.org&k=5 HTTP/1.1", 1),
        ("GET /rec?user=1user-003%40x.org HTTP/1.1", 0),
        ("GET /rec?user=Ann%20Lee&k=5, GET /rec?user=Ann+Lee", 2),
        ("GET /j%C3%BCrgen%20m%C3%BCller/", 1),
        ("<td>b&amp;b+1</td><td>j&uuml;rgen m&#252;ller</td>", 2),
        ("Ann Lee, user=Ann%20Lee", 2),
    ],
)
def test_escapes_in_text_are_resolved(text, number, tmp_path):
    (tmp_path / "x.log").write_text(f"start\n{text}\n", encoding="utf-8")
    assert count(tmp_path / "x.log", NAMES) == number


@pytest.mark.parametrize("filler", ["a,", "ab", "a ", "é;"])
def test_a_line_longer_than_a_chunk_is_cut_between_words(filler, tmp_path, monkeypatch):
    monkeypatch.setattr("graphunlearn.runs.traces.documents.CHUNK", 64)
    monkeypatch.setattr("graphunlearn.runs.traces.documents.KEPT", 32)
    for shift in range(64):
        line = "x" * shift + filler * 80 + "/user-003@x.org/" + filler * 80 + "!Ann_Lee user-004@x.org," + filler * 70
        (tmp_path / "x.txt").write_text(line, encoding="utf-8")
        assert count(tmp_path / "x.txt", ["user-003@x.org", "Ann_Lee"]) in (2, 3, 4)  # some twice
        assert count(tmp_path / "x.txt", ["user-00", "Ann", "Lee", "aba"]) == 0


def test_large_json_is_read_as_text(tmp_path, monkeypatch):
    monkeypatch.setattr("graphunlearn.runs.traces.documents.PARSED", 100)
    (tmp_path / "x.json").write_text(json.dumps({"users": [7, 9], "n": 7, "names": ["jürgen müller"], "of": "." * 99}))
    assert count(tmp_path / "x.json", NAMES) == count(tmp_path / "x.json", [7]) == 1


def test_an_escape_is_no_number(tmp_path):
    (tmp_path / "x.log").write_text(r"grew by 5%17 and LIKE '%1234', \u0031\u00377")
    assert count(tmp_path / "x.log", [3, 34, 17, 234]) == 1  # the first 17


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_is_read(encoding, tmp_path):
    text = "a line with jürgen müller and others\n" * 3
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    assert count(tmp_path / "x.txt", NAMES) == 3


def test_one_odd_byte_hides_nothing(tmp_path):
    """A byte that is no UTF-8 once made its whole surroundings Latin-1."""
    (tmp_path / "x.txt").write_bytes(
        "jürgen müller\n".encode() + b"caf\xe9 \xff\n" + "jürgen müller\n".encode("latin-1")
    )
    assert count(tmp_path / "x.txt", NAMES) == 2


@pytest.mark.parametrize("shift", [-16, -8, -1, 0, 1])
def test_bytes_that_look_like_utf_16_are_searched_across_the_cuts(shift, tmp_path):
    data, name = bytearray(b"\x00\x01" * 600_000), b"user-003@x.org"
    at = (1 << 20) + shift
    data[at : at + len(name)] = name
    (tmp_path / "x.bin").write_bytes(data)
    assert count(tmp_path / "x.bin", NAMES) == 1


def test_names_of_empty_folders_and_of_further_links_count(tmp_path):
    (tmp_path / "a" / "lists of user-003@x.org").mkdir(parents=True)
    (tmp_path / "a" / "one.txt").write_text("x")
    os.link(tmp_path / "a" / "one.txt", tmp_path / "a" / "recommendations_for_user-003@x.org_k20.txt")
    found = search_traces(tmp_path / "a", NAMES)
    assert [(trace.place, trace.count) for trace in found.certain] == [("file name", 1)] * 2
    assert found.files == 1 and not found.unread


def test_zlib_streams_are_opened(tmp_path):
    """Git keeps every file as one."""
    text = b"blob 40\0a list of some users: user-003@x.org and others\n" * 40_000
    (tmp_path / "x").write_bytes(zlib.compress(text))
    assert count(tmp_path / "x", NAMES) == 40_000
    (tmp_path / "x").write_bytes(zlib.compress(text)[:-9])
    assert search_traces(tmp_path / "x", NAMES).unread
    (tmp_path / "x").write_text("x^2 and user-003@x.org")  # begins as one
    assert count(tmp_path / "x", NAMES) == 1


@pytest.mark.parametrize("magic", [b"PACK\x00\x00\x00\x02", b"Obj\x01"])
def test_packed_formats_are_named(magic, tmp_path):
    (tmp_path / "x").write_bytes(magic + zlib.compress(b"user-003@x.org"))
    assert len(search_traces(tmp_path / "x", NAMES).unread) == 1


def test_views_and_streams_of_arrow_are_read(tmp_path):
    table = pa.table({"x": pa.array(["Ann Lee", "Ann"], pa.string_view()), "user": pa.array([7, 8])})
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.ipc.new_stream(tmp_path / "x.arrows", table.schema) as out:
        out.write_table(table)
    for name in ("x.parquet", "x.arrows"):
        assert count(tmp_path / name, NAMES) == count(tmp_path / name, [7]) == 1
    (tmp_path / "x.bin").write_bytes(b"\xff\xff\xff\xff\x10\x00\x00\x00 then user-003@x.org")
    assert count(tmp_path / "x.bin", NAMES) == 1


def test_columns_that_are_not_searched_are_named(tmp_path):
    values = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array(["Ann Lee"])])
    table = pa.table({"x": values, "when": pa.array([5], pa.timestamp("s")), "ok": pa.array([True])})
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as out:
        out.write_table(table)
    assert [reason for _, reason in search_traces(tmp_path, NAMES).unread] == [
        "a column of type sparse_union is not searched"
    ]


def test_ids_beside_a_type_name_what_the_type_says(tmp_path):
    """As in the table of 'erase --id-map'."""
    rows = {"type": ["user", "user", "item"], "id": ["4", "9", "3"], "old_row": [3, 17, 3], "new_row": [3, 3, 17]}
    frame = pd.DataFrame(rows)
    for name, write in (("x.csv", frame.to_csv), ("x.parquet", frame.to_parquet)):
        write(tmp_path / name, index=False)
        assert count(tmp_path / name, [3, 17]) == 0
        assert count(tmp_path / name, [4]) == count(tmp_path / name, [3], level="item") == 1
    frame.to_json(tmp_path / "x.json", orient="records")
    assert count(tmp_path / "x.json", [3, 17]) == 0 and count(tmp_path / "x.json", [4]) == 1


def test_tensors_of_torch_files_are_searched_for_numbers(tmp_path):
    torch.save({"users": torch.tensor([1234567, 9]), "x": torch.rand(9)}, tmp_path / "x.pt")
    assert count(tmp_path / "x.pt", [1234567, 7654321]) == 1
    found = search_traces(tmp_path / "x.pt", [9])
    assert not found.certain and sum(trace.count for trace in found.possible) >= 1


def test_a_journal_that_may_hold_numbers_is_named(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (user)")
        connection.execute("INSERT INTO t VALUES (196)")
        connection.commit()
        (unread,) = search_traces(tmp_path, [196]).unread
        assert unread[0].endswith("-wal") and "numbers in binary form" in unread[1]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert count(tmp_path, [196]) == 1
