"""Every format, with an id in it and without: what was written is counted, and what was not is not found."""

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file
from trace_formats import (
    DOUBLED,
    FORMATS,
    NUMBERS,
    OTHERS,
    SUFFIX,
    TEXTS,
    count,
    csv,
    json_ids,
    npy,
    parquet_nested,
    pickled,
    raw,
    safetensors,
    torch_file,
)

import graphunlearn as gu
from graphunlearn.errors import ArgumentError
from graphunlearn.runs.traces import search_traces


@pytest.mark.parametrize("ids", [TEXTS, NUMBERS], ids=["texts", "numbers"])
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_ids_are_found_in_every_format_and_others_are_not(write, ids, tmp_path):
    path = tmp_path / f"x.{SUFFIX.get(write.__name__, 'dat')}"
    write(path, ids)
    found = search_traces(path, ids)
    wanted = len(ids) * (2 if write in DOUBLED else 1)
    assert not found.unread
    if write is pickled or write is torch_file or write is parquet_nested or write is raw:
        assert count(found) >= len(ids)
    else:
        assert count(found) == wanted, found
    assert not any(str(name) in str((trace.place, trace.count)) for trace in found.found for name in ids)
    path.unlink()
    write(path, [OTHERS[name] for name in ids])
    found = search_traces(path, ids)
    assert found.clean and found.files == 1 and found.bytes == path.stat().st_size


@pytest.mark.parametrize("pack", ["gz", "bz2", "xz", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("write", [csv, json_ids, npy, safetensors, raw], ids=lambda write: write.__name__)
def test_compressed_files_and_archives_are_opened(write, pack, tmp_path):
    plain = tmp_path / "inner.csv"
    write(plain, TEXTS)
    data, packed = plain.read_bytes(), tmp_path / f"x.csv.{pack}"
    plain.unlink()
    if pack in ("gz", "bz2", "xz"):
        packed.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[pack].compress(data))
    elif pack == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.csv", data)
    else:
        with tarfile.open(packed, f"w:{pack.partition('.')[2]}") as archive:
            member = tarfile.TarInfo("inner.csv")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    found = search_traces(tmp_path, TEXTS)
    assert count(found) == 2 and not found.unread


@pytest.mark.parametrize("secure", [False, True])
def test_deleted_rows_of_a_database_are_found_until_they_are_overwritten(secure, tmp_path):
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA secure_delete = {'ON' if secure else 'OFF'}")
        with connection:
            connection.execute("CREATE TABLE job (who TEXT, due TEXT)")
            rows = [(f"anna-{n}", "2026-12-20" * 30) for n in range(100)]
            connection.executemany("INSERT INTO job VALUES (?, ?)", rows)
        with connection:
            connection.execute("DELETE FROM job")
    found = search_traces(path, ["anna-7"])
    assert found.clean is secure
    if not secure:
        assert {trace.place for trace in found.certain} == {"unused space of a database"}


@pytest.mark.parametrize("mode", ["WAL", "PERSIST"])
def test_journals_beside_a_database_are_searched(mode, tmp_path):
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("CREATE TABLE job (who TEXT)")
    with connection:
        connection.execute("INSERT INTO job VALUES ('anna-7')")
    with connection:
        connection.execute("DELETE FROM job")
    left = {"WAL": "x.db-wal", "PERSIST": "x.db-journal"}[mode]
    found = search_traces(tmp_path, ["anna-7"])
    connection.close()
    assert {Path(trace.file).name for trace in found.certain} == {left}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder before forgetting and one after it, and the request."""
    from graphunlearn.cli import main

    folder = tmp_path_factory.mktemp("runs")
    graph = gu.datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=3)
    graph.to_frame().to_csv(folder / "r.csv", index=False)
    assert (
        main(["train", "--data", str(folder / "r.csv"), "--out", str(folder / "a"), "--epochs", "2", "--dim", "8"]) == 0
    )
    assert main(["forget", str(folder / "a"), "--users", "u1", "u2", "--out", str(folder / "b")]) == 0
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("form", ["npy", "fortran", "npz", "safetensors", "raw", "parquet", "columns", "big"])
def test_rows_of_the_original_are_found_in_every_format_and_type(dtype, form, runs, tmp_path):
    run = gu.runs.Run.load(runs / "a")
    model, nodes = run.model, run.train.vocabulary("user").lookup(["u1", "u2"]).tolist()
    table = next(p for p in model.parameters() if p.ndim == 2).detach().numpy()
    path = tmp_path / f"x.{form}"
    for rows, wanted in ((table, 2), (np.delete(table, nodes, axis=0), 0)):
        values = rows.astype(dtype)
        if form == "npy":
            np.save(path.open("wb"), values)
        elif form == "fortran":
            np.save(path.open("wb"), np.asfortranarray(values))
        elif form == "big":
            np.save(path.open("wb"), values.astype(values.dtype.newbyteorder(">")))
        elif form == "npz":
            np.savez_compressed(path.open("wb"), a=values)
        elif form == "safetensors":
            save_file({"a": values}, path)
        elif form == "raw":
            path.write_bytes(b"abc" + values.tobytes())
        elif form == "parquet":
            pq.write_table(pa.table({"user": pa.array(range(len(rows))), "v": pa.array(list(values))}), path)
        else:
            pq.write_table(pa.table({f"v{n}": values[:, n] for n in range(values.shape[1])}), path)
        found = search_traces(path, ["u1", "u2"], original=runs / "a")
        places = {trace.place: trace.count for trace in found.certain}
        assert len(places) == bool(wanted)
        times = {wanted, 2 * wanted} if form == "parquet" else {wanted}  # its pages may be encoded or plain
        assert sum(places.values()) in times, places


def test_a_run_folder_tells_where_the_forgotten_are(runs):
    found = search_traces(runs / "b", ["u1", "u2"], original=runs / "b")
    seen = {(Path(trace.file).name, trace.place) for trace in found.certain}
    assert {
        ("original.safetensors", "row of the original model"),
        ("original_train.safetensors", "fingerprint of the original"),
        ("train.safetensors", "tensor user/vocabulary"),
        ("request.json", "JSON"),
    } <= seen
    assert "model.safetensors" not in {name for name, _ in seen}


def test_numbers_of_nodes_are_ids_where_there_are_no_others(tmp_path):
    pairs = torch.tensor([[0, 0, 2], [1, 2, 0]])
    gu.InteractionGraph.from_edges(pairs, 3, 3).save(tmp_path / "g.safetensors")
    assert count(search_traces(tmp_path, [0])) == 2
    assert search_traces(tmp_path, [1]).clean
    assert count(search_traces(tmp_path, [1], level="item")) == 1
    frame = pd.DataFrame({"user": ["41", "41", "90"], "item": ["1", "2", "0"]})
    gu.InteractionGraph.from_frame(frame).save(tmp_path / "g.safetensors")
    assert search_traces(tmp_path, [0]).clean  # node 0 is user 41
    assert count(search_traces(tmp_path, [41])) == 1
    sessions = gu.SessionGraph.from_sequences([[2, 0], [2]])
    sessions.save(tmp_path / "g.safetensors")
    assert count(search_traces(tmp_path, [2], level="item")) == 2


def test_figures_of_a_report_are_possible_and_no_hits(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"recall@20": 7, "seeds": [7], "users": 7, "text": "7 of 9 models", "seconds": 7.0}))
    found = search_traces(path, [7])
    assert found.clean and sum(trace.count for trace in found.possible) == 5
    path.write_text(json.dumps({"users": [7], "item_ids": [7], "ids": [7]}))
    assert count(search_traces(path, [7])) == 2


def test_columns_of_other_ids_and_figures_are_no_hits(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("user_id,movie_id,rating,timestamp\n1,7,7,7\n7,2,3,4\n")
    assert [(trace.place, trace.count) for trace in search_traces(path, [7]).certain] == [("column user_id", 1)]
    assert [(trace.place, trace.count) for trace in search_traces(path, [7], level="item").certain] == [
        ("column movie_id", 1)
    ]


def test_a_sentence_is_no_header(tmp_path):
    path = tmp_path / "log"
    path.write_text("item user removed\nlost 7 today\n7 was removed\n")
    assert [(trace.place, trace.count) for trace in search_traces(path, [7]).certain] == [("text", 2)]
    path.write_text("item user rating\n7 9 7\n9 7 7\n")
    assert [(trace.place, trace.count) for trace in search_traces(path, [7]).certain] == [("column user", 1)]


def test_a_file_larger_than_a_chunk_is_searched_across_the_cuts(tmp_path, monkeypatch):
    for module in ("sight", "documents", "arrays", "databases"):
        monkeypatch.setattr(f"graphunlearn.runs.traces.{module}.CHUNK", 64)
    lines = [f"the user u{n} has left" for n in range(400)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    (tmp_path / "x.bin").write_bytes(b"\x00\x01" + b"\x00\x00".join(line.encode() for line in lines))
    found = search_traces(tmp_path, ["u31", "u399"])
    assert {(Path(t.file).name, t.count) for t in found.certain} == {("log.txt", 2), ("x.bin", 2)}


def test_names_of_files_count(tmp_path):
    (tmp_path / "anna-7").mkdir()
    (tmp_path / "anna-7" / "log").write_text("")
    assert [trace.place for trace in search_traces(tmp_path, ["anna-7"]).certain] == ["file name"]


def test_what_cannot_be_searched_is_named_and_not_clean(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 broken PAR1")
    (tmp_path / "c.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\x01" * 30)
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00broken")
    (tmp_path / "e.db").write_bytes(b"SQLite format 3\x00" + b"\x01" * 2000)
    (tmp_path / "f.safetensors").write_bytes((30).to_bytes(8, "little") + b'{"a": ' + b"x" * 100)
    (tmp_path / "g").symlink_to(tmp_path / "nowhere")
    (tmp_path / "h").symlink_to(tmp_path.parent)
    os.mkfifo(tmp_path / "i")
    found = search_traces(tmp_path, ["anna-7"])
    assert sorted({Path(file).name[0] for file, _ in found.unread}) == list("abcdefghi")
    assert not found.certain and not found.clean


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_must_not_be_read_is_not_clean(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "a").chmod(0)
    assert [file for file, _ in search_traces(tmp_path, ["u3"]).unread] == [str(tmp_path / "a")]


def test_bad_arguments_give_one_sentence(runs, tmp_path):
    for given, text in (
        ({"paths": tmp_path / "no"}, "'paths' must hold existing files or folders"),
        ({"ids": []}, "'ids' must hold at least one id"),
        ({"level": "click"}, "'level' must be one of user, item, session"),
        (
            {"original": runs / "a", "ids": ["nobody"]},
            "'original' must be a run that was trained with some of the users",
        ),
        ({"original": runs / "a", "level": "session"}, "'level' must be one of the original"),
    ):
        with pytest.raises(ArgumentError, match=text):
            search_traces(**{"paths": tmp_path, "ids": ["u1"]} | given)
