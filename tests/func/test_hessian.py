"""Curvature products against explicit matrices."""

import pytest
import torch

from graphunlearn.func import gauss_newton_product, hessian_product

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, a handful of terms of size 1


def function(x):
    """Neither convex nor separable."""
    return (x[:3].sin() * x[1:]).sum() + (x[0] * x[3]).exp() + (x**3).mean()


def outputs(x):
    return torch.stack([x[0] * x[1], x[2].sin()]), (x[1:] ** 2).view(3, 1)


@pytest.fixture
def point():
    return torch.randn(4, dtype=torch.float64)


def as_matrix(product, size):
    return torch.stack([product(column) for column in torch.eye(size, dtype=torch.float64)], 1)


def test_hessian_product_is_the_hessian(point):
    dense = as_matrix(hessian_product(function, point), 4)
    torch.testing.assert_close(dense, torch.func.hessian(function)(point), **EXACT)
    torch.testing.assert_close(dense, torch.autograd.functional.hessian(function, point), **EXACT)
    assert torch.linalg.eigvalsh(dense)[0] < 0  # indefinite: a Gauss–Newton product would not pass


def test_hessian_product_can_be_used_again_and_again(point):
    product = hessian_product(function, point)
    v = torch.randn(4, dtype=torch.float64)
    assert torch.equal(product(v), product(v))
    torch.testing.assert_close(product(2 * v), 2 * product(v), **EXACT)
    assert not product(v).requires_grad


def test_hessian_product_does_not_touch_a_leaf(point):
    leaf = point.clone().requires_grad_()
    v = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(
        hessian_product(function, leaf)(v).detach(), hessian_product(function, point)(v), **EXACT
    )
    assert leaf.grad is None


def test_gauss_newton_product_is_j_transposed_w_j(point):
    weights = torch.rand(2, dtype=torch.float64), torch.rand(3, 1, dtype=torch.float64)
    first, second = torch.func.jacrev(outputs)(point)
    jacobian, weight = torch.cat([first, second.view(3, 4)]), torch.cat([weights[0], weights[1].view(-1)])
    dense = as_matrix(gauss_newton_product(outputs, weights, point), 4)
    torch.testing.assert_close(dense, jacobian.t() @ torch.diag(weight) @ jacobian, **EXACT)


def test_gauss_newton_weights_broadcast(point):
    one = torch.tensor(0.5, dtype=torch.float64)
    got = as_matrix(gauss_newton_product(outputs, (one, one), point), 4)
    spread = torch.full((2,), 0.5, dtype=torch.float64), torch.full((3, 1), 0.5, dtype=torch.float64)
    torch.testing.assert_close(got, as_matrix(gauss_newton_product(outputs, spread, point), 4), **EXACT)


def test_gauss_newton_refuses_weights_for_other_outputs(point):
    with pytest.raises(ValueError):
        gauss_newton_product(outputs, (torch.ones(2, dtype=torch.float64),), point)(point)


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    design, target = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    point = torch.randn(3, dtype=torch.float64)
    exact = as_matrix(hessian_product(lambda x: 0.5 * (design @ x - target).square().sum(), point), 3)
    half = as_matrix(gauss_newton_product(lambda x: (design @ x,), (torch.ones(6, dtype=torch.float64),), point), 3)
    torch.testing.assert_close(exact, design.t() @ design, **EXACT)
    torch.testing.assert_close(half, exact, **EXACT)
