"""SR-GNN: a session recommender on the transition graphs of sessions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphunlearn.data import SessionGraph
from graphunlearn.nn.encoding import Encoded, _check_sessions, encode
from graphunlearn.nn.models.session import CHUNK, SessionModel, dropped

__all__ = ["SRGNN"]


class GatedConv(MessagePassing):
    r"""One step of SR-GNN: a gated update of every node by the means of its predecessors and of its successors.

    .. math::
        a_i = \Big[\operatorname*{mean}_{j \to i} (W_{in} h_j + b_{in}),\;
                   \operatorname*{mean}_{i \to j} (W_{out} h_j + b_{out})\Big], \qquad
        r, z = \sigma(W a_i + U h_i + b), \quad
        n = \tanh(W_n a_i + b_n + r \odot (U_n h_i + c_n)), \quad
        h_i' = (1 - z) \odot h_i + z \odot n

    The mean over an empty set is zero.

    Args:
        dim: Dimension of the embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.dim = dim
        self.into = nn.Linear(dim, 5 * dim)  # W_in, W_out, and U of the three gates: all maps of h
        self.gates = nn.Linear(2 * dim, 3 * dim)

    def forward(self, rows: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        """Return the updated embeddings of the nodes.

        Args:
            rows: The embeddings of the nodes ``[num_nodes, dim]``.
            edge_index: The edges in both directions ``[2, 2 * num_edges]``. Every node :math:`i` appears twice: as
                :math:`2i` it collects its predecessors, and as :math:`2i + 1` its successors.
            weight: For every edge, one over the number of edges with the same target ``[2 * num_edges]``.

        Returns:
            The embeddings ``[num_nodes, dim]``.
        """
        sent, own = self.into(rows).split([2 * self.dim, 3 * self.dim], 1)
        taken = self.propagate(edge_index, x=sent.reshape(-1, self.dim), weight=weight.unsqueeze(1))
        gates = self.gates(taken.view(-1, 2 * self.dim))
        reset, update = torch.sigmoid(gates[:, : 2 * self.dim] + own[:, : 2 * self.dim]).chunk(2, 1)
        new = torch.tanh(torch.addcmul(gates[:, 2 * self.dim :], reset, own[:, 2 * self.dim :]))
        return torch.lerp(rows, new, update)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """Return the message of every edge: the weighted embedding of its source."""
        return x_j * weight


class SRGNN(SessionModel):
    r"""SR-GNN: gated message passing on the transitions of a session, then attention with its last click as query.

    Let :math:`h` be the embeddings of the distinct items of a session after ``num_layers`` steps of :class:`GatedConv`:

    .. math::
        \alpha_t = q^\top \sigma(W_1 h_{v_n} + W_2 h_{v_t} + c), \qquad
        s = W_3 \Big[\sum_{t=1}^{n} \alpha_t h_{v_t},\; h_{v_n}\Big] + b

    The sum runs over clicks: an item clicked twice counts twice.

    Args:
        num_items: Number of items.
        dim: Dimension of the embeddings.
        num_layers: Number of steps of message passing; all steps share their parameters.
        tied: Whether the output table of the items is their input table.
        bias: Whether every item has a bias.
        dropout: Dropout probability of the input embeddings.

    Raises:
        ValueError: A size is not positive, or ``dropout`` is out of range.

    Source: Wu et al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> users, items, *_ = gu.encode(SRGNN(3, 8), graph)
        >>> users.shape, items.shape
        (torch.Size([2, 8]), torch.Size([3, 8]))
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_layers: int = 1,
        *,
        tied: bool = True,
        bias: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_items, dim, tied, bias, dropout, num_layers=num_layers)
        self.num_layers = num_layers
        self.conv = GatedConv(dim)
        self.last, self.each = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.attention = nn.Linear(dim, 1, bias=False)
        self.dense = nn.Linear(2 * dim, dim)
        self.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, alias: Tensor, batch: Tensor, length: Tensor) -> Tensor:
        """Return the states of the sessions.

        Args:
            x: Item of every node ``[num_nodes]``.
            edge_index: Transitions between nodes, each once ``[2, num_edges]``.
            alias: Node of every click ``[num_clicks]``.
            batch: Session of every node ``[num_nodes]``.
            length: Clicks per session ``[num_sessions]``.

        Returns:
            The states ``[num_sessions, dim]``.
        """
        rows = dropped(F.embedding(x, self.embedding.weight), self.dropout, self.training)
        edges, weight = _both_ways(edge_index, x.numel(), rows.dtype)
        for _ in range(self.num_layers):
            rows = self.conv(rows, edges, weight)
        last = rows.index_select(0, alias[length.cumsum(0) - 1])
        asked = torch.sigmoid(self.last(last).index_select(0, batch) + self.each(rows))
        clicks = torch.bincount(alias, minlength=x.numel()).to(rows.dtype).unsqueeze(1)
        shares = self.attention(asked) * clicks
        pooled = torch.zeros_like(last).index_add(0, batch, shares * rows)
        states: Tensor = self.dense(torch.cat([pooled, last], 1))
        return states


def _both_ways(edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the edges and weights that :class:`GatedConv` takes: first forward edges, then backward edges."""
    tail, head = edge_index
    edges = torch.stack([torch.cat([2 * tail, 2 * head + 1]), torch.cat([2 * head, 2 * tail + 1])])
    count = torch.bincount(edges[1], minlength=2 * num_nodes)
    return edges, count[edges[1]].to(dtype).reciprocal()


@encode.register
def _(model: SRGNN, graph: SessionGraph) -> Encoded:
    _check_sessions(model.num_items, model, graph)
    states = [model(*piece) for piece in _pieces(graph)]
    return model.encoded(torch.cat(states))


def _pieces(graph: SessionGraph) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Yield the arguments of :meth:`SRGNN.forward` for chunks of the sessions."""
    if graph.num_clicks <= CHUNK:
        yield graph.x, graph.edge_index, graph.alias, graph.batch, graph.length
        return
    begins = torch.bincount(graph.click_ptr[:-1] // CHUNK).cumsum(0)
    sessions = torch.cat([begins.new_zeros(1), begins]).unique()  # the first session of each chunk
    nodes = torch.searchsorted(graph.batch, sessions)
    edges = torch.searchsorted(graph.edge_index[0].contiguous(), nodes)
    bounds = torch.stack([sessions, nodes, edges, graph.click_ptr[sessions]]).t().tolist()
    for (session, node, edge, click), (to_session, to_node, to_edge, to_click) in pairwise(bounds):
        yield (
            graph.x[node:to_node],
            graph.edge_index[:, edge:to_edge] - node,
            graph.alias[click:to_click] - node,
            graph.batch[node:to_node] - session,
            graph.length[session:to_session],
        )
