"""Recommenders whose encoder consists of PyTorch Geometric layers."""

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
    """An embedding table with the small initial values that are common for recommenders."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)


class BipartiteRecommender(nn.Module):
    r"""An embedding table with any PyTorch Geometric encoder; a score is the dot product of two embeddings.

    .. math::
        Z = \mathrm{encoder}(E + [X_U W_U;\, X_I W_I],\; \text{edge\_index})

    The encoder can be ``GraphSAGE``, ``GAT``, a ``torch_geometric.nn.Sequential`` of convolutions, a ``HeteroConv``,
    the result of ``to_hetero``, or a custom module with the same signature. It receives both directions of all
    interactions, sorted by target; items are numbered after users. Unlearning takes second derivatives of its layers
    in reverse mode, which all PyTorch Geometric layers support.

    Training, the audit, and all methods for graphs of users and items accept this model like a model of this package.

    Args:
        encoder: ``encoder(x, edge_index) -> [num_users + num_items, out]``, or with ``hetero``
            ``encoder(x_dict, edge_index_dict) -> {"user": ..., "item": ...}`` over the relations of :attr:`metadata`.
            Retraining calls ``reset_parameters`` of all layers with parameters, so they must have this method.
        num_users: Number of users.
        num_items: Number of items.
        dim: Width of the embedding table, which is the input width of the encoder.
        hetero: Whether the encoder takes dictionaries.
        features: Numbers of columns of ``graph["user"].x`` and ``graph["item"].x``, which are mapped to ``dim`` and
            added to the embedding table; 0 for no features. The features are read from the graph and not stored in the
            model. Forgetting removes interactions but not features: to forget the features of a user as well, set them
            to zero in the graph.
        num_hops: Number of hops over which an interaction influences the embeddings; by default, it is counted over the
            convolutions. It must be given if the encoder has no PyTorch Geometric convolution, or uses a convolution
            more than once. Normalisation over the whole graph, which spreads a small influence to all nodes, is not
            counted.

    Raises:
        ValueError: A size is not positive, a number is negative, or ``num_hops`` is missing for an encoder without
            PyTorch Geometric convolutions.

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
    """Node types and relations of the dictionaries, in the format of ``to_hetero``."""

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
            expected = "be given for an encoder without convolutions of PyTorch Geometric"
            raise ArgumentError("num_hops", expected, type(encoder).__name__)

    def forward(self, graph: InteractionGraph) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all users ``[num_users, out]`` and of all items ``[num_items, out]``.

        Args:
            graph: The graph to propagate over, with node features if the model uses any.

        Raises:
            ValueError: The graph lacks the features, or the encoder returns the wrong number of embeddings.
        """
        edge_index, sizes = graph.adjacency.edge_index, [self.num_users, self.num_items]
        x = self.embedding.weight
        if self.from_features:
            x = x + torch.cat([self._features(graph, side, n, x) for side, n in zip(self.metadata[0], sizes)])
        if self.hetero:
            to_users, to_items = edge_index.tensor_split(2, dim=1)  # edges are sorted by target, users first
            shift = torch.tensor([[self.num_users], [0]], device=edge_index.device)
            relations = {EDGE_TYPE: to_items - shift.flip(0), REVERSED: to_users - shift}
            rows = self.encoder(dict(zip(self.metadata[0], x.split(sizes))), relations)
            return rows["user"], rows["item"]
        rows = self.encoder(x, edge_index)
        if rows.dim() != 2 or len(rows) != sum(sizes):
            expected = f"return an embedding for each of the {sum(sizes)} users and items"
            raise ArgumentError("encoder", expected, f"a tensor of shape {list(rows.shape)}")
        users, items = rows.split(sizes)
        return users, items

    def _features(self, graph: InteractionGraph, side: str, count: int, x: Tensor) -> Tensor:
        """Return the mapped features of the users or items, or zeros without features ``[count, dim]``."""
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
        """Run the encoder once on a graph of one interaction, so that lazy layers determine their sizes."""
        pair = InteractionGraph.from_edges(torch.zeros(2, 1, dtype=torch.long), self.num_users, self.num_items)
        for side, count, size in zip(self.metadata[0], (self.num_users, self.num_items), self.features):
            pair[side].x = torch.zeros(count, size)
        training = self.encoder.training
        self.encoder.eval()
        self(pair)
        self.encoder.train(training)

    def extra_repr(self) -> str:
        """Return the sizes that the submodules do not show."""
        return f"num_users={self.num_users}, num_items={self.num_items}, num_hops={self.num_hops}"


def _reach(module: nn.Module) -> int:
    """Return the number of hops of an encoder, summed over its consecutive convolutions."""
    if isinstance(module, (GatedGraphConv, ARMAConv)):
        return int(module.num_layers)
    if isinstance(module, MixHopConv):
        return int(max(module.powers))
    if isinstance(module, ChebConv):
        return len(module.lins) - 1
    if isinstance(module, MessagePassing):
        return int(getattr(module, "K", 1))
    reach = [_reach(child) for child in module.children()]
    if isinstance(module, nn.ModuleDict) and all("__" in name for name in module):  # one per relation, in parallel
        return max(reach, default=0)
    return sum(reach)


@encode.register
def _(model: BipartiteRecommender, graph: InteractionGraph) -> Encoded:
    sizes = [model.num_users, model.num_items]
    _check_size(sum(sizes), model, graph)
    if graph.num_users != model.num_users:
        expected = f"have the {sizes[0]} users and {sizes[1]} items of the model"
        raise ArgumentError("graph", expected, f"{graph.num_users} and {graph.num_items}")
    return Encoded(*model(graph), *model.embedding.weight.split(sizes))


@num_hops.register
def _(model: BipartiteRecommender, graph: InteractionGraph) -> int:
    return model.num_hops
