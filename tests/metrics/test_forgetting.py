import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphunlearn.metrics.forgetting import (
    distance_to_retrain,
    flipped_label_auc,
    forgetting_entry,
    gap_closed,
    ks_distance,
    membership_auroc,
    mi_bf,
    mi_ng,
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


def test_the_share_of_the_gap_has_no_unit_and_no_negative_zero():
    for unit in (1e-9, 1e-3, 1e6):  # such as that of a loss per interaction, or of a sum
        assert gap_closed(3 * unit, 2 * unit, 1 * unit) == pytest.approx(0.5)
    assert str(gap_closed(0.5, 0.5, 0.75)) == "0.0"  # (0.5 - 0.5) / -0.25 is -0.0


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


def test_membership_ratios_are_ratios_of_means_and_have_no_value_over_nothing():
    before, after, never = torch.tensor([0.9, 0.7]), torch.tensor([0.1, 0.3]), torch.tensor([0.5, 0.1, 0.3])
    assert mi_bf(before, after) == pytest.approx((0.9 + 0.7) / (0.1 + 0.3))
    assert mi_ng(never, after) == pytest.approx((0.9 / 3) / (0.4 / 2))
    assert mi_bf(before, torch.zeros(2)) is None
    assert mi_ng(never, torch.zeros(2)) is None


def test_ks_distance_does_not_tell_rounding_errors_apart():
    half = torch.full((50,), 0.5)
    noisy = half + 6e-8 * torch.arange(50).remainder(3)
    assert not torch.equal(noisy, half)
    assert ks_distance(noisy, [half, half]) == (0.0, 1.0, 0.0)
    assert ks_distance(half + 1e-4, [half, half]).statistic == 1.0


def test_forgetting_entry_holds_plain_numbers_only():
    entry = forgetting_entry(0.3, 0.4, [0.1, 0.2, 0.3])
    assert entry == pytest.approx(
        {"value": 0.3, "original": 0.4, "retrain_mean": 0.2, "retrain_sd": 0.1, "z": 1.0, "gap_closed": 0.5}
    )
    assert forgetting_entry(math.nan, 0.4, [0.1]) == {
        "value": None, "original": 0.4, "retrain_mean": 0.1, "retrain_sd": None, "z": None, "gap_closed": None,
    }  # fmt: skip
    assert forgetting_entry(0.3, 0.4, []).keys() == entry.keys()
    undefined = forgetting_entry(0.3, None, [0.1, 0.2, 0.3])
    assert undefined == pytest.approx(entry | {"original": None, "gap_closed": None})
    assert forgetting_entry(np.float32(0.5), torch.tensor(1.0).item(), [np.float64(0.0)] * 2)["gap_closed"] == 0.5
