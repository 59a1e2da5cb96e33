"""Pairs to judge by, against double loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphunlearn.data import InteractionGraph
from graphunlearn.eval import exposure, never_seen_pairs
from graphunlearn.eval.pairs import lowest_ranked
from graphunlearn.nn import Encoded


def graphs_of(*pair_lists, num_users, num_items):
    index = [torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t() for pairs in pair_lists]
    return [InteractionGraph.from_edges(i, num_users, num_items) for i in index]


@st.composite
def several_graphs(draw):
    num_users, num_items = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    lists = draw(st.lists(st.lists(pair, max_size=12, unique=True), min_size=1, max_size=3))
    users = draw(st.lists(st.integers(0, num_users - 1), max_size=20))
    return graphs_of(*lists, num_users=num_users, num_items=num_items), torch.tensor(users, dtype=torch.long)


@given(several_graphs(), st.integers(0, 1000))
def test_never_seen_pairs_are_never_seen_and_keep_the_users(case, seed):
    graphs, users = case
    known = {tuple(pair) for graph in graphs for pair in graph.pairs.t().tolist()}
    full = {u for u in range(graphs[0].num_users) if sum(v == u for v, _ in known) == graphs[0].num_items}
    pairs = never_seen_pairs(users, graphs, seed)
    assert pairs[0].tolist() == [u for u in users.tolist() if u not in full]
    assert not known & {tuple(pair) for pair in pairs.t().tolist()}
    assert pairs[1].numel() == 0 or 0 <= int(pairs[1].min()) <= int(pairs[1].max()) < graphs[0].num_items
    assert torch.equal(pairs, never_seen_pairs(users, graphs, seed))


def test_never_seen_pairs_are_uniform_over_the_rest():
    train, test = graphs_of([(0, 1), (0, 4), (1, 0)], [(0, 5)], num_users=2, num_items=8)
    pairs = never_seen_pairs(torch.zeros(5000, dtype=torch.long), [train, test], seed=3)
    counts = torch.bincount(pairs[1], minlength=8)
    rest = [0, 2, 3, 6, 7]
    assert counts.nonzero().flatten().tolist() == rest
    assert stats.chisquare(counts[rest].numpy()).pvalue > 1e-3
    other = never_seen_pairs(torch.zeros(5000, dtype=torch.long), [train, test], seed=4)
    assert not torch.equal(pairs, other)


def test_never_seen_pairs_need_graphs_of_one_size():
    graphs = graphs_of([(0, 0)], num_users=1, num_items=2) + graphs_of([(0, 0)], num_users=1, num_items=3)
    with pytest.raises(ValueError, match=r"equal size \(got sizes \[\(1, 2\), \(1, 3\)\]\)"):
        never_seen_pairs(torch.zeros(1, dtype=torch.long), graphs)


@st.composite
def scored(draw):
    """A graph with some pairs outside it, and whole-numbered rows, so that scores are exact and many of them equal."""
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=25, unique=True))
    cut = draw(st.integers(0, len(pairs) - 1))
    row = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    tables = [
        torch.tensor(draw(st.lists(row, min_size=n, max_size=n)), dtype=torch.float) for n in (num_users, num_items)
    ]
    (graph,) = graphs_of(pairs[cut:], num_users=num_users, num_items=num_items)
    return graph, Encoded(*tables), pairs[:cut]


@given(scored(), st.integers(1, 9), st.integers(1, 4))
def test_exposure_matches_a_double_loop(case, k, batch_size):
    graph, encoded, pairs = case
    seen = {tuple(pair) for pair in graph.pairs.t().tolist()}
    total = 0.0
    for user, item in pairs:
        scores = {i: float(encoded.queries[user] @ encoded.items[i]) for i in range(graph.num_items)}
        rest = [score for i, score in scores.items() if (user, i) not in seen]
        above, equal = (sum(s > scores[item] for s in rest), sum(s == scores[item] for s in rest))
        total += min(1.0, max(0.0, (k - above) / equal))
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()
    result = exposure(encoded, graph, index, k, batch_size)
    assert math.isnan(result) if not pairs else result == pytest.approx(total / len(pairs))


def test_exposure_needs_a_list():
    (graph,) = graphs_of([(0, 0)], num_users=1, num_items=2)
    with pytest.raises(ValueError, match=r"'k' must be at least 1 \(got 0\)"):
        exposure(Encoded(torch.ones(1, 1), torch.ones(2, 1)), graph, torch.tensor([[0], [1]]), k=0)


@given(scored(), st.sampled_from(["user", "item"]), st.integers(1, 4), st.randoms(use_true_random=False))
def test_lowest_ranked_matches_a_double_loop(case, side, batch_size, random):
    graph, encoded, pairs = case
    (other,) = graphs_of(pairs, num_users=graph.num_users, num_items=graph.num_items)
    sizes = (graph.num_users, graph.num_items) if side == "user" else (graph.num_items, graph.num_users)
    nodes = sorted(random.sample(range(sizes[0]), random.randint(1, sizes[0])))
    allowed = [random.random() < 0.7 for _ in range(sizes[1])]
    held = {tuple(pair) for g in (graph, other) for pair in g.pairs.t().tolist()}
    expected = []
    for node in nodes:
        best = None
        for partner in range(sizes[1]):
            user, item = (node, partner) if side == "user" else (partner, node)
            value = float(encoded.queries[user] @ encoded.items[item])
            if allowed[partner] and (user, item) not in held and (best is None or value < best[0]):
                best = value, (user, item)
        expected += [best] if best else []
    found = lowest_ranked(encoded, side, torch.tensor(nodes), torch.tensor(allowed), [graph, other], batch_size)
    found = [tuple(pair) for pair in found.t().tolist()]
    scores = [float(encoded.queries[u] @ encoded.items[i]) for u, i in found]
    assert scores == [value for value, _ in expected]  # of equal ones, any will do
    assert not held & set(found)
    own = [pair[side == "item"] for pair in found]
    assert own == [pair[side == "item"] for _, pair in expected]
    assert all(allowed[pair[side == "user"]] for pair in found)
