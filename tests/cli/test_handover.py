"""Embeddings, indices, changed lists and records on the command line, against the same calls in Python."""

import hashlib
import json
import stat

import pandas as pd
import pytest

from graphunlearn.runs.run import Run
from graphunlearn.serving import changed_lists, embedding_table

EXTRA = "the libraries are tested in an environment of their own (nox -s serving)"


def test_embeddings_are_those_of_the_corrected_model(forgotten, tmp_path, call):
    status, out, err = call("export", forgotten, "--embeddings", "parquet", "--out", tmp_path / "a")
    assert status == 0, err
    assert "2 users are left out, without events in the training part: forgotten, or only held out\n" in err
    run = Run.load(forgotten)
    for side in ("user", "item"):
        table = embedding_table(run.model, run.train, side)
        frame = pd.read_parquet(tmp_path / "a" / f"{side}s.parquet")
        assert frame["id"].tolist() == table.ids
        assert [row.tolist() for row in frame["embedding"]] == table.vectors.tolist()
        assert f"{len(table.ids)} embeddings of width {table.dim}" in out
    assert not {"u1", "u2"} & set(pd.read_parquet(tmp_path / "a" / "users.parquet")["id"])


def test_a_trained_run_has_embeddings_too(trained, tmp_path, parsed):
    told = parsed("export", trained, "--embeddings", "parquet", "--out", tmp_path / "a")
    assert told["files"]["items.parquet"]["rows"] == 30


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_changed_lists_are_written_for_the_owner_alone(format, forgotten, tmp_path, parsed):
    out = tmp_path / "a"
    told = parsed("changed", forgotten, "--k", 5, "--out", out, "--format", format)
    run = Run.load(forgotten)
    before = run.forgotten
    expected = changed_lists(before.original, before.graph, run.model, run.train, 5)
    assert {side: told[side] for side in ("users", "items")} == expected.counts()
    for side, frame in (("users", expected.users), ("items", expected.items)):
        path = out / f"{side}.{format}"
        found = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
        assert found.values.tolist() == frame.values.tolist()
        assert list(found.columns) == list(frame.columns)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {"u1", "u2"} == set(expected.users.loc[expected.users["status"] == "removed", "id"])


def test_changed_lists_are_counted_without_a_folder(forgotten, call):
    status, out, err = call("changed", forgotten)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split() == ["compared", "changed", "removed", "new"]
    assert out.splitlines()[1].split()[::3] == ["users", "2"]


def test_changed_lists_of_sessions_are_those_of_items(forgotten_sessions, tmp_path, parsed):
    told = parsed("changed", forgotten_sessions, "--out", tmp_path / "a")
    assert "users" not in told
    assert told["items"]["removed"] == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["items.csv"]


@pytest.mark.parametrize("library", ["faiss", "hnswlib"])
def test_an_index_is_replaced_and_searched_for_the_forgotten(library, trained, forgotten, tmp_path, parsed):
    pytest.importorskip(library, reason=EXTRA)
    out = tmp_path / "index"
    assert parsed("export", trained, "--index", library, "--out", out)["entries"] == 30
    told = parsed("export", forgotten, "--index", library, "--out", out, "--overwrite")
    assert (told["removed"], told["kept"], told["searched"], told["left_out"]) == (1, 29, 1, 1)
    facts = json.loads((out / "ids.json").read_text())
    assert "i3" not in facts["ids"]
    (index,) = (path for path in out.iterdir() if path.name != "ids.json")
    assert facts["sha256"] == hashlib.sha256(index.read_bytes()).hexdigest()


def test_an_index_with_other_options_than_the_earlier_is_refused(trained, tmp_path, parsed, refused):
    pytest.importorskip("faiss", reason=EXTRA)
    pytest.importorskip("hnswlib", reason=EXTRA)
    words = ("export", trained, "--out", tmp_path / "index")
    parsed(*words, "--index", "faiss", "--index-option", "factory=IVF2,Flat")
    assert "'--index' must be the library of the index in" in refused(*words, "--index", "hnswlib", "--overwrite")
    told = refused(*words, "--index", "faiss", "--overwrite", "--index-option", "factory=Flat")
    assert "'--index-option' must be as in the index in" in told
    told = refused(*words, "--index", "faiss", "--overwrite", "--index-side", "user")
    assert "have the side of the index" in told
    assert parsed(*words, "--index", "faiss", "--overwrite")["kept"] == 30
    told = refused("export", trained, "--out", tmp_path / "b", "--index", "faiss", "--index-option", "factory=nope")
    assert told.startswith("'--index-option' must describe an index that faiss can build")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "'--out' must be given (got nothing)"),
        (("--experiment", "x"), "'--experiment' must go with --mlflow (got it without)"),
        (("--index-option", "M=3"), "'--index-option' must go with --index (got it without)"),
        (("--mlflow", "x", "--out", "y"), "'--out' must be left out with --mlflow (got both)"),
        (("--index", "faiss", "--mlflow", "x"), "'--mlflow' must be left out with --index (got both)"),
        (("--embeddings", "parquet", "--key", "k"), "'--key' must be left out with --embeddings (got both)"),
        (("--embeddings", "csv"), "'--embeddings' must be one of 'parquet'"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(words, sentence, forgotten, refused):
    assert sentence in refused("export", forgotten, *words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("M=many",), "'--index-option M' must be a whole number (got 'many')"),
        (("factory=Flat",), "'--index-option' must be NAME=VALUE with an option of hnswlib, M, ef_construction"),
        (("M",), "'--index-option' must be NAME=VALUE"),
    ],
)
def test_options_of_an_index_that_are_none_are_one_sentence(words, sentence, forgotten, tmp_path, refused):
    pytest.importorskip("hnswlib", reason=EXTRA)
    given = ("--index", "hnswlib", "--out", tmp_path / "a", "--index-option", *words)
    assert sentence in refused("export", forgotten, *given)


def test_a_run_without_its_original_has_nothing_to_compare(trained, refused):
    assert "'forget' wrote, with the original still in it" in refused("changed", trained)


@pytest.mark.parametrize("module", ["faiss", "mlflow", "pyarrow"])
def test_what_is_not_installed_is_named(module, forgotten, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    words = {
        "faiss": ("--index", "faiss", "--out", tmp_path / "a"),
        "mlflow": ("--mlflow", "http://127.0.0.1:9"),
        "pyarrow": ("--embeddings", "parquet", "--out", tmp_path / "a"),
    }[module]
    extra = {"pyarrow": "parquet"}.get(module, module)
    told = refused("export", forgotten, *words)
    assert told == f"this needs {module}: python -m pip install 'graphunlearn[{extra}]'"


def test_a_record_on_the_command_line(trained, forgotten, tmp_path, parsed, refused, monkeypatch):
    pytest.importorskip("flask", reason=EXTRA)
    pytest.importorskip("mlflow", reason=EXTRA)
    from graphunlearn.nn.identity import fingerprint
    from graphunlearn.serving import in_production

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    words = ("--mlflow", uri, "--experiment", "erasures", "--registered-model", "shop", "--served-from")
    parsed("export", trained, *words, "2026-01-01")
    told = parsed("export", forgotten, *words, "2026-02-20T08:00:00Z")
    found = in_production(uri, "shop")
    assert (found["run_id"], found["served_from"]) == (told["mlflow_run"], "2026-02-20T08:00:00+00:00")
    assert found["fingerprint"] == fingerprint(Run.load(forgotten).model)
    assert "'--served-from' must be after the start" in refused("export", trained, *words, "2026-02-19")
    assert "'--served-from' must be a date or a time" in refused("export", trained, *words, "noon")
    alone = ("--mlflow", uri, "--served-from", "2026-12-20")
    assert "'--served-from' must go with --registered-model" in refused("export", trained, *alone)
    refusal = refused("export", trained, "--mlflow", "http://127.0.0.1:9")
    assert "'--mlflow' must be the address of an MLflow server or of its database" in refusal
