"""All floors forget as fitting the retained data does, to the last bit where they count."""

import pytest
import torch
from session_toys import random_sessions, session_graph

from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import CrossEntropy
from graphunlearn.nn.floors import EASE, ItemKNN, Markov, Popularity, SessionKNN, neighbours


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=80, num_items=60, interactions_per_user=6, seed=3)


def pairs(graph, positions):
    return ForgetRequest.internal("interaction", graph.pairs[:, torch.tensor(positions)])


REQUESTS = {
    "user": lambda g: ForgetRequest("user", ["u3"]),
    "users": lambda g: ForgetRequest("user", ["u3", "u9", "u40"]),
    "interaction": lambda g: pairs(g, [17]),
    "interactions": lambda g: pairs(g, [1, 2, 50, 120]),
    "item": lambda g: ForgetRequest("item", ["i4"]),
    "mixed": lambda g: ForgetRequest("user", ["u7"]) | ForgetRequest("item", ["i4"]) | pairs(g, [100, 205]),
}


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    "make",
    [Popularity, lambda: ItemKNN(k=3), lambda: ItemKNN(k=12, shrink=0), lambda: ItemKNN(k=100)],
    ids=["popularity", "k=3", "k=12", "k=100"],
)
def test_counted_floors_forget_to_the_last_bit(graph, labelled, name, make, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    monkeypatch.setattr(neighbours, "ROWS", 11)
    graph = graph.binarize(3) if labelled else graph
    request, floor = REQUESTS[name](graph), make().fit(graph)
    retained, _ = graph.split(request)
    before, again = floor.scores(graph, torch.arange(80)), make().fit(retained)
    if isinstance(floor, ItemKNN) and name != "users":  # who touch more than half of the items
        monkeypatch.setattr(ItemKNN, "fit", None)  # the touched items are counted anew, not all
    found = floor.forget(request)
    assert torch.equal(found.scores(retained, torch.arange(80)), again.scores(retained, torch.arange(80)))
    assert torch.equal(floor.scores(graph, torch.arange(80)), before)
    assert found.graph.num_interactions == retained.num_interactions < floor.graph.num_interactions


def test_item_knn_forgets_one_request_after_another(graph):
    floor, retained = ItemKNN(k=5, shrink=1).fit(graph), graph
    for number in range(30):
        request = ForgetRequest("user", [f"u{number}"])
        floor, retained = floor.forget(request), retained.split(request)[0]
    again = ItemKNN(k=5, shrink=1).fit(retained)
    assert torch.equal(floor.weights.to_dense(), again.weights.to_dense())


def test_item_knn_with_more_touched_items_than_it_counts_anew_is_fitted(graph, monkeypatch):
    monkeypatch.setattr(neighbours, "TOUCHED", 2)
    request = ForgetRequest("user", ["u3", "u9"])
    again = ItemKNN(k=5).fit(graph.split(request)[0])
    assert torch.equal(ItemKNN(k=5).fit(graph).forget(request).weights.to_dense(), again.weights.to_dense())


def test_ease_forgets_to_a_relative_error_below_the_bar(graph):
    request = ForgetRequest("user", ["u3", "u9"])
    found, again = EASE(l2=3).fit(graph).forget(request).weights, EASE(l2=3).fit(graph.split(request)[0]).weights
    assert float((found - again).norm() / again.norm()) < 1e-12


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("level", ["session", "click", "item"])
@pytest.mark.parametrize("make", [Popularity, Markov, lambda: SessionKNN(k=5, sample=12)], ids=["pop", "markov", "knn"])
def test_session_floors_forget_to_the_last_bit(timed, level, make, monkeypatch):
    rows = random_sessions(60, 20, seed=0)
    train, test = session_graph(rows, 20), session_graph(random_sessions(20, 20, seed=1), 20)
    if timed:
        train.time = torch.randperm(train.num_clicks, generator=torch.Generator().manual_seed(0)).sort().values
        train.time = train.time // 9  # several sessions end at the same time
    index = {"session": ["3", "17", "40"], "click": [("5", 0), ("8", len(rows[8]) - 1)], "item": ["4"]}[level]
    request, floor = ForgetRequest(level, index), make().fit(train)
    again = make().fit(train.split(request)[0])
    if isinstance(floor, SessionKNN) and level == "session":
        monkeypatch.setattr(SessionKNN, "fit", None)  # rows are dropped
    found, ends = floor.forget(request), CrossEntropy().samples(test).ends
    assert torch.equal(found.scores(test, ends), again.scores(test, ends))
    more = ForgetRequest("session", ["6"])  # the order of the sessions that are left is known as well
    if isinstance(floor, SessionKNN):
        monkeypatch.undo()
        again = make().fit(train.split(request, more)[0])
        assert torch.equal(found.forget(more).scores(test, ends), again.scores(test, ends))


def test_floors_that_cannot_forget_say_why(graph):
    with pytest.raises(ValueError, match="'floor' must be fitted first"):
        Popularity().forget(ForgetRequest("user", ["u3"]))
    with pytest.raises(ValueError, match="'request' must leave some interactions"):
        ItemKNN().fit(graph).forget(ForgetRequest("user", graph.user_ids))
