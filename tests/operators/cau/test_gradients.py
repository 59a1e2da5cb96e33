"""The closed forms against automatic differentiation through dense softmaxes."""

import pytest
import torch
from torch.nn.functional import kl_div, one_hot

from graphunlearn.operators.cau import gradients as module
from graphunlearn.operators.cau.gradients import Before, Buffers, Catalogue

ROWS, ITEMS, DIM = 5, 7, 3


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(n, DIM, generator=generator, dtype=dtype) for n in (ROWS, ITEMS, ROWS, ITEMS)]
    target = torch.tensor([2, -1, 0, 6, -1])  # what the divergence leaves out
    return Before(*draws[2:]), *draws[:2], target


def now(before, states, items, target):
    rows = torch.arange(ROWS)
    return Catalogue(states, items, before.shift[rows], target, Buffers())


def grads(loss, states, items):
    a, b = states.clone().requires_grad_(), items.clone().requires_grad_()
    value = loss(torch.log_softmax(a @ b.t(), 1))
    return value, *torch.autograd.grad(value, [a, b])


def test_log_probabilities_are_those_of_the_softmax():
    before, states, items, target = case()
    rows, of = torch.tensor([0, 3, 3, 4]), torch.tensor([2, 1, 6, 0])
    found = now(before, states, items, target).log_p(rows, of)
    torch.testing.assert_close(found, torch.log_softmax(states @ items.t(), 1)[rows, of])


def test_gradients_of_a_loss_of_single_items():
    before, states, items, target = case()
    rows, of = torch.tensor([0, 3, 3, 1]), torch.tensor([2, 1, 6, 0])
    slope = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    out = torch.full((ITEMS, DIM), torch.nan, dtype=torch.float64)
    to_states = now(before, states, items, target).of_targets(rows, of, slope, out)
    _, expected, of_items = grads(lambda log_p: (slope * log_p[rows, of]).sum(), states, items)
    torch.testing.assert_close(to_states, expected)
    torch.testing.assert_close(out, of_items)


@pytest.mark.parametrize("stored", [True, False])
def test_gradients_of_the_divergence(stored, monkeypatch):
    monkeypatch.setattr(module, "STORED", (1 << 26) * stored)
    before, states, items, target = case()
    assert (before._p is not None) == stored
    rows, buffers = torch.arange(ROWS), Buffers()
    share = torch.tensor([0.5, 0.0, 0.25, 0.25, 2.0], dtype=torch.float64)
    out = torch.empty(ITEMS, DIM, dtype=torch.float64)
    gone = one_hot(target.clamp(min=0), ITEMS).bool() & (target >= 0).unsqueeze(1)
    original = torch.softmax(before.states @ before.items.t(), 1)
    torch.testing.assert_close(before.probabilities(rows), original)
    original = original.masked_fill(gone, 0)
    original = original / original.sum(1, keepdim=True)

    def loss(log_p):
        left = torch.log_softmax(log_p.masked_fill(gone, -torch.inf), 1).masked_fill(gone, 0)
        return (share * kl_div(left, original, reduction="none").sum(1)).sum()

    model = Catalogue(states, items, before.shift, target, buffers)
    value, to_states = model.of_divergence(before.without(rows, target, buffers), share, out)
    for found, expected in zip((value, to_states, out), grads(loss, states, items)):
        torch.testing.assert_close(found, expected)


def test_scores_far_from_the_original_ones_do_not_overflow():
    before, states, items, target = case(torch.float32)
    far = now(before, 1e3 * states, items, target)
    rows, of = torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.long)
    expected = torch.log_softmax(1e3 * states.double() @ items.double().t(), 1)[:, 0]
    torch.testing.assert_close(far.log_p(rows, of).double(), expected, rtol=1e-4, atol=1e-2)


def test_the_divergence_from_oneself_is_zero_with_probabilities_that_vanish():
    states, items = torch.tensor([[1e3]]), torch.tensor([[1.0], [0.0], [-1.0]])
    for target in (torch.tensor([-1]), torch.tensor([0])):
        before, buffers, out = Before(states, items), Buffers(), torch.empty(3, 1)
        model = Catalogue(states, items, before.shift, target, buffers)
        value, to_states = model.of_divergence(before.without(torch.tensor([0]), target, buffers), torch.ones(1), out)
        assert float(value) == 0.0
        assert to_states.tolist() == [[0.0]]
        assert out.tolist() == [[0.0]] * 3


def test_buffers_are_used_again():
    buffers, like = Buffers(), torch.zeros(1)
    first = buffers.take("a", like, 4, 3)
    assert buffers.take("a", like, 2, 2).data_ptr() == first.data_ptr()
    assert buffers.take("b", like, 2, 2).data_ptr() != first.data_ptr()
