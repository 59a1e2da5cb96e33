"""Recommenders of the next click that RecBole trained, unlearned here, and evaluated by RecBole."""

import copy
from collections import defaultdict

import pandas as pd
import pytest
import torch
from recbole_project import RecBole, without_recbole

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge
from graphunlearn.adapters.recbole.session_rows import kept_clicks, windows
from graphunlearn.adapters.recbole.sessions import RecBoleSessions, retained_loaders, session_graphs
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.nn import CrossEntropy, encode_prefixes, reset_parameters
from graphunlearn.nn.tables import item_tables

MODELS = ["SRGNN", "GRU4Rec", "SASRec"]
LEAVE_ONE = {"LS": "valid_and_test"}
SPLITS = {
    "last clicks": {"split": LEAVE_ONE, "group_by": "user"},
    "shares of each": {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user"},
    "shares of all": {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": None},
    "by time": {"split": {"TS": [0.6, 0.2, 0.2]}, "group_by": "user"},
    "validation alone": {"split": {"LS": "valid_only"}, "group_by": "user"},
}
LONGEST = 6  # shorter than many of the sequences


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    without_recbole()
    graph = gu.datasets.synthetic_sessions(num_sessions=150, num_items=40, num_users=30, seed=1)
    frame = graph.to_frame()[["session", "item", "time"]]
    names = {"session": "session_id:token", "item": "item_id:token", "time": "timestamp:float"}
    options = {
        "USER_ID_FIELD": "session_id",
        "MAX_ITEM_LIST_LENGTH": LONGEST,
        "train_neg_sample_args": None,
        "metrics": ["Recall", "MRR"],
        "topk": [5, 10],
        "valid_metric": "MRR@5",
        "embedding_size": 8,
        "hidden_size": 8,
        "inner_size": 8,
        "learning_rate": 0.01,
    }
    return RecBole(tmp_path_factory.mktemp("sessions"), frame.rename(columns=names), options), graph


@pytest.fixture(scope="module")
def all_trained(project):
    """Each model, trained by RecBole once."""
    made = {}

    def one(name):
        if name not in made:
            config, loaders = project[0].prepare(name, eval_args=arguments("last clicks"))
            made[name] = (config, loaders, project[0].train(config, loaders).eval())
        return made[name]

    return one


@pytest.fixture(params=MODELS)
def trained(all_trained, request):
    return all_trained(request.param)


def arguments(split, mode="full"):
    return SPLITS[split] | {"order": "TO", "mode": mode}


@pytest.fixture(params=SPLITS)
def split(project, request):
    return project[0].prepare("GRU4Rec", eval_args=arguments(request.param))[1]


def rows_of(loader):
    """The rows of a loader as raw ids: sequence, history, what follows."""
    if loader is None:
        return []
    dataset = loader._dataset
    rows = dataset.inter_feat
    items = dataset.field2id_token["item_id"]
    return [
        (uid, tuple(items[history[:length]]), items[target])
        for uid, history, length, target in zip(
            dataset.id2token("session_id", rows["session_id"].numpy()),
            rows["item_id_list"].numpy(),
            rows["item_length"].tolist(),
            rows["item_id"].tolist(),
        )
    ]


def raw(graph):
    """The sessions of a graph as lists of raw item ids, by their own."""
    out = defaultdict(list)
    for session, item in zip(graph.session.tolist(), graph.items.tolist()):
        out[graph.session_ids[session]].append(graph.item_ids[item])
    return dict(out)


def a_request(graph, seed=0):
    """A session, an item, and some clicks: of one session all but one, of another the first."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(graph.num_sessions, generator=generator)
    long = order[graph.length[order] > 2]
    drawn = torch.randperm(graph.num_clicks, generator=generator)[:15]
    places = [(int(long[0]), place) for place in range(int(graph.length[long[0]]) - 1)] + [(int(long[1]), 0)]
    places += zip(graph.session[drawn].tolist(), graph.position[drawn].tolist())
    clicks = gu.ForgetRequest.internal("click", torch.tensor(sorted(set(places))).t())
    item = graph.item_ids[int(graph.items[torch.randint(graph.num_clicks, (1,), generator=generator)])]
    return clicks | gu.ForgetRequest("session", [graph.session_ids[int(order[-1])]]) | gu.ForgetRequest("item", [item])


def test_windows_are_those_of_a_loop():
    values = torch.arange(1, 10).view(9, 1) * torch.tensor([1, 10])
    found = windows(values, torch.tensor([3, 0, 8]), torch.tensor([4, 1, 2]), 5)
    for row, (end, length) in zip(found.tolist(), [(3, 4), (0, 1), (8, 2)]):
        assert row == values[end - length + 1 : end + 1].tolist() + [[0, 0]] * (5 - length)


def test_both_compute_the_same(trained):
    _, loaders, model = trained
    graphs, wrapped = session_graphs(*loaders), RecBoleSessions(model).eval()
    for graph, loader in zip(graphs[1:], loaders[1:]):
        theirs = torch.cat([model.full_sort_predict(batch[0]) for batch in loader])
        ours = gu.encode(wrapped, graph)
        torch.testing.assert_close(ours.queries @ ours.items.t(), theirs[:, 1:], atol=1e-6, rtol=0)
    dataset, samples = loaders[0]._dataset, CrossEntropy().samples(graphs[0])
    order = torch.argsort(dataset.inter_feat["session_id"], stable=True)
    theirs = model.full_sort_predict(dataset[order.numpy()])  # every prefix that it was trained on, however long
    backwards = torch.arange(len(samples)).flip(0)
    ours = encode_prefixes(wrapped, graphs[0], samples.ends[backwards])
    torch.testing.assert_close(ours.queries @ ours.items.t(), theirs[backwards, 1:], atol=1e-6, rtol=0)
    assert torch.equal(samples.target + 1, dataset.inter_feat["item_id"][order])
    assert encode_prefixes(wrapped, graphs[0], samples.ends[:0]).queries.shape == (0, 8)


def test_gradients_are_those_of_recbole_without_its_padding_row(trained):
    _, loaders, model = trained
    graph, wrapped = session_graphs(*loaders)[0], RecBoleSessions(model).eval()
    samples = CrossEntropy().samples(graph)
    with torch.backends.cudnn.flags(enabled=False):
        CrossEntropy().losses(wrapped, graph, samples).mean().backward()
    ours = {name: p.grad.clone() for name, p in wrapped.module.named_parameters()}
    theirs = copy.deepcopy(model)
    states = theirs(*(loaders[0]._dataset.inter_feat[name] for name in ("item_id_list", "item_length")))
    scores = states @ theirs.item_embedding.weight[1:].t()
    torch.nn.functional.cross_entropy(scores, loaders[0]._dataset.inter_feat["item_id"] - 1).backward()
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-6, rtol=1e-4)
    assert not ours["item_embedding.weight"][0].any()


def test_sequences_are_put_together_whatever_their_length(project, split):
    whole, rows = raw(project[1]), [rows_of(loader) for loader in split]
    graph, *held = session_graphs(*split)
    count = defaultdict(int)
    for uid, _, _ in rows[0]:
        count[uid] += 1
    assert raw(graph) == {uid: whole[uid][: 1 + count[uid]] for uid in count}
    assert max(count.values()) > LONGEST
    assert graph.item_ids == split[0]._dataset.field2id_token["item_id"].tolist()[1:]
    for loader, prefixes in zip(split[1:], held):
        if not len(loader._dataset):
            assert prefixes is None
            continue
        histories = raw(prefixes)
        found = [
            (name.rpartition(":")[0], tuple(histories[name]), prefixes.item_ids[target])
            for name, target in zip(prefixes.session_ids, prefixes.target.tolist())
        ]
        assert found == rows_of(loader)
        assert [prefixes.vocabulary("user")[n] for n in prefixes.user.tolist()] == [uid for uid, _, _ in found]
        for uid, history, target in found:
            count[uid] += 1
            assert (list(history), target) == (whole[uid][: count[uid]][-LONGEST:], whole[uid][count[uid]])


def test_times_are_those_of_recbole(project, split):
    graph = session_graphs(*split)[0]
    frame = project[1].to_frame()
    first = frame[frame.session.isin(graph.session_ids)].groupby("session", observed=True).time.first()
    starts = graph.time[graph.click_ptr[:-1]]
    assert starts.tolist() == [float(torch.tensor(first[name]).float()) for name in graph.session_ids]


def test_without_a_request_the_rows_are_the_same(split):
    graph = session_graphs(*split)[0]
    after, gone = retained_loaders(*split, graph, graph)
    assert gone == 0
    for new, old in zip(after, split):
        if new is None:
            assert not len(old._dataset)
            continue
        assert type(new) is type(old) and new.config is old.config and new.step == old.step
        assert set(new._dataset.inter_feat.columns) == set(old._dataset.inter_feat.columns)
        for name in old._dataset.inter_feat.columns:
            mine, theirs = new._dataset.inter_feat[name], old._dataset.inter_feat[name]
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


@pytest.mark.parametrize("seed", range(2))
def test_training_rows_are_recboles_augmentation_of_what_remains(split, seed):
    from recbole.data.interaction import Interaction

    graph = session_graphs(*split)[0]
    retained, _ = graph.split(a_request(graph, seed))
    train = retained_loaders(*split, graph, retained)[0][0]._dataset
    uid = torch.as_tensor(train.token2id("session_id", retained.session_ids))
    clicks = {"session_id": uid[retained.session], "item_id": retained.items + 1, "timestamp": retained.time.float()}
    theirs = train.copy(Interaction(clicks))
    theirs.data_augmentation()
    order = torch.argsort(train.inter_feat["session_id"], stable=True)
    for name in theirs.inter_feat.columns:
        assert torch.equal(train.inter_feat[name][order], theirs.inter_feat[name])


def test_histories_are_made_anew_of_columns_that_are_dropped(project):
    found = []
    for unused in (None, {"inter": ["timestamp"]}):
        loaders = project[0].prepare("GRU4Rec", eval_args=arguments("last clicks"), unused_col=unused)[1]
        graph = session_graphs(*loaders)[0]
        assert (graph.time is None) == (unused is not None)
        request = gu.ForgetRequest("session", graph.session_ids[3:6]) | gu.ForgetRequest("item", graph.item_ids[4:7])
        found.append(retained_loaders(*loaders, graph, graph.split(request)[0])[0])
    for whole, part in zip(*found):
        assert set(whole._dataset.inter_feat.columns) - set(part._dataset.inter_feat.columns) == {"timestamp"}
        for name in part._dataset.inter_feat.columns:
            assert torch.equal(whole._dataset.inter_feat[name], part._dataset.inter_feat[name])


@pytest.mark.parametrize("seed", range(2))
def test_held_out_rows_are_those_of_a_loop(project, split, seed):
    whole, graph = raw(project[1]), session_graphs(*split)[0]
    before = [rows_of(loader) for loader in split]
    request = a_request(graph, seed)
    mask, retained = request.mask(graph), graph.split(request)[0]
    gone = {(graph.session_ids[s], p) for s, p in zip(graph.session[mask].tolist(), graph.position[mask].tolist())}
    left, had = raw(retained), raw(graph)
    known, still = ({item for items in sessions.values() for item in items} for sessions in (had, left))
    after, dropped = retained_loaders(*split, graph, retained)
    place, expected = defaultdict(int), []
    for rows in before:
        expected.append([])
        for uid, _, target in rows:
            place[uid] += 1
            at = place[uid]
            trained_on = len(had.get(uid, []))

            def is_forgotten(p, uid=uid, trained_on=trained_on):
                item = whole[uid][p]
                if p < trained_on:
                    return (uid, p) in gone
                lost = item in had.get(uid, []) and item not in left.get(uid, [])
                return lost or (item in known and item not in still)

            history = [whole[uid][p] for p in range(at) if not is_forgotten(p)]
            if (uid in had and uid not in left) or is_forgotten(at) or not history:
                continue
            expected[-1].append((uid, tuple(history[-LONGEST:]), target))
    assert [rows_of(loader) for loader in after] == expected
    assert dropped == sum(map(len, before[1:])) - sum(map(len, expected[1:])) > 0


def test_an_item_that_is_held_out_alone_goes_where_it_is_named(project, tmp_path):
    frame = project[1].to_frame()[["session", "item", "time"]].astype({"session": str, "item": str})
    last = frame.groupby("session").tail(1).head(3).assign(item="late", time=lambda rows: rows["time"] + 1)
    columns = ["session_id:token", "item_id:token", "timestamp:float"]
    late = RecBole(tmp_path, pd.concat([frame, last]).set_axis(columns, axis=1), project[0].options)
    config, loaders = late.prepare("GRU4Rec", eval_args=arguments("last clicks"), epochs=1)
    bridge = Bridge(late.train(config, loaders), *loaders)
    assert "late" in {target for _, _, target in rows_of(loaders[2])}
    request = gu.ForgetRequest("session", bridge.graph.session_ids[-1:]) | gu.ForgetRequest("item", ["late"])
    after = bridge.unlearn(gu.Unlink(), request)
    rows = [row for loader in (after.train, after.valid, after.test) for row in rows_of(loader)]
    assert not any("late" in (*history, target) for _, history, target in rows)


def test_of_equal_clicks_any_may_go():
    graph = gu.SessionGraph.from_sequences([[1, 1, 0, 1], [2, 2]])
    retained, _ = graph.split(gu.ForgetRequest.internal("click", torch.tensor([[0, 1], [0, 1]])))
    assert kept_clicks(graph, retained).tolist() == [True, False, True, True, True, False]
    other = gu.SessionGraph.from_sequences([[0, 0]], num_items=3)
    with pytest.raises(ValueError, match=r"'retained' must hold sessions of 'graph' .* \(got '0' besides\)"):
        kept_clicks(graph, other)


@pytest.mark.parametrize("level", ["click", "session", "item", "user"])
def test_recbole_goes_on_with_what_was_unlearned(project, trained, level):
    config, loaders, model = trained
    bridge = Bridge(model, *loaders)
    graph, state = bridge.graph, copy.deepcopy(model.state_dict())
    long = graph.length.argsort()[-6:]
    request = {
        "click": gu.ForgetRequest.internal("click", torch.stack([long, graph.length[long] // 2])),
        "session": gu.ForgetRequest("session", [graph.session_ids[int(n)] for n in long]),
        "user": gu.ForgetRequest("user", [graph.session_ids[int(n)] for n in long]),
        "item": gu.ForgetRequest("item", [graph.item_ids[int(graph.items.bincount().argmax())]]),
    }[level]
    every = gu.CAU(steps=12, batch_size=32, epochs=1, tolerance=0.0)  # steps however near the targets are
    after = bridge.unlearn(every, request)
    assert type(after.model) is type(model) and after.model is not model
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    rows = after.model.item_embedding.weight
    assert torch.equal(rows[0], model.item_embedding.weight[0])  # padding
    assert not torch.equal(rows, model.item_embedding.weight)
    log_p = {name: torch.tensor(values) for name, values in after.result.log["log_p"].items()}
    assert (log_p["after"] - log_p["target"]).abs().mean() < (log_p["before"] - log_p["target"]).abs().mean()

    _, _, test = session_graphs(after.train, after.valid, after.test)
    encoded = gu.encode(after.result.model.eval(), test)
    ours = next_item_metrics(target_ranks(encoded.queries, encoded.items, test.target), ks=(5, 10))
    theirs = project[0].evaluate(config, after.model, after.train, after.test)
    for name in ("recall@5", "recall@10", "mrr@5", "mrr@10"):
        assert theirs[name] == pytest.approx(float(ours[name]), abs=6e-5)  # RecBole rounds
    history = after.test._dataset[:20]
    scores = after.model.full_sort_predict(history)
    assert torch.equal(scores[:, 1:], (encoded.queries @ encoded.items.t())[:20])
    assert not torch.allclose(scores[:, 1:], model.full_sort_predict(history)[:, 1:], atol=1e-3)

    retained = raw(after.result.graph)
    for uid, history, target in rows_of(after.train):
        together = [*history, target]
        assert any(retained[uid][n : n + len(together)] == together for n in range(len(retained[uid])))
    if level in ("session", "user"):
        assert after.held_out_dropped == 2 * len(long)
        gone = {graph.session_ids[int(n)] for n in long}
        assert not gone & {uid for loader in (after.train, after.valid, after.test) for uid, _, _ in rows_of(loader)}
    if level == "item":
        name = graph.item_ids[int(graph.items.bincount().argmax())]
        rows = [row for loader in (after.train, after.valid, after.test) for row in rows_of(loader)]
        assert not any(name == target or name in history for _, history, target in rows)


def test_recbole_trains_on_with_what_remains(project, all_trained):
    config, loaders, model = all_trained("GRU4Rec")
    bridge = Bridge(model, *loaders)
    after = bridge.unlearn(gu.CAU(steps=1), gu.ForgetRequest("session", bridge.graph.session_ids[:2]))
    again = project[0].train(config, (after.train, after.valid, after.test))
    assert project[0].evaluate(config, again, after.train, after.test)["recall@10"] > 0


@pytest.mark.parametrize(
    "method",
    [
        gu.FineTune(epochs=1, batch_size=64),
        gu.AscentFineTune(steps=2, finetune_steps=2),
        gu.GradientAscent(steps=2),
        gu.NegativeKL(steps=2),
        gu.Retrain(settings=gu.nn.FitSettings(epochs=2, batch_size=64, lr=0.01)),
    ],
    ids=lambda method: method.name,
)
def test_baselines_serve_too(project, all_trained, method):
    config, loaders, model = all_trained("SASRec")
    bridge = Bridge(model, *loaders)
    after = bridge.unlearn(method, gu.ForgetRequest("session", bridge.graph.session_ids[:5]))
    changed = [name for name, value in after.model.state_dict().items() if not value.equal(model.state_dict()[name])]
    assert len(changed) == len(model.state_dict())
    rows = after.model.item_embedding.weight
    assert torch.equal(rows[0], model.item_embedding.weight[0]) == (method.name != "retrain")
    assert 0 < project[0].evaluate(config, after.model, after.train, after.test)["recall@10"] <= 1


def test_parameters_are_drawn_as_recbole_draws_them(trained):
    from recbole.utils import get_model

    config, loaders, model = trained
    config["hidden_size" if config["model"] == "SASRec" else "embedding_size"] = 64  # enough to see how they spread
    fresh = get_model(config["model"])(config, loaders[0]._dataset)
    wrapped = RecBoleSessions(model)
    config["hidden_size" if config["model"] == "SASRec" else "embedding_size"] = 8
    wrapped.module = copy.deepcopy(fresh)
    with torch.no_grad():
        for p in wrapped.parameters():
            p.fill_(9.0)
    reset_parameters(wrapped, 3)
    for name, p in fresh.named_parameters():
        mine = wrapped.module.get_parameter(name)
        assert float(mine.mean()) == pytest.approx(float(p.mean()), abs=0.1)
        assert float(mine.std(correction=0)) == pytest.approx(float(p.std(correction=0)), rel=0.3)
    first = copy.deepcopy(wrapped.state_dict())
    reset_parameters(wrapped, 3)
    assert all(torch.equal(value, first[name]) for name, value in wrapped.state_dict().items())


def test_rows_of_items_can_be_written(trained):
    wrapped = RecBoleSessions(trained[2])
    (table,) = item_tables(wrapped, wrapped.num_items)
    assert table.requires_grad and len(table) == wrapped.num_items
    with torch.no_grad():
        table[2] = 7.0
    assert (wrapped.module.item_embedding.weight[3] == 7.0).all()
    assert not (wrapped.module.item_embedding.weight[:3] == 7.0).any()
    wrapped.module.item_embedding.weight.requires_grad = False
    assert not item_tables(wrapped, wrapped.num_items)[0].requires_grad


def test_sampled_negatives_are_kept_up(project):
    arguments_of = arguments("last clicks", "uni5")
    config, loaders = project[0].prepare("GRU4Rec", eval_args=arguments_of)
    model = project[0].train(config, loaders)
    bridge = Bridge(model, *loaders)
    after = bridge.unlearn(gu.CAU(steps=1), gu.ForgetRequest("session", bridge.graph.session_ids[:2]))
    assert type(after.test) is type(loaders[2]) and after.test._sampler.phase == "test"
    assert project[0].evaluate(config, after.model, after.train, after.test)["recall@5"] > 0


def test_what_does_not_fit_is_refused(project, all_trained):
    _, loaders, model = all_trained("GRU4Rec")
    with pytest.raises(TypeError, match=r"'module' must be one of RecBole's SRGNN, GRU4Rec, SASRec \(got .*Linear\)"):
        RecBoleSessions(torch.nn.Linear(2, 2))
    other = copy.deepcopy(model)
    other.loss_type = "BPR"
    with pytest.raises(ValueError, match=r"loss_type='CE' \(got 'BPR'\)"):
        RecBoleSessions(other)
    graph, validation, _ = session_graphs(*loaders)
    with pytest.raises(ValueError, match=r"'graph' must be the training sessions of 'train' \(got others\)"):
        retained_loaders(*loaders, validation, graph)
    with pytest.raises(
        ValueError, match=r"'graph' must have as many items as RecBoleSessions has embeddings, 39 \(got 3\)"
    ):
        gu.encode(RecBoleSessions(model), gu.SessionGraph.from_sequences([[0, 2]]))
    with pytest.raises(ValueError, match=r"every click of a sequence except the first must .* the first of 's"):
        session_graphs(loaders[2])  # the rows before are missing
    broken = copy.copy(loaders[0])
    broken._dataset = loaders[0]._dataset.copy(copy.copy(loaders[0]._dataset.inter_feat))
    broken._dataset.inter_feat.interaction = dict(broken._dataset.inter_feat.interaction)
    broken._dataset.inter_feat.drop("item_id_list")
    with pytest.raises(ValueError, match=r"'train' must hold histories, .* \(got no column item_id_list\)"):
        session_graphs(broken)
