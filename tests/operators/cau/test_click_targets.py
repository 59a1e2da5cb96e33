import math

import pytest
import torch
from hypothesis import given
from session_toys import random_sessions, sequences, session_model

from graphunlearn import CAU, ForgetRequest
from graphunlearn.data import SessionGraph
from graphunlearn.nn import CrossEntropy, encode
from graphunlearn.operators.cau import levels as module
from graphunlearn.operators.cau.counts import ClickCounts, click_features
from graphunlearn.operators.cau.levels import Estimates, Regression, log_probabilities, simulated_request
from graphunlearn.operators.cau.samples import ForgetSamples
from graphunlearn.operators.cau.targets import click_targets


def test_regression_against_the_augmented_least_squares_problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    x[:, 3] = 2.0  # constant: tells nothing
    y = torch.randn(60, generator=generator, dtype=torch.float64)
    predicted = Regression(x, y, seed=4).fitted()(x)
    draw = torch.Generator().manual_seed(4)
    weight = torch.randn(5, module.HIDDEN, generator=draw, dtype=torch.float64) / math.sqrt(5)
    offset = torch.randn(module.HIDDEN, generator=draw, dtype=torch.float64)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    z[:, 3] = 0
    rows = torch.cat([z, torch.relu(z @ weight + offset)], 1)
    rows = rows - rows.mean(0)
    ridge = math.sqrt(module.RIDGE) * torch.eye(rows.size(1), dtype=torch.float64)
    stacked = torch.cat([rows, ridge])
    solution = torch.linalg.lstsq(
        stacked, torch.cat([y - y.mean(), torch.zeros(len(ridge), dtype=torch.float64)])[:, None]
    )
    torch.testing.assert_close(predicted, (rows @ solution.solution).squeeze(1) + y.mean())


def test_what_never_varied_tells_nothing_of_what_does():
    x = torch.zeros(50, 2, dtype=torch.float64)
    x[:, 0] = torch.linspace(0, 1, 50)
    fitted = Regression(x, x[:, 0]).fitted()
    other = x.clone()
    other[:, 1] = 1e6
    torch.testing.assert_close(fitted(other), fitted(x))


@given(sequences())
def test_features_against_a_loop(rows):
    graph = SessionGraph.from_sequences(rows, num_items=6)
    predictions = CrossEntropy().samples(graph)
    if not len(predictions):
        return
    counts = ClickCounts.of(graph)
    one = torch.tensor
    found = click_features(counts, graph, predictions)
    expected = []
    for row in rows:
        for t in range(1, len(row)):
            last, v = row[t - 1], row[t]
            company = [float(counts.company(one([i]), one([v]))) for i in row[:t]]
            popular = [float(counts.popularity[i]) for i in row[:t]]
            forward, backward = (float(counts.transitions(one([i]), one([j]))) for i, j in ((last, v), (v, last)))
            own, total = float(counts.popularity[v]), sum(company)
            a, b, c, d = (math.log1p(value) for value in (own, forward, total, popular[-1]))
            share = sum(k / (p + 5) for k, p in zip(company, popular))
            rates = [math.log(share + 1e-3)]
            rates += [math.log((k + 0.3) / (popular[-1] + 5)) for k in (forward, company[-1])]
            behind = len(row) - t - 1
            flags = [math.log1p(behind), float(behind == 0), 1 / (own + 1)]
            flags += [float(forward == 0), float(total == 0), float(v in row[:t])]
            first = [a, b, math.log1p(backward), math.log1p(company[-1]), c, *rates, d, math.log1p(t)]
            expected.append([*first, *flags, a * a, b * b, c * c, d * d, a * c, b * d, c * d])
    torch.testing.assert_close(found.float(), torch.tensor(expected), rtol=1e-4, atol=1e-4)  # counts are in float32


@pytest.mark.parametrize("name", ["srgnn", "gru4rec", "sasrec"])
def test_log_probabilities_against_cross_entropy_session_by_session(name):
    rows = [r for r in random_sessions(8) if len(r) > 1]
    graph, model = SessionGraph.from_sequences(rows, num_items=12), session_model(name, 12)
    expected = []
    for row in rows:
        for t in range(1, len(row)):
            encoded = encode(model, SessionGraph.from_sequences([row[:t]], num_items=12))
            scores = encoded.queries @ encoded.items.t()
            expected.append(-torch.nn.functional.cross_entropy(scores, torch.tensor([row[t]])).item())
    found = log_probabilities(model, graph, CrossEntropy().samples(graph))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def split_case(seed=0):
    graph = SessionGraph.from_sequences([r for r in random_sessions(60, seed=seed) if len(r) > 1], num_items=12)
    validation = SessionGraph.from_sequences(
        [r for r in random_sessions(20, seed=seed + 99) if len(r) > 1], num_items=12
    )
    mask = torch.zeros(graph.num_clicks, dtype=torch.bool)
    mask[graph.click_ptr[:6] + 1] = True
    retained = graph.keep(~mask)
    return graph, retained, validation, ForgetSamples.of(graph, retained, mask), mask


def test_levels_are_log_probabilities_and_the_same_every_time():
    graph, retained, validation, samples, mask = split_case()
    model = session_model("gru4rec", 12)
    torch.manual_seed(1)
    first = click_targets(model, graph, retained, validation, samples, mask, seed=3)
    torch.manual_seed(2)
    again = click_targets(model, graph, retained, validation, samples, mask, seed=3)
    for a, b, part in zip(first[:3], again[:3], (samples.forgotten, samples.deleted, samples.joined)):
        assert a.shape == (len(part),)
        assert bool((a <= 0).all())
        assert bool(torch.isfinite(a).all())
        assert a.tolist() == b.tolist()
    assert first.kept[1].ends.tolist() == again.kept[1].ends.tolist()


def test_nothing_particular_is_carried_over_at_zero():
    graph, retained, validation, samples, mask = split_case()
    levels = [
        click_targets(session_model("gru4rec", 12), graph, retained, validation, samples, mask, carry=c).forgotten
        for c in (0.0, 0.5, 1.0)
    ]
    inside = (
        (levels[0] < 0) & (levels[2] < 0) & (levels[1] < 0)
    )  # where none was cut off at zero, it is linear in carry
    assert int(inside.sum()) > 3
    torch.testing.assert_close(levels[1][inside], ((levels[0] + levels[2]) / 2)[inside])
    assert not torch.equal(levels[0], levels[2])


@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_a_simulated_request_draws_every_session_by_itself(whole):
    graph = split_case()[0]
    mask = simulated_request(graph, whole, torch.Generator().manual_seed(0))
    per_session = torch.bincount(graph.session[mask], minlength=graph.num_sessions)
    chosen = per_session > 0
    long = graph.length > 1
    assert not bool((chosen & ~long).any())
    assert abs(float(chosen[long].double().mean()) - 0.5) < 0.2  # half of them are expected
    assert torch.equal(per_session[chosen], graph.length[chosen] if whole else torch.ones_like(per_session[chosen]))
    if not whole:
        assert bool((graph.position[mask] > 0).all())
    fewer = graph.select(torch.arange(30))
    again = simulated_request(fewer, whole, torch.Generator().manual_seed(0))
    assert torch.equal(again, mask[: fewer.num_clicks])


@given(sequences(), sequences())
def test_changed_counts_are_those_of_the_changed_sessions(rows, others):
    """Against counts of the whole: some sessions leave, and others come in their place."""
    sizes = {"num_items": 6}
    kept, lost, gained = rows[::2], rows[1::2] or [[0]], others
    before = ClickCounts.of(SessionGraph.from_sequences(kept + lost, **sizes))
    parts = [ClickCounts.of(SessionGraph.from_sequences(part, **sizes)) for part in (lost, gained)]
    found, whole = before.changed(*parts), ClickCounts.of(SessionGraph.from_sequences(kept + gained, **sizes))
    a, b = torch.cartesian_prod(torch.arange(6), torch.arange(6)).t()
    assert torch.equal(found.popularity, whole.popularity)
    assert torch.equal(found.transitions(a, b), whole.transitions(a, b))
    assert torch.equal(found.company(a, b), whole.company(a, b))


def test_counts_of_a_mask_are_those_of_the_sessions_without_the_rest():
    graph = split_case()[0]
    mask = torch.rand(graph.num_clicks, generator=torch.Generator().manual_seed(3)) < 0.7
    a, b = torch.cartesian_prod(torch.arange(12), torch.arange(12)).t()
    found, whole = ClickCounts.of(graph, mask), ClickCounts.of(graph.keep(mask))
    assert torch.equal(found.transitions(a, b), whole.transitions(a, b))
    assert torch.equal(found.company(a, b), whole.company(a, b))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_an_updated_regression_is_that_of_the_changed_rows(share):
    """Against the rows that are left; if few have changed, with the standardisation of the first ones."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, generator=generator).double(), torch.randn(80, generator=generator).double()
    lost = torch.rand(80, generator=generator) < share / 2
    stale = ~lost & (torch.rand(80, generator=generator) < share)
    assert (2 * int((lost | stale).sum()) < 80) == (share < 0.5)
    fresh = x[stale] + 1
    first = Regression(x, y, seed=2)
    changed = x.clone()
    changed[stale] = fresh
    scaled = first if share < 0.5 else Regression(changed[~lost], y[~lost], seed=2)
    rows, values = scaled.expand(changed[~lost]), y[~lost]
    centre, level = rows.mean(0), values.mean()
    ridge = math.sqrt(module.RIDGE) * torch.eye(rows.size(1), dtype=torch.float64)
    right = torch.cat([values - level, torch.zeros(len(ridge), dtype=torch.float64)])
    solution = torch.linalg.lstsq(torch.cat([rows - centre, ridge]), right[:, None]).solution.squeeze(1)
    expected = (scaled.expand(x) - centre) @ solution + level
    torch.testing.assert_close(first.fitted(lost, stale, fresh)(x), expected)


def test_estimates_after_a_request_are_learned_from_what_it_leaves():
    """Against features computed anew for all predictions that are left, with the counts of the retained graph."""
    graph, _, validation, _, mask = split_case()
    model = session_model("gru4rec", 12)
    estimates = Estimates(model, graph, validation, 0.0, 0)
    counts, fitted, kept = estimates.after(mask)
    touched = torch.zeros(graph.num_sessions, dtype=torch.bool)
    touched[graph.session[mask]] = True
    simulated = estimates.simulated & ~touched[graph.session]
    remaining = ClickCounts.of(graph, ~mask & ~simulated)
    a, b = torch.cartesian_prod(torch.arange(12), torch.arange(12)).t()
    assert torch.equal(counts.company(a, b), remaining.company(a, b))
    assert torch.equal(counts.transitions(a, b), remaining.transitions(a, b))
    assert not bool(touched[kept.session].any())
    for n, part in enumerate(estimates.parts):
        left = part.clicks.select(~touched[part.clicks.session] if n else torch.ones(len(part.clicks)).bool())
        features = click_features(remaining, part.graph, left)
        again = Regression(features, log_probabilities(model, part.graph, left), 0).fitted()
        torch.testing.assert_close(fitted[n](features), again(features))


@pytest.mark.parametrize("level", ["click", "session"])
def test_a_prepared_request_has_the_result_of_one_that_is_not_prepared(level):
    graph, _, validation, _, _ = split_case()
    model = session_model("gru4rec", 12)
    index = torch.tensor([[0, 3, 5], [1, 1, 1]]).t().contiguous().t() if level == "click" else torch.tensor([2, 4])
    request = ForgetRequest.internal(level, index)
    alone, prepared = CAU(validation=validation, steps=3), CAU(validation=validation, steps=3)
    prepared.prepare(model, graph)
    assert prepared.prepare_seconds is not None
    a, b = (method.unlearn(model, graph, request) for method in (alone, prepared))
    assert (a.log["prepared"], b.log["prepared"]) == (False, True)
    assert b.log["log_p"]["target"] == pytest.approx(a.log["log_p"]["target"], abs=1e-6)
    for p, q in zip(a.model.parameters(), b.model.parameters()):
        torch.testing.assert_close(p, q)
    other = prepared.unlearn(session_model("gru4rec", 12, seed=1), graph, request)
    assert not other.log["prepared"]  # of another model, nothing is known


def test_levels_know_nothing_of_other_clicks_that_are_forgotten_with_them():
    """Sessions forgotten beside others have the levels that they have alone: counts are of what is retained."""
    kept = [r for r in random_sessions(60, seed=4) if len(r) > 1]
    first = [r for r in random_sessions(12, seed=5) if len(r) > 1]
    more = [[0, 5, 0, 5, 0, 5, 0], *first]  # many more clicks of the same kind
    validation = SessionGraph.from_sequences([r for r in random_sessions(30, seed=6) if len(r) > 1], num_items=12)
    model, found = session_model("gru4rec", 12), []
    for rows in ([*kept, *first], [*kept, *first, *more]):
        graph = SessionGraph.from_sequences(rows, num_items=12)
        request = ForgetRequest.internal("session", torch.arange(len(kept), len(rows)))
        found.append(CAU(validation=validation, steps=1).unlearn(model, graph, request).log["log_p"])
    alone, together = found
    count = sum(len(r) - 1 for r in first)
    assert len(alone["target"]) == count < len(together["target"])
    assert together["before"][:count] == alone["before"]
    assert together["target"][:count] == pytest.approx(alone["target"], abs=1e-9)
