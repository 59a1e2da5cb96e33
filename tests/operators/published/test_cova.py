"""COVA against dense matrices, entry by entry, and a dense singular value decomposition."""

import pytest
import torch
from toys import factors, light_gcn, random_graph, two_tower

from graphunlearn.data import ForgetRequest
from graphunlearn.nn import encode
from graphunlearn.operators import COVA


def stack(model, graph, request):
    """The three matrices, one entry at a time."""
    encoded = encode(model, graph)
    scores = (encoded.queries @ encoded.items.t()).detach()
    known = set(zip(*graph.pairs.tolist(), strict=True))
    forgotten = set(zip(*graph.pairs[:, request.mask(graph)].tolist(), strict=True))
    first = torch.zeros_like(scores)
    for u in range(graph.num_users):
        own = [float(scores[u, i]) for i in range(graph.num_items) if (u, i) in known]
        other = [float(scores[u, i]) for i in range(graph.num_items) if (u, i) not in known]
        for i in range(graph.num_items):
            mine = own if (u, i) in known else other
            first[u, i] = sum(mine) / len(mine)
    second = first.clone()
    for u, i in forgotten:
        second[u, i] = scores[u].min()
    return first, second, scores


@pytest.mark.parametrize("rank", [None, 2])
def test_scores_are_the_dense_combination_in_the_common_space(make_request, rank):
    graph = random_graph(9, 8, 30, seed=2, values=False)
    model, request = factors(graph), make_request(graph)
    first, second, third = stack(model, graph, request)
    v = torch.linalg.svd(torch.cat([first, second, third])).Vh[: rank or 3].t()
    expected = (third - 2.0 * (first - second) - 0.4 * (third - first)) @ v @ v.t()
    method = COVA(alpha=2.0, beta=0.4, rank=rank, rounds=300)
    result = method.unlearn(model, graph, request)
    encoded = encode(result.model, result.graph)
    got = (encoded.queries @ encoded.items.t()).detach()
    emptied = graph.emptied(result.graph)
    users, items = (~part for part in emptied.split([graph.num_users, graph.num_items]))
    got, expected = got[users][:, items], expected[users][:, items]
    assert float((got - expected).norm() / expected.norm()) < 1e-8
    assert result.log["rank"] == (rank or 3)


def test_what_is_forgotten_falls_more_with_a_larger_weight():
    graph = random_graph(9, 8, 30, seed=2, values=False)
    model, request = factors(graph), ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    user, item = graph.pairs[:, request.mask(graph)]

    def forgotten(alpha):
        encoded = encode(COVA(alpha=alpha).unlearn(model, graph, request).model, graph)
        return float((encoded.queries[user] * encoded.items[item]).sum().detach())

    assert forgotten(35.0) < forgotten(5.0) < forgotten(0.0)


def test_scores_are_reached_through_the_propagation():
    graph = random_graph(9, 8, 30, seed=2, values=False)
    model, request = light_gcn(graph), ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    first, second, third = stack(model, graph, request)
    v = torch.linalg.svd(torch.cat([first, second, third])).Vh[:3].t()
    expected = (third - 2.0 * (first - second) - 0.4 * (third - first)) @ v @ v.t()
    result = COVA(alpha=2.0, beta=0.4, rounds=300).unlearn(model, graph, request)
    encoded = encode(result.model, result.graph)
    got = (encoded.queries @ encoded.items.t()).detach()
    assert result.log["left_by_propagation"] < 0.01
    kept = ~graph.emptied(result.graph)[graph.num_users :]
    got, expected = got[:, kept], expected[:, kept]
    assert float((got - expected).norm() / expected.norm()) < 0.02


def test_what_cannot_be_served_is_refused():
    graph = random_graph(values=False)
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0]])
    with pytest.raises(ValueError, match=r"'model' must propagate one table linearly for cova \(got TwoTower\)"):
        COVA().unlearn(two_tower(graph), graph, request)
    with pytest.raises(ValueError, match=r"'rank' must be at most the width of the embeddings, 3 \(got 48\)"):
        COVA(rank=48).unlearn(factors(graph), graph, request)
    for options, message in (
        ({"alpha": -1.0}, "'alpha' must be finite and not negative"),
        ({"rounds": 0}, "'rounds' must be a positive integer"),
        ({"rank": 0}, "'rank' must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            COVA(**options)
