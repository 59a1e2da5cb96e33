"""Public data sets in the files they come in (only where there is a folder of them)."""

import warnings

import pandas as pd
import pytest
import torch

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.files import read_frame
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


SESSIONS = {
    "yoochoose-100k/yoochoose-clicks-100k_train_full.txt": (70_278, 17_794, 2_933),
    "yoochoose-100k/yoochoose-clicks-100k_test.txt": (13_568, 3_416, 1_771),
    "diginetica/train.tsv.gz": (906_140, 186_670, 43_097),
    "diginetica/test.tsv.gz": (76_821, 15_963, 21_131),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_sessions(data_root, name):
    path = existing(data_root, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        graph = SessionGraph.from_file(path)
    assert (graph.num_clicks, graph.num_sessions, graph.num_items) == SESSIONS[name]
    table = pd.read_csv(path, sep="\t")
    session, item = table.columns[:2]
    assert [int(graph.item_ids[i]) for i in graph.items.tolist()] == table[item].tolist()
    assert [int(graph.session_ids[s]) for s in graph.session.tolist()] == table[session].tolist()
    if "Time" in table:
        assert graph.time.tolist() == table["Time"].tolist()
    else:
        assert graph.time is None
        assert graph.position.tolist() == table["position"].tolist()
    assert graph.num_nodes == len(table.drop_duplicates([session, item]))
    follows = table[session].iloc[1:].to_numpy() == table[session].iloc[:-1].to_numpy()
    assert graph.prefixes().num_sessions == follows.sum()
    repeats = (follows & (table[item].iloc[1:].to_numpy() == table[item].iloc[:-1].to_numpy())).sum()
    assert graph.collapse().num_clicks == len(table) - repeats


def test_test_sessions_like_those_of_training(data_root):
    train = SessionGraph.from_file(existing(data_root, "yoochoose-100k/yoochoose-clicks-100k_train_full.txt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        test = SessionGraph.from_file(
            existing(data_root, "yoochoose-100k/yoochoose-clicks-100k_test.txt"), like=train, collapse_repeats=True
        )
    assert (test.num_left_out, test.num_items, test.num_sessions) == (0, 2_933, 3_416)
    fit, validation = train.time_split([0.9, 0.1])
    assert float(fit.time.max()) <= float(validation.time.max())
    left = validation.without_unseen(fit)
    assert left.num_left_out == int((~torch.isin(validation.items, fit.items)).sum())


def test_the_raw_log(data_root):
    path = existing(data_root, "diginetica/sample_train-item-views.csv")
    with pytest.warns(UserWarning) as caught:
        graph = SessionGraph.from_file(path)
    said = [str(warning.message).removeprefix(f"'{path}'") for warning in caught]
    assert said == [
        " has no newline at its end: the last line may be cut off",
        ": the clicks were not in order, and were sorted by session and position",
        ": 2 sessions have clicks of several users; their user counts as unknown",
    ]
    assert (graph.num_clicks, graph.num_sessions, graph.num_items) == (12_391, 2_986, 7_139)
    table = pd.read_csv(path, sep=";").sort_values(["session_id", "timeframe"], kind="stable")
    rows = {str(name): row["item_id"].astype(str).tolist() for name, row in table.groupby("session_id")}
    parts = graph.items.split(graph.length.tolist())
    assert {n: [graph.item_ids[i] for i in p.tolist()] for n, p in zip(graph.session_ids, parts)} == rows
    user = str(int(table["user_id"].dropna().iloc[0]))
    assert int(ForgetRequest("user", [user]).mask(graph).sum()) == int((table["user_id"] == int(user)).sum())
