"""Balanced partitions, against loops over all pairs and scipy's linear programmes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from graphunlearn.operators.shards.partition import balanced_kmeans, fill, sinkhorn, transport_clusters


def rows(seed, num=40, dim=3):
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 25), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_filling_is_a_pass_over_all_pairs_from_the_closest(seed, width, num, spare):
    closeness, capacity = rows(seed, num, width), -(-num // width) + spare
    members, room = [-1] * num, [capacity] * width
    pairs = [(-float(closeness[r, c]), r, c) for r in range(num) for c in range(width)]
    for _, row, cluster in sorted(pairs):
        if members[row] < 0 and room[cluster]:
            members[row], room[cluster] = cluster, room[cluster] - 1
    assert fill(closeness, capacity).tolist() == members


def test_too_few_places_are_refused():
    with pytest.raises(ValueError, match=r"'capacity' must be at least 2, so that all rows have a place \(got 1\)"):
        fill(rows(0, 5, 3), 1)


@pytest.mark.parametrize("sides", [1, 2])
def test_balanced_kmeans_ends_where_neither_step_changes_anything(sides):
    parts = [rows(side) for side in range(sides)]
    members = balanced_kmeans(parts, 4, seed=3, capacity=1.2)
    assert torch.bincount(members, minlength=4).max() <= 12  # 1.2 of 40 / 4
    closeness = torch.empty(40, 4, dtype=torch.float64)
    for cluster in range(4):
        centres = [part[members == cluster].mean(0) for part in parts]
        for row in range(40):
            distances = [float((part[row] - centre).square().sum()) for part, centre in zip(parts, centres)]
            closeness[row, cluster] = -np.prod(distances)
    assert torch.equal(fill(closeness, 12), members)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_the_plan_is_that_of_plain_scalings(seed):
    cost = rows(seed, 12, 3).square()
    kernel = np.exp(-cost.numpy() / 0.5)
    v = np.ones(3)
    for _ in range(50):
        u = (1 / 12) / (kernel @ v)
        v = (1 / 3) / (kernel.T @ u)
    plan = sinkhorn(cost, 0.5)
    np.testing.assert_allclose(plan.numpy(), u[:, None] * kernel * v, rtol=1e-9)
    torch.testing.assert_close(plan.sum(0), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_with_little_entropy_the_plan_costs_as_little_as_the_linear_programme():
    cost = rows(2, 8, 2).square()
    equal = np.concatenate([np.kron(np.eye(8), np.ones((1, 2))), np.kron(np.ones((1, 8)), np.eye(2))])
    marginals = np.concatenate([np.full(8, 1 / 8), np.full(2, 1 / 2)])
    least = linprog(cost.flatten().numpy(), A_eq=equal, b_eq=marginals).fun
    plan = sinkhorn(cost, 0.005, iterations=2000)
    assert float((plan * cost).sum()) == pytest.approx(least, rel=1e-3)


def test_transport_separates_equal_groups():
    near = torch.cat([rows(0, 20) * 0.1, rows(1, 20) * 0.1 + 5])
    members = transport_clusters(near, 2, seed=1)
    assert torch.bincount(members).tolist() == [20, 20]
    assert members[:20].unique().numel() == members[20:].unique().numel() == 1
