"""Requests for clicks that name positions and items."""

import pytest

from graphunlearn.data import ForgetRequest, SessionGraph


@pytest.fixture
def files(tmp_path):
    def writer(clicks, request):
        (tmp_path / "clicks.csv").write_text("session_id,item_id,position\n" + clicks)
        (tmp_path / "forget.csv").write_text("session_id,item_id,position\n" + request)
        return tmp_path / "clicks.csv", tmp_path / "forget.csv"

    return writer


def forgotten(graph, request):
    mask = request.mask(graph)
    return [(graph.session_ids[s], graph.item_ids[i]) for s, i in zip(graph.session[mask], graph.items[mask])]


def test_positions_from_one(files):
    data, request = files("s,a,1\ns,b,2\ns,c,3\nt,a,1\nt,c,2\n", "s,b,2\nt,c,2\n")
    with pytest.warns(UserWarning, match="positions begin at 1 in this file, and at 0 in the graph and in requests"):
        graph = SessionGraph.from_file(data)
    with pytest.warns(UserWarning, match="the positions of the request count from 1, as the items that it names show"):
        assert forgotten(graph, ForgetRequest.from_file(request, "click")) == [("s", "b"), ("t", "c")]


def test_positions_from_zero_and_wrong_items(files):
    data, request = files("s,a,0\ns,b,1\ns,c,2\n", "s,b,1\n")
    graph = SessionGraph.from_file(data)
    asked = ForgetRequest.from_file(request, "click")
    assert forgotten(graph, asked) == [("s", "b")]
    assert asked == ForgetRequest("click", [("s", 1)])
    assert (asked | ForgetRequest("item", ["c"])).parts[0].items == {("s", 1): "b"}
    _, request = files("s,a,0\n", "s,c,1\n")
    with pytest.raises(
        ValueError, match=r"name the item of every click, at its position counted from 0 \(got \('s', 1, 'c'\)"
    ):
        ForgetRequest.from_file(request, "click").mask(SessionGraph.from_file(data))
    _, request = files("s,a,0\n", "s,c,1\ns,b,1\n")
    with pytest.raises(
        ValueError, match=r"must name one item per click \(got 'c' and 'b' at position 1 of session 's'\)"
    ):
        ForgetRequest.from_file(request, "click")
