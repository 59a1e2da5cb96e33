import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.metrics.next_item import next_item_metrics, score_ranks, target_ranks


@st.composite
def cases(draw):
    num, num_items = draw(st.integers(0, 8)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    # small integers: exact products, many ties
    queries = torch.randint(-1, 2, (num, 2), generator=generator).double()
    items = torch.randint(-1, 2, (num_items, 2), generator=generator).double()
    return queries, items, torch.randint(0, num_items, (num,), generator=generator), draw(st.integers(1, 9))


@given(cases())
def test_ranks_match_a_naive_loop(case):
    queries, items, targets, batch_size = case
    ranks = target_ranks(queries, items, targets, batch_size)
    assert ranks.dtype == torch.double
    for query, target, rank in zip(queries.tolist(), targets.tolist(), ranks.tolist()):
        scores = [sum(a * b for a, b in zip(query, item)) for item in items.tolist()]
        order = sorted(scores, reverse=True)
        places = [place for place, score in enumerate(order, 1) if score == scores[target]]
        assert rank == sum(places) / len(places)  # the mean rank of all that tie


@given(cases())
def test_ranks_of_scores_are_those_of_the_embeddings_that_they_come_from(case):
    queries, items, targets, batch_size = case
    parts = []

    def scores(part):
        parts.append(part)
        return queries[part] @ items.t()

    assert torch.equal(score_ranks(scores, targets, batch_size), target_ranks(*case))
    assert [i for part in parts for i in range(len(queries))[part]] == list(range(len(queries)))
    assert all(part.stop - part.start <= batch_size for part in parts)


def test_scores_are_asked_for_256_queries_at_a_time_by_default():
    asked = []

    def scores(part):
        asked.append((part.start, part.stop))
        return torch.arange(3.0).repeat(len(range(600)[part]), 1)

    ranks = score_ranks(scores, torch.zeros(600, dtype=torch.long))
    assert ranks.tolist() == [3.0] * 600
    assert asked == [(0, 256), (256, 512), (512, 768)]


@given(cases(), st.integers(1, 10))
def test_metrics_match_a_naive_loop(case, k):
    ranks = target_ranks(*case)
    metrics = next_item_metrics(ranks, ks=(k,))
    assert list(metrics) == [f"recall@{k}", f"mrr@{k}", f"ndcg@{k}", f"hit_rate@{k}"]
    found = [r for r in ranks.tolist() if r <= k]
    count = len(ranks)
    if count == 0:
        assert all(math.isnan(value) for value in metrics.values())
        return
    assert metrics[f"recall@{k}"] == metrics[f"hit_rate@{k}"] == pytest.approx(len(found) / count)
    assert metrics[f"mrr@{k}"] == pytest.approx(sum(1 / r for r in found) / count)
    assert metrics[f"ndcg@{k}"] == pytest.approx(sum(1 / math.log2(r + 1) for r in found) / count)


def test_a_model_that_scores_everything_alike_gains_nothing():
    ranks = target_ranks(torch.zeros(4, 2), torch.ones(9, 2), torch.tensor([0, 3, 5, 8]))
    assert ranks.tolist() == [5, 5, 5, 5]
    assert next_item_metrics(ranks, ks=(4,))["recall@4"] == 0


def test_batches_make_no_difference():
    generator = torch.Generator().manual_seed(0)
    queries, items = torch.randn(50, 4, generator=generator), torch.randn(30, 4, generator=generator)
    targets = torch.randint(0, 30, (50,), generator=generator)
    assert torch.equal(target_ranks(queries, items, targets, 7), target_ranks(queries, items, targets, 50))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_refused(bad):
    queries, items, targets = torch.ones(2, 2), torch.ones(3, 2), torch.tensor([0, 1])
    for name, rows in (("queries", queries), ("items", items)):
        rows[1, 1] = bad
        with pytest.raises(ValueError, match=rf"'{name}' must be finite to be ranked \(got NaN or infinite rows\)"):
            target_ranks(queries, items, targets)
        rows[1, 1] = 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match=r"'scores' must return finite scores \(got NaN or infinite ones\)"):
        score_ranks(lambda part: torch.tensor([[1.0, bad]]), torch.tensor([0]))


def test_the_lists_have_five_ten_and_twenty_items_by_default():
    metrics = next_item_metrics(torch.tensor([1.0, 6.0, 11.0, 21.0]))
    recall = {name: value for name, value in metrics.items() if name.startswith("recall")}
    assert recall == {"recall@5": 0.25, "recall@10": 0.5, "recall@20": 0.75}


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match=r"'batch_size' must be at least 1 \(got 0\)"):
        score_ranks(lambda part: torch.ones(1, 1), torch.tensor([0]), batch_size=0)
    with pytest.raises(ValueError, match=r"'batch_size' must be at least 1 \(got 0\)"):
        target_ranks(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0]), batch_size=0)
    with pytest.raises(ValueError, match=r"'ks' must hold positive list lengths \(got \(0,\)\)"):
        next_item_metrics(torch.ones(2), ks=(0,))
    with pytest.raises(ValueError, match=r"'ks' must hold positive list lengths \(got \(\)\)"):
        next_item_metrics(torch.ones(2), ks=())
