"""Injected users and interactions, against plain loops over sets of pairs."""

import copy
from collections import Counter

import pytest
import torch
from scipy import stats

import graphunlearn as gu
from graphunlearn.data import EDGE_TYPE
from graphunlearn.eval import click_fraud, mislabelled_popular, shilling
from graphunlearn.eval.scenarios.injected import _average, _bandwagon
from graphunlearn.eval.scenarios.injection import (
    check_count,
    draw_targets,
    fresh_ids,
    popular_first,
    with_interactions,
    with_users,
)

PARTS = (0.8, 0.1, 0.1)


@pytest.fixture(scope="module")
def graph():
    """Ratings with times, of 120 users, of whom three have no interaction, and items of all degrees."""
    made = gu.datasets.synthetic_interactions(num_users=120, num_items=70, interactions_per_user=9, seed=1)
    return made.select(made.pairs[0] % 50 != 7)


def pairs_of(*graphs):
    return {tuple(pair) for graph in graphs for pair in graph.pairs.t().tolist()}


def counts_of(graph, side=1):
    return Counter(graph.pairs[side].tolist())


def rare(train):
    return {item for item, count in counts_of(train).items() if 5 <= count <= 12}


def injected_of(case):
    """The injected interactions, after checks of everything that no injection may change."""
    mask = case.request.mask(case.train)
    return case.train.select(mask), case.train.select(~mask)


def check_values(injected, train):
    assert (injected.rating == train.rating.max()).all()
    assert (injected.time == train.time.max()).all()
    assert (injected.rating.dtype, injected.time.dtype) == (train.rating.dtype, train.time.dtype)


@pytest.mark.parametrize(("kind", "attackers"), [("average", 60), ("bandwagon", 20), ("average", 7), ("bandwagon", 1)])
def test_fake_users_promote_their_target(graph, kind, attackers):
    given = {} if attackers in (60, 20) else {"attackers": attackers}
    case = shilling(graph, kind=kind, seed=3, **given)
    train, validation, test = graph.random_split(PARTS, seed=3)
    fake, rest = injected_of(case)
    assert case.name == "shilling"
    assert torch.equal(rest.pairs, train.pairs)
    assert pairs_of(case.validation) == pairs_of(validation)
    assert pairs_of(case.test) == pairs_of(test)
    users = list(case.request.index)
    assert users == list(range(120, 120 + 3 * attackers))
    assert {part.num_users for part in (case.train, case.validation, case.test)} == {120 + 3 * attackers}
    assert {part.num_items for part in (case.train, case.validation, case.test)} == {70}
    targets = case.targets.tolist()
    assert targets == sorted(set(targets))
    assert set(targets) <= rare(train)
    counts = counts_of(train)
    items = {user: [i for u, i in fake.pairs.t().tolist() if u == user] for user in users}
    for number, user in enumerate(users):
        assert len(items[user]) == len(set(items[user])) == 31
        assert targets[number // attackers] in items[user]
        assert all(counts[item] for item in items[user])
    if kind == "bandwagon":
        level = sorted(counts.values())[-51]  # the target may be one of the fifty
        assert all(sum(counts[item] >= level for item in items[user]) >= 10 for user in users)
    check_values(fake, train)
    known = counts_of(train, 0)
    assert case.real.tolist() == [known[user] > 0 for user in range(case.train.num_users)]
    assert str(3 * attackers) in case.notes[0]


def test_fake_users_get_ids_of_their_own(graph):
    case = shilling(graph, attackers=2, targets=1)
    assert case.train.user_ids == [*graph.user_ids, "fake-0", "fake-1"]
    assert case.validation.user_ids == case.test.user_ids == case.train.user_ids
    frame = graph.to_frame()
    frame["user"] = frame["user"].astype(str).replace({"u3": "fake-1"})
    taken = shilling(gu.InteractionGraph.from_frame(frame), attackers=2, targets=1)
    assert taken.train.user_ids[-2:] == ["_fake-0", "_fake-1"]
    numbered = gu.InteractionGraph.from_edges(graph.pairs, 120, 70)
    assert shilling(numbered, attackers=2, targets=1).train.user_ids == [str(number) for number in range(122)]
    assert fresh_ids("x", 3, {"x2", "_x0"}) == ["__x0", "__x1", "__x2"]


def test_everything_else_about_the_graph_stays(graph):
    plain = copy.copy(graph)
    plain["user"].x, plain["item"].x = torch.ones(120, 2), torch.ones(70, 2)
    plain[EDGE_TYPE].weight = torch.ones(graph.num_interactions)
    case = shilling(plain, attackers=2, targets=1)
    assert "x" not in case.train["user"]  # fake users have none
    assert torch.equal(case.train["item"].x, plain["item"].x)
    assert "weight" not in case.train[EDGE_TYPE]
    assert plain["user"].x.shape == (120, 2)
    assert plain.num_users == 120
    assert case.train.validate()
    assert case.train.adjacency.degree[120:122].tolist() == [31, 31]


def test_labels_of_injected_interactions_are_positive(graph):
    for case in (shilling(graph.binarize(3), attackers=2), click_fraud(graph.binarize(3), attackers=3)):
        assert (injected_of(case)[0].label == 1).all()
    bare = gu.InteractionGraph.from_edges(graph.pairs, 120, 70)
    assert shilling(bare, attackers=2).train.rating is None


def test_fillers_of_the_average_attack_follow_popularity():
    counts = torch.tensor([0, 9, *range(1, 33)])
    drawn = _average(counts, 1, 4000, torch.Generator().manual_seed(0))
    assert not ({0, 1} & set(drawn.flatten().tolist()))  # neither unknown items nor the target
    first = torch.bincount(drawn[:, 0], minlength=34)[2:]  # the first draw is by popularity alone
    expected = counts[2:].double() / counts[2:].sum() * 4000
    assert stats.chisquare(first.numpy(), expected.numpy()).pvalue > 1e-3


def test_fillers_of_the_bandwagon_attack_are_popular_and_random():
    counts = torch.cat([torch.arange(100, 0, -1), torch.zeros(3, dtype=torch.long)])
    drawn = _bandwagon(counts, 95, 3000, torch.Generator().manual_seed(0))
    assert drawn[:, :10].unique().tolist() == list(range(50))
    assert drawn.unique().tolist() == [item for item in range(100) if item != 95]
    assert all(len(set(row)) == 30 for row in drawn[:100].tolist())
    popular = torch.bincount(drawn[:, :10].flatten(), minlength=50).numpy()
    rest = torch.bincount(drawn[:, 10:].flatten(), minlength=100)[50:]
    assert stats.chisquare(popular).pvalue > 1e-3
    assert stats.chisquare(rest[torch.arange(50) != 45].numpy()).pvalue > 1e-3
    popular_target = _bandwagon(counts, 4, 200, torch.Generator().manual_seed(0))
    assert popular_target[:, :10].unique().tolist() == [item for item in range(51) if item != 4]


@pytest.mark.parametrize("targets", [1, 3])
def test_fraudulent_clicks_are_of_users_who_lack_the_target(graph, targets):
    case = click_fraud(graph, attackers=40, targets=targets, seed=2)
    train, validation, test = graph.random_split(PARTS, seed=2)
    fraud, rest = injected_of(case)
    assert case.name == "click-fraud"
    assert torch.equal(rest.pairs, train.pairs)
    assert pairs_of(case.validation, case.test) == pairs_of(validation, test)
    assert set(case.targets.tolist()) <= rare(train)
    assert counts_of(fraud) == dict.fromkeys(case.targets.tolist(), 40)
    assert not pairs_of(fraud) & pairs_of(train, validation, test)
    known = counts_of(train, 0)
    assert all(known[user] for user, _ in pairs_of(fraud))
    assert len(pairs_of(fraud)) == len(case.request) == 40 * targets
    assert case.real.tolist() == [known[user] > 0 for user in range(120)]
    check_values(fraud, train)


def test_wrong_interactions_are_with_popular_items(graph):
    case = mislabelled_popular(graph, attackers=60, seed=4)
    train, validation, test = graph.random_split(PARTS, seed=4)
    wrong, rest = injected_of(case)
    assert case.name == "mislabelled-popular"
    assert torch.equal(rest.pairs, train.pairs)
    assert not pairs_of(wrong) & pairs_of(train, validation, test)
    assert sorted(counts_of(wrong, 0).values()) == [5] * 60
    counts = counts_of(train)
    level = sorted(counts.values())[-20]
    assert all(counts[item] >= level for _, item in pairs_of(wrong))
    assert case.targets.tolist() == sorted({item for _, item in pairs_of(wrong)})
    assert len(case.targets) <= 20
    assert all(counts_of(train, 0)[user] for user, _ in pairs_of(wrong))
    check_values(wrong, train)


MAKERS = {
    "shilling": lambda graph, **rest: shilling(graph, **{"attackers": 3} | rest),
    "bandwagon": lambda graph, **rest: shilling(graph, kind="bandwagon", **{"attackers": 3} | rest),
    "fraud": lambda graph, **rest: click_fraud(graph, **{"attackers": 5} | rest),
    "popular": lambda graph, **rest: mislabelled_popular(graph, **{"attackers": 5} | rest),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_injections_are_random_and_repeatable(graph, make):
    one, same, other = (make(graph, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train.pairs, same.train.pairs)
    assert one.request == same.request
    assert pairs_of(injected_of(one)[0]) != pairs_of(injected_of(other)[0])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_test_part_of_ones_own_is_kept(graph, make):
    data, test = graph.random_split([0.8, 0.2], seed=5)
    case = make(data, test=test)
    assert torch.equal(case.test.pairs, test.pairs)
    fake, rest = injected_of(case)
    assert pairs_of(rest, case.validation) == pairs_of(data)
    assert not pairs_of(fake) & pairs_of(data, test)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda g: shilling(g, kind="random"), r"'kind' must be one of average, bandwagon \(got 'random'\)"),
        (lambda g: shilling(g, attackers=0), r"'attackers' must be at least 1 \(got 0\)"),
        (lambda g: shilling(g, targets=0), r"'targets' must be at least 1 \(got 0\)"),
        (lambda g: shilling(g, targets=71), r"'targets' must be at most \d+, the number of items with 5 to 12"),
        (lambda g: click_fraud(g, attackers=0), r"'attackers' must be at least 1 \(got 0\)"),
        (lambda g: click_fraud(g, targets=71), r"'targets' must be at most \d+, the number of items with 5 to 12"),
        (lambda g: click_fraud(g, attackers=118), r"'attackers' must be at most \d+, the number of users who lack"),
        (lambda g: mislabelled_popular(g, attackers=0), r"'attackers' must be at least 1 \(got 0\)"),
        (lambda g: mislabelled_popular(g, attackers=121), r"at most \d+, the number of users who lack 5 of the 20"),
    ],
)
def test_numbers_out_of_range_are_refused(graph, make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(graph)


def test_graphs_without_targets_or_items_are_refused():
    full = gu.InteractionGraph.from_edges(torch.cartesian_prod(torch.arange(40), torch.arange(8)).t())
    for make in (shilling, click_fraud):
        with pytest.raises(
            ValueError, match=r"'graph' must have items with 5 to 12 training interactions \(got none\)"
        ):
            make(full)
    with pytest.raises(ValueError, match=r"'graph' must have users who lack 5 of the 20 most popular .* \(got none\)"):
        mislabelled_popular(full)
    small = gu.InteractionGraph.from_edges(torch.cartesian_prod(torch.arange(10), torch.arange(30)).t())
    with pytest.raises(ValueError, match=r"have at least 31 items with training interactions \(got 30\)"):
        shilling(small)


def test_targets_can_be_every_rare_item_and_no_other():
    counts = torch.tensor([4, 5, 9, 12, 13, 0])
    drawn = {tuple(draw_targets(counts, 2, torch.Generator().manual_seed(seed)).tolist()) for seed in range(60)}
    assert drawn == {(1, 2), (1, 3), (2, 3)}
    check_count("targets", 3, 3, "items")


def test_equal_counts_are_in_random_order():
    counts = torch.tensor([3, 5, 3, 0, 5])
    found = {tuple(popular_first(counts, torch.Generator().manual_seed(seed)).tolist()) for seed in range(60)}
    assert found == {(1, 4, 0, 2), (4, 1, 0, 2), (1, 4, 2, 0), (4, 1, 2, 0)}


def test_users_and_interactions_can_be_added_to_a_graph_without_values():
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), 2, 3)
    (more,) = with_users(graph, count=2)
    more = with_interactions(more, torch.tensor([[3, 2], [2, 2]]))
    assert more.pairs.tolist() == [[0, 1, 3, 2], [1, 0, 2, 2]]
    assert (more.num_users, graph.num_users) == (4, 2)
    assert more.adjacency.degree.tolist() == [1, 1, 1, 1, 1, 1, 2]
