"""What an audit of sessions measures, against loops over sessions and clicks."""

import json
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F
from walks import Recency, as_lists, walks

import graphunlearn as gu
from graphunlearn.cli.train import _utility
from graphunlearn.eval import u_score
from graphunlearn.eval.session_measure import SessionJudge, candidates, ranks_among
from graphunlearn.nn import build_model

ITEMS = 30


@pytest.fixture(scope="module")
def graph():
    return walks(num_items=ITEMS)


@pytest.fixture(scope="module")
def test():
    return walks(num_sessions=40, num_items=ITEMS, seed=1)


def chosen(graph, level):
    """A request of every level, and the clicks it takes by session and position."""
    lists = as_lists(graph)
    if level == "click":
        clicks = [(n, len(items) - 1 - n % 2) for n, items in enumerate(lists) if len(items) > 3 and n % 3 == 0]
        return gu.ForgetRequest.internal("click", torch.tensor(clicks).t()), set(clicks)
    if level == "session":
        taken = list(range(0, len(lists), 7))
        gone = {(n, t) for n in taken for t in range(len(lists[n]))}
        return gu.ForgetRequest.internal("session", torch.tensor(taken)), gone
    gone = {(n, t) for n, items in enumerate(lists) for t, item in enumerate(items) if item in (3, 17)}
    return gu.ForgetRequest.internal("item", torch.tensor([3, 17])), gone


@pytest.fixture(scope="module", params=["click", "session", "item"])
def case(request, graph, test):
    asked, gone = chosen(graph, request.param)
    return SessionJudge(graph, asked, None, test), gone, request.param


def log_p(model, prefix, target):
    return -F.cross_entropy(model.scores(prefix)[None], torch.tensor([target])).item()


def rank(scores, target, among=None):
    """1 for the best; ties share the mean."""
    among = [item for item in (range(len(scores)) if among is None else among) if item != target]
    own = scores[target].item()
    above = sum(scores[item].item() > own for item in among)
    return 1 + above + sum(scores[item].item() == own for item in among) / 2


def test_forgotten_clicks_against_a_loop(graph, case):
    judge, gone, _ = case
    model = Recency(ITEMS)
    measured = judge.measure(model, graph)
    lists = as_lists(graph)
    asked = [(lists[n][:t], lists[n][t]) for n, t in sorted(gone) if t > 0]
    expected = torch.tensor([log_p(model, *one) for one in asked], dtype=torch.double)
    torch.testing.assert_close(measured["forget"], expected)
    found = measured["forgetting"]
    assert found["log_p_forgotten"] == pytest.approx(float(expected.mean()))
    ranks = [rank(model.scores(prefix), target) for prefix, target in asked]
    assert found["rank_forgotten"] == pytest.approx(statistics.fmean(math.log2(r) for r in ranks))
    after = [
        log_p(model, items[: t + 1], items[t + 1])
        for n, items in enumerate(lists)
        for t in range(len(items) - 1)
        if (n, t) in gone and (n, t + 1) not in gone
    ]
    if after:
        assert found["log_p_deleted_transition"] == pytest.approx(statistics.fmean(after))
    else:
        assert math.isnan(found["log_p_deleted_transition"])  # whole sessions: nothing is kept after them
    assert judge.left_out["forgotten clicks that start their session, and follow nothing"] == sum(
        t == 0 for _, t in gone
    )


def test_hits_among_random_items_against_a_loop(graph, case):
    judge, gone, _ = case
    model, lists = Recency(ITEMS, seed=1), as_lists(graph)
    asked = [(lists[n][:t], lists[n][t]) for n, t in sorted(gone) if t > 0]
    found = judge.measure(model, graph)["forgetting"]
    ranks = []
    for (prefix, target), rivals in zip(asked, judge.rivals.tolist()):
        rivals = [item for item in rivals if item >= 0]
        assert sorted(rivals) == sorted(set(range(ITEMS)) - {*prefix, target})  # fewer than 500: all there are
        ranks.append(rank(model.scores(prefix), target, rivals))
    for k in (1, 5, 10, 20):
        assert found[f"hit_u@{k}"] == pytest.approx(statistics.fmean(r <= k for r in ranks))


def test_every_prefix_of_the_test_sessions_is_ranked(graph, test, case):
    judge, _, level = case
    model = Recency(ITEMS, seed=2)
    measured = judge.measure(model, graph)
    emptied = {3, 17} if level == "item" else set()
    sessions = [[item for item in items if item not in emptied] for items in as_lists(test)]
    asked = [(items[:t], items[t]) for items in sessions for t in range(1, len(items))]
    ranks = [rank(model.scores(prefix), target) for prefix, target in asked]
    expected = {}
    for k in (20, 10, 5):
        hits = [r <= k for r in ranks]
        expected[f"recall@{k}"] = statistics.fmean(hits)
        expected[f"mrr@{k}"] = statistics.fmean(h / r for h, r in zip(hits, ranks))
        expected[f"ndcg@{k}"] = statistics.fmean(h / math.log2(1 + r) for h, r in zip(hits, ranks))
    assert measured["utility"] == pytest.approx(expected)
    assert list(measured["utility"])[:2] == ["recall@20", "mrr@20"]  # what reports show first
    torch.testing.assert_close(
        measured["test"], torch.tensor([log_p(model, *one) for one in asked], dtype=torch.double)
    )
    left = judge.left_out["test clicks of items forgotten everywhere"]
    assert left == sum(item in emptied for items in as_lists(test) for item in items)
    assert (left > 0) == (level == "item")


def test_unseen_items_and_validation_are_counted():
    graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 3], [1, 0]], num_items=6)
    held = gu.SessionGraph.from_sequences([[0, 3, 5, 1], [4, 3], [3]], num_items=6)
    judge = SessionJudge(graph, gu.ForgetRequest.internal("item", torch.tensor([3])), held, held)
    assert list(judge.left_out.values()) == [2, 3, 0, 3, 0, 0]
    assert as_lists(judge.test)[0] == [0, 1]  # neighbours join
    assert judge.next.numel() == 1


def test_sessions_of_forgotten_users_are_left_out_and_counted():
    graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 3], [1, 0]], num_items=5, user=torch.tensor([0, 1, 0]))
    held = gu.SessionGraph.from_sequences(
        [[0, 3, 1], [1, 2, 3, 4], [2, 0]], num_items=5, user=torch.tensor([0, 1, -1]), user_ids=["1", "0"]
    )  # whose users are numbered the other way round
    judge = SessionJudge(graph, gu.ForgetRequest("user", ["1"]), held, held)
    left = {name.removesuffix(" clicks of users forgotten entirely"): n for name, n in judge.left_out.items()}
    assert as_lists(judge.test) == [[1, 2], [2, 0]]  # nothing else held item 3, nothing at all item 4
    assert (left["test"], left["validation"]) == (2, 2)
    assert judge.left_out["validation clicks of items forgotten everywhere"] == 2
    kept = SessionJudge(graph, gu.ForgetRequest("session", ["0"]), held, held)
    assert as_lists(kept.test) == [[0, 3, 1], [1, 2, 3], [2, 0]]  # the user has another one


def test_the_original_on_all_test_sessions_is_what_train_measures(graph, test):
    """Clicks on an item that is forgotten everywhere count for the original, which was trained on it."""
    request, _ = chosen(graph, "item")
    model = build_model("gru4rec", graph, 8).eval()
    measured = SessionJudge(graph, request, None, test).measure(model, graph)
    wanted = _utility(model, graph, test)
    assert {name: measured["own"][name] for name in wanted} == pytest.approx(wanted)
    assert measured["utility"]["recall@20"] != pytest.approx(wanted["recall@20"])
    assert "own" not in SessionJudge(graph, request, None, test).measure(model, graph, measured)


def test_targets_are_measured_after_sessions_that_remain(graph, test):
    asked, gone = chosen(graph, "session")
    judge = SessionJudge(graph, asked, None, test, targets=torch.tensor([1]))
    assert not {int(n) for n in graph.session[judge.prefixes]} & {n for n, _ in gone}
    assert torch.equal(judge.prefixes, judge.attacks.prefixes)


def test_nothing_to_ask_gives_nan_and_not_an_error():
    graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 3], [1, 0]], num_items=4)
    nothing = gu.SessionGraph.from_sequences([[0], [1]], num_items=4)
    judge = SessionJudge(graph, gu.ForgetRequest.internal("click", torch.tensor([[1], [0]])), None, nothing)
    measured = judge.measure(Recency(4), graph)
    assert all(math.isnan(value) for value in measured["utility"].values())
    assert math.isnan(measured["forgetting"]["hit_u@10"])
    assert not math.isnan(measured["forgetting"]["log_p_deleted_transition"])


def test_comparisons_leave_a_retrained_model_out_of_its_own_ensemble(graph, test):
    asked, _ = chosen(graph, "click")
    judge = SessionJudge(graph, asked, None, test)
    original, method, *retrained = (judge.measure(Recency(ITEMS, seed=seed), graph) for seed in range(5))
    for m in (original, method, *retrained):
        m["original"] = original
    judge.compare([original, method], retrained)
    for m, others in ((method, retrained), (retrained[0], retrained[1:])):
        hits = statistics.fmean(o["forgetting"]["hit_u@10"] for o in others)
        before = original["forgetting"]["hit_u@10"]
        gap = (before - m["forgetting"]["hit_u@10"]) / (before - hits)
        recall = statistics.fmean(o["utility"]["recall@20"] for o in others)
        kept, close = min(1, m["utility"]["recall@20"] / recall), max(0, 1 - abs(1 - gap))
        harmonic = 0 if kept == close == 0 else statistics.harmonic_mean([kept, close])
        assert m["forgetting"]["u_score"] == pytest.approx(harmonic)
        ks = [stats.ks_2samp(m["forget"], o["forget"]).statistic for o in others]
        assert m["forgetting"]["ks_statistic"] == pytest.approx(statistics.fmean(ks))
    assert original["forgetting"]["u_score"] == 0.0
    judge.compare([original], retrained[:1])
    assert retrained[0]["forgetting"]["u_score"] is None  # nobody else to be held against
    for m in retrained:
        m["original"] = retrained[0]
    judge.compare([], [retrained[0], retrained[0]])
    assert retrained[0]["forgetting"]["u_score"] is None  # no gap
    assert json.dumps(retrained[0]["forgetting"])


@pytest.mark.parametrize(
    ("arguments", "score"),
    [
        ((0.4, 0.5, 1.0), 8 / 9),
        ((0.9, 0.5, 1.0), 1.0),
        ((0.5, 0.5, 2.5), 0.0),
        ((0.0, 0.5, 0.0), 0.0),
        ((1, 0, 1), None),
    ],
)
def test_u_score(arguments, score):
    assert u_score(*arguments) == (score if score is None else pytest.approx(score))


SESSIONS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=8)


@given(SESSIONS, st.integers(1, 12), st.integers(1, 4))
def test_candidates_are_distinct_known_and_new_to_the_prefix(sessions, count, batch_size):
    graph = gu.SessionGraph.from_sequences(sessions, num_items=12)
    known = {item for session in sessions for item in session}
    drawn = candidates(graph, torch.arange(graph.num_clicks), count, batch_size=batch_size)
    prefixes = [session[: t + 1] for session in sessions for t in range(len(session))]
    for prefix, row in zip(prefixes, drawn.tolist()):
        found = [item for item in row if item >= 0]
        assert len(found) == len(set(found)) == min(count, len(known - set(prefix)))
        assert set(found) <= known - set(prefix)
    again = candidates(graph, torch.arange(graph.num_clicks), count, batch_size=graph.num_clicks)
    assert torch.equal(drawn, again)  # batches make no difference


def test_candidates_are_uniform():
    graph = gu.SessionGraph.from_sequences([[0, 1], *([item] for item in range(2, 12))])
    drawn = candidates(graph, torch.tensor([1]).repeat(4000), 3)
    count = torch.bincount(drawn.flatten(), minlength=12)
    assert count[:2].tolist() == [0, 0]
    assert stats.chisquare(count[2:].numpy()).pvalue > 1e-3
    assert not torch.equal(drawn, candidates(graph, torch.tensor([1]).repeat(4000), 3, seed=1))


def test_ties_share_the_mean_rank():
    items = torch.tensor([[2.0], [2.0], [2.0], [1.0]])
    rivals = torch.tensor([[1, 2, 3], [0, 1, -1]])
    assert ranks_among(torch.ones(2, 1), items, torch.tensor([0, 3]), rivals, batch_size=1).tolist() == [2.0, 3.0]
