"""Newton steps of many small systems, and curvatures in single embeddings, against dense matrices."""

import pytest
import torch
from toys import factors, light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.operators.shared import node_curvature
from graphunlearn.operators.shared.node_curvature import block_step, node_curvatures


def test_systems_are_solved_one_by_one():
    torch.manual_seed(0)
    factor = torch.randn(5, 4, 3, dtype=torch.float64)
    curvature, gradient = factor.transpose(1, 2) @ factor, torch.randn(5, 3, dtype=torch.float64)
    steps = block_step(gradient, curvature, 0.3)
    for matrix, right, step in zip(curvature, gradient, steps):
        torch.testing.assert_close((matrix + 0.3 * torch.eye(3)) @ step, right)


@pytest.mark.parametrize("pairs", [1, 1_000_000])
@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("make", [factors, light_gcn])
def test_curvatures_are_those_of_the_dense_hessian(make, own, pairs, monkeypatch):
    """For a loss of label and score, the Hessian in one final embedding is the curvature, whatever the encoder."""
    monkeypatch.setattr(node_curvature, "_PAIRS", pairs)
    graph = random_graph(6, 5, 18, values=False)
    graph["user", "interacts", "item"].label = torch.arange(18) % 2
    model, objective = make(graph, scale=0.7).double(), gu.BCE(weight_decay=0.0)
    with torch.no_grad():
        encoded = gu.encode(model, graph)
    samples = objective.samples(graph)
    nodes = torch.arange((6, 5)[own])
    parts = list(node_curvatures(objective, samples, encoded, own, nodes))
    assert torch.equal(torch.cat([some for some, _ in parts]), nodes)
    found = torch.cat([blocks for _, blocks in parts])

    def risk(row, node):
        both = [encoded.queries.clone(), encoded.items.clone()]
        both[own] = both[own].index_copy(0, torch.tensor([node]), row.unsqueeze(0))
        scores = (both[0][graph.pairs[0]] * both[1][graph.pairs[1]]).sum(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, graph.label.double(), reduction="sum")

    for node in nodes.tolist():
        row = encoded[own][node]
        dense = torch.autograd.functional.hessian(lambda row, node=node: risk(row, node), row)
        torch.testing.assert_close(found[node], dense)
