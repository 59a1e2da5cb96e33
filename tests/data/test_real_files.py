"""Public data sets in the files they come in (only where there is a folder of them)."""

import warnings

import pandas as pd
import pytest
import torch

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.io import read_frame
from graphunlearn.func import Adjacency

FILES = {
    "ml-100k/ml-100k.inter": (100_000, 943, 1_682, ["user", "item", "rating", "time"]),
    "lastfm/data1.txt": (42_135, 1_878, 4_476, ["user", "item", "rating"]),
    "lastfm/test1.txt": (10_533, 1_858, 3_285, ["user", "item", "rating"]),
    "gowalla/test.txt.gz": (217_242, 29_858, 38_546, ["user", "item"]),
    "ml-1m/test.csv": (202_336, 6_040, 3_362, ["user", "item", "rating"]),
    "cure4rec/ml-100k/ratings.csv": (99_287, 943, 1_349, ["user", "item", "rating", "time"]),
    "cure4rec/ml-100k/train.csv": (79_045, 943, 1_349, ["user", "item", "rating"]),
    "cure4rec/ml-100k/unlearn_set/core_data_5%.csv": (18_565, 47, 1_338, ["user", "item", "rating", "time"]),
}


def existing(root, name):
    path = root / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.mark.parametrize("name", FILES)
def test_counts(data_root, name):
    rows, users, items, columns = FILES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        frame = read_frame(existing(data_root, name))
    assert list(frame.columns) == columns
    assert (len(frame), frame["user"].nunique(), frame["item"].nunique()) == (rows, users, items)


@pytest.mark.parametrize("name", ["gowalla/train.txt.gz", "ml-1m/train.csv.gz"])
def test_a_million_rows(data_root, name):
    graph = InteractionGraph.from_file(existing(data_root, name))
    expected = {"gowalla/train.txt.gz": (810_128, 29_858, 40_981), "ml-1m/train.csv.gz": (797_275, 6_040, 3_416)}[name]
    assert (graph.num_interactions, graph.num_users, graph.num_items) == expected
    retain, forget = graph.split(ForgetRequest("user", [graph.user_ids[7]]))
    assert retain.num_interactions + forget.num_interactions == expected[0]
    again = Adjacency.from_pairs(retain.pairs, retain.num_users, retain.num_items)
    assert torch.equal(retain.adjacency.col, again.col)
    assert torch.equal(retain.adjacency.interaction, again.interaction)


def test_values_are_those_of_pandas(data_root):
    path = existing(data_root, "ml-100k/ml-100k.inter")
    graph = InteractionGraph.from_file(path)
    table = pd.read_csv(path, sep="\t", names=["user", "item", "rating", "time"], skiprows=1)
    assert graph.rating.tolist() == table["rating"].tolist()
    assert graph.time.tolist() == table["time"].tolist()
    assert [int(graph.user_ids[u]) for u in graph.pairs[0].tolist()] == table["user"].tolist()
    assert [int(graph.item_ids[i]) for i in graph.pairs[1].tolist()] == table["item"].tolist()
    assert int(ForgetRequest("user", [196]).mask(graph).sum()) == int((table["user"] == 196).sum())
    assert int(graph.binarize(3).label.sum()) == int((table["rating"] > 3).sum())


def test_a_request_file_and_its_training_file(data_root):
    train = InteractionGraph.from_file(existing(data_root, "cure4rec/ml-100k/train.csv"))
    path = existing(data_root, "cure4rec/ml-100k/unlearn_set/core_data_5%.csv")
    request = ForgetRequest.from_file(path, "user")
    assert request.describe(train) == {"level": "user", "size": 47, "interactions": 14_831}


def test_a_test_file_read_like_its_training_file(data_root):
    train = InteractionGraph.from_file(existing(data_root, "lastfm/data1.txt"))
    with pytest.warns(UserWarning, match="rows were left out"):
        test = InteractionGraph.from_file(existing(data_root, "lastfm/test1.txt"), like=train)
    assert test.num_left_out + test.num_interactions == 10_533
    assert test.num_nodes == train.num_nodes


def test_a_truncated_copy(data_root, tmp_path):
    whole = existing(data_root, "gowalla/test.txt.gz").read_bytes()
    path = tmp_path / "test.txt.gz"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        InteractionGraph.from_file(path)
