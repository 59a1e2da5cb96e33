"""NARM: a recurrent session recommender with attention on its own states."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from graphunlearn.nn.models.sasrec import Rectangles
from graphunlearn.nn.models.session import CausalModel, Ragged, dropped

__all__ = ["NARM"]


class NARM(CausalModel):
    r"""NARM: the last state of a gated recurrent unit, and a sum of all states with attention to it.

    .. math::
        h_t = \mathrm{GRU}(e_{v_t}, h_{t-1}), \qquad
        \alpha_{tj} = q^\top \sigma(A_1 h_t + A_2 h_j), \qquad
        s_t = B \Big[\sum_{j=1}^{t} \alpha_{tj} h_j,\; h_t\Big]

    The scores of a prefix are the dot products of its state :math:`s_t` with the embeddings of all items. The memory
    grows with the square of the length of a session.

    Args:
        num_items: Number of items.
        dim: Dimension of the embeddings.
        num_layers: Number of stacked recurrent layers.
        hidden: Width of the recurrent layers; ``dim`` by default.
        tied: Whether the output table of the items is their input table.
        bias: Whether every item has a bias.
        dropout: Dropout probability of the input embeddings, between layers and before :math:`B`.

    Raises:
        ValueError: A size is not positive, or ``dropout`` is out of range.

    Source: Li et al., "Neural Attentive Session-based Recommendation", CIKM 2017.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> gu.encode(NARM(3, 8), graph).queries.shape
        torch.Size([2, 8])
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
        self.gru = nn.GRU(dim, hidden, num_layers, bias=False, dropout=dropout if num_layers > 1 else 0.0)
        self.last, self.each = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.attention = nn.Linear(hidden, 1, bias=False)
        self.dense = nn.Linear(2 * hidden, dim, bias=False)
        self.reset_parameters()

    def forward(self, items: Tensor, ragged: Ragged) -> Tensor:
        rows = dropped(F.embedding(items, self.embedding.weight), self.dropout, self.training)
        out = self.gru(PackedSequence(rows, ragged.sizes.cpu()))[0].data
        asked, each, parts = self.last(out), self.each(out), []
        rectangles = Rectangles.of(ragged.sizes)
        for clicks in rectangles.clicks:
            gate = torch.sigmoid(asked[clicks].unsqueeze(2) + each[clicks].unsqueeze(1))
            share = self.attention(gate).squeeze(3).tril()  # also hides the padding, which comes after all clicks
            parts.append((share @ out[clicks]).flatten(0, 1))
        local = torch.cat(parts).index_select(0, rectangles.back)
        states: Tensor = self.dense(dropped(torch.cat([local, out], 1), self.dropout, self.training))
        return states
