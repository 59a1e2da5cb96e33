"""Requests to forget clicks, sessions, items and users of sessions."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import session_graphs

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph


@pytest.fixture
def graph():
    return SessionGraph.from_sequences(
        [[0, 1, 2, 1], [2, 1], [1], [3, 0]],
        item_ids=["302", "377", "7", "x"],
        session_ids=["S1", "S2", "3", "4"],
        time=torch.arange(9),
        user=torch.tensor([0, 1, -1, 0]),
        user_ids=["ann", "bob"],
    )


@pytest.mark.parametrize(
    ("level", "index", "expected"),
    [
        ("click", [("S1", 2)], [2]),
        ("click", [("S1", "2"), (3, 0), ("S2", 1.0)], [2, 5, 6]),
        ("click", np.array([[3, 0], [4, 1]]), [6, 8]),
        ("click", [["S1", np.int64(3)]], [3]),
        ("session", ["S2", 3], [4, 5, 6]),
        ("session", 4, [7, 8]),
        ("item", [377], [1, 3, 5, 6]),
        ("item", ["7", "x"], [2, 4, 7]),
        ("user", ["ann"], [0, 1, 2, 3, 7, 8]),
        ("user", "bob", [4, 5]),
    ],
)
def test_mask(graph, level, index, expected):
    mask = ForgetRequest(level, index).mask(graph)
    assert mask.dtype == torch.bool
    assert mask.nonzero().flatten().tolist() == expected


def drawn(data, graph):
    """A request of one to three parts, and which clicks it names, by a loop."""
    rows = list(zip(graph.session.tolist(), graph.position.tolist(), graph.items.tolist()))
    clicks = [(graph.session_ids[s], p) for s, p, _ in rows]
    choices = {"click": clicks, "session": graph.session_ids, "item": graph.item_ids}
    if graph.user is not None:
        choices["user"] = graph.vocabulary("user").ids
    levels = data.draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=3, unique=True))
    parts = {level: data.draw(st.lists(st.sampled_from(choices[level]), min_size=1, max_size=3)) for level in levels}
    users = [None] * graph.num_sessions if graph.user is None else graph.user.tolist()
    names = [None if u is None or u < 0 else graph.vocabulary("user").ids[u] for u in users]
    named = [
        (graph.session_ids[s], p) in parts.get("click", [])
        or graph.session_ids[s] in parts.get("session", [])
        or graph.item_ids[i] in parts.get("item", [])
        or names[s] in parts.get("user", [])
        for s, p, i in rows
    ]
    request, *others = (ForgetRequest(level, index) for level, index in parts.items())
    for other in others:
        request = request | other
    return request, named


@given(session_graphs(min_sessions=1), st.data())
def test_mask_is_a_loop(graph, data):
    request, named = drawn(data, graph)
    if any(named) and not all(named):
        assert request.mask(graph).tolist() == named
        assert request.describe(graph)["clicks"] == sum(named)
    else:
        with pytest.raises(ValueError, match=r"'request' must (match a click|leave some clicks)"):
            request.mask(graph)


@given(session_graphs(min_sessions=2), st.data())
def test_split_is_a_loop(graph, data):
    request, named = drawn(data, graph)
    assume(any(named) and not all(named))
    before = graph.fingerprint()
    retain, forget = graph.split(request)
    session, items = graph.session.tolist(), graph.items.tolist()
    for part, wanted in ((retain, False), (forget, True)):
        rows = {}
        for click, name in enumerate(named):
            if name is wanted:
                rows.setdefault(session[click], []).append(click)
        # Sessions are what is left of them, in order: neighbours join, and the emptied ones are gone.
        expected = [[items[click] for click in clicks] for clicks in rows.values()]
        assert [row.tolist() for row in part.items.split(part.length.tolist())] == expected
        assert part.session_ids == [graph.session_ids[s] for s in rows]
        kept = [click for clicks in rows.values() for click in clicks]
        assert part.time is None if graph.time is None else torch.equal(part.time, graph.time[kept])
        assert part.user is None if graph.user is None else torch.equal(part.user, graph.user[list(rows)])
        assert part.validate()
        # Whatever is forgotten, items keep their numbers.
        assert (part.num_items, part.item_ids) == (graph.num_items, graph.item_ids)
        assert part.vocabulary("user") == graph.vocabulary("user")
    assert retain.num_clicks + forget.num_clicks == graph.num_clicks
    assert graph.fingerprint() == before


@given(session_graphs(min_sessions=2), st.data())
def test_forgetting_in_two_steps(graph, data):
    """Sessions, items and users forgotten one after the other leave what is left by both at once."""
    levels = ["session", "item"] + ["user"] * (graph.user is not None)
    requests = [
        ForgetRequest(level, [data.draw(st.sampled_from(graph.vocabulary(level).ids))])
        for level in data.draw(st.lists(st.sampled_from(levels), min_size=2, max_size=2))
    ]
    try:
        at_once, _ = graph.split(*requests)
        step, _ = graph.split(requests[0])
        then, _ = step.split(requests[1])
    except ValueError:  # nothing to forget in one of the steps, or nothing would be left
        assume(False)
    assert then.fingerprint() == at_once.fingerprint()


def test_what_remains_of_a_session(graph):
    retain, forget = graph.split(ForgetRequest("click", [("S1", 2), ("S2", 0), ("3", 0)]))
    assert [row.tolist() for row in retain.items.split(retain.length.tolist())] == [[0, 1, 1], [1], [3, 0]]
    assert retain.session_ids == ["S1", "S2", "4"]
    loop = retain.alias[1]
    assert [loop, loop] in retain.edge_index.t().tolist()  # two clicks on one item, now neighbours
    assert (forget.session_ids, forget.items.tolist()) == (["S1", "S2", "3"], [2, 2, 1])
    assert ForgetRequest("click", [("S1", 2)]).mask(retain).nonzero().flatten().tolist() == [
        2
    ]  # a later click moved up


def test_internal_ids(graph):
    clicks = ForgetRequest.internal("click", torch.tensor([[0, 2, 2], [3, 0, 0]]))
    assert clicks.mask(graph).nonzero().flatten().tolist() == [3, 6]
    assert clicks.num_duplicates == 1
    assert repr(clicks) == "ForgetRequest.internal('click', [(0, 3), (2, 0)])"
    assert ForgetRequest.internal("session", torch.tensor([3])).mask(graph).nonzero().flatten().tolist() == [7, 8]
    assert ForgetRequest.internal("user", torch.tensor([1])).mask(graph).nonzero().flatten().tolist() == [4, 5]
    every = ForgetRequest.internal("click", torch.stack([graph.session, graph.position])[:, 2:5])
    assert every.mask(graph).nonzero().flatten().tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("level", "index", "message"),
    [
        ("click", ["S1"], r"'index' must hold pairs of session and position at level 'click' \(got 'S1'\)"),
        ("click", [("S1", 1, 2)], r"'index' must hold pairs of session and position .* \(got \('S1', 1, 2\)\)"),
        ("click", [("S1", -1)], r"'index' must hold positions that are whole numbers from 0 \(got -1\)"),
        ("click", [("S1", 1.5)], r"must hold positions that are whole numbers from 0 \(got 1.5\)"),
        ("click", [("S1", "second")], r"must hold positions that are whole numbers from 0 \(got 'second'\)"),
        ("click", [], r"'index' must name at least one click to forget \(got none\)"),
        ("session", [], r"'index' must name at least one session to forget \(got none\)"),
        ("clicks", [("S1", 1)], r"'level' must be one of .* \(got 'clicks'; did you mean 'click'\?\)"),
    ],
)
def test_bad_requests(level, index, message):
    with pytest.raises(ValueError, match=message):
        ForgetRequest(level, index)


@pytest.mark.parametrize(
    ("level", "index", "message"),
    [
        (
            "click",
            [("S9", 0)],
            r"'index' must hold sessions of the graph \(got 'S9'; the graph has 4 sessions, such as",
        ),
        (
            "click",
            [("S1", 4)],
            r"clicks of the graph \(got \('S1', 4\), while session 'S1' has 4 clicks, at positions 0 to 3",
        ),
        ("click", [("S2", 0), ("3", 1)], r"\(got \('3', 1\), while session '3' has one click, at position 0\)"),
        ("session", ["S2", "S9", "S8"], r"'index' must hold sessions of the graph \(got 'S9', 'S8'; the graph has 4"),
        ("item", ["8"], r"'index' must hold items of the graph \(got '8'; the graph has 4 items, such as '302', '377'"),
        (
            "user",
            ["eve"],
            r"'index' must hold users of the graph \(got 'eve'; the graph has 2 users, such as 'ann', 'bob'",
        ),
        (
            "interaction",
            [("ann", "7")],
            r"'level' must be 'click', 'session', 'item' or 'user' for a graph of sessions \(got",
        ),
        ("session", ["S1", "S2", "3", "4"], r"'request' must leave some clicks \(got all 9 of them\)"),
    ],
)
def test_requests_that_do_not_fit_the_graph(graph, level, index, message):
    for attempt in (ForgetRequest(level, index).mask, lambda g: g.split(ForgetRequest(level, index))):
        with pytest.raises(ValueError, match=message):
            attempt(graph)


def test_a_request_that_matches_nothing(graph):
    part = graph.select(torch.tensor([0, 1]))
    with pytest.raises(
        ValueError, match=r"'request' must match a click of the graph \(got ForgetRequest\('item', \['x'\]"
    ):
        ForgetRequest("item", ["x"]).mask(part)
    with pytest.raises(ValueError, match=r"'requests' must hold at least one request \(got none\)"):
        graph.split()


def test_users_where_there_are_none():
    graph = SessionGraph.from_sequences([[0, 1], [1]])
    with pytest.raises(
        ValueError, match=r"must be 'click', 'session' or 'item' where sessions carry no user \(got 'user'"
    ):
        ForgetRequest("user", ["ann"]).mask(graph)


@pytest.mark.parametrize("request_", [ForgetRequest("click", [("0", 0)]), ForgetRequest("session", ["0"])])
def test_requests_of_the_other_kind_of_graph(request_):
    graph = InteractionGraph.from_edges([[0, 1], [0, 1]])
    with pytest.raises(
        ValueError, match=r"'level' must be 'interaction', 'user' or 'item' for a graph of users and items \(got '"
    ):
        graph.split(request_)


def test_describe_and_fingerprint(graph):
    mixed = ForgetRequest("click", [("S1", 0), ("S1", 1)]) | ForgetRequest("session", ["S1"])
    summary = mixed.describe(graph)
    assert summary == {
        "level": "mixed",
        "size": 3,
        "clicks": 4,
        "parts": [{"level": "click", "size": 2}, {"level": "session", "size": 1}],
    }
    assert json.loads(json.dumps(summary)) == summary
    assert (
        mixed.fingerprint()
        == (ForgetRequest("session", ["S1"]) | ForgetRequest("click", [("S1", 1), ("S1", "0")])).fingerprint()
    )
    assert mixed.fingerprint() != ForgetRequest("session", ["S1"]).fingerprint()


# From files


@pytest.mark.parametrize(
    ("text", "level", "expected"),
    [
        ("session,position\nS1,2\nS2,3\n", "click", (("S1", 2), ("S2", 3))),
        ("S1,2\nS2,3\n", "click", (("S1", 2), ("S2", 3))),
        ("position\tSessionId\n2\tS1\n", "click", (("S1", 2),)),
        ("session_id;item_id;position\n11;5;0\n11;5;1\n", "click", (("11", 0), ("11", 1))),
        ("session_id;item_id;position\n11;5;0\n12;5;1\n", "session", ("11", "12")),
        ("session_id;item_id;position\n11;5;0\n12;6;1\n", "item", ("5", "6")),
        ("session\nS1\nS2\n", "session", ("S1", "S2")),
        ("S1\nS2\n", "session", ("S1", "S2")),
        ("11\n12.0\n", "session", ("11", "12.0")),
    ],
)
def test_from_file(tmp_path, text, level, expected):
    path = tmp_path / "forget.csv"
    path.write_text(text)
    assert ForgetRequest.from_file(path, level) == ForgetRequest(level, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S1\nS2\n", r"forget.csv' must hold a session and a position per line \(got one column\)"),
        (
            "session,position\nS1,1\nS2,-1\n",
            r"forget.csv', line 3: the position must be a whole number from 0 \(got '-1'",
        ),
        ("session,position\nS1,1.5\n", r"line 2: the position must be a whole number from 0 \(got '1.5'\)"),
        ("session,position\nS1,first\n", r"line 2: the position must be a whole number from 0 \(got 'first'\)"),
        ("session,position\nS1\n", r"line 2: must have 2 fields like line 1 \(got 1\)"),
        ("session,position\n,1\n", r"line 2: the session is missing"),
        (
            "session,item\nS1,3\n",
            r"must have a column of positions \(got columns 'session', 'item'\); name it with pos",
        ),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "forget.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ForgetRequest.from_file(path, "click")


def test_from_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "forget.parquet"
    pd.DataFrame({"session": ["a", "b"], "position": [0, 3]}).to_parquet(path)
    assert ForgetRequest.from_file(path, "click").index == (("a", 0), ("b", 3))
