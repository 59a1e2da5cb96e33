"""Matrices that are diagonal in other axes, one for users and one for items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphunlearn.func import Product

__all__ = ["Rotated"]


@dataclass(frozen=True)
class Rotated:
    r"""A matrix that is diagonal in other axes: :math:`Q_u D Q_u^\top` for users and :math:`Q_i D Q_i^\top` for items.

    Args:
        users: The axes :math:`Q_u` in the rows of users ``[dim, dim]``.
        items: The axes :math:`Q_i` in the rows of items ``[dim, dim]``.
        diagonal: The diagonal :math:`D` of every node, users first ``[num_nodes, dim]``.
    """

    users: Tensor
    items: Tensor
    diagonal: Tensor

    def inverse(self, num_users: int, damping: float, share: Tensor) -> Product:
        r"""Return the product with the inverse of the matrix, in proportion to a share of every node, and damped.

        Args:
            num_users: Number of users.
            damping: The damping :math:`\delta > 0`.
            share: The factor of every node ``[num_nodes, 1]``.
        """
        inverse = 1 / (self.diagonal * share + damping)

        @torch.no_grad()
        def product(r: Tensor) -> Tensor:
            sides = r.view_as(inverse).split([num_users, len(inverse) - num_users])
            axes = self.users, self.items
            turned = inverse * torch.cat([side @ q for side, q in zip(sides, axes)])
            parts = zip(turned.split([len(side) for side in sides]), axes)
            return torch.cat([part @ q.t() for part, q in parts]).flatten()

        return product
