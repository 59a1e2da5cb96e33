"""The mean of the neighbours against a loop."""

import torch
from data.strategies import graphs
from hypothesis import given

from graphunlearn.operators.shared.neighbours import neighbour_means


@given(graphs())
def test_every_node_gets_the_mean_of_its_neighbours(graph):
    rows = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    expected = torch.zeros_like(rows)
    for node in range(graph.num_nodes):
        own = [item + graph.num_users for user, item in graph.pairs.t().tolist() if user == node]
        own += [user for user, item in graph.pairs.t().tolist() if item + graph.num_users == node]
        if own:
            expected[node] = rows[own].mean(0)
    torch.testing.assert_close(neighbour_means(graph, rows), expected)
