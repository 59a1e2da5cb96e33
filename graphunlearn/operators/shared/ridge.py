r"""The ridge of a side's embeddings that is equivalent to early stopping, with the noise of training taken out."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from graphunlearn.func import Product, conjugate_gradients
from graphunlearn.func.blocks import inner
from graphunlearn.func.solve import Dot
from graphunlearn.nn.risk import LinearRisk

__all__ = ["CURVATURE_NEGATIVES", "SMALLEST", "Ridges", "noise_free_ridge", "restricted", "ridge_of"]

SMALLEST = 0.01
"""The smallest ridge."""
CURVATURE_NEGATIVES = 16
"""The most negatives per sample with which the curvature is computed."""
_LARGEST = 1e4
_CLOSE = 0.01
_PRODUCTS, _TOLERANCE = 60, 0.01


def restricted(product: Product, place: Product, own: Product, v: Tensor) -> Tensor:
    """Return some rows of the product with a table that is zero outside of these rows.

    Args:
        product: The product with the whole table.
        place: Puts the rows into a table of zeros.
        own: Takes the rows from a table.
        v: The rows, flattened.
    """
    return own(product(place(v)))


def ridge_of(theta: Tensor, tilt: Tensor, dot: Dot = inner) -> tuple[float, float]:
    r"""Return the least-squares ridge of trained parameters and the gradient of their risk, and the cosine of this fit.

    See :func:`~graphunlearn.operators.shared.correction.equivalent_ridge`.

    Args:
        theta: The trained parameters :math:`\hat\theta` ``[num_parameters]``.
        tilt: The gradient :math:`\nabla R(\hat\theta; D, G)` ``[num_parameters]``.
        dot: Inner product of two vectors, if several processes hold them.
    """
    slope, square = -dot(tilt, theta), dot(theta, theta)
    return slope / max(square, 1e-30), slope / max((dot(tilt, tilt) * square) ** 0.5, 1e-30)


@torch.no_grad()
def noise_free_ridge(table: Tensor, gradient: Tensor, product: Product, diagonal: Tensor, dot: Dot = inner) -> float:
    r"""Return the ridge of early stopping for rows that are a minimiser plus the noise of training.

    Let :math:`\hat e = e^* + \xi`, where :math:`e^*` minimises the risk with the ridge :math:`\delta` and :math:`\xi`
    is what the noise of the last training steps adds. The gradient of the noise is :math:`\nu = \nabla R(\hat e) +
    \delta\hat e`, and to first order :math:`\xi = (H + \delta I)^{-1}\nu`. The ridge is the :math:`\delta` for which
    the gradient of the noise is orthogonal to the minimiser:

    .. math:: \langle\nu, e^*\rangle = \langle\nu, \hat e\rangle - \nu^\top(H + \delta I)^{-1}\nu = 0 .

    Without the second term, this is the least-squares ridge :math:`-\langle\nabla R, \hat e\rangle/\|\hat e\|^2`. Noise
    lengthens embeddings, so that the least-squares ridge is too small, and may be negative. The root is bracketed from
    the least-squares ridge upwards in factors of two, and found by Brent's method in :math:`\log\delta`, with one solve
    by conjugate gradients per evaluation.

    Args:
        table: The trained rows :math:`\hat e`, flattened ``[num]``.
        gradient: The gradient of the training risk in them ``[num]``.
        product: The product with the curvature :math:`H` in these rows.
        diagonal: Its diagonal ``[num]``.
        dot: Inner product of two vectors, if several processes hold them.

    Returns:
        The ridge, at least the least-squares ridge and 0.01; the larger of these two where no :math:`\delta` solves
        the equation.

    Example:
        >>> import torch
        >>> minimiser, noise = torch.tensor([2.0, 1.0, -2.0]), torch.tensor([0.3, -0.2, 0.2])
        >>> table, curvature, ridge = minimiser + noise, torch.tensor([3.0, 3.0, 3.0]), 0.5
        >>> gradient = (curvature + ridge) * noise - ridge * table
        >>> round(noise_free_ridge(table, gradient, lambda v: curvature * v, curvature), 3)
        0.5
        >>> round(-float(gradient @ table / (table @ table)), 3)  # the least-squares ridge
        0.435
    """
    table, gradient, diagonal = (x.double() for x in (table, gradient, diagonal))
    slope, square = dot(gradient, table), dot(table, table)
    plain = max(-slope / max(square, 1e-30), SMALLEST)

    def value(log: float) -> float:
        ridge = math.exp(log)
        noise = gradient + ridge * table
        inverse = (diagonal + ridge).reciprocal()
        solved = conjugate_gradients(
            product,
            noise,
            damping=ridge,
            preconditioner=partial(torch.mul, inverse),
            tol=_TOLERANCE,
            max_iter=_PRODUCTS,
            dot=dot,
        )
        return slope + ridge * square - dot(noise, solved.x)  # conjugate gradients from 0: of second order in the error

    low = high = math.log(plain)
    found = value(low)
    if found >= 0:
        return plain
    while found < 0:
        low, high = high, high + math.log(2)
        if math.exp(high) > _LARGEST:
            return plain
        found = value(high)
    from scipy.optimize import brentq  # here, since few requests need it, and importing it takes long

    return math.exp(brentq(value, low, high, xtol=_CLOSE))


class Ridges:
    r"""The ridges of the embeddings of users and of items of a trained model; each is computed when it is asked for.

    For matrix factorisation, whose embeddings of a side do not depend on each other, it is :func:`noise_free_ridge`.
    For models that propagate, it is the least-squares ridge: on MovieLens-100K, the embeddings of LightGCN that were
    fitted with the larger ridge were so short that the scores of retained interactions fell.

    Args:
        risk: The training risk at the trained table.
        gradient: Its gradient in the table ``[num_nodes, dim]``.
    """

    def __init__(self, risk: LinearRisk, gradient: Tensor) -> None:
        self.risk, self.gradient = risk, gradient
        self._found: dict[int, float] = {}

    def __call__(self, own: int, place: slice, dot: Dot = inner) -> float:
        """Return the ridge of a side.

        Args:
            own: The side: 0 for users, 1 for items.
            place: Its rows in the table.
            dot: Inner product of two vectors of these rows, if several processes hold them.
        """
        if own not in self._found:
            self._found[own] = self._computed(place, dot)
        return self._found[own]

    def _computed(self, place: slice, dot: Dot) -> float:
        risk = self.risk
        whole = risk.parameters.view_as(self.gradient)
        table, gradient = whole[place].flatten(), self.gradient[place].flatten()
        if risk.form.matrix is not None:
            return max(ridge_of(table, gradient, dot)[0], SMALLEST)
        curved = risk.with_negatives(CURVATURE_NEGATIVES)

        def put(v: Tensor) -> Tensor:
            found = torch.zeros_like(whole)
            found[place] = v.to(whole.dtype).view_as(whole[place])
            return found.flatten()

        def own_rows(v: Tensor) -> Tensor:
            return v.view_as(whole)[place].flatten().double()

        theta = risk.parameters
        product = partial(restricted, curved.curvature(theta), put, own_rows)
        return noise_free_ridge(table, gradient, product, own_rows(curved.jacobi(theta)), dot)
