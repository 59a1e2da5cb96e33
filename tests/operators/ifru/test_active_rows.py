"""Systems solved in few rows, against dense solutions of the principal submatrix."""

import pytest
import torch

from graphunlearn.operators.ifru.active_rows import solve_on_rows

DAMPING, DIM = 0.3, 2


@pytest.fixture(params=[0, 1, 2])
def system(request):
    """A positive semi-definite matrix, a right-hand side with few large entries, and two shared parameters."""
    generator = torch.Generator().manual_seed(request.param)
    rows = torch.cat([torch.tensor([-1, -1]), torch.arange(30).repeat_interleave(DIM)])
    factor = torch.randn(40, len(rows), generator=generator, dtype=torch.float64) / 4
    rhs = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    rhs *= torch.logspace(0, -4, len(rows), dtype=torch.float64)[torch.randperm(len(rows), generator=generator)]
    return factor.t() @ factor, rhs, rows


def quadratic(matrix, rhs, x):
    return float(0.5 * x @ (matrix @ x + DAMPING * x) - rhs @ x)


def test_all_rows_give_the_dense_solution(system):
    matrix, rhs, rows = system
    found = solve_on_rows(lambda v: matrix @ v, rhs, rows, 30, damping=DAMPING, tol=1e-10, max_iter=500)
    identity = torch.eye(len(rows), dtype=torch.float64)
    torch.testing.assert_close(found.x, torch.linalg.solve(matrix + DAMPING * identity, rhs), rtol=1e-7, atol=1e-9)
    assert found.nodes.tolist() == list(range(30))


@pytest.mark.parametrize("most", [1, 4, 11])
@pytest.mark.parametrize("jacobi", [False, True])
def test_the_solution_is_near_that_of_the_submatrix(system, most, jacobi):
    matrix, rhs, rows = system
    inverse = 1 / (matrix.diagonal() + DAMPING)
    options = {"damping": DAMPING, "tol": 1e-3, "preconditioner": (lambda r: inverse * r) if jacobi else None}
    found = solve_on_rows(lambda v: matrix @ v, rhs, rows, most, **options)
    assert len(found.nodes) == most
    inside = torch.isin(rows, found.nodes) | (rows < 0)
    assert not found.x[~inside].any()
    full = matrix + DAMPING * torch.eye(len(rows), dtype=torch.float64)
    torch.testing.assert_close(found.product, full @ found.x)
    residual = rhs - full @ found.x
    # the last round stops where the residual inside is a fifth of the one outside
    assert (
        float(residual[inside].norm()) <= max(0.2 * float(residual[~inside].norm()), 1e-3 * float(rhs.norm())) * 1.001
    )
    best = torch.zeros_like(rhs)
    best[inside] = torch.linalg.solve(full[inside][:, inside], rhs[inside])
    lowest = quadratic(matrix, rhs, best)
    assert lowest <= quadratic(matrix, rhs, found.x) < 0.9 * lowest < 0
    expected = float(rhs @ found.x - 0.5 * found.x @ matrix @ found.x)
    assert found.decrease(rhs, DAMPING) == pytest.approx(expected)
    half = found.x / 2
    assert found.decrease(rhs, DAMPING, 0.5) == pytest.approx(float(rhs @ half - 0.5 * half @ matrix @ half))


def test_more_rows_leave_less_unsolved(system):
    matrix, rhs, rows = system
    values, errors = [], []
    for most in (1, 3, 8, 20, 30):
        found = solve_on_rows(lambda v: matrix @ v, rhs, rows, most, damping=DAMPING, tol=1e-6, max_iter=300)
        values.append(quadratic(matrix, rhs, found.x))
        errors.append(float((rhs - found.product).norm()))
    assert values == sorted(values, reverse=True)
    assert errors[-1] < 1e-5 * float(rhs.norm()) < errors[0]


def test_rows_with_a_small_residual_are_not_added():
    rhs, rows = torch.tensor([4.0, 0.01, 8.0, 0.0], dtype=torch.float64), torch.arange(4)
    found = solve_on_rows(lambda v: 3 * v, rhs, rows, 4, damping=1.0)
    assert found.nodes.tolist() == [0, 2]
    torch.testing.assert_close(found.x, torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64))


def test_a_row_that_only_the_residual_shows_is_added():
    matrix = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    rhs = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    found = solve_on_rows(lambda v: matrix @ v, rhs, torch.arange(3), 3, damping=0.1, tol=1e-3)
    assert found.nodes.tolist() == [0, 1]
    assert found.rounds > 1


def test_the_number_of_products_is_limited(system):
    matrix, rhs, rows = system
    found = solve_on_rows(lambda v: matrix @ v, rhs, rows, 30, damping=1e-8, tol=1e-12, max_iter=3)
    assert found.iterations == 3


def test_negative_curvature_ends_the_solve(system):
    _, rhs, rows = system
    found = solve_on_rows(lambda v: -v, rhs, rows, 30, damping=0.5)
    assert not found.x.any()


def test_a_product_that_is_not_finite_is_told(system):
    _, rhs, rows = system
    with pytest.raises(FloatingPointError, match="a curvature product returned NaN or infinity"):
        solve_on_rows(lambda v: v * float("nan"), rhs, rows, 30, damping=0.5)
