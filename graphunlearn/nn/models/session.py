"""Base classes of session recommenders, sessions in time-major order, and GRU4Rec."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from graphunlearn.data import SessionGraph
from graphunlearn.data.schema import check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, _check_sessions, encode
from graphunlearn.nn.prefixes import encode_prefixes

__all__ = ["CausalModel", "GRU4Rec", "Ragged", "SessionModel"]

CHUNK = 1 << 12  # clicks read at a time; bounds the memory, and larger chunks are slower


class SessionModel(nn.Module):
    """The base class of session recommenders, with an input table and an output table of the items.

    Args:
        num_items: Number of items, which is also the number of rows of the tables.
        dim: Dimension of the embeddings.
        tied: Whether the output table is the input table.
        bias: Whether every item has a bias. Encoded items have it as an additional column.
        dropout: Dropout probability of the input embeddings.
        **sizes: Further arguments that must be at least 1; ``heads`` must also divide ``dim``.

    Raises:
        ValueError: A size is not positive, ``heads`` does not divide ``dim``, or ``dropout`` is out of range.
    """

    row_length: ClassVar[float] = 2.0

    def __init__(self, num_items: int, dim: int, tied: bool, bias: bool, dropout: float, **sizes: int) -> None:
        check_sizes(num_items=num_items, dim=dim, **sizes)
        if dim % sizes.get("heads", 1):
            raise ArgumentError("heads", f"divide 'dim', {dim}", sizes["heads"])
        if not 0 <= dropout < 1:
            raise ArgumentError("dropout", "be at least 0 and less than 1", dropout)
        super().__init__()
        self.num_items, self.dim, self.dropout, self._sizes = num_items, dim, dropout, sizes
        self.embedding = nn.Embedding(num_items, dim)
        self.output = None if tied else nn.Embedding(num_items, dim)
        self.bias = nn.Parameter(torch.empty(num_items)) if bias else None

    def reset_parameters(self) -> None:
        """Reinitialise all parameters: embeddings with norm ``row_length`` (approximately), others as in PyTorch."""
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.GRU, nn.LayerNorm, nn.Linear)):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.row_length / math.sqrt(self.dim))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Return the options of the model, which also identify its training checkpoints."""
        options = {"tied": self.output is None, "bias": self.bias is not None, "dropout": self.dropout, **self._sizes}
        return ", ".join([f"{self.num_items}, {self.dim}", *(f"{name}={value}" for name, value in options.items())])

    def encoded(self, states: Tensor) -> Encoded:
        """Return embeddings of sessions and items whose dot products are the scores, including biases.

        Args:
            states: The states of sessions or prefixes ``[num, dim]``.

        Returns:
            The embeddings ``[num, dim]`` and ``[num_items, dim]``, with one more column if items have a bias.
        """
        table = self.embedding.weight if self.output is None else self.output.weight
        if self.bias is None:
            return Encoded(states, table)
        ones = states.new_ones(states.size(0), 1)
        return Encoded(torch.cat([states, ones], 1), torch.cat([table, self.bias.unsqueeze(1)], 1))


def dropped(rows: Tensor, share: float, training: bool) -> Tensor:
    """Return ``rows`` after dropout, which is faster here than in PyTorch on a CPU.

    Args:
        rows: Any tensor.
        share: Dropout probability.
        training: Whether dropout is applied.
    """
    if not (training and share):
        return rows
    return rows * (torch.rand_like(rows) >= share).to(rows.dtype).div_(1 - share)


class Ragged(NamedTuple):
    """Sessions of different lengths in time-major order: the first clicks of all sessions, then the second ones, ...

    The sessions are sorted by length, the longest first.

    Args:
        clicks: Position of every click in the graph ``[num_read]``.
        position: Position of every click in its session, from 0 ``[num_read]``.
        sizes: Number of sessions with a click at every position ``[longest]``.
        ends: Indices in ``clicks`` of the clicks that were asked for ``[num]``.
    """

    clicks: Tensor
    position: Tensor
    sizes: Tensor
    ends: Tensor

    @staticmethod
    def of(graph: SessionGraph, ends: Tensor) -> Ragged:
        """Return the sessions of the given clicks, each up to its last given click.

        Args:
            graph: The graph of the sessions.
            ends: Positions of clicks in the graph, in any order ``[num]``.

        Returns:
            The clicks of these sessions in time-major order.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.SessionGraph.from_sequences([[5, 6, 7], [8, 9]])
            >>> ragged = Ragged.of(graph, torch.tensor([1, 4]))
            >>> ragged.clicks, ragged.sizes, ragged.ends
            (tensor([0, 3, 1, 4]), tensor([2, 2]), tensor([2, 3]))
        """
        session = torch.searchsorted(graph.click_ptr, ends, right=True) - 1
        used, which = torch.unique(session, return_inverse=True)
        first = graph.click_ptr[used]
        length = torch.zeros_like(used).scatter_reduce_(0, which, ends - first[which] + 1, "amax")
        length, order = length.sort(descending=True, stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        ended = torch.bincount(length)  # number of sessions of every length, from 0
        sizes = (order.numel() - ended.cumsum(0))[:-1]
        offset = sizes.cumsum(0) - sizes
        position = torch.repeat_interleave(torch.arange(sizes.numel(), device=sizes.device), sizes)
        rank = torch.arange(position.numel(), device=sizes.device) - offset[position]
        clicks = first[order][rank] + position
        return Ragged(clicks, position, sizes, offset[ends - first[which]] + place[which])


class CausalModel(SessionModel, ABC):
    """A session recommender that reads clicks in order, so that one pass gives the states of all prefixes."""

    @abstractmethod
    def forward(self, items: Tensor, ragged: Ragged) -> Tensor:
        """Return the state of the prefix that ends at every click.

        Args:
            items: Item of every click ``[num_read]``.
            ragged: The sessions of the clicks.

        Returns:
            The states ``[num_read, dim]``.
        """


@encode_prefixes.register
def _(model: CausalModel, graph: SessionGraph, ends: Tensor) -> Encoded:
    _check_sessions(model.num_items, model, graph)
    if ends.numel() == 0:
        return model.encoded(model.embedding.weight.new_zeros(0, model.dim))
    states = []
    for part in ends.split(CHUNK):
        ragged = Ragged.of(graph, part)
        states.append(model(graph.x[graph.alias[ragged.clicks]], ragged).index_select(0, ragged.ends))
    return model.encoded(torch.cat(states))


@encode.register
def _(model: CausalModel, graph: SessionGraph) -> Encoded:
    _check_sessions(model.num_items, model, graph)
    ends = graph.click_ptr[1:] - 1
    sizes = torch.bincount(graph.click_ptr[:-1] // CHUNK).tolist() if ends.numel() else []
    parts = [encode_prefixes(model, graph, part) for part in ends.split(sizes) if part.numel()]
    parts = parts or [encode_prefixes(model, graph, ends)]
    return Encoded(torch.cat([part.queries for part in parts]), parts[0].items)


class GRU4Rec(CausalModel):
    r"""GRU4Rec: a gated recurrent unit that reads the clicks of a session in order.

    .. math::
        h_t = \mathrm{GRU}(e_{v_t}, h_{t-1}), \qquad s_t = W h_t + b

    The scores of a prefix are the dot products of its state :math:`s_t` with the embeddings of all items.

    Args:
        num_items: Number of items.
        dim: Dimension of the embeddings.
        num_layers: Number of stacked recurrent layers.
        hidden: Width of the recurrent layers; ``dim`` by default.
        tied: Whether the output table of the items is their input table.
        bias: Whether every item has a bias.
        dropout: Dropout probability of the input embeddings and between layers.

    Raises:
        ValueError: A size is not positive, or ``dropout`` is out of range.

    Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016; trained on every
    prefix with cross entropy as in Tan et al., "Improved Recurrent Neural Networks for Session-based
    Recommendations", DLRS 2016.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> users, items, *_ = gu.encode(GRU4Rec(3, 8), graph)
        >>> users.shape, items.shape
        (torch.Size([2, 8]), torch.Size([3, 8]))
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_layers: int = 1,
        *,
        hidden: int | None = None,
        tied: bool = True,
        bias: bool = False,
        dropout: float = 0.5,
    ) -> None:
        hidden = dim if hidden is None else hidden
        super().__init__(num_items, dim, tied, bias, dropout, hidden=hidden, num_layers=num_layers)
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(dim, hidden, num_layers, dropout=between)
        self.dense = nn.Linear(hidden, dim)
        self.reset_parameters()

    def forward(self, items: Tensor, ragged: Ragged) -> Tensor:
        rows = dropped(F.embedding(items, self.embedding.weight), self.dropout, self.training)
        out, _ = self.gru(PackedSequence(rows, ragged.sizes.cpu()))
        states: Tensor = self.dense(out.data)
        return states
