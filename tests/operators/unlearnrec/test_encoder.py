"""The influence encoder: its pass, its losses, and how its state is chosen."""

import pytest
import torch
from torch import nn

from graphunlearn.operators.unlearnrec.encoder import EncoderSettings, InfluenceEncoder, pretrain_encoder
from graphunlearn.operators.unlearnrec.features import NUM_FEATURES


def simulated(seed, kinds=2, requests=3, size=20):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for kind in range(kinds):
        features = [torch.randn(size, NUM_FEATURES, generator=generator) for _ in range(requests)]
        made.append([(x, x[:, 0] * 2 - x[:, 3] + kind) for x in features])
    return made


def filled(context=True, seed=0):
    torch.manual_seed(seed)
    encoder = InfluenceEncoder(hidden=5, context=context).double()
    encoder.center.normal_()
    encoder.scale.uniform_(0.5, 2)
    encoder.output.copy_(torch.tensor([0.7, 1.9]))
    return encoder


@pytest.mark.parametrize("context", [True, False])
def test_the_pass_equals_a_naive_one_interaction_by_interaction(context):
    encoder = filled(context)
    features = 3 * torch.randn(7, NUM_FEATURES, dtype=torch.float64)
    layers = [module for module in encoder.network if isinstance(module, nn.Linear)]
    standard = [
        [max(-4.0, min(4.0, float((x - c) / s))) for x, c, s in zip(row, encoder.center, encoder.scale)]
        for row in features
    ]
    mean = [sum(column) / 7 for column in zip(*standard)]
    expected = []
    for row in standard:
        x = torch.tensor(row + mean * context, dtype=torch.float64)
        for layer in layers[:-1]:
            x = layer.weight @ x + layer.bias
            x = x / (1 + torch.exp(-x))
        expected.append(float(0.7 + 1.9 * (layers[-1].weight @ x + layers[-1].bias)[0]))
    torch.testing.assert_close(encoder(features), torch.tensor(expected, dtype=torch.float64))


def test_the_order_of_a_request_does_not_matter_and_the_empty_one_has_no_answer():
    encoder, features = filled(), torch.randn(9, NUM_FEATURES, dtype=torch.float64)
    order = torch.randperm(9)
    torch.testing.assert_close(encoder(features[order]), encoder(features)[order])
    assert encoder(features[:0]).shape == (0,)


def test_the_context_tells_requests_apart_and_can_be_left_out():
    features = torch.randn(6, NUM_FEATURES, dtype=torch.float64)
    for context in (True, False):
        encoder = filled(context)
        alone, among = encoder(features[:1]), encoder(features)[:1]
        assert torch.allclose(alone, among) is not context


@pytest.mark.parametrize(("probability", "logit"), [(2.0, 1.0), (1.0, 0.0), (0.0, 3.0)])
def test_the_loss_equals_a_loop_and_its_gradient_finite_differences(probability, logit):
    settings, encoder = EncoderSettings(probability=probability, logit=logit), filled()
    answer, target = torch.randn(8, dtype=torch.float64, requires_grad=True), torch.randn(8, dtype=torch.float64)
    expected = 0.0
    for a, t in zip(answer.tolist(), target.tolist()):
        far = abs(a - t) / 1.9
        expected += probability * abs(1 / (1 + torch.tensor(-a).exp()) - 1 / (1 + torch.tensor(-t).exp())) / 8
        expected += logit * (0.5 * far**2 if far < 1 else far - 0.5) / 8
    assert float(settings.loss(encoder, answer, target)) == pytest.approx(float(expected), rel=1e-6)
    assert torch.autograd.gradcheck(lambda a: settings.loss(encoder, a, target), (answer,))


def test_training_learns_what_there_is_to_learn():
    encoder = InfluenceEncoder(hidden=32, context=False)
    history = pretrain_encoder(
        encoder,
        simulated(0, kinds=1, size=400),
        simulated(1, kinds=1),
        EncoderSettings(steps=600, batch_size=256, patience=100),
    )
    assert history[-1]["held_out"] < 0.5 * history[0]["held_out"]


def test_the_state_kept_is_the_best_on_held_out_requests():
    encoder, held_out = InfluenceEncoder(hidden=8), simulated(1)
    settings = EncoderSettings(steps=300, lr=0.2, patience=100)  # a rate that makes it jump about
    history = pretrain_encoder(encoder, simulated(0), held_out, settings)
    with torch.no_grad():
        losses = [sum(float(settings.loss(encoder, encoder(x), t)) for x, t in kind) / 3 for kind in held_out]
    assert sum(losses) / 2 == pytest.approx(min(look["held_out"] for look in history), rel=1e-5)


def test_patience_ends_training():
    encoder = InfluenceEncoder(hidden=8)
    noise = [[(torch.randn(50, NUM_FEATURES), torch.randn(50))]]
    history = pretrain_encoder(encoder, noise, simulated(1), EncoderSettings(steps=5000, patience=2))
    assert len(history) < 100


def test_the_same_seed_gives_the_same_encoder_whatever_the_global_state():
    made = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        encoder = InfluenceEncoder(hidden=8)
        state = torch.get_rng_state()
        pretrain_encoder(encoder, simulated(0), simulated(1), EncoderSettings(steps=60))
        assert torch.equal(torch.get_rng_state(), state)
        made.append(encoder.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_kinds_count_the_same_whatever_their_size():
    """Two kinds of ten interactions outvote one of a thousand: the answer goes their way."""
    x = torch.zeros(1000, NUM_FEATURES)
    few, many = [(x[:10], torch.ones(10))], [(x, -torch.ones(1000))]
    encoder, settings = InfluenceEncoder(hidden=16), EncoderSettings(steps=600, lr=0.02, patience=100)
    pretrain_encoder(encoder, [few, few, many], [few, few, many], settings)
    with torch.no_grad():
        assert float(encoder(x[:1])) > 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": 0.0, "logit": 0.0}, "nor both 0"),
        ({"logit": -1.0}, "must not be negative"),
        ({"steps": 0}, "'steps' must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EncoderSettings(**changes)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="at least one request"):
        pretrain_encoder(InfluenceEncoder(), [[]], simulated(0), EncoderSettings())
    with pytest.raises(ValueError, match="'hidden' must be at least 1"):
        InfluenceEncoder(hidden=0)
