"""What the scenarios of sessions train on and ask to forget, against what they say."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from walks import as_lists, walks

import graphunlearn as gu
from graphunlearn.eval import SHARES, removal, requested, session_clicks
from graphunlearn.eval.scenarios.cases import without_unseen_items
from graphunlearn.eval.session_measure import SessionJudge


@pytest.fixture(scope="module")
def graph():
    return walks(num_sessions=200)


def collapsed(items):
    return [item for n, item in enumerate(items) if n == 0 or items[n - 1] != item]


def eligible(sessions):
    """Sessions with clicks that can be drawn: of the second half, on an item that they hold once."""
    found = {}
    for n, items in enumerate(sessions):
        times = Counter(items)
        clicks = [t for t, item in enumerate(items) if t >= -(-len(items) // 2) and times[item] == 1]
        if len(items) >= 4 and clicks:
            found[n] = clicks
    return found


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=20),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 5),
)
def test_one_click_of_the_second_half_in_a_share_of_the_sessions(sessions, share, seed):
    # as test sessions are given, and one session in ten of the others is validation, all others train
    graph = gu.SessionGraph.from_sequences(sessions + [[0, 1]] * len(sessions), num_items=6)
    fractions = (0.4, 0.5, 0.1)
    train = [collapsed(items) for items in sessions]
    allowed = eligible(train)
    if not allowed:
        with pytest.raises(ValueError, match="'graph' must hold sessions of at least 4 clicks"):
            session_clicks(graph, share=share, seed=seed, test=graph, fractions=fractions)
        return
    scenario = session_clicks(graph, share=share, seed=seed, test=graph, fractions=fractions)
    assert as_lists(scenario.train) == train
    clicks = list(scenario.request.index)
    assert len(clicks) == max(1, round(share * len(allowed)))
    assert len({n for n, _ in clicks}) == len(clicks)
    assert all(t in allowed[n] for n, t in clicks)
    assert str(len(clicks)) in scenario.notes[0]
    assert int(scenario.request.mask(scenario.train).sum()) == len(clicks)


def test_the_choice_is_random_repeatable_and_covers_all_it_can(graph):
    asked = [session_clicks(graph, seed=seed, share=0.5).request for seed in range(40)]
    assert asked[0] == session_clicks(graph, seed=0, share=0.5).request
    allowed = eligible(as_lists(session_clicks(graph).train))
    assert {click for request in asked for click in request.index} == {(n, t) for n in allowed for t in allowed[n]}


def test_sessions_are_split_by_time(graph):
    scenario = session_clicks(graph, collapse_repeats=False)
    assert as_lists(scenario.train) == as_lists(graph)[:160]
    assert [part.num_sessions for part in (scenario.train, scenario.validation, scenario.test)] == [160, 20, 20]
    given_test = session_clicks(graph, test=walks(num_sessions=30, seed=3), collapse_repeats=False)
    assert [part.num_sessions for part in (given_test.train, given_test.validation, given_test.test)] == [180, 20, 30]


def test_repeats_are_collapsed_and_counted_unless_they_are_to_stay():
    sessions = [[n % 4, n % 4, 4, 5 + n % 2, 7, 7, 9] for n in range(40)]
    graph = gu.SessionGraph.from_sequences(sessions)
    scenario = session_clicks(graph)
    assert as_lists(scenario.train) == [collapsed(items) for items in sessions[:32]]
    assert "80 clicks were collapsed" in scenario.notes[1]
    kept = session_clicks(graph, collapse_repeats=False)
    assert as_lists(kept.train) == sessions[:32]
    assert not any("collapsed" in note for note in kept.notes)


def test_items_that_training_never_saw_are_left_out_of_what_is_held_out_and_counted():
    graph = gu.SessionGraph.from_sequences([[0, 1, 2, 3]] * 8 + [[0, 4, 1]] + [[5, 4, 2, 1]])
    scenario = session_clicks(graph)
    assert as_lists(scenario.validation) == [[0, 1]]
    assert as_lists(scenario.test) == [[2, 1]]
    told = [note for note in scenario.notes if "without training clicks" in note]
    assert told == ["1 validation click on items without training clicks was left out; neighbours are joined."]
    judge = SessionJudge(scenario.train, scenario.request, scenario.validation, scenario.test)
    assert judge.left_out["test clicks of items that training never saw"] == 2  # said where it is judged by
    *_, sentences = without_unseen_items(*graph.time_split([0.8, 0.1, 0.1]), 3)
    assert sentences[1] == "5 test clicks on items without training clicks were left out; neighbours are joined."


@pytest.mark.parametrize("level", ["session", "item"])
def test_removal_of_sessions_and_items(graph, level):
    scenario = removal(graph, level, share=0.1, seed=4)
    lists = as_lists(scenario.train)
    if level == "session":
        there = {n for n, items in enumerate(lists) if len(items) > 1}
    else:
        there = {item for items in lists for item in items}
    assert scenario.name == f"{level}s"
    assert len(scenario.request) == round(0.1 * len(there))
    assert set(scenario.request.index) <= there
    whole = removal(graph, level)
    assert len(whole.request) == max(1, round(SHARES[f"{level}s"] * len(there)))
    assert "chosen to be forgotten" in whole.notes[0]


def test_levels_are_those_of_sessions(graph):
    with pytest.raises(ValueError, match=r"'level' must be one of session, item for sessions \(got 'user'\)"):
        removal(graph, "user")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_share_must_be_a_share(graph, share):
    with pytest.raises(ValueError, match="'share' must be between 0 and 1"):
        session_clicks(graph, share=share)


@pytest.mark.parametrize("internal", [False, True])
def test_requested_clicks_that_are_only_held_out_are_dropped(graph, internal):
    lists, names = as_lists(graph), graph.session_ids
    wanted = [next(n for n in range(start, 200) if len(lists[n]) > 2) for start in (0, 10, 165, 185)]
    if internal:
        asked = gu.ForgetRequest.internal("click", torch.tensor([wanted, [1] * 4]))
    else:
        asked = gu.ForgetRequest("click", [(names[n], 1) for n in wanted])
    scenario = requested(graph, asked)
    mask = scenario.request.mask(scenario.train)
    clicks = zip(scenario.train.session[mask].tolist(), scenario.train.position[mask].tolist())
    assert list(clicks) == [(n, 1) for n in wanted[:2]]
    shorter = [items[:1] + items[2:] if n in wanted else items for n, items in enumerate(lists)]
    assert as_lists(scenario.validation) == shorter[160:180]
    assert as_lists(scenario.test) == shorter[180:]
    assert scenario.notes[0].startswith("2 of the clicks to forget were only in held-out data")


def test_requested_sessions_items_and_mixtures(graph):
    lists, names = as_lists(graph), graph.session_ids
    asked = gu.ForgetRequest("session", [names[3], names[170]])
    scenario = requested(graph, asked)
    assert scenario.request == gu.ForgetRequest("session", [names[3]])
    assert as_lists(scenario.validation) == lists[160:170] + lists[171:180]
    asked = gu.ForgetRequest("item", [graph.item_ids[5]]) | gu.ForgetRequest("session", [names[3]])
    scenario = requested(graph, asked)
    assert (scenario.name, scenario.notes) == ("file", [])
    assert int(scenario.request.mask(scenario.train).sum()) == len(lists[3]) + sum(
        item == 5 for n, items in enumerate(lists[:160]) if n != 3 for item in items
    )


@pytest.mark.parametrize("separate", [False, True])
def test_requested_users_who_are_only_held_out_are_dropped_with_their_sessions(graph, separate):
    lists, owner = as_lists(graph), torch.arange(200) // 2  # the last half of them is held out
    whole = gu.SessionGraph.from_sequences(lists, num_items=graph.num_items, user=owner)
    test = gu.SessionGraph.from_sequences(
        lists[:4], num_items=graph.num_items, user=torch.tensor([0, 1, 1, 2]), user_ids=["3", "95", "7"]
    )
    for asked in (gu.ForgetRequest("user", ["3", "95"]), gu.ForgetRequest.internal("user", torch.tensor([3, 95]))):
        scenario = requested(whole, asked, test=test if separate else None)
        assert scenario.request == gu.ForgetRequest("user", ["3"])
        assert scenario.notes[0].startswith("1 of the users to forget was only in held-out data, and dropped: the")
        if separate:
            assert as_lists(scenario.test) == [lists[0], lists[3]]
        else:
            assert as_lists(scenario.test) == lists[180:190] + lists[192:]
        assert as_lists(scenario.train) == (lists[:180] if separate else lists[:160])
    with pytest.raises(ValueError, match=r"trained on \(got 1, all of them held out\)"):
        requested(whole, gu.ForgetRequest("user", ["95"]))


def test_requests_that_nothing_learned_or_knows_are_refused(graph):
    with pytest.raises(ValueError, match=r"'request' must hold a click that is trained on \(got 1, all of them held"):
        requested(graph, gu.ForgetRequest("session", [graph.session_ids[199]]))
    with pytest.raises(ValueError, match="'index' must hold sessions of the graph"):
        requested(graph, gu.ForgetRequest("session", ["nobody"]))
