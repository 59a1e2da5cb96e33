"""The right-hand side of IFRU: direct influence and spillover are the difference of two whole gradients."""

import pytest
import torch
from toys import REQUESTS, Wrapped, factors, light_gcn, random_graph, two_tower

from graphunlearn.nn import BCE, BPR, InBatchSoftmax, SampledSoftmax, risk_of
from graphunlearn.operators import influence
from graphunlearn.operators.shared.right_hand_side import global_problem

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


@pytest.mark.parametrize(
    "shared", [InBatchSoftmax(batch_size=8, negatives=5), SampledSoftmax(negatives=5, proposal="popularity")], ids=repr
)
def test_draws_that_depend_on_other_users_are_those_of_the_retained_graph(make_request, shared):
    graph = random_graph(12, 10, 34)
    model, request = light_gcn(graph), make_request(graph)
    removed = request.mask(graph)
    retained, _ = graph.split(request)
    before, after = shared.samples(graph), shared.samples(retained)
    users = graph.pairs[0, removed]
    others = ~torch.isin(after.users, users)
    assert not torch.equal(before.select(~removed).negatives[others], after.negatives[others])
    direct, spillover, _ = influence(model, graph, retained, removed, shared)
    whole = risk_of(model, graph, shared).gradient(parameters(model))
    whole = whole - risk_of(model, retained, shared).gradient(parameters(model))
    torch.testing.assert_close(direct + spillover, whole, rtol=1e-10, atol=1e-10)
    problem = global_problem(model, model, graph, retained, removed, shared, None)
    assert torch.equal(problem.new.samples.negatives, after.by_user().negatives)


# ---- the problem over all parameters


def node_of(model, graph):
    """The node of every parameter: two tables, then a tower that belongs to none."""
    dim = model.user_table.weight.size(1)
    nodes = torch.arange(graph.num_nodes).repeat_interleave(dim)
    return torch.cat([nodes, torch.full((sum(p.numel() for p in model.tower.parameters()),), -1)])


def test_emptied_nodes_have_no_gradient_left_and_pruned_ones_do_not_move(objective):
    graph = random_graph(12, 10, 34)
    model, request, kept = two_tower(graph), REQUESTS["user"](graph), torch.tensor([1, 2, 5, 14])
    for name, shape in (("wide", (2, 5)), ("scale", ())):  # of other shapes than a table
        model.tower.register_parameter(name, torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)))
    removed = request.mask(graph)
    retained, _ = graph.split(request)
    nodes, theta = node_of(model, graph), parameters(model)
    emptied = torch.isin(nodes, graph.emptied(retained).nonzero().view(-1))
    tilt = risk_of(model, graph, objective).gradient(theta)
    direct = risk_of(model, graph, objective, objective.samples(graph).select(removed)).gradient(theta)
    assert float(tilt[emptied].abs().max()) > 0
    assert float(direct[emptied].abs().max()) > 0
    for nodes_kept, free in ((None, nodes > -2), (kept, torch.isin(nodes, kept) | (nodes == -1))):
        problem = global_problem(model, model, graph, retained, removed, objective, nodes_kept)
        torch.testing.assert_close(problem.tilt(), tilt * ~emptied * free)
        torch.testing.assert_close(problem.direct_gradient(), direct * ~emptied * free)
        torch.testing.assert_close(problem.tilt(theta.clone()), theta * ~emptied * free)  # a gradient at hand
        torch.testing.assert_close(problem.restrict(theta), theta * free)
        vector = torch.randn_like(theta)
        expected = problem.curved.curvature(theta, "gauss-newton")(vector * free) * free
        torch.testing.assert_close(problem.product(theta, "gauss-newton")(vector), expected)


def test_the_curvature_takes_sixteen_negatives_and_can_leave_out_the_propagation():
    graph = random_graph(12, 10, 34)
    request, objective = REQUESTS["interaction"](graph), BPR(negatives=20)
    model, retained = light_gcn(graph), graph.split(request)[0]
    problem = global_problem(model, model, graph, retained, request.mask(graph), objective, None)
    assert problem.curved.samples.negatives.shape == (retained.num_interactions, 16)
    theta, plain = problem.start, factors(graph)
    plain.embedding.weight.data = model.embedding.weight.data
    fewer, samples = objective.first_negatives(objective.samples(retained), 16)
    for kind in ("gauss-newton", "hessian"):
        expected = risk_of(plain, retained, fewer, samples).curvature(theta, kind)
        vector = torch.randn_like(theta)
        torch.testing.assert_close(problem.product(theta, kind, propagation=False)(vector), expected(vector))
    deep = global_problem(two_tower(graph), two_tower(graph), graph, retained, request.mask(graph), objective, None)
    with pytest.raises(ValueError, match=r"'propagation' must be True where tables are not propagated linearly"):
        deep.product(deep.start, "hessian", propagation=False)
