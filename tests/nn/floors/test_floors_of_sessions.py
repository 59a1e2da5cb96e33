"""Popularity, Markov and session-kNN against naive loops."""

import math
from itertools import pairwise

import pytest
import torch
from session_toys import random_sessions, session_graph

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.metrics.next_item import next_item_metrics, score_ranks
from graphunlearn.nn import CrossEntropy
from graphunlearn.nn.floors import (
    EASE,
    ItemKNN,
    Markov,
    Popularity,
    SessionKNN,
    default_floors,
    measure_floor,
    measuring,
    neighbours,
)

ITEMS = 20


@pytest.fixture(scope="module")
def graphs():
    return tuple(session_graph(random_sessions(count, ITEMS, seed=seed), ITEMS) for count, seed in ((80, 0), (25, 1)))


def lists(graph):
    ptr = graph.click_ptr.tolist()
    return [graph.items[a:b].tolist() for a, b in pairwise(ptr)]


def prefixes(graph):
    return [row[:n] for row in lists(graph) for n in range(1, len(row))]


def ends(graph):
    return CrossEntropy().samples(graph).ends


def ties(train):
    counts = torch.bincount(train.items, minlength=ITEMS).double()
    return 1e-4 * counts / (counts.max() + 1)


def test_popularity_counts_clicks(graphs):
    train, test = graphs
    found = Popularity().fit(train).scores(test, ends(test)[:3])
    assert torch.equal(found.long(), torch.bincount(train.items, minlength=ITEMS).repeat(3, 1))


def test_markov_counts_transitions(graphs):
    train, test = graphs
    wanted = ties(train).repeat(len(ends(test)), 1)
    for row, prefix in zip(wanted, prefixes(test)):
        for session in lists(train):
            for last, following in pairwise(session):
                row[following] += last == prefix[-1]
    torch.testing.assert_close(Markov().fit(train).scores(test, ends(test)).double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(("k", "sample"), [(1, 5), (4, 10), (100, 1000)])
def test_session_knn_is_the_naive_loop(graphs, timed, k, sample, monkeypatch):
    monkeypatch.setattr(neighbours, "PART", 7)
    train, test = graphs
    if timed:  # the later sessions are somewhere in the middle
        end = torch.randperm(train.num_sessions, generator=torch.Generator().manual_seed(3))
        train = SessionGraph.from_sequences(train.items, train.click_ptr, num_items=ITEMS, time=end[train.session])
        order = end.argsort(descending=True).tolist()
    else:
        order = list(range(train.num_sessions))[::-1]
    sessions = [set(lists(train)[s]) for s in order]
    wanted = 1e-5 * ties(train).repeat(len(ends(test)), 1)
    for row, prefix in zip(wanted, prefixes(test)):
        asked = set(prefix)
        candidates = [(n, s) for n, s in enumerate(sessions) if s & asked][:sample]
        alike = {n: len(s & asked) / math.sqrt(len(s) * len(asked)) for n, s in candidates}
        for n in sorted(alike, key=lambda n: (-round(alike[n], 6), n))[:k]:
            for item in sessions[n]:
                row[item] += alike[n]
    found = SessionKNN(k=k, sample=sample).fit(train).scores(test, ends(test))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


def test_a_small_difference_counts_more_than_the_order_of_sessions():
    # the last 3,000 sessions have similarity 1 / sqrt(1001 * 1002), the first one 1 / sqrt(1001 * 1001)
    long = list(range(1, 1001))
    rows = [[0, *long]] + [[0, *range(2000, 3001)]] * 3000
    train = session_graph(rows, 3100)
    query = session_graph([[0, *range(3001, 3100), 3099]], 3100)
    floor = SessionKNN(k=1, sample=5000).fit(train)
    scores = floor.scores(query, torch.tensor([100]))
    assert float(scores[0, 5]) == pytest.approx(1 / math.sqrt(1001 * 100), rel=1e-6)
    assert float(scores[0, 2500]) < 1e-6


def test_floors_that_are_not_fitted_say_so():
    graph = session_graph([[0, 1]], 2)
    users = InteractionGraph.from_edges(torch.tensor([[0], [0]]))
    for floor in (Popularity(), Markov(), SessionKNN()):
        with pytest.raises(
            ValueError, match=r"'floor' must be fitted first \(got .* without a graph\); call its method"
        ):
            floor.scores(graph, torch.tensor([0]))
    for floor in (Popularity(), ItemKNN(), EASE()):
        with pytest.raises(ValueError, match="'floor' must be fitted first"):
            floor.scores(users, torch.tensor([0]))
    for use in (lambda: EASE().forget(ForgetRequest("user", [0])), lambda: EASE().weights, EASE().residual):
        with pytest.raises(ValueError, match="'floor' must be fitted first"):
            use()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SessionKNN(k=1.5), r"'k' must be a whole number \(got 1.5\)"),
        (lambda: SessionKNN(sample="9"), r"'sample' must be a whole number \(got '9'\)"),
        (lambda: ItemKNN(k=True), r"'k' must be a whole number \(got True\)"),
        (lambda: ItemKNN(shrink=math.nan), r"'shrink' must be finite and not negative \(got nan\)"),
        (lambda: ItemKNN(shrink=math.inf), r"'shrink' must be finite and not negative \(got inf\)"),
        (lambda: EASE(l2=math.inf), r"'l2' must be positive and finite \(got inf\)"),
        (lambda: EASE(l2="2"), r"'l2' must be positive and finite \(got '2'\)"),
        (lambda: EASE(max_gib=0), r"'max_gib' must be positive \(got 0\)"),
    ],
)
def test_settings_that_are_no_such_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("floor", default_floors("sessions"), ids=lambda floor: floor.name)
def test_floors_are_ranked_as_models_are(graphs, floor, monkeypatch):
    monkeypatch.setattr(measuring, "BATCH", 16)
    train, test = graphs
    samples = CrossEntropy().samples(test)
    scores = floor.fit(train).scores(test, samples.ends)
    ranks = []
    for row, target in zip(scores.tolist(), samples.target.tolist()):
        ranks.append(1 + sum(x > row[target] for x in row) + (sum(x == row[target] for x in row) - 1) / 2)
    wanted = next_item_metrics(torch.tensor(ranks), ks=(5,))
    assert measure_floor(floor, train, test, ks=(5,)) == pytest.approx(wanted, abs=0.03)  # sums of other batches
    if floor.name != "session-knn":  # whole numbers, the same in every batch
        assert measure_floor(floor, train, test, ks=(5,)) == pytest.approx(wanted, abs=1e-12)


def test_graphs_of_the_other_kind_and_scores_that_are_no_numbers_are_refused(graphs):
    train, _ = graphs
    users = InteractionGraph.from_edges(torch.tensor([[0], [0]]))
    for floor, graph in ((EASE(), train), (Markov(), users), (SessionKNN(), users)):
        with pytest.raises(ValueError, match="'graph' must be a graph of"):
            floor.fit(graph)
    with pytest.raises(ValueError, match="'sample' must be at least 1"):
        SessionKNN(sample=0)
    with pytest.raises(ValueError, match="'scores' must return finite scores"):
        score_ranks(lambda part: torch.full((2, 3), math.nan), torch.tensor([0, 1]))
