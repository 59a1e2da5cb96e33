"""Self-supervised recommenders: LightGCN with a contrastive loss between perturbed views."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch_geometric.nn import LightGCN

from graphunlearn.data.schema import check_sizes
from graphunlearn.errors import ArgumentError

__all__ = ["SGL", "Contrastive", "SimGCL"]

View = Literal["edge-drop", "node-drop", "random-walk"]


class Contrastive(LightGCN):
    """The base class of SGL and SimGCL, with the weight, temperature and largest size of the contrastive loss."""

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
        check_sizes(num_layers=num_layers, contrast=contrast)
        if not 0 < temperature < math.inf:
            raise ArgumentError("temperature", "be positive and finite", temperature)
        if not 0 <= weight < math.inf:
            raise ArgumentError("weight", "be finite and not negative", weight)
        super().__init__(num_nodes, embedding_dim, num_layers, alpha)
        self.temperature, self.weight, self.contrast = temperature, weight, contrast

    def extra_repr(self) -> str:
        """Return the options of the model, which also identify its training checkpoints."""
        return f"temperature={self.temperature}, weight={self.weight}, contrast={self.contrast}"

    def __repr__(self) -> str:
        sizes = f"{self.num_nodes}, {self.embedding_dim}, num_layers={self.num_layers}"
        return f"{type(self).__name__}({sizes}, {self.extra_repr()})"


class SGL(Contrastive):
    r"""Self-supervised graph learning: LightGCN with a contrastive loss between two random subgraphs.

    The model encodes and recommends like LightGCN. In training, :func:`~graphunlearn.nn.auxiliary_loss` adds a
    contrastive loss between two views, which are drawn once per epoch:

    * ``"edge-drop"``: every interaction is dropped with probability ``drop``;
    * ``"node-drop"``: every user and item is dropped with probability ``drop``, with all of its interactions;
    * ``"random-walk"``: like ``"edge-drop"``, but with separate draws for every layer.

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Dimension of the embeddings.
        num_layers: Propagation layers.
        view: The kind of view.
        drop: Probability with which an interaction or node is dropped.
        temperature: Divisor of the cosines; a smaller value gives more weight to the hardest nodes.
        weight: Weight of the contrastive loss relative to the mean per-sample loss.
        contrast: Largest number of users, and of items, that are contrasted in a step.

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
    r"""Simple graph contrastive learning: LightGCN without layer 0, with a contrastive loss between noisy embeddings.

    The embeddings are :math:`\frac1L\sum_{l=1}^L \hat A^l E`. In training, :func:`~graphunlearn.nn.auxiliary_loss` adds
    a contrastive loss between two noisy propagations :math:`z^{(l)} = \hat A z^{(l-1)} + \Delta`. The noise is drawn
    for every step, layer and node, and preserves the signs:

    .. math::
        \Delta = \epsilon\,\mathrm{sign}(\hat A z^{(l-1)}) \odot \frac{u}{\|u\|}, \qquad u \sim U(0, 1)^d

    Args:
        num_nodes: Number of users plus items; users come first.
        embedding_dim: Dimension of the embeddings.
        num_layers: Propagation layers.
        eps: Length :math:`\epsilon` of the noise.
        full_at: Mean squared norm of the embeddings in :math:`E` from which the contrastive loss has its full
            ``weight``. Below it, the weight is proportional to the mean squared norm; with 0, it is constant, as
            published. For embeddings of small norm, such as the initial ones, the gradient of the contrastive loss is
            large and that of the ranking loss is small. With the full weight, the validation metric would then decrease
            for more epochs than the patience of early stopping.
        temperature: Divisor of the cosines; a smaller value gives more weight to the hardest nodes.
        weight: Weight of the contrastive loss relative to the mean per-sample loss.
        contrast: Largest number of users, and of items, that are contrasted in a step.

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
