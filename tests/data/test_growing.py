"""Growing graphs, against tables that are joined by hand."""

import warnings

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.growing import grown, numbered_in

IDS = st.text("ab07", min_size=1, max_size=2)
ROWS = st.lists(st.tuples(IDS, IDS, st.integers(1, 5)), min_size=1, max_size=12)
CLICKS = st.lists(st.lists(IDS, min_size=1, max_size=4), min_size=1, max_size=4)


def of_rows(rows):
    frame = pd.DataFrame(rows, columns=["user", "item", "rating"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return InteractionGraph.from_frame(frame)


@settings(max_examples=60, deadline=None)
@given(first=ROWS, second=ROWS)
def test_interactions_are_those_of_both_tables(first, second):
    graph, new = of_rows(first), of_rows(second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = grown(graph, new)
    expected = {(user, item): float(rating) for user, item, rating in [*first, *second]}
    frame = both.to_frame()
    found = {(user, item): rating for user, item, rating in zip(frame["user"], frame["item"], frame["rating"])}
    assert found == expected
    assert len(frame) == len(expected)
    for side, place in (("user", 0), ("item", 1)):
        ids = both.vocabulary(side).ids
        assert ids[: len(graph.vocabulary(side))] == graph.vocabulary(side).ids
        assert ids == list(dict.fromkeys(row[place] for row in [*first, *second]))
    again = numbered_in(new, both).to_frame()
    assert again.astype(str).values.tolist() == new.to_frame().astype(str).values.tolist()


@settings(max_examples=60, deadline=None)
@given(first=CLICKS, second=CLICKS)
def test_sessions_follow_each_other(first, second):
    def of_clicks(clicks, names):
        items = list(dict.fromkeys(name for session in clicks for name in session))
        numbers = [[items.index(name) for name in session] for session in clicks]
        users = torch.arange(len(clicks)) - 1
        return SessionGraph.from_sequences(
            numbers, item_ids=items, session_ids=names, user=users, user_ids=["x", "y", "z", "w"][: len(clicks)]
        )

    graph = of_clicks(first, [f"a{n}" for n in range(len(first))])
    new = of_clicks(second, [f"b{n}" for n in range(len(second))])
    both = grown(graph, new)
    assert both.session_ids == graph.session_ids + new.session_ids
    assert [both.item_ids[item] for item in both.items] == [name for session in [*first, *second] for name in session]
    assert both.length.tolist() == [len(session) for session in [*first, *second]]
    assert both.item_ids[: graph.num_items] == graph.item_ids
    names = [*both.vocabulary("user").ids, None]
    before = [[*part.vocabulary("user").ids, None] for part in (graph, new)]
    expected = [own[user] for own, part in zip(before, (graph, new)) for user in part.user.tolist()]
    assert [names[user] for user in both.user.tolist()] == expected
    assert both.validate()
    moved = numbered_in(new, both)
    assert [moved.item_ids[item] for item in moved.items] == [new.item_ids[item] for item in new.items]


def test_ids_mean_what_they_mean_in_the_graph():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), user_ids=["1", "2"])
    new = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), user_ids=["1.0", "x"])
    assert grown(graph, new).user_ids == ["1", "2", "x"]


def test_repeated_pairs_take_the_new_values_and_that_is_said():
    graph = of_rows([("a", "x", 1), ("a", "y", 2)])
    with pytest.warns(UserWarning, match="1 repeated"):
        both = grown(graph, of_rows([("a", "x", 5)]))
    assert both.to_frame()["rating"].tolist() == [2.0, 5.0]


def test_what_does_not_fit_is_refused():
    rated, bare = of_rows([("a", "x", 1)]), InteractionGraph.from_edges(torch.tensor([[0], [0]]))
    sessions = SessionGraph.from_sequences([[0, 1]], session_ids=["s"])
    with pytest.raises(ValueError, match=r"'new' must have ratings, like 'graph' \(got none\)"):
        grown(rated, bare)
    with pytest.raises(ValueError, match=r"'new' must have no ratings, like 'graph' \(got ratings\)"):
        grown(bare, rated)
    with pytest.raises(ValueError, match="'new' must be a graph of interactions, as 'graph' is"):
        grown(rated, sessions)
    with pytest.raises(ValueError, match=r"'new' must hold sessions that 'graph' does not hold \(got 's'\)"):
        grown(sessions, sessions)
    with pytest.raises(ValueError, match="'graph' must have the users of 'part'"):
        numbered_in(rated, bare)
    bare["user"].x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"'graph' must hold nothing but interactions .*'user x'"):
        grown(bare, bare)


def test_sessions_without_ids_are_numbered_on():
    graph = SessionGraph.from_sequences([[0, 1], [1]])
    both = grown(graph, SessionGraph.from_sequences([[0]]))
    assert (both.session_ids, both.num_clicks) == (["0", "1", "2"], 4)
