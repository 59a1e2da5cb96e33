"""Embeddings by raw id, read back with another library and compared with what the model gives node by node."""

import hashlib
import json
import stat

import numpy as np
import pandas as pd
import pytest
import torch
import torch_geometric

import graphunlearn as gu
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.serving import embedding_table, export_embeddings
from graphunlearn.serving.embeddings import raw_ids


@pytest.mark.parametrize("side", ["user", "item"])
def test_files_hold_the_rows_of_everyone_with_interactions_by_raw_id(side, forgot, tmp_path):
    result, gone = forgot.result, getattr(forgot, f"{side}s")
    facts = export_embeddings(result.model, result.graph, tmp_path / "a")
    encoded = gu.encode(result.model.eval(), result.graph)
    rows = encoded.queries if side == "user" else encoded.items
    frame = pd.read_parquet(tmp_path / "a" / f"{side}s.parquet")
    table = dict(zip(frame["id"], frame["embedding"]))
    names = result.graph.vocabulary(side).ids
    assert set(table) == set(names) - gone
    for number, name in enumerate(names):
        if name not in gone:
            np.testing.assert_allclose(table[name], rows[number].detach().numpy(), rtol=1e-6)
    told = facts["files"][f"{side}s.parquet"]
    assert (told["rows"], told["left_out"], facts["dim"]) == (len(names) - len(gone), len(gone), 6)


def test_columns_are_fixed_size_lists_of_single_precision(forgot, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    export_embeddings(forgot.result.model, forgot.result.graph, tmp_path / "a")
    schema = parquet.read_schema(tmp_path / "a" / "users.parquet")
    assert schema.names == ["id", "embedding"]
    assert schema.field("embedding").type == pa.list_(pa.float32(), 6)
    assert schema.field("id").type == pa.string()


@pytest.mark.parametrize(
    ("ids", "expected", "kind"),
    [
        ([7, 3, 12], [7, 3, 12], "int64"),
        (["7", "3", "x"], ["7", "3", "x"], "str"),
        (["07", "3", "1"], ["07", "3", "1"], "str"),  # leading zeros are text
        ([2**63, 3, 2**64 - 1], [2**63, 3, 2**64 - 1], "uint64"),
        ([2**64, 3, 5], [str(2**64), "3", "5"], "str"),  # no column of numbers holds it
    ],
)
def test_ids_have_the_type_of_the_data(ids, expected, kind, tmp_path):
    pairs = torch.tensor([[0, 1, 2, 0], [0, 1, 0, 1]])
    graph = gu.InteractionGraph.from_edges(pairs, user_ids=ids, item_ids=["a", "b"])
    model = torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=1)
    export_embeddings(model, graph, tmp_path / "a")
    column = pd.read_parquet(tmp_path / "a" / "users.parquet")["id"]
    assert column.tolist() == expected
    assert str(column.dtype) in ((kind,) if kind != "str" else ("str", "object"))


def test_the_type_does_not_depend_on_who_is_left():
    assert raw_ids(Vocabulary(["7", "x"]), torch.tensor([True, False])) == ["7"]


def test_what_was_written_can_be_checked(forgot, tmp_path):
    export_embeddings(forgot.result.model, forgot.result.graph, tmp_path / "a")
    facts = json.loads((tmp_path / "a" / "embeddings.json").read_text())
    for name, told in facts["files"].items():
        assert told["sha256"] == hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest()
    assert facts["model"] == gu.nn.identity.fingerprint(forgot.result.model)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o600}


def test_sessions_have_items_only(sessions, tmp_path):
    facts = export_embeddings(sessions.result.model, sessions.result.graph, tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["embeddings.json", "items.parquet"]
    assert facts["files"]["items.parquet"]["left_out"] == 1
    with pytest.raises(ValueError, match=r"'side' must be item for a graph of sessions \(got 'user'\)"):
        embedding_table(sessions.result.model, sessions.result.graph, "user")


def test_the_mode_of_the_model_stays(forgot):
    forgot.model.train()
    embedding_table(forgot.model, forgot.graph)
    assert forgot.model.training


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_is_one(forgot, tmp_path):
    given = forgot.result.model, forgot.result.graph, tmp_path / "a"
    export_embeddings(*given)
    with pytest.raises(ValueError, match="'folder' must be a new folder"):
        export_embeddings(*given)
    export_embeddings(*given, overwrite=True)
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex'"):
        export_embeddings(*given, overwrite=True)


def test_embeddings_that_are_no_numbers_are_refused(forgot, tmp_path):
    import copy

    model = copy.deepcopy(forgot.model)
    with torch.no_grad():
        model.embedding.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="'model' must give finite embeddings"):
        export_embeddings(model, forgot.graph, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
