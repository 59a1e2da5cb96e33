"""The requests of a stream together are the request of its scenario, each of one user or of one session."""

from functools import reduce
from operator import or_

import pytest
import torch
from session_toys import random_sessions, session_graph

from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import Scenario, Stream, arriving, removal, sensitive
from graphunlearn.eval.scenarios.stream import united


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12)


def test_users_ask_for_what_the_scenario_forgets(graph):
    scenario = sensitive(graph, graph.item_ids[:15], share=0.5)
    stream = arriving(scenario, seed=3)
    mask, train = scenario.request.mask(scenario.train), scenario.train
    total, seen = torch.zeros_like(mask), []
    for request in stream.requests:
        own = request.mask(train)
        (user,) = train.pairs[0][own].unique().tolist()
        seen.append(user)
        assert torch.equal(own, mask & (train.pairs[0] == user))
        assert not bool((total & own).any())
        total |= own
    assert torch.equal(total, mask) and torch.equal(stream.scenario.request.mask(train), mask)
    assert len(set(seen)) == len(seen) and seen != sorted(seen)
    assert stream.until(2).mask(train).sum() == sum(int(r.mask(train).sum()) for r in stream.requests[:2])
    assert arriving(scenario, seed=3).requests == stream.requests != arriving(scenario, seed=4).requests


def test_those_who_lose_everything_ask_as_a_whole(graph):
    stream = arriving(removal(graph, "user", share=0.2), count=5)
    assert [request.level for request in stream.requests] == ["user"] * 5
    assert stream.scenario.notes[-1] == "5 users ask, one after another."
    train = stream.scenario.train
    for request in stream.requests:
        train, _ = train.split(request)
    whole, _ = stream.scenario.train.split(stream.scenario.request)
    assert train.fingerprint() == whole.fingerprint()


def test_sessions_keep_their_names_while_others_are_dropped():
    graph = session_graph(random_sessions(40, 15, seed=0), 15)
    clicks = [("3", 1), ("3", 0), ("9", 1), *(("20", at) for at in range(int(graph.length[20])))]
    request = ForgetRequest("click", clicks) | ForgetRequest("session", ["1", "30"])
    stream = arriving(Scenario("mine", graph, graph, graph, request))
    asked = {r.index[0] if r.level == "session" else r.index[0][0]: r for r in stream.requests}
    assert {name: r.level for name, r in asked.items()} == {
        **{"3": "click", "9": "click"},
        **{"20": "session", "1": "session", "30": "session"},
    }
    assert set(asked["3"].index) == {("3", 0), ("3", 1)}
    rest = graph
    for one in stream.requests:
        rest, _ = rest.split(one)
    assert rest.fingerprint() == graph.split(request)[0].fingerprint()


@pytest.mark.parametrize("count", [0, 13, 2.5, True])
def test_counts_that_the_request_does_not_have_are_refused(graph, count):
    with pytest.raises(ValueError, match="'count' must be between 1 and 12, every user that the request concerns"):
        arriving(removal(graph, "user", share=0.2), count=count)


def test_one_may_ask_alone(graph):
    stream = arriving(removal(graph, "user", share=0.2), count=1)
    assert stream.scenario.notes[-1] == "1 user asks." and stream.until(1) == stream.requests[0]


def test_the_union_is_that_of_single_unions(graph):
    parts = [
        ForgetRequest("user", ["u1"]) | ForgetRequest("interaction", [("u2", "i3")]),
        ForgetRequest("click", [("4", 0)]).naming({("4", 0): "7"}),
        ForgetRequest.internal("user", torch.tensor([2])),
        ForgetRequest("user", ["u5", "u1"]),
        ForgetRequest("click", [("4", 1)]).naming({("4", 1): "9"}),
    ]
    one, other = united(parts), reduce(or_, parts)
    assert one == other and len(one) == 6
    assert [part.items for part in one.parts] == [part.items for part in other.parts]


def test_streams_whose_requests_do_not_add_up_are_refused(graph):
    scenario = removal(graph, "user", share=0.2)
    users = scenario.train.user_ids

    def of(*requests):
        return Stream(scenario, [ForgetRequest("user", names) for names in requests])

    with pytest.raises(ValueError, match=r"'requests' must hold at least one request \(got none\)"):
        of()
    own = int((scenario.train.pairs[0] == 3).sum())
    with pytest.raises(
        ValueError, match=rf"'requests' must ask once for every interaction \(got request 2, .* {own} of"
    ):
        of(users[2:4], users[3:6])
    with pytest.raises(ValueError, match=r"'requests' must leave some interactions \(got 2 that leave none\)"):
        of(users[:30], users[30:])
    with pytest.raises(ValueError, match="'index' must hold users of the graph"):
        of(users[:2], ["nobody"])
    for count, expected in ((0, "at least 1"), (3, "at most 2, the number of requests"), (1.0, "a whole number")):
        with pytest.raises(ValueError, match=f"'count' must be {expected}"):
            of(users[:2], users[2:3]).until(count)


def test_sessions_that_change_under_later_requests_are_refused():
    graph = session_graph(random_sessions(40, 15, seed=0), 15)
    case = Scenario("mine", graph, graph, graph, ForgetRequest("session", ["1"]))
    first = ForgetRequest("click", [("3", 0)])
    with pytest.raises(ValueError, match="'requests' must name the clicks of a session at once"):
        Stream(case, [first, ForgetRequest("click", [("3", 1)])])
    with pytest.raises(ValueError, match="'requests' must name sessions by raw ids"):
        Stream(case, [first, ForgetRequest.internal("session", torch.tensor([7]))])
    assert Stream(case, [first, ForgetRequest("click", [("4", 1)])]).until(2) == first | ForgetRequest(
        "click", [("4", 1)]
    )
