from itertools import chain

import pytest
import torch
from torch.nn.functional import kl_div

from graphunlearn.operators.cau.curriculum import Curriculum, embedding_difficulty, gradient_difficulty
from graphunlearn.operators.cau.losses import predict

ROWS, ITEMS, DIM = 6, 9, 4


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    states, items, moved = (torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in (ROWS, ITEMS, ITEMS))
    target = torch.randint(ITEMS, (ROWS,), generator=generator)
    follower = torch.tensor([1, -1, 3, 4, -1, 0])
    return states, items, torch.softmax(states @ (items + 0.3 * moved).t(), 1), target, follower


def test_gradient_difficulty_is_that_of_per_sample_autograd():
    states, items, before, target, follower = case()
    expected = []
    for i in range(ROWS):
        table = items.clone().requires_grad_()
        log_p = torch.log_softmax(states[i : i + 1] @ table.t(), 1)
        unlearn = log_p[0, target[i]]
        keep = kl_div(log_p, before[i : i + 1], reduction="batchmean")
        if follower[i] >= 0:
            keep = keep - log_p[0, follower[i]]
        a, b = (torch.autograd.grad(loss, table, retain_graph=True)[0].flatten() for loss in (unlearn, keep))
        expected.append(float(-torch.cosine_similarity(a, b, dim=0)))
    found = gradient_difficulty(predict(states, items, target), before, target, follower)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_where_nothing_is_to_be_kept_there_is_no_conflict():
    states, items, _, target, _ = case()
    now = predict(states, items, target)
    nobody = torch.full((ROWS,), -1)
    assert gradient_difficulty(now, now.p.clone(), target, nobody).tolist() == [0.0] * ROWS


def test_embedding_difficulty_is_the_score():
    states, items, _, target, _ = case()
    torch.testing.assert_close(
        embedding_difficulty(states, items, target), (states @ items.t()).gather(1, target[:, None])[:, 0]
    )


def drawn(curriculum, difficulty, size, progress, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        b.tolist() for b in curriculum.batches(torch.tensor(difficulty), size, progress=progress, generator=generator)
    ]


def test_a_random_pass_keeps_groups_together():
    group = torch.tensor([5, 3, 5, 9, 3, 9, 9])
    generator = torch.Generator().manual_seed(0)
    batches = Curriculum().batches(torch.zeros(7), 4, progress=0.0, generator=generator, group=group)
    order = torch.cat(batches)
    assert order.sort().values.tolist() == list(range(7))
    assert len(torch.unique_consecutive(group[order])) == 3


def test_a_random_pass_takes_every_sample_once():
    batches = drawn(Curriculum(), [0.0] * 10, 4, progress=0.3)
    assert [len(b) for b in batches] == [4, 4, 2]
    assert sorted(chain(*batches)) == list(range(10))


@pytest.mark.parametrize(("progress", "count"), [(0.0, 3), (0.25, 7), (0.5, 10), (1.0, 10)])
def test_a_hard_order_grows_from_the_easiest(progress, count):
    difficulty = [float(v) for v in (5, 2, 9, 0, 7, 1, 8, 3, 6, 4)]
    batches = drawn(Curriculum(order="hard", start=0.3), difficulty, 4, progress)
    flat = list(chain(*batches))
    assert len(flat) == count
    assert [difficulty[i] for i in flat] == [float(v) for v in range(count)]


def test_a_soft_order_moves_its_mass_to_the_harder_ones():
    difficulty = [float(v) for v in range(40)]
    curriculum = Curriculum(order="soft", temperature=(0.2, 20.0))

    def mean(progress):
        picked = [i for seed in range(30) for b in drawn(curriculum, difficulty, 4, progress, seed) for i in b]
        return sum(picked) / len(picked)

    early, middle, late = (mean(p) for p in (0.0, 0.5, 1.0))
    assert early < 8 < middle < late
    assert abs(late - 19.5) < 1.5  # at a high temperature all are alike: the mean of 0..39


def test_a_soft_batch_holds_no_sample_twice():
    for batch in drawn(Curriculum(order="soft"), [0.0, 1.0, 2.0], 5, progress=0.1):
        assert sorted(batch) == [0, 1, 2]


def test_equal_difficulties_are_no_obstacle():
    assert sorted(drawn(Curriculum(order="soft"), [1.0] * 4, 4, progress=0.0)[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "easy"}, "'order' must be one of random, hard, soft"),
        ({"start": 0.0}, "'start' must be above 0"),
        ({"temperature": (2.0, 1.0)}, "'temperature' must be positive, finite and not falling"),
        ({"temperature": (0.0, 1.0)}, "'temperature'"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**changes)
