"""The fold-in attack against a double loop per user, and what it can and cannot use."""

import pytest
import torch

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.eval.attacks import fold_in
from graphunlearn.eval.attacks.fold_in import FoldIn
from graphunlearn.nn import Encoded


def graph_of(pairs, num_users, num_items):
    return InteractionGraph.from_edges(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_users, num_items)


def random_graph(num_users=30, num_items=25, share=0.25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return graph_of(
        (torch.rand(num_users, num_items, generator=generator) < share).nonzero().tolist(), num_users, num_items
    )


def forgotten_nodes(graph, side, nodes):
    return graph.split(ForgetRequest.internal(side, torch.tensor(nodes)))[0]


def rows(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Encoded(
        *(torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (graph.num_users, graph.num_items))
    )


def naive(attack, graph, encoded):
    """The AUROC of every node, pair by pair; only the choice of halves and controls is taken from the attack."""
    user_side = attack.side == "user"
    table = encoded.items if user_side else encoded.queries
    table = table - table.sum(0) / len(table)
    degree = graph.adjacency.degree.tolist()
    degree = degree[graph.num_users :] if user_side else degree[: graph.num_users]
    other = 1 if user_side else 0
    halves, against = {}, {}
    for k, (pair, node, half) in enumerate(zip(attack.pairs.t().tolist(), attack.unit.tolist(), attack.half.tolist())):
        halves.setdefault(node, ([], []))[half].append(pair[other])
        mine = [c[other] for c, o in zip(attack.controls.t().tolist(), attack.owner.tolist()) if o == k]
        against[node, pair[other]] = mine
    found = {}
    for node, parts in halves.items():
        total = weight = 0.0
        for asked, asking in (parts, parts[::-1]):
            query = sum((table[i] / degree[i] for i in asking), torch.zeros(4, dtype=torch.float64))
            for i in asked:
                for j in against[node, i]:
                    a, b = float(query @ table[i]), float(query @ table[j])
                    total += ((a > b) + (a == b) / 2) / degree[i]
                    weight += 1 / degree[i]
        if weight:
            found[node] = total / weight
    return found


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_double_loop_gives_the_same(side, seed):
    graph = random_graph(seed=seed)
    attack = FoldIn(graph, forgotten_nodes(graph, side, [1, 4, 7]), side=side, seed=seed)
    assert attack.forgotten == 3
    encoded = rows(graph, seed)
    expected, found = naive(attack, graph, encoded), attack(encoded)
    gone = [value for node, value in expected.items() if node < 3]
    left = [value for node, value in expected.items() if node >= 3]
    assert found.value == pytest.approx(sum(gone) / len(gone) - sum(left) / len(left))
    assert found.counts.sum(1).tolist() == [len(gone), len(left)]


def test_halves_are_even_and_every_interaction_is_in_one():
    graph = random_graph()
    attack = FoldIn(graph, forgotten_nodes(graph, "user", [2, 3]))
    for place, user in enumerate(attack.nodes.tolist()):
        mine = attack.unit == place
        items = attack.pairs[1, mine].tolist()
        assert sorted(items) == sorted(graph.pairs[1, graph.pairs[0] == user].tolist())
        count = torch.bincount(attack.half[mine], minlength=2).tolist()
        assert 0 <= count[0] - count[1] <= 1
    assert attack.nodes[:2].tolist() == [2, 3]


def test_a_trace_in_the_item_rows_is_found_and_rows_of_users_are_not_read():
    """Items of the forgotten users lean towards one another, as they do when the user's pull is still in them."""
    graph = random_graph(60, 80, 0.1)
    gone = [0, 1, 2, 3, 4, 5]
    attack = FoldIn(graph, forgotten_nodes(graph, "user", gone))
    generator = torch.Generator().manual_seed(3)
    items = 0.3 * torch.randn(80, 16, generator=generator, dtype=torch.float64)
    clean = attack(Encoded(torch.zeros(60, 16), items)).value
    pull = torch.randn(60, 16, generator=generator, dtype=torch.float64)
    traced = items.clone()
    for user, item in graph.pairs.t().tolist():
        if user in gone:
            traced[item] += pull[user]
    found = attack(Encoded(torch.zeros(60, 16), traced)).value
    assert abs(clean) < 0.15
    assert found > clean + 0.2
    assert attack(Encoded(torch.full((60, 16), 9.0), traced)).value == found


def test_remaining_users_are_of_like_degree_and_none_twice(monkeypatch):
    monkeypatch.setattr(fold_in, "FEWEST", 6)
    monkeypatch.setattr(fold_in, "PER_FORGOTTEN", 3)
    # users 0 to 19 have two items, users 20 to 39 have ten: a forgotten one with ten is compared with those
    pairs = [(u, (u + k) % 50) for u in range(40) for k in range(2 if u < 20 else 10)]
    graph = graph_of(pairs, 40, 50)
    attack = FoldIn(graph, forgotten_nodes(graph, "user", [20, 21]))
    others = attack.nodes[2:].tolist()
    assert len(others) == len(set(others)) == 6
    assert all(22 <= user < 40 for user in others)
    few = FoldIn(graph, forgotten_nodes(graph, "user", list(range(20, 40))))
    assert sorted(few.nodes[20:].tolist()) == list(range(20))  # no others are left, so all of them


def test_a_single_interaction_leaves_nothing_to_hide_and_is_counted():
    graph = graph_of([(0, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 2)], 4, 4)
    attack = FoldIn(graph, forgotten_nodes(graph, "user", [0, 1]))
    assert (attack.forgotten, attack.left_out) == (0, 2)
    assert attack(rows(graph)) is None
    some = FoldIn(graph, forgotten_nodes(graph, "user", [0, 3]))
    assert (some.forgotten, some.left_out) == (1, 1)
    assert some.nodes.tolist() == [3, 2]


def test_users_who_keep_something_are_not_forgotten():
    graph = random_graph()
    own = graph.pairs[0] == 5
    own[own.nonzero()[0]] = False  # one interaction is kept
    assert FoldIn(graph, graph.select(~own)).forgotten == 0


def test_without_remaining_users_there_is_no_value():
    graph = graph_of([(0, 0), (0, 1), (1, 2)], 2, 6)
    found = FoldIn(graph, forgotten_nodes(graph, "user", [0]))(rows(graph))
    assert found.value != found.value  # NaN, which is null in a report


def test_long_histories_are_cut(monkeypatch):
    monkeypatch.setattr(fold_in, "LONGEST", 4)
    graph = random_graph(share=0.5)
    attack = FoldIn(graph, forgotten_nodes(graph, "user", [0]))
    assert int(torch.bincount(attack.unit).max()) == 4


def test_controls_are_in_no_held_out_graph():
    graph = random_graph()
    held = random_graph(seed=8)
    attack = FoldIn(graph, forgotten_nodes(graph, "user", [0, 1]), [held])
    seen = {tuple(pair) for g in (graph, held) for pair in g.pairs.t().tolist()}
    assert not seen & {tuple(pair) for pair in attack.controls.t().tolist()}
