"""The ridge that is equivalent to early stopping, against dense matrices."""

import pytest
import torch
from scipy.optimize import brentq
from toys import factors, light_gcn, random_graph

from graphunlearn.nn import BPR, SquaredError, risk_of
from graphunlearn.operators.shared import ridge as module
from graphunlearn.operators.shared.ridge import SMALLEST, Ridges, noise_free_ridge


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(module, "_TOLERANCE", 1e-9)
    monkeypatch.setattr(module, "_PRODUCTS", 500)


def system(size=40, seed=0):
    """A symmetric positive definite matrix with eigenvalues from 0.1 to 30, and its orthonormal eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    vectors, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    values = torch.logspace(-1, 1.5, size, dtype=torch.float64)
    return (vectors * values) @ vectors.t(), vectors


def dense_root(table, gradient, curvature):
    """The root of the defining equation, by Brent's method and dense solves."""

    def value(ridge):
        noise = gradient + ridge * table
        solved = torch.linalg.solve(curvature + ridge * torch.eye(len(table), dtype=torch.float64), noise)
        return float(noise @ (table - solved))

    return brentq(value, SMALLEST, 1e3)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_root_of_the_equation_of_dense_matrices(seed):
    curvature, _ = system(seed=seed)
    generator = torch.Generator().manual_seed(seed + 10)
    minimiser, noise = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    table = minimiser + 0.3 * noise
    gradient = curvature @ (0.3 * noise) - 0.8 * minimiser
    found = noise_free_ridge(table, gradient, lambda v: curvature @ v, curvature.diagonal())
    assert found == pytest.approx(dense_root(table, gradient, curvature), rel=0.02)


def test_noise_orthogonal_to_the_minimiser_is_taken_out():
    """The equation holds exactly: the least-squares ridge is negative, and the true one is found."""
    curvature, vectors = system()
    ridge, minimiser, noise = 0.8, vectors[:, :5].sum(1), vectors[:, 30:].sum(1)
    table, gradient = minimiser + noise, curvature @ noise - ridge * minimiser
    assert -float(gradient @ table / table.square().sum()) < 0
    found = noise_free_ridge(table, gradient, lambda v: curvature @ v, curvature.diagonal())
    assert found == pytest.approx(ridge, rel=0.02)


def test_without_noise_it_is_the_least_squares_ridge():
    curvature, vectors = system()
    table = vectors.sum(1)
    found = noise_free_ridge(table, -0.6 * table, lambda v: curvature @ v, curvature.diagonal())
    assert found == pytest.approx(0.6, rel=1e-6)


def test_it_is_at_least_the_smallest_and_the_least_squares_ridge_without_a_root():
    table, diagonal = torch.ones(4), torch.ones(4)
    assert noise_free_ridge(table, torch.zeros(4), lambda v: v, diagonal) == SMALLEST
    outwards = 1e6 * table  # as if the noise were all there is
    assert noise_free_ridge(table, outwards, lambda v: v, diagonal) == SMALLEST


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("loss", [BPR(negatives=2, weight_decay=0.01), SquaredError()])
@pytest.mark.parametrize("make", [factors, light_gcn])
def test_the_ridges_of_a_model(make, loss, own):
    graph = random_graph(8, 7, 30)
    model, place = make(graph, scale=0.7), graph.sides[own]
    risk = risk_of(model, graph, loss)
    gradient = risk.gradient(risk.parameters)
    table = risk.parameters
    rows = torch.arange(len(table)).view(-1, 3)[place].flatten()
    found = Ridges(risk, gradient.view(-1, 3))(own, place)
    plain = max(-float(gradient[rows] @ table[rows] / table[rows].square().sum()), SMALLEST)
    if make is light_gcn:
        assert found == pytest.approx(plain)
        return
    product = risk.curvature(table)
    whole = torch.stack([product(v) for v in torch.eye(len(table), dtype=torch.float64)])
    curvature = whole[rows][:, rows]

    def value(ridge):
        noise = gradient[rows] + ridge * table[rows]
        solved = torch.linalg.solve(curvature + ridge * torch.eye(len(rows), dtype=torch.float64), noise)
        return float(noise @ (table[rows] - solved))

    assert found >= plain
    if value(SMALLEST) < 0 < value(100.0):
        assert found == pytest.approx(brentq(value, SMALLEST, 100.0), rel=0.02)
