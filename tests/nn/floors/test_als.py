"""Implicit alternating least squares against dense normal equations, before and after forgetting."""

import pytest
import torch

from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn.floors import ALS, als
from graphunlearn.nn.floors.base import rows_of


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=50, num_items=30, interactions_per_user=6, seed=1)


def dense(graph):
    return rows_of(graph if graph.label is None else graph.keep(graph.label == 1), torch.arange(50), torch.double)


def solved(rows, others, model):
    """One row after another by the dense weighted normal equations."""
    out = torch.zeros(len(rows), model.dim, dtype=torch.double)
    for number, row in enumerate(rows):
        confidence = torch.diag(1 + model.alpha * row)
        left = others.t() @ confidence @ others + model.l2 * torch.eye(model.dim, dtype=torch.double)
        out[number] = torch.linalg.solve(left, others.t() @ confidence @ row)
    return out


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("entries", [1, 40, 1 << 15])
def test_sweeps_are_the_dense_normal_equations(graph, labelled, entries, monkeypatch):
    monkeypatch.setattr(als, "ENTRIES", entries)  # groups of one node, of several, of all
    graph = graph.binarize(3) if labelled else graph
    model = ALS(dim=5, l2=2.0, alpha=3.0, tolerance=1e-12, max_sweeps=3, seed=4)
    with pytest.warns(UserWarning, match="als stopped after 3 sweeps with a change of"):
        model.fit(graph)
    x, items = dense(graph), 0.1 * torch.randn(30, 5, dtype=torch.double, generator=torch.Generator().manual_seed(4))
    for _ in range(3):
        last, users = items, solved(x, items, model)
        items = solved(x.t(), users, model)
    torch.testing.assert_close(model.items, items, rtol=1e-9, atol=1e-12)
    assert model.change == pytest.approx(float((items - last).norm() / last.norm()), rel=1e-9)
    users = solved(x[[7, 3]], items, model)
    torch.testing.assert_close(model.scores(graph, torch.tensor([7, 3])), users @ items.t(), rtol=1e-9, atol=1e-12)


def gradient(graph, model):
    """The gradient of the dense objective by its item factors, relative to that of its parts."""
    x, items = dense(graph), model.items.clone().requires_grad_()
    users = solved(x, model.items, model)
    fit = ((1 + model.alpha * x) * (x - users @ items.t()).square()).sum()
    penalty = model.l2 * items.square().sum()
    parts = [torch.autograd.grad(part, items)[0] for part in (fit, penalty)]
    return float((parts[0] + parts[1]).norm() / parts[1].norm())


def test_what_is_left_after_forgetting_is_stationary_for_the_retained_data(graph):
    request = ForgetRequest("user", ["u3", "u9"]) | ForgetRequest("item", ["i4"])
    retained, _ = graph.split(request)
    model = ALS(dim=4, l2=2.0, alpha=3.0, tolerance=1e-9, max_sweeps=5000).fit(graph)
    found = model.forget(request)
    assert gradient(retained, model) > 1e-3 > 1e-8 > gradient(retained, found)
    assert found.change <= 1e-9
    assert not bool(found.items[4].any())  # an item that nobody has left
    assert not bool(found.scores(retained, torch.tensor([3])).any())
    assert bool(model.items[4].any()) and model.graph.num_interactions == graph.num_interactions


def test_with_one_factor_forgetting_is_retraining(graph):
    # a penalty so large that the objective has one minimum up to the sign of the factor
    request, options = ForgetRequest("user", ["u3"]), {"dim": 1, "l2": 8.0, "alpha": 2.0, "tolerance": 1e-12}
    retained, _ = graph.split(request)
    found = ALS(**options, max_sweeps=5000).fit(graph).forget(request)
    again = ALS(**options, max_sweeps=5000, seed=7).fit(retained)
    users = torch.arange(50)
    assert float(again.items.norm()) > 0.1
    torch.testing.assert_close(found.scores(retained, users), again.scores(retained, users), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "'dim' must be at least 1"),
        ({"l2": 0.0}, "'l2' must be positive and finite"),
        ({"alpha": float("inf")}, "'alpha' must be positive and finite"),
        ({"tolerance": -1.0}, "'tolerance' must be positive and finite"),
        ({"max_sweeps": 1.5}, "'max_sweeps' must be a whole number"),
        ({"seed": -1}, "'seed' must be a whole number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ALS(**options)


def test_groups_hold_no_more_numbers_than_allowed(monkeypatch):
    monkeypatch.setattr(als, "ENTRIES", 64)
    degree = torch.tensor([1, 0, 3, 1, 1, 200, 2, 1, 9, 1] + [1] * 20)
    for dim in (1, 4, 100):
        groups = list(als._alike(degree, dim))
        assert sorted(torch.cat(groups).tolist()) == [n for n, count in enumerate(degree.tolist()) if count]
        for group in groups:  # rows that are gathered, and the matrix of every node
            assert len(group) == 1 or len(group) * max(int(degree[group].max()), dim) <= 64


def test_a_fit_that_is_interrupted_leaves_no_half_fitted_model(graph, monkeypatch):
    def broken(*_args):
        raise KeyboardInterrupt

    model = ALS(dim=3)
    monkeypatch.setattr(ALS, "_solved", broken)
    with pytest.raises(KeyboardInterrupt):
        model.fit(graph)
    with pytest.raises(ValueError, match="'floor' must be fitted first"):
        model.recommend(k=3)
    assert not hasattr(model, "graph")
