"""UnlearnRec's influence encoder as it is described."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphunlearn.func import Adjacency, spmm

__all__ = ["PublishedEncoder", "check_count", "check_positive"]


class PublishedEncoder(nn.Module):
    r"""Revise a table of initial embeddings for what is to be forgotten, as described for UnlearnRec.

    .. math::
        \tilde E_0 = E_0 + \mathrm{MLP}\Big(\sum_{l=0}^L \hat A^l H^0 - 0.1\,\hat A^L (w \odot E_f)\Big)

    :math:`\hat A` is the symmetric adjacency of the forgotten interactions *alone*, normalised by its own degrees. The
    influence :math:`H^0` (a row per node, zero at first) and the weights :math:`w` (a number per node, ``2 * lr`` at
    first) are learned by :func:`pretrain`; the MLP, two LeakyReLU(0.99) layers without bias whose weights are the
    identity at first, by :func:`finetune` alone. The term :math:`l = 0` does not depend on the request: once
    pre-trained, this encoder changes the table for an empty request as well.

    Args:
        num_nodes: Users plus items; users come first.
        dim: Width of a row.
        layers: :math:`L`.
        lr: Learning rate of pre-training, which :math:`w` starts from.

    Raises:
        ValueError: A size is not positive, or ``lr`` is not.

    Source: "Unlearning for recommendation with a pre-trained influence encoder", arXiv 2505.22649; from summaries and
    public code, so that details may differ.

    Example:
        >>> encoder, rows = PublishedEncoder(4, 2, layers=1, lr=0.05), torch.ones(4, 2)
        >>> encoder(rows, rows, torch.tensor([[0], [1]]), num_users=2).detach()
        tensor([[0.9902, 0.9902],
                [1.0000, 1.0000],
                [1.0000, 1.0000],
                [0.9902, 0.9902]])
    """

    def __init__(self, num_nodes: int, dim: int, layers: int = 3, *, lr: float = 1e-3) -> None:
        super().__init__()
        for name, value in (("num_nodes", num_nodes), ("dim", dim), ("layers", layers)):
            check_count(name, value)
        check_positive("lr", lr)
        self.layers = layers
        self.influence = nn.Parameter(torch.zeros(num_nodes, dim))
        self.withdraw = nn.Parameter(torch.full((num_nodes, 1), 2 * lr))
        linear = [
            nn.utils.skip_init(nn.Linear, dim, dim, bias=False) for _ in range(2)
        ]  # nothing drawn, nothing wasted
        for part in linear:
            nn.init.eye_(part.weight)
        self.mlp = nn.Sequential(linear[0], nn.LeakyReLU(0.99), linear[1], nn.LeakyReLU(0.99)).requires_grad_(False)

    def forward(self, initial: Tensor, final: Tensor, pairs: Tensor, num_users: int) -> Tensor:
        r"""Return the revised table :math:`\tilde E_0` ``[num_nodes, dim]``.

        Args:
            initial: :math:`E_0` ``[num_nodes, dim]``.
            final: :math:`E_f`, the rows that the trained model recommends by ``[num_nodes, dim]``.
            pairs: What is forgotten: internal users and items ``[2, num_forgotten]``.
            num_users: Number of users.
        """
        revised: Tensor = initial + self.mlp(self.estimate(final, self.request_matrix(pairs, num_users)))
        return revised

    def request_matrix(self, pairs: Tensor, num_users: int) -> Tensor:
        r"""Return :math:`\hat A` of ``pairs`` ``[2, num]`` in CSR ``[num_nodes, num_nodes]``."""
        sizes = (num_users, len(self.influence) - num_users)
        if pairs.dim() != 2 or len(pairs) != 2:
            raise ValueError(f"'pairs' must have the shape [2, num] (got {list(pairs.shape)})")
        for name, ids, size in zip(("user", "item"), pairs, sizes):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                raise ValueError(
                    f"'pairs' must name {name}s from 0 to {size - 1} (got {int(ids.min())} to {int(ids.max())})"
                )
        return Adjacency.from_pairs(pairs, *sizes).normalized(self.influence.dtype)

    def estimate(self, final: Tensor, matrix: Tensor) -> Tensor:
        r"""Return :math:`\sum_l \hat A^l H^0 - 0.1\,\hat A^L (w \odot E_f)` ``[num_nodes, dim]``, before the MLP."""
        out: Tensor = self.influence - 0.1 * self.withdraw * final
        for _ in range(self.layers):  # Horner's scheme: the withdraw term travels along, one product per layer
            out = spmm(matrix, out) + self.influence
        return out

    def layers_of(self, matrix: Tensor, nodes: Tensor) -> list[Tensor]:
        r"""Return the rows of ``nodes`` in :math:`H^1, \dots, H^L`, each ``[num, dim]``; :math:`H^0` knows no views."""
        layer: Tensor = self.influence
        out = []
        for _ in range(self.layers):
            layer = spmm(matrix, layer)
            out.append(layer[nodes])
        return out

    def check(self, table: Tensor) -> None:
        """Raise a ``ValueError`` where this encoder cannot revise ``table``."""
        own = self.influence
        if own.shape != table.shape or own.dtype != table.dtype or own.device != table.device:
            mine, wanted = (f"{list(x.shape)} of {x.dtype} on {x.device}" for x in (own, table))
            raise ValueError(f"'encoder' must be made for the model's initial embeddings, {wanted} (got {mine})")


def check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"'{name}' must be a positive integer (got {value!r})")


def check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"'{name}' must be positive and finite (got {value!r})")
