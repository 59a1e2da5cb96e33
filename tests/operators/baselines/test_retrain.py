"""Retraining is the reference: from the same initialisation, on what remains, with what may still be known."""

import copy

import pytest
import torch

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import BPR, FitSettings, build_model, fit, reset_parameters
from graphunlearn.operators import Retrain

SETTINGS = FitSettings(epochs=6, lr=0.05, patience=3, seed=4)


@pytest.fixture(scope="module")
def parts():
    whole = synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8, seed=0)
    return whole.random_split([0.8, 0.2], seed=0)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_retraining_is_training_on_what_remains(parts):
    train, validation = parts
    model = build_model("lightgcn", train, 6, 2)
    before = copy.deepcopy(model)
    request = ForgetRequest("user", train.user_ids[:5])
    objective = BPR(weight_decay=1e-3)
    result = Retrain(objective=objective, validation=validation, settings=SETTINGS).unlearn(model, train, request)

    reference = build_model("lightgcn", train, 6, 2)
    reset_parameters(reference, 4)
    retained, _ = train.split(request)
    heldout = validation.select(validation.pairs[0] >= 5)
    fitted = fit(reference, retained, validation=heldout, objective=objective, settings=SETTINGS)
    assert same(result.model, reference)
    assert same(model, before)
    assert result.log["best_epoch"] == fitted.best_epoch
    assert result.log["epochs"] == len(fitted.history)
    assert result.log["settings"]["seed"] == 4


def test_retraining_does_not_depend_on_what_was_trained(parts):
    train, _ = parts
    request = ForgetRequest("item", train.item_ids[:2])
    results = []
    for seed in (0, 1):
        model = build_model("lightgcn", train, 6, 2)
        reset_parameters(model, seed)
        fit(model, train, epochs=seed + 1)
        results.append(Retrain(settings=SETTINGS).unlearn(model, train, request).model)
    assert same(*results)


def test_another_seed_is_another_model(parts):
    train, _ = parts
    request = ForgetRequest("item", train.item_ids[:2])
    model = build_model("lightgcn", train, 6, 2)
    first, second = (Retrain(settings=FitSettings(epochs=2, seed=s)).unlearn(model, train, request) for s in (0, 1))
    assert not same(first.model, second.model)


def test_emptied_users_are_left_out_of_the_validation(parts):
    train, validation = parts
    forgotten = train.user_ids[:5]
    retained, _ = train.split(ForgetRequest("user", forgotten))
    left = validation.without_emptied(train, retained)
    assert not (left.pairs[0] < 5).any()
    assert left.num_interactions == int((validation.pairs[0] >= 5).sum()) < validation.num_interactions
    assert (left.num_users, left.num_items) == (validation.num_users, validation.num_items)


def test_users_who_keep_something_or_never_had_anything_stay_in_the_validation(parts):
    train, validation = parts
    own = (train.pairs[0] == 3).nonzero().view(-1)
    retained = train.select(~torch.isin(torch.arange(train.num_interactions), own[:-1]))
    assert torch.equal(validation.without_emptied(train, retained).pairs, validation.pairs)
    cold = train.select(train.pairs[0] != 3)  # user 3 was not in training to begin with
    less, _ = cold.split(ForgetRequest.internal("user", torch.tensor([8])))
    left = validation.without_emptied(cold, less)
    assert torch.equal(left.pairs, validation.pairs[:, validation.pairs[0] != 8])


def test_a_model_that_cannot_be_reset_is_refused(parts):
    from torch import nn

    from graphunlearn.nn import encode

    class Fixed(nn.Module):
        def __init__(self, graph):
            super().__init__()
            self.users = nn.Parameter(torch.randn(graph.num_users, 2))
            self.items = nn.Parameter(torch.randn(graph.num_items, 2))

    encode.register(Fixed, lambda model, graph: (model.users, model.items))
    train, _ = parts
    model = Fixed(train)
    before = copy.deepcopy(model)
    for inplace in (False, True):
        with pytest.raises(TypeError, match=r"'model' must have a reset_parameters\(\) method"):
            Retrain(settings=SETTINGS).unlearn(model, train, ForgetRequest("user", ["u0"]), inplace=inplace)
        assert same(model, before)


def test_what_forgotten_users_liked_does_not_stop_a_retraining(parts):
    """The best validation metric and its epoch are those of the remaining users, whatever the others' rows say."""
    train, validation = parts
    gone = torch.arange(25)
    request = ForgetRequest.internal("user", gone)
    model = build_model("lightgcn", train, 6, 2)
    left = validation.select(validation.pairs[0] >= 25)
    assert 0 < left.num_interactions < validation.num_interactions
    settings = FitSettings(epochs=25, lr=0.05, patience=4, seed=4)
    all_rows, remaining = (
        Retrain(validation=part, settings=settings).unlearn(model, train, request) for part in (validation, left)
    )
    for name in ("validation", "best_epoch", "epochs"):
        assert all_rows.log[name] == remaining.log[name]
    assert same(all_rows.model, remaining.model)


def test_clicks_on_forgotten_items_do_not_stop_a_retraining():
    """Nothing can be learned of them any more: they would hold the metric down in every epoch alike."""
    rows = [[(start + step * k) % 50 for k in range(6)] for start in range(50) for step in (1, 3)]
    clicks = [[start, (start + 1) % 50, (start + 2) % 50] for start in range(0, 50, 3)]
    train, held = (SessionGraph.from_sequences(part, num_items=50) for part in (rows, clicks))
    request = ForgetRequest.internal("item", torch.arange(10))
    left = held.without_emptied(train, train.split(request)[0])
    assert 0 < left.num_clicks < held.num_clicks
    model = build_model("gru4rec", train, 6)
    settings = FitSettings(epochs=8, lr=0.05, patience=3, seed=4)
    one, other = (
        Retrain(validation=part, settings=settings).unlearn(model, train, request).log for part in (held, left)
    )
    for name in ("validation", "best_epoch", "epochs"):
        assert one[name] == other[name]
