"""The training objective of session models: predict the click that follows each prefix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.softmax import catalogue_loss

__all__ = ["CrossEntropy", "PrefixSamples"]


@dataclass(frozen=True)
class PrefixSamples:
    """The training samples of session models: prefixes, and the item clicked next.

    Args:
        ends: Index of the last click of every prefix ``[num_samples]``.
        target: The item to predict ``[num_samples]``.
        session: Session of every prefix ``[num_samples]``.
    """

    ends: Tensor
    target: Tensor
    session: Tensor

    def __len__(self) -> int:
        return self.ends.numel()

    def select(self, index: Tensor) -> PrefixSamples:
        """Return a subset of the samples.

        Args:
            index: Boolean mask ``[num_samples]``, or positions.
        """
        index = index.to(self.ends.device)
        return PrefixSamples(self.ends[index], self.target[index], self.session[index])


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Criterion):
    r"""Cross entropy of the next click over the whole catalogue, for every prefix of every session.

    .. math::
        \ell(v_1, \dots, v_t \to v_{t+1})
            = -\log\frac{\exp\langle s, e_{v_{t+1}}\rangle}{\sum_j \exp\langle s, e_j\rangle}

    with the embedding :math:`s` of the prefix and the embeddings :math:`e_j` of the items.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> samples = CrossEntropy().samples(graph)
        >>> samples.ends, samples.target
        (tensor([0, 1, 3]), tensor([1, 0, 1]))
        >>> CrossEntropy().losses(gu.nn.SRGNN(graph.num_items, 8), graph, samples).shape
        torch.Size([3])
    """

    def samples(self, graph: SessionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> PrefixSamples:
        """Return every prefix that is followed by a click, or those whose next click is in ``mask``.

        For a graph of prefixes, the samples are the prefixes themselves with their ``target``.

        Args:
            graph: The training sessions.
            mask: Mask of the clicks to predict ``[num_clicks]``; the first click of a session has no prefix.
            epoch: Unused, because samples are not random.

        Returns:
            The samples.
        """
        if mask is None and graph.target is not None:
            followed = (graph.target >= 0).nonzero().squeeze(1)
            return PrefixSamples(graph.click_ptr[followed + 1] - 1, graph.target[followed], followed)
        follows = torch.ones(graph.num_clicks, dtype=torch.bool, device=graph.device) if mask is None else mask.clone()
        follows[graph.click_ptr[:-1]] = False
        clicks = follows.nonzero().squeeze(1)
        session = torch.searchsorted(graph.click_ptr, clicks, right=True) - 1
        return PrefixSamples(clicks - 1, graph.x[graph.alias[clicks]], session)

    def losses(self, model: nn.Module, graph: SessionGraph, samples: PrefixSamples) -> Tensor:
        r"""Return :math:`-\log p` of the click that follows each prefix.

        Args:
            model: The session recommender.
            graph: The training sessions.
            samples: Samples of that graph.

        Returns:
            The losses ``[num_samples]``.
        """
        encoded = encode_prefixes(model, graph, samples.ends)
        return catalogue_loss(encoded.queries, encoded.items, samples.target)

    def batches(self, samples: PrefixSamples, size: int, generator: torch.Generator) -> Iterator[PrefixSamples]:
        """Yield all samples once, the prefixes of a session together, sessions in random order.

        A session is never divided, so that a causal model reads it once per epoch. Batches therefore have only about
        ``size`` samples.

        Args:
            samples: The samples.
            size: Approximate number of samples per batch.
            generator: Generator of the order, on the CPU.
        """
        _, session = torch.unique(samples.session, return_inverse=True)
        count = torch.bincount(session)
        order = torch.randperm(count.numel(), generator=generator).to(count.device)
        before = count[order].cumsum(0) - count[order]
        batch = torch.empty_like(order).scatter_(0, order, before // size)
        place = torch.empty_like(order).scatter_(0, order, before)[session]
        index = place.argsort(stable=True)
        for part in index.split(torch.bincount(batch[session]).tolist()):
            if part.numel():
                yield samples.select(part)
