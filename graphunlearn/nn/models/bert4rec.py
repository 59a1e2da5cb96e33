"""BERT4Rec: a session recommender with attention in both directions, which fills in masked clicks."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, _check_sessions, encode
from graphunlearn.nn.models.session import CHUNK, SessionModel, dropped

__all__ = ["BERT4Rec"]

EPS = 1e-12  # of the normalisations


class BERT4Rec(SessionModel):
    r"""BERT4Rec: every click attends to all clicks of its session; a mask after the last click stands for the next.

    .. math::
        x_t = \mathrm{LN}(e_{v_t} + p_t), \qquad
        y = \mathrm{LN}(x + \mathrm{Attention}(x)), \quad
        z = \mathrm{LN}(y + W_2\,\mathrm{GELU}(W_1 y)), \qquad
        s_t = \mathrm{LN}(\mathrm{GELU}(W_3 z_t))

    The state of a session is that of a mask behind its last click, where the mask has an embedding of its own. Only
    the last ``max_length - 1`` clicks of a session are read. ``fit`` trains the mask behind every prefix;
    :class:`~graphunlearn.nn.Cloze` is the objective of the source.

    Args:
        num_items: Number of items.
        dim: Dimension of the embeddings.
        num_layers: Number of attention blocks.
        heads: Number of attention heads; it must divide ``dim``.
        max_length: Number of position embeddings.
        tied: Whether the output table of the items is their input table.
        bias: Whether every item has a bias.
        dropout: Dropout probability of the inputs and of the outputs of every block.

    Raises:
        ValueError: A size is not positive, ``heads`` does not divide ``dim``, ``max_length`` is 1, or ``dropout`` is
            out of range.

    Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
    Transformer", CIKM 2019.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> gu.encode(BERT4Rec(3, 8), graph).queries.shape
        torch.Size([2, 8])
    """

    row_length: ClassVar[float] = 0.6  # items are compared with normalised states of norm sqrt(dim)

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_layers: int = 2,
        *,
        heads: int = 2,
        max_length: int = 50,
        tied: bool = True,
        bias: bool = False,
        dropout: float = 0.2,
    ) -> None:
        sizes = {"num_layers": num_layers, "heads": heads, "max_length": max_length}
        super().__init__(num_items, dim, tied, bias, dropout, **sizes)
        if max_length < 2:
            raise ArgumentError("max_length", "be at least 2, for a click and the mask", max_length)
        self.heads, self.max_length = heads, max_length
        self.mask, self.position = nn.Embedding(1, dim), nn.Embedding(max_length, dim)
        self.blocks = nn.ModuleList(BothWays(dim, heads, dropout) for _ in range(num_layers))
        self.norm, self.out_norm = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.dense = nn.Linear(dim, dim)
        self.reset_parameters()

    @property
    def mask_item(self) -> int:
        """The number that stands for a masked click, one above all items."""
        return self.num_items

    def forward(self, items: Tensor, length: Tensor) -> Tensor:
        """Return the state of every click.

        Args:
            items: The clicks of all sessions, one session after another; ``mask_item`` where a click is masked
                ``[num_clicks]``.
            length: Clicks per session, at least 1 and at most ``max_length`` ``[num_sessions]``.

        Returns:
            The states ``[num_clicks, dim]``.
        """
        start = length.cumsum(0) - length
        table = torch.cat([self.embedding.weight, self.mask.weight])
        found, where = [], []
        _, group = torch.frexp(length.double())  # the longest session of a group is less than twice as long
        for number in torch.unique(group).tolist():
            sessions = (group == number).nonzero().squeeze(1)
            longest = int(length[sessions].max())
            for part in sessions.split(max(1, CHUNK // longest)):
                place = torch.arange(longest, device=items.device)
                real = place < length[part].unsqueeze(1)
                clicks = start[part].unsqueeze(1) + torch.minimum(place, length[part].unsqueeze(1) - 1)
                rows = F.embedding(items[clicks], table) + self.position.weight[:longest]
                rows = dropped(self.norm(rows), self.dropout, self.training)
                for block in self.blocks:
                    rows = block(rows, real)
                found.append(rows[real])
                where.append(clicks[real])
        order = torch.cat(where).argsort()
        states: Tensor = self.out_norm(F.gelu(self.dense(torch.cat(found).index_select(0, order))))
        return states


class BothWays(nn.Module):
    """A transformer block that is normalised after each of its two parts, with attention in both directions.

    Args:
        dim: Dimension of the states.
        heads: Number of attention heads.
        dropout: Dropout probability of the two outputs before they are added to the input.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.into, self.out_of = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.after_attention, self.after_maps = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, rows: Tensor, real: Tensor) -> Tensor:
        """Return the states after the block.

        Args:
            rows: The states of sessions of similar length, padded ``[num_sessions, longest, dim]``.
            real: Which of them are clicks ``[num_sessions, longest]``.

        Returns:
            The states ``[num_sessions, longest, dim]``.
        """
        q, k, v = self.into(rows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None])
        seen = self.out_of(seen.transpose(1, 2).flatten(2))
        rows = self.after_attention(rows + dropped(seen, self.dropout, self.training))
        out = self.narrow(F.gelu(self.wide(rows)))
        return self.after_maps(rows + dropped(out, self.dropout, self.training))


@encode.register
def _(model: BERT4Rec, graph: SessionGraph) -> Encoded:
    _check_sessions(model.num_items, model, graph)
    if not graph.num_sessions:
        return model.encoded(model.embedding.weight.new_zeros(0, model.dim))
    read = graph.length.clamp(max=model.max_length - 1)
    ends = (read + 1).cumsum(0) - 1  # the place of every mask
    items = torch.full((int(ends[-1]) + 1,), model.mask_item, device=graph.device)
    recent = graph.position >= (graph.length - read)[graph.session]
    clicks = torch.ones_like(items, dtype=torch.bool)
    clicks[ends] = False
    items[clicks] = graph.items[recent]
    sizes = torch.bincount((ends - read) // CHUNK).tolist()  # sessions per part
    read, states = read + 1, []
    for length, part in zip(read.split(sizes), items.split([int(r.sum()) for r in read.split(sizes)])):
        if len(length):
            states.append(model(part, length).index_select(0, length.cumsum(0) - 1))
    return model.encoded(torch.cat(states))
