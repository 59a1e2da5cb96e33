"""Shards: a forgotten click is in no model that is served, and the shards together score as they are said to."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_toys import random_sessions, session_graph, session_model

from graphunlearn.data import ForgetRequest
from graphunlearn.nn import CrossEntropy, FitSettings, encode, encode_prefixes, fit, reset_parameters
from graphunlearn.operators import SISA, SRU
from graphunlearn.operators.shards import sru as module
from graphunlearn.operators.shards.ensemble import SessionEnsemble, ShardEnsemble, learn_weights
from graphunlearn.operators.shards.sru import balanced_clusters

ITEMS = 9
BRIEF = FitSettings(epochs=3, lr=0.02, batch_size=64, patience=2)


@pytest.fixture(scope="module")
def graph():
    return session_graph(random_sessions(31, ITEMS, seed=3), ITEMS)


@pytest.fixture(scope="module")
def held():
    return session_graph(random_sessions(12, ITEMS, seed=4), ITEMS)


@pytest.fixture(scope="module")
def model():
    return session_model("gru4rec", ITEMS)


def prepared(cls, model, graph, **options):
    method = cls(**{"num_shards": 4, "settings": BRIEF} | options)
    method.prepare(model, graph)
    return method


def some_clicks(graph, sessions):
    return ForgetRequest.internal("click", torch.tensor([sessions, [1] * len(sessions)]))


def long_sessions(graph, shard=None, members=None):
    keep = graph.length > 2
    return (keep if shard is None else keep & (members == shard)).nonzero().flatten().tolist()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---- shards and what is trained on them


def test_shards_part_the_sessions_evenly(graph, model):
    ensemble = prepared(SISA, model, graph).preparation.module
    counts = torch.bincount(ensemble.members, minlength=4)
    assert counts.sum() == graph.num_sessions
    assert counts.max() - counts.min() <= 1
    other = prepared(SISA, session_model("gru4rec", ITEMS, seed=8), graph).preparation.module
    assert not torch.equal(ensemble.members, other.members)  # another original has other shards
    again = prepared(SISA, model, graph, settings=FitSettings(epochs=3, seed=1)).preparation.module
    assert not torch.equal(ensemble.members, again.members)


def test_every_shard_is_trained_on_its_own_sessions(graph, held, model):
    ensemble = prepared(SISA, model, graph, validation=held).preparation.module
    for number, shard in enumerate(ensemble.shards):
        reference = copy.deepcopy(model)
        seed = ensemble.seed + number
        reset_parameters(reference, seed)
        settings = FitSettings(**{**vars(BRIEF), "seed": seed})
        fit(reference, graph.select(ensemble.members == number), validation=held, settings=settings)
        assert equal(shard, reference)


def test_only_shards_that_hold_what_is_forgotten_are_trained_again(graph, model):
    method = prepared(SISA, model, graph)
    members = method.preparation.module.members
    request = some_clicks(graph, long_sessions(graph, 2, members)[:2] + long_sessions(graph, 0, members)[:1])
    before = copy.deepcopy(method.preparation.module)
    result = method.unlearn(model, graph, request)
    assert result.log["retrained"] == [0, 2]
    same = [equal(a, b) for a, b in zip(result.model.shards, before.shards)]
    assert same == [False, True, False, True]
    assert result.original is method.preparation.module
    assert equal(result.original, before)
    assert len(result.log["seconds_per_shard"]) == 2
    slowest, total = result.log["seconds_slowest_shard"], result.log["seconds_sum"]
    assert 0 < slowest < total <= result.seconds


@pytest.mark.parametrize("request_of", ["clicks", "sessions", "items"])
def test_forgetting_is_preparing_without_what_is_forgotten(graph, held, model, request_of, monkeypatch):
    method = prepared(SISA, model, graph, validation=held)
    request = {
        "clicks": some_clicks(graph, long_sessions(graph)[:5]),
        "sessions": ForgetRequest("session", ["4", "7"]),
        "items": ForgetRequest("item", ["3"]),
    }[request_of]
    result = method.unlearn(model, graph, request)
    stays = torch.tensor([name in result.graph.session_ids for name in graph.session_ids])
    own = method.preparation.module.members[stays]
    assert torch.equal(result.model.members, own)
    monkeypatch.setattr(SISA, "_partition", lambda self, model, graph, seed: own)
    reference = prepared(SISA, model, result.graph, validation=held.without_emptied(graph, result.graph))
    assert equal(result.model, reference.preparation.module)


def test_requests_follow_one_another_and_any_object_goes_on(graph, model):
    method = prepared(SISA, model, graph)
    first = method.unlearn(model, graph, ForgetRequest("session", ["4", "7"]))
    second = SISA(num_shards=4, settings=BRIEF).unlearn(first.model, first.graph, ForgetRequest("session", ["9"]))
    at_once = method.unlearn(model, graph, ForgetRequest("session", ["4", "7", "9"]))
    assert second.original is None  # it started from the model that was passed
    assert equal(second.model, at_once.model)
    assert second.graph.fingerprint() == at_once.graph.fingerprint() == second.model.graph


def test_a_broken_preparation_is_taken_up(graph, held, model, tmp_path, monkeypatch):
    whole = prepared(SISA, model, graph, validation=held)
    method, calls = SISA(num_shards=4, settings=BRIEF, validation=held), []

    def stop(*args, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(options["checkpoint"].name)
        return fit(*args, **options)

    monkeypatch.setattr("graphunlearn.operators.shards.sharded.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        method.prepare(model, graph, checkpoint=tmp_path / "state")
    assert calls == ["state.0.safetensors", "state.1.safetensors"]
    assert method.preparation is None
    monkeypatch.undo()
    method.prepare(model, graph, checkpoint=tmp_path / "state")
    assert equal(method.preparation.module, whole.preparation.module)
    assert not list(tmp_path.iterdir())


def test_a_shard_with_nothing_to_learn_from_is_left_out(model):
    graph = session_graph([[0, 1, 2], [3, 4, 5], [2, 1], [6, 7]], ITEMS)
    method = prepared(SISA, model, graph, num_shards=4)
    result = method.unlearn(model, graph, ForgetRequest.internal("click", torch.tensor([[2], [1]])))
    (gone,) = result.log["retrained"]
    weights = [0.0 if k == gone else 1 / 3 for k in range(4)]
    assert result.log["weights"] == pytest.approx(weights)
    states = torch.stack([encode(shard, graph).queries for shard in result.model.shards], 1)
    torch.testing.assert_close(result.model.weights(states), torch.tensor(weights).double().expand(4, 4))
    with pytest.raises(ValueError, match="'graph' must hold something to learn from"):
        method.unlearn(
            model, graph, ForgetRequest.internal("click", torch.tensor([[0, 0, 1, 1, 2, 3], [0, 1, 0, 1, 0, 0]]))
        )


def test_a_shard_without_sessions_keeps_no_centre_of_forgotten_ones(graph, model):
    method = prepared(SISA, model, graph)
    before = method.preparation.module
    gone = (before.members == 2).nonzero().flatten()
    result = method.unlearn(model, graph, ForgetRequest.internal("session", gone))
    assert before.centres[2].any()
    assert not result.model.centres[2].any()
    assert torch.equal(result.model.centres[[0, 1, 3]], before.centres[[0, 1, 3]])


def test_in_place_all_of_the_ensemble_is_taken_back(graph, model, monkeypatch):
    """Also what is no parameter of it, and says which sessions its shards know."""
    ensemble = prepared(SISA, model, graph).preparation.module
    before, named = copy.deepcopy(ensemble), graph.fingerprint()

    def spoil(shard, *args, **options):
        result = fit(shard, *args, **options)
        with torch.no_grad():
            next(shard.parameters())[0, 0] = float("nan")
        return result

    monkeypatch.setattr("graphunlearn.operators.shards.sharded.fit", spoil)
    method, request = SISA(num_shards=4, settings=BRIEF), some_clicks(graph, long_sessions(graph)[:2])
    with pytest.raises(FloatingPointError, match=r"sisa left NaN or infinity in shards\.\d.*; the model is unchanged"):
        method.unlearn(ensemble, graph, request, inplace=True)
    assert equal(ensemble, before)
    assert ensemble.graph == named
    assert torch.equal(ensemble.members, before.members)
    assert torch.equal(ensemble.left_out, before.left_out)
    monkeypatch.undo()
    assert method.unlearn(ensemble, graph, request, inplace=True).model is ensemble


# ---- what is served


def scores(model, graph):
    users, items, *_ = encode(model, graph)
    return users @ items.t()


@pytest.mark.parametrize("name", ["srgnn", "gru4rec", "sasrec"])
def test_the_mean_of_the_scores_is_served(graph, name):
    ensemble = prepared(SISA, session_model(name, ITEMS), graph).preparation.module
    expected = torch.stack([scores(shard, graph) for shard in ensemble.shards]).mean(0)
    torch.testing.assert_close(scores(ensemble, graph), expected)
    ends = torch.tensor([5, 0, 17, 3])
    rows = encode_prefixes(ensemble, graph, ends)
    torch.testing.assert_close(rows.queries @ rows.items.t(), scores(ensemble, graph.prefixes(ends)))


def test_weights_follow_from_closeness_to_the_sessions_of_a_shard(graph, model):
    ensemble = prepared(SISA, model, graph).preparation.module
    ensemble.scale.fill_(1.7)
    ensemble.sharpness.fill_(2.5)
    ensemble.offset.copy_(torch.tensor([0.1, -0.2, 0.0, 0.4]))
    got = scores(ensemble, graph)
    for session in range(0, graph.num_sessions, 5):
        logits, own = [], []
        for number, shard in enumerate(ensemble.shards):
            rows = encode(shard, graph.select(ensemble.members == number)).queries
            centre = torch.stack([row / row.norm() for row in rows]).mean(0)
            state = encode(shard, graph).queries[session]
            logits.append(ensemble.offset[number] + 2.5 * (state @ centre) / (state.norm() * centre.norm()))
            own.append(scores(shard, graph)[session])
        weights = 1.7 * torch.stack(logits).softmax(0)
        torch.testing.assert_close(got[session], weights @ torch.stack(own))


def test_learned_weights_find_the_shard_that_knows(held):
    """One of three models was trained on what the validation sessions are like; the others know nothing."""
    good = session_model("gru4rec", ITEMS, seed=1)
    fit(good, session_graph(random_sessions(60, ITEMS, seed=5), ITEMS), epochs=30, lr=0.02, batch_size=64)
    shards = [session_model("gru4rec", ITEMS, seed=7), good.eval(), session_model("gru4rec", ITEMS, seed=9)]
    ensemble = SessionEnsemble(shards, torch.zeros(0), "", 0)
    samples = CrossEntropy().samples(held)
    mean = float(CrossEntropy().losses(ensemble, held, samples).mean().detach())
    left = learn_weights(ensemble, held, attention=False, seed=0)
    assert left == pytest.approx(float(CrossEntropy().losses(ensemble, held, samples).mean().detach()), rel=1e-6)
    assert left < mean - 0.1
    assert int(ensemble.offset.argmax()) == 1
    assert float(ensemble.sharpness) == 0


@pytest.mark.parametrize("aggregation", ["learned", "attention"])
def test_learned_weights_are_no_worse_than_the_mean(graph, held, model, aggregation):
    ensembles = [
        prepared(SISA, model, graph, validation=held, aggregation=a).preparation.module for a in ("mean", aggregation)
    ]
    samples = CrossEntropy().samples(held)
    mean, learned = [float(CrossEntropy().losses(e, held, samples).mean().detach()) for e in ensembles]
    assert learned <= mean
    assert all(equal(a, b) for a, b in zip(ensembles[0].shards, ensembles[1].shards))
    assert (float(ensembles[1].sharpness) != 0) == (aggregation == "attention")


def test_learned_weights_stay_finite_on_next_to_nothing(model):
    graph, held = session_graph([[0, 1, 2], [3, 4], [5, 6], [7, 8]], ITEMS), session_graph([[0, 1]], ITEMS)
    method = prepared(SISA, model, graph, validation=held, aggregation="attention")
    result = method.unlearn(model, graph, ForgetRequest("item", ["8"]))
    for ensemble in (method.preparation.module, result.model):
        assert all(torch.isfinite(value) for value in (ensemble.scale, ensemble.sharpness))
        assert torch.isfinite(scores(ensemble, graph)).all()


# ---- like sessions, and what is deleted besides


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 1000))
def test_clusters_are_even(num, clusters, seed):
    clusters = min(clusters, num)
    rows = torch.randn(num, 3, generator=torch.Generator().manual_seed(seed))
    rows[: num // 3] = rows[0]  # many of the same
    members = balanced_clusters(rows, clusters, seed)
    counts = torch.bincount(members, minlength=clusters)
    assert counts.sum() == num
    assert counts.max() - counts.min() <= 1
    assert torch.equal(members, balanced_clusters(rows, clusters, seed))


@pytest.mark.filterwarnings("error")
def test_clusters_of_rows_that_are_all_the_same_are_even_without_a_word():
    assert torch.bincount(balanced_clusters(torch.ones(9, 2), 3, 0)).tolist() == [3, 3, 3]


def test_clusters_hold_what_is_alike():
    rows = torch.cat([torch.randn(20, 4) + 9 * torch.eye(4)[k] for k in range(3)])
    members = balanced_clusters(rows, 3, 0).view(3, 20)
    assert all(len(part.unique()) == 1 for part in members)
    assert len(members[:, 0].unique()) == 3


def test_sessions_of_a_shard_of_sru_are_alike(graph, model, held):
    def spread(members):
        rows = torch.nn.functional.normalize(encode(model, graph).queries.detach(), dim=1)
        return sum(float((rows[members == k] - rows[members == k].mean(0)).square().sum()) for k in range(4))

    like = prepared(SRU, model, graph, validation=held).preparation.module.members
    assert spread(like) < 0.9 * spread(prepared(SISA, model, graph).preparation.module.members)


def forgotten_of(graph, method, request):
    """What is left out of training besides, as the method says and as it does."""
    mask = request.mask(graph)
    return mask, method._extra(method.preparation.module, graph, mask)


def test_neighbours_of_forgotten_clicks():
    graph = session_graph([[0, 1, 2, 3, 4], [5, 6], [7], [0, 1, 2]], ITEMS)
    mask = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 1], dtype=torch.bool)
    expected = torch.tensor([0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0], dtype=torch.bool)
    assert torch.equal(module._neighbours(graph, mask), expected)


@given(st.integers(0, 1000))
def test_random_clicks_are_as_many_as_are_forgotten_where_there_are_any(seed):
    graph = session_graph(random_sessions(15, ITEMS, seed=seed), ITEMS)
    mask = torch.rand(graph.num_clicks, generator=torch.Generator().manual_seed(seed)) < 0.3
    extra = module._random_clicks(graph, mask, seed)
    assert not (extra & mask).any()
    for session in range(graph.num_sessions):
        own = graph.session == session
        forgotten, there = int((mask & own).sum()), int(own.sum())
        assert int((extra & own).sum()) == min(forgotten, there - forgotten)


def test_the_most_similar_session_of_the_shard_goes(graph, model, held, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    method = prepared(SRU, model, graph, validation=held, extra="collaborative")
    ensemble = method.preparation.module
    request = some_clicks(graph, long_sessions(graph)[:6])
    mask, extra = forgotten_of(graph, method, request)
    touched, expected = set(graph.session[mask].tolist()), set()
    for session in touched:
        number = int(ensemble.members[session])
        rows = encode(ensemble.shards[number], graph).queries
        others = [s for s in range(graph.num_sessions) if ensemble.members[s] == number and s not in touched]
        if others:
            near = torch.stack([torch.cosine_similarity(rows[session], rows[s], dim=0) for s in others])
            expected.add(others[int(near.argmax())])
    assert set(graph.session[extra].tolist()) == expected
    assert all(extra[graph.session == s].all() for s in expected)


@pytest.mark.parametrize("extra", ["collaborative", "neighbour", "random", "none"])
def test_extra_clicks_are_left_out_of_training_and_still_served(graph, model, held, extra):
    method = prepared(SRU, model, graph, validation=held, extra=extra)
    request = some_clicks(graph, long_sessions(graph)[:4])
    mask, more = forgotten_of(graph, method, request)
    result = method.unlearn(model, graph, request)
    assert result.graph.num_clicks == graph.num_clicks - 4
    assert result.log["extra_clicks"] == int(more.sum())
    assert (int(more.sum()) == 0) == (extra == "none")
    assert torch.equal(result.model.left_out, more[~mask])
    for number in result.log["retrained"]:
        reference = copy.deepcopy(model)
        own = method.preparation.module.members[graph.session] == number
        clicks = (~own | mask | more).nonzero().flatten()
        part, _ = graph.split(
            ForgetRequest.internal("click", torch.stack([graph.session[clicks], graph.position[clicks]]))
        )
        settings = FitSettings(**{**vars(BRIEF), "seed": method.preparation.module.seed + number})
        reset_parameters(reference, settings.seed)
        fit(reference, part, validation=held, settings=settings)
        assert equal(result.model.shards[number], reference)


@pytest.mark.parametrize(
    ("extra", "clicks"),
    [
        ("collaborative", [(0, 1), (0, 2)]),
        ("neighbour", [(0, 1), (1, 1)]),
        ("random", [(0, 1), (1, 1)]),
    ],
)
def test_nothing_more_is_deleted_where_nothing_would_be_left_to_learn(model, extra, clicks):
    graph = session_graph([[0, 1, 2], [1, 2, 3]], ITEMS)
    method = prepared(SRU, model, graph, num_shards=1, aggregation="mean", extra=extra)
    request = ForgetRequest.internal("click", torch.tensor(clicks).t())
    assert forgotten_of(graph, method, request)[1].any()
    result = method.unlearn(model, graph, request)
    assert (result.log["extra_clicks"], result.log["epochs"]) == (0, [3])
    assert not result.model.left_out.any()


def test_what_was_left_out_stays_out_in_later_requests(graph, model, held):
    method = prepared(SRU, model, graph, validation=held, extra="neighbour", num_shards=1)
    first = method.unlearn(model, graph, some_clicks(graph, long_sessions(graph)[:3]))
    gone = int(first.model.left_out.sum())
    assert gone > 0
    method.extra = "none"
    second = method.unlearn(first.model, first.graph, ForgetRequest("session", [first.graph.session_ids[-1]]))
    last = first.graph.session == first.graph.num_sessions - 1
    assert torch.equal(second.model.left_out, first.model.left_out[~last])


# ---- kept on disk


@pytest.mark.parametrize("cls", [SISA, SRU])
def test_a_saved_ensemble_is_the_one_in_memory_bit_for_bit(cls, graph, held, model, tmp_path):
    method = prepared(cls, model, graph, validation=held, num_shards=3)
    path = method.save(tmp_path / "kept")
    other = cls(num_shards=3, settings=BRIEF, validation=held).load(path, like=model)
    one, two = method.preparation, other.preparation
    assert (two.kind, two.model, two.graph, two.seconds) == (cls.name, one.model, one.graph, method.prepare_seconds)
    assert one.module.tensors().keys() == two.module.tensors().keys()
    for name, value in one.module.tensors().items():
        found = two.module.tensors()[name]
        assert value.dtype == found.dtype and torch.equal(value, found), name
    assert one.module.shape() == two.module.shape()
    assert torch.equal(scores(one.module, graph), scores(two.module, graph))
    request = some_clicks(graph, long_sessions(graph)[:3])
    results = [made.unlearn(model, graph, request) for made in (method, other)]
    assert equal(*(result.model for result in results))
    assert torch.equal(*(result.model.left_out for result in results))
    again = [
        made.unlearn(r.model, r.graph, ForgetRequest("session", ["9"])) for made, r in zip((method, other), results)
    ]
    assert equal(*(result.model for result in again))


def test_an_ensemble_from_before_kinds_were_saved_is_one_of_sessions(graph, held, model):
    ensemble = prepared(SRU, model, graph, validation=held, num_shards=3).preparation.module
    shape = ensemble.shape()
    assert shape.pop("kind") == "sessions"
    assert set(shape) == {"num_shards", "graph", "seed", "made_by"}
    rebuilt = ShardEnsemble.rebuilt(shape, ensemble.tensors(), model)
    assert isinstance(rebuilt, SessionEnsemble)
    names = {name.split(".")[0] for name in ensemble.tensors()}
    assert names == {"shards", "members", "left_out", "scale", "sharpness", "offset", "centres"}
    assert torch.equal(scores(rebuilt, graph), scores(ensemble, graph))


def test_a_saved_ensemble_serves_no_other_model(graph, model, tmp_path):
    path = prepared(SISA, model, graph, num_shards=2).save(tmp_path / "kept")
    other, request = session_model("gru4rec", ITEMS, seed=4), ForgetRequest("session", ["4"])
    method = SISA(settings=BRIEF).load(path, like=other)
    with pytest.raises(ValueError, match=r"'model' must be the one that sisa was prepared for"):
        method.unlearn(other, graph, request)
    with pytest.raises(ValueError, match=r"'graph' must be the one that sisa was prepared for"):
        method.unlearn(model, graph.select(torch.arange(20)), request)
    with pytest.raises(ValueError, match=r"'like' must be a model of the class that the shards are of \(got none\)"):
        SISA().load(path)
    with pytest.raises(ValueError, match=r"must hold a preparation of kind 'sru' \(got 'sisa'\)"):
        SRU(aggregation="mean").load(path, like=model)
    with pytest.raises(ValueError, match=r"'path' must be a preparation .*shards"):
        SISA().load(path, like=session_model("sasrec", ITEMS))


# ---- bad input


def test_another_model_or_graph_is_refused(graph, model):
    request = ForgetRequest("session", ["4"])
    with pytest.raises(ValueError, match=r"sisa must be prepared with prepare\(model, graph\) first"):
        SISA().unlearn(model, graph, request)
    method = prepared(SISA, model, graph)
    with pytest.raises(ValueError, match=r"'model' must be the one that sisa was prepared for"):
        method.unlearn(session_model("gru4rec", ITEMS, seed=4), graph, request)
    result = method.unlearn(model, graph, request)
    for wrong, known in (
        (model, "sisa was prepared for"),
        (method.preparation.module, "the shards of sisa were trained"),
    ):
        with pytest.raises(ValueError, match=f"'graph' must be the one that {known}"):
            method.unlearn(wrong, result.graph, ForgetRequest("session", ["5"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SISA(num_shards=0), r"'num_shards' must be a positive integer \(got 0\)"),
        (lambda: SISA(aggregation="vote"), r"'aggregation' must be mean, learned or attention \(got 'vote'\)"),
        (lambda: SRU(extra="all"), r"'extra' must be one of collaborative, neighbour, random, none \(got 'all'\)"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_cannot_be_prepared_is_refused(graph, model):
    with pytest.raises(ValueError, match=r"'num_shards' must not be larger than the number of sessions, 31 \(got 32\)"):
        SISA(num_shards=32).prepare(model, graph)
    for held, got in ((None, "none"), (session_graph([[1], [2]], ITEMS), "shorter ones")):
        with pytest.raises(ValueError, match=rf"'validation' must hold sessions of two clicks .*\(got {got}\)"):
            SRU(validation=held).prepare(model, graph)
