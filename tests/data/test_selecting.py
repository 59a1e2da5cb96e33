"""Degrees of selections, searches for pairs and kept masks, against counts and loops."""

import torch

import graphunlearn as gu


def test_degrees_of_a_selection_are_counts():
    graph = gu.datasets.synthetic_interactions(num_users=12, num_items=8, interactions_per_user=3, seed=0)
    graph.adjacency  # noqa: B018
    for kept in (0, 3, graph.num_interactions - 2, graph.num_interactions):
        part = graph.select(torch.arange(kept))
        ends = torch.cat([part.pairs[0], part.pairs[1] + graph.num_users])
        assert part.degree.equal(torch.bincount(ends, minlength=graph.num_nodes).int())
        assert part.adjacency.degree.equal(part.degree)


def test_pairs_are_found_as_by_a_loop():
    graph = gu.datasets.synthetic_interactions(num_users=12, num_items=8, interactions_per_user=3, seed=0)
    pairs = [(int(u), int(i)) for u, i in graph.pairs.t()]
    for user in range(12):
        for item in range(8):
            request = gu.ForgetRequest.internal("interaction", torch.tensor([[user], [item]]))
            assert bool(graph.holds(request)[0]) == ((user, item) in pairs)
            if (user, item) in pairs:
                assert request.mask(graph).nonzero().tolist() == [[pairs.index((user, item))]]


def test_a_mask_is_that_of_the_request_and_the_graph_asked():
    graph = gu.datasets.synthetic_interactions(num_users=12, num_items=8, interactions_per_user=3, seed=0)
    request, other = gu.ForgetRequest("user", ["u3"]), gu.ForgetRequest("user", ["u4"])
    first = request.mask(graph)
    first.zero_()  # the caller's own
    assert request.mask(graph).equal(graph.pairs[0] == 3)
    assert other.mask(graph).equal(graph.pairs[0] == 4)
    order = torch.arange(graph.num_interactions).flip(0)
    graph.pairs.copy_(graph.pairs[:, order].clone())  # in place
    assert other.mask(graph).equal(graph.pairs[0] == 4)
