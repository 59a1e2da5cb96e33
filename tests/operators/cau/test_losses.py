import torch

from graphunlearn.operators.cau.losses import at_target, kl, kl_without, predict

ROWS, ITEMS, DIM = 5, 7, 3


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    states, items, items_before = (
        torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in (ROWS, ITEMS, ITEMS)
    )
    target = torch.randint(ITEMS, (ROWS,), generator=generator)
    return states, items, torch.softmax(states @ items_before.t(), 1), target


def by_autograd(states, items, loss):
    logits = (states @ items.t()).requires_grad_()
    return torch.autograd.grad(loss(logits), logits)[0]


def test_predict_is_the_softmax():
    states, items, _, target = case()
    found = predict(states, items, target)
    torch.testing.assert_close(found.p, torch.softmax(states @ items.t(), 1))
    torch.testing.assert_close(
        found.log_p, -torch.nn.functional.cross_entropy(states @ items.t(), target, reduction="none")
    )


def test_predict_survives_large_logits():
    found = predict(torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert found.p.tolist() == [[1.0, 0.0]]
    assert found.log_p.tolist() == [-2e4]


def test_residual_of_any_function_of_log_p():
    states, items, _, target = case()
    weight = torch.linspace(-1, 2, ROWS, dtype=torch.float64)

    def loss(logits):
        log_p = torch.log_softmax(logits, 1).gather(1, target[:, None]).squeeze(1)
        return (weight * log_p.square()).sum()

    found = predict(states, items, target)
    residual = at_target(found.p, target, 2 * weight * found.log_p)
    torch.testing.assert_close(residual, by_autograd(states, items, loss))


def test_divergence_and_its_residual():
    states, items, before, target = case()

    def loss(logits):
        return torch.nn.functional.kl_div(torch.log_softmax(logits, 1), before, reduction="batchmean")

    value, residual = kl(before, predict(states, items, target).p)
    torch.testing.assert_close(value, loss(states @ items.t()))
    torch.testing.assert_close(residual, by_autograd(states, items, loss))


def test_divergence_without_the_target_and_its_residual():
    states, items, before, target = case()
    out = torch.nn.functional.one_hot(target, ITEMS).bool()
    rest = before.masked_fill(out, 0)
    rest = rest / rest.sum(1, keepdim=True)

    def loss(logits):
        log_q = torch.log_softmax(logits.masked_fill(out, -torch.inf), 1).masked_fill(out, 0)
        return torch.nn.functional.kl_div(log_q, rest, reduction="batchmean")

    value, residual = kl_without(before, predict(states, items, target).p, target)
    torch.testing.assert_close(value, loss(states @ items.t()))
    torch.testing.assert_close(residual, by_autograd(states, items, loss))


def test_divergence_to_oneself_is_zero_with_probabilities_that_vanish():
    p = torch.tensor([[1.0, 0.0, 0.0]])
    for value, residual in (kl(p, p), kl_without(p, p, torch.tensor([0]))):
        assert float(value) == 0.0
        assert residual.tolist() == [[0.0, 0.0, 0.0]]


def test_no_rows():
    p = torch.zeros(0, ITEMS)
    value, residual = kl(p, p)
    assert float(value) == 0.0
    assert residual.shape == (0, ITEMS)
