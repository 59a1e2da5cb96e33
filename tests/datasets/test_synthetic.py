"""The synthetic set has the shape of real ones, and taste in it that can be learnt."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import auroc

from graphunlearn.data import InteractionGraph
from graphunlearn.datasets import synthetic, synthetic_interactions

SAMPLE = Path(__file__).parents[2] / "datasets" / "synthetic-sample.csv"


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions()


def counts(graph):
    return (
        torch.bincount(graph.pairs[0], minlength=graph.num_users),
        torch.bincount(graph.pairs[1], minlength=graph.num_items),
    )


def gini(values):
    values, n = values.sort().values.double(), values.numel()
    return float((2.0 * torch.arange(1, n + 1) - n - 1).double() @ values / (n * values.sum()))


def spectrum(graph, first, last):
    """The table of pairs, normalised by both degrees and cut down to some of its leading directions."""
    table = torch.zeros(graph.num_users, graph.num_items)
    table[graph.pairs[0], graph.pairs[1]] = 1
    by_user, by_item = (count.clamp(min=1).float().sqrt() for count in counts(graph))
    table = table / by_user[:, None] / by_item
    directions = torch.linalg.svd(table, full_matrices=False).Vh[first:last]
    return table @ directions.T @ directions, by_item


def recall_of_taste(train, test):
    table, by_item = spectrum(train, 0, 12)
    return recall_at_20(table * by_item, train, test)


def recall_of_popularity(train, test):
    return recall_at_20(counts(train)[1].float().expand(train.num_users, -1), train, test)


def recall_at_20(scores, train, test):
    scores = scores.clone()
    scores[train.pairs[0], train.pairs[1]] = -torch.inf
    relevant = torch.zeros_like(scores)
    relevant[test.pairs[0], test.pairs[1]] = 1
    hits = relevant.gather(1, scores.topk(20).indices).sum(1)
    judged = relevant.sum(1) > 0
    return float((hits[judged] / relevant.sum(1)[judged]).mean())


def test_defaults_have_the_shape_of_real_data(graph):
    by_user, by_item = counts(graph)
    assert (graph.num_users, graph.num_items) == (1000, 600)
    assert graph.num_interactions == pytest.approx(40_000, rel=0.05)
    assert by_user.min() >= 5
    assert 0.3 < gini(by_user) < 0.6  # MovieLens 100K: .47
    assert 0.4 < gini(by_item) < 0.7  # MovieLens 100K: .63
    assert by_user.double().mean() > 1.2 * by_user.median()  # a few very active users
    assert by_item.max() > 10 * by_item.median()


def test_ratings_and_times_are_in_range(graph):
    assert set(graph.rating.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert 0.45 < (graph.rating > 3).float().mean() < 0.65
    assert graph.time.dtype == torch.long
    assert graph.time.equal(graph.time.sort().values)
    assert 300 * 24 * 3600 < graph.time[-1] - graph.time[0] <= 365 * 24 * 3600


def test_pairs_are_distinct_and_ids_are_names(graph):
    code = graph.pairs[0] * graph.num_items + graph.pairs[1]
    assert code.unique().numel() == graph.num_interactions
    assert graph.user_ids[17] == "u17"
    assert graph.item_ids[203] == "i203"


def test_popularity_does_not_follow_the_numbering(graph):
    _, by_item = counts(graph)
    ranks = torch.stack([by_item.argsort().argsort().double(), torch.arange(graph.num_items).double()])
    assert abs(float(torch.corrcoef(ranks)[0, 1])) < 0.15


def test_taste_can_be_learnt_from_the_pairs(graph):
    train, test = graph.random_split([0.8, 0.2], seed=0)
    popular = recall_of_popularity(train, test)
    assert popular < 0.35
    assert recall_of_taste(train, test) > 1.3 * popular


def test_without_taste_nothing_beats_popularity():
    train, test = synthetic_interactions(taste=0).random_split([0.8, 0.2], seed=0)
    assert recall_of_taste(train, test) < 1.05 * recall_of_popularity(train, test)


def test_ratings_can_be_predicted_from_means_and_better_from_taste(graph):
    train, test = graph.random_split([0.8, 0.2], seed=0)
    good, liked = (train.rating > 3).float(), (test.rating > 3).long()
    means = torch.zeros(test.num_interactions)
    for side, other, count in zip(train.pairs, test.pairs, counts(train)):
        means += (torch.zeros(count.numel()).index_add_(0, side, good - good.mean()) / (count + 5))[other]
    by_means = float(auroc(means, liked, task="binary"))
    assert 0.70 < by_means < 0.80

    taste = spectrum(train, 1, 9)[0][test.pairs[0], test.pairs[1]]  # the first direction is popularity
    assert float(auroc(taste, liked, task="binary")) > 0.70
    assert float(auroc(means + 0.1 * taste / taste.std(), liked, task="binary")) > by_means + 0.03


def test_the_same_seed_gives_the_same_graph():
    first, again, other = (synthetic_interactions(100, 60, 12, seed=seed) for seed in (1, 1, 2))
    assert first.pairs.equal(again.pairs)
    assert first.rating.equal(again.rating)
    assert first.time.equal(again.time)
    assert first.num_interactions != other.num_interactions or not first.pairs.equal(other.pairs)


def test_seeds_of_others_are_left_alone():
    state = torch.get_rng_state()
    synthetic_interactions(50, 30, 5)
    assert torch.get_rng_state().equal(state)


@settings(max_examples=25)
@given(
    num_users=st.integers(1, 40),
    num_items=st.integers(1, 40),
    share=st.floats(0, 1),
    exponent=st.floats(0, 3),
    spread=st.floats(0, 2),
    taste=st.floats(0, 10),
    seed=st.integers(0, 2**32),
)
def test_any_size_works(num_users, num_items, share, exponent, spread, taste, seed):
    graph = synthetic_interactions(
        num_users,
        num_items,
        1 + share * (num_items - 1),
        popularity_exponent=exponent,
        activity_spread=spread,
        taste=taste,
        seed=seed,
    )
    by_user, _ = counts(graph)
    assert (graph.num_users, graph.num_items) == (num_users, num_items)
    assert 1 <= by_user.min() <= by_user.max() <= num_items
    assert graph.rating.min() >= 1 and graph.rating.max() <= 5
    assert graph.validate()


def test_many_batches_are_as_good_as_one(monkeypatch):
    monkeypatch.setattr(synthetic, "_BATCH", 2000)
    graph = synthetic_interactions(300, 100, 10)
    by_user, by_item = counts(graph)
    assert graph.num_interactions == pytest.approx(3000, rel=0.1)
    assert by_user.min() >= 5
    assert by_item.max() > 5 * by_item.median()


def test_top_per_user_is_that_of_a_loop():
    user = torch.tensor([0, 0, 0, 2, 2, 3])
    key = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.4, 0.0])
    count = torch.tensor([2, 9, 1, 5])
    expected = [1, 2, 4, 5]
    assert synthetic._top_per_user(user, key, count).tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, r"'num_users' must be a positive integer \(got 0\)"),
        ({"num_users": 10.0}, r"'num_users' must be a positive integer \(got 10.0\)"),
        ({"num_items": -1}, r"'num_items' must be a positive integer \(got -1\)"),
        ({"latent_dim": 0}, r"'latent_dim' must be a positive integer \(got 0\)"),
        ({"interactions_per_user": 601}, r"between 1 and the number of items, 600 \(got 601\)"),
        ({"interactions_per_user": 0}, r"between 1 and the number of items, 600 \(got 0\)"),
        ({"popularity_exponent": -1}, r"'popularity_exponent' must be a finite number of at least 0 \(got -1\)"),
        ({"taste": float("nan")}, r"'taste' must be a finite number of at least 0 \(got nan\)"),
        ({"activity_spread": float("inf")}, r"'activity_spread' must be a finite number of at least 0 \(got inf\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic_interactions(**arguments)


def test_the_sample_in_the_repository_is_what_its_command_writes():
    graph = synthetic_interactions(num_users=30, num_items=20, interactions_per_user=8)
    assert graph.to_frame().to_csv(index=False) == SAMPLE.read_text()
    assert SAMPLE.stat().st_size < 10_000
    read = InteractionGraph.from_file(SAMPLE)
    assert read.num_interactions == graph.num_interactions
    assert read.rating.equal(graph.rating.to(read.rating.dtype))
