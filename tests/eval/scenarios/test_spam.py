"""Fake sessions, against plain loops over the sessions."""

import math
import statistics
from collections import Counter

import pytest
import torch
from walks import as_lists, walks

import graphunlearn as gu
from graphunlearn.eval import SHARES, spam_sessions
from graphunlearn.eval.scenarios.spam import _clicks, _lengths


@pytest.fixture(scope="module")
def graph():
    """Sessions with times and users on items of all degrees."""
    lists = as_lists(walks(num_sessions=250, num_items=120, step=0.6))
    return gu.SessionGraph.from_sequences(
        lists,
        num_items=121,
        session_ids=[f"s{n}" for n in range(250)],
        time=torch.arange(sum(map(len, lists))) * 3,
        user=torch.arange(250) % 40 - 1,
    )


@pytest.mark.parametrize(("share", "targets", "seed"), [(0.02, 2, 0), (0.3, 10, 1), (0.5, 7, 2)])
def test_fake_sessions_have_one_target_each(graph, share, targets, seed):
    case = spam_sessions(graph, share=share, targets=targets, seed=seed)
    train, validation, test = graph.time_split([0.8, 0.1, 0.1])
    count = round(share * 200)
    assert case.name == "spam-sessions"
    assert as_lists(case.train)[:200] == as_lists(train)
    fake = as_lists(case.train)[200:]
    assert len(fake) == len(case.request) == count
    assert case.request.index == tuple(range(200, 200 + count))
    assert case.request.level == "session"
    retained, _ = case.train.split(case.request)
    assert retained.fingerprint() == train.fingerprint()
    clicks = Counter(item for items in as_lists(train) for item in items)
    chosen = case.targets.tolist()
    assert len(set(chosen)) == targets
    assert all(5 <= clicks[item] <= 12 for item in chosen)
    longest = max(map(len, as_lists(train)))
    for number, items in enumerate(fake):
        assert 4 <= len(items) <= longest
        assert [item for item in items if item in chosen] == [chosen[number % targets]]
        assert items[0] not in chosen
        assert len(set(items)) == len(items)
        assert all(clicks[item] for item in items)
    assert case.real.tolist() == [True] * 200 + [False] * count
    times = case.train.time[train.num_clicks :]
    assert (times == train.time.max()).all()
    assert torch.equal(case.train.user, torch.cat([train.user, torch.full((count,), -1)]))
    assert case.train.session_ids == [*train.session_ids, *(f"spam-{n}" for n in range(count))]
    assert case.train.item_ids == graph.item_ids
    assert case.train.vocabulary("user") == graph.vocabulary("user")
    assert [p.num_sessions for p in (case.validation, case.test)] == [p.num_sessions for p in (validation, test)]
    assert case.notes[0].startswith(f"{count} fake sessions with {targets} target items were added")
    assert case.train.validate()


def test_draws_are_random_and_repeatable(graph):
    one, same, other = (spam_sessions(graph, seed=seed) for seed in (0, 0, 1))
    assert as_lists(one.train) == as_lists(same.train) != as_lists(other.train)
    assert len(one.request) == round(SHARES["spam-sessions"] * 200)


def test_a_test_part_of_ones_own_is_kept_and_ids_are_new(graph):
    lists = as_lists(graph)
    data = gu.SessionGraph.from_sequences(lists, num_items=121)
    test = gu.SessionGraph.from_sequences(lists[:30], num_items=121, session_ids=["spam-1", *range(1000, 1029)])
    case = spam_sessions(data, test=test, targets=2)
    assert case.train.num_sessions - len(case.request) == 225
    assert case.test.num_sessions == 30
    assert case.train.session_ids[225:228] == ["_spam-0", "_spam-1", "_spam-2"]
    assert (case.train.time, case.train.user) == (None, None)


def test_lengths_are_poisson_lognormal_and_at_least_four():
    real = torch.tensor([2, 3, 4, 6, 8, 9, 20, 60])
    log = [math.log(length) for length in real.tolist()]
    mean, spread = statistics.fmean(log), statistics.pstdev(log)
    drawn = _lengths(real, 40_000, torch.Generator().manual_seed(0))
    assert (int(drawn.min()), int(drawn.max())) == (4, 60)
    # the probability of every length, by summing over the normal distribution
    steps = [-6 + 12 * (n + 0.5) / 400 for n in range(400)]
    weights = [math.exp(-x * x / 2) for x in steps]
    chance = {}
    for length in range(200):
        rates = [math.exp(mean + spread * x) for x in steps]
        terms = [w * math.exp(-r + length * math.log(r) - math.lgamma(length + 1)) for w, r in zip(weights, rates)]
        chance[length] = sum(terms) / sum(weights)
    whole = sum(chance[length] for length in range(4, 200)) + (1 - sum(chance.values()))
    for length in (4, 5, 7, 12, 25):
        share = float((drawn == length).double().mean())
        assert share == pytest.approx(chance[length] / whole, abs=4 * math.sqrt(share / 40_000))


def test_lengths_of_equal_short_sessions_are_still_drawn():
    assert _lengths(torch.ones(5, dtype=torch.long), 20, torch.Generator().manual_seed(0)).tolist() == [4] * 20


def test_popular_items_come_first_and_targets_anywhere_but_first():
    weights = torch.tensor([6.0, 3.0, 1.0, 0.0, 0.0])
    count = 3000
    target, length = torch.full((count,), 4), torch.full((count,), 4)
    sessions = _clicks(weights, target, length, torch.Generator().manual_seed(0)).view(count, 4)
    first = torch.bincount(sessions[:, 0], minlength=5) / count
    assert first.tolist() == pytest.approx([0.6, 0.3, 0.1, 0, 0], abs=0.04)
    places = (sessions == 4).nonzero()[:, 1]
    assert len(places) == count
    assert (torch.bincount(places, minlength=4) / count).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.04)
    assert 3 not in sessions


def test_sessions_are_no_longer_than_there_are_items():
    sessions = [[5, 6, 7] * 20, [0, 5], [0, 6], [0, 7], [0, 5], [0, 6]]
    case = spam_sessions(
        gu.SessionGraph.from_sequences([*sessions, [0], [5]]), share=0.5, targets=1, fractions=(0.75, 0.13, 0.12)
    )
    assert case.targets.tolist() == [0]
    assert all(sorted(items) == [0, 5, 6, 7] for items in as_lists(case.train)[6:])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"share": 0}, r"'share' must be between 0 and 1 \(got 0\)"),
        ({"share": 1}, r"'share' must be between 0 and 1 \(got 1\)"),
        ({"targets": 0}, r"'targets' must be at least 1 \(got 0\)"),
        (
            {"targets": 121},
            r"'targets' must be at most \d+, the number of items with 5 to 12 training clicks",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(graph, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        spam_sessions(graph, **options)


def test_sessions_without_targets_or_other_items_are_refused():
    with pytest.raises(ValueError, match=r"'graph' must have items with 5 to 12 training clicks \(got none\)"):
        spam_sessions(gu.SessionGraph.from_sequences([[0, 1]] * 40))
    with pytest.raises(ValueError, match=r"'graph' must have at least 3 clicked items besides the targets \(got 1\)"):
        spam_sessions(gu.SessionGraph.from_sequences([[0, 1]] * 10), targets=1)
