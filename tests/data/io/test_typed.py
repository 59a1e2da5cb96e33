"""Parquet files and JSON lines."""

import json

import numpy as np
import pandas as pd
import pytest

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.files import read_clicks, read_frame

pytestmark = pytest.mark.filterwarnings("ignore:.*not used")


def written(tmp_path, frame):
    pytest.importorskip("pyarrow")
    path = tmp_path / "data.parquet"
    frame.to_parquet(path)
    return path


def lines(tmp_path, *objects, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in objects))
    return path


def test_json_lines(tmp_path):
    path = lines(
        tmp_path,
        {"user_id": 1, "item_id": "a", "stars": 4, "tags": ["x"]},
        {"user_id": "1", "item_id": 7, "stars": 5.5},
    )
    graph = InteractionGraph.from_file(path)
    assert (graph.user_ids, graph.item_ids, graph.rating.tolist()) == (["1"], ["a", "7"], [4.0, 5.5])
    clicks = lines(
        tmp_path, {"session": 1, "item": "a", "time": "1970-01-02"}, {"session": 1, "item": "b", "time": "1970-01-03"}
    )
    assert SessionGraph.from_file(clicks).time.tolist() == [86400, 172800]
    assert ForgetRequest.from_file(lines(tmp_path, {"user": 5, "why": "asked"}), "user").index == ("5",)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{", "line 2: must be one JSON object"),
        ("[1]", r"line 2: must be one JSON object \(got a value of type list\)"),
        ('{"user": 1, "item": [2]}', r"line 2: 'item' must be text or a number \(got list\)"),
        ('{"user": 1}', r"line 2: 'item' must be text or a number \(got none\)"),
        ('{"user": 1, "item": null}', r"line 2: 'item' must be text or a number \(got null\)"),
        ('{"user": 1, "item": true}', r"line 2: item ids must be text or whole numbers from 0 \(got True\)"),
        ('{"user": 1, "item": 9007199254740992.0}', r"line 2: item ids must be below 2\*\*53 where they are floats"),
        ('{"user": 1, "user": 2, "item": 3}', "line 2: .* a name occurs twice"),
        ('{"user": 1, "item": NaN}', "line 2: .* NaN is no JSON"),
        ('{"user": 1, "item": "\\ud800"}', "line 2: item ids must be Unicode text .* half of a character"),
        ("[" * 100_000, "line 2: .* nested too deeply"),
    ],
)
def test_bad_json_lines(tmp_path, second, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_frame(lines(tmp_path, {"user": 1, "item": 2}, second))
    assert "\n" not in str(caught.value)


def test_parquet_keeps_large_ids(tmp_path):
    users = pd.array([2**64 - 1, 2**53 + 1, None], dtype="UInt64")
    frame = pd.DataFrame({"session": users, "item": np.array([1, 2, 3], dtype=np.uint64)})
    with pytest.raises(ValueError, match="row 3: the session is missing"):
        SessionGraph.from_file(written(tmp_path, frame))
    graph = SessionGraph.from_file(written(tmp_path, frame.iloc[:2]))
    assert graph.session_ids == ["18446744073709551615", "9007199254740993"]


@pytest.mark.parametrize("items", [[[1], [2]], [{"a": 1}, {"a": 2}], [b"x", b"y"]])
def test_nested_parquet(tmp_path, items):
    path = written(tmp_path, pd.DataFrame({"user": [1, 2], "item": items}))
    with pytest.raises(ValueError, match=r"data.parquet' must hold one number, text or date per row in 'item' \(got "):
        read_frame(path)
    other = written(tmp_path, pd.DataFrame({"user": [1, 2], "item": [3, 4], "genres": items}))
    assert read_frame(other)["item"].tolist() == ["3", "4"]


def test_parquet_with_many_equal_rows_is_large(tmp_path):
    path = written(tmp_path, pd.DataFrame({"user": np.ones(50_000, dtype=np.int64), "item": np.arange(50_000)}))
    with pytest.raises(ValueError, match="must hold at most 40,000 bytes when it is decompressed"):
        read_frame(path, max_size=40_000)


def test_float_ids_that_lost_digits(tmp_path):
    with pytest.raises(ValueError, match=r"row 2: user ids must be below 2\*\*53 where they are floats"):
        read_frame(written(tmp_path, pd.DataFrame({"user": [1.0, 2.0**53], "item": [1, 2]})))
    single = pd.DataFrame({"user": np.array([1, 2**24], dtype=np.float32), "item": [1, 2]})
    with pytest.raises(ValueError, match=r"'df', row 1: user ids must be below 2\*\*24 where they are floats"):
        InteractionGraph.from_frame(single)


@pytest.mark.parametrize("row", [{"user": True, "item": 2}, {"user": 1, "item": False}])
def test_true_and_false_are_no_ids(tmp_path, row):
    role = "user" if row["user"] is True else "item"
    with pytest.raises(ValueError, match=rf"line 2: {role} ids must be text or whole numbers from 0 \(got"):
        read_frame(lines(tmp_path, {"user": 1, "item": 0}, row))
    with pytest.raises(ValueError, match=rf"row 1: {role} ids must be text or whole numbers from 0 \(got"):
        InteractionGraph.from_frame(pd.DataFrame([{"user": 1, "item": 0}, row], dtype=object))


def test_true_and_false_are_labels_and_text(tmp_path):
    found = read_frame(lines(tmp_path, *({"user": 1, "item": at, "label": at == 1} for at in range(2))))
    assert found["label"].tolist() == [0, 1]
    path = tmp_path / "clicks.csv"
    path.write_text("session,item,user\na,1,True\na,2,\nb,3,False\n")
    assert read_clicks(path)["user"].tolist()[::2] == ["True", "False"]


def test_parquet_times_out_of_range_or_of_other_kinds(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "data.parquet"
    for kind, value, message in (
        (arrow.timestamp("ms"), 2**61, "row 1: the time must be within 292,000 years of 1970"),
        (arrow.date32(), 2**30, "row 1: the time must be within 292,000 years of 1970"),
        (arrow.duration("us"), 5, r"hold one number, text or date per row in 'time' \(got duration"),
        (arrow.time64("us"), 5, r"hold one number, text or date per row in 'time' \(got time64"),
    ):
        times = arrow.array([value, 1], kind)
        parquet.write_table(arrow.table({"user": [1, 2], "item": [3, 4], "time": times}), path)
        with pytest.raises(ValueError, match=message):
            read_frame(path)
    times = arrow.array([10**4, 1], arrow.date32())
    parquet.write_table(arrow.table({"user": [1, 2], "item": [3, 4], "time": times}), path)
    assert read_frame(path)["time"].tolist() == [864_000_000, 86_400]
