"""Indices of the real libraries: against brute force, and without a trace of who was forgotten."""

import json
import shutil
import stat

import numpy as np
import pytest
import torch

from graphunlearn.serving import EmbeddingTable, ServingIndex, embedding_table, replace_index
from graphunlearn.serving.index import FILES, LIBRARIES

KINDS = [("faiss", {}), ("faiss", {"factory": "IVF4,Flat"}), ("faiss", {"factory": "HNSW16"}), ("hnswlib", {})]
EXTRA = "the libraries of indices are tested in an environment of their own (nox -s serving)"


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1].get('factory', 'default')}")
def kind(request):
    pytest.importorskip(request.param[0], reason=EXTRA)
    return request.param


@pytest.fixture(params=LIBRARIES)
def library(request):
    pytest.importorskip(request.param, reason=EXTRA)
    return request.param


def table(num=200, dim=8, seed=0, names=str, without=()):
    vectors = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))
    keep = [n for n in range(num) if n not in without]
    return EmbeddingTable("item", [names(n) for n in keep], vectors[keep], len(without), f"model {seed}")


def thorough(index):
    """Let an approximate index look everywhere."""
    if index.library == "faiss" and index.settings["factory"] != "Flat":
        import faiss

        faiss.ParameterSpace().set_index_parameter(index.native, *_effort(index.settings["factory"]))
    return index


def _effort(factory):
    return ("nprobe", 4) if factory.startswith("IVF") else ("efSearch", 400)


@pytest.mark.parametrize(
    "names", [str, lambda n: 5 * n + 10**12, lambda n: f"ü{n}"], ids=["text", "numbers", "unicode"]
)
def test_flat_index_is_brute_force(names, tmp_path):
    pytest.importorskip("faiss", reason=EXTRA)
    given, queries = table(names=names), torch.randn(30, 8)
    folder = ServingIndex.build(given).save(tmp_path / "a")
    found, scores = ServingIndex.load(folder).search(queries, 10)
    exact = queries @ given.vectors.t()
    best, order = exact.sort(descending=True)
    assert found == [[given.ids[n] for n in row[:10]] for row in order.tolist()]
    torch.testing.assert_close(scores, best[:, :10], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("names", [str, lambda n: n + 100], ids=["text", "numbers"])
def test_every_index_finds_the_best_where_it_looks_everywhere(names, kind, tmp_path):
    library, settings = kind
    given, queries = table(names=names), torch.randn(30, 8)
    index = thorough(ServingIndex.load(ServingIndex.build(given, library, **settings).save(tmp_path / "a")))
    found, scores = index.search(queries, len(given.ids))
    exact = queries @ given.vectors.t()
    for row, name, value in zip(exact, found, scores):
        assert set(name) == set(given.ids)
        assert name[0] == given.ids[int(row.argmax())]
        np.testing.assert_allclose(value.numpy(), row.sort(descending=True).values.numpy(), rtol=1e-4, atol=1e-5)


def test_the_forgotten_are_gone_after_a_replacement(kind, tmp_path):
    library, settings = kind
    ServingIndex.build(table(), library, **settings).save(tmp_path / "a")
    old = (tmp_path / "a" / FILES[library]).read_bytes()
    gone, later = (3, 77, 199), table(seed=1, without=(3, 77, 199))
    told = replace_index(tmp_path / "a", later)
    assert told == {"removed": 3, "added": 0, "kept": 197, "searched": 3}
    index = thorough(ServingIndex.load(tmp_path / "a"))
    assert index.settings == ServingIndex.build(table(), library, **settings).settings
    assert index.model == "model 1"
    names = {str(n) for n in gone}
    before = table().vectors[list(gone)]
    found, _ = index.search(before, 197)  # all that it holds
    assert all(set(row) == set(later.ids) for row in found)
    assert index.stored() == set(later.ids)
    assert not names & set(index.ids)
    for name in names:
        with pytest.raises(ValueError, match=f"'ids' must be among the 197 of the index .got '{name}'"):
            index.vectors([name])
    torch.testing.assert_close(index.vectors(later.ids), later.vectors)
    assert (tmp_path / "a" / FILES[library]).read_bytes() != old
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    for vector in before:  # not one row of theirs is in a file
        assert all(vector.numpy().tobytes() not in path.read_bytes() for path in (tmp_path / "a").iterdir())
        assert vector.numpy().tobytes() in old


def test_embeddings_of_a_corrected_model(library, forgot, tmp_path):
    before = embedding_table(forgot.model, forgot.graph, "item")
    ServingIndex.build(before, library).save(tmp_path / "a")
    after = embedding_table(forgot.result.model, forgot.result.graph, "item")
    assert replace_index(tmp_path / "a", after) == {"removed": 1, "added": 0, "kept": 24, "searched": 1}
    users = embedding_table(forgot.result.model, forgot.result.graph, "user")
    found, _ = ServingIndex.load(tmp_path / "a").search(users.vectors, 24)
    assert not forgot.items & {name for row in found for name in row}


def test_a_replacement_that_still_holds_them_is_refused(library, tmp_path, monkeypatch):
    ServingIndex.build(table(), library).save(tmp_path / "a")
    old = (tmp_path / "a" / FILES[library]).read_bytes()
    build = ServingIndex.build
    monkeypatch.setattr(ServingIndex, "build", lambda *_, **__: build(table(), library))
    with pytest.raises(RuntimeError, match="the new index still holds 1 of the entries that are gone"):
        replace_index(tmp_path / "a", table(without=(3,)))
    assert (tmp_path / "a" / FILES[library]).read_bytes() == old


def test_another_width_is_one_sentence(library, tmp_path):
    ServingIndex.build(table(), library).save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"'table' must have the dim of the index '.*a', 8 \(got 5\)"):
        replace_index(tmp_path / "a", table(dim=5))
    index = ServingIndex.load(tmp_path / "a")
    with pytest.raises(ValueError, match=r"'queries' must have the width of the index, 8 \(got \[2, 5\]\)"):
        index.search(torch.zeros(2, 5), 3)
    for k in (0, 201):
        with pytest.raises(ValueError, match=f"'k' must be between 1 and the number of entries, 200 .got {k}"):
            index.search(torch.zeros(2, 8), k)
    other = EmbeddingTable("user", *(vars(table())[name] for name in ("ids", "vectors", "left_out", "model")))
    with pytest.raises(ValueError, match=r"have the side of the index '.*a', item"):
        replace_index(tmp_path / "a", other)


def test_a_changed_byte_anywhere_is_one_sentence(library, tmp_path):
    folder = ServingIndex.build(table(num=5, dim=2), library).save(tmp_path / "a")
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for place in range(0, len(data) - 1, max(1, len(data) // 150)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(ValueError, match="'folder' must be a whole folder of an index"):
                ServingIndex.load(folder)
        path.write_bytes(data)
    ServingIndex.load(folder)


def test_broken_folders_are_one_sentence(library, tmp_path):
    folder = ServingIndex.build(table(num=5, dim=2), library).save(tmp_path / "a")
    facts = json.loads((folder / "ids.json").read_text())
    harms = ["", "[" * 100_000, "[]", "{}", json.dumps(facts | {"library": "x"}), json.dumps(facts | {"ids": []})]
    for text in (*harms, json.dumps(facts | {"format": 2})):
        (folder / "ids.json").write_text(text)
        with pytest.raises(ValueError, match="'folder' must be a whole folder of an index"):
            ServingIndex.load(folder)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="No such file"):
        ServingIndex.load(folder)


def test_only_the_owner_reads_the_files(library, tmp_path):
    folder = ServingIndex.build(table(), library).save(tmp_path / "a")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_settings_that_no_library_has_are_refused(library):
    with pytest.raises(ValueError, match=r"'library' must be faiss or hnswlib \(got 'annoy'\)"):
        ServingIndex.build(table(), "annoy")
    with pytest.raises(ValueError, match=f"'settings' must be among .* for {library} .got trees"):
        ServingIndex.build(table(), library, trees=3)
    with pytest.raises(ValueError, match="'table' must hold at least one embedding"):
        ServingIndex.build(table(num=0), library)


def test_what_faiss_cannot_build_is_one_sentence():
    pytest.importorskip("faiss", reason=EXTRA)
    for factory in ("Nonsense", "IVF1000,Flat"):
        with pytest.raises(ValueError, match="'settings' must describe an index that faiss can build") as caught:
            ServingIndex.build(table(), "faiss", factory=factory)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_not_there_is_named(library, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ImportError, match=f"this needs {library}: python -m pip install 'graphunlearn.{library}.'"):
        ServingIndex.build(table(), library)
