"""Simulated requests: what is left out and added, and that every target belongs to its interaction."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import light_gcn, random_graph

from graphunlearn.nn import encode, score
from graphunlearn.operators.unlearnrec.probe import Pool, _pick, _positions, design_probe


def designed(seed=0, **changes):
    graph = random_graph(40, 30, 400, seed=seed)
    model = light_gcn(graph, seed=seed)
    return graph, model, design_probe(graph, **{"share": 0.2, "odd_users": 0.5, "seed": seed, **changes})


def as_set(pairs):
    return set(map(tuple, pairs.t().tolist()))


def united(parts):
    return set().union(*(as_set(drawn.pairs) for drawn in parts.values()))


def test_a_probe_does_without_some_interactions_and_has_others():
    graph, _, probe = designed()
    had, has = as_set(graph.pairs), as_set(probe.graph.pairs)
    left_out, added = united(probe.removed), united(probe.injected)
    assert left_out < had
    assert not added & had
    assert has == (had - left_out) | added
    assert 0.1 * 400 <= len(left_out) <= 0.25 * 400
    for parts, total in ((probe.removed, left_out), (probe.injected, added)):
        assert sum(drawn.pairs.size(1) for drawn in parts.values()) == len(total)  # no pair is of two kinds
        assert all(len(drawn.group) == drawn.pairs.size(1) for drawn in parts.values())


def test_nobody_loses_everything_and_some_lose_much():
    graph, _, probe = designed()
    before, after = graph.adjacency.degree, probe.graph.adjacency.degree
    assert bool((after[before > 0] > 0).all())
    for side, name in ((0, "users"), (1, "items")):
        lost = torch.bincount(probe.removed[name].pairs[side], minlength=40)
        had = torch.bincount(graph.pairs[side], minlength=40)
        assert float((lost / had.clamp(min=1)).max()) >= 0.3


def test_ratings_and_labels_go_along():
    graph, _, probe = designed()
    of = {pair: (r, y) for pair, r, y in zip(map(tuple, graph.pairs.t().tolist()), graph.rating, graph.label)}
    added = united(probe.injected)
    for pair, rating, label in zip(map(tuple, probe.graph.pairs.t().tolist()), probe.graph.rating, probe.graph.label):
        assert pair in added or of[pair] == (rating, label)
    assert set(probe.graph.label.tolist()) == {0.0, 1.0}


def test_the_same_seed_gives_the_same_probe_whatever_the_global_state_and_leaves_that_alone():
    graph, _, _ = designed()
    made = []
    for start, seed in ((5, 0), (6, 0), (5, 1)):
        torch.manual_seed(start)
        before = torch.get_rng_state()
        made.append(design_probe(graph, share=0.2, odd_users=0.5, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made[0].graph.pairs, made[1].graph.pairs)
    assert as_set(made[0].graph.pairs) != as_set(made[2].graph.pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.0}, "'share' must be above 0"),
        ({"share": 0.7}, "at most 0.5"),
        ({"share": 0.001}, "at least 8 interactions"),
        ({"odd_users": 1.5}, "'odd_users' must be between 0 and 1"),
    ],
)
def test_shares_that_leave_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        designed(**changes)


def test_without_odd_users_nothing_is_added():
    _, _, probe = designed(odd_users=0.0)
    assert not united(probe.injected)
    assert all(drawn.pairs.size(1) == 0 for drawn in probe.injected.values())


def pool(seed=0):
    graph, model, probe = designed(seed)
    other = light_gcn(graph, seed=seed + 50)
    with torch.no_grad():
        target = score(encode(other, probe.graph), probe.removed["users"].pairs)
    return Pool(model, graph, probe.removed["users"].pairs, target, probe.removed["users"].group)


def test_every_request_knows_the_target_of_each_of_its_interactions():
    made = pool()
    target_of = dict(zip(map(tuple, made.pairs.t().tolist()), made.target.tolist()))
    group_of = dict(zip(map(tuple, made.pairs.t().tolist()), made.group.tolist()))
    sizes = []
    for removal, target in made.requests([0.5, 1.0, 3], torch.Generator().manual_seed(0)):
        gone = as_set(removal.graph.pairs) - as_set(removal.retained.pairs)
        sizes.append(len(gone))
        groups = {group_of[pair] for pair in gone}
        assert gone == {pair for pair, group in group_of.items() if group in groups}  # whole groups
        for pair, value in zip(map(tuple, removal.pairs.t().tolist()), target.tolist()):
            assert value == pytest.approx(target_of[pair], abs=1e-6)
    assert sizes[1] == len(target_of)
    assert sizes[0] >= 0.5 * len(target_of)


def test_a_split_shares_no_group():
    first, second = pool().split(0.3, torch.Generator().manual_seed(1))
    assert not set(first.group.tolist()) & set(second.group.tolist())
    assert as_set(first.pairs) | as_set(second.pairs) == as_set(pool().pairs)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 45), st.integers(0, 100))
def test_picks_are_whole_groups_and_just_enough(groups, wanted, seed):
    group = torch.tensor(groups)
    picked = _pick(group, wanted, torch.Generator().manual_seed(seed)).tolist()
    chosen = {groups[k] for k in picked}
    assert sorted(picked) == [k for k, g in enumerate(groups) if g in chosen]
    assert len(picked) >= min(wanted, len(groups))
    largest = max(groups.count(g) for g in chosen)
    assert len(picked) - largest < wanted


def test_positions_find_pairs_in_any_order():
    graph = random_graph(20, 15, 90)
    wanted = torch.randperm(90)[:30]
    assert torch.equal(_positions(graph, graph.pairs[:, wanted]), wanted)


def test_joined_pools_keep_their_targets_and_groups_apart():
    made = pool()
    first, second = made.only(made.group == made.group.min()), made.only(made.group != made.group.min())
    joined = Pool.joined([second, first])
    assert torch.equal(joined.pairs, torch.cat([second.pairs, first.pairs], 1))
    assert torch.equal(joined.target, torch.cat([second.target, first.target]))
    size = second.pairs.size(1)
    assert not set(joined.group[:size].tolist()) & set(joined.group[size:].tolist())
    assert len(joined.group.unique()) == len(made.group.unique())
