"""Figures of target items, against dense loops."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_pairs import scored
from walks import Recency, walks

import graphunlearn as gu
from graphunlearn.eval import exposure, last_prefixes, session_target_figures, target_figures
from graphunlearn.nn import Encoded, encode_prefixes

ROW = st.lists(st.integers(-2, 2), min_size=2, max_size=2)


def place(scores, own, k):
    """Mean rank among ties, and the probability of a place among the best ``k``."""
    above, equal = sum(s > own for s in scores), sum(s == own for s in scores)
    return 1 + above + (equal - 1) / 2, min(1.0, max(0.0, (k - above) / equal))


def summary(probability, places, k):
    ranks, shown = zip(*places)
    figures = (statistics.fmean(probability), statistics.median(ranks), statistics.fmean(shown))
    return dict(zip(("probability", "median_rank", f"exposure@{k}"), figures))


@given(scored(), st.integers(1, 9), st.integers(1, 4), st.randoms(use_true_random=False), st.booleans())
def test_figures_match_a_double_loop(case, k, batch_size, random, as_mask):
    graph, encoded, _ = case
    targets = random.sample(range(graph.num_items), random.randint(1, graph.num_items))
    real = sorted(random.sample(range(graph.num_users), random.randint(0, graph.num_users)))
    seen = {tuple(pair) for pair in graph.pairs.t().tolist()}
    pairs = [(user, item) for user in real for item in targets if (user, item) not in seen]
    scores = (encoded.queries @ encoded.items.t()).tolist()
    unseen = {user: [s for i, s in enumerate(scores[user]) if (user, i) not in seen] for user in real}
    mask = torch.tensor([user in real for user in range(graph.num_users)])
    given_real = mask if as_mask else mask.nonzero().flatten()
    found = target_figures(encoded, graph, torch.tensor(targets), given_real, k, batch_size)
    if not pairs:
        assert list(found) == ["probability", "median_rank", f"exposure@{k}"]
        assert all(math.isnan(value) for value in found.values())
        return
    probability = [1 / (1 + math.exp(-scores[user][item])) for user, item in pairs]
    assert found == pytest.approx(summary(probability, [place(unseen[u], scores[u][i], k) for u, i in pairs], k))
    index = torch.tensor(pairs).t()
    assert found[f"exposure@{k}"] == pytest.approx(exposure(encoded, graph, index, k))


@given(scored(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_pairs_that_were_forgotten_or_held_out_are_not_measured(case, k, random):
    """Neither an injected click nor a click to come tells how the target is recommended to people without it."""
    graph, encoded, _ = case
    pairs = graph.pairs.t().tolist()
    cut = [pair for pair in pairs if random.random() < 0.5]
    kept, other = (
        gu.InteractionGraph.from_edges(torch.tensor(part).view(-1, 2).t(), graph.num_users, graph.num_items)
        for part in ([pair for pair in pairs if pair not in cut], cut)
    )
    seen, kept_pairs = ({tuple(p) for p in part.pairs.t().tolist()} for part in (graph, kept))
    scores = (encoded.queries @ encoded.items.t()).tolist()
    asked = [(u, i) for u in range(graph.num_users) for i in range(graph.num_items) if (u, i) not in seen]
    found = target_figures(encoded, kept, torch.arange(graph.num_items), k=k, batch_size=2, known=[other])
    if not asked:
        assert all(math.isnan(value) for value in found.values())
        return
    probability = [1 / (1 + math.exp(-scores[u][i])) for u, i in asked]
    unseen = [[s for j, s in enumerate(row) if (u, j) not in kept_pairs] for u, row in enumerate(scores)]
    assert found == pytest.approx(summary(probability, [place(unseen[u], scores[u][i], k) for u, i in asked], k))


def test_all_users_are_real_by_default():
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 1]]), 3, 25)
    encoded = Encoded(torch.randn(3, 4), torch.randn(25, 4))
    targets = torch.tensor([1, 4])
    assert target_figures(encoded, graph, targets) == target_figures(encoded, graph, targets, torch.arange(3))
    assert "exposure@20" in target_figures(encoded, graph, targets)
    for figures in (target_figures(encoded, graph, targets[:0]), session_target_figures(encoded, targets[:0])):
        assert all(math.isnan(value) for value in figures.values())


@given(
    st.lists(ROW, min_size=0, max_size=6),
    st.lists(ROW, min_size=1, max_size=7),
    st.integers(1, 9),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_figures_of_sessions_match_a_double_loop(queries, items, k, batch_size, random):
    targets = random.sample(range(len(items)), random.randint(1, len(items)))
    encoded = Encoded(torch.tensor(queries).view(-1, 2).double(), torch.tensor(items).double())
    found = session_target_figures(encoded, torch.tensor(targets), k, batch_size)
    if not queries:
        assert all(math.isnan(value) for value in found.values())
        return
    scores = (encoded.queries @ encoded.items.t()).tolist()
    probability = [math.exp(row[item]) / sum(map(math.exp, row)) for row in scores for item in targets]
    assert found == pytest.approx(summary(probability, [place(row, row[i], k) for row in scores for i in targets], k))


def test_last_prefixes_are_all_clicks_but_the_last_one():
    graph = walks(num_sessions=40, num_items=9)
    sessions = [part.tolist() for part in graph.items.split(graph.length.tolist())]
    real = torch.arange(40) % 3 > 0
    ends = last_prefixes(graph, real)
    prefixes = graph.prefixes(ends)
    expected = [items for items, kept in zip(sessions, real.tolist()) if kept and len(items) > 1]
    assert [part.tolist() for part in prefixes.items.split(prefixes.length.tolist())] == [i[:-1] for i in expected]
    assert prefixes.target.tolist() == [items[-1] for items in expected]
    assert torch.equal(ends, last_prefixes(graph, real.nonzero().flatten()))
    few = last_prefixes(graph, most=7, seed=1)
    assert len(few) == 7
    assert set(few.tolist()) < set(last_prefixes(graph).tolist())
    assert torch.equal(few, last_prefixes(graph, most=7, seed=1))
    assert not torch.equal(few, last_prefixes(graph, most=7, seed=2))
    model, targets = Recency(9), [2, 5]
    found = session_target_figures(encode_prefixes(model, graph, ends), torch.tensor(targets), k=3)
    rows = [model.scores(items[:-1]).tolist() for items in expected]
    probability = [math.exp(row[item]) / sum(map(math.exp, row)) for row in rows for item in targets]
    assert found == pytest.approx(summary(probability, [place(row, row[i], 3) for row in rows for i in targets], 3))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, r"'k' must be at least 1 \(got 0\)"),
        ({"batch_size": 0}, r"'batch_size' must be at least 1 \(got 0\)"),
        ({"targets": torch.tensor([0, 3])}, r"'targets' must lie between 0 and 2 \(got 0 to 3\)"),
        (
            {"items": torch.full((3, 2), torch.nan)},
            "'encoded' must be finite to be ranked",
        ),
    ],
)
def test_bad_arguments_are_refused(options, sentence):
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0], [0]]), 1, 3)
    encoded = Encoded(torch.ones(1, 2), options.pop("items", torch.ones(3, 2)))
    targets = options.pop("targets", torch.tensor([1]))
    for figures in (
        lambda: target_figures(encoded, graph, targets, **options),
        lambda: session_target_figures(encoded, targets, **options),
    ):
        with pytest.raises(ValueError, match=sentence):
            figures()


def test_users_and_prefixes_must_be_there():
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0], [0]]), 1, 3)
    encoded = Encoded(torch.ones(1, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="'index' must be a mask of 1 users"):
        target_figures(encoded, graph, torch.tensor([1]), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'most' must be at least 1 \(got 0\)"):
        last_prefixes(walks(num_sessions=4), most=0)
