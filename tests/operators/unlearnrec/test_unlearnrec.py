"""UnlearnRec: preparing, serving, refusing, resuming, and what its encoder must never see."""

import copy
import inspect
import json

import pytest
import torch
from torch import nn
from torch_geometric.nn import LightGCN
from toys import factors

import graphunlearn.operators.unlearnrec.pretraining as pretraining
from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import FitSettings, encode, fit, reset_parameters, score
from graphunlearn.operators import TuneSettings, UnlearnRec
from graphunlearn.operators.shared.steer import steer
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings
from graphunlearn.operators.unlearnrec.features import Removal
from graphunlearn.operators.unlearnrec.kinds import INJECTED, REMOVED

FAST = {"settings": FitSettings(epochs=5, lr=0.03), "pretraining": EncoderSettings(steps=50), "requests": 4}


@pytest.fixture(scope="module")
def trained():
    graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
    model = LightGCN(graph.num_nodes, 8, 2)
    reset_parameters(model, 0)
    fit(model, graph, epochs=30, lr=0.03, progress=False)
    return model, graph


@pytest.fixture(scope="module")
def prepared(trained):
    method = UnlearnRec(**FAST)
    method.prepare(*trained)
    return method


@pytest.fixture
def method(prepared):
    return copy.deepcopy(prepared)


def edges(graph, step=37):
    return ForgetRequest.internal("interaction", graph.pairs[:, ::step])


# ---- what it does


@torch.no_grad()
def test_the_pass_is_the_encoders_targets_and_the_least_change_towards_them(trained, method):
    model, graph = trained
    request = edges(graph)
    result = method.unlearn(model, graph, request)
    by_hand = copy.deepcopy(model)
    removal = Removal.of(by_hand, graph, result.graph, request.mask(graph))
    target = method.preparation.module(removal.features())
    steer(by_hand, result.graph, removal.pairs, target)
    torch.testing.assert_close(result.model.embedding.weight, by_hand.embedding.weight)
    assert result.log["errors"][-1] < 0.5 * result.log["errors"][0]


@torch.no_grad()
def test_the_empty_request_is_the_identity_bit_for_bit(trained, method):
    model, graph = trained
    same = copy.deepcopy(model)
    removal = Removal.of(same, graph, graph, torch.zeros(graph.num_interactions, dtype=torch.bool))
    target = method.preparation.module(removal.features())
    steer(same, graph, removal.pairs, target)
    assert target.numel() == 0
    assert torch.equal(same.embedding.weight, model.embedding.weight)


@torch.no_grad()
def test_a_component_without_a_request_stays_as_it_is_bit_for_bit():
    half = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=6, seed=1)
    pairs = torch.cat([half.pairs, half.pairs + torch.tensor([[40], [30]])], 1)
    graph = InteractionGraph.from_edges(pairs, 80, 60)
    model = LightGCN(graph.num_nodes, 8, 2)
    reset_parameters(model, 0)
    with torch.enable_grad():
        fit(model, graph, epochs=10, lr=0.03, progress=False)
    method = UnlearnRec(**FAST)
    method.prepare(model, graph)
    own = graph.pairs[:, graph.pairs[0] < 40][:, ::19]
    result = method.unlearn(model, graph, ForgetRequest.internal("interaction", own))
    before, after = encode(model, graph), encode(result.model, result.graph)
    assert torch.equal(before.queries[40:], after.queries[40:])
    assert torch.equal(before.items[30:], after.items[30:])
    assert not torch.equal(before.queries[:40], after.queries[:40])


@torch.no_grad()
def test_permuting_node_ids_permutes_the_result(trained, method):
    model, graph = trained
    users, items = torch.randperm(60), torch.randperm(40)
    turned = InteractionGraph.from_edges(torch.stack([users[graph.pairs[0]], items[graph.pairs[1]]]), 60, 40)
    other, where = copy.deepcopy(model).double(), torch.cat([users, 60 + items])
    model = copy.deepcopy(model).double()
    other.embedding.weight[where] = model.embedding.weight.clone()
    method.preparation.module.double()
    method.adapt = True
    request = graph.pairs[:, ::37]
    one = method.unlearn(model, graph, ForgetRequest.internal("interaction", request))
    asked = torch.stack([users[request[0]], items[request[1]]])
    two = method.unlearn(other, turned, ForgetRequest.internal("interaction", asked))
    torch.testing.assert_close(two.model.embedding.weight[where], one.model.embedding.weight)


@torch.no_grad()
def test_forgotten_users_get_fresh_rows(trained, method):
    model, graph = trained
    result = method.unlearn(model, graph, ForgetRequest("user", [graph.user_ids[7]]))
    assert not torch.equal(result.model.embedding.weight[7], model.embedding.weight[7])
    others = torch.arange(100) != 7
    others[graph.num_users :] = False  # the items of the user are corrected for the trace of the old embedding
    assert torch.equal(result.model.embedding.weight[others], model.embedding.weight[others])
    assert result.log["refit"]["items"] > 0


def test_fine_tuning_follows_where_it_is_asked_for(trained, method):
    model, graph = trained
    plain = method.unlearn(model, graph, edges(graph))
    method.epochs, method.tuning = 2, TuneSettings(lr=0.01)
    tuned = method.unlearn(model, graph, edges(graph))
    assert len(tuned.log["tuning"]) == 2
    assert not torch.equal(plain.model.embedding.weight, tuned.model.embedding.weight)


def test_fifty_requests_in_a_row_are_served_by_one_preparation(trained, method):
    model, graph = trained
    order = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(0))[:150]
    gone = graph.pairs[:, order].split(3, dim=1)
    method.on_rejection = "keep"  # steps that are shortened or refused end elsewhere
    for pairs in gone:
        result = method.unlearn(model, graph, ForgetRequest.internal("interaction", pairs))
        assert result.log["errors"][-1] < 0.5 * result.log["errors"][0]  # every single one still gets where it should
        model, graph = result.model, result.graph
    assert len(gone) == 50 and graph.num_interactions == trained[1].num_interactions - 150
    with torch.no_grad():
        before, after = (score(encode(*given), trained[1].pairs).sigmoid() for given in (trained, (model, graph)))
    forgotten = torch.zeros(len(before), dtype=torch.bool)
    forgotten[order] = True
    assert float((after - before)[forgotten].mean()) < float((after - before)[~forgotten].mean())


def test_a_graph_that_grew_is_served_when_told_to(trained, method):
    _, graph = trained
    pairs = torch.cat([graph.pairs, torch.tensor([[60, 60, 61], [0, 40, 40]])], 1)
    grown = InteractionGraph.from_edges(pairs, 62, 41)
    model = LightGCN(grown.num_nodes, 8, 2)
    reset_parameters(model, 1)
    fit(model, grown, epochs=5, progress=False)
    request = ForgetRequest.internal("interaction", torch.tensor([[60], [0]]))
    with pytest.raises(ValueError, match="'model' must be the one that unlearnrec was prepared for"):
        method.unlearn(model, grown, request)
    method.adapt = True
    assert method.unlearn(model, grown, request).graph.num_interactions == grown.num_interactions - 1


# ---- what preparing must not see


def test_preparing_takes_no_request():
    for function in (UnlearnRec.prepare, pretraining.learn_influence):
        assert not any("request" in name for name in inspect.signature(function).parameters)


def test_the_encoder_kept_does_not_depend_on_the_request_that_follows(trained, monkeypatch):
    """A request that is a trap: looking at it while the checkpoint is chosen would raise."""
    model, graph = trained

    def trap(self, *_):
        raise AssertionError("the request was looked at")

    request = edges(graph)
    with monkeypatch.context() as patched:
        patched.setattr(ForgetRequest, "mask", trap)
        patched.setattr(InteractionGraph, "split", trap)
        method = UnlearnRec(**FAST)
        method.prepare(model, graph)
    before = copy.deepcopy(method.preparation.module.state_dict())
    method.unlearn(model, graph, request)
    assert all(torch.equal(value, before[name]) for name, value in method.preparation.module.state_dict().items())


def test_held_out_requests_share_no_interaction_with_those_learned_from(trained, monkeypatch):
    model, graph = trained
    seen = []
    original = pretraining._pools

    def spy(*given):
        seen.append(original(*given))
        return seen[-1]

    monkeypatch.setattr(pretraining, "_pools", spy)
    UnlearnRec(**FAST).prepare(model, graph)
    parts = [
        {(id(pool.model), *pair) for pool in part for pair in map(tuple, pool.pairs.t().tolist())} for part in seen[0]
    ]
    assert all(parts) and not parts[0] & parts[1]
    assert 10 <= len(seen[0][0]) <= len(REMOVED) + len(INJECTED) + 2  # every kind that is found, and both unions


def test_preparing_leaves_model_graph_and_global_randomness_alone(trained):
    model, graph = trained
    before, state, content = copy.deepcopy(model.state_dict()), torch.get_rng_state(), graph.fingerprint()
    one, two = UnlearnRec(**FAST), UnlearnRec(**FAST)
    one.prepare(model, graph)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    two.prepare(model, graph)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert graph.fingerprint() == content
    weights = [method.preparation.module.state_dict() for method in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# ---- keeping and refusing


@pytest.mark.parametrize("kind", ["probe", "published"])
def test_a_saved_preparation_serves_as_the_one_in_memory(trained, kind, tmp_path):
    model, graph = trained
    method = UnlearnRec(**FAST) if kind == "probe" else UnlearnRec.as_published(epochs=1)
    if kind == "published":
        method.published = type(method.published)(epochs=2)
    method.prepare(model, graph)
    path = method.save(tmp_path / "kept")
    assert path.name == "kept.safetensors"
    other = copy.deepcopy(method)
    other.preparation = None
    other.load(path)
    emptying = ForgetRequest("user", [graph.user_ids[3]]) | edges(graph)
    expected = method.unlearn(model, graph, emptying)
    result = other.unlearn(model, graph, emptying)
    assert torch.equal(result.model.embedding.weight, expected.model.embedding.weight)
    assert result.prepare_seconds == pytest.approx(method.prepare_seconds)
    third = copy.deepcopy(other).load(other.save(tmp_path / "after"))
    third.unlearn(result.model, result.graph, edges(result.graph, 50))  # where a request has led to is kept as well


def test_a_request_before_preparing_is_refused(trained):
    model, graph = trained
    with pytest.raises(ValueError, match="unlearnrec must be prepared with prepare"):
        UnlearnRec().unlearn(model, graph, edges(graph))
    with pytest.raises(ValueError, match="must be prepared"):
        UnlearnRec().save("nowhere")


def test_another_model_or_graph_is_refused_unless_told_to_adapt(trained, method):
    model, graph = trained
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.embedding.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match="'model' must be the one that unlearnrec was prepared for"):
        method.unlearn(other, graph, edges(graph))
    smaller = graph.select(torch.arange(graph.num_interactions) != 5)
    with pytest.raises(ValueError, match="'graph' must be the one that unlearnrec was prepared for"):
        method.unlearn(model, smaller, edges(smaller))
    method.adapt = True
    method.unlearn(other, graph, edges(graph))
    method.unlearn(model, smaller, edges(smaller))


def test_files_that_are_no_preparation_are_refused(trained, method, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    save_file({}, tmp_path / "old.safetensors", metadata={"graphunlearn": json.dumps({"format": 0})})
    for name, message in (("text", "must be a preparation"), ("plain", "which is none"), ("old", "of format 0")):
        with pytest.raises(ValueError, match=message):
            UnlearnRec().load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"'path' must hold a preparation of kind 'published' \(got 'probe'\)"):
        UnlearnRec.as_published().load(method.save(tmp_path / "probe"))


def test_a_request_larger_than_any_simulated_is_served_with_a_warning(trained, method):
    model, graph = trained
    with pytest.warns(UserWarning, match=r"the request takes 50.\d% of the interactions; those simulated took up to"):
        method.unlearn(model, graph, edges(graph, 2))


def test_shares_that_leave_nothing_are_refused(trained):
    _model, graph = trained
    few = graph.select(torch.arange(12))
    small = LightGCN(few.num_nodes, 4, 1)
    with pytest.raises(ValueError, match="'share' must leave out at least 8 interactions"):
        UnlearnRec(**FAST).prepare(small, few)
    for name, value in (("share", 0.9), ("odd_users", -1.0), ("probes", 0), ("epochs", -1)):
        with pytest.raises(ValueError, match=f"'{name}'"):
            UnlearnRec(**{name: value})


class Hidden(nn.Module):
    """Rows that no table holds."""

    def __init__(self, graph):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 4)
        self.register_buffer("features", torch.randn(graph.num_nodes, 3))


@encode.register
def _(model: Hidden, graph):
    users, items = model.features.split([graph.num_users, graph.num_items])
    return model.left(users), model.right(items)


def test_a_backbone_without_reachable_embeddings_is_named(trained):
    graph = trained[1]
    with pytest.raises(ValueError, match="got Hidden with none that can be reached"):
        UnlearnRec(**FAST).prepare(Hidden(graph), graph)


def test_interrupted_preparing_goes_on_and_ends_the_same(trained, tmp_path, monkeypatch):
    model, graph = trained
    expected = UnlearnRec(**FAST)
    expected.prepare(model, graph, checkpoint=tmp_path / "other")
    calls = {"n": 0}
    original = pretraining.fit

    def interrupted(probe, given, **keywords):
        calls["n"] += 1
        if calls["n"] == 1:
            shorter = keywords["settings"].__class__(**{**vars(keywords["settings"]), "epochs": 3})
            original(probe, given, **{**keywords, "settings": shorter})
            raise KeyboardInterrupt
        return original(probe, given, **keywords)

    monkeypatch.setattr(pretraining, "fit", interrupted)
    method = UnlearnRec(**FAST)
    with pytest.raises(KeyboardInterrupt):
        method.prepare(model, graph, checkpoint=tmp_path / "kept")
    assert method.preparation is None
    assert len(list(tmp_path.iterdir())) == 1
    method.prepare(model, graph, checkpoint=tmp_path / "kept")
    assert not list(tmp_path.iterdir())
    weights = [m.preparation.module.state_dict() for m in (expected, method)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_interrupted_preparing_of_the_published_encoder_goes_on_and_ends_the_same(trained, tmp_path, monkeypatch):
    model, graph = trained
    made = []
    for interrupt in (False, True):
        method = UnlearnRec.as_published()
        method.published = type(method.published)(epochs=4)
        if interrupt:
            import graphunlearn.operators.unlearnrec.published as module

            original, written = module.write_atomic, []

            def stop(path, content, original=original, written=written):
                original(path, content)
                written.append(path)
                if len(written) == 2:
                    raise KeyboardInterrupt

            monkeypatch.setattr(module, "write_atomic", stop)
            with pytest.raises(KeyboardInterrupt):
                method.prepare(model, graph, checkpoint=tmp_path / "kept")
            assert len(list(tmp_path.iterdir())) == 1
        method.prepare(model, graph, checkpoint=tmp_path / "kept")
        made.append(method.preparation.module.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not list(tmp_path.iterdir())


def test_the_published_encoder_serves_requests_with_and_without_fine_tuning(trained):
    model, graph = trained
    method = UnlearnRec.as_published(epochs=0)
    method.published = type(method.published)(epochs=2)
    method.prepare(model, graph)
    plain = method.unlearn(model, graph, edges(graph))
    method.epochs = 1
    tuned = method.unlearn(model, graph, edges(graph))
    assert not torch.equal(plain.model.embedding.weight, tuned.model.embedding.weight)
    assert len(tuned.log["tuning"]) == 1


def test_a_probe_whose_training_went_wrong_is_trained_again(trained, monkeypatch):
    model, graph = trained
    train, validation = graph.random_split([0.85, 0.15], seed=0)
    original, calls = pretraining.fit, []

    def accident(probe, given, **keywords):
        calls.append(keywords["settings"].seed)
        result = original(probe, given, **keywords)
        if len(calls) == 1:
            result.best = 0.0
        return result

    monkeypatch.setattr(pretraining, "fit", accident)
    method = UnlearnRec(**FAST, validation=validation)
    method.prepare(model, train)
    assert len(calls) >= 2 and len(set(calls)) == len(calls)
    assert method.preparation.log["probes"][0]["best"] == 0.0


def test_a_saved_preparation_serves_in_double_precision(trained, tmp_path):
    model, graph = copy.deepcopy(trained[0]).double(), trained[1]
    method = UnlearnRec(**FAST)
    method.prepare(model, graph)
    other = UnlearnRec(**FAST).load(method.save(tmp_path / "kept"))
    one, two = (m.unlearn(model, graph, edges(graph)).model.embedding.weight for m in (method, other))
    assert one.dtype == torch.float64 and torch.equal(one, two)


@pytest.mark.parametrize("seed", range(6))
def test_a_tiny_graph_still_leaves_something_to_choose_by(seed):
    graph = synthetic_interactions(num_users=10, num_items=10, interactions_per_user=5)
    method = UnlearnRec(**{**FAST, "seed": seed}, share=0.3, odd_users=0.0)
    method.prepare(LightGCN(graph.num_nodes, 4, 1), graph)
    assert method.preparation.log["held_out"]["interactions"] > 0


def test_too_little_to_choose_by_is_an_error_that_names_the_share(trained, monkeypatch):
    original = pretraining._pools
    monkeypatch.setattr(pretraining, "_pools", lambda *given: [original(*given)[0], []])
    with pytest.raises(ValueError, match="'share' must leave out enough to learn from and to choose by"):
        UnlearnRec(**FAST).prepare(*trained)


def pools_of(trained, monkeypatch, **changes):
    """The pools that a preparation learns from and is held to, and the probe they are made of."""
    seen = []
    original = pretraining._pools

    def spy(*given):
        seen.append((given[2], original(*given)))
        return seen[-1][1]

    monkeypatch.setattr(pretraining, "_pools", spy)
    UnlearnRec(**FAST | changes).prepare(*trained)
    return seen[0]


@torch.no_grad()
def test_targets_come_from_the_model_that_never_saw_the_interaction(trained, monkeypatch):
    """What the probe was left without is asked of the probe, what was added to it of the original."""
    with torch.enable_grad():
        _, parts = pools_of(trained, monkeypatch)
    pools = [pool for part in parts for pool in part]
    sides = {id(pool.model): (pool.model, pool.graph) for pool in pools}
    assert len(sides) == 2
    for pool in pools:
        ((other, graph),) = (side for key, side in sides.items() if key != id(pool.model))
        known = {tuple(pair) for pair in graph.pairs.t().tolist()}
        assert not known & {tuple(pair) for pair in pool.pairs.t().tolist()}
        answer = score(encode(other, graph), pool.pairs)
        same = ((pool.target - pool.target.mean()) / pool.target.std() - (answer - answer.mean()) / answer.std()).abs()
        assert len(answer) < 2 or float(same.max()) < 1e-3  # the same but for level and scale
        assert pool.judge is not None
        torch.testing.assert_close(pool.judge(pool.pairs), pool.target)
        own = score(encode(pool.model, pool.graph), pool.pairs)
        assert not torch.allclose(pool.target, own)


def test_scores_are_brought_to_the_level_of_the_other_model(trained):
    """Mean and deviation agree on the pairs compared, and an affine change of the scores makes no difference."""
    model, graph = trained
    with torch.no_grad():
        wanted = encode(model, graph)
        own = type(wanted)(3 * wanted.queries.flip(1).roll(1, 0), wanted.items)
        pairs, asked = graph.pairs[:, ::2], graph.pairs[:, 1::2]
        judge = pretraining._matched(own, wanted, pairs)
        scores, other = judge(pairs), score(wanted, pairs)
    torch.testing.assert_close(scores.mean(), other.mean())
    torch.testing.assert_close(scores.std(), other.std())
    raw = score(own, torch.cat([pairs, asked], 1))
    expected = (raw - raw[: pairs.size(1)].mean()) / raw[: pairs.size(1)].std() * other.std() + other.mean()
    torch.testing.assert_close(judge(torch.cat([pairs, asked], 1)), expected)
    larger = type(wanted)(2 * own.queries, own.items)
    torch.testing.assert_close(pretraining._matched(larger, wanted, pairs)(asked), judge(asked))


def test_a_model_whose_rows_are_its_parameters_is_served():
    graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
    model = factors(graph, scale=0.1)
    fit(model, graph, epochs=5)
    model.zero_grad(set_to_none=True)
    method = UnlearnRec(**FAST)
    method.prepare(model, graph)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert method.unlearn(model, graph, edges(graph)).log["steered"] > 0


def test_items_that_forgotten_users_promoted_are_brought_to_predicted_scores(trained):
    """Only items that lose half of their interactions with emptied users are steered for other users."""
    model, graph = trained
    method = UnlearnRec(**FAST)
    method.prepare(model, graph)
    item = int(graph.adjacency.degree[graph.num_users :].argmax())
    users = graph.pairs[0, graph.pairs[1] == item]
    result = method.unlearn(model, graph, ForgetRequest.internal("user", users[: len(users) * 2 // 3]))
    assert result.log["steered"] == 0 and result.log["steered_others"] > 0
    few = method.unlearn(model, graph, edges(graph))
    assert "steered_others" not in few.log or few.log["steered_others"] == 0


def test_of_probes_that_all_went_wrong_the_best_is_kept(trained, monkeypatch):
    model, graph = trained
    train, validation = graph.random_split([0.85, 0.15], seed=0)
    original, made = pretraining.fit, []

    def accident(probe, given, **keywords):
        result = original(probe, given, **keywords)
        made.append(probe)
        result.best = {1: 1e-4, 2: 3e-4}.get(len(made), 2e-4)
        return result

    monkeypatch.setattr(pretraining, "fit", accident)
    probe, _ = pools_of((model, train), monkeypatch, validation=validation)
    assert len(made) == 3
    assert probe is made[1]
