"""Requests to forget."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph


@pytest.fixture
def graph():
    return InteractionGraph.from_edges(
        torch.tensor([[0, 1, 1, 2, 2], [0, 0, 1, 2, 0]]),
        num_users=5,
        user_ids=["196", "186", "22", "ann", "bob"],
        item_ids=["302", "377", "7"],
    )


@pytest.mark.parametrize(
    ("level", "index", "expected"),
    [
        ("user", ["186"], [0, 1, 1, 0, 0]),
        ("user", [186, "196"], [1, 1, 1, 0, 0]),
        ("user", ["196", "ann"], [1, 0, 0, 0, 0]),
        ("item", ["302"], [1, 1, 0, 0, 1]),
        ("item", np.array([7, 377]), [0, 0, 1, 1, 0]),
        ("item", torch.tensor([7]), [0, 0, 0, 1, 0]),
        ("item", 7, [0, 0, 0, 1, 0]),
        ("user", "22", [0, 0, 0, 1, 1]),
        ("user", pd.Series([22.0]), [0, 0, 0, 1, 1]),
        ("interaction", [("186", "302"), (22, 7)], [0, 1, 0, 1, 0]),
        ("interaction", np.array([[186, 302]]), [0, 1, 0, 0, 0]),
    ],
)
def test_mask(graph, level, index, expected):
    request = ForgetRequest(level, index)
    assert request.mask(graph).tolist() == [bool(x) for x in expected]
    assert request.mask(graph).dtype == torch.bool


@given(graphs(min_interactions=2, values=False), st.data())
def test_mask_is_a_loop(graph, data):
    users = data.draw(st.lists(st.sampled_from(graph.user_ids), max_size=2))
    items = data.draw(st.lists(st.sampled_from(graph.item_ids), max_size=2))
    rows = list(zip(graph.pairs[0].tolist(), graph.pairs[1].tolist()))
    raw = [(graph.user_ids[u], graph.item_ids[i]) for u, i in rows]
    pairs = data.draw(st.lists(st.sampled_from(raw), max_size=2))
    given_parts = [
        (level, index) for level, index in zip(("user", "item", "interaction"), (users, items, pairs)) if index
    ]
    if not given_parts:
        return
    request = ForgetRequest(*given_parts[0])
    for part in given_parts[1:]:
        request = request | ForgetRequest(*part)
    expected = [u in users or i in items or (u, i) in pairs for u, i in raw]
    if any(expected) and not all(expected):
        assert request.mask(graph).tolist() == expected
        assert request.describe(graph)["interactions"] == sum(expected)
    else:
        with pytest.raises(ValueError, match="'request' must"):
            request.mask(graph)


def test_frozen_equal_hashable():
    request = ForgetRequest("user", [196, "196", 22])
    assert request == ForgetRequest("user", ["196", "22"])
    assert hash(request) == hash(ForgetRequest("user", ["196", "22"]))
    assert request != ForgetRequest("item", ["196", "22"])
    assert request != ForgetRequest.internal("user", torch.tensor([196, 22]))
    assert request.num_duplicates == 1
    assert len(request) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.level = "item"


def test_union_merges_by_level():
    users = ForgetRequest("user", ["1"]) | ForgetRequest("user", ["2", "1"])
    assert users == ForgetRequest("user", ["1", "2"])
    assert users.num_duplicates == 1
    mixed = users | ForgetRequest("item", ["1"]) | ForgetRequest("user", ["3"])
    assert mixed.level == "mixed"
    assert [(part.level, part.index) for part in mixed.parts] == [("user", ("1", "2", "3")), ("item", ("1",))]
    assert len(mixed) == 4
    assert users.parts == (users,)
    assert hash(mixed) == hash(users | ForgetRequest("item", ["1"]) | ForgetRequest("user", ["3"]))
    with pytest.raises(TypeError):
        users | ["1"]


def test_repr():
    assert repr(ForgetRequest("user", [1])) == "ForgetRequest('user', ['1'])"
    assert repr(ForgetRequest("user", range(9))) == "ForgetRequest('user', ['0', '1', '2', ... 6 more])"
    assert repr(ForgetRequest("item", [1]) | ForgetRequest("interaction", [(1, 2)])) == (
        "ForgetRequest('item', ['1']) | ForgetRequest('interaction', [('1', '2')])"
    )
    assert repr(ForgetRequest.internal("item", torch.tensor([4]))) == "ForgetRequest.internal('item', [4])"


def test_internal_ids(graph):
    assert ForgetRequest.internal("user", torch.tensor([1])).mask(graph).tolist() == [False, True, True, False, False]
    assert ForgetRequest.internal("item", torch.tensor([2])).mask(graph).tolist() == [False, False, False, True, False]
    pairs = ForgetRequest.internal("interaction", graph.pairs[:, [0, 4, 4]])
    assert pairs.mask(graph).tolist() == [True, False, False, False, True]
    assert pairs.num_duplicates == 1
    both = pairs | ForgetRequest("interaction", [("22", "7")])
    assert both.mask(graph).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("level", "index", "message"),
    [
        ("user", torch.tensor([0.5]), r"'index' must hold whole numbers \(got torch.float32\)"),
        ("user", torch.tensor([True]), r"'index' must hold whole numbers \(got torch.bool\)"),
        ("user", torch.tensor([[1]]), r"'index' must have shape \[n\] at level 'user' \(got \[1, 1\]\)"),
        ("interaction", torch.tensor([1]), r"'index' must have shape \[2, n\] at level 'interaction' \(got \[1\]\)"),
        ("interaction", torch.ones(3, 2).long(), r"'index' must have shape \[2, n\]"),
        ("item", torch.tensor([]).long(), "'index' must name at least one item to forget"),
    ],
)
def test_bad_internal(level, index, message):
    with pytest.raises(ValueError, match=message):
        ForgetRequest.internal(level, index)


@pytest.mark.parametrize(
    ("level", "index", "message"),
    [
        (
            "users",
            ["1"],
            r"one of 'interaction', 'user', 'item', 'click', 'session' \(got 'users'; did you mean 'user'\?\)",
        ),
        ("view", ["1"], r"'level' must be one of .* \(got 'view'\)"),
        ("mixed", ["1"], r"'level' must be one of .* \(got 'mixed'\)"),
        (3, ["1"], r"'level' must be one of .* \(got 3\)"),
        ("user", [], r"'index' must name at least one user to forget \(got none\)"),
        ("interaction", [], r"'index' must name at least one interaction to forget \(got none\)"),
        ("user", [-1], r"'index' must hold ids that are text or whole numbers from 0 \(got -1\)"),
        ("user", [1.5], r"'index' must hold ids that are text or whole numbers from 0 \(got 1.5\)"),
        ("user", [None], r"'index' must hold ids that are text or whole numbers from 0 \(got None\)"),
        ("interaction", ["12"], r"'index' must hold pairs of user and item at level 'interaction' \(got '12'\)"),
        ("interaction", [(1, 2, 3)], r"'index' must hold pairs of user and item .* \(got \(1, 2, 3\)\)"),
        ("interaction", [(1, "")], r"'index' must hold ids that are text .* \(got ''\)"),
    ],
)
def test_bad_requests(level, index, message):
    with pytest.raises(ValueError, match=message):
        ForgetRequest(level, index)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            ForgetRequest("user", ["x1", "196", "x2", "x3", "x4", "x5"]),
            r"'index' must hold users of the graph \(got 'x1', 'x2', 'x3' and 2 more; "
            r"the graph has 5 users, such as '196', '186', '22'\)",
        ),
        (
            ForgetRequest("item", ["196"]),
            r"items of the graph \(got '196'; the graph has 3 items, such as '302', '377', '7'",
        ),
        (ForgetRequest("interaction", [("196", "x")]), r"items of the graph \(got 'x'; the graph has 3 items"),
        (
            ForgetRequest("interaction", [("196", "7"), ("196", "302")]),
            r"'index' must hold interactions of the graph \(got \('196', '7'\), which is not among its 5 inter",
        ),
        (
            ForgetRequest("interaction", [("196", "7"), ("186", "7")]),
            r"\(got \('196', '7'\), \('186', '7'\), which are not among its 5 interactions\)",
        ),
        (
            ForgetRequest.internal("user", torch.tensor([5, -1])),
            r"internal user ids of the graph \(got 5, -1; the graph has 5",
        ),
        (
            ForgetRequest("user", ["ann", "bob"]),
            r"'request' must match an interaction of the graph \(got ForgetRequest\('user', \['ann', 'bob'\]\), which",
        ),
        (
            ForgetRequest("item", ["302", "377", "7"]),
            r"'request' must leave some interactions \(got all 5 of them\)",
        ),
    ],
)
def test_requests_that_do_not_fit_the_graph(graph, request_, message):
    with pytest.raises(ValueError, match=message):
        request_.mask(graph)
    with pytest.raises(ValueError, match=message):
        graph.split(request_)


def test_the_largest_pair_beyond_the_last(graph):
    """A pair sorted after every interaction of the graph is unknown, not out of range."""
    with pytest.raises(ValueError, match="not among its 5 interactions"):
        ForgetRequest("interaction", [("bob", "7")]).mask(graph)


def test_an_empty_graph():
    empty = InteractionGraph.from_edges([[], []], num_users=1, num_items=1)
    with pytest.raises(ValueError, match="not among its 0 interactions"):
        ForgetRequest("interaction", [(0, 0)]).mask(empty)
    with pytest.raises(ValueError, match="must match an interaction"):
        ForgetRequest("user", [0]).mask(empty)
    with pytest.raises(ValueError, match="the graph has no users"):
        ForgetRequest("user", [0]).mask(InteractionGraph.from_edges([[], []]))


def test_describe(graph):
    assert ForgetRequest("user", ["186", "ann"]).describe(graph) == {"level": "user", "size": 2, "interactions": 2}
    mixed = ForgetRequest("user", ["186"]) | ForgetRequest("item", ["302"])
    summary = mixed.describe(graph)
    assert summary == {
        "level": "mixed",
        "size": 2,
        "interactions": 4,
        "parts": [{"level": "user", "size": 1}, {"level": "item", "size": 1}],
    }
    assert json.loads(json.dumps(summary)) == summary


def test_fingerprint():
    a, b = ForgetRequest("user", ["1", "2"]), ForgetRequest("item", ["1"])
    assert a.fingerprint() == ForgetRequest("user", [2, 1]).fingerprint()
    assert (a | b).fingerprint() == (b | a).fingerprint()
    pairs = ForgetRequest("interaction", [(1, 2), (3, 4)])
    assert pairs.fingerprint() == ForgetRequest("interaction", [(3, 4), (1, 2)]).fingerprint()
    different = [a, b, a | b, pairs, ForgetRequest("interaction", [(2, 1), (3, 4)])]
    different.append(ForgetRequest.internal("user", torch.tensor([1, 2])))
    assert len({request.fingerprint() for request in different}) == len(different)


# From files


@pytest.mark.parametrize(
    ("text", "level", "expected"),
    [
        ("user,item\n186,302\n22,7\n", "interaction", (("186", "302"), ("22", "7"))),
        ("186,302\n22,7\n", "interaction", (("186", "302"), ("22", "7"))),
        ("186 302\n", "interaction", (("186", "302"),)),
        ("uid\tiid\tval\n186\t302\t4\n186\t7\t1\n", "interaction", (("186", "302"), ("186", "7"))),
        ("uid,iid,val\n186,302,4\n186,7,1\n22,7,1\n", "user", ("186", "22")),
        ("uid,iid,val\n186,302,4\n186,7,1\n22,7,1\n", "item", ("302", "7")),
        ("user_id,age\n186,30\n22,31\n", "user", ("186", "22")),
        ("196\n186\n", "user", ("196", "186")),
        ("\n196\n\n186.0\n", "user", ("196", "186.0")),  # what it means is for the graph to say
        ("196\n-1\n", "user", ("196", "-1")),
        ("user_id:token\n196\n", "user", ("196",)),
        ('item\n"242"\n', "item", ("242",)),
        ("ann lee\nbob\n", "user", ("ann lee", "bob")),
    ],
)
def test_from_file(tmp_path, text, level, expected):
    path = tmp_path / "forget.csv"
    path.write_text(text)
    assert ForgetRequest.from_file(path, level) == ForgetRequest(level, expected)


@pytest.mark.parametrize(
    ("text", "level", "message"),
    [
        ("196\n186\n", "interaction", r"forget.csv' must hold a user and an item per line \(got one column\)"),
        ("user\n1\n\nNA\n", "user", r"forget.csv', line 4: the user is missing|line 4: user ids must be text"),
        ("196,186,22\n", "user", r"must hold one user per line or have a header \(got 3 fields without one\)"),
        ("196;186\n22;7\n", "user", r"must hold one user per line or have a header \(got 2 fields without one\)"),
        ("1,2,3\n4,5,6\n", "interaction", r"must hold one user and item per line or have a header \(got 3 fields"),
        ("user\n", "user", "'index' must name at least one user to forget"),
        ("1,2\n1\n", "interaction", r"line 2: must have 2 fields like line 1 \(got 1\)"),
    ],
)
def test_bad_files(tmp_path, text, level, message):
    path = tmp_path / "forget.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ForgetRequest.from_file(path, level)


def test_from_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "forget.parquet"
    pd.DataFrame({"user": [1, 1, 2]}).to_parquet(path)
    request = ForgetRequest.from_file(path, "user")
    assert request.index == ("1", "2")
    assert request.num_duplicates == 1


@pytest.mark.parametrize("users", [["3"], ["3", "1"], [str(user) for user in range(80)]])
def test_positions_are_those_of_the_mask(users):
    pairs = torch.stack([torch.arange(400) % 100, torch.arange(400) // 4])
    graph = InteractionGraph.from_edges(pairs, 100, 100)
    for request in (ForgetRequest("user", users), ForgetRequest("user", users) | ForgetRequest("item", ["3", "50"])):
        for _ in range(2):  # the second time, they are remembered
            positions = request.positions(graph)
            assert positions.equal(request.mask(graph).nonzero().view(-1))
            positions.zero_()


def test_positions_in_sessions_are_those_of_the_mask():
    graph = SessionGraph.from_sequences([[4, 2, 4], [1, 2]] * 100)
    request = ForgetRequest("click", [("0", 2), ("7", 1)])
    assert request.positions(graph).equal(request.mask(graph).nonzero().view(-1))
