"""What is left of the validation data: without what is forgotten, and nothing where nothing can be predicted."""

import torch
from session_toys import session_graph
from toys import random_graph

from graphunlearn.data import InteractionGraph
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
