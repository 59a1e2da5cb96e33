"""Calibrate: what it starts from, where it leads, and what it leaves alone."""

import pytest
import torch
from torch_geometric.nn import LightGCN
from toys import light_gcn, random_graph

from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import encode, fit, reset_parameters, score
from graphunlearn.operators import Calibrate, TuneSettings
from graphunlearn.operators.calibrate import neighbourhood_targets
from graphunlearn.operators.shared.warm_start import warm_start


@pytest.fixture(scope="module")
def trained():
    graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
    model = LightGCN(graph.num_nodes, 8, 2)
    reset_parameters(model, 0)
    fit(model, graph, epochs=60, lr=0.03, progress=False)
    return model, graph


@pytest.fixture
def request_of(trained):
    return ForgetRequest.internal("interaction", trained[1].pairs[:, ::17])


@pytest.mark.parametrize("shrink", [True, False])
def test_without_rounds_and_epochs_it_is_the_start(trained, request_of, shrink):
    model, graph = trained
    result = Calibrate(rounds=0, shrink=shrink, on_rejection="keep").unlearn(model, graph, request_of)
    expected = LightGCN(graph.num_nodes, 8, 2)
    expected.load_state_dict(model.state_dict())
    warm_start(expected, graph, result.graph, 0, scale=shrink)
    assert torch.equal(result.model.embedding.weight, expected.embedding.weight)


@torch.no_grad()
def test_forgotten_interactions_end_at_the_targets_of_the_last_round(trained, request_of):
    model, graph = trained
    pairs = graph.pairs[:, request_of.mask(graph)]
    start = Calibrate(rounds=1).unlearn(model, graph, request_of)
    target = neighbourhood_targets(start.graph, encode(model, start.graph), pairs, seed=0)
    before = score(encode(model, start.graph), pairs)
    after = score(encode(start.model, start.graph), pairs)
    assert float((after - target).abs().mean()) < 0.2 * float((before - target).abs().mean())
    assert start.log["rounds"][0][-1] == pytest.approx(float((after - target).abs().mean()), rel=1e-3)


@torch.no_grad()
def test_forgotten_interactions_come_closer_to_pairs_that_were_never_seen(trained, request_of):
    model, graph = trained
    pairs = graph.pairs[:, request_of.mask(graph)]
    result = Calibrate().unlearn(model, graph, request_of)
    drop = score(encode(model, graph), pairs).mean() - score(encode(result.model, result.graph), pairs).mean()
    held = result.graph.pairs
    kept = score(encode(model, graph), held).mean() - score(encode(result.model, result.graph), held).mean()
    assert float(drop) > 5 * abs(float(kept)) > 0


def test_fine_tuning_is_logged_and_moves_the_rows(trained, request_of):
    model, graph = trained
    plain = Calibrate().unlearn(model, graph, request_of)
    tuned = Calibrate(epochs=2, tuning=TuneSettings(lr=0.01)).unlearn(model, graph, request_of)
    assert len(tuned.log["tuning"]) == 2
    assert not torch.equal(plain.model.embedding.weight, tuned.model.embedding.weight)


def test_a_forgotten_user_gets_a_fresh_row_and_nothing_to_steer_towards():
    graph = random_graph(14, 11, 60, values=False)
    result = Calibrate().unlearn(light_gcn(graph), graph, ForgetRequest("user", ["3"]))
    assert result.log["steered"] == 0
    assert result.log["emptied_nodes"] >= 1


@pytest.mark.parametrize("name", ["rounds", "epochs"])
def test_counts_must_not_be_negative(name):
    with pytest.raises(ValueError, match=f"'{name}' must not be negative"):
        Calibrate(**{name: -1})
    with pytest.raises(ValueError, match=rf"'{name}' must be a whole number \(got 1.5\)"):
        Calibrate(**{name: 1.5})
