"""Recommenders whose encoder is made of PyTorch Geometric's layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn import ARMAConv, ChebConv, GatedGraphConv, MessagePassing, MixHopConv

from graphunlearn.data.interaction import EDGE_TYPE, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, _check_size, encode, num_hops

__all__ = ["BipartiteRecommender"]

REVERSED = (EDGE_TYPE[2], f"rev_{EDGE_TYPE[1]}", EDGE_TYPE[0])


class _Table(nn.Embedding):
    """An embedding table that starts small, as recommenders have it."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)


class BipartiteRecommender(nn.Module):
    r"""An embedding table under any encoder of PyTorch Geometric; the score of a pair is the dot product of its rows.

    .. math::
        Z = \mathrm{encoder}(E + [X_U W_U;\, X_I W_I],\; \text{edge\_index})

    The encoder is ``GraphSAGE``, ``GAT``, a ``torch_geometric.nn.Sequential`` of any convolutions, a ``HeteroConv``,
    what ``to_hetero`` returns, or a module of one's own with the same signature. It sees both directions of all
    interactions, sorted by target, items numbered after users. Correcting it takes second derivatives of its layers in
    reverse mode, which all of PyTorch Geometric's have.

    Training, every method for graphs of users and items, and the audit take it like a model of this package.

    Args:
        encoder: ``encoder(x, edge_index) -> rows [num_users + num_items, out]``; where ``hetero``,
            ``encoder(x_dict, edge_index_dict) -> {"user": rows, "item": rows}`` over the relations of :attr:`metadata`.
            Layers with parameters need a ``reset_parameters``, or the model cannot be trained anew.
        num_users: Number of users.
        num_items: Number of items.
        dim: Width of the table, which the encoder takes.
        hetero: Whether the encoder takes dictionaries.
        features: Columns of ``graph["user"].x`` and ``graph["item"].x``, mapped to ``dim`` and added to the table; 0
            for none. They are read from the graph and never kept in the model. Forgetting removes interactions: blank
            the features of a forgotten user where they are to be forgotten as well.
        num_hops: How many hops away an interaction is felt; by default counted over the convolutions. To be given
            where there are none of PyTorch Geometric's, or where one of them is used more than once. A norm over the
            whole graph carries everything a little everywhere, which is not counted.

    Raises:
        ValueError: A size is not positive, a number is negative, or there is no convolution to count.

    Example:
        >>> import graphunlearn as gu
        >>> from torch_geometric.nn import GraphSAGE
        >>> from graphunlearn.adapters import BipartiteRecommender
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = BipartiteRecommender(GraphSAGE(8, 16, num_layers=2), graph.num_users, graph.num_items, dim=8)
        >>> _ = gu.fit(model, graph, epochs=3)
        >>> result = gu.IFRU().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> gu.encode(result.model, result.graph).queries.shape
        torch.Size([30, 16])
    """

    metadata = ([EDGE_TYPE[0], EDGE_TYPE[2]], [EDGE_TYPE, REVERSED])
    """Node types and relations of the dictionaries, as ``to_hetero`` takes them."""

    def __init__(
        self,
        encoder: nn.Module,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        hetero: bool = False,
        features: tuple[int, int] = (0, 0),
        num_hops: int | None = None,
    ) -> None:
        for name, value, least in (
            ("num_users", num_users, 1),
            ("num_items", num_items, 1),
            ("dim", dim, 1),
            ("features", min(features), 0),
            ("num_hops", 0 if num_hops is None else num_hops, 0),
        ):
            if value < least:
                raise ArgumentError(name, f"be at least {least}", value)
        super().__init__()
        self.num_users, self.num_items, self.hetero, self.features = num_users, num_items, hetero, features
        self.embedding = _Table(num_users + num_items, dim)
        self.from_features = nn.ModuleDict(
            {side: nn.Linear(size, dim) for side, size in zip(self.metadata[0], features) if size}
        )
        self.encoder = encoder
        if any(is_lazy(parameter) for parameter in encoder.parameters()):
            self._materialise()
        self.num_hops = _reach(encoder) if num_hops is None else num_hops
        if num_hops is None and self.num_hops == 0:
            raise ArgumentError(
                "num_hops", "be given for an encoder without convolutions of PyTorch Geometric", type(encoder).__name__
            )

    def forward(self, graph: InteractionGraph) -> tuple[Tensor, Tensor]:
        """Return the rows of all users ``[num_users, out]`` and of all items ``[num_items, out]``."""
        edge_index, sizes = graph.adjacency.edge_index, [self.num_users, self.num_items]
        x = self.embedding.weight
        if self.from_features:
            x = x + torch.cat([self._features(graph, side, n, x) for side, n in zip(self.metadata[0], sizes)])
        if self.hetero:
            to_users, to_items = edge_index.tensor_split(2, dim=1)  # by target, and users come first
            shift = torch.tensor([[self.num_users], [0]], device=edge_index.device)
            relations = {EDGE_TYPE: to_items - shift.flip(0), REVERSED: to_users - shift}
            rows = self.encoder(dict(zip(self.metadata[0], x.split(sizes))), relations)
            return rows["user"], rows["item"]
        rows = self.encoder(x, edge_index)
        if rows.dim() != 2 or len(rows) != sum(sizes):
            raise ArgumentError(
                "encoder",
                f"return a row for each of the {sum(sizes)} users and items",
                f"a tensor of shape {list(rows.shape)}",
            )
        users, items = rows.split(sizes)
        return users, items

    def _features(self, graph: InteractionGraph, side: str, count: int, x: Tensor) -> Tensor:
        """Return what the features add to the rows of one side."""
        if side not in self.from_features:
            return x.new_zeros(count, x.size(1))
        layer = self.from_features[side]
        given = graph[side].get("x")
        shape = [count, layer.in_features]
        if given is None or list(given.shape) != shape:
            got = "none" if given is None else f"a tensor of shape {list(given.shape)}"
            raise ArgumentError("graph", f"hold features of shape {shape} as graph['{side}'].x", got)
        mapped: Tensor = layer(given.to(x.dtype))
        return mapped

    @torch.no_grad()
    def _materialise(self) -> None:
        """Give layers that find out their sizes on first use something to use."""
        pair = InteractionGraph.from_edges(torch.zeros(2, 1, dtype=torch.long), self.num_users, self.num_items)
        for side, count, size in zip(self.metadata[0], (self.num_users, self.num_items), self.features):
            pair[side].x = torch.zeros(count, size)
        training = self.encoder.training
        self.encoder.eval()
        self(pair)
        self.encoder.train(training)

    def extra_repr(self) -> str:
        """What the parts do not say."""
        return f"num_users={self.num_users}, num_items={self.num_items}, num_hops={self.num_hops}"


def _reach(module: nn.Module) -> int:
    """Return how many hops an encoder looks away: its convolutions, one after another."""
    if isinstance(module, (GatedGraphConv, ARMAConv)):
        return int(module.num_layers)
    if isinstance(module, MixHopConv):
        return int(max(module.powers))
    if isinstance(module, ChebConv):
        return len(module.lins) - 1
    if isinstance(module, MessagePassing):
        return int(getattr(module, "K", 1))
    reach = [_reach(child) for child in module.children()]
    if isinstance(module, nn.ModuleDict) and all("__" in name for name in module):  # one per relation: side by side
        return max(reach, default=0)
    return sum(reach)


@encode.register
def _(model: BipartiteRecommender, graph: InteractionGraph) -> Encoded:
    sizes = [model.num_users, model.num_items]
    _check_size(sum(sizes), model, graph)
    if graph.num_users != model.num_users:
        raise ArgumentError(
            "graph",
            f"have the {sizes[0]} users and {sizes[1]} items of the model",
            f"{graph.num_users} and {graph.num_items}",
        )
    return Encoded(*model(graph), *model.embedding.weight.split(sizes))


@num_hops.register
def _(model: BipartiteRecommender, graph: InteractionGraph) -> int:
    return model.num_hops
