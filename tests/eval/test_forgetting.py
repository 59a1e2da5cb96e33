import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.forgetting import (
    distance_to_retrain,
    flipped_label_auc,
    forgetting_entry,
    gap_closed,
    ks_distance,
    membership_auroc,
    never_seen_pairs,
    noise_floor,
    privacy_leakage,
    z_score,
)


@pytest.fixture
def references():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(50, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_distance_and_floor_match_loops(references):
    unlearned, *others = references
    one_by_one = [sum(abs(a - b) for a, b in zip(unlearned.tolist(), r.tolist())) / 50 for r in others]
    assert distance_to_retrain(unlearned, others) == pytest.approx(sum(one_by_one) / 3)
    pairs = [(a - b).abs().mean().item() for a, b in itertools.combinations(references, 2)]
    assert len(pairs) == 6
    assert noise_floor(references) == pytest.approx(sum(pairs) / 6)


def test_an_averaged_model_is_not_the_reference(references):
    """The mean of the seeds is closer to all of them than any seed is: it would flatter whoever is compared with it."""
    average = torch.stack(references).mean(0)
    assert distance_to_retrain(average, references) < noise_floor(references)
    # another seed is, on average, exactly as far as the floor
    left_out = [distance_to_retrain(r, references[:n] + references[n + 1 :]) for n, r in enumerate(references)]
    assert np.mean(left_out) == pytest.approx(noise_floor(references))


def test_a_single_reference_has_no_floor_and_no_pairs_give_nan():
    assert noise_floor([torch.ones(3)]) is None
    assert math.isnan(distance_to_retrain(torch.ones(0), [torch.ones(0)]))
    ks = ks_distance(torch.ones(0), [torch.ones(0)])
    assert math.isnan(ks.statistic)


@pytest.mark.parametrize("function", [distance_to_retrain, ks_distance])
def test_references_must_be_there_and_fit(function):
    with pytest.raises(ValueError, match="'references' must hold at least one retrained model"):
        function(torch.ones(3), [])
    with pytest.raises(ValueError, match=r"the same pairs \(got shapes \[\(2,\), \(3,\)\]\)"):
        function(torch.ones(3), [torch.ones(3), torch.ones(2)])


@given(st.floats(-5, 5), st.lists(st.floats(-5, 5), max_size=6))
def test_z_score_matches_scipy(value, reference):
    z = z_score(value, reference)
    if len(reference) < 2 or np.std(reference, ddof=1) == 0:
        assert z is None
    elif np.std(reference, ddof=1) > 1e-6:
        assert z == pytest.approx(stats.zmap([value], reference, ddof=1)[0], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("unlearned", "expected"), [(0.8, 0.0), (0.5, 0.5), (0.2, 1.0), (0.05, 1.25), (0.9, -1 / 6)])
def test_gap_closed_is_two_sided(unlearned, expected):
    assert gap_closed(0.8, unlearned, 0.2) == pytest.approx(expected)
    # the same where forgetting raises a metric
    assert gap_closed(-0.8, -unlearned, -0.2) == pytest.approx(expected)


def test_no_gap_no_share():
    assert gap_closed(0.3, 0.1, 0.3) is None
    assert gap_closed(0.3, 0.1, 0.1 + 0.2) is None  # 0.30000000000000004
    assert gap_closed(0.0, 0.1, 0.0) is None


def test_ks_distance_matches_scipy_and_the_definition(references):
    unlearned, *others = references
    result = ks_distance(unlearned, others)
    each = [stats.ks_2samp(unlearned.numpy(), r.numpy()) for r in others]
    assert result.p_value == pytest.approx(np.mean([r.pvalue for r in each]))
    grid = torch.cat(references)

    def distance(a, b):
        return max(abs((a <= x).double().mean() - (b <= x).double().mean()).item() for x in grid)

    assert result.statistic == pytest.approx(np.mean([distance(unlearned, r) for r in others]))
    assert result.floor == pytest.approx(np.mean([distance(a, b) for a, b in itertools.combinations(others, 2)]))
    assert ks_distance(unlearned, others[:1]).floor is None


def test_ks_distance_sees_a_tail_that_a_mean_hides():
    even, split = torch.full((100,), 0.5), torch.cat([torch.zeros(50), torch.ones(50)])
    assert ks_distance(split, [even, even]) == pytest.approx((0.5, 0.0, 0.0), abs=1e-9)


def test_membership_auroc_and_leakage():
    forgotten, never_seen = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.5, 0.1])
    wins = [(a > b) + 0.5 * (a == b) for a in forgotten.tolist() for b in never_seen.tolist()]
    assert membership_auroc(forgotten, never_seen) == pytest.approx(sum(wins) / 6)
    assert privacy_leakage(0.8, 0.6) == pytest.approx((0.2 - 0.4) / 0.4)  # still recognised: negative
    assert privacy_leakage(0.5, 0.6) == pytest.approx(0.25)  # less than after retraining: positive
    assert privacy_leakage(0.6, 0.6) == 0.0
    assert privacy_leakage(0.6, 1.0) is None


def test_flipped_label_auc_is_about_the_labels_that_were_trained():
    trained = torch.tensor([0, 0, 1, 1])
    assert flipped_label_auc(torch.tensor([0.1, 0.2, 0.8, 0.9]), trained) == 1.0  # still believes them
    assert flipped_label_auc(torch.tensor([0.8, 0.9, 0.1, 0.2]), trained) == 0.0


def graphs_of(*pair_lists, num_users, num_items):
    index = [torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t() for pairs in pair_lists]
    return [InteractionGraph.from_edges(i, num_users, num_items) for i in index]


@st.composite
def several_graphs(draw):
    num_users, num_items = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    lists = draw(st.lists(st.lists(pair, max_size=12, unique=True), min_size=1, max_size=3))
    users = draw(st.lists(st.integers(0, num_users - 1), max_size=20))
    return graphs_of(*lists, num_users=num_users, num_items=num_items), torch.tensor(users, dtype=torch.long)


@given(several_graphs(), st.integers(0, 1000))
@settings(deadline=None)
def test_never_seen_pairs_are_never_seen_and_keep_the_users(case, seed):
    graphs, users = case
    known = {tuple(pair) for graph in graphs for pair in graph.pairs.t().tolist()}
    full = {u for u in range(graphs[0].num_users) if sum(v == u for v, _ in known) == graphs[0].num_items}
    pairs = never_seen_pairs(users, graphs, seed)
    assert pairs[0].tolist() == [u for u in users.tolist() if u not in full]
    assert not known & {tuple(pair) for pair in pairs.t().tolist()}
    assert pairs[1].numel() == 0 or 0 <= int(pairs[1].min()) <= int(pairs[1].max()) < graphs[0].num_items
    assert torch.equal(pairs, never_seen_pairs(users, graphs, seed))


def test_never_seen_pairs_are_uniform_over_the_rest():
    train, test = graphs_of([(0, 1), (0, 4), (1, 0)], [(0, 5)], num_users=2, num_items=8)
    pairs = never_seen_pairs(torch.zeros(5000, dtype=torch.long), [train, test], seed=3)
    counts = torch.bincount(pairs[1], minlength=8)
    rest = [0, 2, 3, 6, 7]
    assert counts.nonzero().flatten().tolist() == rest
    assert stats.chisquare(counts[rest].numpy()).pvalue > 1e-3
    other = never_seen_pairs(torch.zeros(5000, dtype=torch.long), [train, test], seed=4)
    assert not torch.equal(pairs, other)


def test_never_seen_pairs_need_graphs_of_one_size():
    graphs = graphs_of([(0, 0)], num_users=1, num_items=2) + graphs_of([(0, 0)], num_users=1, num_items=3)
    with pytest.raises(ValueError, match=r"equal size \(got sizes \[\(1, 2\), \(1, 3\)\]\)"):
        never_seen_pairs(torch.zeros(1, dtype=torch.long), graphs)


def test_forgetting_entry_holds_plain_numbers_only():
    entry = forgetting_entry(0.3, 0.4, [0.1, 0.2, 0.3])
    assert entry == pytest.approx(
        {"value": 0.3, "original": 0.4, "retrain_mean": 0.2, "retrain_sd": 0.1, "z": 1.0, "gap_closed": 0.5}
    )
    assert forgetting_entry(math.nan, 0.4, [0.1]) == {
        "value": None, "original": 0.4, "retrain_mean": 0.1, "retrain_sd": None, "z": None, "gap_closed": None,
    }  # fmt: skip
    assert forgetting_entry(0.3, 0.4, []).keys() == entry.keys()
    assert forgetting_entry(np.float32(0.5), torch.tensor(1.0).item(), [np.float64(0.0)] * 2)["gap_closed"] == 0.5
