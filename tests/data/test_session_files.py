"""Sessions from tables and files, and back."""

import gzip
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from strategies import session_graphs

from graphunlearn.data import InteractionGraph, SessionGraph, read_frame


@pytest.fixture
def write(tmp_path):
    def writer(content, name="clicks.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer


def named(graph):
    """Raw ids of the sessions' clicks."""
    rows = graph.items.split(graph.length.tolist())
    return {name: [graph.item_ids[i] for i in row.tolist()] for name, row in zip(graph.session_ids, rows)}


LAYOUTS = [
    ("SessionId\tItemId\tTime\n7\ta\t1.5\n7\tb\t2\n9\ta\t1\n", "a.txt"),
    ("session_id,item_id,timestamp\n7,a,1.5\n7,b,2\n9,a,1\n", "a.csv"),
    ("session_id:token\titem_id:token\ttimestamp:float\n7\ta\t1.5\n7\tb\t2\n9\ta\t1\n", "a.inter"),
    ("time;item;extra;sessionId\n1.5;a;x;7\n2;b;x;7\n1;a;x;9\n", "a.csv"),
    ("7 a 1.5\n7 b 2\n9 a 1\n", "a.data"),
    ("7,a,1.5\r\n7,b,2\r\n\r\n9,a,1\r\n", "A.CSV"),
    ("7::a::1.5\n7::b::2\n9::a::1\n", "a.dat"),
    ('"session","item","time"\n"7","a",1.5\n"7","b",2\n"9","a",1\n', "a.csv"),
]


@pytest.mark.parametrize(("text", "name"), LAYOUTS)
def test_one_log_in_many_layouts(write, text, name):
    for path in (write(text, name), write(gzip.compress(text.encode()), name + ".gz")):
        graph = SessionGraph.from_file(path)
        assert named(graph) == {"7": ["a", "b"], "9": ["a"]}
        assert graph.time.tolist() == [1.5, 2, 1]
        assert graph.user is None


def test_named_columns(write):
    path = write("visit,product,when,step,who\n1,a,5,0,x\n1,b,6,1,x\n")
    graph = SessionGraph.from_file(path, session="who", item="visit", time="when", position=3)
    assert named(graph) == {"x": ["1", "1"]}
    assert graph.time.tolist() == [5, 6]
    with pytest.raises(ValueError, match=r"'session' must name a column of '.*' \(got 'visits'; did you mean 'visit'"):
        SessionGraph.from_file(path, session="visits")


def test_repeated_rows_are_clicks(write):
    graph = SessionGraph.from_file(write("session,item\n1,a\n1,a\n1,b\n1,a\n"))
    assert named(graph) == {"1": ["a", "a", "b", "a"]}
    assert graph.num_nodes == 2
    short = SessionGraph.from_file(
        write("session,item,time\n1,a,1\n1,a,2\n1,b,3\n1,a,4\n2,a,5\n"), collapse_repeats=True
    )
    assert named(short) == {"1": ["a", "b", "a"], "2": ["a"]}
    assert short.time.tolist() == [1, 3, 4, 5]
    assert short.position.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("text", "by", "expected"),
    [
        ("session,item,time\n2,a,5\n1,b,9\n1,c,8\n2,d,4\n", "session and time", {"2": ["d", "a"], "1": ["c", "b"]}),
        ("session,item\n2,a\n1,b\n2,c\n", "session", {"2": ["a", "c"], "1": ["b"]}),
        ("session,item,position\n1,b,1\n1,a,0\n", "session and position", {"1": ["a", "b"]}),
        ("session,item,position,time\n1,b,1,3\n1,a,0,7\n", "session and position", {"1": ["a", "b"]}),
        (
            "session_id;item_id;timeframe;eventdate\n1;b;900;2016-05-09\n1;a;80;2016-05-09\n",
            "session and position",
            {"1": ["a", "b"]},
        ),
    ],
)
def test_unsorted_input_is_sorted_and_said_once(write, text, by, expected):
    path = write(text)
    with pytest.warns(
        UserWarning, match=rf"^'{re.escape(str(path))}': .* not in order, and were sorted by {by}$"
    ) as caught:
        graph = SessionGraph.from_file(path)
    assert named(graph) == expected
    assert list(named(graph)) == list(expected)
    assert [warning.filename for warning in caught] == [__file__]


def test_clicks_of_one_time_stay_in_the_order_of_the_file(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = SessionGraph.from_file(write("session,item,time\n2,b,5\n2,a,5\n2,c,5\n1,a,4\n"))
    assert named(graph) == {"2": ["b", "a", "c"], "1": ["a"]}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=25))
@pytest.mark.filterwarnings("ignore:.*not in order")
def test_sorting_is_that_of_a_stable_sort(clicks):
    frame = pd.DataFrame(clicks, columns=["session", "item", "time"])
    graph = SessionGraph.from_frame(frame)
    expected = {}
    for session, item, time in clicks:
        expected.setdefault(str(session), []).append((time, str(item)))
    expected = {name: [item for _, item in sorted(row, key=lambda click: click[0])] for name, row in expected.items()}
    assert named(graph) == expected
    assert list(named(graph)) == list(expected)


def test_dates(write):
    graph = SessionGraph.from_file(write("session,item,eventdate\n1,a,1970-01-01\n1,b,1970-01-02\n"))
    assert graph.time.tolist() == [0, 86400]
    assert graph.time.dtype == torch.int64


def test_time_into_the_session_orders_and_the_date_is_the_time(write):
    header = "session_id;user_id;item_id;timeframe;eventdate\n"
    rows = "1;NA;a;10;1970-01-03\n1;NA;b;20;1970-01-03\n2;5;a;10;1970-01-02\n"
    graph = SessionGraph.from_file(write(header + rows))
    assert graph.time.tolist() == [2 * 86400, 2 * 86400, 86400]
    assert [part.session_ids for part in graph.time_split([0.5, 0.5])] == [["2"], ["1"]]


# Users


def test_users_may_be_missing(write):
    graph = SessionGraph.from_file(write("session,user,item\n1,NA,a\n1,ann,b\n2,,a\n3,bob,a\n"))
    assert graph.user.tolist() == [0, -1, 1]
    assert graph.vocabulary("user").ids == ["ann", "bob"]
    assert SessionGraph.from_file(write("session,user,item\n1,NA,a\n1,,b\n")).user is None
    frame = pd.DataFrame({"session": [1, 2], "user": ["NA", 7], "item": [1, 1]})
    assert SessionGraph.from_frame(frame).user.tolist() == [-1, 0]


def test_sessions_of_several_users(write):
    path = write("session,user,item\n1,ann,a\n1,bob,b\n1,ann,a\n2,ann,a\n")
    with pytest.warns(UserWarning, match=r"1 sessions have clicks of several users; their user counts as unknown"):
        graph = SessionGraph.from_file(path)
    assert graph.user.tolist() == [-1, 0]


def test_bad_users(write):
    with pytest.raises(
        ValueError, match=r"line 4: user ids must be whole and not negative in a column of numbers \(got -5\)"
    ):
        SessionGraph.from_file(write("session,user,item\n1,3,a\n1,NA,a\n2,-5,a\n"))


# Like another graph


def test_like(write):
    train = SessionGraph.from_sequences([[0, 1, 2]], item_ids=["a", "b", "c"])
    path = write("session,item,user,time\n1,b,x,1\n1,zz,x,2\n1,b,x,3\n2,zz,y,1\n3,a,z,1\n")
    with pytest.warns(UserWarning, match="2 of 5 clicks were left out: 'like' does not contain their items") as caught:
        test = SessionGraph.from_file(path, like=train)
    assert len(caught) == 1
    assert named(test) == {"1": ["b", "b"], "3": ["a"]}
    assert test.item_ids == train.item_ids
    assert test.items.tolist() == [1, 1, 0]
    assert test.num_left_out == 2
    assert test.time.tolist() == [1, 3, 1]
    assert [test.vocabulary("user").ids[u] for u in test.user.tolist()] == ["x", "z"]
    with pytest.warns(UserWarning, match="left out"):  # what is unknown goes first: its neighbours join, and repeat
        short = SessionGraph.from_file(path, like=train, collapse_repeats=True)
    assert named(short) == {"1": ["b"], "3": ["a"]}
    assert short.num_left_out == 2


def test_like_that_knows_nothing(write):
    train = SessionGraph.from_sequences([[0]], item_ids=["a"])
    with pytest.raises(ValueError, match=r"'like' must know some of the items \(got 2 clicks, all on unknown ones\)"):
        SessionGraph.from_file(write("session,item\n1,b\n2,c\n"), like=train)


@given(session_graphs(min_sessions=1))
def test_what_like_knows_comes_back(graph):
    again = SessionGraph.from_frame(graph.to_frame(), like=graph)
    assert torch.equal(again.items, graph.items)
    assert torch.equal(again.length, graph.length)
    assert again.num_left_out == 0


# What is wrong, and where


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("session,item,time\n1,a,2\n1,b,soon\n", r"line 3: the time must be a finite number or a date \(got 'soon'\)"),
        ("session,item,time\n1,a,2020-01-01\n1,b,soon\n", r"line 3: the time must be .* or a date \(got 'soon'\)"),
        ("session,item,time\n1,a,2020-01-01\n\n1,b,3\n", r"line 4: the time must be .* or a date \(got '3'\)"),
        ("session,item,time\n1,a,\n1,b,3\n", r"line 2: the time must be a finite number or a date \(got 'nan'\)"),
        ("session,item,eventdate\n1,a,2016-13-45\n", r"line 2: the time must be .* or a date \(got '2016-13-45'\)"),
        ("session,item,position\n1,a,0\n1,b,x\n", r"line 3: the position must be a finite number \(got 'x'\)"),
        ("session,item\n1,a\n,b\n", r"line 3: the session is missing"),
        ("session,item\n1,a\n2,NA\n", r"line 3: the item is missing"),
        (
            "session,item\n-1,a\n",
            r"line 2: session ids must be whole and not negative in a column of numbers \(got -1\)",
        ),
        ("session,item,time\n1,a,1\n1,b\n", r"line 3: must have 3 fields like line 1 \(got 2\)"),
        ("session,item\n", r"must hold at least one row \(got only a header\)"),
        ("", r"must hold at least one row \(got an empty file\)"),
        (
            "user,item\n1,a\n",
            r"must have a column of sessions \(got columns 'user', 'item'\); name it with session=\.\.\.",
        ),
        (
            "session,what\n1,a\n",
            r"must have a column of items \(got columns 'session', 'what'\); name it with item=\.\.\.",
        ),
        ("1\n2\n", r"must have a column of items \(got 1 columns"),
    ],
)
def test_bad_files_name_the_line(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=f"^'{re.escape(str(path))}'.*" + message) as caught:
        SessionGraph.from_file(path)
    assert "\n" not in str(caught.value)


def test_bad_tables():
    with pytest.raises(ValueError, match=r"'frame' must hold at least one row \(got none\)"):
        SessionGraph.from_frame(pd.DataFrame({"session": [], "item": []}))
    with pytest.raises(ValueError, match=r"'frame' must have a column of sessions \(got columns 'item'"):
        SessionGraph.from_frame(pd.DataFrame({"item": [1]}))
    with pytest.raises(ValueError, match=r"'frame', row 1: the time must be a finite number or a date \(got 'NaT'\)"):
        times = pd.to_datetime(["2020-01-01", None])
        SessionGraph.from_frame(pd.DataFrame({"session": [1, 1], "item": [1, 2], "time": times}))
    with pytest.raises(FileNotFoundError, match=r"'path' must be an existing file \(got 'none.csv'\)"):
        SessionGraph.from_file("none.csv")


# Back


@given(session_graphs(min_sessions=1))
def test_frames_hold_everything(graph):
    frame = graph.to_frame()
    assert len(frame) == graph.num_clicks
    assert frame["session"].tolist() == [graph.session_ids[s] for s in graph.session.tolist()]
    assert frame["item"].tolist() == [graph.item_ids[i] for i in graph.items.tolist()]
    assert frame["position"].tolist() == graph.position.tolist()
    assert ("time" in frame) == (graph.time is not None)
    again = SessionGraph.from_frame(frame.sample(frac=1, random_state=0).sort_index(), session="session", item="item")
    assert named(again) == named(graph)
    if graph.time is not None:
        assert torch.equal(again.time, graph.time)
    if graph.user is not None and "user" in frame and frame["user"].notna().any():
        names = [graph.vocabulary("user").ids[u] if u >= 0 else None for u in graph.user.tolist()]
        assert [again.vocabulary("user").ids[u] if u >= 0 else None for u in again.user.tolist()] == names


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 10**10)), min_size=1, max_size=20))
@pytest.mark.filterwarnings("ignore:.*not in order")
def test_files_and_frames_are_read_alike(tmp_path_factory, clicks):
    frame = pd.DataFrame(clicks, columns=["session", "item", "time"])
    expected = SessionGraph.from_frame(frame).fingerprint()
    folder = tmp_path_factory.mktemp("clicks")
    for name, separator in (("a.csv", ","), ("a.tsv", "\t"), ("a.txt", ";"), ("a.csv.gz", ",")):
        frame.to_csv(folder / name, sep=separator, index=False)
        assert SessionGraph.from_file(folder / name).fingerprint() == expected


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "clicks.parquet"
    frame = pd.DataFrame({"SessionId": [1, 1, 2], "ItemId": ["a", "b", "a"], "Time": [1.5, 2.5, 0.5]})
    frame["user"] = ["ann", None, None]
    frame.to_parquet(path)
    graph = SessionGraph.from_file(path)
    assert graph.fingerprint() == SessionGraph.from_frame(frame).fingerprint()
    assert graph.user.tolist() == [0, -1]
    frame.assign(Time=["1", "2", "soon"]).to_parquet(path)
    with pytest.raises(ValueError, match=r"clicks.parquet', row 3: the time must be .* \(got 'soon'\)"):
        SessionGraph.from_file(path)


@given(session_graphs())
def test_saved_and_loaded(tmp_path_factory, graph):
    again = SessionGraph.load(graph.save(tmp_path_factory.mktemp("graphs") / "graph.safetensors"))
    assert again.fingerprint() == graph.fingerprint()
    for name in ("x", "edge_index", "alias", "batch", "length", "time", "user"):
        before, after = getattr(graph, name), getattr(again, name)
        assert (before is None and after is None) or (torch.equal(before, after) and before.dtype == after.dtype)
    for kind in ("item", "session", "user"):
        assert again.vocabulary(kind).ids == graph.vocabulary(kind).ids
        assert again.vocabulary(kind).is_range == graph.vocabulary(kind).is_range


def test_other_values_are_saved_and_prefixes_too(tmp_path):
    graph = SessionGraph.from_sequences([[0, 1, 2], [1, 9]]).time_split([0.5, 0.5])[1]
    graph = graph.without_unseen(SessionGraph.from_sequences([[0, 1]], num_items=10))
    graph.note = {"from": "a test"}
    graph.weight = torch.ones(2)
    again = SessionGraph.load(graph.save(tmp_path / "graph.safetensors"))
    assert again.num_left_out == 1
    assert again.note == graph.note
    assert torch.equal(again.weight, graph.weight)
    part = SessionGraph.from_sequences([[0, 1, 2]]).prefixes()
    assert torch.equal(SessionGraph.load(part.save(tmp_path / "part.safetensors")).target, part.target)
    with safe_open(tmp_path / "part.safetensors", framework="pt") as file:
        assert "edge_index" in file.keys()  # noqa: SIM118
    graph.note = {1, 2}
    with pytest.raises(ValueError, match="a graph must hold tensors and plain values to be saved"):
        graph.save(tmp_path / "graph.safetensors")


def test_truncated_changed_and_foreign_files(tmp_path):
    path = tmp_path / "graph.safetensors"
    graph = SessionGraph.from_sequences([[4, 5], [5, 6]], time=torch.tensor([11.0, 12.0, 13.0, 14.0]))
    whole = graph.save(path).read_bytes()
    at = whole.index(np.float32([11, 12, 13, 14]).tobytes())
    edges = whole.index(np.int64([[0, 2], [1, 3]]).tobytes())
    changed = whole[:at] + np.float32([9]).tobytes() + whole[at + 4 :]
    crossed = whole[:edges] + np.int64([2]).tobytes() + whole[edges + 8 :]
    for content in (whole[:-5], whole[:20], b"", b"not safetensors at all", changed, crossed, whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"graph.safetensors' must be a whole file written by 'SessionGraph.save' \("
        ):
            SessionGraph.load(path)
    path.write_bytes(whole)
    with pytest.raises(
        ValueError, match=r"written by 'InteractionGraph.save' \(got a broken one: its format is 'graphunlearn.Session"
    ):
        InteractionGraph.load(path)
    pairs = InteractionGraph.from_edges([[0], [0]]).save(path)
    with pytest.raises(
        ValueError, match=r"written by 'SessionGraph.save' \(got a broken one: its format is 'graphunlearn.Interac"
    ):
        SessionGraph.load(pairs)
    with pytest.raises(FileNotFoundError, match="'path' must be an existing file"):
        SessionGraph.load(tmp_path / "none")


def test_a_column_of_an_unknown_role_is_an_error(write):
    with pytest.raises(
        TypeError, match=re.escape("there are columns session, item, time, position, user (got rating)")
    ):
        SessionGraph.from_file(write("session,item\n1,a\n"), rating="item")
    with pytest.raises(TypeError, match="got users"):
        read_frame(write("user,item\n1,a\n"), users="user")
