"""The baselines on sessions do what they say and nothing else."""

import copy

import pytest
import torch
from session_toys import random_sessions, session_graph, session_model

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.nn import CrossEntropy, FitSettings, default_settings, encode, fit, reset_parameters
from graphunlearn.operators import (
    AscentFineTune,
    FineTune,
    GradientAscent,
    NegativeKL,
    Retrain,
    Unlink,
    registry,
)
from graphunlearn.operators.baselines import ascent as module
from graphunlearn.operators.baselines.ascent import ascend, descend, divergence, endless_batches
from graphunlearn.operators.shared.heldout import validation_left

NAMES = ["srgnn", "gru4rec", "sasrec"]


@pytest.fixture
def graph():
    return session_graph(random_sessions(30, 9, seed=3), 9)


@pytest.fixture
def some(graph):
    clicks = (graph.position > 0).nonzero().flatten()[::4]
    return ForgetRequest.internal("click", torch.stack([graph.session[clicks], graph.position[clicks]]))


def naive_losses(model, graph, mask):
    """-log p of every click in the mask after the clicks before it, one prefix at a time."""
    out = []
    sessions = [part.tolist() for part in graph.items.split(graph.length.tolist())]
    for click in mask.nonzero().flatten().tolist():
        session, position = int(graph.session[click]), int(graph.position[click])
        if position:
            prefix = session_graph([sessions[session][:position]], graph.num_items)
            users, items, *_ = encode(model, prefix)
            out.append(-(users[0] @ items.t()).log_softmax(0)[sessions[session][position]])
    return torch.stack(out)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def close(a, b):
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)


def test_unlinking_serves_the_shortened_sessions_with_the_same_model(graph, some):
    model = session_model("srgnn", 9)
    result = Unlink().unlearn(model, graph, some)
    assert same(result.model, model)
    assert result.graph.num_clicks == graph.num_clicks - len(some)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_ascent_is_one_step_of_adam_up_the_naive_loss(graph, some, name):
    model = session_model(name, 9)
    result = GradientAscent(steps=1, lr=0.01).unlearn(model, graph, some)
    reference = copy.deepcopy(model)
    loss = naive_losses(reference, graph, some.mask(graph)).mean()
    (-loss).backward()
    torch.optim.Adam(reference.parameters(), lr=0.01).step()
    close(result.model, reference)
    assert result.log["loss"] == [pytest.approx(float(loss.detach()))]


def test_ascent_in_parts_is_ascent_at_once(graph, some, monkeypatch):
    model = session_model("gru4rec", 9)
    whole = GradientAscent(steps=3, lr=0.01).unlearn(model, graph, some)
    monkeypatch.setattr(module, "CHUNK", 3)
    parts = GradientAscent(steps=3, lr=0.01).unlearn(model, graph, some)
    close(whole.model, parts.model)
    assert whole.log["loss"] == pytest.approx(parts.log["loss"])
    assert whole.log["loss"] == sorted(whole.log["loss"])


def test_first_clicks_follow_nothing_and_there_is_nothing_to_climb(graph):
    request = ForgetRequest.internal("click", torch.stack([torch.arange(5), torch.zeros(5, dtype=torch.long)]))
    model = session_model("gru4rec", 9)
    for method in (GradientAscent(), NegativeKL()):
        result = method.unlearn(model, graph, request)
        assert same(result.model, model)
        assert not result.log["loss"]


def test_what_is_kept_but_too_short_to_learn_from_is_left_alone():
    graph = session_graph([[0, 1, 2], [3], [1]], 4)
    request = ForgetRequest("session", ["0"])
    model = session_model("gru4rec", 4)
    result = AscentFineTune(steps=2, finetune_steps=3).unlearn(model, graph, request)
    assert (len(result.log["loss"]), result.log["finetune_loss"]) == (2, [])
    assert NegativeKL(steps=2).unlearn(model, graph, request).log["loss"] == [0.0, 0.0]


def test_fine_tuning_is_training_on_with_the_settings_of_sessions(graph, some):
    model = session_model("srgnn", 9)
    result = FineTune(epochs=2, seed=5).unlearn(model, graph, some)
    reference = copy.deepcopy(model)
    shared = default_settings(graph)
    settings = FitSettings(epochs=2, lr=shared.lr, batch_size=shared.batch_size, seed=5)
    fit(reference, graph.split(some)[0], settings=settings)
    assert same(result.model, reference)
    other = FineTune(epochs=2, seed=5, lr=shared.lr / 2, batch_size=16).unlearn(model, graph, some)
    assert not same(other.model, reference)


def test_ascent_then_fine_tuning_is_the_one_after_the_other(graph, some):
    model = session_model("gru4rec", 9, dropout=0.3)
    method = AscentFineTune(steps=2, lr=0.01, finetune_steps=7, finetune_lr=0.02, batch_size=20, seed=3)
    result = method.unlearn(model, graph, some)
    reference = copy.deepcopy(model)
    retained, _ = graph.split(some)
    ascend(reference, graph, retained, some, CrossEntropy(), steps=2, lr=0.01)
    down = descend(reference, retained, CrossEntropy(), steps=7, lr=0.02, batch_size=20, seed=3)
    assert same(result.model, reference)
    assert result.log["finetune_loss"] == down
    assert len(down) == 7


def test_steps_of_descent_are_steps_of_adam_on_batches(graph):
    model = session_model("srgnn", 9, dropout=0.0)
    reference = copy.deepcopy(model)
    losses = descend(model, graph, CrossEntropy(), steps=5, lr=0.02, batch_size=40, seed=1)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.02)
    batches = endless_batches(graph, CrossEntropy(), 40, 1)
    for expected, batch in zip(losses, batches):
        clicks = torch.zeros(graph.num_clicks, dtype=torch.bool)
        clicks[batch.ends + 1] = True
        loss = naive_losses(reference, graph, clicks).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert float(loss.detach()) == pytest.approx(expected)
    close(model, reference)


def test_batches_never_end_and_every_round_holds_all(graph):
    batches, seen = endless_batches(graph, CrossEntropy(), 32, 0), []
    whole = len(CrossEntropy().samples(graph))
    for _ in range(2):
        ends = []
        while len(ends) < whole:
            ends += next(batches).ends.tolist()
        assert sorted(ends) == CrossEntropy().samples(graph).ends.tolist()
        seen.append(ends)
    assert seen[0] != seen[1]
    assert next(endless_batches(session_graph([[0], [1]]), CrossEntropy(), 4, 0), None) is None


def test_the_divergence_is_that_of_the_distributions():
    a, b = torch.randn(2, 6, 5, dtype=torch.float64)
    p, q = a.softmax(1), b.softmax(1)
    torch.testing.assert_close(divergence(a, b), (p * (p / q).log()).sum(1))
    assert torch.equal(divergence(a, a), torch.zeros(6, dtype=torch.float64))


def test_negative_kl_is_adam_on_training_loss_minus_divergence(graph, some):
    model = session_model("gru4rec", 9)
    method = NegativeKL(steps=3, lr=0.02, weight=0.7, batch_size=16, seed=2)
    result = method.unlearn(model, graph, some)
    reference = copy.deepcopy(model)
    retained, _ = graph.split(some)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.02)
    batches = endless_batches(retained, CrossEntropy(), 16, 2)
    samples, generator = CrossEntropy().samples(graph, mask=some.mask(graph)), torch.Generator().manual_seed(2)
    for kl_said, loss_said, batch in zip(result.log["kl"], result.log["loss"], batches):
        drawn = torch.randperm(len(samples), generator=generator)[:16]
        kept = CrossEntropy().losses(reference, retained, batch).mean()
        rows = [encode(m, graph.prefixes(samples.ends[drawn])) for m in (model, reference)]
        p, q = [(users @ items.t()).softmax(1) for users, items, *_ in rows]
        kl = (p.detach() * (p.detach() / q).log()).sum(1).mean()
        optimizer.zero_grad()
        (kept - 0.7 * kl).backward()
        optimizer.step()
        assert (kl_said, loss_said) == (
            pytest.approx(float(kl.detach()), abs=1e-12),
            pytest.approx(float(kept.detach())),
        )
    close(result.model, reference)


def test_negative_kl_starts_where_the_divergence_has_no_gradient_and_moves_away(graph, some):
    log = NegativeKL(steps=12, lr=0.02).unlearn(session_model("srgnn", 9), graph, some).log
    assert log["kl"][0] == pytest.approx(0, abs=1e-12)
    assert log["kl"][-1] > log["kl"][1] > 0


def test_retraining_is_training_on_what_remains(graph, some):
    held = session_graph(random_sessions(8, 9, seed=9), 9)
    settings = FitSettings(epochs=4, lr=0.02, batch_size=32, patience=2, seed=6)
    result = Retrain(validation=held, settings=settings).unlearn(session_model("gru4rec", 9), graph, some)
    reference = session_model("gru4rec", 9, seed=5)
    reset_parameters(reference, 6)
    fitted = fit(reference, graph.split(some)[0], validation=held, settings=settings)
    assert same(result.model, reference)
    assert result.log["best_epoch"] == fitted.best_epoch


def test_retraining_without_settings_takes_those_of_sessions(graph, some, monkeypatch):
    brief = FitSettings(epochs=2, batch_size=16)
    monkeypatch.setattr("graphunlearn.operators.baselines.retrain.default_settings", lambda graph: brief)
    assert Retrain().unlearn(session_model("gru4rec", 9), graph, some).log["settings"]["batch_size"] == 16


def test_validation_loses_the_clicks_of_items_forgotten_everywhere():
    graph, held = session_graph([[0, 1, 2], [1, 3], [4, 0]], 6), session_graph([[0, 3, 4], [5, 3], [3]], 6)
    retained, _ = graph.split(ForgetRequest("item", ["3", "4"]))
    left = held.without_emptied(graph, retained)
    assert left.items.tolist() == [0, 5]  # 5 was never there to be forgotten
    assert left.session_ids == ["0", "1"]
    assert held.without_emptied(graph, graph.split(ForgetRequest("item", ["1"]))[0]) is held
    alone = session_graph([[3, 4], [4]], 6)
    assert alone.without_emptied(graph, retained).num_clicks == 0


def test_prefixes_that_a_forgotten_item_follows_are_none_to_judge_by():
    graph = session_graph([[0, 1, 2], [1, 3], [4, 0]], 6)
    held = session_graph([[0, 3, 4], [5, 3], [3, 1, 0]], 6).prefixes(torch.tensor([0, 1, 3, 4, 5, 6, 7]))
    assert held.target.tolist() == [3, 4, 3, -1, 1, 0, -1]
    retained, _ = graph.split(ForgetRequest("item", ["3", "4"]))
    left = held.without_emptied(graph, retained)
    assert (left.items.tolist(), left.length.tolist(), left.target.tolist()) == ([5, 1, 1, 0], [1, 1, 2], [-1, 0, -1])
    assert held.without_emptied(graph, graph.split(ForgetRequest("item", ["2"]))[0]) is held
    assert validation_left(held, graph, retained).target.tolist() == [-1, 0, -1]
    assert validation_left(held.select(torch.tensor([0, 1, 2, 4])), graph, retained) is None  # nothing follows any more


def of_users(rows, names, num_items=6):
    """Sessions of users by name, none where it is ``None``; their numbers follow the order of the names."""
    known = sorted({name for name in names if name is not None})
    user = torch.tensor([-1 if name is None else known.index(name) for name in names])
    return SessionGraph.from_sequences(rows, num_items=num_items, user=user, user_ids=known)


def test_validation_loses_the_sessions_of_users_who_are_forgotten_entirely():
    rows = [[0, 1, 2], [1, 3], [2, 0], [3, 1, 4], [4, 0]]
    graph = of_users(rows, ["b", "b", "c", "d", None])
    held = of_users([[0, 1], [1, 2], [2, 3], [3, 0], [0, 3]], ["a", "b", "c", "d", None])  # a was never there
    for request, left in (
        (ForgetRequest("user", ["b"]), [0, 2, 3, 4]),
        (ForgetRequest("session", ["0", "2"]), [0, 1, 3, 4]),  # b keeps a session
        (ForgetRequest("user", ["b"]) | ForgetRequest("session", ["3", "4"]), [0, 2, 4]),
    ):
        retained, _ = graph.split(request)
        gone = set(graph.x.tolist()) - set(retained.x.tolist())
        found = held.without_emptied(graph, retained)
        assert found.session_ids == [str(n) for n in left]
        assert not gone & set(found.x.tolist())
    bare = session_graph([[0, 1]], 6)
    assert bare.without_emptied(graph, graph.split(ForgetRequest("user", ["c"]))[0]) is bare
    assert held.without_emptied(session_graph(rows, 6), session_graph(rows[1:], 6)).session_ids == list("01234")


@pytest.mark.parametrize("name", ["retrain", "sisa", "sru"])
def test_validation_that_is_forgotten_is_none(name):
    graph, held = session_graph([[0, 1, 2, 0], [1, 3], [2, 0, 1]], 4), session_graph([[1, 3], [3, 2]], 4)
    options = {} if name == "retrain" else {"num_shards": 1}
    method = registry[name](settings=FitSettings(epochs=6, patience=1), validation=held, **options)
    model, request = session_model("gru4rec", 4), ForgetRequest("item", ["3"])
    if method.needs_preparation:
        method.prepare(model, graph)
    if name == "sru":
        for weight in (method.preparation.module.scale, method.preparation.module.sharpness):
            weight.fill_(2.0)
    result = method.unlearn(model, graph, request)
    assert result.log["epochs"] in (6, [6])
    if name == "sru":  # what was learned from clicks that are forgotten is not kept either
        assert (result.log["weights"], result.log["sharpness"]) == ([1.0], 0.0)
    with pytest.raises(ValueError, match="'validation' must hold"):  # which it never did
        Retrain(validation=session_graph([[1], [2]], 4)).unlearn(model, graph, ForgetRequest("session", ["1"]))


def test_a_model_that_nothing_is_trained_of_is_refused(graph, some):
    model = session_model("gru4rec", 9).requires_grad_(False)
    for method in (GradientAscent(), AscentFineTune(), NegativeKL(), FineTune(), Retrain()):
        with pytest.raises(ValueError, match=r"'model' must have a parameter that is trained \(got none\)"):
            method.unlearn(model, graph, some)
    with pytest.raises(ValueError, match=r"'model' must have a parameter that is trained \(got none\)"):
        descend(model, graph, CrossEntropy(), steps=1, lr=0.1, batch_size=8, seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AscentFineTune(steps=0), r"'steps' must be a positive integer \(got 0\)"),
        (lambda: AscentFineTune(finetune_steps=1.5), r"'finetune_steps' must be a positive integer \(got 1.5\)"),
        (lambda: AscentFineTune(batch_size=0), "'batch_size' must be a positive integer"),
        (lambda: AscentFineTune(lr=0), r"'lr' must be positive and finite \(got 0\)"),
        (lambda: AscentFineTune(finetune_lr=float("nan")), "'finetune_lr' must be positive and finite"),
        (lambda: NegativeKL(steps=-1), "'steps' must be a positive integer"),
        (lambda: NegativeKL(lr=float("inf")), "'lr' must be positive and finite"),
        (lambda: NegativeKL(weight=-1.0), "'weight' must be positive and finite"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
