"""NGCF against dense algebra at the same weights; training, forgetting and refusals."""

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from toys import dense_normalized, random_graph

import graphunlearn as gu
from graphunlearn.nn import BPR, NGCF, LinearRisk, encode, fit, linear_form, num_hops, reset_parameters, risk_of

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64, a few layers of sums of a dozen terms


def ngcf(graph, dim=3, layers=2, seed=0):
    torch.manual_seed(seed)
    model = NGCF(graph.num_nodes, dim, layers).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@torch.no_grad()
def naive(model, graph):
    """Node by node and neighbour by neighbour, from the formulas of the paper."""
    matrix, rows = dense_normalized(graph), model.embedding.weight
    out = [[row] for row in rows]
    for layer in model.layers:
        after = []
        for v, row in enumerate(rows):
            message = layer.sum.weight @ row
            for w in matrix[v].nonzero().view(-1).tolist():
                message = message + matrix[v, w] * (layer.sum.weight @ rows[w] + layer.product.weight @ (rows[w] * row))
            after.append(torch.where(message > 0, message, 0.2 * message))
        rows = after
        for v, row in enumerate(rows):
            out[v].append(row / row.norm())
    return torch.stack([torch.cat(parts) for parts in out])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_ngcf_is_the_plain_loop(layers):
    graph = random_graph()
    model = ngcf(graph, layers=layers)
    users, items, user_base, item_base = encode(model, graph)
    assert users.shape == (7, 3 * (layers + 1))
    torch.testing.assert_close(torch.cat([users, items]).detach(), naive(model, graph), **EXACT)
    assert torch.equal(torch.cat([user_base, item_base]), model.embedding.weight)


@given(graphs(), st.integers(1, 3))
def test_ngcf_on_any_graph(graph, layers):
    model = ngcf(graph, layers=layers)
    users, items, *_ = encode(model, graph)
    torch.testing.assert_close(torch.cat([users, items]).detach(), naive(model, graph), **EXACT)


def test_what_is_passed_is_what_propagates():
    graph = random_graph()
    model = ngcf(graph)
    less = graph.select(torch.arange(10))
    torch.testing.assert_close(torch.cat(encode(model, less)[:2]).detach(), naive(model, less), **EXACT)


def test_ngcf_reaches_as_far_as_its_layers():
    graph = random_graph()
    for layers in (1, 3):
        assert num_hops(ngcf(graph, layers=layers), graph) == layers
    # a path of 5 nodes: an edge at its end reaches exactly as far as the layers say
    path = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]), num_users=3, num_items=2)
    for layers in (1, 2):
        model = ngcf(path, layers=layers)
        keep = torch.tensor([False, True, True, True])
        before, after = (torch.cat(encode(model, part)[:2]) for part in (path, path.select(keep)))
        moved = set((before != after).any(1).nonzero().view(-1).tolist())
        assert moved == set(gu.utils.affected_nodes(path, ~keep, num_hops=layers).tolist())


def test_ngcf_is_not_taken_for_linear():
    graph = random_graph()
    model = ngcf(graph)
    assert linear_form(model, graph) is None
    assert not isinstance(risk_of(model, graph, BPR()), LinearRisk)


def test_ngcf_is_differentiable_every_way_that_influence_asks_for():
    graph = random_graph()
    model = ngcf(graph)
    risk = risk_of(model, graph, BPR())
    theta, direction = risk.parameters, torch.randn_like(risk.parameters)
    gradient = risk.gradient(theta)
    step = 1e-6
    slope = (risk.value(theta + step * direction) - risk.value(theta - step * direction)) / (2 * step)
    assert float(gradient @ direction) == pytest.approx(slope, rel=1e-6)
    bent = (risk.gradient(theta + step * direction) - risk.gradient(theta - step * direction)) / (2 * step)
    torch.testing.assert_close(risk.curvature(theta, "hessian")(direction), bent, rtol=1e-5, atol=1e-5)


def test_ngcf_learns_and_reproduces():
    graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=0)
    train, validation = graph.random_split([0.8, 0.2], seed=0)
    models = [NGCF(train.num_nodes, 8, 2) for _ in range(2)]
    for model in models:
        reset_parameters(model, 0)
        result = fit(model, train, validation=validation, epochs=15, lr=0.01)
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    for ours, theirs in zip(models[0].state_dict().values(), models[1].state_dict().values()):
        assert torch.equal(ours, theirs)


def test_ngcf_forgets_a_user():
    graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
    model = NGCF(graph.num_nodes, 4, 2)
    fit(model, graph, epochs=3)
    result = gu.IFRU(damping=10.0).unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[2]]))
    assert all(bool(parameter.isfinite().all()) for parameter in result.model.parameters())
    assert not torch.equal(result.model.embedding.weight[2], model.embedding.weight[2])


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"'num_layers' must be at least 1 \(got 0\)"):
        NGCF(4, 2, 0)
    with pytest.raises(ValueError, match="'graph' must have as many nodes as NGCF has embeddings, 12"):
        encode(NGCF(12, 2, 1), random_graph())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ngcf_on_cuda():
    graph = random_graph()
    model = ngcf(graph)
    here = encode(model, graph).queries.detach()
    there = encode(model.cuda(), graph.to("cuda")).queries
    assert there.is_cuda
    torch.testing.assert_close(there.cpu().detach(), here, **EXACT)
