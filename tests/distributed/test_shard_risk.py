"""The risk over ranks against the risk of one process, in double precision, and what solvers take of it."""

import copy

import pytest
import torch
from several import together
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.distributed import Ranks, build_part, model_part, take_part, whole_model
from graphunlearn.distributed.risk import shard_risk
from graphunlearn.distributed.sums import Inner, summed
from graphunlearn.func import conjugate_gradients, lanczos
from graphunlearn.nn import MatrixFactorization, build_model, reset_parameters, risk_of

WHOLE = gu.datasets.synthetic_interactions(num_users=23, num_items=17, interactions_per_user=6, seed=0)
OBJECTIVES = {"bpr": gu.BPR(negatives=3), "bce": gu.BCE(), "squared": gu.SquaredError(weight_decay=0.1)}
LABELLED = copy.copy(WHOLE)
LABELLED["user", "interacts", "item"].label = (torch.arange(WHOLE.num_interactions) % 3 > 0).float()
LABELLED["user", "interacts", "item"].rating = torch.arange(WHOLE.num_interactions) % 5 + 1.0


def model_of(name):
    nodes = WHOLE.num_nodes
    made = MatrixFactorization(nodes, 4) if name == "mf" else LightGCN(nodes, 4, num_layers=2)
    reset_parameters(made, 5)
    return made.double()


def rows_of(vector, graph):
    return vector.view(graph.num_nodes, -1)


def figures(ranks, model, objective, v):
    graph = take_part(LABELLED, ranks)
    risk = shard_risk(model_part(model, graph), graph, objective)
    own = torch.cat([graph.part.first_user + torch.arange(graph.num_users), torch.arange(WHOLE.num_users, len(v))])
    theta, direction = risk.parameters, v[own].flatten()
    tables = [risk.gradient(theta), risk.jacobi(theta)]
    tables += [risk.curvature(theta, kind)(direction) for kind in ("gauss-newton", "hessian")]
    inner = Inner(ranks, graph.num_users * v.size(1))
    hessian = risk.curvature(theta)
    given = {"damping": 0.5, "tol": 1e-9, "max_iter": 60, "dot": inner}
    tables += [conjugate_gradients(hessian, direction, **given).x, lanczos(hessian, direction, **given).solve(0.5).x]
    return own, risk.value(theta), inner(theta, direction), [rows_of(t, graph) for t in tables]


@pytest.mark.parametrize(("name", "loss"), [("lightgcn", "bpr"), ("lightgcn", "bce"), ("mf", "squared")])
def test_values_gradients_products_and_solutions_are_those_of_one_process(name, loss):
    model, objective = model_of(name), OBJECTIVES[loss]
    v = torch.randn(WHOLE.num_nodes, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    risk = risk_of(model, LABELLED, objective)
    theta, hessian = risk.parameters, risk.curvature(risk.parameters)
    tables = [risk.gradient(theta), risk.jacobi(theta)]
    tables += [risk.curvature(theta, kind)(v.flatten()) for kind in ("gauss-newton", "hessian")]
    solution = conjugate_gradients(hessian, v.flatten(), damping=0.5, tol=1e-10, max_iter=200).x
    for own, value, inner, found in together(figures, 2, model, objective, v):
        assert value == pytest.approx(risk.value(theta), rel=1e-12)
        assert inner == pytest.approx(float(theta @ v.flatten()), rel=1e-12)
        for table, wanted in zip(found, tables, strict=False):
            torch.testing.assert_close(table, wanted.view_as(v)[own], rtol=1e-9, atol=1e-11)
        for table in found[4:]:
            torch.testing.assert_close(table, solution.view_as(v)[own], rtol=1e-6, atol=1e-7)


def twice(ranks):
    x = torch.tensor([1.0 + ranks.rank], requires_grad=True)
    total = summed(ranks, x.square())  # (x_0² + x_1²), of which every rank holds the whole
    (first,) = torch.autograd.grad(total, x, create_graph=True)
    return float(total), float(first), float(torch.autograd.grad(first, x)[0])


def test_sums_can_be_differentiated_twice():
    assert together(twice, 2) == [(5.0, 2.0, 2.0), (5.0, 4.0, 2.0)]


def drawn(ranks, name):
    graph = take_part(WHOLE, ranks)
    return whole_model(build_part(name, graph, 6, 2, seed=9), graph)


@pytest.mark.parametrize("name", ["lightgcn", "mf"])
def test_the_parts_of_an_untrained_model_are_what_one_process_draws(name, monkeypatch):
    monkeypatch.setattr("graphunlearn.distributed.model._AT_ONCE", 40)  # the table is drawn in pieces
    model = build_model(name, WHOLE, 6, 2)
    reset_parameters(model, 9)
    first, *others = together(drawn, 3, name)
    assert others == [None, None]
    assert torch.equal(first.embedding.weight, model.embedding.weight)
    assert type(first) is type(model)
    torch.testing.assert_close(gu.encode(first, WHOLE), gu.encode(model, WHOLE))


def test_other_models_are_refused():
    graph = take_part(WHOLE, Ranks())
    with pytest.raises(ValueError, match=r"'model' must be lightgcn, .* or mf on several ranks \(got NGCF\)"):
        build_part("ngcf", graph, 4)
