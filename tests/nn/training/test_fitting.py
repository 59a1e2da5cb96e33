"""The training loop: it learns, stops, resumes and reproduces exactly as it says."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch_geometric.nn import LightGCN
from toys import TwoTower, Wrapped, light_gcn, random_graph

from graphunlearn.data import InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn import (
    BCE,
    BPR,
    FitSettings,
    MatrixFactorization,
    SquaredError,
    encode,
    fit,
    recommend,
    reset_parameters,
    score,
)
from graphunlearn.nn import fit as fit_function
from graphunlearn.nn.training.fitting import epochs_of_patience

fit_module = __import__("sys").modules[fit_function.__module__]


@pytest.fixture(scope="module")
def graphs():
    whole = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=0)
    return whole.random_split([0.8, 0.2], seed=0)


@pytest.fixture(scope="module")
def labelled():
    whole = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=0).binarize(3)
    return whole.random_split([0.8, 0.2], seed=0)


def fresh(graph, seed=0, layers=1):
    model = LightGCN(graph.num_nodes, 8, layers)
    reset_parameters(model, seed)
    return model


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---- learning


@pytest.mark.parametrize("objective", [BPR(), BCE(), SquaredError()], ids=["bpr", "bce", "squared"])
def test_the_loss_falls(labelled, objective):
    train, _ = labelled
    model = fresh(train)
    result = fit(model, train, objective=objective, epochs=30, lr=0.02)
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.9 * losses[0]
    final = float(objective(encode(model, train), objective.samples(train)).detach().mean())
    assert final < 0.95 * losses[0]


def test_what_is_learnt_is_found_again():
    # two communities that never mix: 24 users and 20 items each, half of the pairs of a community are known
    inside = torch.tensor([(u, i) for u in range(48) for i in range(40) if (u < 24) == (i < 20)]).t()
    known = torch.rand(inside.size(1), generator=torch.Generator().manual_seed(0)) < 0.5
    train, rest = (InteractionGraph.from_edges(inside[:, part], 48, 40) for part in (known, ~known))

    def share_inside(model):
        top = recommend(model, train, 5)
        return float(((top < 20) == (torch.arange(48) < 24)[:, None]).double().mean())

    model = MatrixFactorization(88, 8)  # an untrained LightGCN ranks by neighbours already
    assert share_inside(model) < 0.6  # items inside are half of all, less those seen
    fit(model, train, validation=rest, epochs=40, lr=0.05)
    assert share_inside(model) > 0.95


def test_one_step_is_one_step_of_adam(labelled):
    train, _ = labelled
    model, reference = fresh(train), fresh(train)
    fit(model, train, objective=BCE(), epochs=1, lr=0.01, batch_size=10**6)
    loss = BCE()(encode(reference, train), BCE().samples(train)).mean()
    loss.backward()
    torch.optim.Adam(reference.parameters(), lr=0.01).step()
    # float32; Adam's first step is lr times the sign of the gradient, so equal gradients are all it takes
    torch.testing.assert_close(model.embedding.weight, reference.embedding.weight, rtol=0, atol=1e-5)


def test_the_recorded_loss_is_the_mean_over_interactions(labelled):
    train, _ = labelled
    model = fresh(train)
    expected = float(BCE()(encode(model, train), BCE().samples(train)).detach().mean())
    result = fit(model, train, objective=BCE(), epochs=1, lr=1e-12, batch_size=37)  # uneven batches, frozen model
    assert result.history[0]["loss"] == pytest.approx(expected, rel=1e-5)  # float32 sums


def test_every_interaction_is_seen_once_per_epoch(graphs, monkeypatch):
    train, _ = graphs
    seen = []

    class Watched(BPR):
        def __call__(self, encoded, samples):
            seen.append(torch.stack([samples.users, samples.items]))
            return super().__call__(encoded, samples)

    fit(fresh(train), train, objective=Watched(), epochs=2, batch_size=100)
    per_epoch = math.ceil(train.num_interactions / 100)
    assert len(seen) == 2 * per_epoch
    wanted = sorted(map(tuple, train.pairs.t().tolist()))
    first, second = (torch.cat(part, 1) for part in (seen[:per_epoch], seen[per_epoch:]))
    assert sorted(map(tuple, first.t().tolist())) == sorted(map(tuple, second.t().tolist())) == wanted
    assert not torch.equal(first, second)  # in another order


@pytest.mark.parametrize("refresh", [True, False])
def test_negatives_are_refreshed_only_where_asked(graphs, refresh):
    train, _ = graphs
    drawn = []

    class Watched(BPR):
        def samples(self, graph, *, mask=None, epoch=None):
            drawn.append(epoch)
            return super().samples(graph, mask=mask, epoch=epoch)

    fit(fresh(train), train, objective=Watched(), epochs=3, refresh_negatives=refresh)
    assert drawn == ([None, 2, 3] if refresh else [None])  # the first epoch trains on the stored ones


def test_the_default_objective_follows_the_labels(graphs, labelled):
    for train, objective in ((graphs[0], BPR()), (labelled[0], BCE())):
        default, given = fresh(train), fresh(train)
        fit(default, train, epochs=2)
        fit(given, train, epochs=2, objective=objective)
        assert same(default, given)


def test_any_model_with_an_encoding_trains(labelled):
    train, validation = labelled
    model = TwoTower(train.num_users, train.num_items)
    reset_parameters(model, 0)
    before = model.tower.weight.clone()
    result = fit(model, train, validation=validation, epochs=5)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert not torch.equal(before, model.tower.weight)


# ---- validation


def metric_of(model, train, validation, metric):
    encoded = encode(model, train)
    if metric == "auroc":
        return auroc(score(encoded, validation.pairs).detach(), validation.label)
    top = recommend(model, train, 20)
    found, held = torch.zeros(train.num_users), torch.zeros(train.num_users)
    for user, item in validation.pairs.t().tolist():
        held[user] += 1
        found[user] += bool((top[user] == item).any())
    return float((found / held)[held > 0].mean())


@pytest.mark.parametrize("metric", ["auroc", "recall@20"])
def test_the_best_epoch_is_restored(graphs, labelled, metric):
    train, validation = labelled if metric == "auroc" else graphs
    model = fresh(train)
    result = fit(model, train, validation=validation, epochs=25, lr=0.05, patience=4)
    assert result.metric == metric
    curve = [record[metric] for record in result.history]
    assert result.best == max(curve)
    assert result.best_epoch == curve.index(max(curve)) + 1
    assert result.best_epoch < len(curve)  # so that there is something to restore
    assert metric_of(model, train, validation, metric) == pytest.approx(result.best, abs=1e-6)
    again = fresh(train)
    fit(again, train, validation=validation, epochs=result.best_epoch, lr=0.05, patience=4)
    assert same(again, model)


def watched(monkeypatch, untrained, *curve, popular=0.0):
    """Let the validation metric be these values, the last one of them that of popularity."""
    values = iter([untrained, *curve])

    def auroc(scores, _):
        return popular if torch.equal(scores, scores.round()) else next(values)

    monkeypatch.setattr(fit_module, "auroc", auroc)


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_patience_epochs_without_a_better_one(labelled, monkeypatch, patience):
    train, validation = labelled
    watched(monkeypatch, 0.4, 0.5, 0.6, 0.55, 0.6, 0.7, 0.1, 0.1, 0.7, 0.69, 0.1, 0.1, 0.9)
    result = fit(fresh(train), train, validation=validation, epochs=50, patience=patience, lr=0.1)
    # an equal value is not a better one
    assert (len(result.history), result.best_epoch) == {1: (3, 2), 3: (8, 5)}[patience]
    assert result.untrained == 0.4


@pytest.mark.parametrize(
    ("patience", "lr", "batch_size", "epochs"),
    [
        (1, 0.01, 8192, 10),
        (2, 0.01, 8192, 20),
        (2, 0.1, 8192, 2),
        (2, 0.01, 200, 7),
        (5, 0.01, 20, 5),
        (1, 0.04, 300, 2),
    ],
)
def test_an_epoch_of_patience_is_so_many_steps(labelled, monkeypatch, patience, lr, batch_size, epochs):
    train, validation = labelled
    steps = math.ceil(train.num_interactions / batch_size)
    assert epochs == max(patience, math.ceil(round(0.1 / lr * patience / steps, 9)))
    settings = FitSettings(patience=patience, lr=lr, batch_size=batch_size)
    assert epochs_of_patience(settings, train.num_interactions) == epochs
    watched(monkeypatch, 0.1, 0.5, *[0.3] * 60)
    result = fit(fresh(train), train, validation=validation, settings=settings, epochs=50)
    assert (len(result.history), result.best_epoch) == (1 + epochs, 1)


def test_training_has_five_times_the_patience_until_the_untrained_metric_is_beaten(labelled, monkeypatch):
    train, validation = labelled
    settings = {"validation": validation, "patience": 2, "lr": 0.1}
    watched(monkeypatch, 0.6, 0.5, *[0.3] * 5, 0.6, 0.4, 0.7, 0.65, 0.64, 0.9)
    result = fit(fresh(train), train, epochs=50, **settings)
    assert (len(result.history), result.best_epoch, result.best) == (11, 9, 0.7)  # an equal value does not beat it
    watched(monkeypatch, 0.6, 0.5, *[0.3] * 20)
    with pytest.warns(
        UserWarning, match="lower auroc .*, 0.5000 at most, than .* started from, 0.6000: these were kept"
    ):
        assert len(fit(fresh(train), train, epochs=50, **settings).history) == 10
    watched(monkeypatch, 0.6, *[0.1 + 0.01 * n for n in range(30)], *[0.2] * 9)  # while it rises, it goes on
    with pytest.warns(UserWarning, match="these were kept"):
        assert len(fit(fresh(train), train, epochs=50, **settings).history) == 32


@pytest.mark.parametrize("metric", ["auroc", "recall@20"])
def test_what_training_makes_worse_is_not_returned(graphs, labelled, metric):
    train, validation = labelled if metric == "auroc" else graphs
    model = fresh(train)
    trained = fit(model, train, validation=validation, epochs=60, lr=0.02)
    given = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="these were kept"):
        result = fit(model, train, validation=validation, epochs=200, lr=0.5, patience=2)
    assert len(result.history) <= 10
    assert (result.best_epoch, result.best) == (0, result.untrained)
    assert result.best == pytest.approx(trained.best)
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_newly_drawn_parameters_are_not_kept(labelled, monkeypatch):
    train, validation = labelled
    watched(monkeypatch, 0.6, 0.4, 0.5, 0.3)
    model = fresh(train)
    result = fit(model, train, validation=validation, epochs=3, lr=0.1, fresh=True)
    assert (result.best_epoch, result.best, result.untrained) == (2, 0.5, 0.6)
    assert not same(model, fresh(train))


def test_a_resumed_training_keeps_the_parameters_given(labelled, monkeypatch, tmp_path):
    train, validation = labelled
    settings = {"validation": validation, "patience": 2, "lr": 0.1, "checkpoint": tmp_path / "state"}
    watched(monkeypatch, 0.6, 0.5, 0.4, 0.4)
    model, given = fresh(train, seed=3), fresh(train, seed=3)
    with pytest.warns(UserWarning, match="these were kept"):
        fit(model, train, epochs=3, **settings)
    assert same(model, given)
    watched(monkeypatch, *[0.3] * 20)
    with pytest.warns(UserWarning, match="these were kept"):
        result = fit(model, train, epochs=50, **settings)
    assert (len(result.history), result.best_epoch, result.best, result.untrained) == (10, 0, 0.6, 0.6)
    assert same(model, given)


@pytest.mark.filterwarnings("ignore:every epoch had a lower")
def test_a_resumed_training_remembers_the_untrained_metric(labelled, monkeypatch, tmp_path):
    train, validation = labelled
    settings = {"validation": validation, "patience": 2, "lr": 0.1, "checkpoint": tmp_path / "state"}
    watched(monkeypatch, 0.6, 0.5, 0.4, 0.4)
    fit(fresh(train), train, epochs=3, **settings)
    watched(monkeypatch, 0.4, 0.4, 0.7, 0.1, 0.1, 0.9)  # it is not measured again
    result = fit(fresh(train), train, epochs=50, **settings)
    assert (len(result.history), result.best_epoch, result.untrained) == (8, 6, 0.6)


@pytest.mark.parametrize("metric", ["auroc", "recall@20"])
def test_training_below_popularity_warns(graphs, labelled, metric):
    train, validation = labelled if metric == "auroc" else graphs
    counts = torch.bincount(train.pairs[1, train.label == 1] if metric == "auroc" else train.pairs[1], minlength=40)
    if metric == "auroc":
        wanted = auroc(counts[validation.pairs[1]], validation.label)
    else:
        ranker = Ranker(train, validation, ks=(20,), metrics=("recall",))
        wanted = ranker(torch.ones(60, 1), counts[:, None].float())["recall@20"]
    backwards = fresh(train)
    with torch.no_grad():  # users along the first axis, items by how unpopular they are
        backwards.embedding.weight[:] = 0
        backwards.embedding.weight[:60, 0], backwards.embedding.weight[60:, 0] = 1, -counts.float()
    with pytest.warns(UserWarning, match=f"training ended with {metric} .* below the .* of recommending the items"):
        result = fit(backwards, train, validation=validation, epochs=1, lr=1e-9)
    assert result.best < result.popularity == pytest.approx(wanted)
    forwards = fresh(train)
    with torch.no_grad():
        forwards.embedding.weight[:] = 0
        forwards.embedding.weight[:60, 0], forwards.embedding.weight[60:, 0] = 1, counts.float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(MatrixFactorization(100, 8).double(), train, epochs=1)  # without validation there is nothing to compare
        alike = MatrixFactorization(100, 8)
        alike.embedding.load_state_dict(forwards.embedding.state_dict())
        assert fit(alike, train, validation=validation, epochs=1, lr=1e-9).best == pytest.approx(wanted)


def test_without_validation_all_epochs_are_run(graphs):
    train, _ = graphs
    result = fit(fresh(train), train, epochs=15, patience=1)
    assert (result.metric, result.best, result.best_epoch, len(result.history)) == (None, None, 15, 15)
    empty = train.select(torch.zeros(train.num_interactions, dtype=torch.bool))
    assert fit(fresh(train), train, validation=empty, epochs=2).metric is None


def test_validation_that_judges_nothing_is_refused(graphs, labelled):
    train, _ = graphs
    with pytest.raises(ValueError, match="'validation' must hold a positive interaction that 'graph' does not hold"):
        fit(fresh(train), train, validation=train, epochs=2)
    _, validation = labelled
    negatives = validation.select(validation.label == 0)
    with pytest.raises(ValueError, match="'validation' must hold a positive interaction"):
        fit(fresh(labelled[0]), labelled[0], validation=negatives, epochs=2)


def test_validation_of_another_size_is_refused(labelled):
    train, _ = labelled
    other = random_graph()
    with pytest.raises(
        ValueError, match=r"'validation' must have the users and items of 'graph', \(60, 40\) \(got \(7"
    ):
        fit(fresh(train), train, validation=other, epochs=2)


# ---- reproducing


def test_the_same_seed_gives_the_same_model(graphs):
    train, validation = graphs
    first, second, other = fresh(train), fresh(train), fresh(train)
    for model, seed in ((first, 0), (second, 0), (other, 1)):
        fit(model, train, validation=validation, epochs=4, batch_size=64, seed=seed)
        torch.randn(3)  # whatever else draws in between
    assert same(first, second)
    assert not same(first, other)


def test_training_leaves_global_randomness_alone(graphs):
    train, validation = graphs
    model = fresh(train)
    state = torch.random.get_rng_state()
    fit(model, train, validation=validation, epochs=2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_reset_parameters_reproduces_and_leaves_global_randomness_alone():
    class Silent(nn.Module):
        """No reset of its own, but all of its parts have one."""

        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(5, 2), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))

    for make in (lambda: LightGCN(9, 4, 2), lambda: MatrixFactorization(9, 4), Silent):
        first, second = make(), make()
        assert not same(first, second)
        state = torch.random.get_rng_state()
        reset_parameters(first, 3)
        reset_parameters(second, 3)
        assert torch.equal(state, torch.random.get_rng_state())
        assert same(first, second)
        reset_parameters(second, 4)
        assert not same(first, second)


def test_reset_parameters_is_that_of_the_model_wherever_it_sits():
    # LightGCN draws its table from a uniform distribution, its nn.Embedding alone would from a normal one
    wrapped = Wrapped(LightGCN(9, 4, 2))
    plain = LightGCN(9, 4, 2)
    reset_parameters(wrapped, 3)
    reset_parameters(plain, 3)
    assert torch.equal(wrapped.inner.embedding.weight, plain.embedding.weight)


def test_reset_parameters_covers_every_parameter():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.free = nn.Embedding(5, 2), nn.Parameter(torch.zeros(3))

    with pytest.raises(
        TypeError, match=r"'model' must have a reset_parameters\(\) method.*got Half, with free that no method"
    ):
        reset_parameters(Half(), 0)
    half = Half()
    half.free.requires_grad_(False)
    reset_parameters(half, 0)  # what is not trained need not be drawn anew


# ---- interruptions


class Interrupted(BPR):
    """Stops in the middle of the second step of an epoch."""

    at = None
    calls = 0

    def __repr__(self):
        return repr(BPR())

    def __call__(self, encoded, samples):
        type(self).calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().__call__(encoded, samples)


@pytest.mark.parametrize("with_validation", [True, False])
def test_resuming_ends_where_an_unbroken_run_ends(graphs, tmp_path, with_validation, monkeypatch):
    train, validation = graphs
    settings = {"epochs": 8, "batch_size": 128, "lr": 0.05, "patience": 3}
    settings |= {"validation": validation} if with_validation else {}
    unbroken = fresh(train)
    expected = fit(unbroken, train, objective=BPR(), **settings)
    steps = math.ceil(train.num_interactions / 128)
    for broken_at in (2, 3 * steps + 2):  # in the first epoch, before anything is stored, and in the fourth
        path = tmp_path / f"broken{broken_at}"
        monkeypatch.setattr(Interrupted, "at", broken_at)
        monkeypatch.setattr(Interrupted, "calls", 0)
        with pytest.raises(KeyboardInterrupt):
            fit(fresh(train), train, objective=Interrupted(), checkpoint=path, **settings)
        resumed = fresh(train, seed=99) if broken_at > steps else fresh(train)
        result = fit(resumed, train, objective=BPR(), checkpoint=path, **settings)
        assert same(resumed, unbroken)
        assert result.history == expected.history
        assert (result.best, result.best_epoch, result.metric) == (expected.best, expected.best_epoch, expected.metric)


def test_more_epochs_go_on(graphs, tmp_path):
    train, validation = graphs
    whole, parts = fresh(train), fresh(train)
    expected = fit(whole, train, validation=validation, epochs=6)
    first = fit(parts, train, validation=validation, epochs=3, checkpoint=tmp_path / "state")
    assert first.history == expected.history[:3]
    second = fit(parts, train, validation=validation, epochs=6, checkpoint=tmp_path / "state")
    assert second.history == expected.history
    assert same(whole, parts)
    third = fit(fresh(train, seed=5), train, validation=validation, epochs=6, checkpoint=tmp_path / "state")
    assert third.history == expected.history  # finished: nothing is left to do
    assert third.seconds == second.seconds


def test_a_stopped_training_stays_stopped(labelled, tmp_path):
    train, validation = labelled
    arguments = {"validation": validation, "epochs": 200, "lr": 0.1, "patience": 2, "checkpoint": tmp_path / "state"}
    model, again = fresh(train), fresh(train, seed=7)
    first = fit(model, train, **arguments)
    assert len(first.history) < 200
    second = fit(again, train, **arguments)
    assert len(second.history) == len(first.history)
    assert same(model, again)


def test_fewer_epochs_than_done_are_refused(graphs, tmp_path):
    train, _ = graphs
    fit(fresh(train), train, epochs=4, checkpoint=tmp_path / "state")
    model, untouched = fresh(train), fresh(train)
    with pytest.raises(ValueError, match=r"'epochs' must not be below the 4 epochs in state.safetensors \(got 2\)"):
        fit(model, train, epochs=2, checkpoint=tmp_path / "state")
    assert same(model, untouched)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.02}, "lr"),
        ({"batch_size": 64}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"patience": 4}, "patience"),
        ({"refresh_negatives": False}, "refresh_negatives"),
        ({"objective": BPR(negatives=2)}, "objective"),
        ({"validation": None}, "validation"),
        ({"graph": "less"}, "graph"),
        ({"model": "wider"}, "model"),
        ({"model": "deeper"}, "model"),
    ],
    ids=lambda x: str(x),
)
def test_the_checkpoint_of_another_training_is_refused(graphs, tmp_path, change, named):
    train, validation = graphs
    arguments = {"validation": validation, "objective": BPR(), "epochs": 2, "checkpoint": tmp_path / "state"}
    fit(fresh(train), train, **arguments)
    change = dict(change)
    graph = train.select(torch.arange(100)) if change.pop("graph", None) else train
    kind = change.pop("model", None)
    model = {None: lambda: fresh(train), "wider": lambda: LightGCN(100, 9, 1), "deeper": lambda: fresh(train, layers=2)}
    stored = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"'checkpoint' must come from.*got state.safetensors with another.*{named}"):
        fit(model[kind](), graph, **(arguments | change))
    assert (tmp_path / "state.safetensors").read_bytes() == stored


def test_checkpoints_keep_their_names_apart(graphs, tmp_path):
    train, _ = graphs
    for lr in (0.01, 0.02):
        fit(fresh(train), train, epochs=1, lr=lr, checkpoint=tmp_path / f"lr{lr}")
    fit(fresh(train), train, epochs=1, checkpoint=str(tmp_path / "whole.safetensors"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "lr0.01.safetensors",
        "lr0.02.safetensors",
        "whole.safetensors",
    ]


# ---- what cannot be trained


@pytest.mark.parametrize("objective", [BCE(), SquaredError()], ids=["bce", "squared"])
def test_a_diverging_loss_is_an_error(labelled, objective):
    train, _ = labelled
    model = fresh(train)
    with torch.no_grad():
        model.embedding.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"the training loss became nan in epoch 1; lower 'lr'"):
        fit(model, train, objective=objective, epochs=3)
    with pytest.raises(FloatingPointError, match=r"the training loss became (inf|nan) in epoch \d"):
        fit(fresh(train), train, objective=SquaredError(), epochs=5, lr=1e30)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", 0),
        ("batch_size", -3),
        ("patience", 0),
        ("lr", 0.0),
        ("lr", -1.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
    ],
)
def test_settings_out_of_range_are_refused(graphs, name, value):
    with pytest.raises(ValueError, match=rf"'{name}' must be (a )?positive.*\(got {value!r}\)"):
        FitSettings(**{name: value})
    with pytest.raises(ValueError, match=f"'{name}'"):
        fit(fresh(graphs[0]), graphs[0], **{name: value})


def test_a_misspelt_setting_is_refused(graphs):
    with pytest.raises(TypeError, match="epoch"):
        fit(fresh(graphs[0]), graphs[0], epoch=3)


def test_single_fields_change_the_settings_given(graphs):
    train, _ = graphs
    settings = FitSettings(epochs=2, lr=0.05)
    result = fit(fresh(train), train, settings=settings, epochs=3)
    assert len(result.history) == 3
    assert settings == FitSettings(epochs=2, lr=0.05)


def test_an_empty_graph_is_refused():
    graph = InteractionGraph.from_edges(torch.empty(2, 0, dtype=torch.long), 3, 4)
    with pytest.raises(ValueError, match=r"'graph' must hold at least one interaction to train on \(got none\)"):
        fit(MatrixFactorization(7, 2), graph)


def test_a_graph_that_does_not_fit_the_model_is_refused(graphs):
    with pytest.raises(ValueError, match="'graph' must have as many nodes as LightGCN has embeddings, 13"):
        fit(light_gcn(random_graph()).float(), graphs[0], epochs=1)
