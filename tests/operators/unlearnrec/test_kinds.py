"""The kinds of simulated requests: what each one consists of, how much of it there is, and that seeds decide."""

import numpy as np
import pytest
import torch
from toys import random_graph

from graphunlearn.data import InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.operators.unlearnrec.kinds import INJECTED, REMOVED, draw_injected, draw_removed

GRAPH = synthetic_interactions(num_users=120, num_items=90, interactions_per_user=12, seed=3)
SHARE, BUDGET = 0.3, 40


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_set(pairs):
    return set(map(tuple, pairs.t().tolist()))


def counts(graph=GRAPH):
    """The numbers of interactions of users and of items, counted by numpy."""
    user, item = graph.pairs.numpy()
    return np.bincount(user, minlength=graph.num_users), np.bincount(item, minlength=graph.num_items)


removed = draw_removed(GRAPH, SHARE, generator())
injected = draw_injected(GRAPH, BUDGET, generator())


# ---- left out


@pytest.mark.parametrize("kind", REMOVED)
def test_every_kind_of_removal_takes_its_part_of_the_graph(kind):
    index, group = removed[kind]
    wanted = SHARE * GRAPH.num_interactions / len(REMOVED)
    assert len(index) == len(group) == len(set(index.tolist()))
    assert int(index.min()) >= 0 and int(index.max()) < GRAPH.num_interactions
    assert 0.3 * wanted < len(index) < 2 * wanted


def test_removals_do_not_overlap_and_never_take_the_whole_graph():
    index = torch.cat([index for index, _ in removed.values()]).tolist()
    assert len(set(index)) == len(index) < 0.6 * GRAPH.num_interactions


@pytest.mark.parametrize("name", ["scattered", "popular", "niche"])
def test_scattered_removals_are_groups_of_one(name):
    _, group = removed[name]
    assert len(group.unique()) == len(group)


@pytest.mark.parametrize(("name", "side"), [("users", 0), ("items", 1)])
def test_users_and_items_lose_a_large_share(name, side):
    """Every group is a node; drawn alone, it loses between .3 and .95, give or take the luck of its interactions."""
    index, group = REMOVED[name](GRAPH, 200, generator(1))
    nodes = GRAPH.pairs[side, index]
    had = counts()[side]
    for number in group.unique().tolist():
        (node,) = set(nodes[group == number].tolist())
        assert (group == number).sum() >= 0.05 * had[node]
    lost = len(index) / sum(had[node] for node in set(nodes.tolist()))
    assert 0.4 < lost < 0.85
    assert len(group.unique()) == len(nodes.unique()) < 0.5 * (GRAPH.num_users, GRAPH.num_items)[side]


def test_popular_and_niche_items_are_what_they_are_called():
    had = counts()[1]
    before = {i: sum(c for j, c in enumerate(had) if c > had[i]) for i in range(GRAPH.num_items)}  # more popular items
    items = {name: set(GRAPH.pairs[1, removed[name][0]].tolist()) for name in ("popular", "niche")}
    assert all(before[item] < 0.5 * GRAPH.num_interactions for item in items["popular"])
    less = {i: sum(c for j, c in enumerate(had) if c < had[i]) for i in range(GRAPH.num_items)}
    assert all(less[item] < 0.2 * GRAPH.num_interactions for item in items["niche"])
    assert min(had[item] for item in items["popular"]) >= max(had[item] for item in items["niche"])


def test_clusters_are_neighbours():
    """All interactions of a group are between the users of one item and the items of one of these users."""
    index, group = REMOVED["clustered"](GRAPH, 150, generator(2))
    pairs = GRAPH.pairs[:, index]
    of_user, of_item = ({} for _ in range(2))
    for user, item in GRAPH.pairs.t().tolist():
        of_user.setdefault(user, set()).add(item)
        of_item.setdefault(item, set()).add(user)
    assert len(index) >= 150
    for number in group.unique().tolist():
        users, items = (set(side.tolist()) for side in pairs[:, group == number])
        centres = [
            (user, item) for user, item in GRAPH.pairs.t().tolist() if users <= of_item[item] and items <= of_user[user]
        ]
        assert centres
    assert len(group.unique()) < 0.5 * len(index)


# ---- injected


@pytest.mark.parametrize("rule", INJECTED)
def test_every_rule_adds_new_pairs_between_known_users_and_items(rule):
    drawn, (users, items) = injected[rule], counts()
    pairs = as_set(drawn.pairs)
    assert len(pairs) == drawn.pairs.size(1) == len(drawn.group)
    assert not pairs & as_set(GRAPH.pairs)
    assert all(users[user] > 1 and items[item] > 1 for user, item in pairs)
    most = BUDGET if rule not in ("bursts", "erratic") else 12 * 120 // 4
    assert 0.4 * BUDGET <= len(pairs) <= most


def test_no_pair_is_injected_by_two_rules():
    pairs = [as_set(drawn.pairs) for drawn in injected.values()]
    assert len(set().union(*pairs)) == sum(map(len, pairs))


@pytest.mark.parametrize("rule", ["random", "popular", "dissimilar", "plausible"])
def test_scattered_injections_are_groups_of_one(rule):
    assert injected[rule].group.tolist() == list(range(len(injected[rule].group)))


def test_popular_items_are_injected_more_often():
    """In proportion to their interactions: the mean degree is the second moment over the first."""
    had = counts()[1].astype(float)
    many = {rule: INJECTED[rule](GRAPH, 4000, generator()).pairs[1] for rule in ("random", "popular")}
    able = had[had > 1]
    assert had[many["random"]].mean() == pytest.approx(able.mean(), rel=0.03)
    assert had[many["popular"]].mean() == pytest.approx((able**2).sum() / able.sum(), rel=0.03)


def test_dissimilar_items_have_the_fewest_paths_of_three_steps():
    dense = np.zeros((GRAPH.num_users, GRAPH.num_items))
    dense[tuple(GRAPH.pairs.numpy())] = 1
    users, items = counts()
    scaled = dense / np.sqrt(users.clip(1)[:, None]) / np.sqrt(items.clip(1))
    paths = (scaled @ scaled.T @ scaled) / np.sqrt(items.clip(1))
    able = items > 1
    for user, item in INJECTED["dissimilar"](GRAPH, 60, generator()).pairs.t().tolist():
        assert (paths[user, able] < paths[user, item] - 1e-12).sum() <= able.sum() / 3


def test_plausible_pairs_are_the_ends_of_walks():
    dense = np.zeros((GRAPH.num_users, GRAPH.num_items))
    dense[tuple(GRAPH.pairs.numpy())] = 1
    paths = dense @ dense.T @ dense
    assert all(paths[user, item] > 0 for user, item in injected["plausible"].pairs.t().tolist())


def test_bursts_promote_few_items_in_proportion_to_what_they_have():
    drawn, had = INJECTED["bursts"](GRAPH, 100, generator()), counts()[1]
    assert torch.equal(drawn.group, drawn.pairs[1])
    items, added = drawn.group.unique(return_counts=True)
    assert 12 <= len(items) < 30
    assert int(added.sum()) >= 100
    for item, number in zip(items.tolist(), added.tolist()):
        assert number <= min(max(2, round(4 * had[item])), 120 // 4)
    assert len(added.unique()) > 3


def test_erratic_users_get_at_most_as_many_items_as_they_have():
    drawn, had = INJECTED["erratic"](GRAPH, 60, generator()), counts()[0]
    assert torch.equal(drawn.group, drawn.pairs[0])
    users, added = drawn.group.unique(return_counts=True)
    assert all(number <= had[user] for user, number in zip(users.tolist(), added.tolist()))
    assert added.max() > 1


# ---- both


def test_seeds_decide_and_the_global_state_does_not():
    made = []
    for start, seed in ((5, 0), (6, 0), (5, 1)):
        torch.manual_seed(start)
        before = torch.get_rng_state()
        one, two = draw_removed(GRAPH, SHARE, generator(seed)), draw_injected(GRAPH, BUDGET, generator(seed))
        assert torch.equal(torch.get_rng_state(), before)
        made.append([index for index, _ in one.values()] + [drawn.pairs for drawn in two.values()])
    assert all(torch.equal(a, b) for a, b in zip(made[0], made[1]))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in zip(made[0], made[2]))


def test_without_a_budget_nothing_is_injected():
    assert all(drawn.pairs.size(1) == 0 for drawn in draw_injected(GRAPH, 0, generator()).values())


@pytest.mark.parametrize(
    "graph",
    [
        InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]])),  # nobody has two interactions
        InteractionGraph.from_edges(torch.cartesian_prod(torch.arange(4), torch.arange(3)).t()),  # no pair is left
        random_graph(5, 4, 6),
    ],
)
def test_graphs_without_room_give_fewer_pairs_and_no_error(graph):
    held = as_set(graph.pairs)
    for drawn in draw_injected(graph, 5, generator()).values():
        assert not as_set(drawn.pairs) & held
    for index, group in draw_removed(graph, 0.5, generator()).values():
        assert len(index) == len(group) <= graph.num_interactions
