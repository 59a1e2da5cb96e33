import hashlib

import numpy as np
import pytest
import torch

import graphunlearn as gu
from graphunlearn.runs.traces.rows import WantedPrints, WantedRows, rows_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset", range(9))
def test_rows_are_found_at_any_position_as_a_loop_over_all_finds_them(dtype, offset):
    table = torch.randn(30, 5)
    wanted = WantedRows([table[[3, 8]]])
    data = b"\x01" * offset + table.to(dtype).view(torch.uint8).numpy().tobytes() + b"\x02" * 3
    rows = [row.to(dtype).view(torch.uint8).numpy().tobytes() for row in table[[3, 8]]]
    naive = sum(data.startswith(row, at) for at in range(len(data)) for row in rows)
    assert wanted.in_bytes(data) == naive == 2


def test_rows_of_others_and_parts_of_rows_are_none():
    table = torch.randn(30, 5)
    wanted = WantedRows([table[[3]]])
    assert wanted.in_bytes(table[4:].numpy().tobytes()) == 0
    assert wanted.in_bytes(table[3].numpy().tobytes()[:-1]) == 0
    assert wanted.in_bytes(table[3].numpy().tobytes(), stop=0) == 0


def test_rows_that_occur_by_chance_are_not_searched_for():
    wanted = WantedRows([torch.zeros(2, 8), torch.eye(3), torch.randn(1, 1)])
    assert wanted.skipped == 6 and not wanted.rows


@pytest.mark.parametrize("level", ["user", "item"])
def test_the_rows_of_a_model_are_those_of_its_tables_and_its_encoding(level):
    graph = gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=3, seed=0)
    model = gu.nn.build_model("lightgcn", graph, 8, 2)
    offset = graph.num_users if level == "item" else 0
    tables = rows_of(model, graph, level, torch.tensor([2, 5]))
    encoded = gu.encode(model, graph)
    encoding = encoded.items if level == "item" else encoded.queries
    table = next(p for p in model.parameters() if p.ndim == 2)
    assert any(torch.equal(rows, table[[2 + offset, 5 + offset]]) for rows in tables)
    assert any(torch.equal(rows, encoding[[2, 5]]) for rows in tables)


def test_fingerprints_are_found_in_hexadecimal_and_as_bytes():
    name = hashlib.sha256(b"graph").hexdigest()
    wanted = WantedPrints([name])
    assert wanted.in_bytes(f'"{name}" {name.upper()}'.encode() + bytes.fromhex(name)) == 3
    assert wanted.in_bytes(hashlib.sha256(b"other").hexdigest().encode()) == 0
    assert WantedPrints([]).in_bytes(b"") == 0


def test_random_bytes_hold_no_row():
    wanted = WantedRows([torch.randn(1000, 16)])
    assert wanted.in_bytes(np.random.default_rng(0).bytes(1 << 20)) == 0
