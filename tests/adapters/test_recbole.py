"""Recommenders of users and items that RecBole trained, unlearned here, and evaluated by RecBole."""

import copy

import numpy as np
import pytest
import torch
from recbole_project import without_recbole

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge, load_checkpoint, trusting_pickles

MODELS = ["LightGCN", "NGCF", "SGL", "BPR"]
SMALL = {
    "embedding_size": 8,
    "hidden_size_list": [8, 6],
    "n_layers": 2,
    "metrics": ["Recall", "NDCG"],
    "topk": [5],
    "valid_metric": "Recall@5",
}


@pytest.fixture(params=MODELS)
def trained(recbole, request):
    config, loaders = recbole.prepare(request.param, **SMALL)
    return config, loaders, recbole.train(config, loaders)


def full_scores(model, loader, tokens):
    """What RecBole's own full ranking says of every item, for users by their raw ids."""
    from recbole.data.interaction import Interaction

    dataset = loader._dataset
    numbers = torch.as_tensor(dataset.token2id(dataset.uid_field, np.array(tokens)))
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction({dataset.uid_field: numbers}))
    return scores.view(len(tokens), -1)


def rows_of(loader):
    """The raw pairs of a loader's data."""
    dataset = loader._dataset
    fields = (dataset.uid_field, dataset.iid_field)
    columns = [dataset.id2token(field, dataset.inter_feat[field].numpy()).tolist() for field in fields]
    return set(zip(*columns))


def test_both_compute_the_same(trained):
    _, loaders, model = trained
    model.item_embedding.eval()
    modes = [part.training for part in model.modules()]
    bridge = Bridge(model, *loaders)
    assert [part.training for part in model.modules()] == modes
    encoded = gu.encode(bridge.model, bridge.graph)
    torch.nn.Module.train(model, False)
    own = encoded.queries @ encoded.items.t()
    names = bridge.graph.user_ids
    torch.testing.assert_close(own, full_scores(model, loaders[0], names)[:, 1:], atol=1e-5, rtol=1e-5)


def test_ids_map_both_ways(trained):
    _, loaders, model = trained
    bridge = Bridge(model, *loaders)
    pairs = {(bridge.graph.user_ids[u], bridge.graph.item_ids[i]) for u, i in bridge.graph.pairs.t().tolist()}
    assert pairs == rows_of(loaders[0])
    dataset = loaders[0]._dataset
    for number, token in enumerate(bridge.graph.item_ids):
        assert dataset.token2id(dataset.iid_field, token) == number + 1
    held = {(bridge.test.user_ids[u], bridge.test.item_ids[i]) for u, i in bridge.test.pairs.t().tolist()}
    assert held == rows_of(loaders[2])


def test_recbole_sees_new_parameters_and_the_retained_graph(recbole, trained):
    config, loaders, model = trained
    before = copy.deepcopy(model.state_dict())
    recbole.evaluate(config, model, loaders[0], loaders[2])  # fills the caches, where there are any
    bridge = Bridge(model, *loaders)
    users = bridge.graph.user_ids[:2]
    pair = next(p for p in sorted(rows_of(loaders[0])) if p[0] not in users)
    request = gu.ForgetRequest("user", users) | gu.ForgetRequest("interaction", [pair])
    after = bridge.unlearn(gu.IFRU(), request)

    assert type(after.model) is type(model)
    assert after.model.state_dict().keys() == before.keys()
    for name, value in before.items():  # the original is as it was
        assert torch.equal(model.state_dict()[name], value)
    assert any(not torch.equal(value, before[name]) for name, value in after.model.state_dict().items())
    padding = [name for name in before if name in ("user_embedding.weight", "item_embedding.weight")]
    assert all(torch.equal(after.model.state_dict()[name][0], before[name][0]) for name in padding)

    assert rows_of(after.train) == {p for p in rows_of(loaders[0]) if p[0] not in users} - {pair}
    assert rows_of(after.test) == {p for p in rows_of(loaders[2]) if p[0] not in users}
    dropped = sum(len(rows_of(old)) - len(rows_of(new)) for old, new in zip(loaders[1:], (after.valid, after.test)))
    assert after.held_out_dropped == dropped > 0

    # what RecBole ranks with is what this package computes on the retained graph
    encoded = gu.encode(after.result.model, after.result.graph)
    torch.nn.Module.train(after.model, False)
    scores = full_scores(after.model, after.train, bridge.graph.user_ids)
    torch.testing.assert_close(scores[:, 1:], encoded.queries @ encoded.items.t(), atol=1e-5, rtol=1e-5)

    # the forgotten item is a candidate again: nothing of it is masked as seen
    history = after.test.uid2history_item[after.train._dataset.token2id("user_id", pair[0])]
    if history is not None:
        assert after.train._dataset.token2id("item_id", pair[1]) not in history.tolist()
    found = recbole.evaluate(config, after.model, after.train, after.test)
    assert found == pytest.approx(naive_recall(after, 5), abs=1e-4)


def naive_recall(after, k):
    """Recall@k and NDCG@k, user by user, as RecBole defines them."""
    train, valid, test = (rows_of(loader) for loader in (after.train, after.valid, after.test))
    encoded = gu.encode(after.result.model, after.result.graph)
    graph = after.result.graph
    recalls, gains = [], []
    for user in {u for u, _ in test}:
        wanted = {i for u, i in test if u == user}
        seen = {i for u, i in train | valid if u == user}
        scores = (encoded.queries[graph.user_ids.index(user)] @ encoded.items.t()).detach()
        scores[[graph.item_ids.index(i) for i in seen]] = -torch.inf
        best = [graph.item_ids[i] for i in scores.topk(k).indices.tolist()]
        hits = [item in wanted for item in best]
        recalls.append(sum(hits) / len(wanted))
        discount = [1 / np.log2(place + 2) for place in range(k)]
        gains.append(sum(d for d, hit in zip(discount, hits) if hit) / sum(discount[: min(k, len(wanted))]))
    return {f"recall@{k}": np.mean(recalls), f"ndcg@{k}": np.mean(gains)}


def test_recbole_goes_on_training_on_what_remains(recbole, trained):
    config, loaders, model = trained
    bridge = Bridge(model, *loaders)
    after = bridge.unlearn(gu.Unlink(), gu.ForgetRequest("item", bridge.graph.item_ids[:3]))
    if config["model"] == "SGL":
        assert not hasattr(after.model, "sub_graph1")
    start = copy.deepcopy(after.model.state_dict())
    recbole.trainer(config, after.model).fit(after.train, None, saved=False)
    assert any(not torch.equal(value, start[name]) for name, value in after.model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_unlearnrec_is_prepared_on_the_bridge(recbole, name):
    config, loaders = recbole.prepare(name, **SMALL)
    bridge = Bridge(recbole.train(config, loaders), *loaders)
    method = gu.UnlearnRec(
        validation=bridge.validation, objective=bridge.objective, pretraining=gu.operators.EncoderSettings(steps=20)
    )
    method.prepare(bridge.model, bridge.graph)
    after = bridge.unlearn(method, gu.ForgetRequest("user", [bridge.graph.user_ids[0]]))
    assert after.result.method == "unlearnrec"
    assert np.isfinite(list(recbole.evaluate(config, after.model, after.train, after.test).values())).all()


def test_emptied_users_of_sgl_go_where_recbole_takes_users_without_interactions(recbole):
    from recbole.utils import get_model, init_seed

    config, loaders = recbole.prepare("SGL", **SMALL, ssl_weight=0.5, learning_rate=0.05, epochs=60)
    model = recbole.train(config, loaders)
    bridge = Bridge(model, *loaders)
    result = gu.Calibrate().unlearn(bridge.model, bridge.graph, gu.ForgetRequest("user", bridge.graph.user_ids[:4]))
    before = copy.deepcopy(result.model.state_dict())
    after = bridge.restore(result)
    assert all(torch.equal(value, before[name]) for name, value in result.model.state_dict().items())
    rows = after.model.user_embedding.weight[1:5]
    assert torch.equal(rows, model.user_embedding.weight[:1].expand(4, -1))
    torch.testing.assert_close(after.result.model.embedding.weight[:4], rows)
    init_seed(3, True)  # trained again, RecBole has all of them in one place too, its padding row among them
    again = get_model("SGL")(config, after.train._dataset)
    recbole.trainer(config, again).fit(after.train, None, saved=False)
    idle = again.user_embedding.weight[:5]
    assert torch.cosine_similarity(idle[1:], idle[:1]).min() > 0.99
    # a method that leaves them alone is not helped
    kept = bridge.unlearn(gu.Unlink(), gu.ForgetRequest("user", bridge.graph.user_ids[:4])).model
    assert torch.equal(kept.user_embedding.weight, model.user_embedding.weight)


def test_the_objective_has_recboles_gradient(recbole):
    # squared penalty: the loss itself; not squared: its gradient at the trained rows, with all users in one batch
    config, loaders = recbole.prepare("LightGCN", **SMALL, require_pow=True, reg_weight=0.3)
    model = recbole.train(config, loaders)
    bridge = Bridge(model, *loaders)
    assert bridge.objective.weight_decay == 0.3
    batch = next(iter(loaders[0]))
    theirs = model.calculate_loss(batch)
    pairs = torch.stack([batch["user_id"], batch["item_id"], batch["neg_item_id"]]) - 1
    samples = gu.nn.Samples(
        pairs[0], pairs[1], (bridge.graph.num_users, bridge.graph.num_items), negatives=pairs[2:].t()
    )
    mine = gu.BPR(weight_decay=0.3, negatives=1).losses(bridge.model, bridge.graph, samples).mean()
    torch.testing.assert_close(mine, theirs.squeeze(), atol=1e-6, rtol=1e-5)


def test_the_penalty_that_is_not_squared(recbole):
    config, loaders = recbole.prepare("LightGCN", **SMALL, reg_weight=0.3, train_batch_size=4096)
    model = recbole.train(config, loaders)
    batch = next(iter(loaders[0]))
    rows = [
        model.user_embedding(batch["user_id"]),
        *(model.item_embedding(batch[n]) for n in ("item_id", "neg_item_id")),
    ]
    decay = Bridge(model, *loaders).objective.weight_decay
    theirs = 0.3 * model.reg_loss(*rows, require_pow=False).sum()
    mine = 0.5 * decay * sum(part.square().sum(1).mean() for part in rows)
    gradient, mine = (torch.autograd.grad(x, model.item_embedding.weight, retain_graph=True)[0] for x in (theirs, mine))
    scale = float((mine * gradient).sum() / gradient.square().sum())
    assert 0.8 < scale < 1.25  # the mean row stands for the batch's


def test_the_penalty_of_normalised_layers(recbole):
    config, loaders = recbole.prepare(
        "NGCF", **SMALL, reg_weight=0.3, message_dropout=0.0, node_dropout=0.0, train_batch_size=4096
    )
    model = recbole.train(config, loaders)
    batch = next(iter(loaders[0]))
    users, items = model()
    theirs = 0.3 * model.reg_loss(users[batch["user_id"]], *(items[batch[n]] for n in ("item_id", "neg_item_id"))).sum()
    rows = [
        model.user_embedding(batch["user_id"]),
        *(model.item_embedding(batch[n]) for n in ("item_id", "neg_item_id")),
    ]
    mine = 0.5 * Bridge(model, *loaders).objective.weight_decay * sum(part.square().sum(1).mean() for part in rows)
    gradient, mine = (torch.autograd.grad(x, model.item_embedding.weight)[0] for x in (theirs, mine))
    assert 0.8 < float((mine * gradient).sum() / gradient.square().sum()) < 1.25


def test_a_retrained_reference_needs_nothing_but_the_loaders(recbole):
    from recbole.utils import get_model

    config, loaders = recbole.prepare("LightGCN", **SMALL)
    bridge = Bridge(recbole.train(config, loaders), *loaders)
    after = bridge.unlearn(gu.Unlink(), gu.ForgetRequest("user", bridge.graph.user_ids[:5]))
    again = get_model("LightGCN")(config, after.train._dataset)
    torch.testing.assert_close(again.norm_adj_matrix.to_dense(), after.model.norm_adj_matrix.to_dense())


def test_other_models_and_other_data_are_refused(recbole):
    config, loaders = recbole.prepare("LightGCN", **SMALL)
    model = recbole.train(config, loaders)
    with pytest.raises(TypeError, match=r"'model' must be one of RecBole's LightGCN.*\(got torch.*Linear\)"):
        Bridge(torch.nn.Linear(2, 2), *loaders)
    with pytest.raises(TypeError, match=r"'train' must be a data loader of RecBole.*\(got list\)"):
        Bridge(model, [])

    other = copy.deepcopy(model)
    other.norm_adj_matrix = other.norm_adj_matrix * 0.5
    with pytest.raises(ValueError, match="'model' must compute what RecBole's LightGCN does on the training data"):
        Bridge(other, *loaders)
    other = copy.deepcopy(model)
    other.user_embedding = torch.nn.Embedding(70, 8)
    with pytest.raises(ValueError, match=r"'model' must be one of the training data .* \(got one of 69 \+ 80\)"):
        Bridge(other, *loaders)
    bridge = Bridge(model, *loaders)
    result = gu.Unlink().unlearn(gu.nn.MatrixFactorization(bridge.graph.num_nodes, 8), bridge.graph, a_user(bridge))
    with pytest.raises(ValueError, match="'result' must be of this bridge's model, a LightGCN"):
        bridge.restore(result)
    with pytest.raises(ValueError, match="nobody"):
        bridge.unlearn(gu.IFRU(), gu.ForgetRequest("user", ["nobody"]))


def test_what_recbole_turns_on_for_the_whole_process_is_off_while_forgetting(recbole):
    class Watching(gu.Unlink):
        def _unlearn(self, *given):
            return super()._unlearn(*given) | {"anomalies": torch.is_anomaly_enabled()}

    config, loaders = recbole.prepare("BPR", **SMALL)
    bridge = Bridge(recbole.train(config, loaders), *loaders)
    with torch.autograd.set_detect_anomaly(True):
        assert bridge.unlearn(Watching(), a_user(bridge)).result.log == {"anomalies": False}
        assert torch.is_anomaly_enabled()


def a_user(bridge):
    return gu.ForgetRequest("user", bridge.graph.user_ids[:1])


def test_a_pair_that_is_held_out_as_well_is_forgotten_there_too(recbole):
    config, loaders = recbole.prepare("BPR", **SMALL)
    model = recbole.train(config, loaders)
    twice = Bridge(model, loaders[0], loaders[0], loaders[2])  # training data as validation data
    pair = sorted(rows_of(loaders[0]))[0]
    after = twice.unlearn(gu.Unlink(), gu.ForgetRequest("interaction", [pair]))
    assert rows_of(after.valid) == rows_of(after.train) == rows_of(loaders[0]) - {pair}
    assert after.held_out_dropped == 1


def test_what_is_named_leaves_held_out_rows_though_nothing_was_learned_from_it(recbole):
    # most is held out, whosever it is: of some users and items nothing is left to train on
    shares = {"split": {"RS": [0.1, 0.4, 0.5]}, "group_by": None, "order": "RO", "mode": "full"}
    config, loaders = recbole.prepare("BPR", **SMALL, eval_args=shares)
    bridge = Bridge(recbole.train(config, loaders), *loaders)
    idle = ((bridge.graph.adjacency.degree == 0) & (bridge.test.adjacency.degree > 0)).nonzero().flatten()
    users, items = idle[idle < bridge.graph.num_users], idle[idle >= bridge.graph.num_users] - bridge.graph.num_users
    known = bridge.graph.user_ids[int(bridge.graph.pairs[0, 0])]
    names = {bridge.graph.user_ids[int(users[0])], bridge.graph.item_ids[int(items[0])], known}
    request = gu.ForgetRequest.internal("user", users[:1]) | gu.ForgetRequest.internal("item", items[:1])
    after = bridge.unlearn(gu.Unlink(), request | gu.ForgetRequest("user", [known]))
    rows = [row for loader in (after.train, after.valid, after.test) for row in rows_of(loader)]
    assert not any(names & set(row) for row in rows)


def test_a_bridge_needs_training_data_alone(recbole):
    config, loaders = recbole.prepare("LightGCN", **SMALL)
    bridge = Bridge(recbole.train(config, loaders), loaders[0])
    after = bridge.unlearn(gu.IFRU(), a_user(bridge))
    assert bridge.test is None
    assert after.valid is None
    assert after.test is None
    assert len(after.train._dataset) < len(loaders[0]._dataset)


def test_checkpoints_are_not_read_without_being_trusted(recbole, tmp_path):
    from recbole.utils import get_model

    config, loaders = recbole.prepare("LightGCN", **SMALL)
    model = get_model("LightGCN")(config, loaders[0]._dataset)
    trainer = recbole.trainer(config, model)
    trainer.fit(*loaders[:2], saved=True)
    file = trainer.saved_model_file
    fresh = get_model("LightGCN")(config, loaders[0]._dataset)
    start = copy.deepcopy(fresh.state_dict())
    with pytest.raises(ValueError, match="trust_pickle=True"):
        load_checkpoint(fresh, file)
    assert all(torch.equal(value, start[name]) for name, value in fresh.state_dict().items())
    load_checkpoint(fresh, file, trust_pickle=True)
    with trusting_pickles():
        found = trainer.evaluate(loaders[2])  # loads its best model from the file
    assert recbole.evaluate(config, fresh, loaders[0], loaders[2]) == found
    with pytest.raises(Exception, match=r"[Ww]eights"):
        trainer.evaluate(loaders[2])

    plain = tmp_path / "plain.pt"
    torch.save(model.state_dict(), plain)
    load_checkpoint(fresh, plain)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in fresh.state_dict().items())
    torch.save({name: value[1:] for name, value in model.state_dict().items()}, plain)
    with pytest.raises(ValueError, match="'path' must hold the parameters of a LightGCN of these sizes"):
        load_checkpoint(fresh, plain)
    for content in ({1: torch.ones(2)}, {"state_dict": 3}, [torch.ones(2)]):
        torch.save(content, plain)
        with pytest.raises(ValueError, match="'path' must hold a RecBole checkpoint or a state_dict"):
            load_checkpoint(fresh, plain)
    for dtype in (torch.long, torch.complex64):
        torch.save({name: value.to(dtype) for name, value in model.state_dict().items()}, plain)
        with pytest.raises(ValueError, match=r"which differs in user_embedding\.weight"):
            load_checkpoint(fresh, plain)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"'path' must hold tensors \(got .*, which is broken: "):
        load_checkpoint(fresh, broken)
    other = get_model("BPR")(config, loaders[0]._dataset)  # whose parameters have the same names and sizes
    with pytest.raises(ValueError, match=r"the parameters of a BPR \(got .*, a checkpoint of a LightGCN\)"):
        load_checkpoint(other, file, trust_pickle=True)


def test_the_package_is_there_without_recbole():
    # the names can be imported, and say what is missing only when used
    with pytest.raises(TypeError, match="'model' must be one of RecBole's"):
        Bridge(torch.nn.Linear(2, 2), None)


def test_what_is_skipped_says_why():
    try:
        import recbole  # noqa: F401
    except ImportError:
        with pytest.raises(pytest.skip.Exception, match="environment of its own"):
            without_recbole()
