"""The risk of session models against naive sums and dense second derivatives."""

import pytest
import torch
from session_toys import random_sessions, session_graph, session_model

from graphunlearn.nn import encode
from graphunlearn.nn.session_risk import SessionRisk
from graphunlearn.nn.training.next_click import CrossEntropy

NAMES = ["srgnn", "gru4rec", "sasrec"]


@pytest.fixture(params=NAMES)
def case(request, monkeypatch):
    monkeypatch.setattr("graphunlearn.nn.session_risk.CHUNK", 5)  # several parts
    graph = session_graph(random_sessions(6, 5, 5, seed=3), 5)
    return session_model(request.param, 5, dim=2), graph


def naive(model, graph):
    """The loss of every prefix, one at a time, and its scores."""
    losses, scores = [], []
    for session in graph.items.split(graph.length.tolist()):
        for t in range(1, len(session)):
            encoded = encode(model, session_graph([session[:t].tolist()], graph.num_items))
            scores.append((encoded.queries @ encoded.items.t())[0])
            losses.append(-scores[-1].log_softmax(0)[session[t]])
    return torch.stack(losses), torch.stack(scores)


def at(model, theta):
    parameters, start = {}, 0
    for name, p in model.named_parameters():
        parameters[name] = theta[start : start + p.numel()].view_as(p)
        start += p.numel()
    return parameters


class Naive(torch.nn.Module):
    def __init__(self, model, graph):
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self, output):
        return naive(self.model, self.graph)[output]

    def of(self, theta, output=0):
        values = {f"model.{name}": value for name, value in at(self.model, theta).items()}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.func.functional_call(self, values, (output,))


def test_value_and_gradient_are_naive_sums(case):
    model, graph = case
    risk, reference = SessionRisk(model, graph, CrossEntropy()), Naive(model, graph)
    theta = risk.parameters
    assert risk.value(theta) == pytest.approx(float(reference.of(theta).sum()), rel=1e-10)
    expected = torch.autograd.functional.jacobian(lambda t: reference.of(t).sum(), theta)
    torch.testing.assert_close(risk.gradient(theta), expected, rtol=1e-8, atol=1e-10)


def test_curvature_products_are_dense_matrices(case):
    model, graph = case
    risk, reference = SessionRisk(model, graph, CrossEntropy()), Naive(model, graph)
    theta = risk.parameters
    v = torch.randn(2, theta.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    product = risk.curvature(theta, "hessian")

    def gradient(point):
        return torch.autograd.functional.jacobian(lambda t: reference.of(t).sum(), point)

    for row in v:
        eps = 1e-5
        expected = (gradient(theta + eps * row) - gradient(theta - eps * row)) / (2 * eps)
        torch.testing.assert_close(product(row), expected, rtol=1e-5, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda t: reference.of(t, 1), theta)
    p = reference.of(theta, 1).softmax(1)
    second = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    expected = torch.einsum("sjp,sjk,skq->pq", jacobian, second, jacobian)
    product = risk.curvature(theta)
    for row in v:
        torch.testing.assert_close(product(row), expected @ row, rtol=1e-8, atol=1e-10)


def test_a_part_of_the_samples_is_scaled_to_all(case):
    model, graph = case
    risk = SessionRisk(model, graph, CrossEntropy(), most=4, seed=3)
    chosen = torch.randperm(len(risk.samples), generator=torch.Generator().manual_seed(3))[:4]
    part = SessionRisk(model, graph, CrossEntropy(), risk.samples.select(chosen))
    v = torch.randn(risk.parameters.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = len(risk.samples) / 4 * part.curvature(risk.parameters)(v)
    torch.testing.assert_close(risk.curvature(risk.parameters)(v), expected)
