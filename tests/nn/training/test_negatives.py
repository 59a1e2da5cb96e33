"""Stored negatives: a fixed function of seed and interaction, uniform over what a user has not."""

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from toys import random_graph

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.training import negatives
from graphunlearn.nn.training.negatives import draw_negatives, draw_popular


def drawn(graph, num=5, seed=0):
    return draw_negatives(graph, *graph.pairs, num, seed)


@given(graphs(min_interactions=1), st.integers(1, 6), st.integers(-(2**70), 2**70))
def test_negatives_are_items_and_always_the_same(graph, num, seed):
    negatives = drawn(graph, num, seed)
    assert negatives.shape == (graph.num_interactions, num)
    assert negatives.dtype == torch.long
    assert 0 <= int(negatives.min()) <= int(negatives.max()) < graph.num_items
    state = torch.random.get_rng_state()
    assert torch.equal(negatives, drawn(graph, num, seed))
    assert torch.equal(state, torch.random.get_rng_state())


def test_negatives_are_never_positives():
    graph = random_graph(60, 50, 600)  # users hold a fifth of all items: 12 draws miss a negative with p = 4e-9
    positives = set(map(tuple, graph.pairs.t().tolist()))
    for (user, _), row in zip(graph.pairs.t().tolist(), drawn(graph, 20).tolist()):
        assert not positives & {(user, item) for item in row}


def test_a_user_with_all_items_or_all_but_one():
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(5)).t()[:, :-1]  # user 0 has all items, user 1 four
    negatives = drawn(InteractionGraph.from_edges(pairs, 2, 5), 50)
    assert torch.equal(negatives[:5], torch.arange(5).unsqueeze(1).expand(5, 50))  # none: the item itself stands for it
    assert (negatives[5:] == 4).all()


def test_draws_for_dense_users_are_uniform_over_the_few_free_items():
    free = {0: [7, 20, 49], 1: [0, 31], 2: list(range(10, 50))}
    pairs = [(user, item) for user, items in free.items() for item in range(50) if item not in items]
    graph = InteractionGraph.from_edges(torch.tensor(pairs).t(), 3, 50)
    got = drawn(graph, 400)
    for user, items in free.items():
        count = torch.bincount(got[graph.pairs[0] == user].flatten(), minlength=50)
        assert count.nonzero().flatten().tolist() == items
        assert chisquare(count[items]).pvalue > 0.01


def test_one_item_alone():
    assert drawn(InteractionGraph.from_edges(torch.tensor([[0], [0]]), 1, 1), 3).tolist() == [[0, 0, 0]]


def test_no_interaction_no_negative():
    graph = random_graph()
    none = torch.empty(0, dtype=torch.long)
    assert draw_negatives(graph, none, none, 3, 0).shape == (0, 3)


def test_pairs_of_a_graph_without_interactions_may_get_any_item():
    empty = InteractionGraph.from_edges(torch.empty(2, 0, dtype=torch.long), 3, 40)
    got = draw_negatives(empty, torch.tensor([0, 1]), torch.tensor([5, 6]), 200, 0)
    assert len(got.unique()) == 40


@given(graphs(min_interactions=2), st.randoms(use_true_random=False))
def test_negatives_do_not_depend_on_the_order_of_interactions(graph, random):
    order = list(range(graph.num_interactions))
    random.shuffle(order)
    shuffled = InteractionGraph.from_edges(graph.pairs[:, order], graph.num_users, graph.num_items)
    assert torch.equal(drawn(shuffled), drawn(graph)[order])


def test_negatives_do_not_depend_on_what_else_is_asked():
    graph = random_graph()
    some = torch.tensor([3, 11, 4])
    assert torch.equal(draw_negatives(graph, *graph.pairs[:, some], 5, 0), drawn(graph)[some])
    assert torch.equal(drawn(graph, 3), drawn(graph, 5)[:, :3])  # more negatives leave the first ones alone


def test_a_removal_changes_only_the_negatives_of_the_users_it_touches():
    graph = random_graph(20, 30, 200)
    keep = torch.ones(200, dtype=torch.bool)
    keep[[3, 50, 51]] = False
    touched = torch.isin(graph.pairs[0, keep], graph.pairs[0, ~keep])
    before, after = drawn(graph)[keep], drawn(graph.select(keep))
    assert torch.equal(before[~touched], after[~touched])
    # and of those only the draws that used to collide with what was removed
    changed = (before != after)[touched]
    removed = set(map(tuple, graph.pairs[:, ~keep].t().tolist()))
    owners = graph.pairs[0, keep][touched].unsqueeze(1).expand(-1, 5)[changed].tolist()
    assert all((user, item) in removed for user, item in zip(owners, after[touched][changed].tolist()))


def test_seeds_and_draws_differ():
    graph = random_graph(40, 1000, 400)
    first, second = drawn(graph, 4, seed=0), drawn(graph, 4, seed=1)
    # two independent uniform draws of 1000 items agree once in a thousand: 1.6 of 1600 expected
    assert int((first == second).sum()) < 12
    assert int((first[:, 0] == first[:, 1]).sum()) < 8
    assert int((first[:-1] == first[1:]).sum()) < 12


def test_negatives_are_uniform():
    # fixed seeds, so the p-values are constants: far above what any structure in 40,000 draws would leave
    empty_user = InteractionGraph.from_edges(torch.tensor([[0], [0]]), 201, 100)
    users = torch.arange(1, 201).repeat_interleave(50)
    items = torch.arange(50).repeat(200)
    got = draw_negatives(empty_user, users, items, 4, seed=3)
    assert chisquare(torch.bincount(got.flatten(), minlength=100)).pvalue > 0.01
    for k in range(4):
        assert chisquare(torch.bincount(got[:, k], minlength=100)).pvalue > 0.01
    # consecutive draws are independent: pairs of deciles are uniform as well
    joint = (got[:, 0] // 10) * 10 + got[:, 1] // 10
    assert chisquare(torch.bincount(joint, minlength=100)).pvalue > 0.01


def test_negatives_are_uniform_over_what_is_left():
    held = torch.arange(0, 60, 2)  # one user with every other item of the first sixty
    graph = InteractionGraph.from_edges(torch.stack([torch.zeros_like(held), held]), 1, 100)
    got = drawn(graph, 700)
    count = torch.bincount(got.flatten(), minlength=100)
    free = torch.ones(100, dtype=torch.bool)
    free[held] = False
    assert int(count[held].sum()) == 0
    assert chisquare(count[free]).pvalue > 0.01


@pytest.mark.parametrize("draw", [draw_negatives, draw_popular, lambda *args: draw_popular(*args, avoid=True)])
@pytest.mark.parametrize("part", [1, 7, 64])
def test_draws_do_not_depend_on_how_many_are_made_at_a_time(draw, part, monkeypatch):
    free = [(0, item) for item in range(19)] + [(1, item) for item in range(20)]  # all but one item, and all items
    graph = InteractionGraph.from_edges(torch.tensor([*free, (2, 3), (3, 4), (3, 5), (4, 3)]).t(), 5, 20)
    wanted = draw(graph, *graph.pairs, 3, 5)
    monkeypatch.setattr(negatives, "_PART", part)
    assert torch.equal(draw(graph, *graph.pairs, 3, 5), wanted)
    some = torch.tensor([40, 2, 21])
    assert torch.equal(draw(graph, *graph.pairs[:, some], 3, 5), wanted[some])


def test_what_some_users_hold_is_that_of_a_loop():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 2, 4, 4], [3, 1, 0, 2, 3]]), num_users=6, num_items=5)
    held = negatives._Held.of(graph, torch.tensor([4, 1, 4, 0]))
    assert held.rows.tolist() == [0, 1, 4]
    assert held.row.tolist() == [2, 1, 2, 0]
    assert held.keys.tolist() == [0 * 5 + 1, 0 * 5 + 3, 2 * 5 + 2, 2 * 5 + 3]
    users, items = torch.tensor([4, 1, 4, 0, 5]), torch.tensor([2, 0, 3, 1, 0])
    more, others = torch.cat([users, torch.arange(6)]), torch.cat([items, torch.tensor([0, 1, 2, 3, 4, 0])])
    drawn, whole = (draw_negatives(graph, u, i, 7, seed=3) for u, i in ((users, items), (more, others)))
    assert torch.equal(drawn, whole[:5])  # what else is drawn does not matter


@given(st.data())
def test_what_is_held_is_found_with_and_without_a_table_of_hash_values(data):
    graph = data.draw(graphs(min_interactions=1))
    users = torch.tensor(data.draw(st.lists(st.integers(0, graph.num_users - 1), min_size=1)))
    rows = users.unique().tolist()
    held = {(rows.index(user), item) for user, item in graph.pairs.t().tolist() if user in rows}
    wanted = torch.arange(len(rows) * graph.num_items)
    expected = [key for key in wanted.tolist() if divmod(key, graph.num_items) in held]
    for asked in (0, 1 << 20):
        found = negatives._Held.of(graph, users, asked)
        assert (found.cells is None) == (asked == 0)
        assert found.positions(wanted).tolist() == expected
        assert found.positions(wanted.flip(0)).tolist() == [len(wanted) - 1 - key for key in reversed(expected)]


def test_a_table_of_few_cells_tells_nothing_wrong(monkeypatch):
    graph = random_graph(30, 20, 200)
    wanted = drawn(graph, 9)
    monkeypatch.setattr(negatives, "_CELL_BITS", 2)
    assert torch.equal(drawn(graph, 9), wanted)


def test_negatives_are_drawn_fast_and_slowly_alike(monkeypatch):
    graph = random_graph(30, 20, 200)
    wanted = drawn(graph, 9)
    monkeypatch.setattr(negatives._Held, "positions", lambda self, keys: torch.isin(keys, self.keys).nonzero().view(-1))
    assert torch.equal(drawn(graph, 9), wanted)
