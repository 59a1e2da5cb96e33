"""The requests of a stream together are the request of its scenario, each of one user or of one session."""

import pytest
import torch
from session_toys import random_sessions, session_graph

from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import Scenario, arriving, removal, sensitive


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


@pytest.mark.parametrize("count", [0, 13])
def test_counts_that_the_request_does_not_have_are_refused(graph, count):
    with pytest.raises(ValueError, match="'count' must be between 1 and 12, every user that the request concerns"):
        arriving(removal(graph, "user", share=0.2), count=count)
