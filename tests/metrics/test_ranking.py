import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.metrics.ranking import KNOWN, METRICS, Ranker, auroc, rank_metrics


def graph(pairs: list[tuple[int, int]], num_users: int, num_items: int, **attributes: Tensor) -> InteractionGraph:
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()
    return InteractionGraph.from_edges(index, num_users, num_items, **attributes)


def naive(users: Tensor, items: Tensor, seen: InteractionGraph, test: InteractionGraph, k: int) -> dict[str, float]:
    """Rank one user at a time in plain Python."""
    known = {tuple(pair) for pair in seen.pairs.t().tolist()}
    labels = [1] * test.num_interactions if test.label is None else test.label.tolist()
    wanted = {tuple(pair) for pair, y in zip(test.pairs.t().tolist(), labels) if y == 1} - known
    sums = dict.fromkeys(KNOWN, 0.0)
    everyone = sorted({u for u, _ in wanted})
    for u in everyone:
        candidates = [i for i in range(test.num_items) if (u, i) not in known]
        scores = {i: sum(a * b for a, b in zip(users[u].tolist(), items[i].tolist())) for i in candidates}
        best = sorted(candidates, key=lambda i: -scores[i])[:k]
        positives = {i for v, i in wanted if v == u}
        ranks = [r for r, i in enumerate(best, 1) if i in positives]
        sums["recall"] += len(ranks) / len(positives)
        ideal = sum(1 / math.log2(j + 1) for j in range(1, min(k, len(positives)) + 1))
        sums["ndcg"] += sum(1 / math.log2(r + 1) for r in ranks) / ideal
        full = sum(1 / math.log2(j + 1) for j in range(1, len(positives) + 1))
        sums["ndcg_full"] += sum(1 / math.log2(r + 1) for r in ranks) / full
        sums["mrr"] += 1 / ranks[0] if ranks else 0
        sums["hit_rate"] += bool(ranks)
    return {f"{name}@{k}": total / len(everyone) if everyone else math.nan for name, total in sums.items()}


@st.composite
def cases(draw):
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    seen = graph(draw(st.lists(pair, max_size=15, unique=True)), num_users, num_items)
    test = draw(st.lists(pair, max_size=15, unique=True))
    label = draw(st.none() | st.lists(st.integers(0, 1), min_size=len(test), max_size=len(test)))
    labels = {} if label is None else {"label": torch.tensor(label, dtype=torch.float32)}
    test = graph(test, num_users, num_items, **labels)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    # continuous scores: no ties, whose order is nobody's to say
    users = torch.randn(num_users, 3, generator=generator, dtype=torch.float64)
    items = torch.randn(num_items, 3, generator=generator, dtype=torch.float64)
    return users, items, seen, test, draw(st.integers(1, 12)), draw(st.integers(1, 7))


@given(cases())
@settings(deadline=None, max_examples=150)
def test_every_metric_matches_naive_loops(case):
    users, items, seen, test, k, batch_size = case
    result = Ranker(seen, test, ks=(k,), metrics=KNOWN, batch_size=batch_size)(users, items)
    assert Ranker(seen, test, ks=(k,))(users, items).keys() == {f"{name}@{k}" for name in METRICS}
    expected = naive(users, items, seen, test, k)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-6, nan_ok=True)


def test_several_ks_and_chosen_metrics():
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(40, 8, generator=generator), torch.randn(60, 8, generator=generator)
    index = torch.randperm(40 * 60, generator=generator)[:900]
    pairs = torch.stack([index // 60, index % 60]).t().tolist()
    seen, test = graph(pairs[:600], 40, 60), graph(pairs[600:], 40, 60)
    result = Ranker(seen, test, ks=(5, 20), metrics=("ndcg", "recall"), batch_size=7)(users, items)
    assert list(result) == ["ndcg@5", "recall@5", "ndcg@20", "recall@20"]
    for k in (5, 20):
        expected = naive(users, items, seen, test, k)
        for name in ("ndcg", "recall"):
            assert result[f"{name}@{k}"] == pytest.approx(expected[f"{name}@{k}"], abs=1e-5)


@given(cases())
@settings(deadline=None)
def test_scores_rank_as_the_embeddings_that_they_come_from(case):
    users, items, seen, test, k, batch_size = case
    ranker = Ranker(seen, test, ks=(k,), batch_size=batch_size)
    expected = ranker(users, items)
    assert ranker.scored(lambda batch: users[batch] @ items.t()) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("scores", "got"),
    [
        (torch.ones(1, 4), r"\[1, 4\], finite: True"),
        (torch.ones(2, 3), r"\[2, 3\], finite: True"),
        (torch.tensor([[1.0, math.nan, 2.0]]), r"\[1, 3\], finite: False"),
        (torch.tensor([[1.0, -math.inf, 2.0]]), r"\[1, 3\], finite: False"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(scores, got):
    ranker = Ranker(graph([(0, 0)], 2, 3), graph([(1, 1)], 2, 3))
    with pytest.raises(ValueError, match=rf"'scores' must return finite scores of shape \[1, 3\] \(got {got}\)"):
        ranker.scored(lambda batch: scores)


def test_a_ranker_keeps_no_state_between_calls():
    seen, test = graph([(0, 0), (1, 1)], 2, 4), graph([(0, 2), (1, 3)], 2, 4)
    ranker = Ranker(seen, test, ks=(1,))
    users, good = torch.eye(2), torch.tensor([[0.0, 0], [0, 0], [1, 0], [0, 1]])
    assert ranker(users, good)["recall@1"] == 1.0
    assert ranker(users, -good)["recall@1"] == 0.0
    assert ranker(users, good)["recall@1"] == 1.0


def test_only_the_graph_that_is_passed_masks():
    original, retained = graph([(0, 0), (0, 1)], 1, 3), graph([(0, 1)], 1, 3)
    leaked = graph([(0, 0)], 1, 3)  # the model still recommends the forgotten item first
    users, items = torch.ones(1, 1), torch.tensor([[9.0], [1.0], [0.0]])
    assert rank_metrics(users, items, retained, leaked, ks=(1,))["hit_rate@1"] == 1.0
    hidden = rank_metrics(users, items, original, leaked, ks=(1,))
    assert math.isnan(hidden["hit_rate@1"])
    assert (hidden["num_users"], hidden["num_users_left_out"], hidden["num_pairs_left_out"]) == (0, 1, 1)


def test_seen_positives_do_not_count():
    seen = graph([(0, 0), (2, 1)], 3, 4)
    test = graph([(0, 0), (0, 3), (2, 1), (1, 2)], 3, 4)
    ranker = Ranker(seen, test, ks=(1,), metrics=("recall",))
    assert ranker.counts == {"num_users": 2, "num_users_left_out": 1, "num_pairs": 2, "num_pairs_left_out": 2}
    assert ranker(torch.ones(3, 1), torch.tensor([[0.0], [0], [0], [1]])) == {"recall@1": 0.5}


def test_negative_labels_are_not_positives():
    test = graph([(0, 0), (0, 1)], 1, 3, label=torch.tensor([0, 1]))
    assert Ranker(graph([], 1, 3), test).counts["num_pairs"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ks": ()}, "'ks' must hold positive list lengths"),
        ({"ks": (0, 5)}, "'ks' must hold positive list lengths"),
        ({"metrics": ("recal",)}, "'metrics' must be among recall, ndcg, mrr, hit_rate"),
        ({"metrics": ()}, "'metrics' must be among"),
        ({"batch_size": 0}, "'batch_size' must be a positive integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ranker(graph([(0, 0)], 2, 3), graph([(1, 1)], 2, 3), **arguments)


def test_graphs_and_embeddings_must_fit():
    seen, test = graph([(0, 0)], 2, 3), graph([(1, 1)], 2, 3)
    with pytest.raises(ValueError, match=r"'test' must have the users and items of 'seen', \(2, 4\) \(got \(2, 3\)\)"):
        Ranker(graph([(0, 0)], 2, 4), test)
    with pytest.raises(ValueError, match=r"must have 2 and 3 rows \(got 2 and 4\)"):
        Ranker(seen, test)(torch.ones(2, 1), torch.ones(4, 1))
    with pytest.raises(ValueError, match="must be finite"):
        Ranker(seen, test)(torch.ones(2, 1), torch.tensor([[1.0], [math.nan], [0.0]]))


scores_and_labels = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30)


@given(scores_and_labels)
def test_auroc_matches_counting_pairs(samples):
    scores = torch.tensor([s for s, _ in samples], dtype=torch.float64)
    labels = torch.tensor([y for _, y in samples])
    wins = [(a > b) + 0.5 * (a == b) for a in scores[labels].tolist() for b in scores[~labels].tolist()]
    expected = sum(wins) / len(wins) if wins else math.nan
    assert auroc(scores, labels) == pytest.approx(expected, nan_ok=True)
    assert auroc(scores, labels.float()) == pytest.approx(expected, nan_ok=True)


def test_auroc_sees_differences_that_a_sigmoid_would_hide():
    assert auroc(torch.tensor([1000.0, 1001.0, 1002.0]), torch.tensor([0, 1, 1])) == 1.0


def test_auroc_refuses_what_it_cannot_rank():
    with pytest.raises(ValueError, match="'scores' must not hold NaN"):
        auroc(torch.tensor([0.5, math.nan]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"'labels' must have the shape of 'scores', \[2\] \(got \[3\]\)"):
        auroc(torch.zeros(2), torch.zeros(3))
