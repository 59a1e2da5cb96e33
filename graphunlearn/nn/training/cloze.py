"""The training objective of BERT4Rec: fill in masked clicks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.models.bert4rec import BERT4Rec
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.softmax import catalogue_loss

__all__ = ["Cloze", "ClozeSamples"]


@dataclass(frozen=True)
class ClozeSamples:
    """Masked clicks to fill in.

    Args:
        clicks: Index of every masked click ``[num_samples]``.
        target: Its item ``[num_samples]``.
        session: Its session ``[num_samples]``.
        masked: Mask of all masked clicks of the graph ``[num_clicks]``.
        stop: One more than the index of the last click of each session that is read ``[num_sessions]``.
    """

    clicks: Tensor
    target: Tensor
    session: Tensor
    masked: Tensor
    stop: Tensor

    def __len__(self) -> int:
        return self.clicks.numel()

    def select(self, index: Tensor) -> ClozeSamples:
        """Return a subset of the samples; the other masked clicks stay masked.

        Args:
            index: Boolean mask ``[num_samples]``, or positions.
        """
        index = index.to(self.clicks.device)
        return replace(self, clicks=self.clicks[index], target=self.target[index], session=self.session[index])


@dataclass(frozen=True, kw_only=True)
class Cloze(Criterion):
    r"""Cross entropy of masked clicks over the whole catalogue, for :class:`~graphunlearn.nn.BERT4Rec`.

    .. math::
        \ell(t) = -\log\frac{\exp\langle s_t, e_{v_t}\rangle}{\sum_j \exp\langle s_t, e_j\rangle}

    with the state :math:`s_t` of the masked click :math:`v_t`. In every epoch, each session is either read as a whole,
    where each click is masked with probability ``share`` (at least one is), or up to a random click, which alone is
    masked, as when the next click is predicted.

    Args:
        share: Probability that a click is masked, in sessions that are read as a whole.
        last: Probability that a session is read up to a random click.
        seed: Seed of the masks.

    Raises:
        ValueError: A probability is not between 0 and 1.

    Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
    Transformer", CIKM 2019; there, only the last click of a session is masked alone.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> samples = Cloze().samples(graph)
        >>> Cloze().losses(gu.nn.BERT4Rec(graph.num_items, 8), graph, samples).shape == (len(samples),)
        True
    """

    share: float = 0.2
    last: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("share", "last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(name, "be between 0 and 1", getattr(self, name))

    def samples(self, graph: SessionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> ClozeSamples:
        """Return the masked clicks of an epoch.

        Args:
            graph: The training sessions.
            mask: Mask of the clicks that may be samples ``[num_clicks]``; other masked clicks stay masked.
            epoch: The epoch, which determines the masks.

        Returns:
            The samples; sessions of one click have none.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + (epoch or 1))
        ptr, length, session = graph.click_ptr.cpu(), graph.length.cpu(), graph.session.cpu()
        drawn = torch.rand(graph.num_clicks, generator=generator)
        chosen = torch.rand(graph.num_sessions, 2, generator=generator)
        long = length > 1
        least = torch.full((graph.num_sessions,), torch.inf).scatter_reduce_(0, session, drawn, "amin")
        masked = (drawn < self.share) | (drawn == least[session])
        cut = long & (chosen[:, 0] < self.last)
        place = ptr[:-1] + 1 + (chosen[:, 1] * (length - 1)).long()
        masked &= ~cut[session]
        masked[place[cut]] = True
        masked &= long[session]
        stop = torch.where(cut, place + 1, ptr[1:]).to(graph.device)
        masked = masked.to(graph.device)
        clicks = (masked if mask is None else masked & mask).nonzero().squeeze(1)
        return ClozeSamples(clicks, graph.items[clicks], graph.session[clicks], masked, stop)

    def losses(self, model: nn.Module, graph: SessionGraph, samples: ClozeSamples) -> Tensor:
        r"""Return :math:`-\log p` of every masked click.

        Args:
            model: A :class:`~graphunlearn.nn.BERT4Rec`.
            graph: The training sessions.
            samples: Samples of that graph.

        Returns:
            The losses ``[num_samples]``.

        Raises:
            ValueError: The model is of another class.
        """
        if not isinstance(model, BERT4Rec):
            raise ArgumentError("model", "be a BERT4Rec, which reads masked clicks", type(model).__name__)
        used, which = torch.unique(samples.session, return_inverse=True)
        # a session that is too long is read in a window that ends at its last masked click of the batch
        end = torch.zeros_like(used).scatter_reduce_(0, which, samples.clicks + 1, "amax")
        whole = samples.stop[used]
        end = torch.where(whole - graph.click_ptr[used] <= model.max_length, whole, end)
        start = torch.maximum(graph.click_ptr[used], end - model.max_length)
        length = end - start
        offset = length.cumsum(0) - length
        clicks = torch.arange(int(length.sum()), device=used.device) + (start - offset).repeat_interleave(length)
        items = torch.where(samples.masked[clicks], model.mask_item, graph.items[clicks])
        inside = samples.clicks >= start[which]
        place = torch.where(inside, samples.clicks - start[which] + offset[which], offset[which])
        encoded = model.encoded(model(items, length).index_select(0, place))
        losses = catalogue_loss(encoded.queries, encoded.items, samples.target)
        return torch.where(inside, losses, 0.0)  # a click before the window is left out

    def batches(self, samples: ClozeSamples, size: int, generator: torch.Generator) -> Iterator[ClozeSamples]:
        """Yield all samples once, those of a session together, sessions in random order.

        Args:
            samples: The samples.
            size: Approximate number of samples per batch.
            generator: Generator of the order, on the CPU.
        """
        yield from CrossEntropy().batches(samples, size, generator)  # type: ignore[arg-type,misc]
