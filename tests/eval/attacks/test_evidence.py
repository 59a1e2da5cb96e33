"""Values of attacks and their comparison with retrained models: loops, closed forms and simulated ensembles."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphunlearn.eval.attacks import evidence
from graphunlearn.eval.attacks.evidence import Evidence, compare, placements


def of_users(values):
    """One contribution per user."""
    return Evidence.of((torch.as_tensor(values, dtype=torch.float64), torch.arange(len(values))))


def ensemble(num, units, model_noise, unit_noise, generator):
    """Evidence on models whose units share a level, and what every model adds to all of its units."""
    level, shifts, found = torch.randn(units, generator=generator), [], []
    for _ in range(num):
        shifts.append(model_noise * float(torch.randn((), generator=generator)))
        found.append(of_users(level + shifts[-1] + unit_noise * torch.randn(units, generator=generator)))
    return found, shifts


contributions = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=1, max_size=20)


def tensors(group):
    values, units = zip(*group)
    return torch.tensor(values, dtype=torch.float64), torch.tensor(units)


@given(st.lists(contributions, min_size=1, max_size=2), st.data())
def test_values_with_repeated_units_match_a_loop(groups, data):
    made = Evidence.of(*map(tensors, groups))
    means = [sum(v for v, _ in group) / len(group) for group in groups]
    assert made.value == pytest.approx(means[0] - (means[1] if len(means) > 1 else 0.0))
    units = sorted({unit for group in groups for _, unit in group})
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(units), max_size=len(units)))
    times = dict(zip(units, counts))
    sums = [(sum(times[u] * v for v, u in group), sum(times[u] for _, u in group)) for group in groups]
    (found,) = made.resampled(torch.tensor([counts], dtype=torch.float64)).tolist()
    if all(weight for _, weight in sums):
        means = [total / weight for total, weight in sums]
        assert found == pytest.approx(means[0] - (means[1] if len(means) > 1 else 0.0))
    else:
        assert math.isnan(found)


def test_fewer_than_five_units_in_a_group_give_no_interval():
    generator = torch.Generator().manual_seed(0)
    for count, known in ((4, False), (5, True)):
        values = [torch.rand(count, generator=generator) for _ in range(5)]
        found = compare(*map(of_users, values[:2]), [of_users(v) for v in values[2:]])
        assert (found.beyond is not None) is known
        assert (found.low is not None) is known
    forgotten, others = (torch.rand(3), torch.arange(3)), (torch.rand(50), torch.arange(3, 53))
    small = Evidence.of(forgotten, others)
    assert compare(small, small, [small] * 3).low is None


def test_many_units_become_blocks_and_give_the_same_value(monkeypatch):
    monkeypatch.setattr(evidence, "MOST_UNITS", 7)
    values = torch.randn(50).double()
    made = of_users(values)
    assert made.sums.shape == (1, 7)
    assert made.value == pytest.approx(float(values.mean()))
    assert made.counts.sum() == 50


def test_nothing_in_a_group_has_no_value():
    empty = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert math.isnan(Evidence.of(empty).value)
    some = torch.ones(2), torch.arange(2)
    missing = Evidence.of(some, empty)
    assert math.isnan(missing.value)
    found = compare(missing, missing, [missing, missing, missing])
    assert (found.beyond, found.leak_left, found.low, found.separated) == (None, None, None, False)
    assert found.entry()["value"] is None


scores = st.lists(st.integers(-3, 3), min_size=1, max_size=15)


@given(scores, scores)
def test_placements_are_the_pairs_won_and_their_mean_the_auroc(positive, negative):
    found = placements(torch.tensor(positive).double(), torch.tensor(negative).double())
    for share, own in zip(found.tolist(), positive):
        assert share == pytest.approx(sum((own > n) + (own == n) / 2 for n in negative) / len(negative))
    whole = stats.mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
    assert float(found.mean()) == pytest.approx(whole)


def test_no_retrained_model_is_an_error_and_one_gives_no_interval():
    one = of_users([0.5, 0.7])
    with pytest.raises(ValueError, match=r"'references' must hold at least one retrained model \(got none\)"):
        compare(one, one, [])
    found = compare(of_users([1.0, 1.0]), of_users([2.0, 3.0]), [one])
    assert (found.value, found.original, found.retrain_mean) == pytest.approx((1.0, 2.5, 0.6))
    assert {found.retrain_sd, found.low, found.high, found.leak_left, found.beyond} == {None}


def test_the_interval_is_the_analytic_one_of_a_mean_within_monte_carlo():
    """Retrained models that agree exactly leave the chance of which users were asked: the standard error of a mean."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(200, generator=generator).double()
    same = of_users(torch.zeros(200))
    found = compare(of_users(values), of_users(values + 5), [same] * 4)
    error = float(values.std()) / math.sqrt(200)
    quantile = stats.t.ppf(0.975, 3)
    assert found.retrain_sd == 0
    half = (found.difference_high - found.difference_low) / 2
    assert half / quantile == pytest.approx(error, rel=4 / math.sqrt(2 * evidence.DRAWS))  # four standard errors
    assert (found.difference_high + found.difference_low) / 2 == pytest.approx(found.value)
    half = (found.high - found.low) / 2
    assert half / stats.t.ppf(0.975, 199) == pytest.approx(error, rel=4 / math.sqrt(2 * evidence.DRAWS))
    assert (found.high + found.low) / 2 == pytest.approx(found.value)


def test_bounds_and_share_against_their_formulas_where_every_unit_is_alike():
    """Without spread between users only that between models is left, and every quantity has a closed form."""
    levels = [0.5, 0.6, 0.8, 0.9]
    found = compare(of_users([0.9] * 6), of_users([3.0] * 6), [of_users([level] * 6) for level in levels])
    mean, sd = statistics.fmean(levels), statistics.stdev(levels)
    quantile = stats.t.ppf(0.975, 3)
    furthest, gap = quantile * sd * math.sqrt(1 + 1 / 4), 3.0 - mean
    share = (0.9 - mean) / gap
    assert found.retrain_mean == pytest.approx(mean)
    assert found.retrain_sd == pytest.approx(sd)
    assert found.difference_high == pytest.approx(0.9 - mean + quantile * sd / 2)
    assert found.difference_low == pytest.approx(0.9 - mean - quantile * sd / 2)
    assert (found.low, found.high) == pytest.approx((0.9, 0.9))  # all units are alike, and their choice does not matter
    assert found.beyond == pytest.approx((0.9 - mean) / furthest)
    assert found.leak_left == pytest.approx(share)
    half = quantile * sd * math.sqrt(1 - share**2 + (1 - share) ** 2 / 4) / gap
    assert (found.leak_low, found.leak_high) == pytest.approx((share - half, share + half))
    shared = compare(of_users([0.9] * 6), of_users([3.0] * 6), [of_users([level] * 6) for level in levels], tests=5)
    wider = stats.t.ppf(1 - 0.05 / 10, 3)
    assert shared.difference_high == pytest.approx(0.9 - mean + wider * sd / 2)
    assert shared.high == found.high
    assert shared.beyond == pytest.approx((0.9 - mean) / (wider * sd * math.sqrt(1 + 1 / 4)))


def test_the_moderated_spread_against_a_loop_over_the_same_draws():
    found_by, _ = ensemble(6, 12, 0.05, 1.0, torch.Generator().manual_seed(5))
    model, original, references = found_by[0], found_by[1], found_by[2:]
    found = compare(model, original, references, seed=9)
    drawn = torch.randint(12, (evidence.DRAWS, 12), generator=torch.Generator().manual_seed(9)).tolist()
    means = [[statistics.fmean(float(r.sums[0, u]) for u in units) for r in references] for units in drawn]
    apart = [[value - statistics.fmean(row) for value in row] for row in means]
    expected = statistics.fmean(statistics.variance(column) for column in zip(*apart)) * 4 / 3
    variance = statistics.variance(r.value for r in references)
    prior = evidence.PRIOR * min(1, expected / variance)
    spread = math.sqrt((3 * variance + prior * expected) / (3 + prior))
    assert found.retrain_sd == pytest.approx(spread)
    quantile = stats.t.ppf(0.975, 3 + prior)
    gap = [statistics.fmean(float(model.sums[0, u]) for u in units) - statistics.fmean(row)
           for units, row in zip(drawn, means)]  # fmt: skip
    half = quantile * math.sqrt(statistics.variance(gap) + spread**2 / 4)
    assert found.difference_high - (found.value - found.retrain_mean) == pytest.approx(half)


def test_an_original_like_retrained_models_is_not_separated():
    levels = [0.5, 0.6, 0.8, 0.9]
    references = [of_users([level] * 6) for level in levels]
    mean, sd = statistics.fmean(levels), statistics.stdev(levels)
    edge = mean + stats.t.ppf(0.975, 3) * sd * math.sqrt(1 + 1 / 4)
    for original, separated in ((edge - 0.01, False), (edge + 0.01, True), (2 * mean - edge - 0.5, False)):
        found = compare(of_users([0.7] * 6), of_users([original] * 6), references)
        assert found.separated is separated
        assert (found.leak_low is None) is not separated
        assert found.beyond is not None


@pytest.mark.parametrize("case", [(3, 0.0, 1.0), (3, 1.0, 0.1), (5, 0.3, 1.0), (5, 1.0, 0.1)])
def test_bounds_hold_for_about_as_many_retrained_models_as_they_say(case):
    """Another model of the same ensemble exceeds the bound in 5 %, and the interval covers the truth in 95 %."""
    num, model_noise, unit_noise = case
    generator, exceeded, covered, runs = torch.Generator().manual_seed(0), 0, 0, 300
    for seed in range(runs):
        found_by, shifts = ensemble(num + 2, 30, model_noise, unit_noise, generator)
        found = compare(found_by[0], found_by[1], found_by[2:], seed=seed)
        exceeded += abs(found.beyond) > 1
        covered += found.difference_low <= shifts[0] <= found.difference_high
    error = math.sqrt(0.05 * 0.95 / runs)
    assert exceeded / runs <= 0.05 + 3 * error
    assert covered / runs >= 0.95 - 3 * error
    if model_noise > unit_noise:  # where models differ more than users, the bound is not only safe but tight
        assert exceeded / runs >= 0.05 - 3 * error


@pytest.mark.parametrize("num", [3, 5])
@pytest.mark.parametrize("left", [0.0, 0.4])
def test_the_share_left_is_covered_as_often_as_its_interval_says(num, left):
    """The models have seeds of their own, and so has the one whose share is estimated."""
    generator, covered, told, runs = torch.Generator().manual_seed(1), 0, 0, 300

    def model(level, mean):
        shift = 0.03 * float(torch.randn((), generator=generator))
        return of_users(level + mean + shift + 0.05 * torch.randn(30, generator=generator))

    for seed in range(runs):
        level = 0.5 + 0.2 * torch.randn(30, generator=generator)
        unlearned, original = model(level, left * 0.4), model(level, 0.4)
        found = compare(unlearned, original, [model(level, 0.0) for _ in range(num)], seed=seed)
        if found.separated:
            told += 1
            covered += found.leak_low <= left <= found.leak_high
    assert told > 0.9 * runs
    assert covered / told >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / told)


@pytest.mark.parametrize("num", [3, 5])
def test_retrained_models_lie_further_out_by_any_of_several_attacks_in_5_percent(num):
    """All attacks share the level, so that asking several of them does not make a retrained model look different."""
    generator, out, runs, attacks = torch.Generator().manual_seed(2), 0, 300, 4
    for seed in range(runs):
        beyond = []
        for _ in range(attacks):
            found_by, _ = ensemble(num + 2, 30, 1.0, 0.3, generator)
            beyond.append(compare(found_by[0], found_by[1], found_by[2:], tests=attacks, seed=seed).beyond)
        out += max(map(abs, beyond)) > 1
    assert out / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_the_interval_of_a_value_is_about_its_own_units_and_within_what_is_possible():
    """Whatever retrained models do, an AUROC is between 0 and 1, and a difference of two between -1 and 1."""
    generator = torch.Generator().manual_seed(3)
    high = of_users(torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.4]))
    apart = [of_users(torch.rand(6, generator=generator)) for _ in range(4)]
    close = [of_users(torch.full((6,), level)) for level in (0.5, 0.51, 0.52, 0.53)]
    one, other = (compare(high, high, references, limits=(0.0, 1.0)) for references in (apart, close))
    assert (one.low, one.high) == (other.low, other.high)
    assert one.high == 1.0
    assert one.low < high.value < one.high
    assert compare(high, high, apart).high > 1.0
    both = Evidence.of(
        (torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.5]), torch.arange(6)),
        (torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.5]), torch.arange(6, 12)),
    )
    found = compare(both, both, [both] * 3, limits=(0.0, 1.0))
    assert found.high == 1.0
    assert -1.0 <= found.low < both.value
    covered, runs = 0, 400
    for seed in range(runs):
        drawn = of_users(torch.rand(20, generator=generator))
        found = compare(drawn, drawn, [drawn], seed=seed)  # no retrained model is needed
        covered += found.low <= 0.5 <= found.high
    assert abs(covered / runs - 0.95) <= 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(("level", "left", "outside"), [(0.30, 1.0, True), (0.45, 0.25, True), (0.60, -0.5, True)])
def test_two_sided_attacks_measure_on_the_side_where_the_original_is(level, left, outside):
    """Injections can lower their targets; then the original lies below retrained models."""
    references = [of_users([value] * 6) for value in (0.49, 0.50, 0.50, 0.51)]
    found = compare(of_users([level] * 6), of_users([0.3] * 6), references, two_sided=True)
    assert found.leak_left == pytest.approx(left)
    assert (found.beyond > 0) is (left > 0)
    assert (abs(found.beyond) > 1) is outside
    one_sided = compare(of_users([level] * 6), of_users([0.3] * 6), references)
    assert one_sided.leak_left is None
    assert one_sided.beyond == pytest.approx(-found.beyond)


def test_the_entry_is_plain_and_has_no_number_that_is_not_finite():
    found = compare(of_users([0.9] * 5), of_users([3.0] * 5), [of_users([v] * 5) for v in (0.5, 0.6, 0.7)])
    entry = found.entry()
    leak = {"leak_left", "leak_low", "leak_high"}
    further = {"retrain_sd", "low", "high", "beyond", "difference_low", "difference_high"}
    assert set(entry) == leak | further | {"value", "original", "retrain_mean"}
    assert all(math.isfinite(value) for value in entry.values())


def test_few_units_give_no_interval():
    found = compare(of_users([0.9] * 4), of_users([3.0] * 4), [of_users([v] * 4) for v in (0.5, 0.6, 0.7)])
    assert found.value == pytest.approx(0.9)
    assert found.retrain_mean == pytest.approx(0.6)
    assert (found.low, found.leak_left, found.beyond) == (None, None, None)
