"""Encoders of PyTorch Geometric's layers: what they compute, their curvature, and forgetting with every method."""

import copy

import pytest
import torch
import torch.nn.functional as F
from data.strategies import graphs
from hypothesis import given
from torch import nn
from torch_geometric import nn as pyg
from toys import dense_adjacency, random_graph

import graphunlearn as gu
from graphunlearn.adapters import BipartiteRecommender
from graphunlearn.nn import num_hops, reset_parameters, risk_of
from graphunlearn.nn.risk import LinearRisk

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64, a few layers of sums of a dozen terms
RELATIONS = BipartiteRecommender.metadata[1]


class LightStack(nn.Module):
    """LightGCN's propagation, written with PyG's layer: the mean of all layers."""

    def __init__(self, num_layers):
        super().__init__()
        self.convs = nn.ModuleList(pyg.LGConv() for _ in range(num_layers))

    def forward(self, x, edge_index):
        out = [x]
        for conv in self.convs:
            out.append(conv(out[-1], edge_index))
        return torch.stack(out).mean(0)


class BiInteraction(pyg.MessagePassing):
    """A layer in the manner of NGCF, as one would write it with PyG."""

    def __init__(self, dim):
        super().__init__(aggr="mean")
        self.own, self.near, self.product = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x, edge_index):
        return F.leaky_relu(self.own(x) + self.propagate(edge_index, x=x))

    def message(self, x_i, x_j):
        return self.near(x_j) + self.product(x_i * x_j)


def both(layer):
    return pyg.HeteroConv({relation: layer() for relation in RELATIONS}, aggr="sum")


# the encoder, whether it takes dictionaries, and how far it looks; rows of the table are 4 wide
ENCODERS = {
    "SAGEConv": (
        lambda: pyg.Sequential(
            "x, e", [(pyg.SAGEConv(4, 5), "x, e -> x"), nn.Tanh(), (pyg.SAGEConv(5, 3), "x, e -> x")]
        ),
        False,
        2,
    ),
    "SAGEConv with max": (lambda: pyg.SAGEConv(4, 3, aggr="max"), False, 1),
    "SAGEConv with product": (lambda: pyg.SAGEConv(4, 3, aggr="mul"), False, 1),
    "SAGEConv with LSTM": (lambda: pyg.SAGEConv(4, 3, aggr="lstm"), False, 1),
    "GraphSAGE": (lambda: pyg.GraphSAGE(4, 5, 2, out_channels=3), False, 2),
    "GAT": (lambda: pyg.GAT(4, 6, 2, heads=2, dropout=0.2), False, 2),
    "GATv2Conv": (lambda: pyg.GATv2Conv(4, 3), False, 1),
    "GCN": (lambda: pyg.GCN(4, 5, 2, jk="cat", norm="BatchNorm"), False, 2),
    "TransformerConv": (lambda: pyg.TransformerConv(4, 3), False, 1),
    "TAGConv": (lambda: pyg.TAGConv(4, 3, K=2), False, 2),
    "ChebConv": (lambda: pyg.ChebConv(4, 3, K=3), False, 2),
    "APPNP": (lambda: pyg.APPNP(K=3, alpha=0.2), False, 3),
    "GatedGraphConv": (lambda: pyg.GatedGraphConv(4, 2), False, 2),
    "ARMAConv": (lambda: pyg.ARMAConv(4, 3, num_layers=2), False, 2),
    "MixHopConv": (lambda: pyg.MixHopConv(4, 3, powers=[0, 2]), False, 2),
    "LGConv": (lambda: LightStack(2), False, 2),
    "in the manner of NGCF": (
        lambda: pyg.Sequential("x, e", [(BiInteraction(4), "x, e -> x"), (BiInteraction(4), "x, e -> x")]),
        False,
        2,
    ),
    "HeteroConv": (lambda: both(lambda: pyg.SAGEConv((4, 4), 3)), True, 1),
    "HeteroConv, lazy": (lambda: both(lambda: pyg.GATConv((-1, -1), 3, add_self_loops=False)), True, 1),
    "to_hetero": (lambda: pyg.to_hetero(pyg.GraphSAGE((-1, -1), 5, 2), BipartiteRecommender.metadata), True, 2),
}
FEW = ["SAGEConv", "GAT", "in the manner of NGCF", "to_hetero"]


def recommender(name, graph, seed=0, **options):
    torch.manual_seed(seed)
    encoder, hetero, _ = ENCODERS[name]
    model = BipartiteRecommender(encoder(), graph.num_users, graph.num_items, 4, hetero=hetero, **options).double()
    nn.init.normal_(model.embedding.weight)  # large enough for every nonlinearity to matter
    return model.eval()


def rows_of(model, graph):
    encoded = gu.encode(model, graph)
    return torch.cat([encoded.queries, encoded.items])


def light_of(model, graph):
    """PyG's LightGCN with the table of ``model``, its weights of layers not rounded."""
    light = pyg.LightGCN(graph.num_nodes, 4, 2).double()
    light.alpha.fill_(1 / 3)
    light.embedding.load_state_dict(model.embedding.state_dict())
    return light


def scores(model, graph):
    users, items, *_ = gu.encode(model, graph)
    return users @ items.t()


@pytest.fixture
def graph():
    return random_graph(7, 6, 20)


# ---- what it computes


@given(graphs(min_interactions=1))
def test_the_edges_are_both_directions_of_all_interactions(graph):
    source, target = graph.adjacency.edge_index
    wanted = {(u, graph.num_users + i) for u, i in graph.pairs.t().tolist()}
    assert sorted(zip(source.tolist(), target.tolist())) == sorted(wanted | {(i, u) for u, i in wanted})
    assert bool((target.diff() >= 0).all())
    assert graph.adjacency.edge_index is graph.adjacency.edge_index


def test_edges_asked_for_in_inference_mode_serve_training(graph):
    with torch.inference_mode():
        assert not graph.adjacency.edge_index.is_inference()


def test_a_layer_of_sage_is_the_mean_of_the_neighbours_node_by_node(graph):
    model = recommender("SAGEConv", graph)
    rows, dense = model.embedding.weight, dense_adjacency(graph)
    first, second = (m for m in model.encoder.modules() if isinstance(m, pyg.SAGEConv))
    for layer, bend in ((first, torch.tanh), (second, lambda x: x)):
        after = []
        for v in range(graph.num_nodes):
            near = dense[v].nonzero().view(-1)
            mean = rows[near].mean(0) if len(near) else torch.zeros_like(rows[0])
            after.append(bend(layer.lin_l.weight @ mean + layer.lin_l.bias + layer.lin_r.weight @ rows[v]))
        rows = torch.stack(after)
    torch.testing.assert_close(rows_of(model, graph), rows, **EXACT)


def test_dictionaries_hold_each_direction_node_by_node(graph):
    model = recommender("HeteroConv", graph)
    x, dense, n = model.embedding.weight, dense_adjacency(graph), graph.num_users
    to_items, to_users = (model.encoder.convs[relation] for relation in RELATIONS)
    for v, row in enumerate(rows_of(model, graph)):
        layer, near = to_users if v < n else to_items, dense[v].nonzero().view(-1)
        mean = x[near].mean(0) if len(near) else torch.zeros_like(x[0])
        torch.testing.assert_close(
            row, layer.lin_l.weight @ mean + layer.lin_l.bias + layer.lin_r.weight @ x[v], **EXACT
        )


@pytest.mark.parametrize("name", list(ENCODERS))
def test_an_interaction_is_felt_as_far_away_as_is_said(name):
    """On a path of users and items in turn, the change of one row at its end shows how far the encoder looks."""
    length = 5
    walk = [((k + 1) // 2, k // 2) for k in range(2 * length - 1)]
    graph = gu.InteractionGraph.from_edges(torch.tensor(walk).t(), length, length)
    model = recommender(name, graph)
    place = torch.tensor([k // 2 + (length if k % 2 else 0) for k in range(2 * length)])
    assert num_hops(model, graph) == ENCODERS[name][2]
    seen = 0
    with torch.no_grad():
        before = rows_of(model, graph)[place]
        for _ in range(5):
            model.embedding.weight[0] = torch.randn(4, dtype=torch.float64)
            moved = (rows_of(model, graph)[place] != before).any(1).nonzero().view(-1)
            seen = max(seen, int(moved.max()))
    assert seen == num_hops(model, graph)


def test_a_stack_of_lgconv_is_pygs_lightgcn(graph):
    model = recommender("LGConv", graph)
    light = light_of(model, graph)
    edge_index = graph.adjacency.edge_index
    torch.testing.assert_close(rows_of(model, graph), light.get_embedding(edge_index), **EXACT)
    for a, b in zip(gu.encode(model, graph), gu.encode(light, graph)):
        torch.testing.assert_close(a, b, **EXACT)


# ---- features, sizes, refusals


def test_features_are_mapped_and_added(graph):
    model = recommender("SAGEConv", graph, features=(3, 0))
    plain = recommender("SAGEConv", graph)
    graph["user"].x = torch.randn(7, 3)
    with torch.no_grad():
        plain.encoder.load_state_dict(model.encoder.state_dict())
        plain.embedding.weight.copy_(model.embedding.weight)
        layer = model.from_features["user"]
        plain.embedding.weight[:7] += graph["user"].x.double() @ layer.weight.t() + layer.bias
    torch.testing.assert_close(rows_of(model, graph), rows_of(plain, graph), **EXACT)
    assert not any("x" in name.split(".") for name in model.state_dict())


@pytest.mark.parametrize("given", [None, torch.zeros(7, 2), torch.zeros(6, 3)])
def test_features_that_are_not_there_are_missed(graph, given):
    model = recommender("SAGEConv", graph, features=(3, 0))
    if given is not None:
        graph["user"].x = given
    with pytest.raises(ValueError, match=r"'graph' must hold features of shape \[7, 3\] as graph\['user'\]\.x \(got"):
        gu.encode(model, graph)


def test_forgetting_with_features(graph):
    graph["user"].x, graph["item"].x = torch.randn(7, 3), torch.randn(6, 2)
    model = BipartiteRecommender(pyg.GraphSAGE((-1, -1), 5, 2), 7, 6, 4, features=(3, 2))
    gu.fit(model, graph, objective=gu.BPR(), epochs=3)
    result = gu.IFRU(objective=gu.BPR()).unlearn(model, graph, gu.ForgetRequest("user", ["3"]))
    assert torch.isfinite(rows_of(result.model, result.graph)).all()
    assert not torch.equal(result.model.from_features["user"].weight, model.from_features["user"].weight)


@pytest.mark.filterwarnings("ignore:the influence system was solved")
def test_requests_that_are_simulated_carry_features():
    graph = gu.datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    graph["user"].x = torch.randn(40, 3)
    model = BipartiteRecommender(pyg.GraphSAGE(4, 4, 1), 40, 30, 4, features=(3, 0))
    gu.fit(model, graph, epochs=2)
    method = METHODS["unlearnrec"]()
    method.prepare(model, graph)
    result = method.unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
    assert torch.isfinite(rows_of(result.model, result.graph)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, r"'num_users' must be at least 1 \(got 0\)"),
        ({"num_items": 0}, r"'num_items' must be at least 1 \(got 0\)"),
        ({"dim": 0}, r"'dim' must be at least 1 \(got 0\)"),
        ({"features": (2, -1)}, r"'features' must be at least 0 \(got -1\)"),
        ({"num_hops": -1}, r"'num_hops' must be at least 0 \(got -1\)"),
        ({"encoder": nn.Linear(4, 4)}, r"'num_hops' must be given .* \(got Linear\)"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BipartiteRecommender(**({"encoder": pyg.LGConv(), "num_users": 7, "num_items": 6, "dim": 4} | options))


def test_hops_can_be_given(graph):
    model = BipartiteRecommender(pyg.LGConv(), 7, 6, 4, num_hops=3)
    assert num_hops(model, graph) == 3
    assert "num_hops=3" in repr(model)


def test_graphs_and_encoders_that_do_not_fit_are_refused(graph):
    model = recommender("SAGEConv", graph)
    with pytest.raises(ValueError, match=r"'graph' must have as many nodes as BipartiteRecommender has embeddings, 13"):
        gu.encode(model, random_graph(7, 7, 20))
    with pytest.raises(ValueError, match=r"'graph' must have the 7 users and 6 items of the model \(got 6 and 7\)"):
        gu.encode(model, random_graph(6, 7, 20))
    with pytest.raises(ValueError, match=r"'model' must be a session recommender for a SessionGraph"):
        gu.encode(model, gu.SessionGraph.from_sequences([[0, 1]]))

    class Pooled(nn.Module):
        def forward(self, x, edge_index):
            return x.mean(0)

    with pytest.raises(ValueError, match=r"'encoder' must return an embedding for each of the 13 users and items"):
        gu.encode(BipartiteRecommender(Pooled(), 7, 6, 4, num_hops=1), graph)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_it_can_be_copied_saved_and_drawn_anew(name, graph):
    model = recommender(name, graph)
    other = copy.deepcopy(model)
    reset_parameters(other, seed=1)
    assert not torch.equal(rows_of(model, graph), rows_of(other, graph))
    again = copy.deepcopy(other)
    reset_parameters(again, seed=1)
    assert torch.equal(rows_of(again, graph), rows_of(other, graph))
    assert float(again.embedding.weight.detach().abs().max()) <= (6 / (13 + 4)) ** 0.5  # small, as recommenders start
    other.load_state_dict(model.state_dict())
    assert torch.equal(rows_of(model, graph), rows_of(other, graph))


# ---- curvature


@pytest.mark.parametrize("name", list(ENCODERS))
@pytest.mark.parametrize("kind", ["gauss-newton", "hessian"])
def test_curvature_products_are_those_of_dense_matrices(name, kind, graph):
    model, objective = recommender(name, graph), gu.BPR(weight_decay=0.1, negatives=2)
    risk = risk_of(model, graph, objective)
    theta = risk.parameters

    def parts(t):
        encoded = risk.encode(t)
        scores = risk.samples.pattern.dots(encoded.queries, encoded.items)
        return torch.cat([risk.objective.margins(scores, risk.samples).flatten(), t[: 13 * 4]])  # the table is first

    v = torch.randn_like(theta)
    if kind == "hessian":
        dense = torch.autograd.functional.hessian(lambda t: objective(risk.encode(t), risk.samples).sum(), theta)
    else:
        jacobian = torch.autograd.functional.jacobian(parts, theta)
        p = torch.sigmoid(parts(theta)[: 2 * len(risk.samples)])
        counted = torch.zeros(13, dtype=torch.float64)  # how often a row is penalised, sample by sample
        for user, item, negatives in zip(risk.samples.users, risk.samples.items, risk.samples.negatives):
            counted[user] += 1
            counted[7 + item] += 1
            for negative in negatives:
                counted[7 + negative] += 0.5
        weight = torch.cat([p * (1 - p) / 2, 0.1 * counted.repeat_interleave(4)])
        dense = jacobian.t() @ (weight.unsqueeze(1) * jacobian)
    torch.testing.assert_close(risk.curvature(theta, kind)(v), dense @ v, rtol=1e-9, atol=1e-10)


# ---- forgetting


def test_a_correction_through_layers_is_the_closed_form(graph):
    model = recommender("LGConv", graph)
    light = light_of(model, graph)
    objective = gu.BPR(weight_decay=0.1, negatives=2)
    assert not isinstance(risk_of(model, graph, objective), LinearRisk)
    assert isinstance(risk_of(light, graph, objective), LinearRisk)
    method = gu.IFRU(objective=objective, damping=0.5, negatives=2, tol=1e-12, max_iter=500, within_noise=0)
    request = gu.ForgetRequest.internal("interaction", graph.pairs[:, [0, 7]])
    one, two = (method.unlearn(m, graph, request) for m in (model, light))
    torch.testing.assert_close(one.model.embedding.weight, two.model.embedding.weight, rtol=1e-8, atol=1e-9)
    assert not torch.allclose(one.model.embedding.weight, model.embedding.weight)


@pytest.mark.parametrize("name", ["SAGEConv", "GraphSAGE", "HeteroConv", "TransformerConv"])
def test_a_correction_comes_close_to_training_again(name):
    """Only the table is trained, to an optimum of a regularised risk; training again goes on from there."""
    graph = random_graph(20, 15, 150, seed=3)
    objective = gu.SquaredError(weight_decay=0.3)

    def trained(model, graph):
        model = copy.deepcopy(model)
        table = model.embedding.weight
        optimizer = torch.optim.LBFGS(
            [table], max_iter=500, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
        )
        samples = objective.samples(graph)

        def closure():
            optimizer.zero_grad()
            loss = objective.losses(model, graph, samples).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert float(table.grad.norm()) < 1e-5
        return model

    start = recommender(name, graph)
    start.encoder.requires_grad_(False)
    model = trained(start, graph)
    request = gu.ForgetRequest.internal("interaction", graph.pairs[:, [5]])
    method = gu.IFRU(objective=objective, damping=1e-3, curvature="hessian", warm_start=False, tol=1e-6, max_iter=400)
    result = method.unlearn(model, graph, request)
    again = trained(model, result.graph)
    before, after, wanted = (scores(m, result.graph) for m in (model, result.model, again))
    assert float((after - wanted).norm()) < 0.3 * float((before - wanted).norm())


METHODS = {
    "ifru": lambda: gu.IFRU(),
    "ifru, hessian": lambda: gu.IFRU(curvature="absolute"),
    "ifru, pruned": lambda: gu.IFRU(prune=0.5),
    "calibrate": lambda: gu.Calibrate(epochs=1),
    "unlearnrec": lambda: gu.UnlearnRec(
        settings=gu.nn.FitSettings(epochs=2), share=0.3, requests=2, pretraining=gu.operators.EncoderSettings(steps=40)
    ),
    "retrain": lambda: gu.Retrain(settings=gu.nn.FitSettings(epochs=2)),
    "finetune": lambda: gu.FineTune(epochs=2),
    "ascent": lambda: gu.GradientAscent(steps=2),
    "unlink": lambda: gu.Unlink(),
}


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", FEW)
@pytest.mark.filterwarnings("ignore:the influence system was solved", "ignore:the request takes")
def test_every_method_takes_it(name, method):
    graph = gu.datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    train, validation = graph.random_split([0.9, 0.1], seed=0)
    model = recommender(name, train).float()
    fitted = gu.fit(model, train, validation=validation, epochs=3)
    assert fitted.best > 0
    before = copy.deepcopy(model.state_dict())
    unlearner = METHODS[method]()
    if unlearner.needs_preparation:
        unlearner.prepare(model, train)
    request = gu.ForgetRequest("user", ["u3"]) | gu.ForgetRequest.internal("interaction", train.pairs[:, [20, 90]])
    result = unlearner.unlearn(model, train, request)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    assert result.graph.num_interactions == train.num_interactions - int(request.mask(train).sum())
    assert torch.isfinite(rows_of(result.model, result.graph)).all()
    assert gu.recommend(result.model, result.graph, k=5).shape == (40, 5)
    changed = any(not torch.equal(a, b) for a, b in zip(before.values(), result.model.state_dict().values()))
    assert changed or method == "unlink"


@pytest.mark.parametrize("name", FEW)
def test_a_damping_curve_can_be_drawn(name, graph):
    model, objective = recommender(name, graph), gu.BPR(weight_decay=0.1)
    curve = gu.IFRU(objective=objective).damping_curve(model, graph, gu.ForgetRequest("user", ["2"]), [0.1, 1e4])
    assert torch.isfinite(torch.tensor(curve["rho"] + curve["residual"])).all()
    assert curve["residual"][1] == pytest.approx(1, abs=0.01)  # damped until nothing moves


# ---- PyG's own LightGCN, trained and served by PyG alone


def test_a_lightgcn_that_pyg_trained_forgets_and_pyg_serves_it():
    graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=10, seed=0)
    n, edge_index = graph.num_users, graph.adjacency.edge_index
    model = pyg.LightGCN(graph.num_nodes, 16, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    positive = torch.stack([graph.pairs[0], graph.pairs[1] + n])
    for _ in range(60):
        negative = torch.stack([positive[0], torch.randint(n, graph.num_nodes, positive.shape[1:])])
        ranks = model(edge_index, torch.cat([positive, negative], 1)).chunk(2)
        loss = model.recommendation_loss(*ranks, node_id=edge_index.unique(), lambda_reg=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = model.predict_link(edge_index, positive, prob=True)
    assert float(trained.mean()) > 0.7

    # PyG's penalty is lambda times half the mean of squares over the batch; per sample it is next to nothing here
    objective = gu.BPR(weight_decay=1e-4, negatives=8)
    user = graph.pairs[0, 0]
    gone = positive[:, positive[0] == user]
    request = gu.ForgetRequest("user", [graph.user_ids[user]])
    result = gu.IFRU(objective=objective).unlearn(model, graph, request)
    after = result.graph.adjacency.edge_index
    assert after.size(1) == edge_index.size(1) - 2 * gone.size(1)
    assert not (after == user).any()

    # what PyG computes from the new parameters and the retained edges is what this package computes
    users, items, *_ = gu.encode(result.model, result.graph)
    torch.testing.assert_close(result.model.get_embedding(after), torch.cat([users, items]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        result.model.predict_link(after, gone, prob=True),
        torch.sigmoid((users[gone[0]] * items[gone[1] - n]).sum(1)),
        rtol=1e-4,
        atol=1e-6,
    )
    own = (users @ items.t()).topk(5).values
    best = result.model.recommend(after, src_index=torch.arange(n), dst_index=torch.arange(n, graph.num_nodes), k=5)
    torch.testing.assert_close(
        own, (users.unsqueeze(1) * items[best - n]).sum(2), rtol=1e-4, atol=1e-6
    )  # the same scores: of equal ones either may come first
    assert float(result.model.predict_link(after, gone, prob=True).mean()) < float(
        model.predict_link(edge_index, gone, prob=True).mean()
    )
