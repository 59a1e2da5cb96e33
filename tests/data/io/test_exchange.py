"""Edges whose items are numbered after users, or that are there in both directions."""

import pytest
import torch

from graphunlearn.data import InteractionGraph

NODES = torch.tensor([[0, 1, 1, 2], [3, 3, 4, 5]])
BOTH = torch.cat([NODES, NODES.flip(0)], 1)
EXPECTED = [[0, 1, 1, 2], [0, 0, 1, 2]]


@pytest.mark.parametrize("sizes", [{}, {"num_users": 3}, {"num_users": 3, "num_items": 3}])
def test_node_numbers_are_refused(sizes):
    with pytest.raises(ValueError, match=r"'edge_index' must hold items numbered from 0 .*items_offset=N"):
        InteractionGraph.from_edges(NODES, **sizes)


@pytest.mark.parametrize("sizes", [{}, {"num_users": 3, "num_items": 3}, {"num_users": 6}])
def test_both_directions_are_refused(sizes):
    with pytest.raises(ValueError, match=r"must hold every edge in one direction, .*items_offset=3, undirected=True"):
        InteractionGraph.from_edges(BOTH, **sizes)


def test_what_was_meant():
    assert InteractionGraph.from_edges(NODES, items_offset=3).pairs.tolist() == EXPECTED
    assert InteractionGraph.from_edges(BOTH, num_users=3, undirected=True).pairs.tolist() == EXPECTED
    rating = torch.arange(8.0)
    graph = InteractionGraph.from_edges(
        BOTH[:, [7, 0, 1, 2, 3, 4, 5, 6]], items_offset=3, undirected=True, rating=rating
    )
    assert graph.pairs.tolist() == EXPECTED
    assert graph.rating.tolist() == [1, 2, 3, 4]
    assert InteractionGraph.from_edges(NODES, items_offset=0).num_items == 6
    assert InteractionGraph.from_edges(NODES, 3, 6).num_items == 6


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="'items_offset' must say with 'undirected' at which number items begin"):
        InteractionGraph.from_edges(BOTH, undirected=True)
    with pytest.raises(ValueError, match="'edge_index' must have every edge in both directions with 'undirected'"):
        InteractionGraph.from_edges(NODES, items_offset=3, undirected=True)
    with pytest.raises(ValueError, match=r"'edge_index' must hold items from 4 \(got item 3\)"):
        InteractionGraph.from_edges(NODES, items_offset=4)
    with pytest.raises(ValueError, match=r"'edge_index' must hold users below 2 \(got user 2\)"):
        InteractionGraph.from_edges(NODES, items_offset=2)
    with pytest.raises(ValueError, match=r"'items_offset' must not be negative"):
        InteractionGraph.from_edges(NODES, items_offset=-1)
