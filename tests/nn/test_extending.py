"""Models with rows for new users and items: what stays the same, and what is drawn."""

import pytest
import torch
import torch_geometric
from session_toys import random_sessions, session_graph, session_model
from torch import nn
from toys import light_gcn, random_graph, two_tower

import graphunlearn as gu
from graphunlearn.data.growing import grown
from graphunlearn.nn import add_rows, build_model
from graphunlearn.nn.identity import fingerprint


@pytest.fixture
def graph():
    return random_graph(7, 6, 20, values=False)


def with_nodes(graph, users=2, items=3):
    """The graph with users and items that have no interaction, so that the others are encoded as before."""
    ids = {"user_ids": [f"new {n}" for n in range(users)], "item_ids": [f"new {n}" for n in range(items)]}
    return grown(graph, gu.InteractionGraph.from_edges(torch.empty(2, 0, dtype=torch.long), **ids))


MODELS = {
    "pyg": lambda graph: torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=2),
    "lightgcn": light_gcn,
    "two tables": two_tower,
    **{name: lambda graph, name=name: build_model(name, graph, 4, 2) for name in ("mf", "ngcf", "sgl", "simgcl")},
}


@pytest.mark.parametrize("name", MODELS)
def test_those_who_were_there_are_encoded_as_before(graph, name):
    model, whole = MODELS[name](graph).eval(), with_nodes(graph)
    mark = fingerprint(model)
    larger = add_rows(model, graph, whole, seed=3).eval()
    assert fingerprint(model) == mark
    before, after = gu.encode(model, graph), gu.encode(larger, whole)
    assert after.queries.shape[0] == 9
    assert after.items.shape[0] == 9
    assert torch.allclose(after.queries[:7], before.queries, rtol=1e-6, atol=1e-7)
    assert torch.allclose(after.items[:6], before.items, rtol=1e-6, atol=1e-7)
    again, other = (add_rows(model, graph, whole, seed=seed) for seed in (3, 4))
    assert fingerprint(again) == fingerprint(larger) != fingerprint(other)


def test_new_rows_are_those_of_a_new_model(graph):
    model, whole = MODELS["two tables"](graph), with_nodes(graph)
    larger = add_rows(model, graph, whole, seed=5)
    fresh = MODELS["two tables"](whole)
    gu.nn.reset_parameters(fresh, 5)
    assert torch.equal(larger.user_table.weight[7:], fresh.user_table.weight[7:])
    assert torch.equal(larger.item_table.weight[6:], fresh.item_table.weight[6:])
    assert torch.equal(larger.tower.weight, model.tower.weight)


@pytest.mark.parametrize("name", ["srgnn", "gru4rec", "sasrec", "narm", "bert4rec", "gcegnn"])
def test_sessions_have_the_same_scores_for_the_items_that_were_there(name):
    graph = session_graph(random_sessions(20, 8), 8)
    new = gu.SessionGraph.from_sequences([[0, 1]], item_ids=["x", "y"], session_ids=["later"])
    whole = grown(graph, new)
    model = session_model(name, graph.num_items).eval()
    larger = add_rows(model, graph, whole).eval()
    before, after = gu.encode(model, graph), gu.encode(larger, whole)
    assert torch.allclose(after.queries[:20], before.queries, rtol=1e-6, atol=1e-7)
    assert torch.allclose(after.items[:8], before.items, rtol=1e-6, atol=1e-7)
    assert after.items.shape[0] == 10


def test_nothing_new_changes_nothing(graph):
    model = light_gcn(graph)
    same = add_rows(model, graph, graph)
    assert same is not model
    assert fingerprint(same) == fingerprint(model)


def test_a_model_with_something_else_per_user_is_refused(graph):
    model = two_tower(graph)
    model.bias_of_user = nn.Parameter(torch.zeros(7))
    with pytest.raises(gu.ArgumentError, match=r"add_rows.register\(TwoTower\)"):
        add_rows(model, graph, with_nodes(graph))


def test_a_forgotten_user_returns_and_training_goes_on(graph):
    model = light_gcn(graph)
    gu.fit(model, graph, epochs=3)
    result = gu.IFRU().unlearn(model, graph, gu.ForgetRequest("user", ["3"]))
    new = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), user_ids=["3", "eve"], item_ids=["5", "z"])
    held_out = gu.InteractionGraph.from_edges(torch.tensor([[0], [0]]), user_ids=["eve"], item_ids=["0"])
    extended = gu.extend(result.model, result.graph, new, held_out)
    assert extended.added == {"users": 1, "items": 1, "interactions": 2}
    assert extended.graph.user_ids == [*graph.user_ids, "eve"]
    rows = extended.model.embedding.weight.detach()
    assert torch.equal(rows[:7], result.model.embedding.weight.detach()[:7])
    before = rows.clone()
    gu.fit(extended.model, extended.graph, validation=extended.parts[0], epochs=2, lr=0.01)
    assert not torch.equal(extended.model.embedding.weight, before)
    again = gu.IFRU().unlearn(extended.model, extended.graph, gu.ForgetRequest("user", ["eve", "3"]))
    assert again.graph.num_interactions == result.graph.num_interactions
