"""KLOM against torch's divergence of normals and numpy's histograms; overlap against sets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from graphunlearn.metrics.ensembles import klom, klom_if_equal, top_k_overlap

BINS, LEAST = 20, 1e-5  # as in the definition


def margins(models, examples, shift=0.0, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(models, examples, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(3, 3), (5, 4), (15, 20), (20, 15)])
def test_few_models_give_the_divergence_of_normals(sizes):
    unlearned, retrained = margins(sizes[0], 9, 0.5, 2.0), margins(sizes[1], 9, seed=1)
    normals = [Normal(m.mean(0), m.std(0)) for m in (unlearned, retrained)]
    assert klom(unlearned, retrained) == pytest.approx(float(kl_divergence(*normals).mean()))


@pytest.mark.parametrize("sizes", [(16, 16), (40, 25)])
def test_many_models_give_the_divergence_of_histograms(sizes):
    unlearned, retrained = margins(sizes[0], 7, 0.5, 2.0), margins(sizes[1], 7, seed=1)
    unlearned[0, 0] = 1e4  # clipped
    total = []
    for u, r in zip(unlearned.t().clamp(-100, 100).numpy(), retrained.t().clamp(-100, 100).numpy()):
        both = np.concatenate([u, r])
        shares = []
        for part in (u, r):
            count, _ = np.histogram(part, bins=BINS, range=(both.min(), both.max()))
            share = count / len(part) + LEAST
            shares.append(share / share.sum())
        total.append((shares[0] * np.log(shares[0] / shares[1])).sum())
    assert klom(unlearned, retrained) == pytest.approx(np.mean(total))


@pytest.mark.parametrize("count", [3, 16])
def test_the_same_models_are_at_distance_zero_and_moved_ones_are_not(count):
    same = margins(count, 5)
    assert klom(same, same) == pytest.approx(0, abs=1e-9)
    moved = [klom(same + shift, same) for shift in (0.05, 1.0)]
    assert 0 < moved[0] < moved[1]


@pytest.mark.parametrize("count", [3, 16])
def test_margins_that_never_vary_give_a_number(count):
    flat = torch.zeros(count, 4)
    assert klom(flat, flat) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(klom(flat + 1, flat))


def test_too_few_models_or_no_examples_have_no_value_and_other_shapes_are_refused():
    assert klom(margins(2, 5), margins(9, 5)) is None
    assert klom(margins(9, 5), margins(2, 5)) is None
    assert klom(margins(9, 0), margins(9, 0)) is None
    with pytest.raises(ValueError, match=r"'unlearned' must hold margins of the same examples as 'retrained'"):
        klom(margins(3, 5), margins(3, 4))


ids = st.lists(st.integers(0, 8), min_size=3, max_size=3, unique=True)


@given(st.lists(st.tuples(ids, ids, st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5))
def test_the_overlap_is_that_of_sets(rows):
    """Lists that end early are filled up with -1."""
    first, second, total = [], [], 0.0
    for a, b, cut_a, cut_b in rows:
        first.append(a[:cut_a] + [-1] * (3 - cut_a))
        second.append(b[:cut_b] + [-1] * (3 - cut_b))
        one, other = set(a[:cut_a]), set(b[:cut_b])
        total += len(one & other) / max(len(one | other), 1)
    assert top_k_overlap(torch.tensor(first), torch.tensor(second)) == pytest.approx(total / len(rows))


def test_no_lists_have_no_overlap():
    assert top_k_overlap(torch.zeros(0, 5), torch.zeros(0, 5)) is None


@pytest.mark.parametrize(("num", "others"), [(3, 6), (5, 5), (2 + 3, 8), (12, 7), (16, 9)])
def test_klom_of_equal_distributions_against_simulation(num, others):
    generator = torch.Generator().manual_seed(num)
    drawn = [torch.randn(n, 200_000, generator=generator, dtype=torch.float64) for n in (num, others)]
    blocks = torch.tensor([klom(*(d[:, k::20] for d in drawn)) for k in range(20)])
    error = float(blocks.std()) / 20**0.5
    assert klom_if_equal(num, others) == pytest.approx(float(blocks.mean()), abs=5 * error)


def test_klom_of_equal_distributions_is_known_only_where_it_is_finite():
    assert klom_if_equal(5, 4) < float("inf")
    assert klom_if_equal(100, 15) < klom_if_equal(5, 15) < klom_if_equal(3, 5)
    for num, others in ((2, 9), (9, 3), (16, 16)):
        assert klom_if_equal(num, others) is None
