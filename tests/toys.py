"""Small graphs and models that the tests of the numerical core share."""

import torch
from torch import nn
from torch_geometric.nn import LightGCN

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.func import spmm
from graphunlearn.nn import MatrixFactorization, encode


def random_graph(num_users=7, num_items=6, num_interactions=20, seed=0, values=True):
    """Distinct random pairs in random order, with float64 ratings and labels."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(num_users * num_items, generator=generator)[:num_interactions]
    extra = {}
    if values:
        extra["rating"] = torch.randint(1, 6, (num_interactions,), generator=generator).double()
        extra["label"] = torch.randint(0, 2, (num_interactions,), generator=generator).double()
    return InteractionGraph.from_edges(
        torch.stack([cells // num_items, cells % num_items]), num_users, num_items, **extra
    )


def light_gcn(graph, dim=3, layers=2, seed=0, scale=1.0, **kwargs):
    """A float64 LightGCN whose rows are large enough for every nonlinearity to matter."""
    torch.manual_seed(seed)
    model = LightGCN(graph.num_nodes, dim, layers, **kwargs).double()
    nn.init.normal_(model.embedding.weight, std=scale)
    return model


def factors(graph, dim=3, seed=0, scale=1.0):
    """A float64 matrix factorisation."""
    torch.manual_seed(seed)
    model = MatrixFactorization(graph.num_nodes, dim).double()
    nn.init.normal_(model.embedding.weight, std=scale)
    return model


class TwoTower(nn.Module):
    """A model that this package has never heard of: two tables, a bent user tower, no propagation."""

    def __init__(self, num_users, num_items, dim=3):
        super().__init__()
        self.user_table, self.item_table = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim)
        self.tower = nn.Linear(dim, dim)


@encode.register
def _(model: TwoTower, graph):
    users, items = model.user_table.weight, model.item_table.weight
    return users + torch.tanh(model.tower(users)), items, users, items


class Wrapped(nn.Module):
    """A LightGCN that only says how it encodes, so that nothing linear is known of it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


@encode.register
def _(model: Wrapped, graph):
    return encode(model.inner, graph)


def two_tower(graph, dim=3, seed=0):
    torch.manual_seed(seed)
    return TwoTower(graph.num_users, graph.num_items, dim).double()


def dense_adjacency(graph):
    """The symmetric 0/1 matrix, filled edge by edge."""
    dense = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for user, item in graph.pairs.t().tolist():
        dense[user, graph.num_users + item] += 1
        dense[graph.num_users + item, user] += 1
    return dense


def dense_normalized(graph):
    dense = dense_adjacency(graph)
    degree = dense.sum(1)
    scale = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0)
    return scale[:, None] * dense * scale


def naive_encode(table, alpha, matrix, num_users):
    """sum_l alpha_l A^l E with a dense matrix, layer by layer."""
    layer, out = table, alpha[0] * table
    for weight in alpha[1:]:
        layer = matrix @ layer
        out = out + weight * layer
    return out[:num_users], out[num_users:]


class ConstantItems(nn.Module):
    """Scores <(P E)_u, q_i> with constant q: squared errors and the penalty are quadratic in E."""

    def __init__(self, graph, layers=2, dim=2):
        super().__init__()
        self.layers, self.embedding = layers, nn.Embedding(graph.num_nodes, dim)
        self.register_buffer("fixed", torch.randn(graph.num_items, dim))


@encode.register
def _(model: ConstantItems, graph):
    table = model.embedding.weight
    out = table
    for _ in range(model.layers):
        out = spmm(graph.adjacency.normalized(table.dtype), out) + 0.5 * table
    base = table.split([graph.num_users, graph.num_items])
    return out[: graph.num_users], model.fixed, *base


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def normal_equations(model, graph, weight_decay):
    """H and b of the squared errors and the penalty on ``graph``, entry by entry from the dense propagation."""
    matrix = graph.adjacency.normalized(torch.float64).to_dense()
    power = torch.eye(graph.num_nodes, dtype=torch.float64)
    for _ in range(model.layers):
        power = matrix @ power + 0.5 * torch.eye(graph.num_nodes, dtype=torch.float64)
    dim = model.fixed.size(1)
    hessian = torch.zeros(graph.num_nodes * dim, graph.num_nodes * dim, dtype=torch.float64)
    rhs = torch.zeros(graph.num_nodes * dim, dtype=torch.float64)
    for (user, item), rating in zip(graph.pairs.t().tolist(), graph.rating.tolist()):
        row = torch.outer(power[user], model.fixed[item]).flatten()
        hessian += torch.outer(row, row)
        rhs += rating * row
        for node in (user, graph.num_users + item):
            index = torch.arange(node * dim, (node + 1) * dim)
            hessian[index, index] += weight_decay
    return hessian, rhs


REQUESTS = {
    "interaction": lambda g: ForgetRequest.internal("interaction", g.pairs[:, [0, 5, 11]]),
    "user": lambda g: ForgetRequest.internal("user", torch.tensor([2])),
    "item": lambda g: ForgetRequest.internal("item", torch.tensor([3])),
}
