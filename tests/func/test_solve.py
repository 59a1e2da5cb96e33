"""Solvers against dense linear algebra."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.func import conjugate_gradients, lanczos, largest_eigenvalue, lissa

# float64 and condition numbers up to 1e3: solutions agree to about 1e-12
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def spectrum(values, seed=0):
    """A symmetric matrix with the given eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.t()
    return (matrix + matrix.t()) / 2


POSITIVE = [0.01, 0.1, 0.5, 1.0, 2.0, 3.0, 7.0, 10.0]
INDEFINITE = [-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 5.0, 9.0]
SINGULAR = [0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 9.0]


@pytest.fixture
def b():
    return torch.randn(8, dtype=torch.float64)


def times(matrix):
    return lambda v: matrix @ v


def relative_residual(matrix, x, b):
    return float((b - matrix @ x).norm() / b.norm())


# ---- conjugate gradients


@pytest.mark.parametrize("damping", [0.0, 0.3, "vector"], ids=str)
@pytest.mark.parametrize("jacobi", [False, True], ids=["plain", "preconditioned"])
def test_cg_is_the_dense_solution(b, damping, jacobi):
    matrix = spectrum(POSITIVE)
    damping = torch.rand(8, dtype=torch.float64) if damping == "vector" else damping
    damped = matrix + damping * torch.eye(8, dtype=torch.float64)
    preconditioner = (lambda r: r / damped.diagonal()) if jacobi else None
    solution = conjugate_gradients(times(matrix), b, damping=damping, preconditioner=preconditioner, tol=1e-12)
    torch.testing.assert_close(solution.x, torch.linalg.solve(damped, b), **EXACT)
    assert solution.converged
    assert solution.residual <= 1e-12


@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0, 10))
def test_cg_on_any_positive_definite_system(seed, size, damping):
    torch.manual_seed(seed)
    half, b = torch.randn(size, size + 2, dtype=torch.float64), torch.randn(size, dtype=torch.float64)
    matrix = half @ half.t() + 0.1 * torch.eye(size, dtype=torch.float64)
    solution = conjugate_gradients(times(matrix), b, damping=damping, tol=1e-11, max_iter=20 * size)
    damped = matrix + damping * torch.eye(size, dtype=torch.float64)
    assert solution.converged
    torch.testing.assert_close(solution.x, torch.linalg.solve(damped, b), **EXACT)


def test_cg_needs_as_many_products_as_distinct_eigenvalues(b):
    assert conjugate_gradients(times(spectrum([1.0] * 3 + [4.0] * 5)), b, tol=1e-10).iterations == 2


def test_a_perfect_preconditioner_needs_one_product(b):
    matrix = spectrum(POSITIVE)
    inverse = torch.linalg.inv(matrix)
    solution = conjugate_gradients(times(matrix), b, preconditioner=times(inverse), tol=1e-8)
    assert (solution.iterations, solution.converged) == (1, True)


def test_cg_starts_where_it_is_told(b):
    matrix = spectrum(POSITIVE)
    x = torch.linalg.solve(matrix, b)
    start = x.clone()
    there = conjugate_gradients(times(matrix), b, x0=start, tol=1e-8)
    assert (there.iterations, there.converged) == (0, True)
    assert there.residual <= 1e-8
    far = conjugate_gradients(times(matrix), b, x0=10 * torch.ones_like(b), tol=1e-12)
    torch.testing.assert_close(far.x, x, **EXACT)
    assert torch.equal(start, x)  # the starting point is not written to


def test_cg_says_when_it_did_not_converge(b):
    matrix = spectrum(POSITIVE)
    solution = conjugate_gradients(times(matrix), b, tol=1e-12, max_iter=3)
    assert (solution.iterations, solution.converged) == (3, False)
    assert solution.residual > 1e-12
    assert solution.residual == pytest.approx(relative_residual(matrix, solution.x, b), rel=1e-9)


@pytest.mark.parametrize("max_iter", [1, 2, 5, 100])
def test_cg_reports_the_residual_of_what_it_returns(b, max_iter):
    matrix = spectrum(POSITIVE)
    solution = conjugate_gradients(times(matrix), b, damping=0.1, tol=1e-6, max_iter=max_iter)
    damped = matrix + 0.1 * torch.eye(8, dtype=torch.float64)
    assert solution.residual == pytest.approx(relative_residual(damped, solution.x, b), rel=1e-6)


def test_cg_does_not_claim_more_than_single_precision_gives():
    # the residual that CG carries along falls to any tolerance; the true one stalls at rounding times condition
    matrix = spectrum(torch.logspace(-5, 0, 40).tolist()).float()
    b = torch.randn(40)
    solution = conjugate_gradients(times(matrix), b, tol=1e-6, max_iter=2000)
    true = float((b - matrix @ solution.x).norm() / b.norm())
    assert solution.residual == pytest.approx(true, rel=0.05)
    assert solution.converged == (solution.residual <= 1e-6)


def test_cg_stops_where_there_is_no_curvature(b):
    matrix = spectrum(INDEFINITE)
    solution = conjugate_gradients(times(matrix), b, tol=1e-12, max_iter=100)
    assert not solution.converged
    assert solution.iterations < 8
    assert torch.isfinite(solution.x).all()
    nothing = conjugate_gradients(times(-torch.eye(8, dtype=torch.float64)), b)
    assert (nothing.iterations, nothing.converged, nothing.residual) == (0, False, 1.0)


def test_cg_on_a_singular_but_consistent_system(b):
    matrix = spectrum(SINGULAR)
    b = matrix @ b
    solution = conjugate_gradients(times(matrix), b, tol=1e-10)
    torch.testing.assert_close(solution.x, torch.linalg.pinv(matrix, rtol=1e-10) @ b, **EXACT)
    assert solution.converged


def test_cg_solves_for_nothing_with_nothing():
    solution = conjugate_gradients(times(spectrum(POSITIVE)), torch.zeros(8, dtype=torch.float64))
    assert (solution.residual, solution.iterations, solution.converged) == (0.0, 0, True)
    assert torch.equal(solution.x, torch.zeros(8, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["product", "b", "x0"])
def test_cg_does_not_return_nan(b, bad, where):
    matrix, x0 = spectrum(POSITIVE), torch.zeros_like(b)
    broken = {"product": matrix, "b": b, "x0": x0}[where]
    broken.view(-1)[0] = bad
    with pytest.raises(FloatingPointError):
        conjugate_gradients(times(matrix), b, x0=x0, max_iter=50)


def test_cg_does_not_depend_on_the_scale_of_the_right_hand_side(b):
    matrix = spectrum(POSITIVE).float()
    one = conjugate_gradients(times(matrix), b.float(), tol=1e-4)
    tiny = conjugate_gradients(times(matrix), 1e-12 * b.float(), tol=1e-4)
    assert one.converged
    assert tiny.converged
    torch.testing.assert_close(tiny.x * 1e12, one.x, rtol=1e-2, atol=1e-2)  # both within the tolerance of 1e-4 / .01


def test_cg_stops_at_a_residual_that_equals_the_tolerance(b):
    solution = conjugate_gradients(times(spectrum(POSITIVE)), b, tol=1.0)  # zero has the residual 1
    assert (solution.iterations, solution.residual, solution.converged) == (0, 1.0, True)


def test_cg_takes_up_to_a_hundred_steps_by_default():
    matrix = torch.diag(torch.logspace(-6, 0, 300, dtype=torch.float64))
    solution = conjugate_gradients(times(matrix), torch.ones(300, dtype=torch.float64))
    assert (solution.iterations, solution.converged) == (100, False)


# ---- Lanczos


def test_one_space_solves_every_damping(b):
    matrix = spectrum(POSITIVE)
    space = lanczos(times(matrix), b, damping=0.0, tol=1e-13, max_iter=100)
    for damping in (0.0, 0.01, 0.3, 5.0):
        solution = space.solve(damping, tol=1e-8)
        damped = matrix + damping * torch.eye(8, dtype=torch.float64)
        torch.testing.assert_close(solution.x, torch.linalg.solve(damped, b), **EXACT)
        assert solution.converged
        assert solution.iterations == 8


def test_the_basis_is_orthonormal_and_the_projection_tridiagonal(b):
    matrix = spectrum(POSITIVE)
    space = lanczos(times(matrix), b, damping=0.0, tol=1e-13)
    torch.testing.assert_close(space.basis @ space.basis.t(), torch.eye(8, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(space.basis @ matrix @ space.basis.t(), space.tridiagonal, **EXACT)
    assert space.norm == pytest.approx(float(b.norm()))


def test_the_basis_stays_orthonormal_where_plain_lanczos_does_not():
    # converged outer eigenvalues destroy orthogonality in the bare three-term recurrence (checked below)
    matrix = spectrum([1000.0, 500.0, *torch.linspace(1e-3, 1, 58).tolist()]).float()
    b = torch.randn(60)
    space = lanczos(times(matrix), b, damping=0.0, tol=0.0, max_iter=40)
    loss = (space.basis @ space.basis.t() - torch.eye(len(space.basis))).abs().max()
    assert loss < 1e-4

    rows, beta = [b / b.norm()], 0.0
    for k in range(39):
        w = matrix @ rows[k] - (beta * rows[k - 1] if k else 0)
        w = w - (w @ rows[k]) * rows[k]
        beta = w.norm()
        rows.append(w / beta)
    bare = torch.stack(rows)
    assert (bare @ bare.t() - torch.eye(40)).abs().max() > 0.1


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_space_of_k_vectors_is_k_steps_of_cg(b, steps):
    matrix = spectrum(POSITIVE)
    space = lanczos(times(matrix), b, damping=0.2, tol=0.0, max_iter=steps)
    reference = conjugate_gradients(times(matrix), b, damping=0.2, tol=0.0, max_iter=steps)
    solution = space.solve(0.2)
    torch.testing.assert_close(solution.x, reference.x, **EXACT)
    assert solution.iterations == reference.iterations == steps


@pytest.mark.parametrize("values", [POSITIVE, INDEFINITE, SINGULAR], ids=["positive", "indefinite", "singular"])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_the_residual_is_the_definition(b, values, steps):
    matrix = spectrum(values)
    space = lanczos(times(matrix), b, damping=0.4, tol=0.0, max_iter=steps)
    for damping in (0.4, 2.0):
        solution = space.solve(damping)
        damped = matrix + damping * torch.eye(8, dtype=torch.float64)
        assert solution.residual == pytest.approx(relative_residual(damped, solution.x, b), rel=1e-7, abs=1e-12)
        assert solution.residual == space.residual(damping)


@pytest.mark.parametrize("values", [POSITIVE, INDEFINITE], ids=["positive", "indefinite"])
def test_the_predicted_decrease_is_the_definition(b, values):
    matrix = spectrum(values)
    for steps in (2, 8):
        space = lanczos(times(matrix), b, damping=0.4, tol=0.0, max_iter=steps)
        for absolute in (False, True):
            x = space.solve(0.4, absolute=absolute).x
            expected = float(b @ x - 0.5 * x @ matrix @ x)
            assert space.predicted_decrease(0.4, absolute=absolute) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("values", [POSITIVE, INDEFINITE, SINGULAR], ids=["positive", "indefinite", "singular"])
def test_absolute_is_the_absolute_value_of_the_matrix(b, values):
    matrix = spectrum(values)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    absolute = vectors @ torch.diag(eigenvalues.abs()) @ vectors.t()
    space = lanczos(times(matrix), b, damping=0.3, tol=1e-13, absolute=True)
    for damping in (0.3, 4.0):
        solution = space.solve(damping, tol=1e-8, absolute=True)
        expected = torch.linalg.solve(absolute + damping * torch.eye(8, dtype=torch.float64), b)
        torch.testing.assert_close(solution.x, expected, **EXACT)
        assert solution.converged
        assert b @ solution.x > 0  # a descent direction, whatever the signs


def test_signs_count_unless_absolute_is_asked_for(b):
    matrix = spectrum(INDEFINITE)
    space = lanczos(times(matrix), b, damping=0.4, tol=0.0)
    x = torch.linalg.solve(matrix + 0.4 * torch.eye(8, dtype=torch.float64), b)
    torch.testing.assert_close(space.coefficients(0.4) @ space.basis, x, **EXACT)
    assert space.predicted_decrease(0.4) == pytest.approx(float(b @ x - 0.5 * x @ matrix @ x), rel=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_the_residual_of_absolute_is_what_the_last_product_changed(b, steps):
    matrix = spectrum(INDEFINITE)
    now, before = (
        lanczos(times(matrix), b, damping=0.3, tol=0.0, max_iter=k, absolute=True) for k in (steps, max(steps - 1, 1))
    )
    x, previous = now.solve(0.3, absolute=True).x, before.solve(0.3, absolute=True).x
    expected = float((x - previous).norm() / x.norm()) if steps > 1 else 1.0
    assert now.residual(0.3, absolute=True) == pytest.approx(expected, rel=1e-8)
    assert not now.exhausted


def test_an_exhausted_space_solves_absolute_exactly():
    swap = torch.tensor([[0.0, 3, 0, 0], [3, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 2]], dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    space = lanczos(times(rotation @ swap @ rotation.t()), rotation[:, 0], damping=0.0, tol=1e-9, absolute=True)
    assert space.exhausted
    solution = space.solve(0.0, tol=1e-9, absolute=True)  # |H| is three times the identity on this space
    torch.testing.assert_close(solution.x, rotation[:, 0] / 3, **EXACT)
    assert solution.converged


def test_the_space_of_a_zero_matrix_is_exhausted(b):
    space = lanczos(times(torch.zeros(8, 8, dtype=torch.float64)), b, damping=2.0, absolute=True)
    assert space.exhausted
    solution = space.solve(2.0, absolute=True)
    torch.testing.assert_close(solution.x, b / 2, **EXACT)
    assert (solution.residual, solution.converged) == (0.0, True)


def test_absolute_changes_nothing_where_there_is_nothing_negative(b):
    matrix = spectrum(POSITIVE)
    space = lanczos(times(matrix), b, damping=0.1, tol=1e-2)
    torch.testing.assert_close(space.solve(0.1, absolute=True).x, space.solve(0.1).x, **EXACT)


def test_lanczos_stops_as_soon_as_the_smallest_damping_is_solved(b):
    matrix = spectrum(POSITIVE)
    space = lanczos(times(matrix), b, damping=5.0, tol=0.05)
    k = len(space.basis)
    assert k < 8
    assert space.residual(5.0) <= 0.05
    assert space.residual(50.0) <= 0.05  # larger dampings are solved at least as well
    shorter = lanczos(times(matrix), b, damping=5.0, tol=0.0, max_iter=k - 1)
    assert shorter.residual(5.0) > 0.05
    assert not lanczos(times(matrix), b, damping=0.0, tol=1e-10, max_iter=2).solve(0.0, tol=1e-10).converged


def test_lanczos_stops_at_a_residual_that_equals_the_tolerance():
    matrix, b = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64), torch.tensor([1.0, 0.0]).double()
    space = lanczos(times(matrix), b, damping=0.0, tol=0.5)
    assert (len(space.basis), space.residual(0.0)) == (1, 0.5)  # x = [1/2, 0] leaves b - Hx = [0, -1/2]


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ([0.0] * 6 + [2.0, 5.0], 3),
        ([3.0] * 8, 1),
        ([1.0] * 4 + [2.0] * 4, 2),
        ([0.0] * 8, 1),
        ([-1.0] * 4 + [1.0] * 4, 2),
    ],
    ids=["rank 2", "a multiple of the identity", "two eigenvalues", "zero", "a reflection"],
)
def test_lanczos_stops_where_the_space_is_exhausted(b, values, rank):
    matrix = spectrum(values)
    space = lanczos(times(matrix), b, damping=1e-3, tol=0.0, max_iter=40)
    assert len(space.basis) == rank
    damped = matrix + 0.5 * torch.eye(8, dtype=torch.float64)
    solution = space.solve(0.5, tol=1e-10)
    torch.testing.assert_close(solution.x, torch.linalg.solve(damped, b), **EXACT)
    assert solution.converged
    assert torch.isfinite(space.basis).all()


def test_lanczos_is_exact_where_the_space_is_exhausted_without_a_diagonal():
    # H swaps coordinates in pairs: every diagonal entry of the projection is zero
    swap = torch.zeros(6, 6, dtype=torch.float64)
    for k in (0, 2, 4):
        swap[k, k + 1] = swap[k + 1, k] = 3.0
    b = torch.zeros(6, dtype=torch.float64)
    b[0] = 1.0
    for rotation in (torch.eye(6, dtype=torch.float64), torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]):
        matrix, rhs = rotation @ swap @ rotation.t(), rotation @ b
        space = lanczos(times(matrix), rhs, damping=1.0, tol=0.0)
        assert len(space.basis) == 2
        torch.testing.assert_close(
            space.solve(1.0).x, torch.linalg.solve(matrix + torch.eye(6, dtype=torch.float64), rhs), **EXACT
        )


def test_lanczos_reaches_double_precision():
    # components of 1e-8 of the right-hand side matter as long as the arithmetic can tell them from rounding
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    b = torch.tensor([1.0, 1.0, 1.0, 1e-8], dtype=torch.float64)
    space = lanczos(times(matrix), b, damping=0.0, tol=1e-14)
    torch.testing.assert_close(space.solve(0.0).x, b / matrix.diagonal(), rtol=1e-6, atol=0.0)


def test_lanczos_refuses_nothing_to_solve():
    with pytest.raises(ValueError, match="'b' must not be zero"):
        lanczos(times(spectrum(POSITIVE)), torch.zeros(8, dtype=torch.float64), damping=1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["product", "b"])
def test_lanczos_does_not_return_nan(b, bad, where):
    matrix = spectrum(POSITIVE)
    {"product": matrix, "b": b}[where].view(-1)[0] = bad
    with pytest.raises(FloatingPointError):
        lanczos(times(matrix), b, damping=1.0)


def test_lanczos_spends_no_more_products_than_asked(b):
    calls = []

    def product(v):
        calls.append(1)
        return spectrum(POSITIVE) @ v

    space = lanczos(product, b, damping=0.0, tol=0.0, max_iter=5)
    assert len(calls) == len(space.basis) == 5


@pytest.mark.parametrize("values", [POSITIVE, INDEFINITE], ids=["positive", "indefinite"])
def test_power_iteration_finds_the_largest_eigenvalue_from_below(values):
    estimate = largest_eigenvalue(times(spectrum(values)), torch.zeros(8, dtype=torch.float64), steps=200)
    assert estimate == pytest.approx(max(map(abs, values)), rel=1e-9)
    for steps in (1, 3, 10):
        assert largest_eigenvalue(times(spectrum(values)), torch.zeros(8, dtype=torch.float64), steps=steps) <= estimate
    assert largest_eigenvalue(lambda v: 0 * v, torch.zeros(8)) == 0


def test_the_fixed_point_is_the_dense_solution(b):
    matrix = spectrum(POSITIVE)
    expected = torch.linalg.solve(matrix + 0.5 * torch.eye(8, dtype=torch.float64), b)
    solved = lissa(times(matrix), b, 6.0, damping=0.5, iterations=600)  # above half of 10.5
    torch.testing.assert_close(solved.x, expected, **EXACT)
    assert solved.converged


def test_few_iterations_are_the_truncated_neumann_series(b):
    matrix, identity = spectrum(SINGULAR), torch.eye(8, dtype=torch.float64)
    series = sum(torch.linalg.matrix_power(identity - matrix / 20, k) for k in range(4)) / 20
    solved = lissa(times(matrix), b, 20.0, iterations=3)
    torch.testing.assert_close(solved.x, series @ b, **EXACT)
    assert solved.residual == pytest.approx(float((b - matrix @ series @ b).norm() / b.norm()))
    assert not solved.converged
    assert lissa(times(matrix), 0 * b, 20.0).residual == 0


def test_below_half_of_the_largest_eigenvalue_the_iteration_diverges(b):
    assert lissa(times(spectrum(POSITIVE)), b, 4.5, iterations=100).residual > 1e3
