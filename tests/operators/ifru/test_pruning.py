"""The problem on an important part of the graph: exact embeddings, the samples that matter, the rows that may move."""

import copy

import pytest
import torch
from toys import light_gcn, random_graph

from graphunlearn.data import InteractionGraph
from graphunlearn.nn import BCE, BPR, encode, linear_form, risk_of
from graphunlearn.operators.ifru.pruning import local_problem, pruned_nodes
from graphunlearn.operators.shared.right_hand_side import global_problem
from graphunlearn.operators.shared.warm_start import warm_start

OBJECTIVES = {"bpr": BPR(weight_decay=0.1, negatives=2), "bce": BCE(weight_decay=0.1)}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


@pytest.fixture
def setting():
    """User 2 is forgotten; nodes far away exist."""
    graph = random_graph(40, 50, 90)
    model = light_gcn(graph)
    removed = graph.pairs[0] == 2
    retained = graph.select(~removed)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, seed=1)
    kept, _ = pruned_nodes(graph, removed, 1, 0.0, 0.0)
    return model, started, graph, retained, removed, kept


def table(risk):
    return torch.cat(risk.encode(risk.parameters)[:2])


def test_embeddings_on_the_part_are_those_on_the_whole(setting, objective):
    model, started, graph, retained, removed, kept = setting
    problem = local_problem(model, started, graph, retained, removed, objective, kept)
    assert set(kept.tolist()) < set(problem.nodes.tolist()) < set(range(graph.num_nodes))
    for risk, whole, side in ((problem.old, model, graph), (problem.new, started, retained)):
        expected = torch.cat(encode(whole, side)[:2])[problem.nodes]
        torch.testing.assert_close(table(risk), expected.detach(), rtol=1e-12, atol=1e-12)  # float64
    forgotten = problem.direct()
    torch.testing.assert_close(table(forgotten), table(problem.old))
    assert len(forgotten.samples) == int(removed.sum())


def test_the_part_sums_the_samples_of_kept_nodes(setting, objective):
    model, started, graph, retained, removed, kept = setting
    problem = local_problem(model, started, graph, retained, removed, objective, kept)
    inside = torch.zeros(graph.num_nodes, dtype=torch.bool)
    inside[kept] = True
    for risk, whole, side in ((problem.old, model, graph), (problem.new, started, retained)):
        mask = inside[side.pairs[0]] | inside[side.pairs[1] + graph.num_users]
        expected = objective(encode(whole, side), objective.samples(side, mask=mask)).detach().sum()
        assert risk.value(risk.parameters) == pytest.approx(float(expected), rel=1e-12)
        assert 0 < int(mask.sum()) < side.num_interactions


def test_the_part_propagates_with_the_rows_and_columns_of_its_nodes(setting, objective):
    model, started, graph, retained, removed, kept = setting
    problem = local_problem(model, started, graph, retained, removed, objective, kept)
    for risk, whole, side in ((problem.old, model, graph), (problem.new, started, retained)):
        dense = linear_form(whole, side).matrix.to_dense()[problem.nodes][:, problem.nodes]
        assert torch.equal(risk.form.matrix.to_dense(), dense)


def test_only_kept_rows_are_free_and_emptied_rows_are_gone(setting, objective):
    model, started, graph, retained, removed, kept = setting
    emptied = (graph.adjacency.degree > 0) & (retained.adjacency.degree == 0)
    part = local_problem(model, started, graph, retained, removed, objective, kept)
    whole = global_problem(model, started, graph, retained, removed, objective, kept)
    for problem, nodes in ((part, part.nodes), (whole, torch.arange(graph.num_nodes))):
        free, gone = problem.free.view(-1, 3), problem.gone.view(-1, 3)
        assert torch.equal(free.bool().all(1), torch.isin(nodes, kept))
        assert torch.equal(free.bool().any(1), torch.isin(nodes, kept))
        assert torch.equal(gone.all(1), emptied[nodes])
        tilt = problem.tilt().view(-1, 3)
        assert not tilt[emptied[nodes]].any()
        assert not tilt[~torch.isin(nodes, kept)].any()
        v = torch.randn_like(problem.start)
        pushed = problem.product(problem.start, "gauss-newton")(v).view(-1, 3)
        assert not pushed[~torch.isin(nodes, kept)].any()


def test_the_whole_problem_is_before_and_after(setting, objective):
    model, started, graph, retained, removed, _ = setting
    problem = global_problem(model, started, graph, retained, removed, objective, None)
    theta = torch.randn_like(problem.start)
    for risk, side in ((problem.old, graph), (problem.new, retained)):
        torch.testing.assert_close(risk.gradient(theta), risk_of(model, side, objective).gradient(theta))
    assert torch.equal(problem.trained, model.embedding.weight.flatten())
    assert torch.equal(problem.start, started.embedding.weight.flatten())
    assert problem.free is None
    assert problem.restrict(theta) is theta


@pytest.mark.parametrize("part", ["local", "whole"])
def test_an_item_that_is_free_again_can_be_drawn_as_a_negative(part, objective):
    """Once an item is forgotten, the negatives of its user are drawn among more items, and are others."""
    pairs = torch.tensor([[u, (u + k) % 9] for u in range(6) for k in range(6)]).t()
    graph = InteractionGraph.from_edges(pairs, 6, 9, label=(torch.arange(36) % 3 != 1).double())
    model = light_gcn(graph)
    removed = torch.arange(36) == 2
    retained = graph.select(~removed)
    started = copy.deepcopy(model)
    make = local_problem if part == "local" else global_problem
    problem = make(model, started, graph, retained, removed, objective, torch.arange(graph.num_nodes))
    samples, before = objective.samples(retained), objective.samples(graph).select(~removed)
    if samples.negatives is not None:
        mine = samples.users == 0
        assert 2 in samples.negatives[mine]
        assert not torch.equal(samples.negatives[mine], before.negatives[mine])
        assert torch.equal(samples.negatives[~mine], before.negatives[~mine])
    expected = float(objective(encode(started, retained), samples).detach().sum())
    assert problem.new.value(problem.new.parameters) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(
        problem.new.gradient(problem.new.parameters),
        risk_of(started, retained, objective).gradient(parameters(started)),
        rtol=1e-9,
        atol=1e-12,
    )


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
