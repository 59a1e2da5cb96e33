"""Losses of implicit data that compare every interaction with sampled items: binary cross entropy and softmax."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.data.schema import check, check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.training.negatives import draw_negatives, draw_popular
from graphunlearn.nn.training.objective import Sampled, Samples

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["InBatchSoftmax", "SampledBCE", "SampledSoftmax"]


@dataclass(frozen=True, kw_only=True)
class SampledBCE(Sampled):
    r"""Binary cross entropy of an interaction and of sampled negatives.

    .. math::
        \ell = \log(1 + e^{-s_{ui}}) + \frac wn \sum_{k=1}^n \log(1 + e^{s_{uj_k}})

    By default :math:`w = n`, so that every negative counts as much as the interaction. The negatives are a fixed
    function of (``seed``, user, item, k) that avoids the items of the user in the graph; training draws new ones in
    every epoch. In the L2 penalty, the negatives of a sample count as much as one item.

    Args:
        weight_decay: Weight of the L2 penalty on the layer-0 embeddings of the sample.
        negatives: Negatives :math:`n` per interaction.
        seed: Seed of the negatives.
        ratio: Weight :math:`w` of all negatives of an interaction together; ``None`` stands for ``negatives``.

    Raises:
        ValueError: ``negatives`` is not a positive integer, ``weight_decay`` is negative, or ``ratio`` is not positive.

    Source: He et al., "Neural Collaborative Filtering", WWW 2017.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> objective = gu.SampledBCE(negatives=2)
        >>> objective(gu.Encoded(torch.zeros(2, 4), torch.zeros(3, 4)), objective.samples(graph))
        tensor([2.0794, 2.0794])
    """

    weight_decay: float = 1e-3
    negatives: int = 1
    ratio: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check("be positive and finite", lambda value: value is None or 0 < value < math.inf, ratio=self.ratio)

    def with_negatives(self, num: int) -> Self:
        return replace(self, negatives=num, ratio=float(self.negatives) if self.ratio is None else self.ratio)

    def margins(self, scores: Tensor, samples: Samples) -> Tensor:
        return scores.view(-1, 1 + self.negatives)

    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        p, (weight, target) = torch.sigmoid(margins), self._weights(margins, samples)
        return self.loss(margins, samples), weight * (p - target), weight * p * (1 - p)

    def loss(self, margins: Tensor, samples: Samples) -> Tensor:
        weight, target = self._weights(margins, samples)
        return weight * (F.softplus(margins) - target * margins)

    def _weights(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return the weight and the label of every margin; the loss is the mean over the margins."""
        assert samples.negatives is not None
        width, num = margins.size(1), samples.negatives.size(1)
        each = 1.0 if self.ratio is None else self.ratio / num
        weight = torch.full_like(margins, each * width).masked_fill(_no_negative(samples), 0.0)
        weight[:, 0] = width
        target = torch.zeros_like(margins)
        target[:, 0] = 1.0
        return weight, target


@dataclass(frozen=True, kw_only=True)
class _Softmax(Sampled):
    r"""The base class of losses with a softmax over the item of the interaction and sampled items.

    .. math::
        \ell = -\log\frac{e^{s_{ui}/\tau - c_i}}
            {e^{s_{ui}/\tau - c_i} + \frac Nn \sum_{k=1}^n e^{s_{uj_k}/\tau - c_{j_k}}}
    """

    temperature: float = 1.0
    log_q: bool = True
    epoch_samples = Sampled.epoch_samples

    def __post_init__(self) -> None:
        super().__post_init__()
        check("be positive and finite", lambda value: 0 < value < math.inf, temperature=self.temperature)

    @property
    @abstractmethod
    def _competitors(self) -> int:
        """Number N of items that the drawn ones stand for."""

    @property
    def _corrected(self) -> bool:
        """Whether the logarithm of the popularity is subtracted from the scores."""
        return self.log_q

    def samples(self, graph: InteractionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> Samples:
        samples = super().samples(graph, mask=mask, epoch=epoch)
        assert samples.negatives is not None
        items = torch.cat([samples.items.unsqueeze(1), samples.negatives], 1)
        offset = torch.zeros(items.shape, device=items.device)
        if self._corrected:  # the number of all interactions cancels, so that the count stands for the frequency
            count = graph.adjacency.degree[graph.num_users :].clamp(min=1)
            offset = offset - count.to(offset.dtype).log()[items]
        offset[:, 1:] += math.log(self._competitors / self.negatives)
        return replace(samples, offset=offset.masked_fill(_no_negative(samples), -torch.inf))

    def first_negatives(self, samples: Samples, most: int) -> tuple[Self, Samples]:
        _, fewer = super().first_negatives(samples, most)
        if fewer is samples or samples.offset is None:
            return self, samples
        offset = samples.offset[:, : most + 1].clone()
        offset[:, 1:] += math.log(self.negatives / most)  # those that stay stand for the others as well
        return replace(self, negatives=most), replace(fewer, offset=offset)

    def margins(self, scores: Tensor, samples: Samples) -> Tensor:
        return scores.view(-1, 1 + self.negatives)

    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        p, width = self._logits(margins, samples).softmax(1), margins.size(1)
        slope = p.clone()
        slope[:, 0] = -p[:, 1:].sum(1)
        second = p * (1 - p) * (width / self.temperature**2)
        return self.loss(margins, samples), slope * (width / self.temperature), second

    def loss(self, margins: Tensor, samples: Samples) -> Tensor:
        logits = self._logits(margins, samples)
        return -torch.log_softmax(logits, 1)[:, :1].expand_as(margins)

    def second(self, margins: Tensor, samples: Samples) -> Callable[[Tensor], Tensor]:
        p = self._logits(margins, samples).softmax(1)
        scale = 1 / self.temperature**2
        return lambda change: scale * p * (change - (p * change).sum(1, keepdim=True))

    def _logits(self, margins: Tensor, samples: Samples) -> Tensor:
        assert samples.offset is not None
        return margins / self.temperature + samples.offset.to(margins.dtype)


@dataclass(frozen=True, kw_only=True)
class SampledSoftmax(_Softmax):
    r"""Softmax over the item of an interaction and ``negatives`` sampled items.

    .. math::
        \ell = -\log\frac{e^{s_{ui}/\tau - c_i}}{e^{s_{ui}/\tau - c_i} + \sum_{k=1}^n e^{s_{uj_k}/\tau - c_{j_k}}}

    With ``proposal="popularity"``, items are drawn in proportion to their number of interactions :math:`q_j`, and
    ``log_q`` sets :math:`c_j = \log q_j`. With ``proposal="uniform"``, the correction is the same for all items and
    cancels. The negatives are a fixed function of (``seed``, user, item, k) that avoids the items of the user in the
    graph; training draws new ones in every epoch. The expectation of the loss depends on ``negatives``, so operators
    use the number that the model was trained with.

    Args:
        weight_decay: Weight of the L2 penalty on the layer-0 embeddings of the sample.
        negatives: Negatives :math:`n` per interaction.
        seed: Seed of the negatives.
        temperature: The temperature :math:`\tau`.
        log_q: Whether to correct for the proposal.
        proposal: ``"uniform"`` or ``"popularity"``.

    Raises:
        ValueError: A number is out of range, or the proposal is not known.

    Source: Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL 2015.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> objective = gu.SampledSoftmax(negatives=3)
        >>> objective(gu.Encoded(torch.zeros(2, 4), torch.zeros(3, 4)), objective.samples(graph))
        tensor([1.3863, 1.3863])
    """

    weight_decay: float = 1e-3
    negatives: int = 64
    proposal: Literal["uniform", "popularity"] = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("uniform", "popularity")
        check("be one of uniform, popularity", lambda value: value in known, proposal=self.proposal)

    @property
    def private(self) -> bool:  # type: ignore[override]
        """Whether forgetting leaves the samples of other users unchanged; popularity depends on all users."""
        return self.proposal == "uniform"

    @property
    def _competitors(self) -> int:
        return self.negatives

    @property
    def _corrected(self) -> bool:
        return self.log_q and self.proposal == "popularity"

    def with_negatives(self, num: int) -> Self:
        return self

    def draw(self, graph: InteractionGraph, users: Tensor, items: Tensor, seed: int) -> Tensor:
        if self.proposal == "uniform":
            return draw_negatives(graph, users, items, self.negatives, seed)
        return draw_popular(graph, users, items, self.negatives, seed, avoid=True)


@dataclass(frozen=True, kw_only=True)
class InBatchSoftmax(_Softmax):
    r"""Softmax over the items of a batch, as two-tower models are trained, as a fixed function of every interaction.

    .. math::
        \ell = -\log\frac{e^{s_{ui}/\tau - c_i}}
            {e^{s_{ui}/\tau - c_i} + \frac{B - 1}n \sum_{k=1}^n e^{s_{uj_k}/\tau - c_{j_k}}}

    In a batch of :math:`B` random interactions, the competitors of an interaction are :math:`B - 1` items in proportion
    to their number of interactions :math:`q_j`. The loss of an interaction would then depend on its batch, and could
    not be forgotten by itself. Here, every interaction has :math:`n` such items of its own, which stand for the
    :math:`B - 1`. They are a fixed function of (``seed``, user, item, k); training draws new ones in every epoch, and
    a removal changes only the draws that took a removed interaction. As in a batch, other items of the user can be
    drawn. A draw that equals the item of the interaction does not count. With ``log_q``, :math:`c_j = \log q_j`,
    otherwise :math:`c_j = 0`.

    Args:
        weight_decay: Weight of the L2 penalty on the layer-0 embeddings of the sample.
        negatives: Drawn items :math:`n` per interaction; operators may draw up to :math:`B - 1`.
        seed: Seed of the draws.
        temperature: The temperature :math:`\tau`.
        log_q: Whether to subtract the logarithm of the popularity from the scores.
        batch_size: The batch size :math:`B` that the model was trained with, at least 2.

    Raises:
        ValueError: A number is out of range.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.arange(5).repeat(2, 1))
        >>> objective = gu.InBatchSoftmax(batch_size=5, negatives=64)
        >>> objective(gu.Encoded(torch.zeros(5, 4), torch.zeros(5, 4)), objective.samples(graph)).shape
        torch.Size([5])
    """

    private: ClassVar[bool] = False
    weight_decay: float = 1e-3
    negatives: int = 64
    batch_size: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(batch_size=self.batch_size)
        if self.batch_size < 2:
            raise ArgumentError("batch_size", "be at least 2, so that an interaction has a competitor", self.batch_size)

    @property
    def _competitors(self) -> int:
        return self.batch_size - 1

    def with_negatives(self, num: int) -> Self:
        return replace(self, negatives=max(self.negatives, min(num, self.batch_size - 1)))

    def draw(self, graph: InteractionGraph, users: Tensor, items: Tensor, seed: int) -> Tensor:
        return draw_popular(graph, users, items, self.negatives, seed)


def _no_negative(samples: Samples) -> Tensor:
    """Return a mask of the scores that are no negatives: those of the sample's own item ``[num_samples, 1 + n]``."""
    assert samples.negatives is not None
    return F.pad(samples.missing, (1, 0))
