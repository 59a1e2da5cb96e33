"""SASRec: a session recommender with causal self-attention."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.nn.models.session import CausalModel, Ragged, dropped

__all__ = ["SASRec"]


class SASRec(CausalModel):
    r"""SASRec: every click attends to the clicks before it in its session.

    .. math::
        x_t = e_{v_t} + p_t, \qquad
        y = x + \mathrm{Attention}(\mathrm{LN}(x)), \quad
        z = y + W_2\,\mathrm{GELU}(W_1 \mathrm{LN}(y)), \qquad s_t = \mathrm{LN}(z_t)

    The embeddings of all clicks are concatenated without padding; only the attention pads sessions, in groups of
    similar length. Positions are counted from the start of a session; all positions from ``max_length`` on share the
    last position embedding.

    Args:
        num_items: Number of items.
        dim: Dimension of the embeddings.
        num_layers: Number of attention blocks.
        heads: Number of attention heads; it must divide ``dim``.
        max_length: Number of position embeddings.
        tied: Whether the output table of the items is their input table.
        bias: Whether every item has a bias.
        dropout: Dropout probability of the input embeddings and of the outputs of every block.

    Raises:
        ValueError: A size is not positive, ``heads`` does not divide ``dim``, or ``dropout`` is out of range.

    Source: Kang, McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018; blocks normalised at their entry,
    after Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> gu.encode(SASRec(3, 8), graph).queries.shape
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
        dropout: float = 0.3,
    ) -> None:
        sizes = {"num_layers": num_layers, "heads": heads, "max_length": max_length}
        super().__init__(num_items, dim, tied, bias, dropout, **sizes)
        self.heads, self.max_length = heads, max_length
        self.position = nn.Embedding(max_length, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.reset_parameters()

    def forward(self, items: Tensor, ragged: Ragged) -> Tensor:
        place = ragged.position.clamp(max=self.max_length - 1)
        rows = F.embedding(items, self.embedding.weight) + F.embedding(place, self.position.weight)
        rows = dropped(rows, self.dropout, self.training)
        rectangles = Rectangles.of(ragged.sizes)
        for block in self.blocks:
            rows = block(rows, rectangles)
        states: Tensor = self.norm(rows)
        return states


class Block(nn.Module):
    """A transformer block: attention within sessions, then two linear maps with a GELU, each with a skip connection.

    Args:
        dim: Dimension of the states.
        heads: Number of attention heads.
        dropout: Dropout probability of the two outputs before they are added to the input.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_maps = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.into, self.out_of = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, rows: Tensor, rectangles: Rectangles) -> Tensor:
        """Return the states of all clicks after the block.

        Args:
            rows: The states of all clicks ``[num_read, dim]``.
            rectangles: The groups in which the sessions are padded.

        Returns:
            The states ``[num_read, dim]``.
        """
        parts, qkv = [], self.into(self.before_attention(rows))
        for clicks in rectangles.clicks:
            q, k, v = qkv[clicks].unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            # The causal mask also hides the padding, which comes after all clicks of a session.
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            parts.append(seen.transpose(1, 2).flatten(2).flatten(0, 1))
        rows = rows + self._dropped(self.out_of(torch.cat(parts).index_select(0, rectangles.back)))
        return rows + self._dropped(self.narrow(F.gelu(self.wide(self.before_maps(rows)))))

    def _dropped(self, rows: Tensor) -> Tensor:
        return dropped(rows, self.dropout, self.training)


class Rectangles(NamedTuple):
    """Sessions in groups of similar length: the longest session of a group is less than twice as long as the shortest.

    Args:
        clicks: For every group, the clicks of its sessions; shorter sessions are padded with their last click
            ``[num_sessions, longest]``.
        back: Position of every click in the concatenated, flattened groups ``[num_read]``.
    """

    clicks: list[Tensor]
    back: Tensor

    @staticmethod
    def of(sizes: Tensor) -> Rectangles:
        """Return the groups of the sessions of a :class:`Ragged`.

        Args:
            sizes: Number of sessions with a click at every position ``[longest]``.
        """
        device, steps = sizes.device, sizes.tolist()
        offset, start, clicks = sizes.cumsum(0) - sizes, 0, []
        back = torch.empty(sum(steps), dtype=torch.long, device=device)
        first, longest = 0, len(steps)
        while longest:
            shortest = longest // 2 + 1
            last = steps[shortest - 1]  # sessions `first` to `last - 1` have at least `shortest` clicks
            if last > first:
                place = torch.arange(longest, device=device)
                number = torch.arange(first, last, device=device).unsqueeze(1)
                real = number < sizes[:longest]
                filled = torch.minimum(place, real.sum(1, keepdim=True) - 1)
                clicks.append(offset[filled] + number)
                where = torch.arange(start, start + real.numel(), device=device).view_as(real)
                back[clicks[-1][real]] = where[real]
                first, start = last, start + real.numel()
            longest = shortest - 1
        return Rectangles(clicks, back)
