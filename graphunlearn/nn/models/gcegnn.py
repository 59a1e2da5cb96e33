"""GCE-GNN: a session recommender on the transitions of a session and on the co-occurrences of all sessions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import softmax

from graphunlearn.data import SessionGraph
from graphunlearn.nn.connecting import connect
from graphunlearn.nn.encoding import Encoded, _check_sessions, encode
from graphunlearn.nn.models.session import SessionModel, dropped
from graphunlearn.nn.models.srgnn import _pieces
from graphunlearn.nn.renumbering import keep_rows

__all__ = ["GCEGNN", "co_occurrences"]

SLOPE = 0.2  # of the leaky rectifiers
OWN, INTO, OUT_OF, BOTH = range(4)  # kinds of edges of a session: to itself, and by the direction of the transition


class GCEGNN(SessionModel):
    r"""GCE-GNN: attention over the transitions of a session, and over the items that occur near an item anywhere.

    For an item :math:`i` of a session with the mean embedding :math:`m`, with :math:`N_s(i)` its neighbours in the
    session (and itself), :math:`r_{ij}` the kind of the edge, and :math:`N(i)` the ``most`` items that occur most
    often within ``reach`` clicks of :math:`i` in the training sessions, a share :math:`w_{ij}` of these times each:

    .. math::
        h^s_i &= \sum_{j \in N_s(i)} \operatorname*{softmax}_j\big(
            \mathrm{LeakyReLU}(a_{r_{ij}}^\top (e_i \odot e_j))\big)\, e_j \\
        h^g_i &= \mathrm{ReLU}\Big(W_1 \Big[e_i,\; \sum_{j \in N(i)} \operatorname*{softmax}_j\big(
            q_1^\top \mathrm{LeakyReLU}(W_2 [m \odot e_j,\, w_{ij}])\big)\, e_j\Big]\Big), \qquad h_i = h^s_i + h^g_i \\
        z_t &= \tanh(W_3 [h_{v_t}, p_{n-t}] + b), \qquad
        \beta_t = q_2^\top \sigma(W_4 z_t + W_5 \tfrac1n \textstyle\sum_u h_{v_u} + c), \qquad
        s = \textstyle\sum_t \beta_t h_{v_t}

    Positions are counted from the end of a session. The sets :math:`N(i)` and their shares are buffers, which are saved
    with the model. They come from the training sessions, so :func:`~graphunlearn.nn.connect` makes them anew when a
    model is trained and when something is forgotten. Before that they are empty.

    Args:
        num_items: Number of items.
        dim: Dimension of the embeddings.
        num_layers: Number of times that co-occurring items are gathered; every time has parameters of its own.
        reach: Largest distance in clicks at which two items co-occur.
        most: Number of co-occurring items per item.
        max_length: Number of position embeddings; all earlier positions share the last one.
        tied: Whether the output table of the items is their input table.
        bias: Whether every item has a bias.
        dropout: Dropout probability of the embeddings, and of :math:`h^g`.

    Raises:
        ValueError: A size is not positive, or ``dropout`` is out of range.

    Source: Wang et al., "Global Context Enhanced Graph Neural Networks for Session-based Recommendation", SIGIR 2020;
    shares in place of counts, and the most frequent neighbours in place of sampled ones.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> model = GCEGNN(3, 8)
        >>> gu.nn.connect(model, graph)
        >>> gu.encode(model, graph).queries.shape
        torch.Size([2, 8])
    """

    neighbours: Tensor
    strength: Tensor

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_layers: int = 1,
        *,
        reach: int = 3,
        most: int = 12,
        max_length: int = 50,
        tied: bool = True,
        bias: bool = False,
        dropout: float = 0.5,
    ) -> None:
        sizes = {"num_layers": num_layers, "reach": reach, "most": most, "max_length": max_length}
        super().__init__(num_items, dim, tied, bias, dropout, **sizes)
        self.reach, self.most, self.max_length = reach, most, max_length
        self.register_buffer("neighbours", torch.zeros(num_items, most, dtype=torch.long))
        self.register_buffer("strength", torch.zeros(num_items, most))
        self.kinds = nn.Linear(dim, 4, bias=False)
        self.gather = nn.ModuleList(Gather(dim) for _ in range(num_layers))
        self.position = nn.Embedding(max_length, dim)
        self.place, self.each = nn.Linear(2 * dim, dim), nn.Linear(dim, dim)
        self.mean, self.attention = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 1, bias=False)
        self.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, alias: Tensor, batch: Tensor, length: Tensor) -> Tensor:
        """Return the states of the sessions; the arguments are those of :meth:`SRGNN.forward`."""
        table = self.embedding.weight
        rows = dropped(F.embedding(x, table), self.dropout, self.training)
        session = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)
        size = length.unsqueeze(1).to(rows.dtype)
        mean = rows.new_zeros(len(length), self.dim).index_add(0, session, F.embedding(x, table)[alias]) / size
        local = self._local(rows, edge_index)
        around = F.embedding(x, table)
        for layer in self.gather:
            near, share = self.neighbours[x], self.strength[x].to(rows.dtype)
            around = layer(around, F.embedding(near, table), share, mean[batch])
        nodes = local + dropped(around, self.dropout, self.training)
        clicks = nodes[alias]
        last = length.cumsum(0)[session] - 1
        place = (last - torch.arange(len(alias), device=alias.device)).clamp(max=self.max_length - 1)
        placed = torch.tanh(self.place(torch.cat([clicks, F.embedding(place, self.position.weight)], 1)))
        pooled = rows.new_zeros(len(length), self.dim).index_add(0, session, clicks) / size
        share = self.attention(torch.sigmoid(self.each(placed) + self.mean(pooled)[session]))
        return rows.new_zeros(len(length), self.dim).index_add(0, session, share * clicks)

    def _local(self, rows: Tensor, edge_index: Tensor) -> Tensor:
        """Return what every node gathers in its session ``[num_nodes, dim]``."""
        tail, head = edge_index[:, edge_index[0] != edge_index[1]]
        count = len(rows)
        codes = tail * count + head
        both = torch.isin(head * count + tail, codes)
        own = torch.arange(count, device=rows.device)
        to = torch.cat([own, tail, head[~both]])  # an edge in both directions is in the list once from each end
        of = torch.cat([own, head, tail[~both]])
        kind = torch.full_like(to, INTO)
        kind[:count] = OWN
        kind[count : count + len(tail)] = torch.where(both, BOTH, OUT_OF)
        scores = self.kinds(rows[to] * rows[of]).gather(1, kind.unsqueeze(1))
        share = softmax(F.leaky_relu(scores, SLOPE), to, num_nodes=count)
        return torch.zeros_like(rows).index_add(0, to, share * rows[of])


class Gather(nn.Module):
    """One time that items gather the embeddings of co-occurring items, with attention by the session.

    Args:
        dim: Dimension of the embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.into, self.attention = nn.Linear(dim + 1, dim, bias=False), nn.Linear(dim, 1, bias=False)
        self.dense = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, rows: Tensor, near: Tensor, share: Tensor, mean: Tensor) -> Tensor:
        """Return the new embeddings of the nodes ``[num_nodes, dim]``.

        Args:
            rows: The embeddings of the nodes ``[num_nodes, dim]``.
            near: The embeddings of the items that co-occur with each ``[num_nodes, most, dim]``.
            share: Their shares; 0 where there is no such item ``[num_nodes, most]``.
            mean: The mean embedding of the session of every node ``[num_nodes, dim]``.
        """
        asked = self.into(torch.cat([mean.unsqueeze(1) * near, share.unsqueeze(2)], 2))
        scores = self.attention(F.leaky_relu(asked, SLOPE)).squeeze(2).masked_fill(share == 0, -torch.inf)
        weight = torch.softmax(scores, 1).nan_to_num(0.0)  # without any such item, all scores are -inf
        weight = torch.where(share > 0, weight, 0.0)
        gathered = (weight.unsqueeze(1) @ near).squeeze(1)
        found: Tensor = torch.relu(self.dense(torch.cat([rows, gathered], 1)))
        return found


def co_occurrences(graph: SessionGraph, reach: int, most: int) -> tuple[Tensor, Tensor]:
    """Return the items that occur most often near every item, and the share of each in their occurrences.

    Args:
        graph: The sessions.
        reach: Largest distance in clicks.
        most: Number of items to return per item. Of items that occur equally often, lower numbers come first.

    Returns:
        The items and their shares, the most frequent first; 0 and 0.0 where there are fewer ``[num_items, most]``.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [1, 2]])
        >>> co_occurrences(graph, reach=1, most=2)
        (tensor([[1, 0],
                [2, 0],
                [1, 0]]), tensor([[1.0000, 0.0000],
                [0.6667, 0.3333],
                [1.0000, 0.0000]]))
    """
    items, session, size = graph.items, graph.session, graph.num_items
    pairs = [items.new_empty(0)]
    for distance in range(1, reach + 1):
        same = (session[distance:] == session[:-distance]) & (items[distance:] != items[:-distance])
        early, late = items[:-distance][same], items[distance:][same]
        pairs += [early * size + late, late * size + early]
    codes, count = torch.unique(torch.cat(pairs), return_counts=True)
    order = count.argsort(descending=True, stable=True)
    order = order[(codes[order] // size).argsort(stable=True)]  # by item, the most frequent first
    item, other, count = codes[order] // size, codes[order] % size, count[order]
    number = torch.bincount(item, minlength=size)
    rank = torch.arange(len(item), device=item.device) - (number.cumsum(0) - number)[item]
    kept = rank < most
    near = items.new_zeros(size, most)
    share = torch.zeros(size, most, device=items.device)
    near[item[kept], rank[kept]] = other[kept]
    share[item[kept], rank[kept]] = count[kept].to(share.dtype)
    return near, share / share.sum(1, keepdim=True).clamp(min=1)


@connect.register
def _(model: GCEGNN, graph: SessionGraph) -> None:
    _check_sessions(model.num_items, model, graph)
    near, share = co_occurrences(graph, model.reach, model.most)
    model.neighbours.copy_(near)
    model.strength.copy_(share)


@encode.register
def _(model: GCEGNN, graph: SessionGraph) -> Encoded:
    _check_sessions(model.num_items, model, graph)
    return model.encoded(torch.cat([model(*piece) for piece in _pieces(graph)]))


@keep_rows.register
def _(model: GCEGNN, graph: SessionGraph, kept: Mapping[str, Tensor]) -> GCEGNN:
    made = keep_rows.dispatch(nn.Module)(model, graph, kept)
    assert isinstance(made, GCEGNN)
    chosen = kept["item"].to(model.neighbours.device)
    place = torch.full((model.num_items,), -1, device=chosen.device)
    place[chosen] = torch.arange(len(chosen), device=chosen.device)
    near, share = place[model.neighbours[chosen]], model.strength[chosen]
    gone = (near < 0) | (share == 0)
    made.neighbours, made.strength = near.masked_fill(gone, 0), share.masked_fill(gone, 0.0)
    return made
