"""What two models give away together, against loops."""

import pytest
import torch

from graphunlearn.eval.attacks.before_after import changed_rows, score_drops
from graphunlearn.nn import Encoded


def encoded_of(seed):
    generator = torch.Generator().manual_seed(seed)
    return Encoded(*(torch.randint(-2, 3, (n, 3), generator=generator).double() for n in (8, 9)))


def auroc(positive, negative):
    wins = sum((a > b) + (a == b) / 2 for a in positive for b in negative)
    return wins / (len(positive) * len(negative))


@pytest.mark.parametrize("seed", range(5))
def test_score_drops_against_a_loop(seed):
    before, after = encoded_of(seed), encoded_of(seed + 50)
    forgotten = torch.tensor([[0, 0, 3, 2, 4, 5], [1, 2, 8, 0, 1, 7]])
    kept = torch.tensor([[5, 6, 7, 1], [0, 3, 3, 4]])

    def drop(u, i):
        return float(before.queries[u] @ before.items[i]) - float(after.queries[u] @ after.items[i])

    found = score_drops(before, after, forgotten, kept)
    lists = [[drop(u, i) for u, i in pairs.t().tolist()] for pairs in (forgotten, kept)]
    assert found.value == pytest.approx(auroc(*lists))
    assert found.counts.tolist() == [[2.0, 1.0, 1.0, 1.0, 1.0]]  # users 0, 2, 3, 4 and 5


def test_equal_models_give_nothing_away():
    same = encoded_of(0)
    pairs = torch.tensor([[0, 1], [1, 2]])
    assert score_drops(same, same, pairs, pairs).value == 0.5
    assert changed_rows(same.queries, same.queries, torch.arange(8) < 3) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_changed_rows_against_a_loop(seed):
    before, after = encoded_of(seed).queries, encoded_of(seed + 50).queries
    named = torch.tensor([True, False, True, False, False, True, False, False])
    moved = [sum((a - b) ** 2 for a, b in zip(x, y)) for x, y in zip(before.tolist(), after.tolist())]
    expected = auroc([m for m, n in zip(moved, named) if n], [m for m, n in zip(moved, named) if not n])
    assert changed_rows(before, after, named) == pytest.approx(expected)


@pytest.mark.parametrize("value", [True, False])
def test_nobody_or_everybody_forgotten_has_no_answer(value):
    rows = encoded_of(0).queries
    assert changed_rows(rows, rows, torch.full((8,), value)) is None
