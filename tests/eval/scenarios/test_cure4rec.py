"""The requests of CURE4Rec: which users, and what is held out."""

import pytest
import torch

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.scenarios import cure4rec

COUNTS = [3, 9, 1, 9, 5, 0, 7, 2, 8, 4, 6, 3]


def graph():
    pairs = [(user, item) for user, count in enumerate(COUNTS) for item in range(count)]
    return InteractionGraph.from_edges(torch.tensor(pairs).t(), len(COUNTS), 10)


def chosen(*args, **options):
    return list(cure4rec(graph(), graph(), *args, **options).request.index)


def test_core_and_edge_users_are_those_at_the_ends_of_the_count():
    ranked = sorted((u for u, count in enumerate(COUNTS) if count), key=lambda u: (-COUNTS[u], u))
    assert chosen("core", share=0.3) == sorted(ranked[:3])  # 3.3 of 11, rounded down
    lowest = sorted((u for u, count in enumerate(COUNTS) if count), key=lambda u: (COUNTS[u], u))
    case = cure4rec(graph(), graph(), "edge", share=0.3)
    trained = set(case.train.pairs[0].tolist())
    assert list(case.request.index) == sorted(set(lowest[:3]) & trained)


def test_random_users_depend_on_the_seed_alone():
    assert chosen("random", share=0.3) == chosen("random", share=0.3)
    assert len({tuple(chosen("random", share=0.3, seed=seed)) for seed in range(5)}) > 1


def test_users_of_a_file_are_taken_and_others_ignored():
    assert chosen("core", users=["8", "4", "5"]) == [4, 8]  # user 5 has no interactions


def test_the_held_out_part_is_of_the_training_data():
    case = cure4rec(graph(), graph(), "core", share=0.2)
    both = torch.cat([case.train.pairs, case.validation.pairs], 1).t().tolist()
    assert sorted(both) == sorted(graph().pairs.t().tolist())
    assert case.validation.num_interactions == round(0.1 * sum(COUNTS))
    assert case.name == "cure4rec-core"
    assert case.notes == ["2 users were chosen to be forgotten: the group 'core' of CURE4Rec."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": "all"}, r"'group' must be one of core, random, edge \(got 'all'\)"),
        ({"group": "core", "share": 0.0}, "'share' must be between 0 and 1"),
        ({"group": "core", "users": ["5"]}, "'users' must hold some of the users with training interactions, not all"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cure4rec(graph(), graph(), **arguments)
