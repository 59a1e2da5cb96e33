"""A recommender that no library wrote, trained by its own loop and served by its own ``predict``: ten lines of glue."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import graphunlearn as gu
from graphunlearn.nn import risk_of


class TwoTowers(nn.Module):
    """Two tables, a tower for each side that sees its neighbours, a sparse matrix, and a cache to serve from."""

    def __init__(self, num_users, num_items, dim):
        super().__init__()
        self.user_table, self.item_table = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim)
        self.user_tower, self.item_tower = nn.Linear(2 * dim, dim), nn.Linear(2 * dim, dim)
        self.matrix = self.cache = None
        nn.init.normal_(self.user_table.weight, std=0.1)
        nn.init.normal_(self.item_table.weight, std=0.1)

    def set_interactions(self, users, items):
        """Take up who had what, and drop what was computed from it."""
        sizes = self.user_table.num_embeddings, self.item_table.num_embeddings
        ones = torch.ones(len(users), dtype=self.user_table.weight.dtype)
        pairs = torch.stack([users, items])
        self.matrix = torch.sparse_coo_tensor(pairs, ones, sizes, check_invariants=True).coalesce()
        self.cache = None

    def towers(self, matrix):
        """Return the rows of all users and of all items."""
        users, items = self.user_table.weight, self.item_table.weight
        near_users = mean_rows(matrix, items)
        near_items = mean_rows(matrix.t(), users)
        users = users + torch.tanh(self.user_tower(torch.cat([users, near_users], 1)))
        items = items + torch.tanh(self.item_tower(torch.cat([items, near_items], 1)))
        return users, items

    @torch.no_grad()
    def predict(self, user, k):
        """Return the ``k`` best items that ``user`` has not had."""
        if self.cache is None:
            self.cache = self.towers(self.matrix)
        users, items = self.cache
        scores = items @ users[user]
        scores[self.matrix.indices()[1, self.matrix.indices()[0] == user]] = -torch.inf
        return scores.topk(k).indices


def mean_rows(matrix, rows):
    """Return the mean of the rows of those that a node has to do with."""
    count = torch.sparse.sum(matrix, 1).to_dense().clamp(min=1)
    return torch.sparse.mm(matrix, rows) / count.unsqueeze(1)


def train(model, users, items, epochs=80):
    """Its own loop: one random item for every interaction and epoch, a small penalty on the rows."""
    model.set_interactions(users, items)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(epochs):
        u, i = model.towers(model.matrix)
        other = torch.randint(len(i), items.shape)
        margin = (u[users] * (i[items] - i[other])).sum(1)
        rows = model.user_table.weight[users], model.item_table.weight[items], model.item_table.weight[other]
        loss = F.softplus(-margin).mean() + 0.5 * 1e-2 * sum(r.square().sum(1).mean() for r in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


# ---- the glue: how its rows come from a graph, and what it serves with afterwards


@gu.encode.register
def rows_of(model: TwoTowers, graph):
    other = copy.copy(model)
    other.set_interactions(*graph.pairs)
    return *other.towers(other.matrix), model.user_table.weight, model.item_table.weight


def serve(result):
    result.model.set_interactions(*result.graph.pairs)
    return result.model


OBJECTIVE = gu.BPR(weight_decay=1e-2, negatives=16)  # what its own loop minimises


@pytest.fixture(scope="module")
def graph():
    return gu.datasets.synthetic_interactions(
        num_users=60, num_items=50, interactions_per_user=12, activity_spread=0.3, seed=0
    )


@pytest.fixture(scope="module")
def trained(graph):
    torch.manual_seed(0)
    return train(TwoTowers(graph.num_users, graph.num_items, 8), *graph.pairs)


@pytest.fixture
def request_(graph):
    return gu.ForgetRequest("user", ["u3", "u8"]) | gu.ForgetRequest.internal("interaction", graph.pairs[:, [1, 300]])


def own_best(model, graph, k=5):
    return torch.stack([model.predict(user, k) for user in range(graph.num_users)])


def test_the_glue_is_short():
    lines = [line for part in (rows_of, serve) for line in inspect.getsource(part).splitlines() if line.strip()]
    assert len(lines) <= 10


def test_what_it_recommends_itself_is_what_is_recommended_here(trained, graph):
    assert torch.equal(own_best(trained, graph), gu.recommend(trained, graph, k=5))


def test_encoding_leaves_its_matrix_and_its_cache_alone(trained, graph, request_):
    trained.predict(0, 3)
    matrix, cache = trained.matrix, trained.cache
    gu.encode(trained, graph.split(request_)[0])
    assert trained.matrix is matrix
    assert trained.cache is cache


@pytest.mark.parametrize("kind", ["gauss-newton", "hessian"])
def test_curvature_goes_through_its_sparse_products(kind):
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), 3, 4)
    model, objective = TwoTowers(3, 4, 2).double(), gu.BPR(weight_decay=0.0, negatives=2)
    risk = risk_of(model, graph, objective)
    theta = risk.parameters
    v = torch.randn_like(theta)

    def margins(t):
        encoded = risk.encode(t)
        scores = risk.samples.pattern.dots(encoded.queries, encoded.items)
        return risk.objective.margins(scores, risk.samples).flatten()

    if kind == "hessian":
        dense = torch.autograd.functional.hessian(lambda t: objective(risk.encode(t), risk.samples).sum(), theta)
    else:
        jacobian, p = torch.autograd.functional.jacobian(margins, theta), torch.sigmoid(margins(theta))
        dense = jacobian.t() @ ((p * (1 - p) / 2).unsqueeze(1) * jacobian)
    torch.testing.assert_close(risk.curvature(theta, kind)(v), dense @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "method", [gu.IFRU(objective=OBJECTIVE), gu.Calibrate(objective=OBJECTIVE)], ids=lambda m: m.name
)
@pytest.mark.filterwarnings("ignore:the influence system was solved")
def test_it_forgets_and_its_own_predict_sees_it(method, trained, graph, request_):
    before = own_best(trained, graph)
    state = copy.deepcopy(trained.state_dict())
    result = method.unlearn(trained, graph, request_)
    assert result.model.cache is not None  # a copy of what the original served: nothing here knows of it
    model = serve(result)
    assert model.cache is None

    after = own_best(model, graph)
    users, items = gu.encode(model, result.graph)[:2]
    scores = (users @ items.t()).detach()
    scores[tuple(result.graph.pairs)] = -torch.inf
    for user in range(graph.num_users):
        assert torch.equal(after[user], scores[user].topk(5).indices)
    assert not torch.equal(before, after)
    assert model.matrix.values().numel() == result.graph.num_interactions
    assert not (model.matrix.indices()[0] == 3).any()

    assert all(torch.equal(a, b) for a, b in zip(state.values(), trained.state_dict().values()))
    assert torch.equal(own_best(trained, graph), before)


def test_what_is_forgotten_scores_as_if_it_was_trained_again(trained, graph):
    """Against its own loop on what remains, three times, since one training differs from the next."""
    gone = torch.arange(0, graph.num_interactions, 25)
    request = gu.ForgetRequest.internal("interaction", graph.pairs[:, gone])
    result = gu.IFRU(objective=OBJECTIVE).unlearn(trained, graph, request)
    again = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = train(TwoTowers(graph.num_users, graph.num_items, 8), *result.graph.pairs)
        again.append(chances(model, result.graph, graph.pairs[:, gone]))
    wanted = torch.stack(again).mean(0)
    before, after = (chances(m, result.graph, graph.pairs[:, gone]) for m in (trained, result.model))
    # single pairs differ between trainings by as much as forgetting changes them; their mean does not
    assert float(before.mean() - wanted.mean()) > 0.05
    assert abs(float(after.mean() - wanted.mean())) < 0.5 * float(before.mean() - wanted.mean())


@torch.no_grad()
def chances(model, graph, pairs):
    return torch.sigmoid(gu.score(gu.encode(model, graph), pairs))


def test_it_can_be_trained_here_as_well(graph):
    model = TwoTowers(graph.num_users, graph.num_items, 8)
    fitted = gu.fit(model, graph, objective=OBJECTIVE, epochs=3)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    again = gu.Retrain(settings=gu.nn.FitSettings(epochs=2)).unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
    assert serve(again).predict(3, 5).shape == (5,)
