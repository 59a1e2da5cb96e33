"""What is left of the validation data: without what is forgotten, and nothing where nothing can be predicted."""

import torch
from session_toys import session_graph
from toys import random_graph

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn import FitSettings, build_model, fit
from graphunlearn.nn.training import anew
from graphunlearn.operators import Retrain
from graphunlearn.operators.shared.heldout import validation_left


def without_item(graph, item):
    return graph.keep(graph.items != item)


def test_without_validation_data_there_is_none_left():
    graph = random_graph()
    assert validation_left(None, graph, graph) is None


def test_interactions_of_emptied_users_and_items_are_left_out():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 1, 2]]), 3, 3)
    validation = InteractionGraph.from_edges(torch.tensor([[0, 0, 1, 2], [1, 2, 2, 2]]), 3, 3)
    retained = graph.select(graph.pairs[0] != 0)  # empties user 0 and item 0
    left = validation_left(validation, graph, retained)
    assert left.pairs.tolist() == [[1, 2], [2, 2]]
    nothing = validation_left(validation.select(torch.tensor([0, 1])), graph, retained)
    assert nothing.num_interactions == 0


def test_clicks_on_emptied_items_are_left_out():
    graph = session_graph([[0, 1, 2], [3, 1, 1]], 5)
    validation = session_graph([[1, 2, 3], [2, 0]], 5)
    left = validation_left(validation, graph, without_item(graph, 2))
    assert [part.tolist() for part in left.items.split(left.length.tolist())] == [[1, 3], [0]]


def test_sessions_without_a_click_to_predict_are_no_validation_data():
    graph = session_graph([[0, 1, 2], [3, 1, 1]], 5)
    validation = session_graph([[1, 2], [2, 0]], 5)
    assert validation_left(validation, graph, without_item(graph, 2)) is None


def test_sessions_that_lose_nothing_stay_as_they_were_given():
    graph = session_graph([[0, 1, 2], [3, 1, 1]], 5)
    for rows in ([[1, 3], [4]], [[1], [3]]):  # the latter hold no click to predict: training says so itself
        validation = session_graph(rows, 5)
        assert validation_left(validation, graph, without_item(graph, 2)) is validation


def test_those_whom_earlier_requests_emptied_stay_left_out():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1, 2], [0, 1, 2, 2]]), 4, 3)
    validation = InteractionGraph.from_edges(torch.tensor([[0, 1, 2, 3, 2], [1, 2, 1, 2, 0]]), 4, 3)
    one = graph.select(graph.pairs[0] != 0)  # empties user 0 and item 0
    both = one.select(one.pairs[0] != 2)  # empties user 2
    assert validation_left(validation, graph, one).pairs.tolist() == [[1, 2, 3], [2, 1, 2]]
    assert validation_left(validation, one, both).pairs.tolist() == [[1, 3], [2, 2]]  # user 3 never had a row
    again = validation_left(validation, graph, graph.select(graph.pairs[0] != 2))  # another start, from the first graph
    assert again.pairs.tolist() == [[0, 1, 3], [1, 2, 2]]
    other = validation.select(torch.tensor([0, 1]))  # other data, of which nothing is known
    assert validation_left(other, one, both).pairs.tolist() == [[0, 1], [1, 2]]


def test_clicks_on_items_that_earlier_requests_emptied_stay_left_out():
    graph = session_graph([[0, 1, 2], [3, 1, 1], [1, 1]], 5)
    validation = session_graph([[1, 2, 3, 1], [2, 1]], 5)
    one = without_item(graph, 2)
    assert validation_left(validation, graph, one) is not None
    assert validation_left(validation, one, without_item(one, 3)).items.tolist() == [1, 1, 1]


def test_one_method_object_stops_early_without_all_who_were_emptied(monkeypatch):
    whole = random_graph(num_users=8, num_items=6, num_interactions=40, values=False)
    (graph, held), given = whole.random_split([0.6, 0.4], seed=0), []

    def watched(model, graph, *, validation=None, **rest):
        given.append(set(validation.pairs[0].tolist()))
        return fit(model, graph, validation=validation, **rest)

    monkeypatch.setattr(anew, "fit", watched)
    method, model = Retrain(validation=held, settings=FitSettings(epochs=1)), build_model("mf", graph, 2)
    for user in (1, 4):
        result = method.unlearn(model, graph, ForgetRequest.internal("user", torch.tensor([user])))
        model, graph = result.model, result.graph
    users = set(held.pairs[0].tolist())
    assert users > {1, 4} and given == [users - {1}, users - {1, 4}]
