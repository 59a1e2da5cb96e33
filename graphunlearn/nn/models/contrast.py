"""Self-supervised recommenders: LightGCN that is also trained to agree with itself on disturbed views of the graph."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch_geometric.nn import LightGCN

from graphunlearn.errors import ArgumentError

__all__ = ["SGL", "Contrastive", "SimGCL"]

View = Literal["edge-drop", "node-drop", "random-walk"]


class Contrastive(LightGCN):
    """What SGL and SimGCL share: how much the contrastive term counts, how sharp it is, and over how many rows."""

    def __init__(
        self,
        num_nodes: int,
        embedding_dim: int,
        num_layers: int,
        alpha: Tensor | None,
        temperature: float,
        weight: float,
        contrast: int,
    ) -> None:
        if num_layers < 1:
            raise ArgumentError("num_layers", "be at least 1", num_layers)
        if not 0 < temperature < math.inf:
            raise ArgumentError("temperature", "be positive and finite", temperature)
        if not 0 <= weight < math.inf:
            raise ArgumentError("weight", "be finite and not negative", weight)
        if contrast < 1:
            raise ArgumentError("contrast", "be at least 1", contrast)
        super().__init__(num_nodes, embedding_dim, num_layers, alpha)
        self.temperature, self.weight, self.contrast = temperature, weight, contrast

    def extra_repr(self) -> str:
        """Return what tells one training of the model from another."""
        return f"temperature={self.temperature}, weight={self.weight}, contrast={self.contrast}"

    def __repr__(self) -> str:
        sizes = f"{self.num_nodes}, {self.embedding_dim}, num_layers={self.num_layers}"
        return f"{type(self).__name__}({sizes}, {self.extra_repr()})"


class SGL(Contrastive):
    r"""Self-supervised graph learning: LightGCN whose rows must be recognised across two random subgraphs.

    The model itself, and how it recommends, is LightGCN's. In training :func:`~graphunlearn.nn.auxiliary_loss` adds a
    contrastive term between two views, drawn once per epoch:

    * ``"edge-drop"``: every interaction is left out with probability ``drop``;
    * ``"node-drop"``: every user and item is, with all of its interactions;
    * ``"random-walk"``: as ``"edge-drop"``, but drawn anew for every layer.

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Width of a row.
        num_layers: Propagation layers.
        view: How a view of the graph is made.
        drop: Probability of being left out.
        temperature: Divides the cosines; the smaller, the more the hardest nodes count.
        weight: Weight of the contrastive term beside the mean loss of a sample.
        contrast: At most this many users, and as many items, are told apart in a step.

    Raises:
        ValueError: An option is out of range.

    Source: Wu et al., "Self-supervised Graph Learning for Recommendation", SIGIR 2021.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]]), num_users=3, num_items=3)
        >>> model = SGL(6, 8, num_layers=2, drop=0.2)
        >>> result = gu.fit(model, graph, epochs=3)
        >>> gu.encode(model, graph).queries.shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        num_nodes: int,
        embedding_dim: int,
        num_layers: int,
        *,
        view: View = "edge-drop",
        drop: float = 0.1,
        temperature: float = 0.2,
        weight: float = 0.01,
        contrast: int = 1024,
    ) -> None:
        if view not in get_args(View):
            raise ArgumentError("view", f"be one of {', '.join(get_args(View))}", f"{view!r}")
        if not 0 <= drop < 1:
            raise ArgumentError("drop", "be at least 0 and less than 1", drop)
        super().__init__(num_nodes, embedding_dim, num_layers, None, temperature, weight, contrast)
        self.view, self.drop = view, drop

    def extra_repr(self) -> str:
        return f"view={self.view!r}, drop={self.drop}, {super().extra_repr()}"


class SimGCL(Contrastive):
    r"""Simple graph contrastive learning: LightGCN whose rows must be recognised under noise, without layer 0.

    The rows are :math:`\frac1L\sum_{l=1}^L \hat A^l E`. In training :func:`~graphunlearn.nn.auxiliary_loss` adds a
    contrastive term between two noisy runs, :math:`z^{(l)} = \hat A z^{(l-1)} + \Delta`, with noise drawn for every
    step, layer and node that keeps the signs:

    .. math::
        \Delta = \epsilon\,\mathrm{sign}(\hat A z^{(l-1)}) \odot \frac{u}{\|u\|}, \qquad u \sim U(0, 1)^d

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Width of a row.
        num_layers: Propagation layers.
        eps: Length :math:`\epsilon` of the noise.
        full_at: Mean squared length of the rows of :math:`E` from which on the contrastive term counts in full; below,
            ``weight`` is scaled down in proportion. The shorter the rows, the steeper is the term and the flatter the
            ranking loss: at the rows a training starts with, it would be all that is learned, and validation results
            fall for longer than early stopping waits. 0 is the term as published.
        temperature: Divides the cosines; the smaller, the more the hardest nodes count.
        weight: Weight of the contrastive term beside the mean loss of a sample.
        contrast: At most this many users, and as many items, are told apart in a step.

    Raises:
        ValueError: An option is out of range.

    Source: Yu et al., "Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for Recommendation",
    SIGIR 2022.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]]), num_users=3, num_items=3)
        >>> model = SimGCL(6, 8, num_layers=2, eps=0.1)
        >>> result = gu.fit(model, graph, epochs=3)
        >>> model.alpha
        tensor([0.0000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        num_nodes: int,
        embedding_dim: int,
        num_layers: int,
        *,
        eps: float = 0.1,
        full_at: float = 1.0,
        temperature: float = 0.2,
        weight: float = 0.05,
        contrast: int = 1024,
    ) -> None:
        if not 0 < eps < math.inf:
            raise ArgumentError("eps", "be positive and finite", eps)
        if not 0 <= full_at < math.inf:
            raise ArgumentError("full_at", "be finite and not negative", full_at)
        alpha = torch.tensor([0.0] + [1 / max(num_layers, 1)] * num_layers)
        super().__init__(num_nodes, embedding_dim, num_layers, alpha, temperature, weight, contrast)
        self.eps, self.full_at = eps, full_at

    def extra_repr(self) -> str:
        return f"eps={self.eps}, full_at={self.full_at}, {super().extra_repr()}"
