"""What is learned from sessions: the samples, their batches, and the loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from session_toys import CLASSES, NAIVE, random_sessions, sequences, session_graph, session_model

from graphunlearn.nn import Criterion, CrossEntropy, catalogue_loss, default_objective, encode, encode_prefixes


def rows_of(num, num_items, dim=3, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    queries, items = (scale * torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (num, num_items))
    return queries, items, torch.randint(0, num_items, (num,), generator=generator)


# ---- the loss


@given(st.integers(0, 9), st.integers(1, 7), st.sampled_from([1e-3, 1.0, 30.0, 1000.0]), st.integers(0, 99))
def test_the_loss_is_torchs_cross_entropy(num, num_items, scale, seed):
    queries, items, targets = rows_of(num, num_items, seed=seed, scale=scale)
    queries.requires_grad_(), items.requires_grad_()
    ours = catalogue_loss(queries, items, targets)
    theirs = F.cross_entropy(queries @ items.t(), targets, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    if num:
        weight = torch.linspace(-1, 2, num, dtype=torch.float64)
        gradients = [torch.autograd.grad((loss * weight).sum(), (queries, items)) for loss in (ours, theirs)]
        for a, b in zip(*gradients):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * scale)


def test_without_gradients_the_loss_of_many_rows_is_that_of_each():
    queries, items, targets = rows_of(300, 5)
    with torch.no_grad():
        ours = catalogue_loss(queries, items, targets)
    odds = [
        math.log(sum(math.exp(float(q @ row) - float(q @ items[t])) for row in items)) for q, t in zip(queries, targets)
    ]
    torch.testing.assert_close(ours, torch.tensor(odds, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_the_loss_against_finite_differences_twice():
    queries, items, targets = rows_of(4, 5)
    arguments = (queries.requires_grad_(), items.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, i: catalogue_loss(q, i, targets), arguments)
    assert torch.autograd.gradgradcheck(lambda q, i: catalogue_loss(q, i, targets), arguments)


def test_the_loss_for_one_side_alone():
    queries, items, targets = rows_of(4, 5)
    for sides in ((True, False), (False, True)):
        parts = [rows.clone().requires_grad_(side) for rows, side in zip((queries, items), sides)]
        catalogue_loss(*parts, targets).sum().backward()
        wanted = [rows.clone().requires_grad_(side) for rows, side in zip((queries, items), sides)]
        F.cross_entropy(wanted[0] @ wanted[1].t(), targets, reduction="sum").backward()
        for part, other, side in zip(parts, wanted, sides):
            assert (part.grad is not None) == side
            if side:
                torch.testing.assert_close(part.grad, other.grad)


def test_gradients_per_sample_without_a_loop():
    queries, items, targets = rows_of(6, 5)

    def loss(rows, query, target):
        return catalogue_loss(query.unsqueeze(0), rows, target.unsqueeze(0)).squeeze(0)

    ours = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(items, queries, targets)
    for k in range(6):
        rows = items.clone().requires_grad_()
        F.cross_entropy(queries[k : k + 1] @ rows.t(), targets[k : k + 1]).backward()
        torch.testing.assert_close(ours[k], rows.grad)


@pytest.mark.parametrize("name", list(CLASSES))
def test_every_prefix_is_charged_for_the_click_that_follows(name):
    rows = [[0, 1, 0, 2, 2], [3], [1, 4, 1], [5, 3]]
    model, graph = session_model(name, 6, bias=True), session_graph(rows, 6)
    criterion = default_objective(graph)
    assert isinstance(criterion, Criterion)
    samples = criterion.samples(graph)
    wanted = []
    for row in rows:
        for t in range(1, len(row)):
            scores = model.embedding.weight @ NAIVE[name](model, row[:t]) + model.bias
            wanted.append(F.cross_entropy(scores, torch.tensor(row[t])))
    losses = criterion.losses(model, graph, samples)
    torch.testing.assert_close(losses, torch.stack(wanted), rtol=1e-10, atol=1e-12)
    part = torch.tensor([4, 0, 0])
    torch.testing.assert_close(criterion.losses(model, graph, samples.select(part)), losses[part])
    assert repr(criterion) == repr(CrossEntropy())


class Bag(torch.nn.Module):
    """A model that only says how it encodes sessions: the sum of the rows of their items."""

    def __init__(self, num_items):
        super().__init__()
        self.table = torch.nn.Embedding(num_items, 3).double()


@encode.register
def _(model: Bag, graph):
    clicks = graph.x[graph.alias]
    session = torch.repeat_interleave(torch.arange(graph.num_sessions), graph.length)
    states = torch.zeros(graph.num_sessions, 3, dtype=torch.float64).index_add(0, session, model.table.weight[clicks])
    return states, model.table.weight


def test_any_model_with_an_encoding_learns_from_prefixes():
    rows = [[0, 1, 0, 2, 2], [3], [1, 4, 1]]
    model, graph = Bag(5), session_graph(rows, 5)
    states, items, *_ = encode_prefixes(model, graph, torch.tensor([7, 3, 0]))
    table = model.table.weight
    torch.testing.assert_close(states, torch.stack([table[1] + table[4], 2 * table[0] + table[1] + table[2], table[0]]))
    assert items is table
    samples = CrossEntropy().samples(graph)
    assert CrossEntropy().losses(model, graph, samples).shape == (len(samples),)


# ---- the samples


@given(sequences(max_sessions=9))
def test_samples_are_all_clicks_but_the_first(rows):
    graph = session_graph(rows, 6)
    samples = CrossEntropy().samples(graph)
    wanted, click = [], 0
    for number, row in enumerate(rows):
        wanted += [(click + t - 1, row[t], number) for t in range(1, len(row))]
        click += len(row)
    assert list(zip(samples.ends.tolist(), samples.target.tolist(), samples.session.tolist())) == wanted
    assert len(samples) == len(wanted)


def test_a_mask_names_the_clicks_to_be_predicted():
    graph = session_graph([[0, 1, 2], [3], [4, 5, 4]], 6)
    mask = torch.tensor([True, False, True, True, True, True, False])
    samples = CrossEntropy().samples(graph, mask=mask)
    assert samples.ends.tolist() == [1, 4]  # the first clicks of sessions follow nothing
    assert samples.target.tolist() == [2, 5]
    assert samples.session.tolist() == [0, 2]
    assert mask[0]  # the mask given stays as it was


def test_what_follows_a_prefix_is_its_target():
    whole = session_graph([[0, 1, 2], [3], [4, 5, 4]], 6)
    prefixes = whole.prefixes(torch.tensor([5, 0, 3, 6]))  # 3 and 6 are the last of their sessions
    samples = CrossEntropy().samples(prefixes)
    assert (samples.ends.tolist(), samples.target.tolist(), samples.session.tolist()) == ([1, 2], [4, 1], [0, 1])
    model, all_of_them = session_model("srgnn", 6), CrossEntropy().samples(whole)
    torch.testing.assert_close(
        CrossEntropy().losses(model, prefixes, samples),
        CrossEntropy().losses(model, whole, all_of_them.select(torch.tensor([3, 0]))),
    )
    mask = torch.ones(prefixes.num_clicks, dtype=torch.bool)
    assert CrossEntropy().samples(prefixes, mask=mask).target.tolist() == [5, 5, 4]  # clicks that were asked for


# ---- the batches


@given(sequences(max_sessions=12), st.integers(1, 20), st.integers(0, 5))
def test_batches_hold_whole_sessions_and_every_sample_once(rows, size, seed):
    graph, criterion = session_graph(rows, 6), CrossEntropy()
    samples = criterion.samples(graph)
    batches = list(criterion.batches(samples, size, torch.Generator().manual_seed(seed)))
    assert sorted(torch.cat([b.ends for b in batches]).tolist() if batches else []) == samples.ends.tolist()
    sessions = [set(b.session.tolist()) for b in batches]
    assert sum(map(len, sessions)) == len(set().union(*sessions))
    longest = max(map(len, rows)) - 1
    for batch in batches:
        assert 1 <= len(batch) <= size + longest
        assert torch.equal(batch.target, graph.x[graph.alias[batch.ends + 1]])
    # a share that a session overfilled is made up for by the next batch
    assert len(batches) <= -(-len(samples) // size)


def test_the_order_follows_the_generator():
    samples = CrossEntropy().samples(session_graph(random_sessions(200)))

    def order(seed):
        return torch.cat([b.ends for b in CrossEntropy().batches(samples, 50, torch.Generator().manual_seed(seed))])

    assert torch.equal(order(3), order(3))
    assert not torch.equal(order(3), order(4))
    sizes = [len(b) for b in CrossEntropy().batches(samples, 50, torch.Generator().manual_seed(0))]
    assert len(sizes) == -(-len(samples) // 50)
    assert max(sizes) < 50 + 8
    first = next(CrossEntropy().batches(samples, 50, torch.Generator().manual_seed(0))).session.unique()
    assert not torch.equal(first, torch.arange(first[0], first[0] + len(first)))  # not neighbours
