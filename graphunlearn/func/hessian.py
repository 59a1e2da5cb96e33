"""Curvature products of any differentiable function, matrix-free, on flat vectors.

The closed form for linear propagation and dot products lives beside the models that have it
(:mod:`graphunlearn.nn.risk`); the functions here serve every other model and are its reference.

Everything is done by backward passes: the layers of other libraries nearly always have a backward of their backward,
but often no forward-mode rule (products with a sparse matrix), or one that is wrong (``scatter_reduce`` with ``prod``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Linearised", "Product", "gauss_newton_product", "hessian_product"]

Product = Callable[[Tensor], Tensor]
"""A linear map on flat vectors ``[num_parameters] -> [num_parameters]``."""


class Linearised:
    r"""A function near one point: its outputs there, and its Jacobian :math:`J` in both directions.

    The function is run once, and what its derivatives need is kept. :math:`w \mapsto J^\top w` is a backward pass, and
    linear in :math:`w`, so that a backward pass through that one is :math:`v \mapsto J v`.

    Args:
        function: Maps a tensor to a tuple of tensors.
        point: Where to linearise.

    Example:
        >>> import torch
        >>> at = Linearised(lambda x: (x[0] * x,), torch.tensor([2.0, 3.0]))
        >>> at.outputs, at.pushforward(torch.tensor([1.0, 0.0])), at.pullback((torch.tensor([1.0, 1.0]),))
        ((tensor([4., 6.]),), (tensor([4., 3.]),), tensor([7., 2.]))
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], point: Tensor) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            self._point = point.detach().clone().requires_grad_()  # one of inference mode cannot require a gradient
            self._outputs = function(self._point)
            self._weights = tuple(torch.zeros_like(o, requires_grad=True) for o in self._outputs)
            self._back = _backward(self._outputs, self._point, self._weights, create_graph=True)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs at the point."""
        return tuple(o.detach() for o in self._outputs)

    def pullback(self, weights: tuple[Tensor, ...]) -> Tensor:
        r"""Return :math:`\sum_o J_o^\top w_o`, of the shape of the point."""
        return _backward(self._outputs, self._point, weights)

    def pushforward(self, v: Tensor) -> tuple[Tensor, ...]:
        r"""Return :math:`J_o v` of every output, each of its shape."""
        if not self._back.requires_grad:  # no output depends on the point
            return tuple(torch.zeros_like(w) for w in self._weights)
        return torch.autograd.grad(self._back, self._weights, v, retain_graph=True, materialize_grads=True)


def _backward(
    outputs: Sequence[Tensor], point: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False
) -> Tensor:
    r"""Return :math:`\sum_o J_o^\top w_o`; outputs that do not depend on the point count nothing."""
    pairs = [(o, w.expand_as(o)) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    if not pairs:
        return torch.zeros_like(point, requires_grad=False)
    outputs, weights = zip(*pairs)
    return torch.autograd.grad(
        outputs, point, weights, retain_graph=True, create_graph=create_graph, materialize_grads=True
    )[0]


def hessian_product(function: Callable[[Tensor], Tensor], point: Tensor) -> Product:
    r"""Return :math:`v \mapsto \nabla^2 f(x)\,v`.

    The gradient is linearised once; each product is one backward pass through it.

    Args:
        function: Scalar function of a flat vector.
        point: Where to linearise ``[num_parameters]``.

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
    outputs: Callable[[Tensor], tuple[Tensor, ...]], weights: tuple[Tensor, ...], point: Tensor
) -> Product:
    r"""Return :math:`v \mapsto \sum_o J_o^\top W_o J_o\,v`, the generalised Gauss–Newton product.

    Args:
        outputs: Maps a flat vector to a tuple of outputs :math:`o(x)`.
        weights: Diagonal second derivatives :math:`W_o \ge 0` of the loss in each output, broadcastable to it.
        point: Where to linearise ``[num_parameters]``.

    Example:
        >>> import torch
        >>> product = gauss_newton_product(lambda x: (x.sum()[None],), (torch.tensor([2.0]),), torch.zeros(3))
        >>> product(torch.tensor([1.0, 0.0, 0.0]))
        tensor([2., 2., 2.])
    """
    at = Linearised(outputs, point)
    return lambda v: at.pullback(tuple(w * t for w, t in zip(weights, at.pushforward(v), strict=True)))
