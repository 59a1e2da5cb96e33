"""Controls of pairs: never seen, of the same user, and of about the same popularity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.attacks import matching
from graphunlearn.eval.attacks.matching import match_of, matched_pairs, windows


def graph_of(pairs, num_users, num_items):
    return InteractionGraph.from_edges(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_users, num_items)


def popular(num_users=40, num_items=60, seed=0):
    """Item ``i`` is liked about in proportion to ``i``."""
    generator = torch.Generator().manual_seed(seed)
    liked = torch.rand(num_users, num_items, generator=generator) < torch.arange(1, num_items + 1) / (2 * num_items)
    return graph_of(liked.nonzero().tolist(), num_users, num_items)


def as_set(*graphs):
    return {tuple(pair) for graph in graphs for pair in graph.pairs.t().tolist()}


@st.composite
def cases(draw):
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=25, unique=True))
    held = draw(st.lists(pair, max_size=8, unique=True))
    return graph_of(pairs, num_users, num_items), graph_of(held, num_users, num_items)


@given(cases(), st.sampled_from(["user", "item"]), st.integers(1, 4), st.integers(0, 99))
def test_controls_were_never_seen_and_keep_their_side(case, by, per_pair, seed):
    graph, held = case
    found = matched_pairs(graph, graph.pairs, [held], per_pair=per_pair, by=by, seed=seed)
    side = 0 if by == "user" else 1
    assert found.controls[side].tolist() == graph.pairs[side, found.owner].tolist()
    assert not as_set(graph, held) & {tuple(pair) for pair in found.controls.t().tolist()}
    assert found.owner.tolist() == sorted(found.owner.tolist())
    count = torch.bincount(found.owner, minlength=graph.num_interactions)
    assert int(count.max()) <= per_pair
    again = matched_pairs(graph, graph.pairs, [held], per_pair=per_pair, by=by, seed=seed)
    assert torch.equal(again.controls, found.controls)


@pytest.mark.parametrize("by", ["user", "item"])
def test_controls_are_among_the_nearest_in_popularity(by, monkeypatch):
    monkeypatch.setattr(matching, "WINDOW", 10)
    graph = popular()
    degree = graph.adjacency.degree.tolist()
    degree = degree[40:] if by == "user" else degree[:40]
    row = 1 if by == "user" else 0
    found = matched_pairs(graph, graph.pairs, by=by, seed=2)
    for own, control in zip(graph.pairs[row, found.owner].tolist(), found.controls[row].tolist()):
        # ten places around the own one hold no node that is more than ten places away
        low, high = sorted((degree[own], degree[control]))
        assert sum(low < d < high for d in degree) <= 10


def test_popularity_does_not_tell_pairs_from_their_controls():
    """What random controls give away, controls of like popularity hide."""
    graph = popular(num_users=200, num_items=400)
    degree = graph.adjacency.degree[200:].double()
    pairs = graph.pairs[:, ::31]
    found = matched_pairs(graph, pairs, per_pair=3)

    def auroc(items):
        own, theirs = degree[pairs[1]].numpy(), degree[items].numpy()
        return stats.mannwhitneyu(own, theirs).statistic / (len(own) * len(theirs))

    assert auroc(torch.arange(400)) > 0.6
    assert abs(auroc(found.controls[1]) - 0.5) < 0.05


def test_popular_items_are_matched_as_well_as_others():
    """Popularity grows fastest at the top, where there are few items of the same."""
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(400, 300, generator=generator) < 0.7 / (torch.arange(300) / 12 + 1)
    graph = graph_of(liked.nonzero().tolist(), 400, 300)
    degree = graph.adjacency.degree[400:]
    found = matched_pairs(graph, graph.pairs, per_pair=2)
    own = degree[found.pairs[1]][found.owner].double()
    theirs = degree[found.controls[1]].double()
    for part in own.argsort().chunk(5):
        assert float(theirs[part].mean()) == pytest.approx(float(own[part].mean()), rel=0.1)
    told = match_of(degree, found.pairs[1], found.controls[1], found.owner)
    assert told["forgotten"] == pytest.approx(float(own.mean()))
    assert told["controls"] == pytest.approx(float(theirs.mean()))
    won = [(a > b) + (a == b) / 2 for a, b in zip(own.tolist(), theirs.tolist())]
    assert told["auroc"] == pytest.approx(sum(won) / len(won))
    assert abs(told["auroc"] - 0.5) < 0.06
    assert match_of(degree, found.pairs[1], found.controls[1][:0], found.owner[:0]) is None


@pytest.mark.parametrize("num_items", [20, 60, 95])
def test_small_catalogues_are_matched_too(num_items):
    """A window of a hundred items would hold them all."""
    graph = popular(num_users=300, num_items=num_items)
    degree = graph.adjacency.degree[300:]
    found = matched_pairs(graph, graph.pairs, per_pair=2)
    told = match_of(degree, found.pairs[1], found.controls[1], found.owner)
    assert abs(told["auroc"] - 0.5) < 0.08
    spread = (degree[found.controls[1]] - degree[found.pairs[1]][found.owner]).abs().double().mean()
    anyone = (degree[:, None] - degree[found.pairs[1]][None]).abs().double().mean()
    assert spread < 0.5 * anyone


@given(st.lists(st.integers(0, 30), min_size=1, max_size=150).map(sorted))
def test_windows_are_symmetric_and_close(popularity):
    first, last = windows(torch.tensor(popularity))
    num = len(popularity)
    least = max(1, min(5, num // 20))
    half = max(least, min(100, num // 5) // 2)
    for place, (a, b) in enumerate(zip(first.tolist(), last.tolist())):
        assert 0 <= a <= place <= b < num
        around = [place - a, b - place]
        assert max(around) <= half
        if max(around) > least:
            assert around[0] == around[1]
            assert all(abs(popularity[n] - popularity[place]) <= max(1, popularity[place] / 4) for n in (a, b))
        else:
            assert around == [min(least, place), min(least, num - 1 - place)]


def test_a_pair_without_any_control_is_left_out():
    graph = graph_of([(0, 0), (0, 1), (1, 0)], 2, 2)
    found = matched_pairs(graph, graph.pairs, per_pair=2)
    assert set(graph.pairs[0, found.owner].tolist()) == {1}
    assert found.controls.tolist() == [[1, 1], [1, 1]]
    held = graph_of([(1, 1)], 2, 2)
    assert matched_pairs(graph, graph.pairs, [held], per_pair=2).controls.size(1) == 0


def test_other_seeds_draw_others():
    graph = popular()
    one, other = (matched_pairs(graph, graph.pairs, seed=seed).controls for seed in (0, 1))
    assert not torch.equal(one, other)
