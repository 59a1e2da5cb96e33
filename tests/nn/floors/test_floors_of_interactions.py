"""Popularity, item-kNN and EASE against naive loops and dense algebra; EASE forgets as retraining does."""

import math

import pytest
import torch

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn.floors import (
    EASE,
    ItemKNN,
    Popularity,
    default_floors,
    floor_metrics,
    measure_floor,
    measuring,
    neighbours,
)
from graphunlearn.nn.floors.neighbours import first_largest


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=70, num_items=30, interactions_per_user=7, seed=0)


def dense(graph):
    pairs = graph.pairs if graph.label is None else graph.pairs[:, graph.label == 1]
    x = torch.zeros(graph.num_users, graph.num_items, dtype=torch.double)
    x[pairs[0], pairs[1]] = 1
    return x


def ease(x, l2):
    inverse = torch.linalg.inv(x.t() @ x + l2 * torch.eye(x.size(1), dtype=x.dtype))
    return (-inverse / inverse.diagonal()).fill_diagonal_(0)


@pytest.mark.parametrize("labelled", [False, True])
def test_popularity_counts_positive_interactions(graph, labelled):
    graph = graph.binarize(3) if labelled else graph
    found = Popularity().fit(graph).scores(graph, torch.arange(2))
    assert torch.equal(found.double(), dense(graph).sum(0).repeat(2, 1))


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(("k", "shrink"), [(1, 0.0), (4, 10.0), (100, 2.5)])
def test_item_knn_is_the_naive_loop(graph, labelled, k, shrink, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 7)  # several blocks, the last one shorter
    graph = graph.binarize(3) if labelled else graph
    x = dense(graph).tolist()
    holders = [{u for u in range(70) if x[u][i]} for i in range(30)]
    wanted = torch.zeros(70, 30, dtype=torch.double)
    for i in range(30):
        weights = {}
        for j in set(range(30)) - {i}:
            both = len(holders[i] & holders[j])
            if both:
                weights[j] = both / (math.sqrt(len(holders[i]) * len(holders[j])) + shrink)
        near = sorted(weights, key=lambda j: (-round(weights[j], 9), j))[:k]
        for u in range(70):
            wanted[u, i] = sum(weights[j] for j in near if x[u][j])
    users = torch.tensor([5, 0, 69, 31])
    found = ItemKNN(k=k, shrink=shrink).fit(graph).scores(graph, users)
    torch.testing.assert_close(found.double(), wanted[users], rtol=0, atol=1e-6)  # float32 sums


@pytest.mark.parametrize("labelled", [False, True])
def test_ease_is_its_dense_formula(graph, labelled):
    graph = graph.binarize(3) if labelled else graph
    model, x = EASE(l2=15).fit(graph), dense(graph)
    wanted = ease(x, 15)
    torch.testing.assert_close(model.weights, wanted, rtol=0, atol=1e-12)
    users = torch.tensor([3, 69, 0])
    torch.testing.assert_close(model.scores(graph, users), (x @ wanted)[users], rtol=0, atol=1e-12)
    assert model.residual() < 1e-12


def test_ease_is_the_least_squares_solution_without_a_diagonal(graph):
    x, l2 = dense(graph), 15.0
    found = EASE(l2=l2).fit(graph).weights
    for j in (0, 7, 29):  # each column is a ridge regression on the other items
        others = [i for i in range(30) if i != j]
        a, b = x[:, others], x[:, j]
        column = torch.linalg.solve(a.t() @ a + l2 * torch.eye(29, dtype=x.dtype), a.t() @ b)
        torch.testing.assert_close(found[others, j], column, rtol=0, atol=1e-12)


def interactions_of(graph, positions):
    pairs = [(graph.user_ids[u], graph.item_ids[i]) for u, i in graph.pairs[:, positions].t().tolist()]
    return ForgetRequest("interaction", pairs)


REQUESTS = {
    "user": lambda g: ForgetRequest("user", ["u3"]),
    "users": lambda g: ForgetRequest("user", ["u3", "u9", "u40"]),
    "interaction": lambda g: interactions_of(g, [17]),
    "interactions": lambda g: interactions_of(g, [1, 2, 50, 120]),
    "item": lambda g: ForgetRequest("item", ["i4"]),
    "items": lambda g: ForgetRequest("item", ["i4", "i11", "i0"]),
    "mixed": lambda g: ForgetRequest("user", ["u7"]) | ForgetRequest("item", ["i4"]) | interactions_of(g, [100, 205]),
}


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_ease_forgets_as_retraining_does(graph, labelled, name, monkeypatch):
    graph = graph.binarize(3) if labelled else graph
    request = REQUESTS[name](graph)
    model, again = EASE(l2=15).fit(graph), EASE(l2=15).fit(graph.split(request)[0])
    before = model.inverse.clone()
    monkeypatch.setattr(EASE, "fit", None)  # in closed form, not by fitting
    found = model.forget(request)
    torch.testing.assert_close(found.inverse, again.inverse, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.weights, again.weights, rtol=0, atol=1e-8)
    assert torch.equal(model.inverse, before)
    assert model.graph.num_interactions == graph.num_interactions > found.graph.num_interactions


def test_ease_forgets_one_request_after_another(graph):
    model, retained = EASE(l2=15).fit(graph), graph
    for request in (*(ForgetRequest("user", [f"u{n}"]) for n in range(25)), ForgetRequest("item", ["i4"])):
        model, retained = model.forget(request), retained.split(request)[0]
    torch.testing.assert_close(model.weights, EASE(l2=15).fit(retained).weights, rtol=0, atol=1e-8)


def test_ease_is_fitted_anew_where_rounding_broke_the_inverse(graph):
    model, request = EASE(l2=15).fit(graph), ForgetRequest("user", ["u3"])
    model.inverse = model.inverse + 1e-5
    assert model.residual() > 1e-6
    again = EASE(l2=15).fit(graph.split(request)[0])
    assert torch.equal(model.forget(request).weights, again.weights)


def test_ease_is_fitted_anew_for_requests_of_more_rows_than_items(graph):
    request = ForgetRequest("user", [f"u{n}" for n in range(40)])
    model = EASE(l2=15).fit(graph)
    assert torch.equal(model.forget(request).weights, EASE(l2=15).fit(graph.split(request)[0]).weights)


def test_ease_says_the_size_that_it_refuses():
    graph = InteractionGraph.from_edges(torch.tensor([[0], [0]]), num_users=1, num_items=41_000)
    message = r"'graph' must have at most 13,377 items for EASE with max_gib=4 \(got 41,000, which take 37.6 GiB\)"
    with pytest.raises(ValueError, match=message):
        EASE().fit(graph)
    assert "37.6 GiB" in floor_metrics(graph, {}, floors=[EASE()])["ease"]["refused"]


@pytest.mark.parametrize("floor", default_floors("interactions"), ids=lambda floor: floor.name)
@pytest.mark.parametrize("labelled", [False, True])
def test_floors_are_ranked_as_models_are(graph, floor, labelled, monkeypatch):
    monkeypatch.setattr(measuring, "BATCH", 16)
    train, test = (graph.binarize(3) if labelled else graph).random_split([0.7, 0.3], seed=1)
    floor.fit(train)
    scores = floor.scores(train, torch.arange(70)).double()
    # scores as dot products with unit vectors, so that the tested ranking of embeddings applies; ties stay ties
    wanted = Ranker(train, test, ks=(5,))(scores, torch.eye(30, dtype=torch.double))
    if labelled:
        wanted["auroc"] = auroc(scores[test.pairs[0], test.pairs[1]], test.label)
    found = measure_floor(floor, train, test, ks=(5,))
    assert found == pytest.approx(wanted, abs=1e-6 if floor.name == "ease" else 0.02)  # float32 ties break otherwise


def test_untrue_options_are_refused(graph):
    for make, name in (
        (lambda: ItemKNN(k=0), "k"),
        (lambda: ItemKNN(shrink=-1), "shrink"),
        (lambda: EASE(l2=0), "l2"),
    ):
        with pytest.raises(ValueError, match=f"'{name}' must"):
            make()
    train, _ = graph.random_split([0.5, 0.5])
    with pytest.raises(ValueError, match="'held_out' must be of the kind of 'train'"):
        measure_floor(Popularity().fit(train), train, InteractionGraph.from_edges(torch.tensor([[0], [0]])))


def test_scores_that_cannot_be_ranked_are_refused(graph):
    train, test = graph.random_split([0.7, 0.3])
    ranker = Ranker(train, test, ks=(5,))
    with pytest.raises(ValueError, match="'scores' must return finite scores"):
        ranker.scored(lambda users: torch.full((len(users), 30), math.nan))
    with pytest.raises(ValueError, match="'scores' must return finite scores of shape"):
        ranker.scored(lambda users: torch.zeros(len(users), 29))


def test_the_first_of_equal_values_are_taken():
    torch.manual_seed(0)
    values = torch.randint(0, 4, (50, 30)).double() + 1e-15 * torch.randint(0, 2, (50, 30))
    for k in (1, 7, 30):
        found = first_largest(values, k)
        for row, mask in zip(values.tolist(), found):
            order = sorted(range(30), key=lambda n: (-row[n], n))
            assert mask.nonzero().flatten().tolist() == sorted(order[:k])
