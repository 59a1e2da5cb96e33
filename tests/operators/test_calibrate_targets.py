"""Targets from neighbourhoods, and the pairs they are fitted to."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import light_gcn, random_graph

from graphunlearn.nn import Encoded, encode, score
from graphunlearn.operators.calibrate import neighbourhood_targets, unseen_pairs
from graphunlearn.operators.shared.neighbours import neighbour_means


@given(st.integers(0, 200), st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_unseen_pairs_are_no_interactions(seed, num):
    graph = random_graph(15, 12, 60, seed=seed % 7, values=False)
    pairs = unseen_pairs(graph, num, seed)
    held = set(map(tuple, graph.pairs.t().tolist()))
    assert pairs.size(1) <= num
    assert not held & set(map(tuple, pairs.t().tolist()))
    assert torch.equal(pairs, unseen_pairs(graph, num, seed))


def test_targets_equal_a_dense_ridge_regression():
    graph = random_graph(15, 12, 60, values=False)
    encoded = encode(light_gcn(graph), graph)
    encoded = Encoded(encoded.queries.detach(), encoded.items.detach())
    asked = graph.pairs[:, :9]
    mean = neighbour_means(graph, torch.cat([encoded.queries, encoded.items]))
    second, degree = neighbour_means(graph, mean), graph.adjacency.degree.double().log1p()

    def row(u, i):
        v = 15 + i
        dots = [mean[u] @ mean[v], mean[u] @ second[v], second[u] @ mean[v], second[u] @ second[v]]
        return [*map(float, dots), *(float(x) for x in (mean[u].norm(), mean[v].norm(), degree[u], degree[v]))]

    unseen = unseen_pairs(graph, 500, 3)
    known = torch.tensor([row(u, i) for u, i in unseen.t().tolist()], dtype=torch.float64)
    center, scale = known.mean(0), known.std(0)

    def design(x):
        x = ((x - center) / scale).clamp(-4, 4)
        squares = [x[:, a] * x[:, b] for a in range(8) for b in range(a, 8)]
        return torch.cat([torch.ones(len(x), 1).double(), x, torch.stack(squares, 1), x[:, :4] ** 3], 1)

    a, y = design(known), score(encoded, unseen)
    solution = torch.linalg.solve(a.t() @ a + 1e-3 * len(a) * torch.eye(a.size(1)), a.t() @ y)
    expected = design(torch.tensor([row(u, i) for u, i in asked.t().tolist()], dtype=torch.float64)) @ solution
    torch.testing.assert_close(neighbourhood_targets(graph, encoded, asked, seed=3, num_pairs=500), expected)


def test_no_pairs_have_no_targets():
    graph = random_graph()
    assert neighbourhood_targets(graph, encode(light_gcn(graph), graph), graph.pairs[:, :0]).shape == (0,)
