"""The training loop on sessions: it learns, stops, resumes and reproduces as it does on interactions."""

import pytest
import torch
from session_toys import CLASSES, random_sessions, session_graph
from toys import light_gcn, random_graph

from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.nn import (
    CrossEntropy,
    FitSettings,
    build_model,
    connect,
    default_settings,
    encode_prefixes,
    fit,
    recommend,
    reset_parameters,
)

NAMES = list(CLASSES)


@pytest.fixture(scope="module")
def graphs():
    return tuple(session_graph(random_sessions(count, 30, seed=seed), 30) for count, seed in ((120, 0), (30, 1)))


def fresh(name, seed=0, **options):
    model = CLASSES[name](30, 8, **options)
    reset_parameters(model, seed)
    return model


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_is_learnt(name):
    # the next item depends on the last two: up and down the same ladder
    rows = [[(start + step * t) % 20 for t in range(6)] for start in range(20) for step in (1, -1)]
    graph = session_graph(rows, 20)
    model = CLASSES[name](20, 16, dropout=0.0)
    reset_parameters(model, 0)
    result = fit(model, graph, epochs=60, batch_size=64, lr=0.005 if name == "bert4rec" else 0.01)
    assert result.history[-1]["loss"] < 0.6 * result.history[0]["loss"]
    top = recommend(model, session_graph([row[:5] for row in rows], 20), k=1)
    assert float((top[:, 0] == torch.tensor([row[5] for row in rows])).double().mean()) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_one_step_of_adam(graphs, name):
    train, _ = graphs
    model, reference = (fresh(name, dropout=0.0) for _ in range(2))
    result = fit(model, train, epochs=1, batch_size=10**6, lr=0.01)
    connect(reference, train)
    loss = CrossEntropy().losses(reference, train, CrossEntropy().samples(train)).mean()
    loss.backward()
    torch.optim.Adam(reference.parameters(), lr=0.01).step()
    assert result.history[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), reference.buffers()))
    for (key, a), b in zip(model.named_parameters(), reference.parameters()):
        # Adam's first step is lr times the sign of the gradient: where that is nothing, its sign is chance
        told = b.grad.abs() > 1e-6
        assert float(((a - b).abs() > 1e-4)[told].double().sum()) < 0.02 * a.numel(), key


@pytest.mark.parametrize("name", NAMES)
def test_the_best_epoch_is_restored(graphs, name):
    train, validation = graphs
    model = fresh(name)
    result = fit(model, train, validation=validation, epochs=25, batch_size=64, lr=0.05, patience=3)
    assert result.metric == "recall@20"
    curve = [record["recall@20"] for record in result.history]
    assert result.best == max(curve)
    assert result.best_epoch == curve.index(max(curve)) + 1
    assert len(curve) == min(25, result.best_epoch + 3)
    samples = CrossEntropy().samples(validation)
    with torch.no_grad():
        states, items, *_ = encode_prefixes(model, validation, samples.ends)
    ranks = target_ranks(states, items, samples.target)
    assert next_item_metrics(ranks, ks=(20,))["recall@20"] == pytest.approx(result.best)
    assert not model.training


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model(graphs, name):
    train, validation = graphs
    first, second, other = (fresh(name) for _ in range(3))
    state = torch.random.get_rng_state()
    for model, seed in ((first, 0), (second, 0), (other, 1)):
        fit(model, train, validation=validation, epochs=2, batch_size=64, seed=seed)
        assert torch.equal(state, torch.random.get_rng_state())  # dropout has draws of its own
        torch.randn(3)
        state = torch.random.get_rng_state()
    assert same(first, second)
    assert not same(first, other)


def test_dropout_differs_from_seed_to_seed_and_from_epoch_to_epoch(graphs):
    train, _ = graphs
    drawn = []

    class Watched(CrossEntropy):
        def losses(self, model, graph, samples):
            drawn.append(float(torch.rand(1)))
            return super().losses(model, graph, samples)

    for seed in (0, 0, 1):
        fit(fresh("srgnn"), train, objective=Watched(), epochs=3, batch_size=10**6, seed=seed)
    assert drawn[:3] == drawn[3:6]
    assert len(set(drawn)) == 6


class Interrupted(CrossEntropy):
    """Stops in the middle of an epoch."""

    at, calls = None, 0

    def __repr__(self):
        return repr(CrossEntropy())

    def losses(self, model, graph, samples):
        type(self).calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().losses(model, graph, samples)


@pytest.mark.parametrize("name", NAMES)
def test_resuming_ends_where_an_unbroken_run_ends(graphs, tmp_path, name, monkeypatch):
    train, validation = graphs
    settings = {"epochs": 6, "batch_size": 128, "lr": 0.02, "patience": 3, "validation": validation}
    unbroken, resumed = fresh(name), fresh(name)
    expected = fit(unbroken, train, **settings)
    steps = -(-len(CrossEntropy().samples(train)) // 128)
    monkeypatch.setattr(Interrupted, "at", 2 * steps + 2)
    monkeypatch.setattr(Interrupted, "calls", 0)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(name), train, objective=Interrupted(), checkpoint=tmp_path / "state", **settings)
    result = fit(resumed, train, checkpoint=tmp_path / "state", **settings)
    assert same(resumed, unbroken)
    assert result.history == expected.history
    with pytest.raises(ValueError, match=r"'checkpoint' must come from the same training run.*options"):
        fit(fresh(name, dropout=0.1), train, checkpoint=tmp_path / "state", **settings)


def test_settings_follow_the_kind_of_graph(graphs):
    train, validation = graphs
    settings = default_settings(train)
    assert settings.batch_size < FitSettings().batch_size
    assert default_settings(random_graph()) == FitSettings()
    default, given = fresh("gru4rec"), fresh("gru4rec")
    fit(default, train, validation=validation, epochs=2)
    fit(given, train, validation=validation, settings=settings, epochs=2)
    assert same(default, given)


def test_what_cannot_be_trained_or_judged(graphs):
    train, _ = graphs
    model, single = fresh("srgnn"), session_graph([[0], [1]], 30)
    with pytest.raises(ValueError, match=r"'graph' must hold something to learn from \(got only sessions of one"):
        fit(model, single)
    with pytest.raises(ValueError, match=r"'validation' must hold a session of two clicks or more \(got none\)"):
        fit(model, train, validation=single)
    with pytest.raises(ValueError, match=r"'validation' must have the items of 'graph', 30 \(got 31\)"):
        fit(model, train, validation=session_graph([[0, 1]], 31))
    with pytest.raises(ValueError, match=r"'validation' must be of the kind of 'graph' \(got SessionGraph and I"):
        fit(model, train, validation=random_graph())
    with pytest.raises(ValueError, match=r"'model' must be a session recommender for a SessionGraph \(got LightGCN\)"):
        fit(light_gcn(random_graph()).float(), train, epochs=1)
    with pytest.raises(ValueError, match=r"'model' must be a user–item recommender for an InteractionGraph \(got SR"):
        fit(model, random_graph(), epochs=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_diverging_loss_is_an_error(graphs, name):
    model = fresh(name)
    with torch.no_grad():
        model.embedding.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"the training loss became nan in epoch 1; lower 'lr'"):
        fit(model, graphs[0], epochs=2)


@pytest.mark.parametrize("name", NAMES)
def test_models_by_name_train(graphs, name):
    train, validation = graphs
    model = build_model(name, train, dim=8)
    result = fit(model, train, validation=validation, epochs=2)
    assert len(result.history) == 2
