"""Curvature products against explicit matrices."""

import pytest
import torch

from graphunlearn.func import Linearised, gauss_newton_product, hessian_product

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


# ---- derivatives in both directions, by backward passes alone


def check(function, point):
    """Both directions against a dense Jacobian, output by output."""
    at, v = Linearised(function, point), torch.randn_like(point)
    rows = [torch.autograd.functional.jacobian(lambda x, n=n: function(x)[n], point) for n in range(len(at.outputs))]
    weights = tuple(torch.randn_like(o) for o in at.outputs)
    pulled = torch.zeros_like(point)
    for output, wanted, pushed, jacobian, w in zip(
        at.outputs, function(point), at.pushforward(v), rows, weights, strict=True
    ):
        assert not output.requires_grad
        torch.testing.assert_close(output, wanted.detach(), **EXACT)
        torch.testing.assert_close(pushed, (jacobian.view(w.numel(), -1) @ v.flatten()).view_as(w), **EXACT)
        pulled += (w.flatten() @ jacobian.view(w.numel(), -1)).view_as(point)
    torch.testing.assert_close(at.pullback(weights), pulled, **EXACT)
    torch.testing.assert_close(at.pullback(weights), pulled, **EXACT)  # again: nothing was used up


def test_linearised_is_the_jacobian(point):
    check(outputs, point)
    check(lambda x: (x.view(2, 2) @ x.view(2, 2).t(),), point)
    check(lambda x: (3 * x,), point)  # whose second derivative is nothing


def test_linearised_takes_outputs_that_depend_on_nothing(point):
    constant = torch.ones(2, dtype=torch.float64)
    check(lambda x: (constant, x.sin()), point)
    check(lambda x: (constant, 0 * x[:1]), point)
    at = Linearised(lambda x: (constant,), point)
    assert torch.equal(at.pushforward(point)[0], torch.zeros_like(constant))
    assert torch.equal(at.pullback((constant,)), torch.zeros_like(point))


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_linearised_goes_through_sparse_products(point, layout):
    """Which have no forward-mode rule."""
    matrix = getattr(torch.tensor([[0.0, 2.0], [1.0, 0.0], [3.0, 1.0]], dtype=torch.float64), layout)()
    check(lambda x: (torch.sparse.mm(matrix, x.view(2, 2)).tanh(),), point)


def test_linearised_goes_through_products_over_neighbours(point):
    """Whose forward-mode rule is wrong in PyTorch."""
    index, ones = torch.tensor([0, 0, 1, 1]), torch.ones(2, dtype=torch.float64)
    check(lambda x: (ones.scatter_reduce(0, index, x, "prod"),), point)


def test_linearised_works_where_gradients_are_off(point):
    with torch.no_grad():
        check(outputs, point)


def test_a_linear_function_has_no_curvature(point):
    assert torch.equal(hessian_product(lambda x: x.sum(), point)(point), torch.zeros_like(point))
    assert torch.equal(hessian_product(lambda x: x.new_ones(()), point)(point), torch.zeros_like(point))


def test_products_are_the_same_in_inference_mode(point):
    expected = hessian_product(function, point)(point), Linearised(outputs, point).pushforward(point)
    with torch.inference_mode():
        inside = point.clone()
        torch.testing.assert_close(hessian_product(function, inside)(inside), expected[0], **EXACT)
        torch.testing.assert_close(Linearised(outputs, inside).pushforward(inside), expected[1], **EXACT)
