"""The right-hand side of IFRU: direct influence and spillover are the difference of two whole gradients."""

import pytest
import torch
from toys import REQUESTS, Wrapped, factors, light_gcn, random_graph, two_tower

from graphunlearn.nn import BCE, BPR, risk_of
from graphunlearn.operators import influence

OBJECTIVES = {"bpr": BPR(weight_decay=0.05, negatives=3), "bce": BCE(weight_decay=0.05)}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("model_of", [light_gcn, lambda g: Wrapped(light_gcn(g)), factors, two_tower])
def test_direct_and_spillover_are_the_whole_difference(make_request, objective, model_of):
    graph = random_graph(12, 10, 34)  # sparse: part of it is out of reach
    model, request = model_of(graph), make_request(graph)
    removed = request.mask(graph)
    retained, _ = graph.split(request)
    direct, spillover, count = influence(model, graph, retained, removed, objective)
    theta = parameters(model)
    whole = risk_of(model, graph, objective).gradient(theta) - risk_of(model, retained, objective).gradient(theta)
    torch.testing.assert_close(direct + spillover, whole, rtol=1e-10, atol=1e-10)  # sums of some hundred terms
    forgotten = objective.samples(graph).select(removed)
    torch.testing.assert_close(direct, risk_of(model, graph, objective, forgotten).gradient(theta))
    assert count <= retained.num_interactions
    if isinstance(objective, BCE) and not isinstance(model, type(light_gcn(graph))) and not isinstance(model, Wrapped):
        assert count == 0  # nothing propagates
        assert torch.equal(spillover, torch.zeros_like(spillover))


@pytest.mark.parametrize("layers", [1, 2])
def test_outside_the_affected_set_no_sample_changes(objective, layers):
    graph = random_graph(40, 60, 55)
    model, request = light_gcn(graph, layers=layers), REQUESTS["interaction"](graph)
    removed = request.mask(graph)
    retained, _ = graph.split(request)
    before, after = objective.samples(graph).select(~removed), objective.samples(retained)
    theta = parameters(model)
    changed = 0
    for s in range(len(before)):
        one, other = before.select(torch.tensor([s])), after.select(torch.tensor([s]))
        difference = risk_of(model, graph, objective, one).gradient(theta) - risk_of(
            model, retained, objective, other
        ).gradient(theta)
        changed += bool(difference.abs().max() > 1e-12)  # rounding; what does change is some 1e-3 and more
    _, _, count = influence(model, graph, retained, removed, objective)
    assert 0 < changed <= count < len(before)


def test_every_removal_reaches_through_stored_negatives():
    # an interaction far from the removal, but for one of its negatives: its loss changes with the graph
    graph = random_graph(40, 60, 55)
    model, request = light_gcn(graph, layers=1), REQUESTS["interaction"](graph)
    removed = request.mask(graph)
    retained, _ = graph.split(request)
    counts = {}
    for name, objective in OBJECTIVES.items():
        counts[name] = influence(model, graph, retained, removed, objective)[2]
    assert counts["bpr"] > counts["bce"]
