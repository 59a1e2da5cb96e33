"""Trails against whole propagations."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.nn import MatrixFactorization, linear_form
from graphunlearn.operators.shared import propagation as module
from graphunlearn.operators.shared.propagation import Overlaid, Rows, propagated, propagated_at, propagation_of


def made(layers: int = 3) -> tuple[LightGCN, gu.InteractionGraph]:
    graph = gu.datasets.synthetic_interactions(num_users=300, num_items=200, interactions_per_user=4, seed=0)
    torch.manual_seed(0)
    return LightGCN(graph.num_nodes, 8, num_layers=layers).double(), graph


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("dense", [0.0, 10.0])  # whole tables, and changed rows alone
@pytest.mark.parametrize("level", ["user", "item", "interaction"])
def test_changes_are_those_of_a_whole_propagation(monkeypatch, layers, dense, level):
    monkeypatch.setattr(module, "_DENSE", dense)
    monkeypatch.setattr(module, "_CHUNK", 7)
    model, graph = made(layers)
    chosen = {"user": [3, 7], "item": [5], "interaction": graph.pairs[:, [1, 100, 101]]}[level]
    chosen = torch.tensor(chosen) if level != "interaction" else chosen
    retained, _ = graph.split(gu.ForgetRequest.internal(level, chosen))
    propagation = propagation_of(model, graph)
    table = model.embedding.weight.detach().clone()
    table[[3, 310]] += 1
    form = linear_form(model, retained)
    found = propagation.after(form, retained, table)
    order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.at(order), form.propagate(table)[order], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(propagation.final, propagation.form.propagate(model.embedding.weight.detach()))
    rows = Rows(torch.tensor([3, 310]), torch.ones(2, 8, dtype=torch.double))
    moved = torch.zeros_like(table).index_copy_(0, *propagated(form, retained, rows))
    torch.testing.assert_close(moved, form.propagate(torch.zeros_like(table).index_copy_(0, *rows)))


def test_no_row_changes_beyond_the_neighbourhood():
    model, graph = made(1)
    propagation = propagation_of(model, graph)
    retained, _ = graph.split(gu.ForgetRequest.internal("interaction", graph.pairs[:, :1]))
    found = propagation.after(linear_form(model, retained), retained, propagation.table)
    user, item = graph.pairs[0, 0], graph.pairs[1, 0] + graph.num_users
    near = torch.cat([graph.adjacency.neighbors(torch.stack([user, item])), torch.stack([user, item])]).unique()
    every = torch.arange(graph.num_nodes)
    assert torch.equal((found.at(every) != propagation.final).any(1).nonzero().view(-1), near)


def test_rows_are_those_of_the_table(monkeypatch):
    table = torch.zeros(6, 2)
    rows = Rows(torch.tensor([1, 4]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    table.index_copy_(0, *rows)
    nodes = torch.tensor([0, 4, 1, 5])
    assert torch.equal(rows.at(nodes, 6), table[nodes])
    assert torch.equal(Rows(torch.arange(6), table).at(nodes, 6), table[nodes])
    for block in (1, 4, 100):
        monkeypatch.setattr(module, "_BLOCK", block)
        both = Rows.changed(torch.zeros(6, 2), table)
        assert torch.equal(both.nodes, rows.nodes)
        assert torch.equal(both.values, rows.values)
        assert not len(Rows.changed(table, table.clone()).nodes)
    changed = Rows.changed(torch.zeros(6, 2), table)
    assert torch.equal(changed.nodes, rows.nodes)
    assert torch.equal(changed.values, rows.values)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("share", [10.0, 0.0])
def test_rows_that_are_asked_for_are_those_of_the_whole_table(monkeypatch, layers, share):
    monkeypatch.setattr(module, "_LOOKED_AT", share)
    monkeypatch.setattr(module, "_CHUNK", 7)
    model, graph = made(layers)
    form = linear_form(model, graph)
    nodes = torch.tensor([0, 3, 299, 310, 499])
    for source in ([], [3, 40, 310], list(range(graph.num_nodes))):
        rows = Rows(torch.tensor(source, dtype=torch.int64), torch.rand(len(source), 8, dtype=torch.double))
        whole = form.propagate(torch.zeros(graph.num_nodes, 8, dtype=torch.double).index_copy_(0, *rows))
        found = propagated_at(form, graph, rows, nodes)
        if found is None:
            assert layers
            assert not share
            continue
        assert share or not layers
        assert torch.equal(found.nodes, nodes)
        torch.testing.assert_close(found.values, whole[nodes], rtol=1e-12, atol=1e-14)


def test_changes_are_added_one_after_another():
    table = torch.rand(6, 2)
    changes = Rows(torch.tensor([1, 4]), torch.rand(2, 2)), Rows(torch.tensor([0, 4, 5]), torch.rand(3, 2))
    expected = table.index_add(0, *changes[0]).index_add(0, *changes[1])
    nodes = torch.tensor([4, 4, 0, 3])
    assert torch.equal(Overlaid(table).changed(changes[0]).changed(changes[1]).at(nodes), expected[nodes])
    assert Overlaid(table).changed(Rows(torch.arange(0), torch.rand(0, 2))).changes == ()


def test_a_trail_is_kept_until_the_table_or_the_graph_changes():
    model, graph = made()
    first = propagation_of(model, graph)
    assert propagation_of(model, graph) is first
    with torch.no_grad():
        model.embedding.weight[0] += 1
    second = propagation_of(model, graph)
    assert second is not first
    torch.testing.assert_close(second.final, second.form.propagate(model.embedding.weight.detach()))


def test_models_that_do_not_propagate_by_the_adjacency_have_no_trail():
    model, graph = made()
    other = gu.nn.build_model("ngcf", graph, 8, 2)
    assert propagation_of(other, graph) is None
    plain = MatrixFactorization(graph.num_nodes, 8)
    form = linear_form(plain, graph)
    table = plain.get_parameter(form.parameter).detach()
    assert torch.equal(propagation_of(plain, graph).final, form.propagate(table))
    assert propagation_of(model, graph).after(form, graph, table.double()) is None


def test_losses_of_many_edges_are_propagated_whole(monkeypatch):
    model, graph = made(2)
    propagation = propagation_of(model, graph)
    mask = torch.rand(graph.num_interactions, generator=torch.Generator().manual_seed(0)) < 0.5
    retained = graph.keep(mask)
    monkeypatch.setattr(module, "_summed", lambda *_: pytest.fail("rows are not followed"))
    found = propagation.after(linear_form(model, retained), retained, propagation.table)
    found = found.at(torch.arange(graph.num_nodes))
    torch.testing.assert_close(found, linear_form(model, retained).propagate(propagation.table))


def test_a_propagation_made_in_inference_mode_is_usable_outside_of_it():
    model, graph = made()
    with torch.inference_mode():
        inside = propagation_of(model, graph)
    table = model.embedding.weight.detach().clone()
    found = inside.after(linear_form(model, graph), graph, table).at(torch.arange(graph.num_nodes))
    torch.testing.assert_close(found, inside.final)
    assert not inside.final.is_inference()
