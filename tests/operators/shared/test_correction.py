"""The ridge that early stopping amounts to, estimated from a part of the samples."""

import pytest
import torch
from toys import light_gcn, random_graph

from graphunlearn.nn import BCE, BPR, encode
from graphunlearn.operators.shared.correction import sampled_ridge


@pytest.mark.parametrize("objective", [BPR(negatives=3), BCE(weight_decay=0.1)], ids=["bpr", "bce"])
@pytest.mark.parametrize("most", [10, 30, 45, 1000])
def test_the_sum_over_some_samples_is_scaled_to_all_of_them(objective, most):
    graph = random_graph(15, 12, 90)
    model, step = light_gcn(graph), max(1, 90 // most)
    mask = torch.arange(90) % step == 0
    theta = model.embedding.weight
    loss = objective(encode(model, graph), objective.samples(graph, mask=mask)).sum()
    (gradient,) = torch.autograd.grad(loss, theta)
    whole, theta = gradient * 90 / int(mask.sum()), theta.detach()
    expected = -float((whole * theta).sum() / theta.square().sum())
    assert sampled_ridge(model, graph, objective, most) == pytest.approx(expected, rel=1e-9)
