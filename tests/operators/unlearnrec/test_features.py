"""What a request does to a model, edge by edge, against loops over edges."""

import math

import pytest
import torch
from toys import light_gcn, random_graph

from graphunlearn.data import InteractionGraph
from graphunlearn.nn import Encoded, encode
from graphunlearn.operators.shared.neighbours import neighbour_means, random_walk
from graphunlearn.operators.unlearnrec.features import NUM_FEATURES, Removal


def some_removal(seed=0, values=True):
    graph = random_graph(12, 10, 55, seed=seed, values=values)
    model = light_gcn(graph, seed=seed)
    removed = torch.zeros(55, dtype=torch.bool)
    removed[[0, 5, 6, 30, 31, 44]] = True
    return graph, model, removed, Removal.of(model, graph, graph.select(~removed), removed)


def neighbours(graph):
    lists = [[] for _ in range(graph.num_nodes)]
    for user, item in graph.pairs.t().tolist():
        lists[user].append(graph.num_users + item)
        lists[graph.num_users + item].append(user)
    return lists


def test_random_walks_visit_every_neighbour_equally_often():
    graph = random_graph(4, 5, 12)
    dense = torch.zeros(9, 9, dtype=torch.double)
    dense[graph.pairs[0], graph.pairs[1] + 4] = dense[graph.pairs[1] + 4, graph.pairs[0]] = 1
    start = int((dense.sum(1) > 0).nonzero()[0])
    ends = random_walk(graph, torch.full((40_000,), start), 3, torch.Generator().manual_seed(0))
    expected = torch.linalg.matrix_power(dense / dense.sum(1, keepdim=True).clamp(min=1), 3)[start]
    torch.testing.assert_close(torch.bincount(ends, minlength=9) / 40_000.0, expected.float(), atol=0.015, rtol=0)


def test_neighbour_means_are_the_means_of_the_neighbours_and_zero_where_there_are_none():
    graph = random_graph(9, 6, 14)
    rows = torch.randn(15, 3, dtype=torch.float64)
    expected = [rows[near].mean(0) if near else torch.zeros(3, dtype=torch.float64) for near in neighbours(graph)]
    torch.testing.assert_close(neighbour_means(graph, rows), torch.stack(expected))


def test_features_equal_a_loop_over_the_forgotten_interactions():
    graph, model, removed, removal = some_removal()
    retained = graph.select(~removed)
    before, after = encode(model, graph), encode(model, retained)
    z = torch.cat([after.queries, after.items]).detach()
    near, had = neighbours(retained), neighbours(graph)

    def mean(of):
        return torch.stack([of[n].mean(0) if n else torch.zeros(3, dtype=torch.float64) for n in near])

    first = mean(z)
    second = mean(first)
    rows = []
    for (u, i), label in zip(removal.pairs.t().tolist(), removal.label.tolist()):
        v = i + graph.num_users
        zu, zi, mu, mi, su, si = z[u], z[v], first[u], first[v], second[u], second[v]
        row = [before.queries[u] @ before.items[i], zu @ zi, mu @ mi, mu @ zi, zu @ mi, su @ si]
        row += [su @ zi, zu @ si, su @ mi, mu @ si, zu.norm(), zi.norm(), mu.norm(), mi.norm()]
        row += [math.log1p(len(near[n])) for n in (u, v)]
        row += [1 - len(near[n]) / len(had[n]) for n in (u, v)]
        row += [zu @ mu / (zu.norm() * mu.norm() + 1e-6), zi @ mi / (zi.norm() * mi.norm() + 1e-6), label]
        rows.append([float(value) for value in row])
    features = removal.features()
    assert features.shape == (len(rows), NUM_FEATURES)
    torch.testing.assert_close(features, torch.tensor(rows, dtype=torch.float64))


def test_interactions_with_an_emptied_end_are_left_out():
    pairs = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 1, 2]])
    graph = InteractionGraph.from_edges(pairs, 3, 3)
    removed = torch.tensor([True, False, False, False, True])  # user 2 and item 2 lose everything
    removal = Removal.of(light_gcn(graph), graph, graph.select(~removed), removed)
    assert removal.pairs.tolist() == [[0], [0]]
    assert removal.kept.tolist() == [True, False]


def test_items_and_other_users_are_new_pairs_within_reach():
    """Other users of an item are at most three steps away in what is retained, which has two components."""
    halves = [random_graph(12, 8, 40, seed=seed, values=False).pairs for seed in (0, 1)]
    graph = InteractionGraph.from_edges(torch.cat([halves[0], halves[1] + torch.tensor([[12], [8]])], 1), 24, 17)
    removed = torch.zeros(80, dtype=torch.bool)
    removed[::3] = True
    removal = Removal.of(light_gcn(graph), graph, graph.select(~removed), removed)
    chosen = torch.zeros(17, dtype=torch.bool)
    chosen[[2, 5, 16]] = True  # the last item has no interaction
    made = [removal.with_others(chosen, torch.Generator().manual_seed(seed)).pairs for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    pairs = set(map(tuple, made[0].t().tolist()))
    assert pairs and len(pairs) == made[0].size(1)
    assert {item for _, item in pairs} == {2, 5} and all(user < 12 for user, _ in pairs)
    held = set(map(tuple, graph.pairs.t().tolist()))
    steps = torch.zeros(24, 17)
    steps[tuple(removal.retained.pairs)] = 1
    ends = ((steps @ steps.t() @ steps) > 0).nonzero().tolist()
    assert pairs <= set(map(tuple, ends)) - held
    assert removal.with_others(~chosen & False, torch.Generator()).features().shape == (0, NUM_FEATURES)


def test_features_do_not_depend_on_a_rotation_of_the_rows():
    graph, _model, _removed, removal = some_removal(1)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = [Encoded(e.queries @ rotation, e.items @ rotation) for e in (removal.before, removal.after)]
    other = Removal(graph, removal.retained, removal.pairs, removal.label, removal.kept, *turned)
    torch.testing.assert_close(other.features(), removal.features())


def test_known_rows_before_are_taken_as_they_are():
    graph, model, removed, removal = some_removal(2, values=False)
    before = encode(model, graph)
    again = Removal.of(model, graph, removal.retained, removed, before)
    assert again.before is before
    torch.testing.assert_close(again.features(), removal.features())
    assert again.label is None and bool((again.features()[:, -1] == 1).all())


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
        ),
    ],
)
def test_features_lie_where_the_model_is(device):
    graph, model, removed, removal = some_removal()
    moved = graph.to(device)
    got = Removal.of(model.to(device), moved, moved.select(~removed.to(device)), removed.to(device)).features()
    assert got.device.type == device
    torch.testing.assert_close(got.cpu(), removal.features())
