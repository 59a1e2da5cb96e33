"""Graphs with fewer nodes say by raw id what a list of events without the others says."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs, session_graphs

import graphunlearn as gu
from graphunlearn.data.renumbering import (
    active_nodes,
    canonical_order,
    emptied_nodes,
    keep_nodes,
    named_nodes,
    new_numbers,
    node_types,
    with_sorted_events,
)
from graphunlearn.data.vocabulary import Vocabulary


@st.composite
def parts(draw, source):
    """A graph, and some of its nodes of every type."""
    graph = draw(source)
    kept = {}
    for name in node_types(graph):
        size = len(graph.vocabulary(name))
        kept[name] = torch.tensor(draw(st.lists(st.sampled_from(range(size)), unique=True)), dtype=torch.long)
    return graph, kept


def rows_of(graph):
    """Every interaction by raw ids, with its attributes."""
    values = [getattr(graph, name) for name in ("rating", "time", "label")]
    values = [[None] * graph.num_interactions if value is None else value.tolist() for value in values]
    users, items = graph.user_ids, graph.item_ids
    return [(users[u], items[i], *rest) for u, i, *rest in zip(*graph.pairs.tolist(), *values)]


@given(parts(graphs()))
def test_interactions_are_those_between_nodes_that_stay(case):
    graph, kept = case
    before = rows_of(graph)
    part = keep_nodes(graph, kept)
    users, items = ([graph.vocabulary(name)[n] for n in kept[name].tolist()] for name in ("user", "item"))
    assert (part.user_ids, part.item_ids) == (users, items)
    assert rows_of(part) == [row for row in before if row[0] in users and row[1] in items]
    assert (part.num_users, part.num_items) == (len(users), len(items))
    assert part.validate()
    assert rows_of(graph) == before


def sessions_of(graph):
    """Every session by raw ids: its id, its user, and the items and times of its clicks."""
    items, out = graph.item_ids, []
    for n, (start, stop) in enumerate(zip(graph.click_ptr[:-1].tolist(), graph.click_ptr[1:].tolist())):
        user = None if graph.user is None else int(graph.user[n])
        user = graph.vocabulary("user")[user] if user is not None and user >= 0 else user
        times = [None] * (stop - start) if graph.time is None else graph.time[start:stop].tolist()
        out.append(
            (graph.session_ids[n], user, [(items[i], t) for i, t in zip(graph.items[start:stop].tolist(), times)])
        )
    return out


@given(parts(session_graphs()))
def test_sessions_lose_the_clicks_of_items_and_go_with_their_users(case):
    graph, kept = case
    part = keep_nodes(graph, kept)
    items = {graph.item_ids[n] for n in kept["item"].tolist()}
    users = {graph.vocabulary("user")[n] for n in kept.get("user", torch.arange(0)).tolist()} | {None, -1}
    wanted = []
    for name, user, clicks in sessions_of(graph):
        left = [click for click in clicks if click[0] in items]
        wanted += [(name, user, left)] if left and user in users else []
    assert sessions_of(part) == wanted
    assert part.item_ids == [graph.item_ids[n] for n in kept["item"].tolist()]
    assert part.validate()


def test_prefixes_lose_their_targets():
    graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 0]]).prefixes()
    part = keep_nodes(graph, {"item": torch.tensor([0, 2])})
    assert part.target.tolist() == [1, 0]  # of the items 2 and 0; the first prefix, whose target is 1, is gone
    assert part.items.tolist() == [0, 1]


def test_features_and_other_relations_follow_their_nodes():
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 0, 1]]), 3, 2)
    graph["user"].x = torch.arange(6.0).view(3, 2)
    graph["user", "follows", "user"].edge_index = torch.tensor([[0, 0, 2], [1, 2, 0]])
    part = keep_nodes(graph, {"user": torch.tensor([0, 2])})
    assert part["user"].x.tolist() == [[0.0, 1.0], [4.0, 5.0]]
    assert part["user", "follows", "user"].edge_index.tolist() == [[0, 1], [1, 0]]
    assert (part.num_users, part.num_items, part.pairs.tolist()) == (2, 2, [[0, 1], [0, 1]])


@given(graphs(min_interactions=1), st.data())
def test_emptied_nodes_had_events_and_have_none(graph, data):
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=(n := graph.num_interactions), max_size=n)))
    retained = graph.keep(mask)
    before = {(s, n) for pair in graph.pairs.t().tolist() for s, n in zip(("user", "item"), pair)}
    after = {(s, n) for pair in retained.pairs.t().tolist() for s, n in zip(("user", "item"), pair)}
    found = {(s, n) for s, nodes in emptied_nodes(graph, retained).items() for n in nodes.tolist()}
    assert found == before - after
    active = {(s, n) for s in ("user", "item") for n in active_nodes(retained, s).nonzero().flatten().tolist()}
    assert active == after


def test_users_of_sessions_are_emptied_with_their_last_session():
    graph = gu.SessionGraph.from_sequences([[0], [1], [1]], user=torch.tensor([0, 1, -1]), user_ids=["a", "b", "c"])
    found = emptied_nodes(graph, graph.select(torch.tensor([1, 2])))
    assert {name: nodes.tolist() for name, nodes in found.items()} == {"user": [0], "item": [0]}
    bare = gu.SessionGraph.from_sequences([[0], [1]])
    assert node_types(bare) == ("item",)


def test_requests_name_nodes_by_themselves_and_in_pairs():
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), 3, 2, user_ids=["a", "b", "c"])
    request = gu.ForgetRequest("user", ["c", "z"]) | gu.ForgetRequest("interaction", [("a", "1")])
    found = named_nodes(graph, request | gu.ForgetRequest.internal("item", torch.tensor([0])))
    assert {name: sorted(nodes.tolist()) for name, nodes in found.items()} == {"user": [0, 2], "item": [0, 1]}
    clicks = gu.SessionGraph.from_sequences([[0, 1]], session_ids=["s"])
    assert named_nodes(clicks, gu.ForgetRequest("session", ["s"]))["item"].tolist() == []


def test_new_numbers_are_the_places_among_those_that_stay():
    assert new_numbers(torch.tensor([1, 3]), 5).tolist() == [-1, 0, -1, 1, -1]


@given(parts(session_graphs()), st.randoms())
def test_sessions_are_put_in_order(case, random):
    graph, kept = case
    order = random.sample(range(graph.num_sessions), graph.num_sessions)
    part = keep_nodes(graph, {"session": torch.tensor(order, dtype=torch.long)})
    rows = sessions_of(graph)
    assert sessions_of(part) == [rows[n] for n in order]
    assert part.validate()
    both = keep_nodes(graph, kept | {"session": torch.tensor(order, dtype=torch.long)})
    assert sessions_of(both) == sessions_of(keep_nodes(part, kept))


def by_id(ids):
    """Text that begins with digits or not, and digits as numbers, in turn."""
    parts = {text: [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", text)] for text in ids}
    return sorted(ids, key=lambda text: (parts[text], text))


@given(st.lists(st.text("019ab", min_size=1), unique=True), st.randoms())
def test_ids_are_sorted_whatever_their_order(ids, random):
    vocabulary = Vocabulary(ids)
    assert [vocabulary[n] for n in canonical_order(vocabulary).tolist()] == by_id(ids)
    some = random.sample(range(len(ids)), len(ids) // 2)
    order = canonical_order(vocabulary, torch.tensor(some, dtype=torch.long))
    assert [ids[n] for n in order.tolist()] == by_id([ids[n] for n in some])


def test_digits_are_numbers_and_leading_zeros_come_first():
    assert canonical_order(Vocabulary(["10", "9", "x", "100"])).tolist() == [1, 0, 3, 2]
    assert canonical_order(Vocabulary(["b7", "b07", "b10"])).tolist() == [1, 0, 2]
    assert canonical_order(Vocabulary(3)).tolist() == [0, 1, 2]


@given(graphs(), st.randoms())
def test_sorted_interactions_do_not_depend_on_the_order_of_the_file(graph, random):
    before = rows_of(graph)
    made = with_sorted_events(graph)
    assert sorted(map(repr, rows_of(made))) == sorted(map(repr, before))
    assert made.fingerprint() == graph.fingerprint()
    codes = (made.pairs[0] * graph.num_items + made.pairs[1]).tolist()
    assert codes == sorted(codes)
    order = torch.tensor(random.sample(range(graph.num_interactions), graph.num_interactions), dtype=torch.long)
    names = {"user_ids": graph.user_ids, "item_ids": graph.item_ids}
    values = {name: getattr(graph, name) for name in ("rating", "time", "label")}
    values = {name: None if value is None else value[order] for name, value in values.items()}
    other = gu.InteractionGraph.from_edges(graph.pairs[:, order], graph.num_users, graph.num_items, **names, **values)
    assert rows_of(with_sorted_events(other)) == rows_of(made)
    assert rows_of(graph) == before


@given(session_graphs())
def test_sessions_are_sorted_by_id(graph):
    made = with_sorted_events(graph)
    assert made.session_ids == by_id(graph.session_ids)
    assert sorted(map(repr, sessions_of(made))) == sorted(map(repr, sessions_of(graph)))


@pytest.mark.parametrize("kept", [[1, 1], [0, 0], [0, 9]])
def test_bad_numbers_are_refused(kept):
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]))
    with pytest.raises(gu.ArgumentError, match="'kept' must"):
        keep_nodes(graph, {"user": torch.tensor(kept)})
