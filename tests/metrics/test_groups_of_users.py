"""The gap between active users and the others, against loops over single users."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphunlearn.data import InteractionGraph
from graphunlearn.metrics import Ranker, activity_gap


def drawn(seed, users=9, items=12):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(users, items, generator=generator)
    graphs = [
        InteractionGraph.from_edges(mask.nonzero().t(), users, items)
        for mask in (draw < 0.3, (draw > 0.5) & (draw < 0.8))
    ]
    rows = [torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (users, items)]
    return *rows, *graphs


@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 0.6]), st.sampled_from(["ndcg_full", "recall"]))
@settings(deadline=None, max_examples=30)
def test_the_gap_is_the_difference_of_means_over_users(seed, share, metric):
    users, items, seen, test = drawn(seed)
    pairs = seen.pairs.t().tolist()
    count = [sum(u == v for v, _ in pairs) for u in range(9)]
    active = sorted((u for u in range(9) if count[u]), key=lambda u: (-count[u], u))
    top = active[: max(1, int(share * len(active)))]
    groups = [[], []]
    for user in range(9):
        own = test.select(test.pairs[0] == user)
        if own.num_interactions:
            value = Ranker(seen, own, (4,), (metric,))(users, items)[f"{metric}@4"]
            groups[user not in top].append(value)
    means = [sum(group) / len(group) if group else float("nan") for group in groups]
    got = activity_gap(users, items, seen, test, k=4, metric=metric, share=share)
    assert got == pytest.approx(means[0] - means[1], abs=1e-6, nan_ok=True)


def test_a_share_that_is_none_is_refused():
    users, items, seen, test = drawn(0)
    with pytest.raises(ValueError, match=r"'share' must be between 0 and 1 \(got 1\.5\)"):
        activity_gap(users, items, seen, test, share=1.5)
