"""A model whose retraining is the solution of a linear system, for the tests of influence steps."""

import pytest
import torch
from session_toys import random_sessions, session_graph, session_model
from toys import REQUESTS, ConstantItems, normal_equations, random_graph

from graphunlearn.data import ForgetRequest


@pytest.fixture(params=list(REQUESTS))
def make_request(request):
    return REQUESTS[request.param]


@pytest.fixture
def quadratic():
    """A model at the minimum of its squared errors, and its graph."""
    graph = random_graph()
    torch.manual_seed(3)
    model = ConstantItems(graph).double()
    with torch.no_grad():
        weight = model.embedding.weight
        weight.copy_(torch.linalg.solve(*normal_equations(model, graph, 0.2)).view_as(weight))
    return model, graph


@pytest.fixture
def retrained(quadratic):
    """The parameters of the retrained model, and which of them it determines."""

    def of(request):
        model, graph = quadratic
        retained, _ = graph.split(request)
        hessian, rhs = normal_equations(model, retained, 0.2)
        rows = (retained.adjacency.degree > 0).repeat_interleave(2)
        expected = torch.zeros_like(rhs)
        expected[rows] = torch.linalg.solve(hessian[rows][:, rows], rhs[rows])
        return expected, rows

    return of


@pytest.fixture
def sessions():
    """A session model, its graph and some clicks that no item depends on alone."""
    graph = session_graph(random_sessions(8, 5, 5, seed=3), 5)
    clicks = (graph.position > 0).nonzero().flatten()[::4]
    request = ForgetRequest.internal("click", torch.stack([graph.session[clicks], graph.position[clicks]]))
    return session_model("gru4rec", 5, dim=2), graph, request
