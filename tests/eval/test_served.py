"""Margins and recommendation lists against loops, across the borders of batches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.eval import served
from graphunlearn.eval.served import margins, top_lists
from graphunlearn.nn import Encoded


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_margins_against_a_loop(batch, monkeypatch):
    monkeypatch.setattr(served, "BATCH", batch)
    queries, items, targets = drawn(7, 3), drawn(5, 3, seed=1), torch.tensor([0, 1, 2, 3, 4, 0, 2])
    found = margins(queries, items, targets)
    for k, target in enumerate(targets.tolist()):
        scores = [float(queries[k] @ items[i]) for i in range(5)]
        rest = math.log(sum(math.exp(s) for i, s in enumerate(scores) if i != target))
        assert float(found[k]) == pytest.approx(scores[target] - rest)
        p = math.exp(scores[target]) / sum(map(math.exp, scores))
        assert float(found[k]) == pytest.approx(math.log(p / (1 - p)))  # the logit of the softmax
    assert margins(queries[:0], items, targets[:0]).shape == (0,)


@given(st.integers(1, 7), st.integers(1, 6), st.integers(1, 8), st.sampled_from([1, 2, 256]), st.data())
def test_lists_against_a_loop(num, num_items, k, batch, data):
    scores = torch.tensor(data.draw(st.permutations(range(num * num_items)))).view(num, num_items).double()
    pair = st.tuples(st.integers(0, num - 1), st.integers(0, num_items - 1))
    seen = data.draw(st.lists(pair, max_size=num * num_items, unique=True))
    rows = torch.tensor(seen, dtype=torch.long).view(-1, 2).t()
    before, served.BATCH = served.BATCH, batch
    try:
        found = top_lists(Encoded(scores, torch.eye(num_items).double()), (rows[0], rows[1]), k)
    finally:
        served.BATCH = before
    assert found.shape == (num, min(k, num_items))
    for query, best in enumerate(found.tolist()):
        open_ = [i for i in range(num_items) if (query, i) not in seen]
        expected = sorted(open_, key=lambda i: -float(scores[query, i]))[: min(k, num_items)]
        assert best == expected + [-1] * (len(best) - len(expected))


def test_no_query_has_no_list():
    nothing = torch.zeros(0, dtype=torch.long)
    assert top_lists(Encoded(torch.zeros(0, 2), torch.ones(3, 2)), (nothing, nothing)).shape == (0, 3)
