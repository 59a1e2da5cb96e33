import torch

from graphunlearn.operators.cau.losses import predict

ROWS, ITEMS, DIM = 5, 7, 3


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    states, items = (torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in (ROWS, ITEMS))
    return states, items, torch.randint(ITEMS, (ROWS,), generator=generator)


def test_predict_is_the_softmax():
    states, items, target = case()
    found = predict(states, items, target)
    torch.testing.assert_close(found.p, torch.softmax(states @ items.t(), 1))
    torch.testing.assert_close(
        found.log_p, -torch.nn.functional.cross_entropy(states @ items.t(), target, reduction="none")
    )


def test_predict_survives_large_logits():
    found = predict(torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert found.p.tolist() == [[1.0, 0.0]]
    assert found.log_p.tolist() == [-2e4]
