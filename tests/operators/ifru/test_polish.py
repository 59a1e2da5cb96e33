"""A short run of the trainer after IFRU's step, against a loop of Adam written out."""

import copy

import pytest
import torch

import graphunlearn as gu
from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import BPR, FitSettings, build_model
from graphunlearn.operators.ifru.polish import polish


@pytest.fixture
def trained():
    graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
    model = build_model("lightgcn", graph, 8)
    gu.fit(model, graph, epochs=40, progress=False)
    return model, graph, ForgetRequest.internal("interaction", graph.pairs[:, :20])


def table(model):
    return model.embedding.weight.detach().clone()


def test_it_is_the_loop_of_the_trainer(trained):
    model, graph, _ = trained
    settings, objective = FitSettings(lr=0.02, batch_size=100_000, epochs=77), BPR(weight_decay=0.1)
    other = copy.deepcopy(model)
    log = polish(model, graph, objective, settings, 3, seed=4)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.02)
    for epoch in (1, 2, 3):  # the first epoch has the stored negatives, the others draw new ones
        samples = objective.samples(graph) if epoch == 1 else objective.samples(graph, epoch=epoch)
        loss = objective.losses(other, graph, samples).mean()
        assert log["loss"][epoch - 1] == pytest.approx(float(loss.detach()), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(table(model), table(other), rtol=1e-3, atol=1e-4)
    assert (log["epochs"], log["steps"]) == (3, 3)


def test_ifru_polishes_what_its_step_left(trained):
    model, graph, request = trained
    settings = FitSettings(lr=0.005, batch_size=64)
    plain = gu.IFRU(on_rejection="keep").unlearn(model, graph, request)
    assert "polish" not in plain.log
    expected = copy.deepcopy(plain.model)
    log = polish(expected, plain.graph, None, settings, 2, seed=0)
    result = gu.IFRU(polish=2, settings=settings, on_rejection="keep").unlearn(model, graph, request)
    assert torch.equal(table(result.model), table(expected))
    assert result.log["polish"] == log
    assert log["steps"] == 2 * -(-plain.graph.num_interactions // 64)
    assert result.log["acceptance"]["corrected"]["risk"] != plain.log["acceptance"]["corrected"]["risk"]


def test_a_number_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"'polish' must not be negative \(got -1\)"):
        gu.IFRU(polish=-1)
