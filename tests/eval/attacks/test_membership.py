"""LiRA against normal densities, RMIA and true positive rates against loops, and the calibration of the logits."""

import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal

from graphunlearn.eval.attacks import membership as module
from graphunlearn.eval.attacks.membership import lira, membership, rmia, true_positive_rate


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("num_out", [2, 5, 15, 16, 40])
def test_the_offline_attack_standardises_each_example(num_out):
    observed, outside = drawn(7), drawn(num_out, 7, seed=1) * torch.arange(1, 8)
    expected = []
    variances = [statistics.variance(outside[:, z].tolist()) for z in range(7)]
    for z in range(7):
        variance = variances[z] if num_out >= module.MANY else statistics.fmean(variances)
        expected.append((float(observed[z]) - statistics.fmean(outside[:, z].tolist())) / math.sqrt(variance))
    assert lira(observed, outside).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("num", [3, 20])
def test_the_online_attack_is_the_log_likelihood_ratio_of_two_normals(num):
    observed, outside, inside = drawn(6), drawn(num, 6, seed=1), 2 + 0.5 * drawn(num, 6, seed=2)

    def density(models):
        scale = models.std(0) if num >= module.MANY else models.var(0).mean().sqrt()
        return Normal(models.mean(0), scale).log_prob(observed)

    torch.testing.assert_close(lira(observed, outside, inside), density(inside) - density(outside))


def test_one_in_model_has_the_spread_of_the_out_models():
    observed, outside, inside = drawn(6), drawn(4, 6, seed=1), drawn(1, 6, seed=2)
    scale = outside.var(0).mean().sqrt()
    expected = Normal(inside[0], scale).log_prob(observed) - Normal(outside.mean(0), scale).log_prob(observed)
    torch.testing.assert_close(lira(observed, outside, inside), expected)


def test_one_out_model_or_none_that_varies_has_a_spread_of_one():
    observed, outside = drawn(4), drawn(1, 4, seed=1)
    torch.testing.assert_close(lira(observed, outside), observed - outside[0])
    torch.testing.assert_close(lira(observed, outside.expand(3, 4)), observed - outside[0])
    torch.testing.assert_close(lira(observed, outside.expand(20, 4)), observed - outside[0])


def test_models_are_needed():
    with pytest.raises(ValueError, match=r"'outside' must hold at least one model \(got none\)"):
        lira(drawn(3), drawn(0, 3))
    with pytest.raises(ValueError, match=r"'outside' must hold at least one entry"):
        rmia(drawn(3), drawn(0, 3), drawn(2), drawn(0, 2))
    with pytest.raises(ValueError, match=r"'population' must hold at least one entry"):
        rmia(drawn(3), drawn(1, 3), drawn(0), drawn(1, 0))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4), st.sampled_from([1.0, 1.5, 2.0]), st.integers(0, 99))
def test_rmia_matches_a_loop(num, num_population, num_models, gamma, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.rand(*shape, generator=generator, dtype=torch.float64)
             for shape in ((num,), (num_models, num), (num_population,), (num_models, num_population))]  # fmt: skip
    observed, outside, population, outside_population = (part.tolist() for part in parts)

    def ratio(p, models, k):
        mean = sum(model[k] for model in models) / len(models)
        return p / ((1.3 * mean + 0.7) / 2)

    expected = []
    for k, p in enumerate(observed):
        rho = ratio(p, outside, k)
        beaten = sum(rho > gamma * ratio(q, outside_population, z) for z, q in enumerate(population))
        expected.append(beaten / num_population)
    assert rmia(*parts, gamma=gamma).tolist() == pytest.approx(expected)


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=20),
    st.lists(st.integers(-4, 4), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 1.0]),
)
def test_the_true_positive_rate_is_the_best_of_all_thresholds(members, others, rate):
    best = 0.0
    for threshold in {*members, *others, *(m - 1 for m in members)}:
        if sum(o > threshold for o in others) <= rate * len(others) + 1e-9:
            best = max(best, sum(m > threshold for m in members) / len(members))
    found = true_positive_rate(torch.tensor(members).double(), torch.tensor(others).double(), rate)
    if rate < 1:
        assert found == pytest.approx(best)
    assert found <= best + 1e-12


def observed_of(num=30, num_controls=80, num_anchors=100, shift=0.0, scale=1.0, offset=0.0, noise=0):
    """One model: every example has a level of its own, ``shift`` is what training on the forgotten ones adds."""
    level = {"forgotten": drawn(num, seed=1), "controls": drawn(num_controls, seed=2), "anchors": drawn(num_anchors)}
    keys = enumerate(level)
    made = {key: level[key] + 0.1 * drawn(len(level[key]), seed=100 * noise + 10 + n) for n, key in keys}
    made["forgotten"] = made["forgotten"] + shift
    return {key: scale * value + offset for key, value in made.items()}


def naive_auroc(members, others):
    pairs = list(itertools.product(members.tolist(), others.tolist()))
    return sum((m > o) + (m == o) / 2 for m, o in pairs) / len(pairs)


def test_both_attacks_by_hand_with_calibrated_logits():
    attacked, outside = observed_of(shift=0.3, scale=1.7, offset=0.4, noise=9), [observed_of(noise=k) for k in range(4)]
    found = membership(attacked, outside, torch.arange(30))
    average = torch.stack([o["anchors"] for o in outside]).mean(0)
    slope = float(torch.cov(torch.stack([average, attacked["anchors"]]))[0, 1] / average.var())
    start = float(attacked["anchors"].mean()) - slope * float(average.mean())
    members, controls = ((attacked[key] - start) / slope for key in ("forgotten", "controls"))
    out = {key: torch.stack([o[key] for o in outside]) for key in ("forgotten", "controls")}
    scores = lira(torch.cat([members, controls]), torch.cat([out["forgotten"], out["controls"]], 1))
    assert found["lira"][0].value == pytest.approx(naive_auroc(scores[:30], scores[30:]))
    p, q = torch.sigmoid(controls), torch.sigmoid(out["controls"])
    background = p[1::2], q[:, 1::2]
    relative = rmia(torch.sigmoid(members), torch.sigmoid(out["forgotten"]), *background)
    others = rmia(p[0::2], q[:, 0::2], *background)
    assert found["rmia"][0].value == pytest.approx(naive_auroc(relative, others))
    assert found["lira"][1]["tpr@1%"] == pytest.approx(float((scores[:30] > scores[30:].max()).double().mean()))
    assert set(found["rmia"][1]) == {"tpr@1%", "tpr@0.1%"}


def test_larger_logits_everywhere_are_no_trace():
    """A model that was only trained longer is not taken for one that remembers, and one that remembers is found."""
    outside = [observed_of(noise=k) for k in range(4)]
    plain, longer = (
        membership(observed_of(scale=scale, offset=offset, noise=9), outside, torch.arange(30))["lira"][0].value
        for scale, offset in ((1.0, 0.0), (3.0, -2.0))
    )
    assert longer == pytest.approx(plain, abs=1e-6)
    assert abs(plain - 0.5) < 0.15
    learned = observed_of(shift=0.5, scale=3.0, offset=-2.0, noise=9)
    assert membership(learned, outside, torch.arange(30))["lira"][0].value > 0.95


def test_few_anchors_leave_the_logits_alone_and_nothing_to_compare_gives_nothing():
    outside = [observed_of(noise=k, num_anchors=19) for k in range(3)]
    attacked = observed_of(noise=9, num_anchors=19, offset=3.0)
    scores = lira(attacked["forgotten"], torch.stack([o["forgotten"] for o in outside]))
    assert membership(attacked, outside, torch.arange(30))["lira"][0].value > 0
    assert float(scores.mean()) > 5
    assert membership(attacked, [], torch.arange(30)) == {}
    short = {key: value[:1] for key, value in attacked.items()}
    assert membership(short, [{k: v[:1] for k, v in o.items()} for o in outside], torch.arange(1)) == {}
    none = {key: value[:0] for key, value in attacked.items()} | {"controls": attacked["controls"]}
    others = [{**{k: v[:0] for k, v in o.items()}, "controls": o["controls"]} for o in outside]
    assert membership(none, others, torch.zeros(0, dtype=torch.long)) == {}


def test_the_evidence_of_one_user_is_one_unit():
    found = membership(observed_of(noise=9), [observed_of(noise=k) for k in range(3)], torch.arange(30) // 5)
    assert found["lira"][0].sums.shape == (1, 6)
    assert found["lira"][0].counts.tolist() == [[5.0] * 6]


def test_shadow_models_serve_as_in_models():
    """Controls were in no training: on in-models they get the mean difference that training made on the examples."""
    attacked, outside = observed_of(shift=0.2, noise=9), [observed_of(noise=k) for k in range(3)]
    inside = [observed_of(noise=20 + k, shift=0.6) for k in range(2)]
    found = membership(attacked, outside, torch.arange(30), inside)
    out, own = (
        {key: torch.stack([o[key] for o in group]) for key in ("forgotten", "controls", "anchors")}
        for group in (outside, inside)
    )
    start, slope = module._calibration(attacked["anchors"], out["anchors"].mean(0))
    observed = torch.cat([(attacked[key] - start) / slope for key in ("forgotten", "controls")])
    gap = own["forgotten"].mean() - out["forgotten"].mean()

    def density(*models):
        models = torch.cat(models, 1)
        return Normal(models.mean(0), models.var(0).mean().sqrt()).log_prob(observed)

    ratio = density(own["forgotten"], own["controls"] + gap) - density(out["forgotten"], out["controls"])
    assert found["lira"][0].value == pytest.approx(naive_auroc(ratio[:30], ratio[30:]))
    plain = membership(attacked, outside, torch.arange(30))
    assert found["rmia"][0].value == plain["rmia"][0].value
