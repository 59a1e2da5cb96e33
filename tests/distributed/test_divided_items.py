"""Rows of items that are divided between ranks: results are those of one process, and bytes those of the cost model."""

import pytest
import torch
from several import together

import graphunlearn as gu
from graphunlearn.distributed import (
    Ranks,
    audit,
    build_part,
    fit,
    measure,
    model_part,
    recommend,
    take_part,
    unlearn,
    whole_model,
    whole_result,
)
from graphunlearn.distributed.fitting import ShardObjective
from graphunlearn.distributed.items import DividedItems, Exchange
from graphunlearn.distributed.risk import shard_risk
from graphunlearn.nn import build_model, reset_parameters
from graphunlearn.nn.encoding import best_items

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ALL = gu.datasets.synthetic_interactions(num_users=40, num_items=25, interactions_per_user=8, seed=0)
TRAIN, VALIDATION = ALL.random_split([0.85, 0.15])
SETTINGS = {"epochs": 4, "batch_size": 60, "seed": 2}


def rows(ranks):
    items = DividedItems(ranks, (0, 2, 2, 5))  # rank 1 holds none
    x = torch.arange(10.0).view(5, 2)
    wanted = [torch.tensor([0, 3, 4]), torch.tensor([1]), torch.tensor([], dtype=torch.long)][ranks.rank]
    exchange = Exchange(items, wanted)
    before = ranks.sent
    found = exchange.fetch(items.own(x))
    back = exchange.summed(torch.ones(len(wanted), 2))
    sent = ranks.sent - before
    return found, back, sent, items.whole(items.own(x)), items.summed(x * (1 + ranks.rank))


def test_rows_are_fetched_from_those_who_hold_them_and_summed_there():
    x = torch.arange(10.0).view(5, 2)
    answers = together(rows, 3)
    assert [found.tolist() for found, *_ in answers] == [x[[0, 3, 4]].tolist(), x[[1]].tolist(), []]
    assert [back.tolist() for _, back, *_ in answers] == [[[1, 1], [1, 1]], [], [[0, 0], [1, 1], [1, 1]]]
    # two rows go from rank 2 to rank 0, one from rank 0 to rank 1, and as many sums go the other way
    assert [sent for _, _, sent, *_ in answers] == [8 * (1 + 2), 8 * (0 + 1), 8 * (2 + 0)]
    assert all(torch.equal(whole, x) for *_, whole, _ in answers)
    assert torch.equal(torch.cat([own for *_, own in answers]), 6 * x)


def train(ranks, name, **changes):
    graph = take_part(TRAIN, ranks, items="sharded")
    validation = take_part(VALIDATION, ranks, like=graph)
    model = build_part(name, graph, 4, 2, seed=3)
    result = fit(model, graph, validation=validation, **{**SETTINGS, **changes})
    return result, whole_model(model, graph), model.embedding.weight.size(0), graph.num_users


@pytest.mark.parametrize(("name", "world"), [("lightgcn", 2), ("lightgcn", 4), ("mf", 2)])
def test_training_is_that_of_one_process(name, world):
    model = build_model(name, TRAIN, 4, 2)
    reset_parameters(model, 3)
    result = gu.fit(model, TRAIN, validation=VALIDATION, **SETTINGS)
    held = 0
    for found, whole, size, users in together(train, world, name):
        held += size - users
        assert found.best_epoch == result.best_epoch
        for record, wanted in zip(found.history, result.history, strict=True):
            assert record == pytest.approx(wanted, rel=1e-5)
        assert (found.best, found.untrained, found.popularity) == pytest.approx(
            (result.best, result.untrained, result.popularity), rel=1e-5
        )
        if whole is not None:
            torch.testing.assert_close(whole.embedding.weight, model.embedding.weight, rtol=1e-4, atol=1e-5)
    assert held == TRAIN.num_items  # every row is held by one rank


def interrupted(ranks, folder):
    whole = train(ranks, "lightgcn")[1]
    train(ranks, "lightgcn", epochs=2, checkpoint=folder / "state")
    return whole, train(ranks, "lightgcn", checkpoint=folder / "state")[:2]


def test_a_resumed_training_is_the_one_without_a_break(tmp_path):
    whole, (result, resumed) = together(interrupted, 2, tmp_path)[0]
    assert len(result.history) == 4
    assert torch.equal(resumed.embedding.weight, whole.embedding.weight)


DIM, LAYERS = 4, 2


def one_step(ranks):
    graph = take_part(TRAIN, ranks, items="sharded")
    model, objective = build_part("lightgcn", graph, DIM, LAYERS, seed=3), ShardObjective(gu.BPR(), ranks)
    graph.adjacency.normalized()
    batch = next(objective.batches(objective.samples(graph), 60, torch.Generator().manual_seed(0)))
    used = torch.cat([batch.own.items, batch.own.negatives.flatten()]).unique()
    held = graph.item_rows
    other = [int(((x < held.first) | (x >= held.last)).sum()) for x in (graph.pairs[1].unique(), used)]
    sent = [ranks.sent]
    objective.losses(model, graph, batch).mean().backward()
    sent.append(ranks.sent)
    risk = shard_risk(model, graph, gu.BPR(weight_decay=0.0))
    product = risk.curvature(risk.parameters)
    sent.append(ranks.sent)
    product(risk.parameters)
    return sent[1] - sent[0], ranks.sent - sent[2], *other


def test_the_bytes_of_a_step_and_of_a_product_are_those_of_the_cost_model():
    world = 2
    step, product, neighbours, used = (sum(found) for found in zip(*together(one_step, world), strict=True))
    of_layers = 2 * LAYERS * 2 * neighbours * 4 * DIM  # forwards and backwards, each fetches and sums
    of_samples = used * (2 * 2 * 4 * DIM + 8) + world * (world - 1) * 8  # embeddings and table, there and back; numbers
    assert step == of_layers + of_samples
    assert product == of_layers + 2 * (world - 1) * 4 * TRAIN.num_items * DIM  # all rows to all, and sums of them back


def figures(ranks, users):
    graph = take_part(TRAIN, ranks, items="sharded")
    test = take_part(VALIDATION, ranks, like=graph)
    retained = graph.keep(~graph.mask_of(REQUESTS["users"]))
    original, other = (model_part(model, graph) for model in MODELS)
    lists = recommend(original, graph, 5), recommend(other, graph, 5, users)
    found = audit(graph, retained, test, {"original": original}, [other])
    return found, measure(original, graph, test, (5,)), lists


def made(seed):
    model = build_model("lightgcn", TRAIN, 6, 2)
    reset_parameters(model, seed)
    return model.double()


MODELS = [made(seed) for seed in range(2)]
REQUESTS = {
    "users": gu.ForgetRequest("user", [TRAIN.user_ids[n] for n in (1, 30)]),
    "an item": gu.ForgetRequest("item", [TRAIN.item_ids[4]]),
    "pairs": gu.ForgetRequest(
        "interaction", [(TRAIN.user_ids[u], TRAIN.item_ids[i]) for u, i in TRAIN.pairs[:, ::17].t()]
    ),
}


def replicated(ranks):
    graph = take_part(TRAIN, ranks)
    test = take_part(VALIDATION, ranks, like=graph)
    retained = graph.keep(~graph.mask_of(REQUESTS["users"]))
    original, other = (model_part(model, graph) for model in MODELS)
    return audit(graph, retained, test, {"original": original}, [other]), measure(original, graph, test, (5,))


@torch.no_grad()
def test_lists_metrics_and_distances_are_those_of_one_process():
    users = [TRAIN.user_ids[n] for n in (38, 0, 17)]
    wanted = replicated(Ranks())
    answers = together(figures, 3, users)
    for audited, scores, _ in answers:
        for name in ("forgotten", "test"):
            assert audited["original"][name] == pytest.approx(wanted[0]["original"][name], rel=1e-9)
        assert scores == pytest.approx(wanted[1], rel=1e-5)
    learned = TRAIN.active[TRAIN.num_users :]
    for found, model, numbers in zip(answers[0][2], MODELS, (None, torch.tensor([38, 0, 17])), strict=True):
        items, values = best_items(model, TRAIN, 5, numbers, candidates=learned)
        assert torch.equal(found[0], items)
        torch.testing.assert_close(found[1], values)
    assert answers[1][2] == (None, None)


def longest(ranks):
    graph = take_part(TRAIN, ranks, items="sharded")
    return recommend(model_part(MODELS[0], graph), graph, TRAIN.num_items)


def test_a_list_of_all_items_ends_without_those_that_are_excluded():
    items, values = together(longest, 2)[0]
    wanted, expected = best_items(MODELS[0], TRAIN, TRAIN.num_items, candidates=TRAIN.active[TRAIN.num_users :])
    assert torch.equal(items, wanted)
    torch.testing.assert_close(values, expected)


METHODS = {"ifru": gu.IFRU(within_noise=0), "calibrate": gu.Calibrate(), "unlink-redraw": gu.operators.UnlinkRedraw()}


@pytest.fixture(scope="module")
def model():
    model = build_model("lightgcn", TRAIN, 6, 2)
    reset_parameters(model, 3)
    gu.fit(model, TRAIN, epochs=12, batch_size=100, seed=1)
    return model.double()


def forget(ranks, model, cases):
    graph = take_part(TRAIN, ranks, items="sharded")
    part, answers = model_part(model, graph), {}
    for request, name in cases:
        result = whole_result(unlearn(METHODS[name], part, graph, REQUESTS[request]))
        if result is not None:
            answers[request, name] = result.model.embedding.weight.detach(), result.log
    return answers


CASES = [*((request, "ifru") for request in REQUESTS), ("users", "calibrate"), ("an item", "unlink-redraw")]


@pytest.mark.parametrize(("world", "cases"), [(2, CASES), (4, [("users", "ifru"), ("an item", "calibrate")])])
def test_corrections_are_those_of_one_process(model, world, cases):
    answers = together(forget, world, model, cases)[0]
    assert not isinstance(answers, BaseException)
    for (request, name), (table, log) in answers.items():
        wanted = METHODS[name].unlearn(model, TRAIN, REQUESTS[request])
        assert (table - wanted.model.embedding.weight).abs().max() < 1e-9, (request, name)
        for key in ("touched_rows", "emptied_nodes", "steered", "damping_rule"):
            assert log.get(key) == wanted.log.get(key), (request, name, key)
        if "acceptance" in log:
            own, other = log["acceptance"], wanted.log["acceptance"]
            assert own["outcome"] == other["outcome"]
            assert own["corrected"] == pytest.approx(other["corrected"], rel=1e-7)


def differing(ranks):
    take_part(TRAIN, ranks, items="sharded" if ranks.rank else "replicated")


def test_ranks_that_divide_items_in_other_ways_stop():
    for error in together(differing, 2):
        assert str(error) == "all ranks must be given the same items (got others on rank 1 than on rank 0)"
    with pytest.raises(ValueError, match=r"'items' must be one of replicated, sharded \(got 'divided'\)"):
        take_part(TRAIN, Ranks(), items="divided")
