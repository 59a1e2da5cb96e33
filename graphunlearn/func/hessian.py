"""Matrix-free curvature products of differentiable functions of one flat vector.

The functions work for every model. For models that propagate linearly, :mod:`graphunlearn.nn.risk` has a closed form,
which is tested against the functions here.

All derivatives are computed by backward passes. Nearly all layers of other libraries can be differentiated twice in
reverse mode, but many have no forward-mode rule (products with a sparse matrix) or a wrong one (``scatter_reduce`` with
``prod``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Linearised", "Product", "gauss_newton_product", "hessian_product"]

Product = Callable[[Tensor], Tensor]
"""A linear map on flat vectors ``[num_parameters] -> [num_parameters]``."""


class Linearised:
    r"""The outputs of a function at one point, and products with its Jacobian :math:`J` and with :math:`J^\top`.

    The function is evaluated once, and its autograd graph is kept. A backward pass computes
    :math:`w \mapsto J^\top w`. This map is linear in :math:`w`, so a backward pass through it computes
    :math:`v \mapsto J v`.

    Args:
        function: A function that maps a tensor to a tuple of tensors.
        point: The point at which the function is linearised.

    Example:
        >>> import torch
        >>> at = Linearised(lambda x: (x[0] * x,), torch.tensor([2.0, 3.0]))
        >>> at.outputs, at.pushforward(torch.tensor([1.0, 0.0])), at.pullback((torch.tensor([1.0, 1.0]),))
        ((tensor([4., 6.]),), (tensor([4., 3.]),), tensor([7., 2.]))
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], point: Tensor) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            # The copy is needed because a tensor made in inference mode cannot require a gradient.
            self._point = point.detach().clone().requires_grad_()
            self._outputs = function(self._point)
            self._weights = tuple(torch.zeros_like(o, requires_grad=True) for o in self._outputs)
            self._back = _backward(self._outputs, self._point, self._weights, create_graph=True)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs at the point."""
        return tuple(o.detach() for o in self._outputs)

    def pullback(self, weights: tuple[Tensor, ...]) -> Tensor:
        r"""Return :math:`\sum_o J_o^\top w_o`.

        Args:
            weights: One tensor :math:`w_o` per output, with the shape of the output.

        Returns:
            A tensor with the shape of the point.
        """
        return _backward(self._outputs, self._point, weights)

    def pushforward(self, v: Tensor) -> tuple[Tensor, ...]:
        r"""Return :math:`J_o v` for every output.

        Args:
            v: A tensor with the shape of the point.

        Returns:
            One tensor per output, with the shape of the output.
        """
        if not self._back.requires_grad:  # no output depends on the point
            return tuple(torch.zeros_like(w) for w in self._weights)
        return torch.autograd.grad(self._back, self._weights, v, retain_graph=True, materialize_grads=True)


def _backward(
    outputs: Sequence[Tensor], point: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False
) -> Tensor:
    r"""Return :math:`\sum_o J_o^\top w_o`, where outputs that do not depend on the point contribute zero."""
    pairs = [(o, w.expand_as(o)) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    if not pairs:
        return torch.zeros_like(point, requires_grad=False)
    outputs, weights = zip(*pairs)
    return torch.autograd.grad(
        outputs, point, weights, retain_graph=True, create_graph=create_graph, materialize_grads=True
    )[0]


def hessian_product(function: Callable[[Tensor], Tensor], point: Tensor) -> Product:
    r"""Return the Hessian product :math:`v \mapsto \nabla^2 f(x)\,v`.

    The gradient is computed once; each product is one backward pass through the gradient.

    Args:
        function: A function :math:`f` that maps a flat vector to a scalar.
        point: The point :math:`x` ``[num_parameters]``.

    Returns:
        A function that maps a vector to its product, both ``[num_parameters]``.

    Example:
        >>> import torch
        >>> product = hessian_product(lambda x: x.sin().sum(), torch.tensor([0.0, torch.pi / 2]))
        >>> product(torch.ones(2))
        tensor([-0., -1.])
    """
    with torch.inference_mode(False), torch.enable_grad():
        point = point.detach().clone().requires_grad_()
        value = function(point)
        gradient = _backward((value,), point, (torch.ones_like(value),), create_graph=True)
    return lambda v: _backward((gradient,), point, (v,))


def gauss_newton_product(
    outputs: Callable[[Tensor], tuple[Tensor, ...]], weights: tuple[Tensor | Product, ...], point: Tensor
) -> Product:
    r"""Return :math:`v \mapsto \sum_o J_o^\top W_o J_o\,v`, the generalised Gauss–Newton product.

    Args:
        outputs: A function that maps a flat vector to a tuple of tensors :math:`o(x)`.
        weights: For every output, the second derivatives :math:`W_o \ge 0` of the loss: a diagonal matrix, in a shape
            that broadcasts to that of the output, or a function that maps a change of the output to its product.
        point: The point :math:`x` ``[num_parameters]``.

    Returns:
        A function that maps a vector to its product, both ``[num_parameters]``.

    Example:
        >>> import torch
        >>> product = gauss_newton_product(lambda x: (x.sum()[None],), (torch.tensor([2.0]),), torch.zeros(3))
        >>> product(torch.tensor([1.0, 0.0, 0.0]))
        tensor([2., 2., 2.])
    """
    at = Linearised(outputs, point)

    def product(v: Tensor) -> Tensor:
        changes = zip(weights, at.pushforward(v), strict=True)
        return at.pullback(tuple(w(t) if callable(w) else w * t for w, t in changes))

    return product
