"""Saving and loading graphs."""

import json
import pickletools

import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given
from safetensors import safe_open
from safetensors.torch import save_file
from strategies import graphs

from graphunlearn.data import EDGE_TYPE, InteractionGraph


@given(graphs())
def test_round_trip(tmp_path_factory, graph):
    path = graph.save(tmp_path_factory.mktemp("graphs") / "graph.safetensors")
    again = InteractionGraph.load(path)
    assert again.fingerprint() == graph.fingerprint()
    assert torch.equal(again.pairs, graph.pairs)
    assert (again.user_ids, again.item_ids) == (graph.user_ids, graph.item_ids)
    for name in ("rating", "time", "label"):
        before, after = getattr(graph, name), getattr(again, name)
        assert (before is None and after is None) or (torch.equal(before, after) and before.dtype == after.dtype)


@pytest.fixture
def graph():
    graph = InteractionGraph.from_edges([[0, 1, 1], [0, 0, 1]], rating=[1, 2, 3], user_ids=['a\n"b"', "é"], num_items=5)
    graph["user"].x = torch.randn(2, 3).t().contiguous().t()
    graph["user"].kind = "reader"
    graph.note = {"from": ["here", 1, None]}
    return graph


def test_everything_comes_back(tmp_path, graph):
    again = InteractionGraph.load(T.ToUndirected()(graph).save(tmp_path / "graph.safetensors"))
    assert torch.equal(again["user"].x, graph["user"].x)
    assert again["user"].kind == "reader"
    assert again.note == {"from": ["here", 1, None]}
    assert ("item", "rev_interacts", "user") in again.edge_types
    assert again.user_ids == ['a\n"b"', "é"]
    assert again.vocabulary("item").is_range
    assert again.validate()
    assert [path.name for path in tmp_path.iterdir()] == ["graph.safetensors"]


def test_the_file_is_plain_safetensors(tmp_path, graph):
    path = graph.save(tmp_path / "graph.safetensors")
    with safe_open(path, framework="pt") as file:
        assert "user/interacts/item/edge_index" in file.keys()  # noqa: SIM118
        assert torch.equal(file.get_tensor("user/interacts/item/rating"), graph.rating)
        assert json.loads(file.metadata()["stores"])[1]["values"]["num_nodes"] == 2
    with pytest.raises(ValueError, match="opcode"):
        list(pickletools.genops(path.read_bytes()))


def test_values_that_cannot_be_saved(tmp_path, graph):
    path = graph.save(tmp_path / "graph.safetensors")
    before = path.read_bytes()
    graph.note = {1, 2}
    with pytest.raises(ValueError, match=r"a graph must hold tensors and plain values to be saved \(got: .*set"):
        graph.save(path)
    assert path.read_bytes() == before


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="'path' must be an existing file"):
        InteractionGraph.load(tmp_path / "none")


def test_truncated_changed_and_foreign_files(tmp_path, graph):
    path = graph.save(tmp_path / "graph.safetensors")
    whole = path.read_bytes()
    other = bytearray(whole)
    other[whole.rindex(b"\x03") if b"\x03" in whole else -1] ^= 0x01
    position = whole.index(torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes())
    changed = whole[:position] + torch.tensor([9.0]).numpy().tobytes() + whole[position + 4 :]
    for content in (whole[:-5], whole[:20], b"", b"not safetensors at all", changed, whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"graph.safetensors' must be a whole file written by 'InteractionGraph.save'"
        ):
            InteractionGraph.load(path)
    path.write_bytes(whole)
    assert InteractionGraph.load(path).fingerprint() == graph.fingerprint()


def test_a_file_of_other_tensors(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"must be a whole file written by .* \(got a broken one: its format is None\)"
    ):
        InteractionGraph.load(tmp_path / "model.safetensors")


def test_loaded_graphs_can_be_used(tmp_path, graph):
    again = InteractionGraph.load(graph.save(tmp_path / "graph.safetensors"))
    again[EDGE_TYPE].edge_index[1, 0] = 4
    assert again.adjacency.degree.tolist() == [1, 2, 1, 1, 0, 0, 1]


def test_files_of_earlier_versions(tmp_path, graph):
    """They had no sizes of vocabularies in their header: those were the numbers of nodes."""
    path = graph.save(tmp_path / "graph.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata() | {"sha256": ""}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stores = json.loads(metadata["stores"])
    for store in stores:
        store.pop("vocabularies")
    save_file(tensors, path, {**metadata, "stores": json.dumps(stores)})
    again = InteractionGraph.load(path)
    assert again.fingerprint() == graph.fingerprint()
    assert again.vocabulary("item").is_range
    assert again.user_ids == graph.user_ids
