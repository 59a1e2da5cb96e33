"""The acceptance of linearly propagated tables against the one that differentiates through the model."""

from __future__ import annotations

import copy
from dataclasses import asdict

import pytest
import torch
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.operators.shared import acceptance, linear_acceptance, propagation
from graphunlearn.operators.shared.acceptance import Acceptance
from graphunlearn.operators.shared.linear_acceptance import LinearAcceptance, judging_of
from graphunlearn.operators.shared.warm_start import warm_start

LOSSES = [
    gu.BPR(weight_decay=0.01),
    gu.SampledBCE(negatives=2, weight_decay=0.1),
    gu.SampledSoftmax(negatives=4),
    gu.InBatchSoftmax(negatives=4),
]


@pytest.fixture(scope="module")
def case():
    graph = gu.datasets.synthetic_interactions(num_users=120, num_items=80, interactions_per_user=6, seed=0)
    torch.manual_seed(0)
    model = LightGCN(graph.num_nodes, 6, num_layers=2).double()
    request = gu.ForgetRequest.internal("user", torch.tensor([3, 5]))
    retained, _ = graph.split(request)
    deleted = copy.deepcopy(model)
    warm_start(deleted, graph, retained, 0, scale=False)
    corrected = copy.deepcopy(deleted)
    with torch.no_grad():
        corrected.embedding.weight[[7, 130, 140]] *= 1.5
        corrected.embedding.weight[3] += 0.1  # emptied
    return model, deleted, graph, retained, request, corrected


def figures(judge, model):
    found = judge.judge(model)
    return judge.record(found) | asdict(found)


def flat(values):
    if isinstance(values, dict):
        values = list(values.values())
    return [x for v in values for x in (flat(v) if isinstance(v, list | tuple | dict) else [v])]


@pytest.mark.parametrize("dense", [0.0, 10.0])
@pytest.mark.parametrize("sampled", [0, 1, 4])
@pytest.mark.parametrize("solves", [None, False])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_figures_are_those_of_the_general_acceptance(case, monkeypatch, loss, solves, sampled, dense):
    monkeypatch.setattr(propagation, "_DENSE", dense)
    monkeypatch.setattr(acceptance, "CHUNK", 100)
    if sampled:
        monkeypatch.setitem(acceptance.SAMPLED, "interactions", (60 // sampled, 40 // sampled))
        monkeypatch.setattr(acceptance, "undecided", lambda *given: given[-1] < sampled)
    model, deleted, graph, retained, request, corrected = case
    given = loss, model, deleted, graph, retained, request
    general = Acceptance(*given, solves=solves, seed=1)
    linear = judging_of(*given, solves=solves, seed=1)
    assert isinstance(linear, LinearAcceptance)
    assert linear.whole is not bool(sampled)
    for other in (corrected, deleted):
        found, expected = (flat(figures(judge, other)) for judge in (linear, general))
        for own, wanted in zip(found, expected, strict=True):
            assert own == (pytest.approx(wanted, rel=1e-7, abs=1e-12) if isinstance(wanted, float) else wanted)
    assert linear.times == general.times == max(sampled, 1)


def test_large_graphs_record_no_gradient(case, monkeypatch):
    monkeypatch.setattr(linear_acceptance, "_GRADIENT", 100)
    model, deleted, graph, retained, request, corrected = case
    judge = judging_of(gu.BPR(), model, deleted, graph, retained, request, solves=False, seed=0)
    found = judge.judge(corrected)
    assert (found.gradient, judge.steepness) == (None, None)
    assert found.share is not None


def test_other_losses_models_and_rules_are_differentiated_through(case):
    model, deleted, graph, retained, request, _ = case

    class Whole(gu.BPR):
        def __call__(self, encoded, samples):
            return super().__call__(encoded, samples) + encoded.items.square().mean()

    given = model, deleted, graph, retained, request
    assert type(judging_of(Whole(), *given, solves=False, seed=0)) is Acceptance
    assert type(judging_of(gu.BPR(), *given, solves=True, seed=0)) is Acceptance
    torch.manual_seed(0)
    other = gu.nn.build_model("ngcf", graph, 8, 2)
    judge = judging_of(gu.BPR(), other, other, graph, retained, request, solves=False, seed=0)
    assert type(judge) is Acceptance
