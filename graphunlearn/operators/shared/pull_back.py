"""The table whose propagation gives wanted final embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.func import conjugate_gradients
from graphunlearn.nn.encoding import LinearForm

__all__ = ["pull_back"]


@torch.no_grad()
def pull_back(
    form: LinearForm, table: Tensor, target: Tensor, *, damping: float = 1e-4, max_iter: int = 200
) -> tuple[Tensor, float]:
    r"""Return the table near ``table`` whose propagation is closest to ``target``.

    With the symmetric linear propagation :math:`P`, the change of the table minimises
    :math:`\|P(E + X) - Z\|^2 + \delta\|X\|^2`, by conjugate gradients on :math:`(P^2 + \delta I)X = P(Z - PE)`. Where
    nothing propagates, the change is exact.

    Args:
        form: The linear propagation :math:`P`.
        table: The table :math:`E` ``[num_nodes, dim]``.
        target: The wanted final embeddings :math:`Z` ``[num_nodes, dim]``.
        damping: The damping :math:`\delta`; it bounds the change in directions that the propagation removes.
        max_iter: Largest number of products with :math:`P^2`.

    Returns:
        The new table ``[num_nodes, dim]``, and the part of :math:`\|Z - PE\|` that is left.

    Example:
        >>> import torch
        >>> pull_back(LinearForm("weight", (0.5,), None), torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]))
        (tensor([[2.],
                [4.]]), 0.0)
    """
    off = target - form.propagate(table)
    norm = float(off.norm())
    if norm == 0:
        return table.clone(), 0.0
    if form.matrix is None:
        return table + off / form.alpha[0], 0.0

    def product(v: Tensor) -> Tensor:
        return form.propagate(form.propagate(v.view_as(table))).flatten()

    tol = 1e-10 if table.dtype == torch.float64 else 1e-5
    rhs = form.propagate(off).flatten()
    change = conjugate_gradients(product, rhs, damping=damping, tol=tol, max_iter=max_iter).x.view_as(table)
    return table + change, float((off - form.propagate(change)).norm()) / norm
