"""Training from new parameters, by this package or by the author of the model."""

import pytest
import torch
from torch import nn

import graphunlearn as gu
from graphunlearn.nn.origin import Origin, give_origin
from graphunlearn.nn.training.anew import train_anew
from graphunlearn.operators import Retrain

QUICK = gu.nn.FitSettings(epochs=3, seed=5)


@pytest.fixture
def graph():
    return gu.datasets.synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5, seed=0)


def built(graph):
    return gu.nn.MatrixFactorization(graph.num_nodes, 4)


def test_without_a_training_of_its_own_it_is_reset_and_fit(graph):
    one, other = built(graph), built(graph)
    result = train_anew(one, graph, objective=gu.BPR(), settings=QUICK)
    gu.nn.reset_parameters(other, 5)
    expected = gu.fit(other, graph, objective=gu.BPR(), settings=QUICK, fresh=True)
    assert torch.equal(one.embedding.weight, other.embedding.weight)
    assert (result.best_epoch, len(result.history)) == (expected.best_epoch, 3)


def test_its_own_training_gets_graph_seed_and_validation(graph):
    seen = []

    def own(data, seed, validation):
        seen.append((data, seed, validation))
        assert torch.is_grad_enabled()
        made = built(data)
        nn.init.constant_(made.embedding.weight, seed)
        return made

    model = built(graph)
    give_origin(model, Origin(lambda: built(graph), own))
    result = train_anew(model, graph, validation=graph, settings=QUICK)
    assert seen == [(graph, 5, graph)]
    assert bool((model.embedding.weight == 5).all())
    assert not model.training
    assert (result.best, result.history) == (None, [])
    request = gu.ForgetRequest("user", ["u3"])
    after = Retrain(settings=QUICK).unlearn(model, graph, request)
    assert seen[-1][0].fingerprint() == graph.split(request)[0].fingerprint()
    assert after.log == {"settings": {"seed": 5}}


@pytest.mark.parametrize(
    ("made", "error", "match"),
    [
        (lambda: 3, ValueError, r"'retrain' must return a model \(got a int\)"),
        (
            lambda: gu.nn.MatrixFactorization(9, 4),
            ValueError,
            r"of which 'embedding.weight' is \[35, 4\] \(got \[9, 4\]",
        ),
        (lambda: nn.Linear(2, 1), ValueError, "of which 'bias' is None"),
        (
            lambda: nan(gu.nn.MatrixFactorization(35, 4)),
            FloatingPointError,
            r"NaN or infinity in embedding.weight, seed 5",
        ),
    ],
)
def test_another_model_is_refused(graph, made, error, match):
    model = built(graph)
    give_origin(model, Origin(lambda: built(graph), lambda data, seed, validation: made()))
    with pytest.raises(error, match=match):
        train_anew(model, graph, settings=QUICK)


def nan(model):
    with torch.no_grad():
        model.embedding.weight[0, 0] = torch.nan
    return model
