"""The generator of click sessions: real in shape, learnable, reproducible."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphunlearn.datasets import synthetic_sessions


@pytest.fixture(scope="module")
def graph():
    return synthetic_sessions()


def transitions(graph):
    """Every click that another one follows, and that one."""
    part = graph.prefixes()
    return part.items[part.click_ptr[1:] - 1], part.target


def counts(graph):
    table = torch.zeros(graph.num_items, graph.num_items)
    return table.index_put_(transitions(graph), torch.ones(()), accumulate=True)


def recall(scores, target, k=20):
    return float((scores.topk(k).indices == target.unsqueeze(1)).any(1).float().mean())


def test_shape(graph):
    assert (graph.num_sessions, graph.num_items) == (4000, 500)
    assert graph.length.min() == 2
    assert graph.length.max() <= 50
    assert float(graph.length.float().mean()) == pytest.approx(4.5, rel=0.05)
    assert graph.vocabulary("user").ids[17] == "u17"
    assert graph.user.min() >= 0
    assert graph.validate()


def test_times_rise_from_session_to_session_and_within_each(graph):
    assert graph.time.dtype == torch.int64
    first = graph.time[graph.click_ptr[:-1]]
    assert (first.diff() >= 0).float().mean() > 0.95  # but for the first gaps, sessions are in order
    within = graph.session[1:] == graph.session[:-1]
    assert (graph.time.diff()[within] >= 0).all()


def test_a_long_tail(graph):
    clicks = torch.bincount(graph.items, minlength=500).sort(descending=True).values
    assert 0.15 < float(clicks[:20].sum() / clicks.sum()) < 0.4
    assert (clicks > 0).float().mean() > 0.95


def test_transitions_can_be_learnt_from_other_sessions(graph):
    train, test = graph.time_split([0.8, 0.2])
    last, target = transitions(test)
    popularity = torch.bincount(train.items, minlength=graph.num_items).float()
    by_popularity = recall(popularity.expand(target.numel(), -1), target)
    by_transitions = recall(counts(train)[last] + 1e-6 * popularity, target)
    assert 0.15 < by_popularity < 0.3
    assert by_transitions > by_popularity + 0.25


def test_what_was_trained_on_is_remembered(graph):
    train, test = graph.time_split([0.8, 0.2])
    popularity = torch.bincount(train.items, minlength=graph.num_items) + 1.0
    table = counts(train) + 5 * popularity / popularity.sum()
    log_p = (table / table.sum(1, keepdim=True)).log()
    known, unknown = (float(log_p[transitions(part)].mean()) for part in (train, test))
    assert known > unknown + 0.3


def test_intent_lasts_for_a_session():
    """Without transitions and repeats, clicks of a session resemble one another more than those of others."""
    graph = synthetic_sessions(transition=0.0, repeat=0.0)
    together = counts(graph)
    together = together + together.t()
    expected = torch.outer(together.sum(0), together.sum(1)) / together.sum()
    assert float((together**2 / expected.clamp(min=1e-6)).sum() / together.sum()) > 5  # 1 where independent
    blind = synthetic_sessions(transition=0.0, repeat=0.0, taste=0.0)
    popular = torch.bincount(blind.items, minlength=500).float()
    same = float((popular / popular.sum()).square().sum())
    last, target = transitions(blind)
    assert float((last == target).float().mean()) == pytest.approx(same, abs=0.003)


def test_repeats():
    shares = []
    for repeat in (0.0, 0.5):
        graph = synthetic_sessions(num_sessions=1000, repeat=repeat)
        shares.append(1 - graph.num_nodes / graph.num_clicks)
    assert shares[1] > shares[0] + 0.25
    only = synthetic_sessions(num_sessions=50, repeat=1.0)
    assert only.num_nodes == only.num_sessions


def test_the_same_seed_gives_the_same_graph():
    first, again, other = (synthetic_sessions(200, 60, seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()
    state = torch.get_rng_state()
    synthetic_sessions(20, 30)
    assert torch.get_rng_state().equal(state)


@settings(max_examples=20)
@given(
    num_sessions=st.integers(1, 40),
    num_items=st.integers(1, 40),
    clicks=st.floats(2, 10),
    num_users=st.integers(1, 5),
    exponent=st.floats(0, 3),
    taste=st.floats(0, 10),
    transition=st.floats(0, 1),
    repeat=st.floats(0, 1),
)
def test_any_size_works(num_sessions, num_items, clicks, num_users, exponent, taste, transition, repeat):
    graph = synthetic_sessions(
        num_sessions,
        num_items,
        clicks,
        num_users=num_users,
        popularity_exponent=exponent,
        taste=taste,
        transition=transition,
        repeat=repeat,
    )
    assert (graph.num_sessions, graph.num_items) == (num_sessions, num_items)
    assert 2 <= graph.length.min() <= graph.length.max() <= 50
    assert graph.validate()


def test_sessions_of_two_clicks():
    assert synthetic_sessions(30, clicks_per_session=2).length.tolist() == [2] * 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sessions": 0}, r"'num_sessions' must be a positive integer \(got 0\)"),
        ({"num_items": 10.0}, r"'num_items' must be a positive integer \(got 10.0\)"),
        ({"num_users": 0}, r"'num_users' must be a positive integer \(got 0\)"),
        ({"latent_dim": -1}, r"'latent_dim' must be a positive integer \(got -1\)"),
        ({"clicks_per_session": 1}, r"'clicks_per_session' must be between 2 and 10 \(got 1\)"),
        ({"clicks_per_session": float("nan")}, r"'clicks_per_session' must be between 2 and 10 \(got nan\)"),
        ({"taste": -1}, r"'taste' must be a finite number of at least 0 \(got -1\)"),
        (
            {"popularity_exponent": float("inf")},
            r"'popularity_exponent' must be a finite number of at least 0 \(got inf",
        ),
        ({"transition": 1.5}, r"'transition' must be a probability \(got 1.5\)"),
        ({"repeat": float("nan")}, r"'repeat' must be a probability \(got nan\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic_sessions(**arguments)
