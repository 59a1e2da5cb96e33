"""What the scenarios train on and ask to forget, against what they say."""

import warnings

import pytest
import torch

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import SHARES, adversarial_edges, flipped_labels, removal, requested
from graphunlearn.eval.measure import Judge
from graphunlearn.nn import FitSettings, build_model, reset_parameters


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=1)


def clean(train, validation):
    model = build_model("lightgcn", train, 6, 1)
    reset_parameters(model, 99)
    gu.fit(model, train, validation=validation, settings=FitSettings(epochs=4, lr=0.05))
    return model


def pairs_of(*graphs):
    return {tuple(pair) for graph in graphs for pair in graph.pairs.t().tolist()}


def test_flipped_labels_flips_what_it_says(graph):
    scenario = flipped_labels(graph, share=0.1, seed=2)
    mask = scenario.request.mask(scenario.train)
    assert int(mask.sum()) == round(0.1 * scenario.train.num_interactions)
    truth = {
        pair: float(rating > 3) for pair, rating in zip(map(tuple, graph.pairs.t().tolist()), graph.rating.tolist())
    }
    labels = torch.tensor([truth[pair] for pair in map(tuple, scenario.train.pairs.t().tolist())])
    assert torch.equal(scenario.train.label != labels, mask)
    clean = torch.tensor([truth[pair] for pair in map(tuple, scenario.test.pairs.t().tolist())])
    assert torch.equal(scenario.test.label, clean)  # what judges is never flipped


@pytest.mark.parametrize("level", ["user", "item", "interaction"])
def test_removal_takes_its_share(graph, level):
    scenario = removal(graph, level, share=0.1, seed=4)
    sizes = {
        "user": torch.unique(scenario.train.pairs[0]).numel(),
        "item": torch.unique(scenario.train.pairs[1]).numel(),
        "interaction": scenario.train.num_interactions,
    }
    assert len(scenario.request) == round(0.1 * sizes[level])
    parts = (scenario.train, scenario.validation, scenario.test)
    assert sum(part.num_interactions for part in parts) == graph.num_interactions


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_share_must_be_a_share(graph, share):
    with pytest.raises(ValueError, match="'share' must be between 0 and 1"):
        removal(graph, "user", share=share)


def test_levels_have_a_name_and_a_share_of_their_own(graph):
    for level, name, sizes in (("user", "users", 0), ("item", "items", 1), ("interaction", "random-edges", None)):
        scenario = removal(graph, level)
        whole = scenario.train.num_interactions if sizes is None else scenario.train.pairs[sizes].unique().numel()
        assert scenario.name == name
        assert len(scenario.request) == max(1, round(SHARES[name] * whole))
    with pytest.raises(ValueError, match="'level' must be one of user, item, interaction"):
        removal(graph, "edge")


@pytest.mark.parametrize("make", [removal, lambda g, _, share: flipped_labels(g, share=share)])
def test_a_share_must_leave_something(graph, make):
    with pytest.raises(ValueError, match=r"'share' must leave some of what there is \(got 0.9999, which takes all"):
        make(graph, "user", share=0.9999)


@pytest.mark.parametrize("side", ["user", "item", "both"])
def test_adversarial_edges_are_what_a_clean_model_ranks_lowest(graph, side):
    scenario = adversarial_edges(graph, clean, share=0.3, side=side, seed=2)
    train, validation, test = graph.random_split([0.8, 0.1, 0.1], seed=2)
    encoded = gu.encode(clean(train, validation), train)
    scores = (encoded.queries @ encoded.items.t()).detach()
    injected = scenario.request.mask(scenario.train)
    polluted, found = scenario.train.select(~injected), pairs_of(scenario.train.select(injected))
    assert torch.equal(polluted.pairs, train.pairs)
    held = pairs_of(train, validation, test)
    assert not found & held
    assert pairs_of(scenario.validation, scenario.test) == pairs_of(validation, test)
    users, items = ({pair[k] for pair in pairs_of(train)} for k in (0, 1))
    lowest = set()
    for user in users:
        lowest.add(min((float(scores[user, i]), (user, i)) for i in items if (user, i) not in held)[1])
    of_items = set()
    for item in items:
        of_items.add(min((float(scores[u, item]), (u, item)) for u in users if (u, item) not in held)[1])
    allowed = {"user": lowest, "item": of_items, "both": lowest | of_items}[side]
    assert found <= allowed
    share = {"user": round(0.3 * len(users)), "item": round(0.3 * len(items))}
    counted = {"user": share["user"], "item": share["item"], "both": len(found)}[side]
    assert len(found) == len(scenario.request) == counted
    assert max(share.values()) <= len(found) <= sum(share.values()) or side != "both"
    assert str(len(found)) in scenario.notes[0]


def test_injected_interactions_are_the_strongest_there_are(graph):
    scenario = adversarial_edges(graph.binarize(3), lambda *parts: clean(parts[0], None), seed=1)
    injected = scenario.train.select(scenario.request.mask(scenario.train))
    train, *_ = graph.random_split([0.8, 0.1, 0.1], seed=1)
    assert (injected.label == 1).all()
    assert (injected.rating == train.rating.max()).all()
    assert (injected.time == train.time.max()).all()
    assert injected.time.dtype == train.time.dtype


def test_the_choice_of_adversarial_edges_is_random_and_repeatable(graph):
    one, same, other = (adversarial_edges(graph, clean, seed=seed) for seed in (0, 0, 1))
    assert one.request == same.request
    assert {u for u, _ in one.request.index} != {u for u, _ in other.request.index}
    with pytest.raises(ValueError, match=r"'side' must be one of user, item, both \(got 'users'\)"):
        adversarial_edges(graph, clean, side="users")


def test_a_bad_share_is_told_before_anything_is_trained(graph):
    def trap(train, validation):
        raise AssertionError

    with pytest.raises(ValueError, match=r"'share' must be between 0 and 1 \(got 30\)"):
        adversarial_edges(graph, trap, share=30)


def test_nothing_to_inject():
    full = gu.InteractionGraph.from_edges(torch.cartesian_prod(torch.arange(5), torch.arange(4)).t())
    with pytest.raises(ValueError, match="every chosen user holds every item"):
        adversarial_edges(full, lambda *parts: clean(parts[0], None))
    with pytest.raises(ValueError, match="every chosen item is held by every user"):
        adversarial_edges(full, lambda *parts: clean(parts[0], None), side="item")


def test_a_graph_that_comes_divided_keeps_its_test_part(graph):
    data, test = graph.random_split([0.7, 0.3], seed=5)
    for scenario in (removal(data, "user", test=test), adversarial_edges(data, clean, test=test)):
        assert torch.equal(scenario.test.pairs, test.pairs)
        learned = scenario.train if scenario.name == "users" else scenario.train.split(scenario.request)[0]
        assert learned.num_interactions == round(data.num_interactions * 8 / 9)
        assert pairs_of(learned, scenario.validation) == pairs_of(data)


def test_test_rows_that_the_data_do_not_know_are_counted(graph):
    frame = graph.to_frame()
    known = frame["user"].isin(frame["user"].unique()[:50])
    data = gu.InteractionGraph.from_frame(frame[known].iloc[::2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test = gu.InteractionGraph.from_frame(frame.iloc[1::2], like=data)
    assert test.num_left_out > 0
    case = removal(data, "user", test=test)
    judge = Judge(case.train, case.request, case.validation, case.test, gu.BPR(), trained_labels=False)
    seen = case.train.adjacency.degree > 0
    unseen = sum(not (seen[u] and seen[data.num_users + i]) for u, i in test.pairs.t().tolist())
    assert judge.left_out["test rows with a user or item that training never saw"] == unseen + test.num_left_out


def raw(graph):
    users, items = graph.user_ids, graph.item_ids
    return [(users[u], items[i]) for u, i in graph.pairs.t().tolist()]


@pytest.mark.parametrize("internal", [False, True])
def test_requested_pairs_that_are_only_held_out_are_dropped(graph, internal):
    train, validation, test = graph.random_split([0.8, 0.1, 0.1], seed=3)
    parts = [part.select(torch.arange(4)) for part in (train, validation, test)]
    if internal:
        request = gu.ForgetRequest.internal("interaction", torch.cat([part.pairs for part in parts], 1))
    else:
        request = gu.ForgetRequest("interaction", [pair for part in parts for pair in raw(part)])
    scenario = requested(graph, request, seed=3)
    assert torch.equal(scenario.train.pairs, train.pairs)
    assert pairs_of(scenario.train.select(scenario.request.mask(scenario.train))) == pairs_of(parts[0])
    assert pairs_of(scenario.validation) == pairs_of(validation) - pairs_of(parts[1])
    assert pairs_of(scenario.test) == pairs_of(test) - pairs_of(parts[2])
    assert scenario.notes[0].startswith("8 of the pairs to forget were only in held-out data")


def test_requested_users_items_and_mixtures(graph):
    request = gu.ForgetRequest("user", ["u3"]) | gu.ForgetRequest("item", ["i5", "i6"])
    scenario = requested(graph, request)
    assert scenario.request == request
    assert (scenario.name, scenario.notes) == ("file", [])


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (gu.ForgetRequest("user", ["nobody"]), "'index' must hold users of the graph"),
        (gu.ForgetRequest("interaction", [("u1", "nothing")]), "'index' must hold items of the graph"),
        (gu.ForgetRequest.internal("interaction", torch.tensor([[0], [40]])), "must hold internal item ids"),
    ],
)
def test_unknown_requests_are_refused(graph, request_, sentence):
    with pytest.raises(ValueError, match=sentence):
        requested(graph, request_)


def test_requested_pairs_must_be_interactions_and_one_must_be_learned(graph):
    pairs = pairs_of(graph)
    absent = next((u, i) for u in range(60) for i in range(40) if (u, i) not in pairs)
    with pytest.raises(ValueError, match="not among its"):
        requested(graph, gu.ForgetRequest.internal("interaction", torch.tensor([[absent[0]], [absent[1]]])))
    _, validation, _ = graph.random_split([0.8, 0.1, 0.1], seed=0)
    with pytest.raises(ValueError, match=r"'request' must hold an interaction that is trained on \(got 2, all of them"):
        requested(graph, gu.ForgetRequest("interaction", raw(validation)[:2]))
