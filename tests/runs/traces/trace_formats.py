"""Files of every format with ids in them."""

import json
import pickle
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file

TEXTS, NUMBERS = ["anna-7", "u31"], [41, 5_000_001]
OTHERS = {"anna-7": "anna-77", "u31": "u310", 41: 410, 5_000_001: 5_000_002}


def csv(path, ids):
    path.write_text("user,item,rating\n" + "".join(f'"{name}",{n},41.5\n' for n, name in enumerate(ids)))


def tsv_of_windows(path, ids):
    path.write_bytes("\n".join(["who\twhat", *(f"{name}\t9" for name in ids)]).encode("utf-16"))


def text(path, ids):
    path.write_text("".join(f"removed {name}, as asked\n" for name in ids))


def utf16(path, ids):
    path.write_bytes("".join(f"removed {name}, as asked\n" for name in ids).encode("utf-16-le"))


def json_ids(path, ids):
    path.write_text(json.dumps({"parts": [{"level": "user", "ids": ids}], "indent": [1, 2]}, indent=2))


def json_nested(path, ids):
    path.write_text(json.dumps({"a": json.dumps({"b": [{"user_id": name} for name in ids]})}))


def json_lines(path, ids):
    path.write_text("".join(json.dumps({"who": name, "stars": 4}) + "\n" for name in ids))


def parquet(path, ids):
    pd.DataFrame({"who": ids, "rating": 1.5}).to_parquet(path)


def parquet_nested(path, ids):
    rows = [{"a": {"users": [name]}, "m": [(str(name), 1)]} for name in ids]
    kind = pa.string() if isinstance(ids[0], str) else pa.int32()
    schema = {"a": pa.struct({"users": pa.list_(kind)}), "m": pa.map_(pa.string(), pa.int64())}
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), path)


def arrow(path, ids):
    table = pa.table({"user": pa.array(ids).dictionary_encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def sqlite(path, ids):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE job (number INTEGER PRIMARY KEY, who, facts)")
        connection.executemany("INSERT INTO job (who, facts) VALUES (?, ?)", [(n, json.dumps({"n": 41})) for n in ids])


def npy(path, ids):
    np.save(path.open("wb"), np.array(ids))


def npz(path, ids):
    np.savez_compressed(path.open("wb"), users=np.array(ids), weights=np.ones(3))


def npy_records(path, ids):
    kind = "U20" if isinstance(ids[0], str) else "<i8"
    np.save(path.open("wb"), np.array([(name, 0.5) for name in ids], dtype=[("user", kind), ("rating", "f4")]))


def pickled(path, ids):
    path.write_bytes(pickle.dumps({"users": [str(name) for name in ids]}, protocol=4))


def torch_file(path, ids):
    torch.save({"users": [str(name) for name in ids], "weight": torch.ones(3)}, path)


def safetensors(path, ids):
    users = np.array(ids) if not isinstance(ids[0], str) else np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
    save_file({"user_ids": users}, path)


def safetensors_header(path, ids):
    save_file({"a": np.ones(2)}, path, metadata={"note": json.dumps({"users": ids})})


def html(path, ids):
    path.write_text("".join(f"<p>user {name}</p>\n" for name in ids))


def raw(path, ids):
    path.write_bytes(
        b"\x00\x01\x02" * 50 + "".join(f" name of user: {name} \x00" for name in ids).encode() + b"\x03\x04"
    )


FORMATS = [csv, tsv_of_windows, text, utf16, json_ids, json_nested, json_lines, parquet, parquet_nested, arrow, sqlite]
FORMATS += [npy, npz, npy_records, pickled, torch_file, safetensors, safetensors_header, html, raw]
DOUBLED = (parquet_nested,)  # in the list and in the map
SUFFIX = {
    "csv": "csv", "json_ids": "json", "json_nested": "json", "json_lines": "jsonl", "html": "html", "npy": "npy",
    "parquet": "parquet", "tsv_of_windows": "tsv", "safetensors": "safetensors", "pickled": "pkl",
}  # fmt: skip


def count(traces):
    return sum(trace.count for trace in traces.certain)
