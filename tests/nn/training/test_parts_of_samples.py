"""Samples in parts, in 32 bits and by the nodes that they hold, against naive loops and the whole."""

import pytest
import torch
from toys import factors, light_gcn, random_graph

import graphunlearn.func.blocks as blocks
import graphunlearn.nn.risk as risks
import graphunlearn.nn.training.samples as samples_module
from graphunlearn.nn import BCE, BPR, SampledBCE, SampledSoftmax, SquaredError, risk_of, stationarity
from graphunlearn.operators.shared.noise import noise_of_draws

LOSSES = [
    BPR(negatives=3, weight_decay=0.1),
    SampledBCE(negatives=2, weight_decay=0.1),
    SampledSoftmax(negatives=4),
    BCE(weight_decay=0.1),
    SquaredError(),
]


@pytest.fixture(params=LOSSES, ids=lambda loss: type(loss).__name__)
def objective(request):
    return request.param


@pytest.fixture
def graph():
    return random_graph(12, 9, 50)


def sorted_samples(objective, graph):
    return objective.samples(graph).by_user()


@pytest.mark.parametrize("most", [1, 7, 40, 1000])
def test_parts_hold_every_sample_once_with_users_numbered_from_their_first(objective, graph, most):
    samples = sorted_samples(objective, graph)
    users, items, negatives = [], [], []
    for place, part in samples.parts(most):
        assert part.num_pairs <= max(most, samples.num_pairs // len(samples))
        assert part.size == (place.stop - place.start, graph.num_items)
        assert int(part.users.min()) == 0
        assert int(part.users.max()) == place.stop - place.start - 1
        users.append(part.users + place.start)
        items.append(part.items)
        negatives.append(part.negatives)
    assert torch.equal(torch.cat(users), samples.users)
    assert torch.equal(torch.cat(items), samples.items)
    if samples.negatives is not None:
        assert torch.equal(torch.cat(negatives), samples.negatives)


@pytest.mark.parametrize("make", [factors, light_gcn])
@pytest.mark.parametrize("most", [1, 25])
def test_what_is_gathered_in_parts_is_the_whole(objective, graph, make, most, monkeypatch):
    model = make(graph)
    theta = torch.randn_like(risk_of(model, graph, objective).parameters)

    def figures():
        risk = risk_of(model, graph, objective)
        rotated = risk.rotated(theta)
        held = [risk.gradient(theta), risk.jacobi(theta)]
        noise = noise_of_draws(risk, theta, risk.jacobi(theta), 0.1, graph)
        held.append(torch.tensor(0.0 if noise is None else noise))
        assert (noise is None) == (isinstance(objective, BCE | SquaredError))
        axes = rotated.users.abs(), rotated.items.abs()  # the sign of an eigenvector is free
        return [*held, *axes, rotated.diagonal], "pattern" in vars(risk.samples)

    whole, kept = figures()
    assert kept
    monkeypatch.setattr(risks, "_PAIRS", most)
    parts, kept = figures()
    assert not kept
    torch.testing.assert_close(parts, whole)


def test_ids_of_32_bits_give_the_same_risk_and_64_bits_where_some_are_selected(objective, graph):
    samples, model = sorted_samples(objective, graph), light_gcn(graph)
    narrow = samples.narrow()
    assert narrow.users.dtype == narrow.items.dtype == torch.int32
    theta = torch.randn_like(risk_of(model, graph, objective).parameters)
    found, expected = (risk_of(model, graph, objective, s) for s in (narrow, samples))
    assert found.value(theta) == expected.value(theta)
    assert torch.equal(found.gradient(theta), expected.gradient(theta))
    direction = torch.randn_like(theta)
    assert torch.equal(found.curvature(theta)(direction), expected.curvature(theta)(direction))
    chosen = torch.tensor([3, 1, 8])
    for name in ("users", "items", "negatives", "target"):
        one, other = getattr(narrow.select(chosen), name), getattr(samples.select(chosen), name)
        assert (one is None and other is None) or (one.dtype == other.dtype and torch.equal(one, other))


def test_narrow_samples_take_another_order(objective, graph):
    samples = sorted_samples(objective, graph)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    found, expected = samples.narrow(order), samples.select(order)
    for name in ("users", "items", "negatives", "target", "offset"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None and other is None) or torch.equal(one.to(other.dtype), other)


@pytest.mark.parametrize("many", [1, 1000])
@pytest.mark.parametrize("entries", [1, 30, 1000])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("users", "items"), [([], []), ([2], []), ([], [0, 5]), ([1, 7, 11], [3, 8]), ([4], [4])])
def test_samples_with_any_of_some_nodes_are_those_of_a_loop(
    objective, graph, users, items, narrow, entries, many, monkeypatch
):
    monkeypatch.setattr(samples_module, "_AT_ONCE", entries)
    monkeypatch.setattr(samples_module, "_MANY", many)  # whether they are sorted or marked
    samples = sorted_samples(objective, graph)
    expected = []
    for number in range(len(samples)):
        held = {int(samples.items[number])}
        if samples.negatives is not None:
            held |= set(samples.negatives[number].tolist())
        if int(samples.users[number]) in users or held & set(items):
            expected.append(number)
    samples = samples.narrow() if narrow else samples
    found = samples.with_any(torch.tensor(users, dtype=torch.long), torch.tensor(items, dtype=torch.long))
    assert found.tolist() == expected


@pytest.mark.parametrize("make", [factors, light_gcn])
def test_the_fit_of_a_loss_is_summed_in_blocks(objective, graph, make, monkeypatch):
    model = make(graph)
    whole = stationarity(model, graph, objective)
    monkeypatch.setattr(blocks, "_BLOCK", 5)
    parts = stationarity(model, graph, objective)
    for name in ("ridge_cosine", "gradient", "shuffled", "residual"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


def test_row_counts_are_those_of_a_loop():
    graph = random_graph(3, 4, 10)  # one user may hold all items, whose negatives stand for none
    objective = BPR(negatives=3)
    samples = objective.samples(graph)
    expected = torch.zeros(graph.num_nodes, dtype=torch.float64)
    for user, item, others in zip(samples.users.tolist(), samples.items.tolist(), samples.negatives.tolist()):
        expected[user] += 1
        expected[graph.num_users + item] += 1
        for other in others:
            if other != item:
                expected[graph.num_users + other] += 1 / 3
    assert bool(samples.missing.any())
    torch.testing.assert_close(objective.row_counts(samples), expected)


def test_values_of_missing_negatives_are_zero():
    everything = torch.cartesian_prod(torch.arange(2), torch.arange(3)).t()
    some = random_graph(12, 9, 50)
    for whole, graph in ((True, some), (False, some.from_edges(everything, 2, 3))):
        samples = BPR(negatives=4).samples(graph)
        values = torch.rand(len(samples), 4) + 1
        found = samples.without_missing(values)
        assert torch.equal(found, torch.where(samples.negatives == samples.items.view(-1, 1), 0.0, values))
        assert (found is values) == whole


def test_the_first_negatives_are_those_of_a_loss_with_fewer():
    graph = random_graph(12, 9, 50)
    samples = BPR(negatives=7).samples(graph)
    for most in (1, 3):
        loss, fewer = BPR(negatives=7).first_negatives(samples, most)
        assert torch.equal(fewer.negatives, loss.samples(graph).negatives)
        assert fewer is BPR(negatives=7).first_negatives(samples, most)[1]  # with what was computed of them
    assert BPR(negatives=7).first_negatives(samples, 7)[1] is samples
