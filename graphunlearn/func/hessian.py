"""Curvature products of any differentiable function, matrix-free, on flat vectors.

The closed form for linear propagation and dot products lives beside the models that have it
(:mod:`graphunlearn.nn.risk`); the functions here serve every other model and are its reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Product", "gauss_newton_product", "hessian_product"]

Product = Callable[[Tensor], Tensor]
"""A linear map on flat vectors ``[num_parameters] -> [num_parameters]``."""


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
    pullback = torch.func.vjp(torch.func.grad(function), point)[1]
    return lambda v: pullback(v)[0]


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
    pullback = torch.func.vjp(outputs, point)[1]

    def product(v: Tensor) -> Tensor:
        tangent = torch.func.jvp(outputs, (point,), (v,))[1]
        return pullback(tuple(w * t for w, t in zip(weights, tangent, strict=True)))[0]

    return product
