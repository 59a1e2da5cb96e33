"""The level of the scores: means against naive loops, and the rule."""

import copy

import pytest
import torch
from toys import factors, light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.data import ForgetRequest
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import BPR, build_model
from graphunlearn.operators import UnlinkRedraw
from graphunlearn.operators.shared import acceptance
from graphunlearn.operators.shared.acceptance import Acceptance
from graphunlearn.operators.shared.levels import Levels, never_seen


@pytest.mark.parametrize("make", [light_gcn, factors])
def test_means_are_those_of_a_loop(make):
    graph = random_graph()
    model = make(graph).double()
    kept, weight = graph.pairs[:, ::2], torch.arange(1.0, 1 + len(graph.pairs[0, ::2]), dtype=torch.float64)
    unseen = never_seen(graph, kept, seed=3)
    found = Levels.of(gu.encode(model, graph), kept, weight, unseen)
    encoded = gu.encode(model, graph)
    expected = [0.0, 0.0]
    for k, number in enumerate(weight.tolist()):
        for side, pairs in enumerate((kept, unseen)):
            user, item = pairs[:, k].tolist()
            score = sum(float(a) * float(b) for a, b in zip(encoded.queries[user], encoded.items[item]))
            p = 1 / (1 + 2.718281828459045**-score)
            expected[side] += number * (p if side else 1 - p) / float(weight.sum())
    assert (found.missed, found.raised) == pytest.approx(tuple(expected), rel=1e-9)


def test_never_seen_pairs_have_the_same_users_and_are_not_in_the_graph():
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    every = torch.stack([torch.zeros(30, dtype=torch.long), torch.arange(30)])  # one user holds all items
    pairs = torch.cat([graph.pairs[:, graph.pairs[0] > 0], every], 1)
    graph = gu.InteractionGraph.from_edges(pairs, num_users=40, num_items=30)
    unseen = never_seen(graph, graph.pairs, seed=0)
    held = set(zip(*graph.pairs.tolist()))
    assert torch.equal(unseen[0], graph.pairs[0])
    full = graph.adjacency.degree[graph.pairs[0]] == 30
    assert 0 < int(full.sum()) < graph.num_interactions
    assert not held & set(zip(*unseen[:, ~full].tolist()))
    assert torch.equal(unseen[:, full], graph.pairs[:, full])
    model = factors(graph)
    encoded, every = gu.encode(model, graph), torch.ones(len(full)).double()
    some = Levels.of(encoded, graph.pairs, (~full).double(), unseen).raised
    assert Levels.of(encoded, graph.pairs, every, unseen).raised == pytest.approx(some)


@pytest.mark.parametrize(
    ("own", "accepted"),
    [
        ((0.10, 0.30), True),
        ((0.119, 0.30), True),
        ((0.121, 0.30), False),
        ((0.079, 0.30), False),
        ((0.10, 0.361), False),
        ((0.10, 0.239), False),
        ((float("nan"), 0.30), False),
    ],
)
def test_a_change_of_more_than_a_fifth_is_objected_to(own, accepted):
    objection = Levels(*own).objection(Levels(0.1, 0.3))
    assert (objection == "") is accepted
    assert accepted or "by more than 20%" in objection


def test_small_means_may_change_by_more():
    assert not Levels(0.006, 0.3).objection(Levels(0.002, 0.3))
    assert Levels(0.008, 0.3).objection(Levels(0.002, 0.3))


@pytest.fixture
def trained():
    graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
    model = build_model("mf", graph, 8)
    gu.fit(model, graph, epochs=40, objective=BPR(), progress=False)
    return model, graph, ForgetRequest("user", graph.user_ids[:3])


def test_a_level_that_the_loss_does_not_see_is_not_accepted(trained):
    """Along a new dimension, shared by all users and items, every score falls by 3, and no margin moves."""
    model, graph, request = trained
    retained, _ = graph.split(request)
    deleted = UnlinkRedraw().unlearn(model, graph, request).model
    wider = []
    for one, shift in ((model, 0.0), (deleted, 0.0), (deleted, -3.0)):
        other = build_model("mf", graph, 9)
        with torch.no_grad():
            other.embedding.weight[:, :8] = one.embedding.weight
            other.embedding.weight[: graph.num_users, 8] = 1.0
            other.embedding.weight[graph.num_users :, 8] = shift
        wider.append(other)
    before, start, moved = wider
    judge = Acceptance(BPR(negatives=16, weight_decay=0.0), before, start, graph, retained, request)
    found = judge.judge(moved)
    assert found.risk == pytest.approx(judge.risk, rel=1e-5)
    assert not found.accepted
    assert "1 - p of what remains" in found.reason
    assert judge.judge(copy.deepcopy(start)).accepted


def test_losses_without_negatives_are_not_judged_by_levels(trained):
    model, graph, request = trained
    label = (torch.arange(graph.num_interactions) % 2).float()
    labelled = gu.InteractionGraph.from_edges(
        graph.pairs, num_users=graph.num_users, num_items=graph.num_items, label=label
    )
    request = ForgetRequest.internal("interaction", graph.pairs[:, :5])
    retained, _ = labelled.split(request)
    judge = Acceptance(gu.BCE(), model, model, labelled, retained, request)
    assert judge.levels is None
    assert judge.judge(model).levels is None


def test_the_record_has_both_levels(trained):
    model, graph, request = trained
    record = gu.IFRU().unlearn(model, graph, request).log["acceptance"]
    assert [set(one) for one in record["levels"]] == [{"missed", "raised"}] * 2
    assert acceptance.SAMPLED["interactions"][0] > record["samples"]
