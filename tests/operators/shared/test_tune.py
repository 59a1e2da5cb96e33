"""Fine-tuning: the terms against loops, what moves, and what is switched off."""

import math

import pytest
import torch
from torch import nn
from toys import light_gcn, random_graph

from graphunlearn.nn import BPR, NGCF, SimGCL, auxiliary_loss, encode, score
from graphunlearn.operators.shared.tune import TuneSettings, tune


def case():
    graph = random_graph(14, 11, 60, values=False)
    model, pairs = light_gcn(graph, dim=4, scale=0.5), torch.tensor([[0, 1, 2], [3, 4, 5]])
    return graph, model, pairs, torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)


def test_the_terms_of_the_first_step_equal_loops():
    graph, model, pairs, target = case()
    with torch.no_grad():
        encoded = encode(model, graph)
        objective = BPR(weight_decay=0.01)
        samples = objective.samples(graph, epoch=1_000_001)
        risk = float(objective(encoded, samples).mean())
        gaps = (score(encoded, pairs) - target).abs().tolist()
    expected = sum(0.5 * g * g if g < 1 else g - 0.5 for g in gaps) / 3
    history = tune(model, graph, pairs, lambda _: target, objective, TuneSettings(epochs=1, batch_size=1000))
    assert history[0]["risk"] == pytest.approx(risk)
    assert history[0]["target"] == pytest.approx(expected)
    assert history[0]["preserve"] == pytest.approx(0.0, abs=1e-12)


def test_the_risk_includes_the_contrastive_loss_of_the_model():
    graph, _, pairs, target = case()
    model, objective = SimGCL(graph.num_nodes, 4, 2).double(), BPR()
    with torch.no_grad():
        order = torch.randperm(60, generator=torch.Generator().manual_seed(3 * 1_000_003 + 1))
        samples = objective.samples(graph, epoch=1_000_001).select(order)
        extra = auxiliary_loss(model, graph, samples, seed=3, epoch=1_000_001, step=0)
        risk = objective(encode(model, graph), samples).mean() + extra
    assert float(extra) > 0
    settings = TuneSettings(epochs=1, batch_size=1000, seed=3)
    history = tune(model, graph, pairs, lambda _: target, objective, settings)
    assert history[0]["risk"] == pytest.approx(float(risk))


def test_preservation_is_the_mean_squared_change_of_the_scores_in_the_batch():
    graph, model, pairs, target = case()
    with torch.no_grad():
        before = encode(model, graph)
    settings = TuneSettings(epochs=1, batch_size=30, risk=0.0, lr=0.05)
    other = light_gcn(graph, dim=4, scale=0.5)
    tune(other, graph, pairs, lambda _: target, BPR(), TuneSettings(epochs=1, batch_size=60, risk=0.0, lr=0.05))
    with torch.no_grad():
        after = encode(other, graph)  # one step, as after the first half of the batches below
    history = tune(model, graph, pairs, lambda _: target, BPR(), settings)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))[30:]
    samples = BPR().samples(graph, epoch=1_000_001).select(order)
    changes = []
    for user, item, negatives in zip(samples.users, samples.items, samples.negatives):
        moved = [
            after.queries[user] @ after.items[j] - before.queries[user] @ before.items[j] for j in [item, *negatives]
        ]
        changes += [float(change) ** 2 for change in moved]
    assert history[0]["preserve"] == pytest.approx(0.5 * sum(changes) / len(changes), rel=1e-6)


def test_targets_are_approached_and_asked_for_every_epoch():
    graph, model, pairs, target = case()
    asked = []

    def targets(encoded):
        asked.append(encoded.queries.clone())
        return target

    history = tune(model, graph, pairs, targets, BPR(), TuneSettings(epochs=30, lr=0.05, preserve=0.0, risk=0.0))
    assert len(asked) == 30 and not torch.equal(asked[0], asked[-1])
    assert history[-1]["target"] < 0.2 * history[0]["target"]


@pytest.mark.parametrize("term", ["risk", "target", "preserve"])
def test_a_weight_of_zero_switches_a_term_off(term):
    graph, model, pairs, target = case()
    weights = {"risk": 1.0, "target": 1.0, "preserve": 1.0, term: 0.0}
    history = tune(model, graph, pairs, lambda _: target, BPR(), TuneSettings(epochs=2, lr=0.05, **weights))
    assert history[-1][term] == 0.0
    assert all(history[-1][name] > 0 for name in weights if name != term)


def test_with_all_terms_off_or_no_epochs_nothing_moves():
    graph, model, pairs, target = case()
    before = model.embedding.weight.detach().clone()
    tune(model, graph, pairs, lambda _: target, BPR(), TuneSettings(epochs=0))
    tune(model, graph, pairs, lambda _: target, BPR(), TuneSettings(epochs=1, risk=0, target=0, preserve=0))
    assert torch.equal(model.embedding.weight, before)


def test_only_the_table_of_a_deeper_model_moves():
    graph, _, pairs, target = case()
    model = NGCF(graph.num_nodes, 4, 2).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tune(model, graph, pairs, lambda _: target, BPR(), TuneSettings(epochs=1))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"embedding.weight"}
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_same_seed_gives_the_same_rows():
    graph, _, pairs, target = case()
    made = []
    for seed in (0, 0, 1):
        model = light_gcn(graph, dim=4, scale=0.5)
        tune(model, graph, pairs, lambda _: target, BPR(), TuneSettings(epochs=2, batch_size=20, seed=seed))
        made.append(model.embedding.weight.detach())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_by_default_there_are_three_epochs_with_every_term():
    graph, model, pairs, target = case()
    history = tune(model, graph, pairs, lambda _: target, BPR(), TuneSettings())
    assert [entry["epoch"] for entry in history] == [1.0, 2.0, 3.0]
    assert all(history[-1][name] > 0 for name in ("risk", "target", "preserve"))


def test_the_smallest_settings_are_served():
    graph, model, pairs, target = case()
    settings = TuneSettings(epochs=1, batch_size=1, lr=1e-6, preserve=0.0)
    (entry,) = tune(model, graph, pairs, lambda _: target, BPR(), settings)
    with torch.no_grad():
        risk = BPR()(encode(model, graph), BPR().samples(graph, epoch=1_000_001)).mean()
    assert entry["risk"] == pytest.approx(float(risk), rel=1e-3)  # the steps are tiny


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "'epochs' must not be negative"),
        ({"lr": 0.0}, "'lr' must be positive"),
        ({"batch_size": 0}, "'batch_size' must be at least 1"),
        ({"target": -1.0}, "'target' must be finite"),
        ({"risk": math.inf}, "'risk' must be finite"),
        ({"preserve": math.nan}, "'preserve' must be finite"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TuneSettings(**changes)


def test_a_model_without_reachable_rows_is_refused():
    graph, _, pairs, target = case()
    with pytest.raises(ValueError, match=r"got Linear with none that can be reached"):
        tune(nn.Linear(2, 2), graph, pairs, lambda _: target, BPR(), TuneSettings())
