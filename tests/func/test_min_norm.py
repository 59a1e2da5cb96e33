"""Min-norm weights against scipy, a grid on the simplex, every face, and the conditions of optimality."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from graphunlearn.func import gram_matrix, min_norm_point, min_norm_weights
from graphunlearn.func import min_norm as module

DEGENERATE = {
    "any": lambda g: g,
    "one of them zero": lambda g: g * (torch.arange(len(g)) != 0).double().unsqueeze(1),
    "all of them zero": torch.zeros_like,
    "parallel": lambda g: torch.cat([g[:1] * 3, g[:-1]]),
    "opposite": lambda g: torch.cat([g[:1] * -2, g[:-1]]),
    "twice the same": lambda g: torch.cat([g[:1], g[:-1]]),
    "nearly the same": lambda g: torch.cat([g[:1] * (1 + 1e-7), g[:-1]]),
    "all the same": lambda g: g[:1].repeat(len(g), 1),
    "on one line": lambda g: g[:, :1] * torch.ones(3, dtype=g.dtype),
    "far from zero": lambda g: g + 4,
    "flat": lambda g: g[:, :2],
    "of length one": lambda g: torch.nn.functional.normalize(g, dim=1),
    "of all sizes": lambda g: g * 10.0 ** torch.linspace(-6, 6, len(g), dtype=g.dtype).unsqueeze(1),
}


def vectors(k, seed, kind="any", dim=5):
    generator = torch.Generator().manual_seed(1000 * seed + k)
    return DEGENERATE[kind](torch.randn(k, dim, generator=generator, dtype=torch.float64))


def by_scipy(gram):
    """The smallest squared norm that scipy's SLSQP comes to."""
    gram, k = gram.numpy(), len(gram)
    found = minimize(
        lambda a: a @ gram @ a,
        np.full(k, 1 / k),
        jac=lambda a: 2 * gram @ a,
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(k)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    return float(found.fun)


def by_faces(g):
    """The smallest point over all faces of the simplex, each by a pseudo-inverse of the vectors themselves."""
    best = float("inf")
    for size in range(1, len(g) + 1):
        for face in combinations(range(len(g)), size):
            own = g[list(face)]
            step = -torch.linalg.pinv((own[1:] - own[0]).t(), rtol=1e-12) @ own[0] if size > 1 else own.new_zeros(0)
            weights = torch.cat([1 - step.sum().view(1), step])
            if float(weights.min()) >= 0:
                best = min(best, float((weights @ own).square().sum()))
    return best


def grid(k, steps):
    """All weights that are whole multiples of one over ``steps``."""
    if k == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    cuts = torch.cartesian_prod(*[torch.arange(steps + 1)] * (k - 1)).view(-1, k - 1)
    cuts = cuts[cuts.sum(1) <= steps]
    return torch.cat([cuts, steps - cuts.sum(1, keepdim=True)], 1).double() / steps


def assert_optimal(g, tol=1e-12):
    """The conditions of Karush, Kuhn and Tucker, on the vectors themselves."""
    found = min_norm_point(g @ g.t())
    scale = float(g.square().sum(1).max())
    assert float(found.weights.min()) >= 0
    assert float(found.weights.sum()) == pytest.approx(1, abs=1e-12)
    point = found.weights @ g
    squared, products = float(point.square().sum()), g @ point
    assert found.squared_norm == pytest.approx(squared, abs=1e-13 * scale)
    assert squared - float(products.min()) <= tol * scale
    used = products[found.weights > 1e-9] - squared
    assert float(used.abs().max()) <= tol * scale
    assert 0 <= found.gap <= tol
    return found, scale


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 9, 12])
def test_the_conditions_of_optimality_hold(k, kind):
    for seed in range(30):
        assert_optimal(vectors(k, seed, kind))


@pytest.mark.parametrize("kind", DEGENERATE)
def test_scipy_finds_nothing_smaller(kind):
    for k in (2, 3, 4, 5, 7):
        for seed in range(30):
            g = vectors(k, seed, kind)
            found, scale = assert_optimal(g)
            if scale == 0:
                continue
            reference = by_scipy(g @ g.t() / scale) * scale
            assert found.squared_norm <= reference + 1e-12 * scale
            if kind != "of all sizes":  # which is too much for scipy
                assert found.squared_norm == pytest.approx(reference, abs=1e-6 * scale)


@pytest.mark.parametrize("kind", DEGENERATE)
def test_no_point_of_a_grid_is_smaller(kind):
    for k, steps in ((1, 1), (2, 200), (3, 60), (4, 20)):
        points = grid(k, steps)
        for seed in range(20):
            g = vectors(k, seed, kind)
            gram = g @ g.t()
            found, scale = assert_optimal(g)
            values = ((points @ gram) * points).sum(1)
            assert found.squared_norm <= float(values.min()) + 1e-13 * scale
            assert float(values.min()) - found.squared_norm <= 8 * scale / steps  # and the grid is not far from it


@pytest.mark.parametrize("kind", DEGENERATE)
def test_it_is_the_smallest_of_all_faces(kind):
    for k in (2, 3, 4, 5, 6):
        for seed in range(8):
            g = vectors(k, seed, kind)
            found, scale = assert_optimal(g)
            assert found.squared_norm == pytest.approx(by_faces(g), abs=1e-11 * scale)


@pytest.mark.parametrize("k", [2, 3, 4, 8, 12, 25])
def test_weights_of_independent_vectors_are_those_of_non_negative_least_squares(k):
    """min |G a|^2 + (sum a - 1)^2 over a >= 0 lies on the ray of the solution."""
    for seed in range(40):
        g = vectors(k, seed, dim=k + 2)
        ray, _ = nnls(torch.cat([g.t(), torch.ones(1, k, dtype=g.dtype)]).numpy(), np.eye(k + 3)[-1])
        torch.testing.assert_close(min_norm_weights(g @ g.t()), torch.tensor(ray / ray.sum()), rtol=0, atol=1e-8)


def test_closed_forms():
    torch.testing.assert_close(min_norm_weights(torch.eye(3)), torch.full((3,), 1 / 3))
    torch.testing.assert_close(min_norm_weights(torch.diag(torch.tensor([1.0, 2.0, 4.0]))), torch.tensor([4, 2, 1]) / 7)
    torch.testing.assert_close(min_norm_weights(torch.eye(12)), torch.full((12,), 1 / 12))
    assert min_norm_weights(torch.tensor([[4.0, 2.0], [2.0, 1.0]])).tolist() == [
        0,
        1,
    ]  # the shorter of two parallel ones
    assert min_norm_weights(torch.tensor([[9.0, -3.0], [-3.0, 1.0]])).tolist() == [0.25, 0.75]  # opposite: they cancel
    assert min_norm_weights(torch.tensor([[7.0]])).tolist() == [1]


@pytest.mark.parametrize("k", [3, 5])
def test_a_zero_vector_takes_all_the_weight(k):
    g = vectors(k, 0)
    g[1] = 0
    found = min_norm_point(g @ g.t())
    assert found.weights.tolist() == [float(i == 1) for i in range(k)]
    assert (found.squared_norm, found.gap) == (0, 0)


def test_of_equal_vectors_the_first_is_taken():
    for k in (2, 3, 7):
        assert min_norm_weights(torch.ones(k, k)).tolist() == [1.0] + [0.0] * (k - 1)
        assert min_norm_weights(torch.zeros(k, k)).tolist() == [1.0] + [0.0] * (k - 1)


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from(sorted(DEGENERATE)), st.integers(-120, 120))
def test_the_scale_makes_no_difference(seed, k, kind, exponent):
    g = vectors(k, seed, kind)
    gram = g @ g.t()
    found, scaled = min_norm_point(gram), min_norm_point(gram * 2.0**exponent)
    assert torch.equal(found.weights, scaled.weights)
    assert scaled.squared_norm == found.squared_norm * 2.0**exponent
    assert scaled.gap == found.gap


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(0, 10**6))
def test_the_order_makes_no_difference(seed, k, shuffle):
    g = vectors(k, seed, dim=9)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(shuffle))
    gram = g @ g.t()
    torch.testing.assert_close(
        min_norm_weights(gram[order][:, order]), min_norm_weights(gram)[order], rtol=0, atol=1e-9
    )


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from(sorted(DEGENERATE)))
def test_its_negative_is_a_direction_of_descent_for_all(seed, k, kind):
    g = vectors(k, seed, kind)
    found, scale = assert_optimal(g)
    assert float((g @ (found.weights @ g)).min()) >= found.squared_norm - 1e-12 * scale


@given(st.integers(0, 10**6), st.integers(2, 9))
def test_the_gap_bounds_the_distance_of_any_weights(seed, k):
    """What the certificate claims, at weights that are not the solution."""
    g = vectors(k, seed)
    generator = torch.Generator().manual_seed(seed)
    other = torch.rand(k, generator=generator, dtype=g.dtype)
    point, solution = (other / other.sum()) @ g, min_norm_weights(g @ g.t()) @ g
    gap = float(point.square().sum() - (g @ point).min())
    assert float((point - solution).square().sum()) <= gap + 1e-12


def test_a_matrix_computed_in_float32_is_served():
    for kind in DEGENERATE:
        for k in (3, 6):
            g = vectors(k, 3, kind).float()
            found = min_norm_point(g @ g.t())
            assert found.weights.dtype == torch.float32
            exact = min_norm_point(g.double() @ g.double().t())
            assert found.squared_norm == pytest.approx(exact.squared_norm, abs=1e-5 * float(g.square().sum(1).max()))


def test_vectors_can_be_given_themselves():
    shapes = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(5)]
    flat = torch.stack([v.detach().flatten() for v in shapes])
    found = min_norm_weights(shapes)
    torch.testing.assert_close(found, min_norm_weights(flat @ flat.t()), rtol=1e-12, atol=1e-12)
    assert not found.requires_grad
    assert min_norm_weights([torch.ones(2), torch.zeros(2)]).dtype == torch.float32


def test_a_list_of_one_vector_has_the_weight_one():
    found = min_norm_point([torch.tensor([3.0, 4.0])])
    assert found.weights.tolist() == [1.0]
    assert (found.squared_norm, found.gap) == (25.0, 0.0)


def test_whole_numbers_have_weights_that_are_not():
    for given_ in ([torch.tensor([2, 0]), torch.tensor([0, 1])], torch.tensor([[4, 0], [0, 1]])):
        torch.testing.assert_close(min_norm_weights(given_), torch.tensor([0.2, 0.8], dtype=torch.float64))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.ones(2, 3), r"'vectors' must be a Gram matrix \[k, k\] or a list \(got a tensor \[2, 3\]\)"),
        (torch.ones(0, 0), r"'vectors' must be a Gram matrix .* \(got a tensor \[0, 0\]\)"),
        ([], r"'vectors' must be one or more tensors of one shape \(got none\)"),
        ([torch.ones(2), torch.ones(3)], r"tensors of one shape \(got \[\(2,\), \(3,\)\]\)"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), r"'vectors' must be a symmetric matrix \(got \[0, 1\] and \[1, 0\] 2"),
        (torch.tensor([[-1.0, 0.0], [0.0, 1.0]]), r"'vectors' must have squared norms on the diagonal \(got -1"),
        (torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), "'vectors' must have finite inner products"),
        ([torch.tensor([float("inf")]), torch.ones(1)], "'vectors' must have finite inner products"),
    ],
)
def test_what_is_no_gram_matrix_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        min_norm_point(bad)


@pytest.mark.parametrize("block", [2, 1 << 15])
def test_the_gram_matrix_is_that_of_the_flattened_vectors(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    made = [[torch.randn(5, 3, generator=generator), torch.randn(4, generator=generator)] for _ in range(3)]
    flat = torch.stack([torch.cat([part.flatten() for part in parts]).double() for parts in made])
    torch.testing.assert_close(gram_matrix(made), flat @ flat.t(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("made", [[], [[]], [[torch.ones(2)], [torch.ones(3)]]])
def test_vectors_of_several_tensors_have_one_shape(made):
    with pytest.raises(ValueError, match="'vectors' must be one or more vectors of one shape"):
        gram_matrix(made)
