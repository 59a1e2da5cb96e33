"""Importance spread against a loop over dictionaries, and pruning."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphunlearn.data import InteractionGraph
from graphunlearn.utils import affected_nodes, importance, prune_by_importance, removed_share, spread_importance

quick = settings(max_examples=60, deadline=None)


def random_graph(num_users=40, num_items=50, num_interactions=150, seed=0):
    cells = torch.randperm(num_users * num_items, generator=torch.Generator().manual_seed(seed))[:num_interactions]
    return InteractionGraph.from_edges(torch.stack([cells // num_items, cells % num_items]), num_users, num_items)


def naive(graph, mask, num_hops):
    neighbors = {}
    for user, item in graph.pairs.t().tolist():
        neighbors.setdefault(user, []).append(item + graph.num_users)
        neighbors.setdefault(item + graph.num_users, []).append(user)
    weight = {}
    for user, item in graph.pairs[:, mask].t().tolist():
        for node in (user, item + graph.num_users):
            weight[node] = weight.get(node, 0) + 1 / len(neighbors[node])
    total = dict(weight)
    for _ in range(num_hops):
        weight = {
            node: sum(weight.get(other, 0.0) for other in others) / len(others) for node, others in neighbors.items()
        }
        for node, value in weight.items():
            if value:
                total[node] = total.get(node, 0) + value
    return total


@pytest.fixture(params=["sorted", "dense"])
def _either_way(request, monkeypatch):
    monkeypatch.setattr(importance, "_SPARSE_SHARE", 1e9 if request.param == "sorted" else 0.0)


@pytest.mark.usefixtures("_either_way")
@quick
@given(
    seed=st.integers(0, 10**6),
    num_interactions=st.integers(2, 60),
    num_removed=st.integers(1, 5),
    num_hops=st.integers(0, 4),
)
def test_spread_is_that_of_a_loop(seed, num_interactions, num_removed, num_hops):
    graph = random_graph(12, 9, num_interactions, seed)
    mask = torch.arange(num_interactions) < num_removed
    expected = naive(graph, mask, num_hops)
    nodes, weight = spread_importance(graph, mask, num_hops)
    assert nodes.tolist() == sorted(expected)
    assert weight.tolist() == pytest.approx([expected[node] for node in sorted(expected)])


@pytest.mark.parametrize("num_hops", [1, 2, 3])
def test_spread_reaches_exactly_the_affected_nodes(num_hops):
    graph = random_graph()
    mask = torch.arange(graph.num_interactions) < 2
    nodes, weight = spread_importance(graph, mask, num_hops)
    assert nodes.equal(affected_nodes(graph, mask, num_hops))
    assert (weight > 0).all()


def test_spread_of_everything_is_one_per_hop():
    # If all interactions go, every endpoint loses its whole row, and so does whatever a walk ends at.
    graph = random_graph()
    nodes, weight = spread_importance(graph, torch.ones(graph.num_interactions, dtype=torch.bool), 3)
    assert nodes.equal(graph.adjacency.degree.nonzero().view(-1))
    torch.testing.assert_close(weight, torch.full_like(weight, 4.0))


def test_without_hops_the_spread_is_the_removed_share():
    graph = random_graph()
    mask = torch.arange(graph.num_interactions) < 20
    for got, expected in zip(spread_importance(graph, mask, 0), removed_share(graph, mask)):
        assert got.equal(expected)


def test_spread_starts_from_the_endpoints_that_change_enough():
    pairs = torch.stack([torch.arange(200), torch.zeros(200, dtype=torch.long)])
    graph = InteractionGraph.from_edges(pairs, 200, 1)
    nodes, weight = spread_importance(graph, torch.arange(200) == 5, 1, min_degree_change=0.01)
    assert nodes.tolist() == [5, 200]
    assert weight.tolist() == pytest.approx([1.0, 1 / 200])


def test_spread_of_nothing_is_empty():
    graph = random_graph()
    nodes, weight = spread_importance(graph, torch.zeros(graph.num_interactions, dtype=torch.bool), 2)
    assert nodes.numel() == weight.numel() == 0


@quick
@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=30), quantile=st.floats(0, 1, exclude_max=True))
def test_pruning_keeps_the_most_important(values, quantile):
    weight = torch.tensor(values, dtype=torch.double)
    nodes = torch.arange(len(values)) * 3
    kept = prune_by_importance(nodes, weight, quantile)
    dropped = nodes[~torch.isin(nodes, kept)]
    assert dropped.numel() <= quantile * len(values)
    assert kept.numel() > 0
    if dropped.numel():
        assert weight[dropped // 3].max() < weight[kept // 3].min()
    if len(set(values)) == len(values):  # no ties: as many as asked for
        assert dropped.numel() == int(quantile * len(values))


def test_nothing_is_pruned_at_quantile_zero():
    nodes = torch.tensor([4, 7, 9])
    assert prune_by_importance(nodes, torch.tensor([0.0, 1.0, 2.0]), 0).equal(nodes)
    assert prune_by_importance(nodes[:0], torch.empty(0), 0.5).numel() == 0


def test_kept_nodes_stay_in_place_whatever_their_importance():
    nodes = torch.tensor([2, 4, 6, 8])
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert prune_by_importance(nodes, weight, 0.75).tolist() == [8]
    assert prune_by_importance(nodes, weight, 0.75, keep=torch.tensor([4, 5])).tolist() == [4, 8]


def test_endpoints_survive_pruning():
    graph = random_graph()
    mask = torch.arange(graph.num_interactions) < 10
    endpoints, _ = removed_share(graph, mask)
    nodes, weight = spread_importance(graph, mask, 2)
    kept = prune_by_importance(nodes, weight, 0.95, keep=endpoints)
    assert torch.isin(endpoints, kept).all()
    assert kept.numel() < nodes.numel()


@pytest.mark.parametrize("quantile", [-0.1, 1.0, float("nan")])
def test_wrong_quantiles_are_refused(quantile):
    with pytest.raises(ValueError, match=r"'quantile' must be a share in \[0, 1\)"):
        prune_by_importance(torch.arange(3), torch.rand(3), quantile)


def test_importance_of_other_length_is_refused():
    with pytest.raises(ValueError, match=r"'importance' must hold one value per node \(got \[2\] for nodes of \[3\]\)"):
        prune_by_importance(torch.arange(3), torch.rand(2), 0.5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    graph = random_graph()
    mask = torch.arange(graph.num_interactions) < 5
    nodes, weight = spread_importance(graph, mask, 2)
    other_nodes, other_weight = spread_importance(graph.to("cuda"), mask, 2)
    assert other_nodes.cpu().equal(nodes)
    torch.testing.assert_close(other_weight.cpu(), weight)
