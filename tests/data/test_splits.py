"""Splits at random, by time, leave one out and within users, against naive loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.splits import divided

SHARES = [0.6, 0.2, 0.2]
EVENTS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 50)), min_size=1, max_size=30)


def naive(by, events):
    """Parts as lists of positions, by a loop over the users."""
    parts = [[], [], []]
    for user in sorted({user for user, _ in events}):
        own = sorted((at for at, event in enumerate(events) if event[0] == user), key=lambda at: (events[at][1], at))
        if user < 0:
            parts[0] += own
            continue
        for place, at in enumerate(own):
            if by == "loo":
                last = len(own) - 1
                part = 0 if place == 0 else 2 if place == last else 1 if place == last - 1 else 0
            else:
                part = (place >= round(0.6 * len(own))) + (place >= round(0.8 * len(own)))
            parts[part].append(at)
    return [sorted(part) for part in parts]


@pytest.mark.parametrize("by", ["loo", "user"])
@given(EVENTS)
def test_within_users(by, events):
    user, time = torch.tensor(events).t()
    found = divided(by, SHARES, len(events), user=user, time=time)
    assert [part.tolist() for part in found] == naive(by, events)


@given(EVENTS, st.integers(0, 3))
def test_every_one_is_in_one_part(events, seed):
    user, time = torch.tensor(events).t()
    for by in ("random", "time", "loo", "user"):
        for given_time in (time, None) if by != "time" else (time,):
            parts = divided(by, SHARES, len(events), user=user, time=given_time, seed=seed)
            assert torch.cat(parts).sort().values.tolist() == list(range(len(events)))
    late = divided("time", SHARES, len(events), time=time)
    order = sorted(range(len(events)), key=lambda at: (events[at][1], at))
    assert sorted(order[: len(late[0])]) == late[0].tolist()


def test_graphs():
    pairs = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]])
    graph = InteractionGraph.from_edges(pairs, time=torch.tensor([3, 1, 2, 6, 5, 4]))
    parts = graph.split_by("loo", SHARES)
    assert [part.pairs.t().tolist() for part in parts] == [[[0, 1], [1, 2]], [[0, 2], [1, 1]], [[0, 0], [1, 0]]]
    assert [part.time.tolist() for part in graph.split_by("time", SHARES)] == [[3, 1, 2, 4], [5], [6]]
    random = [part.pairs.tolist() for part in graph.split_by("random", SHARES, seed=4)]
    assert random == [part.pairs.tolist() for part in graph.random_split(SHARES, seed=4)]
    sessions = SessionGraph.from_sequences(
        [[0], [1], [2], [3]], time=torch.tensor([4, 3, 2, 1]), user=torch.tensor([0, 0, 1, 1])
    )
    assert [part.session_ids for part in sessions.split_by("loo", [0.5, 0.5])] == [["1", "3"], ["0", "2"]]
    assert [p.session_ids for p in sessions.split_by("time", [0.5, 0.5])] == [
        p.session_ids for p in sessions.time_split([0.5, 0.5])
    ]


def test_what_is_not_there():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]))
    with pytest.raises(ValueError, match=r"'by' must be 'random' or 'user' for data without times \(got 'time'\)"):
        graph.split_by("time", SHARES)
    with pytest.raises(ValueError, match=r"'by' must be random, time, loo or user \(got 'users'\)"):
        graph.split_by("users", SHARES)
    with pytest.raises(ValueError, match=r"'by' must be 'random' or 'time' for data without users \(got 'loo'\)"):
        SessionGraph.from_sequences([[0], [1]]).split_by("loo", SHARES)
    with pytest.raises(ValueError, match="'fractions' must be positive and add up to 1"):
        graph.split_by("random", [0.5, 0.6])


def test_shared():
    a = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 1, 2]]), 2, 3)
    b = InteractionGraph.from_edges(torch.tensor([[1, 1, 0], [2, 0, 0]]), 2, 3)
    assert (a.shared(b), b.shared(a), a.shared(a)) == (2, 2, 3)
    first, second = (SessionGraph.from_sequences([[0], [1]], session_ids=ids) for ids in (["a", "b"], ["b", "c"]))
    assert first.shared(second) == 1
